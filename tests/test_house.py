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
from transformers import LlamaForCausalLM
from transformers.models.instructblip import modeling_instructblip

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
    wrong = []
    for path in (path for path in MODULES if room(path) == name):
        for other in sorted(imported(path) - {name}):
            upward = RANK.get(other, -1) >= max(RANK[name], 1)
            if upward or other in APART.get(name, ()):
                wrong.append(f"{path.relative_to(ROOT)} imports {other}")
    assert not wrong, "\n".join(wrong)


def test_every_module_stands_in_a_room():
    assert {room(path) for path in MODULES} - set(RANK) == {"__init__", "__main__"}


def test_modules_and_functions_fit_the_screen_and_only_the_command_line_puts_off_an_import():
    wrong = []
    for path, tree in TREES.items():
        lines, name = path.read_text(encoding="utf-8").splitlines(), path.relative_to(ROOT)
        wrong += [f"{name}: {len(lines)} lines"] if len(lines) > 300 else []
        wrong += [f"{name}:{k}: {len(line)} wide" for k, line in enumerate(lines, 1) if len(line) > 110]
        for node in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            length = node.end_lineno - node.lineno + 1
            wrong += [f"{name}: {node.name} has {length} lines"] if length > 50 else []
            imports = any(isinstance(part, ast.Import | ast.ImportFrom) for part in ast.walk(node))
            wrong += [f"{name}: {node.name} imports"] if imports and path.parent.name != "cli" else []
    assert not wrong, "\n".join(wrong)


def test_each_room_lists_what_is_public():
    for path in PACKAGE.glob("*/__init__.py"):
        assert re.search(r'^""".+"""$', path.read_text(), re.M) and "__all__ = [" in path.read_text(), path
    assert {"ExpVQA", "Run", "explore", "load"} <= set(dir(expvqa_lib)), "not completed on Tab"


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
        if name == "fsdp":
            vision, language = config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"].split(",")
            assert hasattr(modeling_instructblip, vision) and vision == "InstructBlipEncoderLayer"
            assert language == "LlamaDecoderLayer" and language in LlamaForCausalLM._no_split_modules


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
    common = firsts[badges.NOTEBOOKS[0].stem]
    assert f'"EXPVQA_SOURCE", "git+{badges.REPOSITORY}"' in common and 'find_spec("expvqa_lib")' in common
    walks = {name for name in firsts if not name[0].isdigit()}
    assert walks == {"walkthrough", "own_photos"} and len({firsts[name] for name in walks}) == 1
    assert all(source.startswith(common) for source in firsts.values())
    assert {source for name, source in firsts.items() if name not in walks} == {common}


def run_all(*options: str, cwd: Path, **how) -> subprocess.CompletedProcess:
    command = ["bash", str(how.pop("script", ROOT / "run_all.sh")), *options]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, **how)


def test_run_all_help_names_every_option_and_ci_runs_what_a_user_runs(tmp_path):
    done = run_all("--help", cwd=tmp_path)
    options = "--profile --data-root --base --from --output --figures --tests --venv"
    assert done.returncode == 0 and all(option in done.stdout for option in options.split())
    assert "./run_all.sh --tests" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert (ROOT / ".ci" / "run").stat().st_mode & (ROOT / "run_all.sh").stat().st_mode & 0o111


def test_run_all_refuses_bad_usage_before_any_set_up(tmp_path):
    refused = {
        ("--nope",): "--nope",
        ("--profile",): "--profile needs a value",
        ("--from", ""): "empty value",
    }
    for options, message in refused.items():
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
    for name in ("run_all.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    for path, text in ((tmp_path / "bin" / "uv", UV), (tmp_path / "stub_python", PYTHON)):
        path.write_text(text)
        path.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "UV_STATUS": status}
    done = run_all("--venv", cwd=tmp_path, script=tmp_path / "run_all.sh", env=environment)
    assert done.returncode == 0, done.stderr
    uv, pip = "uv pip install --python", "python -m pip install"
    installs = [line for line in (tmp_path / "log").read_text().splitlines() if line.startswith((uv, pip))]
    assert all("-c constraints.txt -e ." in line for line in installs)
    assert len(installs) == 1 + (status == "1") and installs[0].startswith(uv)
