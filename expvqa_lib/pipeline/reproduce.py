"""Run the numbered notebooks in order with papermill, and gather them and their figures in two pages."""

import html
import os
import re
import shlex
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import nbformat
import pandas as pd
import papermill
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter

from ..errors import ExpVQAError, SettingsError
from ..evaluation import results_table
from ..files import atomic
from .checkout import repository_root, software
from .run import Run

ABLATIONS = "11_ablations"
"""The notebook of the profiles with ablations."""

PARAMETERS = ("profile", "data_root", "base", "output", "figures_dir")
"""Names in the parameters cell of each numbered notebook; all are strings."""

ASSETS = Path(__file__).parents[1] / "assets"
REMOTE_IMAGE = re.compile(r"\[!\[[^]]*\]\(https?:[^)]*\)\]\([^)]*\)|!\[[^]]*\]\(https?:[^)]*\)")
WIDGET = "application/vnd.jupyter.widget-view+json"  # a page without a kernel cannot draw it
LONG = 40  # lines of a table that the page of figures links to only
NEEDS_AUS = "action-units"
"""Tag of cells that measure action units, and are left out where no data set has them."""
HIDDEN = {"install", "parameters"}
"""Tags of cells that the report leaves out; the parameters of the run stand in an injected cell."""


def reproduce(
    profile: str = "quick",
    *,
    data_root: str = "",
    base: str = "",
    output: str | Path = "",
    figures: str | Path = "",
    start: str = "",
    notebooks: str | Path = "",
) -> Path:
    """Run the notebooks `NN_*.ipynb`, write the report and the page of figures, and return the report's path.

    Args:
        profile, data_root, base, output, figures: as for `Run`. Executed notebooks stay in
            `<output>/<profile>/notebooks`, so that a run can resume.
        start: number of the notebook to start with; the ones before are kept as an earlier run left them.
        notebooks: folder of the notebooks; default: that of the checkout.

    Raises:
        SettingsError: there is no such profile, or it has no such notebook.
        ExpVQAError: a folder cannot be written to, or a notebook failed.
    """
    base = base if base and not Path(base).is_dir() else _absolute(base)
    folders = [_absolute(folder) for folder in (data_root, output, figures)]
    values = dict(zip(PARAMETERS, (profile, folders[0], base, *folders[1:]), strict=True))
    run = Run(**values)
    paths = [path for path in find_notebooks(notebooks) if run.profile.ablations or path.stem != ABLATIONS]
    if start and start.zfill(2) not in {path.name[:2] for path in paths}:
        raise SettingsError(
            f"profile {profile!r} has no notebook {start!r}; it has {', '.join(path.stem for path in paths)}"
        )
    chosen, executed = [p for p in paths if p.name[:2] >= start.zfill(2)], run.folder / "notebooks"
    for folder in (executed, run.figures_dir):  # refuse a read-only one before any work
        with atomic(folder / ".writable") as temporary:
            temporary.touch()
        (folder / ".writable").unlink()
    # the kernel `python3` is this interpreter's, whatever the user has installed
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    for position, path in enumerate(chosen, start=1):
        _execute(path, executed / path.name, run, values, f"[{position}/{len(chosen)}] {path.stem}")
        run.record(path.stem)
    write_figures_page(run.figures_dir)
    ran = [executed / path.name for path in paths if (executed / path.name).is_file()]
    return _write_report({path.stem: nbformat.read(path, 4) for path in ran}, run, paths[0].parent)


def _absolute(folder: str | Path) -> str:
    """A folder as the notebooks, which run in their own, find it; empty where none is given."""
    return str(Path(folder).resolve()) if folder else ""


def find_notebooks(folder: str | Path = "") -> list[Path]:
    """Return the notebooks `NN_*.ipynb` of a folder (default: `notebooks/` of the checkout) in order.

    Raises:
        ExpVQAError: there is none.
    """
    folder = Path(folder or (repository_root() or Path.cwd()) / "notebooks").resolve()
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise ExpVQAError(
            f"{folder}: no numbered notebooks (NN_name.ipynb); they belong to the repository, not to the "
            "installed package: clone it and install with pip install -e ."
        )
    return paths


def _execute(source: Path, target: Path, run: Run, values: dict[str, str], label: str) -> None:
    """Run one notebook into `target`, showing progress; a failed one becomes `NN_name.failed.ipynb`."""
    print(f"{label} ...", flush=True)
    failed = target.with_suffix(".failed.ipynb")
    failed.unlink(missing_ok=True)
    with atomic(target) as temporary:
        try:
            done = papermill.execute_notebook(
                _without_missing(nbformat.read(source, 4), run),
                temporary,
                values,
                kernel_name="python3",
                cwd=source.parent,
                progress_bar={"desc": label, "leave": False, "disable": None},  # on a terminal
                extra_arguments=["--log-level=CRITICAL"],  # without the kernel's own notes
            )
        except Exception as error:  # a failing cell, a kernel that died or would not start
            if temporary.is_file():
                os.replace(temporary, failed)
            raise _failure(source, failed, values, error) from error
    print(f"{label}: {done.metadata.papermill.duration:.0f} s", flush=True)


def _without_missing(notebook: nbformat.NotebookNode, run: Run) -> nbformat.NotebookNode:
    """The notebook with a sentence in place of each cell whose labels no data set of the run has."""
    for position, cell in enumerate(notebook.cells):
        if NEEDS_AUS in cell.metadata.get("tags", ()) and not run.has_aus:
            text = f"*{_first_line(cell)}: left out. No data set has action units and a test split.*"
            notebook.cells[position] = nbformat.v4.new_markdown_cell(text)
    return notebook


def _failure(source: Path, failed: Path, values: dict[str, str], error: Exception) -> ExpVQAError:
    """Return the error that names the notebook, the cell, what happened and how to resume."""
    reason = f"{getattr(error, 'ename', type(error).__name__)}: {getattr(error, 'evalue', error)}".strip()
    if isinstance(error, DeadKernelError):
        reason += "; most often memory ran out"
    cells = nbformat.read(failed, 4).cells if failed.is_file() else []
    code = [cell for cell in cells if cell.cell_type == "code"]
    begun = [cell.source.strip() for cell in code if cell.metadata.get("papermill", {}).get("start_time")]
    cell = f"In [{len(begun)}] (`{begun[-1].splitlines()[0]}`)" if begun else "its start"
    options = [
        f"--{name.removesuffix('_dir').replace('_', '-')} {shlex.quote(value)}"
        for name, value in values.items()
        if value
    ]
    return ExpVQAError(
        f"{source.name} failed at {cell}: {reason}. The notebook as far as it came: {failed}. "
        f"Resume with ./run_all.sh {' '.join(options)} --from {source.name[:2]}"
    )


def _write_report(notebooks: Mapping[str, nbformat.NotebookNode], run: Run, source: Path) -> Path:
    """Write the executed notebooks, whose images are relative to `source`, as one page that needs no network.

    The results table comes first.
    """
    exporter = HTMLExporter(
        template_name="report",
        extra_template_basedirs=[str(ASSETS)],
        embed_images=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    exporter.log.setLevel("ERROR")  # no line on the terminal for each figure without an alternative text
    seconds = {name: notebook.metadata.papermill.duration for name, notebook in notebooks.items()}
    made = software()
    resources = {
        "metadata": {"name": f"Exp-VQA companion: profile {run.profile.name}", "path": str(source)},
        "headline": _headline(run),
        "facts": {
            "Date": f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
            "Commit": made.pop("commit") or "not in a git checkout",
            "Software": ", ".join(f"{name} {version}" for name, version in made.items()),
            "Time": _duration(sum(seconds.values())),
        },
        "chapters": {
            name: {"title": _first_line(notebook.cells[0]), "time": _duration(seconds[name])}
            for name, notebook in notebooks.items()
        },
    }
    page, _ = exporter.from_notebook_node(_joined(notebooks), resources)
    with atomic(run.folder / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return run.folder / "report.html"


def _joined(notebooks: Mapping[str, nbformat.NotebookNode]) -> nbformat.NotebookNode:
    """All cells in one notebook: each code cell titled by its comment, each notebook's first by its name."""
    joined = nbformat.v4.new_notebook()
    for name, notebook in notebooks.items():
        cells = [cell for cell in notebook.cells if not HIDDEN & set(cell.metadata.get("tags", ()))]
        cells[0].metadata["chapter"] = name
        for position, cell in enumerate(cells):
            cell.id = f"{name}-{position}"  # notebooks that were copied from one another share ids
            if cell.cell_type == "markdown":
                cell.source = REMOTE_IMAGE.sub("", cell.source)
            else:
                cell.metadata["title"] = _first_line(cell)
                cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
        joined.cells += cells
    return joined


def _first_line(cell: nbformat.NotebookNode) -> str:
    return cell.source.partition("\n")[0].lstrip("# ")


def _duration(seconds: float) -> str:
    """`34 s`, `3 min 20 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _headline(run: Run) -> str:
    """The results table as HTML, and what was measured on what; empty where the run measured nothing."""
    paths = [run.figures_dir / f"{name}.csv" for name in ("au_detection", "captions")]
    rows = pd.concat(
        [pd.read_csv(path) for path in paths if path.is_file()] or [pd.DataFrame()], ignore_index=True
    )
    if rows.empty:
        return ""
    rows["question"] = rows["question"].fillna("Q3")
    corpora = rows.groupby("question")["dataset"].unique().map(", ".join)
    told = {"Q3": "Action units (Q3)", "Q1": "Emotions read out of answers to Q1"}
    text = "; ".join(f"{told[kind]} on the test faces of {corpora[kind]}" for kind in told if kind in corpora)
    text += ". No test person is in training. Percent, with 95 % intervals from resampling people."
    if run.is_rendered:
        text += " Rendered faces: these figures do not compare with published ones."
    table = results_table(rows).rename_axis(None).to_html(border=0)
    return f"{table}<p>{html.escape(text)}</p>"


def write_figures_page(folder: Path) -> None:
    """Write `README.md` of a figures folder: each picture and table with its caption and what made it."""
    runs = pd.read_csv(folder / "runs.csv", dtype=str, keep_default_na=False)
    made = runs.set_index("table").to_dict("index")
    parts = [
        "# Figures and tables",
        "Written at the end of `./run_all.sh`; `runs.csv` has the versions and the data.",
    ]
    captions = pd.read_csv(ASSETS / "captions.csv")
    for notebook, rows in captions[captions["name"].isin(os.listdir(folder))].groupby("notebook"):
        parts.append(f"## {notebook}")
        for row in rows.itertuples():
            maker = made.get(Path(row.name).stem) or made.get(notebook) or {}
            made_by = f"profile {maker.get('profile', 'unknown')}, commit {maker.get('commit') or 'unknown'}"
            parts += [f"**{row.caption}**", _shown(folder / row.name), f"<sub>{made_by}</sub>"]
    (folder / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _shown(path: Path) -> str:
    """A picture, or a table where it is short, and links to its files."""
    if path.suffix == ".png":
        return f"![{path.stem}]({path.name})"
    files = [other.name for other in map(path.with_suffix, (".csv", ".md", ".tex")) if other.is_file()]
    links = " · ".join(f"[{name}]({name})" for name in files)
    text = path.with_suffix(".md").read_text(encoding="utf-8").strip() if len(files) > 1 else ""
    return f"{text}\n\n{links}" if text and text.count("\n") < LONG else links
