"""The walkthrough, which no run of the numbered notebooks executes: it is clean in git and runs in a fresh kernel."""

from __future__ import annotations

import re

import nbformat
import papermill

from expvqa_lib.reproduce import repository_root

PATH = repository_root() / "notebooks" / "walkthrough.ipynb"


def test_the_walkthrough_is_written_to_be_read():
    notebook = nbformat.read(PATH, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) <= 16 and not [cell.source for cell in code if cell.outputs or cell.execution_count is not None]
    first = notebook.cells[0].source
    assert first.startswith("# ") and re.search(rf"\(https://colab\.research\.google\.com/github/[\w./-]+/notebooks/{PATH.name}\)", first)


def test_the_walkthrough_runs_and_shows_something_in_every_cell(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the kernel's: beside other tests two threads wait for one another
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = papermill.execute_notebook(PATH, tmp_path / "done.ipynb", parameters={"steps": 12}, cwd=tmp_path, progress_bar=False)
    ran = [cell for cell in done.cells if cell.cell_type == "code" and not cell.metadata.get("tags")]
    assert not [cell.source for cell in ran if not cell.outputs], "a cell shows nothing"
    said = [output["text"] for cell in ran for output in cell.outputs if output.get("name") == "stderr"]
    assert not [text for text in said if "Warning" in text]
    assert "application/vnd.jupyter.widget-view+json" in ran[-1].outputs[0]["data"], "it does not end in the explorer"
