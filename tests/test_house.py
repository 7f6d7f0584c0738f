"""The files around the package agree with one another: dependencies, pins, scripts."""

import re
import subprocess
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement

from tools import badges

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(lines: list[str]) -> dict[str, set[str]]:
    """Map each package's normalised name to its set of version specifiers."""
    parsed = [Requirement(line) for line in lines]
    names = [re.sub(r"[-_.]+", "-", requirement.name).lower() for requirement in parsed]
    assert len(names) == len(set(names)), (
        f"listed twice: {sorted(name for name in names if names.count(name) > 1)}"
    )
    return {
        name: {str(specifier) for specifier in r.specifier} for name, r in zip(names, parsed, strict=True)
    }


def asked_for() -> dict[str, set[str]]:
    return requirements(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["tests"])


def test_environment_yml_lists_what_pyproject_asks_for():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert environment["name"] == PROJECT["name"]
    assert requirements(conda) == {"python": {PROJECT["requires-python"]}, "pip": set()}
    assert requirements(pip) == asked_for()


def test_constraints_pin_every_dependency_within_its_range():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = requirements([line for line in lines if line and not line.startswith("#")])
    assert all(len(pin) == 1 and next(iter(pin)).startswith("==") for pin in pins.values())
    assert pins["torch"] == {"==2.13.0"}
    wanted = [
        Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["tests"]
    ]
    outside = [
        str(w) for w in wanted if w.name not in pins or next(iter(pins[w.name]))[2:] not in w.specifier
    ]
    assert not outside, f"constraints.txt has no pin for, or one out of range of: {outside}"


@pytest.mark.parametrize("name", ["ddp", "fsdp", "deepspeed"])
def test_the_shipped_launch_configurations_are_read_by_accelerate(name):
    from accelerate.commands.config.config_args import load_config_from_file
    from transformers import LlamaForCausalLM
    from transformers.models.instructblip import modeling_instructblip

    config = load_config_from_file(str(ROOT / "expvqa_lib" / "assets" / "accelerate" / f"{name}.yaml"))
    assert (
        config.num_processes == 4
        and config.distributed_type == {"ddp": "MULTI_GPU", "fsdp": "FSDP", "deepspeed": "DEEPSPEED"}[name]
    )
    if name == "fsdp":
        wrapped = set(config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"].split(","))
        assert (
            hasattr(modeling_instructblip, "InstructBlipEncoderLayer")
            and "LlamaDecoderLayer" in LlamaForCausalLM._no_split_modules
        )
        assert wrapped == {"InstructBlipEncoderLayer", "LlamaDecoderLayer"}


# --------------------------------------------------------------------------------------- where the project lives, said once


@pytest.mark.parametrize("path", [ROOT / "README.md", *badges.NOTEBOOKS], ids=lambda path: path.stem)
def test_badges_and_install_lines_name_the_repository_of_pyproject(path):
    text = path.read_text(encoding="utf-8")
    assert badges.rewritten(text) == text, "run python tools/badges.py"
    fork = badges.rewritten(text, "https://github.com/someone/else")
    assert badges.REPOSITORY.removeprefix("https://github.com/") not in fork
    opened = re.findall(r"github/someone/else/blob/main/notebooks/([\w.]+)\)", fork)
    assert (
        opened == [path.name]
        if path.suffix == ".ipynb"
        else {ROOT / "notebooks" / name for name in opened} <= set(badges.NOTEBOOKS)
    )


def test_a_repository_that_colab_cannot_open_is_named():
    with pytest.raises(
        SystemExit, match="Repository = 'https://example.org/a/b'; expected https://github.com/OWNER/NAME"
    ):
        badges.rewritten("", "https://example.org/a/b")


def test_every_notebook_begins_with_the_same_install_cell():
    codes = {
        path.stem: [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        for path in badges.NOTEBOOKS
    }
    firsts = {name: cells[0].source for name, cells in codes.items()}
    common = firsts["01_data_inspection"]
    assert (
        f'"EXPVQA_SOURCE", "git+{badges.REPOSITORY}"' in common
        and 'find_spec("expvqa_lib") is None' in common
    )
    walks = {name for name, source in firsts.items() if source.endswith("Markdown(companion.offer())")}
    assert walks == {"walkthrough", "own_photos"} and len({firsts[name] for name in walks}) == 1
    assert {source for name, source in firsts.items() if name not in walks} == {common} and firsts[
        "walkthrough"
    ].startswith(common)
    again = [
        name
        for name, cells in codes.items()
        for c in cells[1:]
        if "expvqa-companion" in c.source or "google.colab" in c.source
    ]
    assert not again, "the source stands in another cell too"


# ----------------------------------------------------------------------------------------------------------------- scripts


def test_ci_runs_what_a_user_runs():
    assert "./run_all.sh --tests" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    assert (ROOT / "run_all.sh").stat().st_mode & 0o111


def run_all(*options: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(ROOT / "run_all.sh"), *options], cwd=cwd, capture_output=True, text=True, timeout=60
    )


def test_run_all_help_names_every_option(tmp_path):
    done = run_all("--help", cwd=tmp_path)
    assert done.returncode == 0
    for option in (
        "--profile",
        "--data-root",
        "--base",
        "--from",
        "--output",
        "--figures",
        "--tests",
        "--venv",
    ):
        assert option in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nope"], "unknown option '--nope'"),
        (["--profile"], "--profile needs a value"),
        (["--from", ""], "empty value"),
    ],
)
def test_run_all_refuses_bad_usage_before_any_set_up(tmp_path, options, message):
    done = run_all(*options, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert not done.stdout
