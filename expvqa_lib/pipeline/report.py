"""The HTML report of a run, and the page that shows the figures folder on a code host."""

import html
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import pandas as pd
from nbconvert import HTMLExporter
from nbformat import NotebookNode, v4

from ..evaluation import results_table
from ..files import atomic
from .checkout import software
from .run import Run

ASSETS = Path(__file__).parents[1] / "assets"
REMOTE_IMAGE = re.compile(r"\[!\[[^]]*\]\(https?:[^)]*\)\]\([^)]*\)|!\[[^]]*\]\(https?:[^)]*\)")
WIDGET = "application/vnd.jupyter.widget-view+json"  # a page without a kernel cannot draw it
LONG = 40  # lines of a table that the page of figures links to only
HIDDEN = {"install", "parameters"}
"""Tags of cells that the report leaves out; the parameters of the run stand in an injected cell."""


def write_report(path: Path, notebooks: Mapping[str, NotebookNode], run: Run, source: Path) -> Path:
    """Write the executed notebooks as one page, after the results table; it needs no network.

    Args:
        path: the HTML file.
        notebooks: by name, as papermill leaves them.
        run: the run that they show.
        source: folder of the notebooks: relative images are looked up there.
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
            name: {
                "title": notebook.cells[0].source.partition("\n")[0].lstrip("# "),
                "time": _duration(seconds[name]),
            }
            for name, notebook in notebooks.items()
        },
    }
    page, _ = exporter.from_notebook_node(_joined(notebooks), resources)
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _joined(notebooks: Mapping[str, NotebookNode]) -> NotebookNode:
    """All cells in one notebook: each code cell titled by its comment, each notebook's first by its name."""
    joined = v4.new_notebook()
    for name, notebook in notebooks.items():
        cells = [cell for cell in notebook.cells if not HIDDEN & set(cell.metadata.get("tags", ()))]
        cells[0].metadata["chapter"] = name
        for position, cell in enumerate(cells):
            cell.id = f"{name}-{position}"  # notebooks that were copied from one another share ids
            if cell.cell_type == "markdown":
                cell.source = REMOTE_IMAGE.sub("", cell.source)
            else:
                cell.metadata["title"] = cell.source.partition("\n")[0].lstrip("# ")
                cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
        joined.cells += cells
    return joined


def _duration(seconds: float) -> str:
    """`34 s`, `3 min 20 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _headline(run: Run) -> str:
    """The results table as HTML, and what was measured on what; empty where the run measured nothing."""
    paths = [run.figures_dir / f"{name}.csv" for name in ("au_detection", "captions")]
    if not all(path.is_file() for path in paths):
        return ""
    detection, labels = map(pd.read_csv, paths)
    emotions = labels.loc[labels["question"] == "Q1", "dataset"].unique()
    on = f"Action units (Q3) on the test faces of {', '.join(detection['dataset'].unique())}"
    if len(emotions):
        on += f", the emotion read out of the answer to Q1 on those of {', '.join(emotions)}"
    drawn = " Drawn faces: these figures do not compare with published ones." if run.is_drawn else ""
    text = f"{on}. No test person is in training. Percent, with 95 % intervals from resampling people.{drawn}"
    table = results_table(detection, labels).rename_axis(None).fillna("").to_html(border=0)
    return f"{table}<p>{html.escape(text)}</p>"


def write_figures_page(folder: Path) -> Path:
    """Write `README.md` of a figures folder: each picture and table with its caption and what made it."""
    made = (
        pd.read_csv(folder / "runs.csv", dtype=str, keep_default_na=False).set_index("table").to_dict("index")
    )
    parts = [
        "# Figures and tables",
        "Written at the end of `./run_all.sh`; `runs.csv` has the versions and the data.",
    ]
    for notebook, rows in pd.read_csv(ASSETS / "captions.csv").groupby("notebook"):
        rows = [row for row in rows.itertuples() if (folder / row.name).is_file()]
        parts += [f"## {notebook}"] if rows else []
        for row in rows:
            maker = (
                made.get(Path(row.name).stem) or made.get(notebook) or {"profile": "unknown", "commit": ""}
            )
            made_by = f"profile {maker['profile']}, commit {maker['commit'] or 'unknown'}"
            parts += [f"**{row.caption}**", _shown(folder / row.name), f"<sub>{made_by}</sub>"]
    path = folder / "README.md"
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def _shown(path: Path) -> str:
    """A picture, or a table where it is short, and links to its files."""
    if path.suffix == ".png":
        return f"![{path.stem}]({path.name})"
    files = [other.name for other in map(path.with_suffix, (".csv", ".md", ".tex")) if other.is_file()]
    links = " · ".join(f"[{name}]({name})" for name in files)
    text = path.with_suffix(".md").read_text(encoding="utf-8").strip() if len(files) > 1 else ""
    return f"{text}\n\n{links}" if text and text.count("\n") < LONG else links
