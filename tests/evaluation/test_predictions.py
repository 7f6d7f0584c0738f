"""`expvqa evaluate` on labels of one's own: predictions in parts, metrics after, and what is refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from weights import save

from expvqa_lib.data import labelled_aus, write_table
from expvqa_lib.errors import ModelError
from expvqa_lib.evaluation import predict_in_parts, predictions, read_faces, read_predictions
from expvqa_lib.evaluation.metrics import au_table
from expvqa_lib.evaluation.predictions import COLUMNS, mean_scores, predict, questions_about
from expvqa_lib.evaluation.tables import au_columns
from expvqa_lib.model import generate, load_model, score_yes_no
from expvqa_lib.pipeline.cli import main
from expvqa_lib.questions import ask_q2, ask_q3, read_yes_no


@pytest.fixture
def data(faces, tmp_path) -> list[str]:
    """The options for a table of few faces: one corpus with AUs, one with emotions."""
    root = os.path.commonpath(faces["image"].tolist())
    some = faces[faces["dataset"] != "synth_wild"].groupby(["dataset", "split"]).head(9)
    some = some.assign(image=[os.path.relpath(image, root) for image in some["image"]])
    lab = some["dataset"] == "synth_lab"  # not nine frames of one person
    some.loc[lab, "subject"] += [f"-{k % 3}" for k in range(lab.sum())]
    write_table(some, tmp_path / "faces.parquet")
    return ["--data", str(tmp_path / "faces.parquet"), "--image-root", root, "--split", "test"]


@pytest.fixture
def mine(model, processor, tmp_path) -> Path:
    save(model, processor, tmp_path / "mine")
    return tmp_path / "mine"


@pytest.fixture
def made(mine, data, tmp_path, capsys) -> Path:
    """The folder of predictions of Q3."""
    assert main(["evaluate", "--model", str(mine), *data, "--output", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    return tmp_path / "out"


def own_faces(data: list[str]) -> pd.DataFrame:
    return read_faces(data[1], data[3])


def metrics_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "metrics.csv").set_index(["question", "model", "target", "metric"])


def rewrite(folder: Path, data: list[str], change) -> int:
    """Change a file of predictions and measure it again."""
    path = folder / "predictions.parquet"
    change(pd.read_parquet(path)).to_parquet(path, index=False)
    return main(["evaluate", "--predictions", str(path), *data])


def refused(arguments: list, capsys) -> str:
    assert main(["evaluate", *map(str, arguments)]) == 1
    return capsys.readouterr().err


def test_predictions_have_a_row_a_question_and_metrics_follow_alone(mine, data, tmp_path, monkeypatch):
    monkeypatch.chdir(mine)  # the name of the model is that of the folder, of `.` too
    out, kinds = tmp_path / "out", ["--question-types", "q3", "q1", "q2"]
    assert main(["evaluate", "--model", ".", *data, *kinds, "--output", str(out)]) == 0
    table, faces = read_predictions(out / "predictions.parquet"), own_faces(data).query("split == 'test'")
    assert list(table.columns) == list(COLUMNS) and set(table["split"]) == {"test"}
    lab = faces[faces["dataset"] == "synth_lab"].reset_index(drop=True)
    aus, loaded = labelled_aus(lab), load_model(mine, quiet=True)
    q1, q2, q3 = (table[table["question_type"] == kind] for kind in ("Q1", "Q2", "Q3"))
    assert len(q3) == len(lab) * len(aus) and q3["answer"].isna().all() and len(q1) == len(faces)
    assert q3["question"].tolist() == [ask_q3(int(au[2:])) for au in q3["au"]]
    scores = score_yes_no(*loaded, lab["image"].tolist(), aus)
    np.testing.assert_allclose(mean_scores(q3, lab["name"], scores.columns), scores, atol=1e-5)
    brows = q2[q2["area"] == "brows"].set_index("image")["answer"]
    answers = generate(*loaded, lab["image"].tolist(), [ask_q2("brows")] * len(lab))
    assert brows.loc[lab["name"]].tolist() == [answer for (answer,) in answers]

    metrics, names = metrics_of(out), {"model": "mine", "dataset": "synth_lab", "split": "test"}
    expected = au_table(lab[scores.columns], scores, resamples=0, **names).set_index(["target", "metric"])
    both = [expected["value"], metrics.loc[("Q3", "mine"), "value"]]
    both = pd.concat(both, axis=1, join="inner").dropna()
    np.testing.assert_allclose(both.iloc[:, 0], both.iloc[:, 1], atol=2e-4)
    assert len(both) > len(aus) and ("Q2", "mine", "macro", "f1") in metrics.index
    assert set(metrics.loc["Q3"].index.get_level_values("model")) == {"mine", "prior", "mine_shuffled_images"}
    assert metrics.loc[("Q1", "mine", "emotion", "unread"), "value"] == 100
    assert metrics.loc[("Q1", "mine", "emotion", "accuracy"), "value"] == 0
    assert ("Q1", "prior", "emotion", "accuracy") in metrics.index
    monkeypatch.setattr("expvqa_lib.load", None)
    assert rewrite(out, data, lambda table: table) == 0
    pd.testing.assert_frame_equal(metrics_of(out), metrics)
    empty = metrics.loc[("Q1", "mine", "macro", "empty"), "support"].sum()
    assert empty == (q1["answer"] == "").sum()
    blank = table["answer"].where(table.index != q1.index[0], " ")
    assert rewrite(out, data, lambda table: table.assign(answer=blank)) == 0
    again = metrics_of(out).loc[("Q1", "mine", "macro", "empty"), "support"].sum()
    assert again == empty + (q1["answer"].iat[0] != "")


def test_a_killed_run_goes_on_and_asks_nothing_twice(model, processor, data, tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "CHUNK", 4)
    faces, asked = own_faces(data), []

    def ask(model, processor, part, *rest, **options):
        if len(asked) == 2 and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            raise KeyboardInterrupt
        asked.append(part["name"].tolist())
        return predict(model, processor, part, *rest, **options)

    monkeypatch.setattr(predictions, "predict", ask)
    with pytest.raises(KeyboardInterrupt):
        predict_in_parts(model, processor, faces, tmp_path / "out")
    assert not (tmp_path / "out" / "predictions.parquet").exists() and len(asked) == 2
    table = predict_in_parts(model, processor, faces, tmp_path / "out")
    names = sum(asked, [])
    assert len(names) == len(set(names)) and len(table) == len(names) * table["au"].nunique()
    predict_in_parts(model, processor, faces, tmp_path / "out")
    assert sum(asked, []) == names
    model.language_projection.weight.data *= -1  # another model asks anew in the same folder
    other = predict_in_parts(model, processor, faces, tmp_path / "out")
    assert len(sum(asked, [])) == 2 * len(names)
    assert np.abs(other["p_yes"] - table["p_yes"]).max() > 1e-4


def test_several_wordings_are_asked_at_once_and_averaged(model, processor, data):
    lab = own_faces(data).query("dataset == 'synth_lab' and split == 'test'")
    table = predict(model, processor, lab, questions_about(labelled_aus(lab), ["Q3"], (0, 2)))
    assert set(table["wording"]) == {0, 2}
    asked = lab["image"].tolist(), labelled_aus(lab)
    expected = score_yes_no(model, processor, *asked, wordings=[0, 2])
    scores = mean_scores(table, lab["name"], expected.columns)
    pd.testing.assert_frame_equal(scores, expected)  # bit by bit


def test_answers_in_words_are_measured_beside_probabilities_or_alone(mine, data, tmp_path):
    given = ["--model", str(mine), *data, "--output", str(tmp_path / "out"), "--in-words"]
    assert main(["evaluate", *given]) == 0
    table, metrics = read_predictions(tmp_path / "out" / "predictions.parquet"), metrics_of(tmp_path / "out")
    unread = sum(read_yes_no(answer) is None for answer in table["answer"])
    assert metrics.loc[("Q3", "mine_in_words", "macro", "unread"), "support"] == unread > 0
    yes = {"answer": "Yes, it does.", "p_yes": np.nan}
    assert rewrite(tmp_path / "out", data, lambda table: table.assign(**yes)) == 0
    metrics = metrics_of(tmp_path / "out")
    assert set(metrics.index.get_level_values("model")) == {"mine_in_words"}
    assert metrics.loc[("Q3", "mine_in_words", "macro", "unread"), "value"] == 0
    assert metrics.loc[("Q3", "mine_in_words", "AU12", "recall"), "value"] in (0, 100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.iloc[1:], r"AU\d+ of .*1 such row"),
        (lambda t: pd.concat([t, t.iloc[[3]]]), r"more than once: AU\d+ of"),
        (lambda t: t.assign(image=t["image"].where(t.index > 0, "who.png")), "who.png"),
        (lambda t: t.assign(au=t["au"].where(t.index > 0, "AU99")), "AU99"),
        (lambda t: t.assign(dataset="CK+"), r"'CK\+'.*found synth"),
        (lambda t: t.assign(p_yes=t["p_yes"].where(t.index > 0)), r"column AU1 is nan; .*1 such"),
        (lambda t: t.assign(p_yes=1.5), r"row 0, column AU1 is 1\.5"),
        (lambda t: t.drop(columns=["au", "p_yes"]), "no column au, p_yes"),
        (lambda t: t.iloc[:0], "Q1, Q2, Q3"),
    ],
)
def test_wrong_predictions_are_refused(made, data, capsys, change, message):
    assert rewrite(made, data, change) == 1
    error = capsys.readouterr().err
    assert re.search(message, error) and len(error.splitlines()) <= 3, error


def test_all_faces_of_a_table_are_measured_unless_a_split_is_asked_for(mine, data, tmp_path, capsys):
    table = pd.read_parquet(data[1]).query("dataset == 'synth_lab'")
    table.to_csv(tmp_path / "faces.csv", index=False)
    given = ["--model", str(mine), "--data", str(tmp_path / "faces.csv"), *data[2:4]]
    for split, faces in ({"all": table} | dict(list(table.groupby("split")))).items():
        out = tmp_path / split
        chosen = [] if split == "all" else ["--split", split]
        assert main(["evaluate", *given, *chosen, "--output", str(out)]) == 0
        predictions = read_predictions(out / "predictions.parquet")
        assert set(predictions["image"]) == set(faces["image"])
        assert set(pd.read_csv(out / "metrics.csv")["split"]) == {split}
    predictions.to_csv(out / "predictions.csv", index=False)
    again = ["--predictions", str(out / "predictions.csv"), *given[2:], "--split", split]
    assert main(["evaluate", *again, "--output", str(tmp_path / "again")]) == 0
    tables = (pd.read_csv(folder / "metrics.csv") for folder in (out, tmp_path / "again"))
    pd.testing.assert_frame_equal(*(table.drop(columns="model") for table in tables))  # a folder's name


def test_an_au_of_one_class_and_one_subject_leave_out_what_cannot_be_measured(made, data, capsys):
    table = pd.read_parquet(data[1])
    lab = table["dataset"] == "synth_lab"
    table.loc[lab, "AU12"] = 0
    table.loc[lab & (table["split"] == "test"), "subject"] = "one"
    write_table(table, data[1])
    assert rewrite(made, data, lambda table: table) == 0
    assert "synth_lab" in capsys.readouterr().err
    metrics = metrics_of(made).loc["Q3"]
    assert np.isnan(metrics.loc[("mine", "AU12", "auc"), "value"])
    assert metrics.loc[("mine", "AU12", "f1"), "support"] == 0
    assert set(metrics.index.get_level_values("model")) == {"mine", "prior"} and metrics["low"].isna().all()


def test_bad_data_and_models_are_refused(mine, made, data, tmp_path, capsys, model, processor):
    assert "--model" in refused(data, capsys)
    assert "--data" in refused(["--predictions", made / "predictions.parquet"], capsys)
    assert "no.parquet" in refused(["--predictions", tmp_path / "no.parquet", *data], capsys)
    assert str(tmp_path / "mine") in refused(["--model", mine, "--data", tmp_path / "mine"], capsys)
    table = pd.read_parquet(data[1])
    bad = {
        "no row is labelled by people": table.assign(labelled_by="OpenFace"),
        table["image"].iat[0]: pd.concat([table, table.iloc[[0]]]),
        "'test'; found train": table[table["split"] == "train"],
        "Q3": table[table["dataset"] == "synth_emotion"],
        "nobody.png": table.drop_duplicates("dataset").assign(image="nobody.png", split="test"),
    }
    for message, change in bad.items():
        write_table(change, tmp_path / "faces.parquet")
        assert message in refused(["--model", mine, *data, "--output", tmp_path / "x"], capsys)
    write_table(table, tmp_path / "faces.parquet")
    model.language_projection.bias.data[:] = np.nan
    with pytest.raises(ModelError, match="AU1 of "):
        predict_in_parts(model, processor, own_faces(data), tmp_path / "nan")
    assert not (tmp_path / "nan" / "predictions.parquet").exists()


def test_a_csv_table_is_read_like_a_parquet_one(data, tmp_path):
    parquet = own_faces(data)
    pd.read_parquet(data[1]).to_csv(tmp_path / "faces.csv", index=False)
    csv = read_faces(tmp_path / "faces.csv", data[3])
    columns = ["image", "name", "dataset", "subject", "split", "emotion", *au_columns(parquet)]
    pd.testing.assert_frame_equal(csv[columns], parquet[columns], check_dtype=False)


def test_two_processes_predict_what_one_does(made, mine, data, tmp_path):
    torchrun = "-m torch.distributed.run --standalone --nproc-per-node 2 -m expvqa_lib evaluate"
    command = [sys.executable, *torchrun.split(), "--model", mine, *data, "--output", tmp_path / "two"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (pd.read_parquet(folder / "predictions.parquet") for folder in (made, tmp_path / "two"))
    pd.testing.assert_frame_equal(two, one, rtol=0, atol=1e-5)
