"""The notebooks are short and clean in git, and all of them run, in order, on the smoke profile."""

import re
from itertools import pairwise

import corpora_fixtures
import nbformat
import pandas as pd
import papermill
import pytest
from PIL import Image

from expvqa_lib.evaluation.metrics import COLUMNS
from expvqa_lib.pipeline.checkout import repository_root
from expvqa_lib.pipeline.profiles import BASE
from expvqa_lib.pipeline.reproduce import PARAMETERS, find_notebooks, reproduce

FOLDER = repository_root() / "notebooks"
NOTEBOOKS = find_notebooks(FOLDER)
WALKTHROUGHS = {"walkthrough": {"steps", "big"}, "own_photos": {"photos", "fps", "labels", "others", "big"}}
ALL = [*NOTEBOOKS, *(FOLDER / f"{name}.ipynb" for name in WALKTHROUGHS)]
TABLES = {"au_detection": "f1", "captions": "accuracy", "attention": "pointing_accuracy"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder in which every notebook was run once, and the report."""
    folder = tmp_path_factory.mktemp("smoke")
    return folder, reproduce(profile="smoke", output=folder, figures=folder)


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_a_notebook_is_short_and_clean_in_git(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = code_cells(path)
    assert len(code) <= 10
    assert not [cell for cell in code if cell.outputs or cell.execution_count is not None]
    for cell in code:
        lines = [line for line in cell.source.splitlines() if line]
        assert "install" in cell.metadata.get("tags", []) or len(lines) <= 10, cell.source
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    assert re.search(rf"colab\.research\.google\.com/github/[\w./-]+/notebooks/{path.name}\)", first.source)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_a_notebook_takes_its_parameters_and_nothing_else(path):
    taken = {name: one["default"].strip("\"'") for name, one in papermill.inspect_notebook(path).items()}
    expected = {**dict.fromkeys(PARAMETERS, ""), "profile": "quick"}
    assert taken.keys() == WALKTHROUGHS[path.stem] if path.stem in WALKTHROUGHS else taken == expected


def test_every_notebook_runs_and_the_report_holds_them_in_order(run):
    folder, report = run
    page = report.read_text(encoding="utf-8")
    titles = [nbformat.read(p, as_version=4).cells[0].source.splitlines()[0][2:] for p in NOTEBOOKS]
    places = [page.index(title) for title in titles]
    assert all(a < b for a, b in pairwise(places))
    executed = sorted(path.name for path in (folder / "smoke" / "notebooks").iterdir())
    assert executed == [path.name for path in NOTEBOOKS]


def test_every_cell_after_the_set_up_shows_something(run):
    for path in NOTEBOOKS:
        cells = code_cells(run[0] / "smoke" / "notebooks" / path.name)
        cells = [cell for cell in cells if not cell.metadata.get("tags")]
        silent = [cell.source for cell in cells if not cell.outputs]
        assert not silent, f"{path.name}: no output of\n{silent[0]}"
        errors = [o["text"] for cell in cells for o in cell.outputs if o.get("name") == "stderr"]
        # in a miniature some action units have no positive face, which is said
        assert not [t for t in errors if t.count("Warning") > t.count("out of macro")], path.name


@pytest.mark.parametrize("name", TABLES)
def test_result_tables_keep_the_contract(run, name):
    rows = pd.read_csv(run[0] / f"{name}.csv")
    assert tuple(rows)[: len(COLUMNS)] == COLUMNS
    keys = rows.columns.intersection(["model", "dataset", "target", "metric", "question"])
    assert not rows.duplicated(list(keys)).any(), "a figure is there twice"
    rows = rows[rows["question"] != "Q2"] if "question" in rows else rows
    (macro,) = rows.query(
        f"model == 'exp_vqa' and target == 'macro' and metric == {TABLES[name]!r}"
    ).itertuples()
    assert 0 <= macro.low <= macro.value <= macro.high <= 100


def test_figures_are_pictures_and_all_are_on_the_page_of_figures(run):
    page, pictures = (run[0] / "README.md").read_text(encoding="utf-8"), sorted(run[0].glob("*.png"))
    assert len(pictures) >= 20
    for path in pictures:
        with Image.open(path) as picture:
            assert min(picture.size) > 100, path.name
            assert len(picture.convert("L").getcolors()) > 20, f"{path.name} is blank"
        assert path.name in page


def test_rendered_faces_are_never_set_beside_published_ones_without_a_word(run):
    rows = pd.read_csv(run[0] / "paper_table.csv")
    ours = rows.loc[rows["source"] == "this run", "data"]
    assert ours.str.contains("not comparable").all() and 0 < len(ours) < len(rows)
    assert rows["source"].notna().all()


def test_a_run_resumes_at_the_last_notebook(run):
    folder, report = run
    first = folder / "smoke" / "notebooks" / NOTEBOOKS[0].name
    before = first.stat().st_mtime_ns
    assert reproduce(profile="smoke", output=folder, figures=folder, start=NOTEBOOKS[-2].name[:2]) == report
    assert first.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "names, measured",
    [
        (("BP4D", "AffectNet"), {"Q1": "AffectNet", "Q2": "BP4D", "Q3": "BP4D"}),
        (("BP4D",), {"Q2": "BP4D", "Q3": "BP4D"}),  # action units alone
        (("AffectNet", "RAF-DB-basic"), {"Q1": "AffectNet"}),  # emotions alone
    ],
)
def test_every_notebook_runs_on_data_sets_in_their_own_layout(tmp_path, names, measured):
    """The paper's profile and recipe, from the tiny base."""
    for name in names:
        corpora_fixtures.BUILDERS[name](tmp_path / "data" / name)
    folders = {"data_root": str(tmp_path / "data"), "output": tmp_path / "runs"}
    page = reproduce("paper", base=str(BASE), **folders).read_text(encoding="utf-8")
    assert all(f"{name}: " in page for name in names)  # what became of the rows
    assert ("left out. No data set has action units" in page) == ("Q3" not in measured)
    figures = tmp_path / "runs" / "paper" / "figures"  # never those of the checkout
    tables = [
        pd.read_csv(path)
        for name in ("captions", "au_detection")
        if (path := figures / f"{name}.csv").exists()
    ]
    rows = pd.concat(tables).fillna({"question": "Q3"})
    assert dict(zip(rows["question"], rows["dataset"], strict=True)) == measured
    for _, answers in rows.groupby("question"):
        assert {"prior", "exp_vqa_shuffled_images"} <= set(answers["model"])
