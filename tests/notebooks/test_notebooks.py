"""The notebooks are clean in git, and all of them run, in order, on the smoke profile."""

import csv
import re

import corpora_fixtures
import nbformat
import pytest
from PIL import Image

from expvqa_lib.evaluation.metrics import COLUMNS
from expvqa_lib.pipeline.profiles import BASE
from expvqa_lib.pipeline.reproduce import PARAMETERS, find_notebooks, repository_root, reproduce

FOLDER = repository_root() / "notebooks"
NOTEBOOKS = find_notebooks(FOLDER)
TABLES = {"au_detection": "f1", "captions": "accuracy", "attention": "pointing_accuracy"}
FIGURES = (
    "data_overview",
    "au_cooccurrence",
    "action_units",
    "video_strip",
    "vqa_pairs",
    "training_curves",
    "answers",
    "au_detection",
    "emotion_confusion",
    "caption_quality",
    "representation",
    "ablation",
    "attention",
    "attention_pointing",
    "attention_grid",
    "attention_words",
    "video_curves",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder in which every notebook was run once, and the report."""
    folder = tmp_path_factory.mktemp("smoke")
    return folder, reproduce(profile="smoke", output=folder, figures=folder)


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_written_to_be_read(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    code = code_cells(path)
    assert len(code) <= 16
    assert not [cell.source for cell in code if cell.outputs or cell.execution_count is not None], (
        "outputs do not belong in git"
    )
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    assert re.search(
        rf"\(https://colab\.research\.google\.com/github/[\w./-]+/notebooks/{path.name}\)", first.source
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_takes_the_runs_parameters_and_nothing_else(path):
    (cell,) = (cell for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", []))
    values = {}
    exec(cell.source, values)
    assert {name: values[name] for name in values if not name.startswith("__")} == {
        **dict.fromkeys(PARAMETERS, ""),
        "profile": "quick",
    }


def test_every_notebook_runs_and_the_report_holds_them(run):
    folder, report = run
    page = report.read_text(encoding="utf-8")
    assert all(f'id="{path.stem}"' in page for path in NOTEBOOKS)
    assert sorted(path.name for path in (folder / "smoke" / "notebooks").iterdir()) == [
        path.name for path in NOTEBOOKS
    ]


def test_every_cell_after_the_set_up_shows_something(run):
    for path in NOTEBOOKS:
        ran = [
            c for c in code_cells(run[0] / "smoke" / "notebooks" / path.name) if not c.metadata.get("tags")
        ]
        silent = [cell.source for cell in ran[1:] if not cell.outputs]
        assert not silent, f"{path.name}: no output of\n{silent[0]}"
        errors = [
            output
            for cell in ran
            for output in cell.outputs
            if output.get("name") == "stderr" and "Warning" in output["text"]
        ]
        assert not errors, f"{path.name}: {errors[0]['text']}"


@pytest.mark.parametrize("name", TABLES)
def test_result_tables_keep_the_contract(run, name):
    rows = list(csv.DictReader((run[0] / f"{name}.csv").open(encoding="utf-8")))
    assert tuple(rows[0])[: len(COLUMNS)] == COLUMNS
    mine = [
        r
        for r in rows
        if r["model"] == "exp_vqa"
        and r["target"] == "macro"
        and r["metric"] == TABLES[name]
        and r.get("question") != "Q2"
    ]
    assert (
        len(mine) == 1
        and 0 <= float(mine[0]["low"]) <= float(mine[0]["value"]) <= float(mine[0]["high"]) <= 100
    )
    assert len({tuple(r[c] for c in ("model", "dataset", "target", "metric")) for r in rows}) == len(rows), (
        "a figure stands twice"
    )


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_pictures(run, name):
    with Image.open(run[0] / f"{name}.png") as picture:
        assert min(picture.size) > 300
        assert len(picture.convert("L").getcolors()) > 20, "the figure is blank"


def test_the_paper_table_says_what_cannot_be_compared(run):
    rows = list(csv.DictReader((run[0] / "paper_table.csv").open(encoding="utf-8")))
    ours = [row for row in rows if "SynthFACS" in row["data"]]
    assert ours and all("not comparable" in row["data"] for row in ours)
    assert len(ours) < len(rows) and all(row["source"] for row in rows)


def test_the_ablations_are_tables_for_papers(run):
    rows = list(csv.DictReader((run[0] / "ablation.csv").open(encoding="utf-8")))
    assert tuple(rows[0]) == (*COLUMNS, "question", "taught") and {
        "q3_only",
        "cat_captioner",
        "exp_vqa_fz",
    } <= {r["model"] for r in rows}
    for name in ("ablation_table", "leave_one_out_table"):
        assert (
            "\\toprule" in (run[0] / f"{name}.tex").read_text()
            and "| --- |" in (run[0] / f"{name}.md").read_text()
        )
    assert {
        row["target"] for row in csv.DictReader((run[0] / "leave_one_out.csv").open(encoding="utf-8"))
    } == {"AU12"}


def test_a_run_resumes_at_the_last_notebook(run):
    folder, report = run
    before = (folder / "smoke" / "notebooks" / NOTEBOOKS[0].name).stat().st_mtime_ns
    assert reproduce(profile="smoke", output=folder, figures=folder, start="08") == report
    assert (folder / "smoke" / "notebooks" / NOTEBOOKS[0].name).stat().st_mtime_ns == before


def test_every_notebook_runs_on_data_sets_in_their_own_layout(tmp_path):
    """The paper's profile and recipe, on a video and a picture data set in miniature, from the tiny base."""
    there = ("BP4D", "AffectNet")
    for name in there:
        corpora_fixtures.BUILDERS[name](tmp_path / "data" / name)
    places = {
        "data_root": str(tmp_path / "data"),
        "output": tmp_path / "runs",
        "figures": tmp_path / "figures",
    }
    page = reproduce("paper", base=str(BASE), **places).read_text(encoding="utf-8")
    assert all(name in page and f"{name}: " in page for name in there)  # counts, and what became of the rows
    for name in ("au_detection", "captions"):
        rows = list(csv.DictReader((tmp_path / "figures" / f"{name}.csv").open(encoding="utf-8")))
        assert {row["dataset"] for row in rows} <= {"BP4D", "AffectNet"} and {
            "prior",
            "exp_vqa_shuffled_images",
        } <= {row["model"] for row in rows}
