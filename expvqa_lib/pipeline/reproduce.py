"""Run the numbered notebooks in order with papermill, and gather them in one HTML page (report.py).

Executed notebooks stay in `<output>/<profile>/notebooks/`, so that a run which stopped can resume from the notebook that failed.
"""

from __future__ import annotations

import contextlib
import csv
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import ExpVQAError, SettingsError
from ..files import atomic
from .checkout import repository_root

ABLATIONS = "09_ablations"  # the notebook of profiles with ablations
PARAMETERS = (
    "profile",
    "data_root",
    "base",
    "output",
    "figures_dir",
)  # of every numbered notebook, all strings


def reproduce(
    profile: str = "quick",
    *,
    data_root: str | None = None,
    base: str | None = None,
    start: str | None = None,
    output: str | Path = "runs",
    figures: str | Path = "",
    notebooks: str | Path | None = None,
    only: Sequence[str] | None = None,
) -> Path:
    """Run the notebooks `NN_*.ipynb` and return the path of the HTML report.

    Everything that can be checked is checked before the first notebook starts. Paths may be relative to the working folder.

    Args:
        profile: name of a profile (`profiles.py`).
        data_root: folder with the licensed data sets, for the profiles that need them.
        base: model folder or hub name to start from; default: the profile's own.
        start: two-digit number of the notebook to start with; the ones before it are kept as an earlier run left them.
        output: folder for runs: `<output>/<profile>/` takes the notebooks, report.html, timings.csv and what the notebooks keep.
        figures: folder for figures and tables; default: that of `Run`.
        notebooks: folder of the notebooks; default: `notebooks/` of the repository.
        only: two-digit numbers of the notebooks to run; default: all.

    Raises:
        SettingsError: the profile, the start, a number or a notebook's parameters are not what they must be.
        ExpVQAError: a folder is missing or cannot be written to, or a notebook failed; the message says how to resume.
    """
    from . import profiles
    from .report import write_report

    has_ablations = profiles.with_data(profile, data_root).ablations
    folder = Path(notebooks).resolve() if notebooks else _notebooks_folder()
    known = [path for path in find_notebooks(folder) if has_ablations or path.stem != ABLATIONS]
    if not has_ablations and ABLATIONS[:2] in {number.zfill(2) for number in (start or "", *(only or []))}:
        have = ", ".join(name for name, other in profiles.PROFILES.items() if other.ablations)
        raise SettingsError(
            f"notebook {ABLATIONS} is not part of profile {profile!r}, which has no ablations; {have} have them"
        )
    chosen = _choose(known, start, only)
    for path in chosen:
        _check_parameters(path)
    run_dir = Path(output).resolve() / profile
    executed = run_dir / "notebooks"
    figures = str(Path(figures).resolve()) if figures else ""
    for place in filter(None, (executed, figures)):
        _check_writable(Path(place))
    values = {
        "profile": profile,
        "data_root": str(Path(data_root).resolve()) if data_root else "",
        "base": str(Path(base).resolve()) if base and Path(base).is_dir() else base or "",
        "output": str(run_dir.parent),
        "figures_dir": figures,
    }
    with _running_interpreter_as_kernel():
        for position, path in enumerate(chosen, start=1):
            _execute(path, executed / path.name, values, f"[{position}/{len(chosen)}] {path.stem}")

    done = [executed / path.name for path in known if (executed / path.name).is_file()]
    _write_timings(run_dir / "timings.csv", done)
    return write_report(run_dir / "report.html", done, profile=profile, source=folder)


def _notebooks_folder() -> Path:
    """Return `notebooks/` of the checkout.

    Raises:
        ExpVQAError: the package is installed without its checkout.
    """
    if root := repository_root():
        return root / "notebooks"
    raise ExpVQAError(
        f"{Path(__file__).parent}: no folder above holds notebooks/ and pyproject.toml; the notebooks belong to "
        "the repository, not to the installed package: clone it and install with pip install -e ."
    )


def find_notebooks(folder: Path) -> list[Path]:
    """Return the numbered notebooks `NN_*.ipynb` of `folder` in order.

    Raises:
        ExpVQAError: there is none.
    """
    found = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise ExpVQAError(
            f"{folder}: no numbered notebooks (NN_name.ipynb) here; run this in a complete checkout"
        )
    return found


def _choose(known: list[Path], start: str | None, only: Sequence[str] | None) -> list[Path]:
    """Return those of the `known` notebooks that `start` and `only` ask for."""
    numbers = {path.name[:2] for path in known}
    for number in (*([start] if start else []), *(only or [])):
        if number.zfill(2) not in numbers:
            raise SettingsError(
                f"notebook {number!r} is unknown; known are {', '.join(path.stem for path in known)}"
            )
    wanted = {number.zfill(2) for number in only} if only else numbers
    chosen = [path for path in known if path.name[:2] in wanted and path.name[:2] >= (start or "00").zfill(2)]
    if not chosen:
        raise SettingsError(f"nothing to run: {', '.join(sorted(wanted))} all come before the start {start}")
    return chosen


def _check_parameters(path: Path) -> None:
    """Hold a notebook's parameters cell to PARAMETERS: papermill itself only warns about names that it does not know."""
    import papermill

    try:
        found = set(papermill.inspect_notebook(path))
    except (
        Exception
    ) as error:  # papermill, nbformat and JSON each raise their own for a file that is no good notebook
        raise ExpVQAError(
            f"{path}: cannot be read as a notebook ({type(error).__name__}: {error})"
        ) from error
    if found != set(PARAMETERS):
        raise SettingsError(
            f"{path}: the cell tagged 'parameters' defines {', '.join(sorted(found)) or 'nothing'}; "
            f"expected exactly {', '.join(PARAMETERS)}"
        )


def _check_writable(folder: Path) -> None:
    """Make `folder` and write to it once, so that no notebook runs for nothing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ExpVQAError(
            f"{folder}: cannot be written to ({error.strerror}); choose a writable folder"
        ) from error


@contextlib.contextmanager
def _running_interpreter_as_kernel() -> Iterator[None]:
    """Make the kernel `python3` this interpreter with this package, whatever kernels the user has; nothing stays registered."""
    from ipykernel.kernelspec import write_kernel_spec

    package_root = str(Path(__file__).resolve().parents[2])
    python_path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
    before = os.environ.get("JUPYTER_PATH")
    with tempfile.TemporaryDirectory(prefix="expvqa-kernel-") as folder:
        (Path(folder) / "kernels").mkdir()
        write_kernel_spec(
            Path(folder) / "kernels" / "python3",
            overrides={"env": {"PYTHONPATH": python_path}},
            extra_arguments=[
                "--log-level=CRITICAL"
            ],  # its own notes (TCP on the loopback, interrupts) would break the progress lines
        )
        os.environ["JUPYTER_PATH"] = os.pathsep.join(
            filter(None, [folder, before])
        )  # comes before all other places
        try:
            yield
        finally:
            if before is None:
                del os.environ["JUPYTER_PATH"]
            else:
                os.environ["JUPYTER_PATH"] = before


def _execute(source: Path, target: Path, values: dict[str, str], label: str) -> None:
    """Run one notebook into `target`, showing progress; a failed one is kept beside it as `NN_name.failed.ipynb`."""
    import papermill

    terminal = sys.stderr.isatty()
    if not terminal:
        print(label, "...", end=" ", flush=True)
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
                progress_bar={"desc": label, "leave": False} if terminal else False,
            )
        except Exception as error:  # a failing cell, a kernel that died or would not start
            if not terminal:
                print("failed", flush=True)
            if temporary.is_file():
                os.replace(temporary, failed)
            raise _failure(source, failed, values["profile"], error) from error
    seconds = f"{time.monotonic() - began:.0f} s"
    print(f"{label} ... {seconds}" if terminal else seconds, flush=True)


def _failure(source: Path, failed: Path, profile: str, error: Exception) -> ExpVQAError:
    """Return the error that names the notebook, the cell, what happened and how to resume."""
    import nbformat

    cell = "before its first cell"
    if failed.is_file():
        code = [
            c
            for c in nbformat.read(failed, as_version=4).cells
            if c.cell_type == "code" and "injected-parameters" not in c.metadata.get("tags", [])
        ]
        begun = [i for i, c in enumerate(code) if c.metadata.get("papermill", {}).get("start_time")]
        if begun:
            first_line = next((line for line in code[begun[-1]].source.splitlines() if line.strip()), "")
            cell = f"in code cell {begun[-1] + 1} (`{first_line}`)"
    name = getattr(error, "ename", type(error).__name__)
    value = str(getattr(error, "evalue", error)).strip()
    hint = "; the kernel died, most often because memory ran out" if name == "DeadKernelError" else ""
    kept = f"The notebook as far as it came: {failed}. " if failed.is_file() else ""
    return ExpVQAError(
        f"{source.name} failed {cell}: {name}: {value}{hint}. {kept}Resume with ./run_all.sh --profile {profile} --from {source.name[:2]}"
    )


def _write_timings(path: Path, notebooks: list[Path]) -> None:
    """Write one row an executed notebook: its name and how many seconds it ran."""
    import nbformat

    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["notebook", "seconds"])
        for notebook in notebooks:
            rows.writerow(
                [notebook.stem, round(nbformat.read(notebook, as_version=4).metadata.papermill.duration, 1)]
            )
