"""The house: rooms and their direction, sizes, and files around the package that agree with one another."""

import ast
import os
import re
import shutil
import subprocess
import tomllib
from importlib.util import resolve_name
from pathlib import Path

import nbformat
import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from packaging.requirements import Requirement

import expvqa_lib
from tools import badges

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "expvqa_lib"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

GROUND = ("facs", "questions", "errors", "files")
ROOMS = ("synthfacs", "data", "model", "training", "evaluation", "attention", "plots", "expvqa", "explorer")
ORDER = (GROUND, *ROOMS, "pipeline")
"""A room imports only from what stands before it; the modules of the ground floor from one another."""

RANK = {name: rank for rank, names in enumerate(ORDER) for name in (names if rank == 0 else [names])}
APART = {"data": {"synthfacs"}, "plots": {"model", "training", "torch", "transformers"}}
"""What a room does not import, though it stands before it."""

MODULES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    """Rooms of the package, and names of other packages, that a module imports anywhere."""
    package, targets = ".".join(path.relative_to(ROOT).parts[:-1]), []
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            targets += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            targets += [f"{module}.{alias.name}" for alias in node.names]
    return {target.removeprefix("expvqa_lib.").partition(".")[0] for target in targets}


@pytest.mark.parametrize("name", RANK)
def test_a_room_imports_only_what_stands_before_it(name):
    later = {other for other, rank in RANK.items() if rank >= max(RANK[name], 1)} - {name}
    found = {path.relative_to(ROOT): imported(path) for path in MODULES if room(path) == name}
    forbidden = later | APART.get(name, set())
    assert {path: names & forbidden for path, names in found.items() if names & forbidden} == {}


def test_every_module_stands_in_a_room_that_lists_what_is_public():
    assert {room(path) for path in MODULES} - set(RANK) == {"__init__", "__main__"}
    assert all("__all__ = [" in path.read_text() for path in PACKAGE.glob("*/__init__.py"))
    assert {"ExpVQA", "Run", "explore", "load"} <= set(dir(expvqa_lib)), "not completed on Tab"


def test_modules_and_functions_fit_the_screen_and_only_the_command_line_puts_off_an_import():
    wrong = []
    for path, tree in TREES.items():
        lines, name = path.read_text(encoding="utf-8").count("\n"), path.relative_to(ROOT)
        wrong += [f"{name}: {lines} lines"] if lines > 300 else []
        for node in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            length = node.end_lineno - node.lineno + 1
            wrong += [f"{name}: {node.name} has {length} lines"] if length > 50 else []
            imports = any(isinstance(part, ast.Import | ast.ImportFrom) for part in ast.walk(node))
            wrong += [f"{name}: {node.name} imports"] if imports and path.parent.name != "cli" else []
    assert not wrong, "\n".join(wrong)


def requirements(lines: list[str]) -> dict[str, Requirement]:
    """Each package's requirement by its normalised name."""
    parsed = {re.sub(r"[-_.]+", "-", r.name).lower(): r for r in map(Requirement, lines)}
    assert len(parsed) == len(lines), "a package is listed twice"
    return parsed


def test_constraints_pin_every_dependency_within_its_range_and_conda_gives_python_alone():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == PROJECT["name"]
    assert environment["dependencies"] == [f"python{PROJECT['requires-python']}", "pip"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = requirements([line for line in lines if line and not line.startswith("#")])
    versions = {name: str(pin.specifier).removeprefix("==") for name, pin in pins.items()}
    assert versions["torch"] == "2.13.0"
    asked = requirements(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["tests"])
    assert [name for name, r in asked.items() if name not in pins or versions[name] not in r.specifier] == []


def test_the_shipped_launch_configurations_are_read_by_accelerate():
    for name, kind in {"ddp": "MULTI_GPU", "fsdp": "FSDP", "deepspeed": "DEEPSPEED"}.items():
        config = load_config_from_file(str(PACKAGE / "assets" / "accelerate" / f"{name}.yaml"))
        assert config.num_processes == 4 and config.distributed_type == kind


@pytest.mark.parametrize("path", [ROOT / "README.md", *badges.NOTEBOOKS], ids=lambda path: path.stem)
def test_badges_and_install_lines_name_the_repository_of_pyproject(path):
    text = path.read_text(encoding="utf-8")
    assert badges.rewritten(text) == text, "run python -m tools.badges"
    fork = badges.rewritten(text, "https://github.com/someone/else")
    assert badges.REPOSITORY.removeprefix("https://github.com/") not in fork
    opened = set(re.findall(r"github/someone/else/blob/main/notebooks/([\w.]+)\)", fork))
    assert opened == {path.name} if path.suffix == ".ipynb" else opened <= {n.name for n in badges.NOTEBOOKS}
    with pytest.raises(SystemExit, match="https://example.org/a/b"):  # which Colab cannot open
        badges.rewritten(text, "https://example.org/a/b")


def test_every_notebook_begins_with_the_same_install_cell():
    firsts = {}
    for path in badges.NOTEBOOKS:
        first, *others = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        firsts[path.stem] = first.source
        assert not [c for c in others if "expvqa-companion" in c.source or "google.colab" in c.source], path
    walks = [firsts.pop(name) for name in ("walkthrough", "own_photos")]
    common = firsts[badges.NOTEBOOKS[0].stem]
    assert f'"EXPVQA_SOURCE", "git+{badges.REPOSITORY}"' in common and 'find_spec("expvqa_lib")' in common
    assert set(firsts.values()) == {common} and walks[0] == walks[1] and walks[0].startswith(common)


def run_all(*options: str, cwd: Path, script: Path = ROOT / "run_all.sh", **how):
    command = ["bash", str(script), *options]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, **how)


def test_run_all_names_its_options_and_refuses_others_before_any_set_up(tmp_path):
    done = run_all("--help", cwd=tmp_path)
    options = "--profile --data-root --base --from --output --figures --tests --venv"
    assert done.returncode == 0 and all(option in done.stdout for option in options.split())
    for *options, message in (
        ("--nope", "--nope"),
        ("--profile", "--profile needs a value"),
        ("--from", "", "empty value"),
    ):
        done = run_all(*options, cwd=tmp_path)
        assert done.returncode == 2 and message in done.stderr and not done.stdout


UV = """#!/bin/bash
echo "uv $*" >>log
if [[ $1 == venv ]]; then mkdir -p .venv/bin && cp stub_python .venv/bin/python; fi
if [[ $1 == pip ]]; then exit "$UV_STATUS"; fi
"""
PYTHON = """#!/bin/bash
case "$*" in
    *-m\\ *) echo "python $*" >>log ;;
    *) exec python3 "$@" ;;
esac
"""


@pytest.mark.parametrize("status", ["0", "1"])
def test_run_all_installs_with_uv_where_it_is_and_with_pip_where_that_fails(tmp_path, status):
    (tmp_path / "bin").mkdir()
    for name in ("run_all.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    for name, text in (("bin/uv", UV), ("stub_python", PYTHON)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "UV_STATUS": status}
    done = run_all("--venv", cwd=tmp_path, script=tmp_path / "run_all.sh", env=environment)
    assert done.returncode == 0, done.stderr
    uv, pip = "uv pip install --python", "python -m pip install"
    installs = [line for line in (tmp_path / "log").read_text().splitlines() if line.startswith((uv, pip))]
    assert all("-c constraints.txt -e ." in line for line in installs)
    assert len(installs) == 1 + (status == "1") and installs[0].startswith(uv)
