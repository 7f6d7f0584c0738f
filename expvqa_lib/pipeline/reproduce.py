"""Run the numbered notebooks in order with papermill, and gather them in one HTML page (`report`)."""

import os
import shlex
import tempfile
import time
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError

from ..errors import ExpVQAError, SettingsError
from ..files import atomic
from .checkout import repository_root
from .report import write_figures_page, write_report
from .run import Run

ABLATIONS = "11_ablations"
"""The notebook of the profiles with ablations."""

PARAMETERS = ("profile", "data_root", "base", "output", "figures_dir")
"""Names in the parameters cell of each numbered notebook; all are strings."""


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
    """Run the notebooks `NN_*.ipynb` and write the report and the page of figures.

    Args:
        profile: name of a profile (`profiles.PROFILES`).
        data_root: folder of the data sets, for a profile that reads them.
        base: model folder or hub name to start from; default: the profile's.
        output: folder of all runs; default: `runs/` of the checkout. Executed notebooks stay in
            `<output>/<profile>/notebooks`, so that a run can resume.
        figures: folder for figures and tables; default: that of `Run`.
        start: number of the notebook to start with; the ones before are kept as an earlier run left them.
        notebooks: folder of the notebooks; default: that of the checkout.

    Returns:
        The path of the HTML report.

    Raises:
        SettingsError: there is no such profile, or it has no such notebook.
        ExpVQAError: a folder cannot be written to, or a notebook failed.
    """
    data_root, output, figures = (
        str(Path(folder).resolve()) if folder else "" for folder in (data_root, output, figures)
    )
    base = str(Path(base).resolve()) if base and Path(base).is_dir() else base
    values = dict(zip(PARAMETERS, (profile, data_root, base, output, figures), strict=True))
    run = Run(**values)
    paths = [path for path in find_notebooks(notebooks) if run.profile.ablations or path.stem != ABLATIONS]
    chosen = _choose(paths, start, profile)
    executed = run.folder / "notebooks"
    for folder in (executed, run.figures_dir):
        _check_writable(folder)
    # the kernel `python3` is this interpreter's, whatever the user has installed
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    for position, path in enumerate(chosen, start=1):
        _execute(path, executed / path.name, values, f"[{position}/{len(chosen)}] {path.stem}")
        run.record(path.stem)

    ran = [executed / path.name for path in paths if (executed / path.name).is_file()]
    done = {path.stem: nbformat.read(path, 4) for path in ran}
    write_figures_page(run.figures_dir)
    return write_report(run.folder / "report.html", done, run, paths[0].parent)


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


def _choose(paths: list[Path], start: str, profile: str) -> list[Path]:
    """Return the notebooks from number `start` on."""
    number = start.zfill(2) if start else ""
    if number and number not in {path.name[:2] for path in paths}:
        names = ", ".join(path.stem for path in paths)
        raise SettingsError(f"profile {profile!r} has no notebook {start!r}; it has {names}")
    return [path for path in paths if path.name[:2] >= number]


def _check_writable(folder: Path) -> None:
    """Make `folder` and write to it once, so that no notebook runs for nothing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ExpVQAError(
            f"{folder}: cannot be written to ({error.strerror}); choose another folder"
        ) from error


def _execute(source: Path, target: Path, values: dict[str, str], label: str) -> None:
    """Run one notebook into `target`, showing progress; a failed one becomes `NN_name.failed.ipynb`."""
    print(f"{label} ...", flush=True)
    began = time.monotonic()
    failed = target.with_suffix(".failed.ipynb")
    failed.unlink(missing_ok=True)
    with atomic(target) as temporary:
        try:
            papermill.execute_notebook(
                source,
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
    print(f"{label}: {time.monotonic() - began:.0f} s", flush=True)


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
