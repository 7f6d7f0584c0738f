"""`expvqa evaluate` on faces of one's own: predictions in parts, metrics after, and what is refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from expvqa_lib.data import table as face_table
from expvqa_lib.data.table import labelled_aus
from expvqa_lib.errors import ModelError
from expvqa_lib.evaluation import predictions as predicting
from expvqa_lib.evaluation.metrics import au_table
from expvqa_lib.evaluation.predictions import COLUMNS, measure, predict, read_faces, read_predictions
from expvqa_lib.expvqa import ExpVQA
from expvqa_lib.model.answer import generate, score_yes_no
from expvqa_lib.pipeline.cli import main
from expvqa_lib.questions import ask_q2, ask_q3, read_yes_no


@pytest.fixture
def data(faces, tmp_path) -> list[str]:
    """The options for a table of few faces: one corpus with AUs, one with emotions, some of them for training."""
    root = os.path.commonpath(faces["image"].tolist())
    some = pd.concat(
        [rows.iloc[:9] for _, rows in faces[faces["dataset"] != "synth_wild"].groupby(["dataset", "split"])]
    )
    some = some.assign(image=[os.path.relpath(image, root) for image in some["image"]])
    lab = some["dataset"] == "synth_lab"  # not nine frames of one person
    some.loc[lab, "subject"] = (
        some.loc[lab, "subject"].astype(str) + "-" + (np.arange(lab.sum()) % 3).astype(str)
    )
    face_table.write_table(some, tmp_path / "faces.parquet")
    return ["--data", str(tmp_path / "faces.parquet"), "--image-root", root]


@pytest.fixture
def mine(model, processor, tmp_path) -> Path:
    ExpVQA(model, processor).save(tmp_path / "mine")
    return tmp_path / "mine"


@pytest.fixture
def made(mine, data, tmp_path, capsys) -> Path:
    """The folder of predictions of Q3."""
    assert main(["evaluate", "--model", str(mine), *data, "--output", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    return tmp_path / "out"


def own_faces(data: list[str]) -> pd.DataFrame:
    return read_faces(data[1], data[3])


def rewrite(path: Path, change) -> None:
    """Change a file of predictions."""
    change(pd.read_parquet(path)).to_parquet(path, index=False)


def refused(arguments: list, capsys) -> str:
    assert main(["evaluate", *map(str, arguments)]) == 1
    return capsys.readouterr().err


def test_predictions_have_a_row_a_question_and_metrics_follow_without_a_model(
    mine, data, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "--model", str(mine), *data, "--question-types", "q3", "q1", "q2"]) == 0
    out = tmp_path / "predictions" / "mine"
    assert "predictions.parquet and metrics.csv" in capsys.readouterr().out
    table, faces = read_predictions(out / "predictions.parquet"), own_faces(data)
    assert list(table.columns) == list(COLUMNS) and set(table["split"]) == {"test"}
    lab = faces[(faces["dataset"] == "synth_lab") & (faces["split"] == "test")].reset_index(drop=True)
    aus = labelled_aus(lab)
    q3 = table[table["question_type"] == "Q3"]
    assert (
        len(q3) == len(lab) * len(aus)
        and not q3.duplicated(["image", "au"]).any()
        and q3["answer"].isna().all()
    )
    found = q3.pivot(index="image", columns="au", values="p_yes").loc[lab["name"]]
    wanted = score_yes_no(*_loaded(mine), lab["image"].tolist(), aus)
    np.testing.assert_allclose(found[wanted.columns], wanted, atol=1e-5)
    assert (q3["question"] == [ask_q3(int(au[2:])) for au in q3["au"]]).all()
    brows = table[(table["question_type"] == "Q2") & (table["area"] == "brows")].set_index("image")["answer"]
    told = generate(*_loaded(mine), lab["image"].tolist(), [ask_q2("brows")] * len(lab))
    assert brows.loc[lab["name"]].tolist() == [answer for (answer,) in told]
    assert (table["question_type"] == "Q1").sum() == (faces["split"] == "test").sum()
    metrics = pd.read_csv(out / "metrics.csv")
    at = metrics.set_index(["question", "model", "dataset", "target", "metric"])["value"]
    labels = lab[wanted.columns]
    expected = au_table(labels, wanted, model="mine", dataset="synth_lab", split="test", resamples=0)
    for row in expected.dropna(subset="value").itertuples():
        assert at["Q3", "mine", "synth_lab", row.target, row.metric] == pytest.approx(row.value, abs=2e-4)
    models = set(metrics.loc[metrics["question"] == "Q3", "model"])
    assert models == {"mine", "prior", "mine_shuffled_images"}
    assert (
        at["Q1", "mine", "synth_emotion", "emotion", "unread"] == 100
        and at["Q1", "mine", "synth_emotion", "emotion", "accuracy"] == 0
    )
    assert ("Q2", "mine", "synth_lab", "macro", "f1") in at and (
        "Q1",
        "prior",
        "synth_emotion",
        "emotion",
        "accuracy",
    ) in at
    once = (out / "metrics.csv").read_text()
    (out / "metrics.csv").unlink()
    monkeypatch.setattr("expvqa_lib.load", None)
    assert main(["evaluate", "--predictions", str(out / "predictions.parquet"), *data]) == 0
    assert (out / "metrics.csv").read_text() == once


def _loaded(folder: Path):
    from expvqa_lib.model.load import load_model

    return load_model(folder, quiet=True)


def test_a_killed_run_goes_on_and_asks_nothing_twice(model, processor, mine, data, tmp_path, monkeypatch):
    monkeypatch.setattr(predicting, "CHUNK", 4)
    faces, asked, real = own_faces(data), [], predicting._answers

    def killed(model, some, *rest):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(some["name"].tolist())
        return real(model, some, *rest)

    monkeypatch.setattr(predicting, "_answers", killed)
    with pytest.raises(KeyboardInterrupt):
        predict(ExpVQA(model, processor), faces, tmp_path / "out")
    assert (
        not (tmp_path / "out" / "predictions.parquet").exists()
        and len(list((tmp_path / "out" / "parts").iterdir())) == 2
    )
    before = list(asked)
    monkeypatch.setattr(
        predicting,
        "_answers",
        lambda model, some, *rest: asked.append(some["name"].tolist()) or real(model, some, *rest),
    )
    whole = predict(ExpVQA(model, processor), faces, tmp_path / "out")
    names = [name for part in asked for name in part]
    assert (
        len(names) == len(set(names))
        and asked[:2] == before
        and len(whole) == len(names) * whole["au"].nunique()
    )
    predict(ExpVQA(model, processor), faces, tmp_path / "out")
    assert len([name for part in asked for name in part]) == len(names)
    monkeypatch.setattr(predicting, "CHUNK", 256)
    pd.testing.assert_frame_equal(
        predict(ExpVQA(model, processor), faces, tmp_path / "other"), whole, rtol=0, atol=1e-5
    )
    count = len(asked)
    model.language_projection.weight.data *= -1  # another model asks anew in the same folder
    other = predict(ExpVQA(model, processor), faces, tmp_path / "out")
    assert len(asked) > count and np.abs(other["p_yes"] - whole["p_yes"]).max() > 1e-4


def test_answers_in_words_are_counted(mine, data, tmp_path, capsys):
    given = ["--model", mine, *data, "--output", tmp_path / "out", "--in-words"]
    assert main(["evaluate", *map(str, given)]) == 0
    table, faces = read_predictions(tmp_path / "out" / "predictions.parquet"), own_faces(data)
    assert table["answer"].notna().all() and set(table["wording"]) == {0}
    mean = table.groupby(["image", "au"])["p_yes"].mean().unstack()
    lab = faces[(faces["dataset"] == "synth_lab") & (faces["split"] == "test")]
    aus = labelled_aus(lab)
    wanted = score_yes_no(*_loaded(mine), lab["image"].tolist(), aus, wordings=[0])
    np.testing.assert_allclose(mean.loc[lab["name"], wanted.columns], wanted, atol=1e-5)
    metrics = pd.read_csv(tmp_path / "out" / "metrics.csv").set_index(["model", "target", "metric"])
    assert (
        metrics.loc[("mine_in_words", "macro", "unread"), "support"]
        == sum(read_yes_no(told) is None for told in table["answer"])
        > 0
    )
    rewrite(
        tmp_path / "out" / "predictions.parquet",
        lambda told: told.assign(answer="Yes, it does.", p_yes=np.nan),
    )
    assert main(["evaluate", "--predictions", str(tmp_path / "out" / "predictions.parquet"), *data]) == 0
    metrics = pd.read_csv(tmp_path / "out" / "metrics.csv").set_index(["model", "target", "metric"])
    assert set(metrics.index.get_level_values("model")) == {"mine_in_words"}
    assert metrics.loc[("mine_in_words", "macro", "unread"), "value"] == 0
    assert metrics.loc[("mine_in_words", "AU12", "recall"), "value"] == 100 * bool((lab["AU12"] == 1).any())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda told: told.iloc[1:], r"no prediction: AU\d+ of .*\(1 such rows"),
        (
            lambda told: pd.concat([told, told.iloc[[3]]]),
            r"answered more than once: AU\d+ of .*keep one row a question",
        ),
        (
            lambda told: told.assign(image=told["image"].where(told.index > 0, "who.png")),
            r"image not among the \d+ that were asked about",
        ),
        (lambda told: told.assign(au=told["au"].where(told.index > 0, "AU99")), "au not among .*AU99"),
        (
            lambda told: told.assign(dataset="CK+"),
            r"data set 'CK\+' is not in the face table's split 'test'; found synth",
        ),
        (
            lambda told: told.assign(p_yes=told["p_yes"].where(told.index > 0)),
            "p_yes is missing or no number: AU1 of .*1 such",
        ),
        (lambda told: told.assign(p_yes=1.5), r"score in row 0, column AU1 is 1\.5; expected a probability"),
        (
            lambda told: told.drop(columns=["au", "p_yes"]),
            "no column au, p_yes; predictions have image, dataset",
        ),
        (lambda told: told.iloc[:0], "hold no question of Q1, Q2, Q3"),
    ],
)
def test_wrong_predictions_are_refused(made, data, capsys, change, message):
    rewrite(made / "predictions.parquet", change)
    told = refused(["--predictions", made / "predictions.parquet", *data], capsys)
    assert re.search(message, told) and len(told.splitlines()) <= 3, told


def test_an_au_of_one_class_and_one_subject_are_said(made, data, capsys):
    table = pd.read_parquet(data[1])
    lab = table["dataset"] == "synth_lab"
    table.loc[lab, "AU12"] = 0
    table.loc[lab & (table["split"] == "test"), "subject"] = "one"
    face_table.write_table(table, data[1])
    assert main(["evaluate", "--predictions", str(made / "predictions.parquet"), *data]) == 0
    assert "one subject has more than half of the faces" in capsys.readouterr().err
    metrics = pd.read_csv(made / "metrics.csv").set_index(["model", "target", "metric"])
    assert (
        np.isnan(metrics.loc[("mine", "AU12", "auc"), "value"])
        and metrics.loc[("mine", "AU12", "f1"), "support"] == 0
    )
    assert set(metrics.index.get_level_values("model")) == {"mine", "prior"} and metrics["low"].isna().all()


def test_empty_answers_are_counted(mine, data, tmp_path, capsys):
    assert (
        main(
            [
                "evaluate",
                "--model",
                str(mine),
                *data,
                "--question-types",
                "q1",
                "--output",
                str(tmp_path / "out"),
            ]
        )
        == 0
    )
    path = tmp_path / "out" / "predictions.parquet"
    rewrite(path, lambda told: told.assign(answer=[None, " ", *["The face shows fear."] * (len(told) - 2)]))
    assert main(["evaluate", "--predictions", str(path), *data]) == 0
    metrics = pd.read_csv(tmp_path / "out" / "metrics.csv").set_index(
        ["model", "dataset", "metric", "target"]
    )
    first = pd.read_parquet(path)["dataset"].iat[0]
    assert metrics.loc[("mine", first, "empty", "macro"), "support"] == 2
    assert metrics.loc[("mine", "synth_emotion", "unread", "emotion"), "support"] == 2 * (
        first == "synth_emotion"
    )


def test_bad_data_and_models_are_refused(mine, made, data, tmp_path, capsys, model, processor):
    assert "--data needs --model" in refused(data, capsys)
    assert "--predictions needs --data" in refused(["--predictions", made / "predictions.parquet"], capsys)
    assert "no readable Parquet table of predictions" in refused(
        ["--predictions", tmp_path / "no.parquet", *data], capsys
    )
    assert "no data set below it" in refused(["--model", mine, "--data", tmp_path / "mine"], capsys)
    table = pd.read_parquet(data[1])
    for change, message in (
        (table.assign(labelled_by="OpenFace"), "no row is labelled by people"),
        (pd.concat([table, table.iloc[[0]]]), "stands in several rows; expected one a face"),
        (table[table["split"] == "train"], "no row of the split 'test'; found train"),
        (table[table["dataset"] == "synth_emotion"], "nothing to ask in Q3"),
        (
            table.assign(image="nobody.png").drop_duplicates(["dataset", "image"]).assign(split="test"),
            r"nobody.png: cannot be read",
        ),
    ):
        face_table.write_table(change, tmp_path / "bad.parquet")
        given = [
            "--model",
            mine,
            "--data",
            tmp_path / "bad.parquet",
            "--image-root",
            data[3],
            "--output",
            tmp_path / "x",
        ]
        assert message in refused(given, capsys)
    for file in [*mine.glob("token*"), *mine.glob("qformer_tokenizer/*")]:
        file.unlink()
        told = refused(["--model", mine, *data, "--output", tmp_path / "x"], capsys)
        assert (
            "tokenizer is there that knows words and padding" in told
            or "no InstructBLIP model could be loaded" in told
        ), (file, told)
    model.language_projection.bias.data[:] = np.nan
    with pytest.raises(ModelError, match=r"probability of yes is no number for AU1 of .*--dtype float32"):
        predict(ExpVQA(model, processor), own_faces(data), tmp_path / "nan")
    assert not (tmp_path / "nan").exists()


def test_a_csv_table_is_read_like_a_parquet_one(data, tmp_path):
    parquet = own_faces(data)
    pd.read_parquet(data[1]).to_csv(tmp_path / "faces.csv", index=False)
    csv = read_faces(tmp_path / "faces.csv", data[3])
    told = [
        "image",
        "name",
        "dataset",
        "split",
        "emotion",
        *[column for column in parquet if re.fullmatch(r"AU\d+", column)],
    ]
    pd.testing.assert_frame_equal(csv[told], parquet[told], check_dtype=False)
    assert csv["subject"].tolist() == parquet["subject"].tolist()


def test_two_processes_predict_what_one_does(made, mine, data, tmp_path):
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "expvqa_lib",
        "evaluate",
    ]
    given = ["--model", mine, *data, "--output", tmp_path / "two"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        list(map(str, [*torchrun, *given])), capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("predictions.parquet and metrics.csv") == 1
    one, two = (pd.read_parquet(folder / "predictions.parquet") for folder in (made, tmp_path / "two"))
    pd.testing.assert_frame_equal(two, one, rtol=0, atol=1e-5)


def test_measuring_takes_the_prior_from_training_faces_where_there_are_any(made, data):
    faces, told = own_faces(data), read_predictions(made / "predictions.parquet")
    whole, without = (
        measure(told, some, name="mine", resamples=0) for some in (faces, faces[faces["split"] == "test"])
    )
    pd.testing.assert_frame_equal(whole, without)  # of action units it says yes to all
