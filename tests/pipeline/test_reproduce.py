"""The papermill runner, on tiny real notebooks with a real kernel."""

import csv
import sys
from pathlib import Path

import nbformat
import pytest

from expvqa_lib.errors import ExpVQAError, SettingsError
from expvqa_lib.pipeline.reproduce import find_notebooks, repository_root, reproduce

DEFAULTS = (
    "profile = 'quick'\ndata_root = ''\nbase = ''\nrun_dir = '../runs/quick'\nfigures_dir = '../figures'"
)


def write_notebook(folder: Path, name: str, *sources: str, parameters: str = DEFAULTS) -> None:
    v4 = nbformat.v4
    cells = [
        v4.new_markdown_cell(f"# Story of {name}"),
        v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
    ]
    cells += [v4.new_code_cell(source) for source in sources]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    folder.mkdir(exist_ok=True)
    nbformat.write(v4.new_notebook(cells=cells, metadata=kernel), folder / f"{name}.ipynb")


@pytest.fixture
def places(tmp_path):
    """Folders for a run, as the keyword arguments of `reproduce`."""
    return {"notebooks": tmp_path / "notebooks", "output": tmp_path / "runs", "figures": tmp_path / "figures"}


def test_a_failed_run_names_the_cell_and_resumes_into_one_report(places, tmp_path, capsys):
    folder, run = places["notebooks"], tmp_path / "runs" / "quick"
    write_notebook(
        folder,
        "01_first",
        "import sys, pathlib, expvqa_lib\nprint(sys.executable, 'in', pathlib.Path.cwd().name)",
        "(pathlib.Path(figures_dir) / 'count.txt').open('a').write('x'); print('FIRST', profile, repr(data_root), run_dir)",
        "import ipywidgets\nipywidgets.IntSlider()",
    )
    write_notebook(folder, "02_second", "value = 1", "\nraise ValueError('no such face')")
    write_notebook(folder, "walkthrough", "raise SystemError('must not run')")

    with pytest.raises(ExpVQAError) as caught:
        reproduce(**places)
    message = str(caught.value)
    failed = run / "notebooks" / "02_second.failed.ipynb"
    for part in (
        "02_second.ipynb",
        "code cell 3",
        "raise ValueError",
        "ValueError: no such face",
        str(failed),
        "--from 02",
    ):
        assert part in message
    assert "no such face" in failed.read_text()
    assert not (run / "report.html").exists()

    write_notebook(folder, "02_second", "print('SECOND')")
    capsys.readouterr()
    report = reproduce(**places, start="02")
    assert "[1/1] 02_second ..." in capsys.readouterr().out
    assert report == run / "report.html"
    page = report.read_text()
    for part in (
        f"FIRST quick '' {run}",
        "SECOND",
        'href="#01_first"',
        'id="02_second"',
        "Story of 01_first",
    ):
        assert part in page
    assert f"{sys.executable} in notebooks" in page
    assert "<script" not in page and 'src="http' not in page
    assert page.count("<html") == 1
    assert (tmp_path / "figures" / "count.txt").read_text() == "x", "the first notebook ran twice"
    assert sorted(path.name for path in (run / "notebooks").iterdir()) == [
        "01_first.ipynb",
        "02_second.ipynb",
    ]
    rows = list(csv.DictReader((run / "timings.csv").open()))
    assert [row["notebook"] for row in rows] == ["01_first", "02_second"]
    assert all(float(row["seconds"]) > 0 for row in rows)


def test_a_kernel_that_dies_is_reported_with_its_cell(places):
    write_notebook(places["notebooks"], "01_first", "import os", "os._exit(9)")
    with pytest.raises(ExpVQAError, match=r"code cell 3 \(`os\._exit\(9\)`\).*DeadKernelError.*memory"):
        reproduce(**places)


def test_only_the_chosen_notebooks_run(places, tmp_path):
    for name in ("01_first", "02_second"):
        write_notebook(places["notebooks"], name, "print('ran')")
    reproduce(**places, only=["2"])
    assert [path.name for path in (tmp_path / "runs/quick/notebooks").iterdir()] == ["02_second.ipynb"]


@pytest.mark.parametrize(
    "parameters",
    [DEFAULTS.replace("run_dir", "run_folder"), DEFAULTS + "\nextra = 1"],
    ids=["misspelt", "one too many"],
)
def test_parameter_names_are_checked_before_anything_runs(places, parameters):
    write_notebook(places["notebooks"], "01_first", "open('ran', 'w')")
    write_notebook(places["notebooks"], "02_second", parameters=parameters)
    with pytest.raises(
        SettingsError,
        match=r"02_second\.ipynb.*parameters.*expected exactly profile, data_root, base, run_dir",
    ):
        reproduce(**places)
    assert not (places["notebooks"] / "ran").exists()


@pytest.mark.parametrize("place", ["output", "figures"])
def test_an_unwritable_folder_is_reported_before_anything_runs(places, tmp_path, place):
    write_notebook(places["notebooks"], "01_first", "open('ran', 'w')")
    (tmp_path / "a file").write_text("in the way")
    with pytest.raises(ExpVQAError, match=r"a file.*cannot be written to"):
        reproduce(**places | {place: tmp_path / "a file"})
    assert not (places["notebooks"] / "ran").exists()


def test_wrong_settings_name_what_is_known(places, tmp_path):
    write_notebook(places["notebooks"], "01_first")
    with pytest.raises(SettingsError, match=r"'07' is unknown; known are 01_first"):
        reproduce(**places, start="07")
    with pytest.raises(SettingsError, match="quick"):
        reproduce("quack", **places)
    with pytest.raises(SettingsError, match="nowhere.*no such folder"):
        reproduce("paper", **places, data_root=str(tmp_path / "nowhere"))
    (places["notebooks"] / "02_broken.ipynb").write_text("{")
    with pytest.raises(ExpVQAError, match=r"02_broken\.ipynb.*cannot be read"):
        reproduce(**places)


def test_the_ablations_belong_to_the_profiles_that_have_them(places):
    for name in ("08_last", "09_ablations"):
        write_notebook(places["notebooks"], name, "print('ran')")
    reproduce(**places)
    assert [path.name for path in (places["output"] / "quick/notebooks").iterdir()] == ["08_last.ipynb"]
    reproduce("full", **places, start="9")
    assert [path.name for path in (places["output"] / "full/notebooks").iterdir()] == ["09_ablations.ipynb"]
    for asked in ({"only": ["9"]}, {"start": "09"}):
        with pytest.raises(
            SettingsError,
            match="09_ablations is not part of profile 'quick', .*; smoke, full, paper-full have them",
        ):
            reproduce(**places, **asked)


def test_a_folder_without_notebooks_is_an_error(tmp_path):
    with pytest.raises(ExpVQAError, match="no numbered notebooks"):
        find_notebooks(tmp_path)


def test_repository_root_holds_the_notebooks():
    assert (repository_root() / "run_all.sh").is_file()
