"""The command line: help, messages, exit codes, and answers on standard output."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from weights import save

from expvqa_lib.data import AU_COLUMNS
from expvqa_lib.expvqa import load
from expvqa_lib.pipeline.cli import COMMANDS, main
from expvqa_lib.pipeline.run import Run

ROOT = Path(__file__).resolve().parents[2]


def python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert f"expvqa {command} " in capsys.readouterr().out.partition("example")[2]


def test_help_lists_every_command_without_loading_torch_or_pandas():
    code = "import sys; from expvqa_lib.pipeline.cli import build_parser; build_parser('').print_help(); "
    code += "sys.exit(bool({'torch', 'pandas'} & set(sys.modules)))"
    done = python("-c", code)
    assert done.returncode == 0 and all(command in done.stdout for command in COMMANDS), done.stderr


@pytest.mark.parametrize("line", ["", "ask face.jpg", "ask face.jpg why? --samples many", "frobnicate"])
def test_usage_errors_exit_with_2(line, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(line.split())
    assert stopped.value.code == 2 and "usage: expvqa" in capsys.readouterr().err


REFUSED = {
    "ask no-such-face.jpg why?": "no-such-face.jpg: no such image file",
    "reproduce --profile quack": "'quack' is unknown; known are quick",
    "pairs --output .": ".: exists already",
    "convert x.pth --output x": "--language-model",
    "data read BP4D --root .": "--output",
    "train --variant q4_only": "'q4_only' is unknown",
    "train --images 3": "--pairs",
    "train --no-augment": "--pairs",
    "train --unseen 12": "--pairs",
    "train --pairs pairs --variant cat_captioner": "cat_captioner",
    "train --pairs pairs": "--model",
    "train --pairs nowhere --model x --output y": "nowhere: no pairs",
    "evaluate --data faces.parquet": "--model",
    "evaluate --predictions p.parquet": "--data",
    "evaluate --data faces.parquet --model nowhere --card": "no model card",
    "evaluate --data faces.parquet --predictions p.parquet --card": "--card",
    "compare feat.csv --data faces.parquet --output out": "NAME=FILE",
    "compare a=1.csv --data faces.parquet --output out": "two or more",
    "compare a=1.csv prior=2.csv --data faces.parquet --output out": "label prior",
    "compare a=1.csv a=2.csv --data faces.parquet --output out": "different names",
    "score nowhere --output out.csv": "nowhere: no picture or video there",
    "score docs/face.png --output out.xlsx": ".csv or .parquet",
    "evaluate --in-words": "--in-words",
    "evaluate --predictions p --data d --question-types q1": "--question-types",
}


@pytest.mark.parametrize("line", REFUSED)
def test_a_setting_that_cannot_be_is_one_line_on_standard_error(line, capsys):
    assert main(line.split()) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("expvqa: error: ") and REFUSED[line] in printed.err
    assert printed.err.count("\n") == 1


@pytest.fixture
def given(model, processor, pairs, tmp_path):
    """Arguments that train an untrained model on pairs."""
    save(model, processor, tmp_path / "start")
    pairs.save_to_disk(tmp_path / "pairs")
    own = f"train --pairs {tmp_path / 'pairs'} --model {tmp_path / 'start'} --output {tmp_path / 'mine'}"
    return own.split()


@pytest.mark.parametrize("variant", ["exp_vqa", "exp_vqa_fz"])
def test_the_papers_recipe_trains_ones_own_model_on_ones_own_pairs(given, pairs, tmp_path, capsys, variant):
    recipe = "--precision bfloat16 --images 20 --pairs-per-image 4 --epochs 1 --no-augment --max-words 200"
    assert main([*given, "--profile", "paper", "--variant", variant, *recipe.split()]) == 0
    assert f"{tmp_path / 'mine'}: the fine-tuned model" in capsys.readouterr().out
    picture = pairs["test"]["image"][0]
    models = [load(folder, quiet=True) for folder in (tmp_path / "start", tmp_path / "mine")]
    before, after = (model.aus(picture, aus=[1, 12]) for model in models)
    assert (before != after).any()


def test_a_training_that_ends_within_its_warm_up_says_so_and_how_much_the_weights_changed(given, capsys):
    recipe = "--profile paper --precision float32 --images 8 --no-augment --variant exp_vqa_fz --steps 2"
    changes = []
    for more, warns in (("--warmup 1000", True), ("--warmup 0.1 --learning-rate 1e-2", False)):
        assert main([*given, *recipe.split(), *more.split()]) == 0
        printed = capsys.readouterr()
        assert ("2 steps end within the warm-up of 1000" in printed.err) == warns
        changes.append(float(printed.out.split()[-1]))
    assert changes[0] < 1e-5 < 1e-3 < changes[1]


def test_action_units_can_be_left_out_and_ablations_named(given, monkeypatch):
    calls = []

    def finetune(model, processor, pairs, output, variant, recipe):
        calls.append((pairs["train"].to_pandas(), variant))
        return pd.DataFrame({"weight_change": [0.1]})

    monkeypatch.setattr("expvqa_lib.pipeline.cli.commands.finetune", finetune)
    assert main([*given, "--variant", "exp_vqa_fz", "--unseen", "12", "4"]) == 0
    assert main([*given, "--variant", "q3_only", "--unseen", "12"]) == 0
    (every, _), (q3, variant) = calls
    assert {1, 6} <= set(every["au"].dropna()) and not {12, 4} & set(every["au"].dropna())
    assert set(every["question_type"]) == {"Q1", "Q2", "Q3"}
    assert set(q3["question_type"]) == {"Q3"} and 4 in set(q3["au"]) and 12 not in set(q3["au"])
    assert variant == "exp_vqa_fz"


def test_the_output_of_a_run_is_relative_to_the_working_folder(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(Run, "pairs", lambda run: None)
    monkeypatch.setattr(Run, "train", lambda run, name: opened.append(run))
    monkeypatch.setattr(Run, "training_log", lambda run, name: pd.DataFrame({"weight_change": [0.1]}))
    folder = ROOT / "tests" / "pipeline"  # below the checkout, to which the default folder is relative
    monkeypatch.chdir(folder)
    assert main(["train", "--output", "mine"]) == 0
    assert opened[0].store.parent == folder / "mine"


def test_evaluating_one_model_of_a_run_asks_no_other_and_fills_its_card(monkeypatch, capsys, tmp_path):
    faces = pd.DataFrame({"dataset": "own", "subject": list("abcd"), "split": "test", "AU12": [1, 0, 1, 0]})
    faces = faces.reindex(columns=["dataset", "subject", "split", *AU_COLUMNS])
    asked, scores = [], pd.DataFrame({"AU12": [0.9, 0.1, 0.8, 0.2]})
    monkeypatch.setattr(Run, "au_corpus", "own")
    monkeypatch.setattr(Run, "faces_of", lambda run, corpus, split="test": faces)
    monkeypatch.setattr(Run, "scores", lambda run, name: asked.append(name) or scores)
    monkeypatch.setattr(Run, "model_dir", lambda run, name: tmp_path / name)
    (tmp_path / "exp_vqa_fz").mkdir()
    card = tmp_path / "exp_vqa_fz" / "README.md"
    card.write_text("# Mine\n\n## Measured\n\nNothing yet.\n\n## Licence\n")
    assert main(["evaluate", "--model", "exp_vqa_fz", "--card"]) == 0
    assert "| own | test | AU12 | " in card.read_text() and "Exp-VQA(fz) |" in card.read_text()
    assert "Nothing yet" not in card.read_text() and card.read_text().endswith("\n\n## Licence\n")
    assert asked == ["exp_vqa_fz"]
    models = {line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]}
    assert models == {"prior", "exp_vqa_fz", "exp_vqa_fz_shuffled_images"}


def test_ask_answers_on_standard_output_and_keeps_the_notice_off_it(tmp_path):
    face = tmp_path / "face.png"
    Image.new("RGB", (64, 64), "tan").save(face)
    question = "How can this person's emotion be inferred from their facial actions?"
    one = python("-m", "expvqa_lib", "ask", str(face), question, "--no-crop")
    assert one.returncode == 0, one.stderr
    assert one.stdout.count("\n") == 1 and "tiny model" in one.stderr
    two = python("-m", "expvqa_lib", "ask", str(face), str(face), question, "--no-crop")
    assert two.returncode == 0, two.stderr
    assert two.stdout.splitlines() == [f"{face}\t{one.stdout.strip()}"] * 2


def test_the_card_and_the_printed_tables_state_the_figures_of_the_metrics(given, tmp_path, capsys):
    rows = {"image": [f"{k}.png" for k in range(6)], "dataset": "a|b/<c>", "frame": "0", "AU12": [1, 0] * 3}
    rows |= {"subject": list("abcdef"), "split": "test", "AU4": [0, 1, 1, 0, 1, 0]}
    rows |= {"emotion": ["happiness", "anger"] * 3}
    pd.DataFrame(rows).to_csv(tmp_path / "faces.csv", index=False)
    for k in range(6):
        Image.new("RGB", (48, 48), (40 * k, 90, 120)).save(tmp_path / f"{k}.png")
    small = "--variant exp_vqa_fz --images 20 --pairs-per-image 4 --steps 2 --precision float32"
    assert main([*given, *small.split()]) == 0
    mine, output = tmp_path / "mine", tmp_path / "metrics"
    line = f"evaluate --model {mine} --card --data {tmp_path / 'faces.csv'} --output {output}"
    cards = []
    for _ in range(2):
        assert main([*line.split(), "--question-types", "q1", "q3"]) == 0
        cards.append((mine / "README.md").read_text())
    assert cards[0] == cards[1] and "Nothing yet" not in cards[0]
    metrics = pd.read_csv(output / "metrics.csv").set_index(["question", "metric", "target", "model"])
    for table, kind, row, target in (
        ("q3_f1", ("Q3", "f1"), "Average", "macro"),
        ("q3_auc", ("Q3", "auc"), "AU12", "AU12"),
        ("q1_accuracy", ("Q1", "accuracy"), "emotion", "emotion"),
    ):
        value, low, high = metrics.loc[(*kind, target, "mine"), ["value", "low", "high"]]
        text = f"{value:.1f} [{low:.1f}, {high:.1f}]"
        printed = pd.read_csv(output / f"{table}.csv", index_col=2)
        assert printed.loc[row, "mine"] == text and "mine_shuffled_images" in printed
        assert text in (output / f"{table}.tex").read_text() and text in (output / f"{table}.md").read_text()
        title = " ".join(kind).replace("f1", "F1").replace("auc", "AUC").replace("accuracy", "Accuracy")
        section = cards[0].partition(f"{title}, percent")[2].partition("percent")[0]
        lines = [line for line in section.splitlines() if f" {row} |" in line]
        assert len(lines) == 1 and text in lines[0] and lines[0].startswith("| a\\|b/\\<c> | test |")


def test_images_that_cannot_be_read_are_skipped_by_every_command_if_asked_and_named(
    given, model, processor, tmp_path, capsys
):
    """The same line of each command: what is left out; without the option, each stops at that picture."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = {"image": [f"{k}.png" for k in range(6)], "dataset": "own", "frame": "0", "AU12": [1, 0] * 3}
    rows |= {"subject": list("abcdef"), "split": ["train"] * 4 + ["test"] * 2, "AU4": [0, 1] * 3}
    pd.DataFrame(rows).to_csv(folder / "faces.csv", index=False)
    for k in range(6):
        Image.new("RGB", (48, 48), (40 * k, 90, 120)).save(folder / f"{k}.png")
    start = str(save(model, processor, tmp_path / "start"))
    table, broken = str(folder / "faces.csv"), folder / "2.png"
    main(["pairs", "--table", table, "--output", str(tmp_path / "whole")])
    broken.write_bytes(broken.read_bytes()[:60])
    small = ["--images", "2", "--pairs-per-image", "1", "--steps", "2", "--precision", "float32"]
    whole = ["--pairs", str(tmp_path / "whole"), "--model", start]
    for line in (
        ["ask", str(folder / "1.png"), str(broken), "Why?", "--model", start, "--no-crop"],
        ["pairs", "--table", table, "--output", str(tmp_path / "built")],
        ["train", "--profile", "paper", *whole, *small, "--output", str(tmp_path / "mine")],
        ["evaluate", "--data", table, "--model", start, "--output", str(tmp_path / "metrics")],
    ):
        capsys.readouterr()
        if line[0] != "pairs":  # which opens no picture by itself
            assert main(line) == 1 and "2.png" in capsys.readouterr().err
        assert main([*line, "--skip-unreadable"]) == 0
        said = capsys.readouterr().err
        assert "left out, 1 images cannot be read" in said and said.count("2.png") == 1
    assert len(pd.read_parquet(tmp_path / "metrics" / "predictions.parquet")) == 2 * 5
