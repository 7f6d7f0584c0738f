"""The command line: help, messages, exit codes, and answers on standard output."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from expvqa_lib.pipeline.cli import main

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("ask", "data", "pairs", "train", "evaluate", "convert", "reproduce")


def expvqa(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "expvqa_lib", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert f"expvqa {command} " in capsys.readouterr().out.partition("example:")[2]


def test_help_lists_every_command_without_loading_torch():
    code = (
        "import sys, expvqa_lib.cli as cli; cli.build_parser().print_help(); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize(
    "arguments", [[], ["ask", "face.jpg"], ["ask", "face.jpg", "why?", "--samples", "0"], ["frobnicate"]]
)
def test_usage_errors_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: expvqa" in capsys.readouterr().err


@pytest.mark.parametrize("variant", ["exp_vqa", "exp_vqa_fz"])
def test_the_papers_recipe_trains_a_model_of_ones_own_on_pairs_of_ones_own(
    model, processor, pairs, tmp_path, capsys, variant
):
    from expvqa_lib.expvqa import ExpVQA, load

    ExpVQA(model, processor).save(tmp_path / "start")
    pairs.save_to_disk(tmp_path / "pairs")
    given = [
        "--profile",
        "paper",
        "--variant",
        variant,
        "--pairs",
        str(tmp_path / "pairs"),
        "--model",
        str(tmp_path / "start"),
    ]
    own = [
        "--precision",
        "bfloat16",
        "--images",
        "20",
        "--pairs-per-image",
        "4",
        "--epochs",
        "1",
        "--no-augment",
        "--max-words",
        "200",
    ]
    assert main(["train", *given, *own, "--output", str(tmp_path / "mine")]) == 0
    assert f"{tmp_path / 'mine'}: the fine-tuned model" in capsys.readouterr().out
    mine, start = (
        load(tmp_path / name, quiet=True).aus(pairs["test"]["image"][0], aus=[1, 12])
        for name in ("mine", "start")
    )
    assert (mine != start).any()
    assert main(["train", *given[:-2]]) == 1 and "--pairs needs --model" in capsys.readouterr().err
    assert (
        main(["train", "--images", "3"]) == 1
        and "changes of the recipe go with --pairs" in capsys.readouterr().err
    )
    assert main(["train", *given[:5], str(tmp_path), *given[6:], "--output", str(tmp_path / "x")]) == 1
    assert "no pairs could be read" in capsys.readouterr().err


def test_action_units_can_be_left_out_of_own_pairs_and_ablations_named(
    model, processor, pairs, tmp_path, capsys, monkeypatch
):
    from expvqa_lib.expvqa import ExpVQA
    from expvqa_lib.training import finetune as training

    ExpVQA(model, processor).save(tmp_path / "start")
    pairs.save_to_disk(tmp_path / "pairs")
    given = [
        "train",
        "--pairs",
        str(tmp_path / "pairs"),
        "--model",
        str(tmp_path / "start"),
        "--output",
        str(tmp_path / "mine"),
    ]
    calls = []
    monkeypatch.setattr(
        training,
        "finetune",
        lambda model, processor, pairs, *_, **how: calls.append((pairs["train"].to_pandas(), how)),
    )
    assert main([*given, "--variant", "exp_vqa_fz", "--unseen", "12", "4"]) == 0
    assert main([*given, "--variant", "q3_only", "--unseen", "12"]) == 0
    (every, _), (q3, how) = calls
    assert (
        {1, 6} <= set(every["au"].dropna())
        and not {12, 4} & set(every["au"].dropna())
        and set(every["question_type"]) == {"Q1", "Q2", "Q3"}
    )
    assert (
        set(q3["question_type"]) == {"Q3"}
        and 4 in set(q3["au"])
        and 12 not in set(q3["au"])
        and how["variant"] == "exp_vqa_fz"
    )
    capsys.readouterr()
    assert main([*given, "--variant", "cat_captioner"]) == 1 and "not on --pairs" in capsys.readouterr().err
    assert (
        main(["train", "--variant", "q4_only"]) == 1
        and "model 'q4_only' is unknown" in capsys.readouterr().err
    )
    assert main(["train", "--unseen", "12"]) == 1 and "go with --pairs" in capsys.readouterr().err


def test_a_missing_image_is_one_line_on_standard_error():
    done = expvqa("ask", "no-such-face.jpg", "How does this person feel?")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("expvqa: error: no-such-face.jpg: no such image file")
    assert len(done.stderr.splitlines()) == 1


def test_debug_shows_the_traceback():
    done = expvqa("ask", "--debug", "no-such-face.jpg", "How does this person feel?")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_an_unknown_profile_is_an_error_that_names_the_known_ones():
    done = expvqa("reproduce", "--profile", "quack")
    assert done.returncode == 1
    assert done.stderr.startswith("expvqa: error:")
    assert "quick" in done.stderr


def test_pairs_never_overwrites_a_folder(tmp_path, capsys):
    assert main(["pairs", "--output", str(tmp_path)]) == 1
    assert "exists already" in capsys.readouterr().err


def test_ask_answers_on_standard_output_and_keeps_the_notice_off_it(tmp_path):
    face = tmp_path / "face.png"
    Image.new("RGB", (64, 64), "tan").save(face)
    question = "How can this person's emotion be inferred from their facial actions?"
    one = expvqa("ask", str(face), question, "--no-crop")
    assert one.returncode == 0, one.stderr
    assert len(one.stdout.strip().splitlines()) == 1
    two = expvqa("ask", str(face), str(face), question, "--no-crop")
    assert two.returncode == 0, two.stderr
    assert two.stdout.splitlines() == [f"{face}\t{one.stdout.strip()}"] * 2
