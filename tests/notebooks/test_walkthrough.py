"""The two walkthroughs, which no run of the numbered notebooks executes, are clean in git; test_colab and test_jupyterlab run them."""

from __future__ import annotations

import nbformat
import papermill
import pytest

from expvqa_lib.pipeline.reproduce import repository_root

FOLDER = repository_root() / "notebooks"
PARAMETERS = {"walkthrough": {"steps", "big"}, "own_photos": {"photos", "big"}}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_walkthrough_is_written_to_be_read(name):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) <= 16 and not [
        cell.source for cell in code if cell.outputs or cell.execution_count is not None
    ]
    assert notebook.cells[0].source.startswith("# ")
    assert set(papermill.inspect_notebook(FOLDER / f"{name}.ipynb")) == PARAMETERS[name]
