"""Emotions agree with scikit-learn; the metrics load as those of `evaluate`, without a network."""

import socket

import evaluate
import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk
from test_au_metrics import NAMES, faces, values

from expvqa_lib.errors import SettingsError
from expvqa_lib.evaluation import metrics


def test_emotion_table_agrees_with_scikit_learn_and_counts_silence_as_wrong():
    rng = np.random.default_rng(0)
    names = np.array(["anger", "happiness", "neutral"])
    true = rng.choice(names, 200)
    predicted = np.where(rng.random(200) < 0.6, true, rng.choice(names, 200)).astype(object)
    predicted[:10], predicted[10] = None, np.nan
    options = {"groups": np.arange(201) % 40, "resamples": 200}
    table = metrics.emotion_table([*true, None], [*predicted, "anger"], **NAMES, **options)
    got, texts = values(table), ["" if pd.isna(p) else p for p in predicted]
    assert list(table["target"].unique()) == ["neutral", "happiness", "anger", "macro"]
    of_all = {"labels": names, "average": "macro"}
    wanted = {
        ("macro", "accuracy"): sk.accuracy_score(true, texts),
        ("macro", "f1"): sk.f1_score(true, texts, **of_all),
        ("macro", "balanced_accuracy"): sk.recall_score(true, texts, **of_all),
        ("anger", "precision"): sk.precision_score(true, texts, labels=["anger"], average="micro"),
        ("anger", "recall"): sk.recall_score(true, texts, labels=["anger"], average="micro"),
    }
    assert {key: got[key] for key in wanted} == pytest.approx({k: 100 * v for k, v in wanted.items()})
    assert (table["low"] < table["value"]).all() and (table["value"] < table["high"]).all()
    assert table["support"].iat[-1] == 200 and table["support"].iat[0] == (true == "neutral").sum()


def test_emotion_difference_is_that_of_the_accuracies():
    rng = np.random.default_rng(0)
    true = rng.choice(["anger", "fear"], 300).astype(object)
    a, b = (np.where(rng.random(300) < share, true, "none").astype(object) for share in (0.9, 0.5))
    true[0], b[1] = None, None
    result = metrics.emotion_difference(true, a, b, groups=np.arange(300) // 2)
    wanted = 100 * (np.mean(true[1:] == a[1:]) - np.mean(true[1:] == b[1:]))
    assert result["value"] == pytest.approx(wanted) and result["support"] == 299
    assert 0 < result["low"] < result["value"] < result["high"]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("something reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_au_f1_adds_batches_and_captions_are_the_table():
    labels, scores = faces(unlabelled=0.1)
    metric, p = metrics.load("au_f1", aus=(1, 4, 12)), scores.to_numpy()
    y = labels.to_numpy(dtype=float, na_value=np.nan)
    for part in np.array_split(np.arange(len(y)), 4):
        metric.add_batch(predictions=p[part], references=y[part])
    f1 = values(metrics.au_table(labels, scores, **NAMES, resamples=0)).xs("f1", level="metric")
    assert metric.compute() == pytest.approx({f"f1_{target}": value for target, value in f1.items()})
    texts = ["the brow", "lip"], [["the brow lowers"], ["lip", "chin"]]
    wanted = metrics.caption_table(*texts, **NAMES, resamples=0).set_index("metric")["value"]
    got = metrics.load("captions").compute(predictions=texts[0], references=texts[1])
    assert got == pytest.approx(wanted.to_dict())


def test_emotion_accuracy_counts_an_empty_prediction_as_wrong():
    metric = metrics.load("emotion_accuracy")
    metric.add_batch(predictions=["", "anger"], references=["anger", "anger"])
    metric.add(prediction="", reference="fear")
    metric.add(prediction="fear", reference="fear")
    assert metric.compute() == pytest.approx({"accuracy": 50, "macro_f1": 200 / 3, "balanced_accuracy": 50})
    pair = {"predictions": ["fear", ""], "references": ["fear", "fear"]}
    assert evaluate.combine([metric]).compute(**pair)["accuracy"] == 50


def test_unknown_names_are_refused():
    with pytest.raises(SettingsError, match="au_f1, captions, emotion_accuracy"):
        metrics.load("f1")
    with pytest.raises(SettingsError, match="kappa"):
        metrics.load("au_f1", aus=(1,), metrics=["kappa"]).compute(predictions=[[0.1]], references=[[0]])
