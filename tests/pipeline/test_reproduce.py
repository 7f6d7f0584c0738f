"""The papermill runner and the report, on tiny real notebooks with a real kernel."""

import json
import shutil
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat import v4

from expvqa_lib.errors import ExpVQAError, SettingsError
from expvqa_lib.pipeline.reproduce import ASSETS, PARAMETERS, find_notebooks, reproduce, write_figures_page

FIGURES = Path(__file__).resolve().parents[2] / "figures"
DEFAULTS = "\n".join(f"{name} = ''" for name in PARAMETERS)
BADGE = "[![Open in Colab](https://colab.research.google.com/badge.svg)](https://colab.research.google.com/x)"


def write_notebook(folder: Path, name: str, *sources: str) -> None:
    cells = [
        v4.new_markdown_cell(f"# Story of {name}\n\n![a face](face.png)\n\n{BADGE}"),
        v4.new_code_cell(DEFAULTS, metadata={"tags": ["parameters"]}),
        *map(v4.new_code_cell, sources),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    folder.mkdir(exist_ok=True)
    (folder / "face.png").write_bytes((FIGURES / "calibration.png").read_bytes())
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
        "# Where it runs\nimport sys, pathlib\nprint(sys.executable, 'in', pathlib.Path.cwd().name)",
        "(pathlib.Path(figures_dir) / 'count.txt').open('a').write('x')\nprint('FIRST', profile, output)",
        "import ipywidgets\nipywidgets.IntSlider()",
        "import pandas\npandas.DataFrame({'a': [1]})",
    )
    write_notebook(folder, "02_second", "value = 1", "\nraise ValueError('no such face')")
    write_notebook(folder, "walkthrough", "raise SystemError('must not run')")
    with pytest.raises(ExpVQAError) as caught:
        reproduce(**places)
    failed = run / "notebooks" / "02_second.failed.ipynb"
    for part in ("02_second.ipynb", "In [4] (`raise ValueError", "ValueError: no such face", str(failed)):
        assert part in str(caught.value)
    assert "no such face" in failed.read_text()
    assert not (run / "report.html").exists()

    write_notebook(folder, "02_second", "print('SECOND')")
    capsys.readouterr()
    report = reproduce(**places, start="2")
    assert "[1/1] 02_second ..." in capsys.readouterr().out
    assert report == run / "report.html"
    page = report.read_text()
    printed = (f"FIRST quick {tmp_path / 'runs'}", "SECOND", f"{sys.executable} in notebooks")
    marks = ('href="#01_first"', 'id="02_second"', "<summary>Where it runs</summary>", "01_first <small>")
    assert [part for part in (*printed, *marks) if part not in page] == []
    assert [part for part in ("<script", 'src="http', "badge", "IntSlider(value=") if part in page] == []
    assert page.count("<html") == 1 and page.count('src="data:image/png') == 2
    assert (tmp_path / "figures" / "count.txt").read_text() == "x", "the first notebook ran twice"
    assert {path.name for path in (run / "notebooks").iterdir()} == {"01_first.ipynb", "02_second.ipynb"}
    made = pd.read_csv(tmp_path / "figures" / "runs.csv")
    assert list(made["table"]) == ["01_first", "02_second"] and set(made["profile"]) == {"quick"}


def test_a_kernel_that_dies_is_reported_with_its_cell_and_every_option_to_resume(places, tmp_path):
    (tmp_path / "my data").mkdir()
    write_notebook(places["notebooks"], "01_first", "import os", "os._exit(9)")
    options = {"data_root": str(tmp_path / "my data"), "base": "Salesforce/some-model"}
    with pytest.raises(
        ExpVQAError, match=r"In \[4\] \(`os\._exit\(9\)`\).*DeadKernelError.*memory"
    ) as caught:
        reproduce("paper", **places, **options)
    assert str(caught.value).partition("./run_all.sh ")[2] == (
        f"--profile paper --data-root '{tmp_path / 'my data'}' --base Salesforce/some-model "
        f"--output {places['output']} --figures {places['figures']} --from 01"
    )


@pytest.mark.parametrize("place", ["output", "figures"])
def test_an_unwritable_folder_is_reported_before_anything_runs(places, tmp_path, place):
    write_notebook(places["notebooks"], "01_first", "open('ran', 'w')")
    (tmp_path / "a file").write_text("in the way")
    with pytest.raises(ExpVQAError, match=r"a file.*cannot write here"):
        reproduce(**places | {place: tmp_path / "a file"})
    assert not (places["notebooks"] / "ran").exists()


def test_wrong_settings_name_what_there_is(places, tmp_path):
    write_notebook(places["notebooks"], "01_first")
    with pytest.raises(SettingsError, match=r"'07'.*01_first"):
        reproduce(**places, start="07")
    with pytest.raises(SettingsError, match="quick"):
        reproduce("quack", **places)
    with pytest.raises(SettingsError, match="nowhere.*no such folder"):
        reproduce("paper", **places, data_root=str(tmp_path / "nowhere"))
    with pytest.raises(ExpVQAError, match="no numbered notebooks"):
        find_notebooks(tmp_path)


def test_the_ablations_belong_to_the_profiles_that_have_them(places, tmp_path, monkeypatch):
    spec = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"  # of the user: it must not be taken
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": ["false"], "display_name": "Another", "language": "python"}))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    for name in ("10_last", "11_ablations"):
        write_notebook(places["notebooks"], name, "print('ran')")
    reproduce(**places)
    assert [path.name for path in (places["output"] / "quick/notebooks").iterdir()] == ["10_last.ipynb"]
    reproduce("full", **places, start="11")
    assert [path.name for path in (places["output"] / "full/notebooks").iterdir()] == ["11_ablations.ipynb"]
    with pytest.raises(SettingsError, match="'quick' has no notebook '11'; it has 10_last"):
        reproduce(**places, start="11")


def test_every_committed_figure_has_a_caption():
    captions = pd.read_csv(ASSETS / "captions.csv")
    assert captions["name"].is_unique and captions.notna().all(axis=None)
    figures = {path.name for path in FIGURES.iterdir() if path.suffix in (".png", ".csv")} - {"runs.csv"}
    assert figures <= set(captions["name"])


def test_the_page_of_figures_shows_each_with_its_caption_and_what_made_it(tmp_path):
    copied = "au_detection.png au_detection_table.csv au_detection_table.md au_detection.csv ablation.png"
    for name in copied.split():
        shutil.copy(FIGURES / name, tmp_path)
    rows = [("au_detection", "full", "abc1234"), ("04_au_detection", "quick", "def5678")]
    pd.DataFrame(rows, columns=["table", "profile", "commit"]).to_csv(tmp_path / "runs.csv", index=False)
    write_figures_page(tmp_path)
    page = (tmp_path / "README.md").read_text()
    captions = pd.read_csv(ASSETS / "captions.csv").set_index("name")["caption"]
    assert page.count("\n## ") == 2 and "## 04_au_detection" in page
    assert page.count("profile unknown") == 1  # of a notebook that no run recorded
    for name in ("au_detection.png", "au_detection_table.csv", "au_detection.csv"):
        assert page.count(f"]({name})") == 1 and captions[name] in page
    assert (tmp_path / "au_detection_table.md").read_text().strip() in page
    assert page.count("profile full, commit abc1234") == 2
    assert page.count("profile quick, commit def5678") == 1
