"""Colab in miniature: a fresh environment with the kernel alone, and one notebook in an empty folder.

Its first cell must install the package, here from a wheel of this checkout, with everything that the package
declares, at the versions of constraints.txt. The kernel's own packages are those of Colab and must stay:
replacing them under a running notebook breaks it. Both walkthroughs share the environment.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv

import nbformat
import papermill
import pytest

from expvqa_lib.pipeline.reproduce import repository_root

ROOT = repository_root()
KERNEL = ("ipykernel==6.17.1", "ipython==7.34.0")  # Colab's
OWN = ("ipykernel", "ipython", "jupyter-client", "pyzmq", "tornado", "traitlets")  # the kernel's, not pinned


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """Folder of the fresh environment, with its kernel in `share`, and the wheel."""
    home = tmp_path_factory.mktemp("colab")
    code, skipped = home / "source" / "expvqa_lib", shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "expvqa_lib", code, ignore=skipped)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, home / "source")
    venv.create(home / "venv", with_pip=True)
    python = home / "venv" / "bin" / "python"
    try:
        run(python, "-m", "pip", "install", "-q", *KERNEL)
    except AssertionError as error:
        pytest.skip(f"not even a kernel could be installed, there may be no network: {error}")
    wheel = ("--no-deps", "--wheel-dir", home / "wheel", home / "source")
    run(sys.executable, "-m", "pip", "wheel", "-q", *wheel)
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line.split("==")[0] not in OWN]
    (home / "pins.txt").write_text("\n".join(pins), encoding="utf-8")
    start = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": start, "display_name": "Colab", "language": "python"}
    (home / "share" / "kernels" / "colab").mkdir(parents=True)
    (home / "share" / "kernels" / "colab" / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    return home


def run(*command) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def versions(home) -> dict[str, str]:
    listed = json.loads(run(home / "venv" / "bin" / "python", "-m", "pip", "list", "--format", "json"))
    return {package["name"].lower().replace("_", "-"): package["version"] for package in listed}


@pytest.fixture
def open_in_colab(colab, tmp_path, monkeypatch):
    """Runs a notebook that lies alone in an empty folder, and returns it with its outputs."""
    (wheel,) = (colab / "wheel").iterdir()
    monkeypatch.delenv("PYTHONPATH", raising=False)
    pip = {"EXPVQA_SOURCE": wheel, "PIP_CONSTRAINT": colab / "pins.txt", "OMP_NUM_THREADS": 1}
    places = {"JUPYTER_PATH": colab / "share", "TMPDIR": tmp_path, "IPYTHONDIR": tmp_path / "ipython"}
    for name, value in (pip | places).items():
        monkeypatch.setenv(name, str(value))

    def execute(name: str, **parameters):
        folder = tmp_path / "content"
        folder.mkdir()
        shutil.copy(ROOT / "notebooks" / name, folder)
        options = {"parameters": parameters, "kernel_name": "colab", "cwd": folder, "progress_bar": False}
        return papermill.execute_notebook(folder / name, tmp_path / "done.ipynb", **options)

    return execute


def test_the_walkthrough_installs_the_package_and_runs(colab, open_in_colab):
    before = versions(colab)
    assert "torch" not in before and "expvqa" not in before
    done = open_in_colab("walkthrough.ipynb", steps=4)
    after = versions(colab)
    assert {name: after[name] for name in OWN} == {name: before[name] for name in OWN}, "replaced"
    (where,) = (colab / "venv" / "lib").glob("python*/site-packages/expvqa-*.dist-info/direct_url.json")
    assert json.loads(where.read_text())["url"].endswith(".whl")
    (last,) = shown(done)[-1]
    assert "application/vnd.jupyter.widget-view+json" in last["data"], "it does not end in the explorer"


def test_the_notebook_for_ones_own_photos_runs(open_in_colab):
    done = open_in_colab("own_photos.ipynb")
    assert "15 faces in 3 of 5 files" in shown(done)[-7][-1]["data"]["text/markdown"]


def shown(notebook: nbformat.NotebookNode) -> list[list]:
    """Outputs of each code cell after the install cell, none of which is empty."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [cell.outputs for cell in code if not cell.metadata.get("tags")]
    assert all(outputs), "a cell shows nothing"
    said = [output["text"] for cell in outputs for output in cell if output.get("name") == "stderr"]
    assert not [text for text in said if "Warning" in text]
    return outputs
