"""Metrics agree with scikit-learn and hand counts, as those of `evaluate`, too; intervals follow subjects."""

import socket

import evaluate
import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from expvqa_lib.errors import SettingsError, TableError
from expvqa_lib.evaluation import metrics
from expvqa_lib.evaluation.metrics.bootstrap import group_codes, resample

NAMES = {"model": "m", "dataset": "d", "split": "test"}
AUS = ["AU1", "AU4", "AU12"]
ANSWERED = ("f1", "balanced_accuracy", "precision", "recall", "accuracy")


def faces(rows=300, seed=0, unlabelled=0.0):
    """Labels with gaps, and scores with ties that are better than chance, for three AUs."""
    rng = np.random.default_rng(seed)
    y = rng.random((rows, 3)) < (0.1, 0.4, 0.8)
    scores = np.round(np.clip(rng.normal(0.35 + 0.3 * y, 0.25), 0, 1), 1)
    labels = pd.DataFrame(y.astype(int), columns=AUS, dtype="Int8").mask(rng.random((rows, 3)) < unlabelled)
    return labels, pd.DataFrame(scores, columns=AUS)


def values(table):
    return table.set_index(["target", "metric"])["value"]


def scikit_learn(y, p, **weights):
    ranked = {"auc": sk.roc_auc_score, "average_precision": sk.average_precision_score}
    of_answers = {name: getattr(sk, f"{name}_score") for name in ANSWERED}
    scores = {name: score(y, p >= 0.5, **weights) for name, score in of_answers.items()}
    scores |= {name: score(y, p, **weights) for name, score in ranked.items()}
    return {name: 100 * score for name, score in scores.items()}


def test_au_table_and_its_averages_agree_with_scikit_learn():
    labels, scores = faces(unlabelled=0.2)
    options = {"metrics": metrics.ALL_METRICS, "micro": True, "resamples": 20}
    table = metrics.au_table(labels, scores, **NAMES, **options)
    got, y, p = values(table).unstack(), labels.to_numpy(dtype=float, na_value=np.nan), scores.to_numpy()
    assert tuple(table.columns) == metrics.COLUMNS
    columns = {au: (y[:, k], p[:, k]) for k, au in enumerate(AUS)} | {"micro": (y.ravel(), p.ravel())}
    for target, (truth, score) in columns.items():
        wanted = scikit_learn(truth[~np.isnan(truth)], score[~np.isnan(truth)])
        assert got.loc[target].drop("calibration_error").to_dict() == pytest.approx(wanted), target
    assert got.loc["macro"].tolist() == pytest.approx(got.loc[AUS].mean().tolist())
    labelled, positives = labels.notna().any(axis=1).sum(), labels.sum().to_dict()
    support = table.groupby("target", sort=False)["support"].first().to_dict()
    assert list(support.items()) == list((positives | {"macro": labelled, "micro": labelled}).items())
    assert (table["low"] < table["value"]).all() and (table["value"] < table["high"]).all()


def test_every_resample_is_scikit_learns_weighted_value():
    labels, scores = faces(rows=80, unlabelled=0.1)
    y, p = labels.to_numpy(dtype=float, na_value=np.nan), scores.to_numpy()
    names = (*metrics.au.METRICS, "average_precision")
    weights = next(resample(np.arange(80) // 4, 5, seed=3))
    for values_of_one, drawn in zip(metrics.au._measure(y, p, 0.5, names)(weights), weights, strict=True):
        for a, labelled in enumerate(~np.isnan(y.T)):
            wanted = scikit_learn(y[labelled, a], p[labelled, a], sample_weight=drawn[labelled])
            assert values_of_one[a].tolist() == pytest.approx([wanted[name] for name in names])


def test_an_au_of_one_class_has_a_row_and_one_without_a_label_is_left_out_and_named():
    labels, scores = faces()
    got = values(metrics.au_table(labels.assign(AU1=0, AU4=1), scores, **NAMES, metrics=metrics.ALL_METRICS))
    assert np.isnan(got["AU1", "auc"]) and np.isnan(got["AU1", "average_precision"]) and got["AU1", "f1"] == 0
    assert np.isnan(got["AU4", "auc"]) and got["AU4", "precision"] == 100
    assert got["AU4", "average_precision"] == pytest.approx(100) and got["macro", "auc"] == got["AU12", "auc"]
    none = values(metrics.au_table(labels, scores * 0.4, **NAMES, resamples=0))
    assert (none.xs("f1", level="metric") == 0).all()  # without a yes
    labels["AU12"] = pd.NA
    with pytest.warns(UserWarning, match="AU9, AU12"):
        table = metrics.au_table(labels, scores.assign(AU9=0.5), **NAMES, resamples=0)
    assert list(table["target"].unique()) == ["AU1", "AU4", "macro"]


def test_calibration_by_hand():
    labels = pd.DataFrame({"AU1": [1, 0, 1, 1, pd.NA], "AU2": [0, 0, 0, 1, 1]})
    scores = pd.DataFrame({"AU1": [0.62, 0.68, 0.98, 1.0, 0.62], "AU2": [0.0, 0.0, 0.0, 1.0, 1.0]})
    options = {"metrics": ["calibration_error"], "micro": True, "resamples": 0}
    got = values(metrics.au_table(labels, scores, **NAMES, **options)).droplevel("metric")
    au1 = 100 * (2 * abs(0.65 - 0.5) + 2 * abs(0.99 - 1)) / 4
    assert got.to_dict() == pytest.approx({"AU1": au1, "AU2": 0, "macro": au1 / 2, "micro": au1 * 4 / 9})
    bins = metrics.reliability_table(labels, scores).set_index("from")
    assert bins.loc[60].tolist() == pytest.approx([70, 2, 65, 50])
    assert bins.loc[90].tolist() == pytest.approx([100, 4, 99.5, 100])
    assert bins.loc[50, "faces"] == 0 and np.isnan(bins.loc[50, "positives"]) and bins["faces"].sum() == 9


def test_thresholds_of_validation_are_the_best_there_and_named_in_the_table():
    labels, scores = faces(unlabelled=0.1)
    thresholds = metrics.best_thresholds(labels, scores)
    options = {"metrics": ["f1", "auc", "recall"], "resamples": 0}
    table = metrics.au_table(labels, scores, **NAMES, threshold=thresholds, **options)
    assert set(table["metric"]) == {"f1_tuned", "auc", "recall_tuned"}
    for au in AUS:
        labelled = labels[au].notna()
        y, p = labels.loc[labelled, au].astype(int), scores.loc[labelled, au]
        best, threshold = max((sk.f1_score(y, p >= t), t) for t in p.unique())
        assert thresholds[au] == threshold and values(table)[au, "f1_tuned"] == pytest.approx(100 * best)
    assert metrics.best_thresholds(labels * 0, scores) == dict.fromkeys(AUS, 0.5)


def test_drawing_subjects_widens_the_interval_of_repeated_frames():
    labels, scores = (pd.concat([frame] * 20, ignore_index=True) for frame in faces(rows=60))
    groups = (None, list(range(60)) * 20, ["only"] * len(labels))
    tables = [metrics.au_table(labels, scores, **NAMES, groups=g, resamples=300) for g in groups]
    by_row, by_subject, by_one = (table["high"] - table["low"] for table in tables)
    assert (by_subject / by_row).median() == pytest.approx(np.sqrt(20), rel=0.2)
    pd.testing.assert_frame_equal(tables[0], metrics.au_table(labels, scores, **NAMES, resamples=300))
    assert tables[2]["value"].notna().all() and by_one.isna().all()


def test_resampling_takes_whole_groups_and_keeps_rows_without_one_apart():
    codes = group_codes(["a", "a", "b", None, "b", np.nan], 6)
    assert len(set(codes)) == 4 and codes[0] == codes[1] and codes[2] == codes[4] and codes[3] != codes[5]
    weights = np.concatenate(list(resample(codes, 50)))
    assert weights.shape == (50, 6)
    assert (weights[:, [0, 2]] == weights[:, [1, 4]]).all()
    assert (weights[:, [0, 2, 3, 5]].sum(axis=1) == 4).all()


def test_paired_difference_is_narrower_than_the_parts():
    labels, scores = faces(rows=500)
    worse = (scores + np.random.default_rng(5).normal(0, 0.5, scores.shape)).clip(0, 1)
    difference = metrics.paired_difference(labels, scores, worse)
    tables = (metrics.au_table(labels, s, **NAMES).set_index(["target", "metric"]) for s in (scores, worse))
    a, b = (table.loc[("macro", "f1")] for table in tables)
    assert difference["value"] == pytest.approx(a["value"] - b["value"])
    assert difference["low"] < difference["value"] < difference["high"]
    assert difference["high"] - difference["low"] < (a["high"] - a["low"]) + (b["high"] - b["low"])
    assert difference["p"] == pytest.approx(2 / 1001) == metrics.paired_difference(labels, worse, scores)["p"]
    assert np.isnan(metrics.paired_difference(labels, scores, worse, resamples=0)["p"])
    assert metrics.paired_difference(labels, scores, scores).tolist() == [0, 0, 0, 1, 500]


def test_the_p_of_equal_models_is_below_5_percent_about_once_in_20_times():
    rng = np.random.default_rng(0)
    y = pd.DataFrame({"AU1": rng.integers(0, 2, 300)})
    p = []
    for seed in range(100):
        a, b = (pd.DataFrame({"AU1": rng.random(300)}) for _ in range(2))
        p.append(metrics.paired_difference(y, a, b, metric="accuracy", resamples=150, seed=seed)["p"])
    assert 0.01 <= np.mean(np.array(p) < 0.05) <= 0.1


def test_answers_that_are_neither_are_counted_and_never_a_no():
    labels = pd.DataFrame({"AU1": [1, 1, 0, 0, pd.NA], "AU4": [1, 0, 0, 0, 0]})
    of_au1, of_au4 = ["Yes.", "maybe", "no", None, "perhaps"], ["yes", "No, it does not", "no", "no", "no"]
    answers = pd.DataFrame({"AU1": of_au1, "AU4": of_au4})
    table = metrics.answer_table(labels, answers, **NAMES, resamples=10).set_index(["target", "metric"])
    assert table["value"]["AU4"].to_dict() == {**dict.fromkeys(ANSWERED, 100), "unread": 0}
    assert table["value"]["AU1"].to_dict() == pytest.approx(dict.fromkeys((*ANSWERED, "unread"), 50))
    assert table.loc[("macro", "unread"), ["value", "support"]].tolist() == [25, 2]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda y, s: (y, s.assign(AU4=s.AU4.where(s.index != 7, 1.5))), "score in row 7, column AU4 is 1.5"),
        (lambda y, s: (y, s.assign(AU4=s.AU4.where(s.index != 7))), "score in row 7, column AU4 is nan"),
        (lambda y, s: (y.assign(AU1=y.AU1.where(y.index != 3, 2)), s), "label in row 3, column AU1 is 2"),
        (lambda y, s: (y, s[["AU1"]]), "AU4, AU12"),
        (lambda y, s: (y, s.iloc[1:]), "300"),
        (lambda y, s: (y.rename(columns=str.lower), s), "AU1"),
    ],
)
@pytest.mark.filterwarnings("ignore:never labelled")
def test_bad_tables_are_named(change, place):
    with pytest.raises(TableError, match=place):
        metrics.au_table(*change(*faces()), **NAMES)


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
    of_all, anger = {"labels": names, "average": "macro"}, {"labels": ["anger"], "average": "micro"}
    wanted = {"accuracy": sk.accuracy_score(true, texts), "f1": sk.f1_score(true, texts, **of_all)}
    wanted["balanced_accuracy"] = sk.recall_score(true, texts, **of_all)
    assert got["macro"][list(wanted)].to_dict() == pytest.approx({k: 100 * v for k, v in wanted.items()})
    assert got["anger", "precision"] == pytest.approx(100 * sk.precision_score(true, texts, **anger))
    assert got["anger", "recall"] == pytest.approx(100 * sk.recall_score(true, texts, **anger))
    assert (table["low"] < table["value"]).all() and (table["value"] < table["high"]).all()
    assert table["support"].iat[-1] == 200 and table["support"].iat[0] == (true == "neutral").sum()


def test_emotion_difference_is_that_of_the_accuracies():
    rng = np.random.default_rng(0)
    true = rng.choice(["anger", "fear"], 300).astype(object)
    a, b = (np.where(rng.random(300) < share, true, "none").astype(object) for share in (0.9, 0.5))
    true[0] = b[1] = None
    result = metrics.emotion_difference(true, a, b, groups=np.arange(300) // 2)
    wanted = 100 * (np.mean(true[1:] == a[1:]) - np.mean(true[1:] == b[1:]))
    assert result["value"] == pytest.approx(wanted) and result["support"] == 299
    assert 0 < result["low"] < result["value"] < result["high"]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Whatever reaches for the network fails."""
    monkeypatch.setattr(socket.socket, "connect", None)
    monkeypatch.setattr(socket, "getaddrinfo", None)


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


def test_emotion_accuracy_counts_an_empty_prediction_as_wrong_and_unknown_names_are_refused():
    metric = metrics.load("emotion_accuracy")
    metric.add_batch(predictions=["", "anger"], references=["anger", "anger"])
    metric.add(prediction="", reference="fear")
    metric.add(prediction="fear", reference="fear")
    assert metric.compute() == pytest.approx({"accuracy": 50, "macro_f1": 200 / 3, "balanced_accuracy": 50})
    pair = {"predictions": ["fear", ""], "references": ["fear", "fear"]}
    assert evaluate.combine([metric]).compute(**pair)["accuracy"] == 50
    with pytest.raises(SettingsError, match="au_f1, captions, emotion_accuracy"):
        metrics.load("f1")


@pytest.mark.filterwarnings("default")
def test_an_au_without_a_positive_face_is_left_out_of_macro_and_named():
    labels, scores = faces()
    labels["AU4"] = 0
    with pytest.warns(UserWarning, match="out of macro: AU4"):
        table = metrics.au_table(labels, scores, **NAMES)
    found, rest = values(table), values(metrics.au_table(labels[["AU1", "AU12"]], scores, **NAMES))
    assert found["AU4", "f1"] == 0
    for metric in ("f1", "balanced_accuracy", "precision", "recall"):
        assert found["macro", metric] == pytest.approx(rest["macro", metric])
