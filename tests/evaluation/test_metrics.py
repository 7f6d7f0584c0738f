"""Metrics agree with scikit-learn and hand counts; intervals follow subjects; `evaluate` works without a network."""

import socket

import evaluate
import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from expvqa_lib.errors import SettingsError, TableError
from expvqa_lib.evaluation import metrics
from expvqa_lib.evaluation.metrics import bootstrap as intervals

NAMES = {"model": "m", "dataset": "d", "split": "test"}
AUS = ["AU1", "AU4", "AU12"]


def faces(rows=300, seed=0, unlabelled=0.0):
    """Labels with gaps and tied scores that know something, for three AUs."""
    rng = np.random.default_rng(seed)
    y = rng.random((rows, 3)) < (0.1, 0.4, 0.8)
    scores = np.round(np.clip(rng.normal(0.35 + 0.3 * y, 0.25), 0, 1), 1)
    labels = pd.DataFrame(y.astype(int), columns=AUS, dtype="Int8").mask(rng.random((rows, 3)) < unlabelled)
    return labels, pd.DataFrame(scores, columns=AUS)


def values(table):
    return table.set_index(["target", "metric"])["value"]


def test_au_table_agrees_with_scikit_learn():
    labels, scores = faces(unlabelled=0.2)
    table = metrics.au_table(labels, scores, **NAMES, resamples=50)
    assert tuple(table.columns) == metrics.COLUMNS and list(table.target.unique()) == [*AUS, "macro"]
    got = values(table)
    for au in AUS:
        kept = labels[au].notna()
        y, p = labels.loc[kept, au].astype(int), scores.loc[kept, au]
        yes = p >= 0.5
        wanted = {
            "f1": sk.f1_score(y, yes),
            "auc": sk.roc_auc_score(y, p),
            "balanced_accuracy": sk.balanced_accuracy_score(y, yes),
            "precision": sk.precision_score(y, yes),
            "recall": sk.recall_score(y, yes),
        }
        assert got[au].to_dict() == pytest.approx({metric: 100 * value for metric, value in wanted.items()})
        assert (table.loc[table.target == au, "support"] == y.sum()).all()
    for metric in wanted:
        assert got["macro", metric] == pytest.approx(np.mean([got[au, metric] for au in AUS]))
    assert (table.loc[table.target == "macro", "support"] == labels.notna().any(axis=1).sum()).all()


def test_every_resample_is_scikit_learns_weighted_value():
    labels, scores = faces(rows=80, unlabelled=0.1)
    y = labels.to_numpy(dtype=float, na_value=np.nan)
    measure = metrics.au._measures(y, scores.to_numpy(), np.full(3, 0.5))
    weights = next(intervals.resample(np.arange(80) // 4, 5, seed=3))
    got = measure(weights)
    for r, drawn in enumerate(weights):
        for a in range(3):
            kept = ~np.isnan(y[:, a])
            y_a, p_a, w = y[kept, a], scores.to_numpy()[kept, a], drawn[kept]
            assert got[r, a, 0] == pytest.approx(100 * sk.f1_score(y_a, p_a >= 0.5, sample_weight=w))
            assert got[r, a, 1] == pytest.approx(100 * sk.roc_auc_score(y_a, p_a, sample_weight=w))


def test_au_values_by_hand():
    labels = pd.DataFrame({"AU1": [1, 1, 0, 0], "AU2": [0, 0, 0, pd.NA]})
    scores = pd.DataFrame({"AU1": [0.9, 0.2, 0.5, 0.1], "AU2": [0.1, 0.2, 0.7, 0.9]})
    got = values(metrics.au_table(labels, scores, **NAMES, resamples=0))
    assert got["AU1"].to_dict() == pytest.approx(
        {"f1": 50, "auc": 75, "balanced_accuracy": 50, "precision": 50, "recall": 50}
    )
    assert (
        np.isnan(got["AU2", "auc"])
        and got["AU2", "f1"] == 0
        and got["AU2", "balanced_accuracy"] == pytest.approx(200 / 3)
    )
    assert got["macro", "auc"] == 75 and got["macro", "f1"] == 25


def test_f1_without_a_yes_is_zero():
    labels, scores = faces()
    got = metrics.au_table(labels, scores * 0.4, **NAMES, resamples=20)
    assert (got.loc[got.metric == "f1", ["value", "low", "high"]] == 0).all(axis=None)


def test_the_label_prior_has_the_f1_of_yes_to_all():
    labels, scores = faces()
    prior = metrics.prior_scores(labels.assign(subject="a"), labels.index)
    got = values(metrics.au_table(labels, prior, **NAMES, resamples=0))
    for au in AUS:
        p = labels[au].mean()
        assert got[au].to_dict() == pytest.approx(
            {"f1": 200 * p / (1 + p), "auc": 50, "balanced_accuracy": 50, "precision": 100 * p, "recall": 100}
        )


def test_never_labelled_aus_are_left_out_and_named():
    labels, scores = faces()
    labels["AU12"] = pd.NA
    with pytest.warns(UserWarning, match="left out: AU9, AU12"):
        table = metrics.au_table(labels, scores.assign(AU9=0.5), **NAMES, resamples=0)
    assert list(table.target.unique()) == ["AU1", "AU4", "macro"]


def test_intervals_hold_the_value_and_repeat_with_the_seed():
    labels, scores = faces()
    table = metrics.au_table(labels, scores, **NAMES, resamples=300)
    assert (table.low < table.value).all() and (table.value < table.high).all()
    pd.testing.assert_frame_equal(table, metrics.au_table(labels, scores, **NAMES, resamples=300))
    other = metrics.au_table(labels, scores, **NAMES, resamples=300, seed=1)
    assert not np.allclose(table.low, other.low) and np.allclose(table.low, other.low, atol=6)


def test_row_intervals_have_the_width_of_the_binomial():
    rng = np.random.default_rng(1)
    labels = pd.DataFrame({"AU1": np.ones(400, dtype=int)})
    scores = pd.DataFrame({"AU1": (rng.random(400) < 0.7).astype(float)})
    recall = metrics.au_table(labels, scores, **NAMES).set_index(["target", "metric"]).loc[("AU1", "recall")]
    half = 196 * np.sqrt(recall.value / 100 * (1 - recall.value / 100) / 400)
    assert recall.value - recall.low == pytest.approx(
        half, rel=0.15
    ) and recall.high - recall.value == pytest.approx(half, rel=0.15)


def test_drawing_subjects_widens_the_interval_of_repeated_frames():
    labels, scores = faces(rows=60)
    labels, scores = (pd.concat([frame] * 20, ignore_index=True) for frame in (labels, scores))
    by_row = metrics.au_table(labels, scores, **NAMES, resamples=300)
    by_subject = metrics.au_table(labels, scores, **NAMES, groups=list(range(60)) * 20, resamples=300)
    width = (by_subject.high - by_subject.low) / (by_row.high - by_row.low)
    assert width.median() == pytest.approx(np.sqrt(20), rel=0.2)


def test_resampling_takes_whole_groups_and_keeps_rows_without_one_apart():
    codes = intervals.group_codes(["a", "a", "b", None, "b", np.nan], 6)
    assert len(set(codes)) == 4 and codes[0] == codes[1] and codes[2] == codes[4] and codes[3] != codes[5]
    weights = np.concatenate(list(intervals.resample(codes, 50)))
    assert (
        weights.shape == (50, 6)
        and (weights[:, 0] == weights[:, 1]).all()
        and (weights[:, 2] == weights[:, 4]).all()
    )
    assert (weights[:, [0, 2, 3, 5]].sum(axis=1) == 4).all()


def test_one_subject_gives_no_interval():
    labels, scores = faces()
    table = metrics.au_table(labels, scores, **NAMES, groups=["only"] * len(labels))
    assert table.value.notna().all() and table[["low", "high"]].isna().all(axis=None)


def test_paired_difference_is_narrower_than_the_parts():
    labels, scores = faces(rows=500)
    worse = (scores + np.random.default_rng(5).normal(0, 0.15, scores.shape)).clip(0, 1)
    difference = metrics.paired_difference(labels, scores, worse)
    a, b = (
        metrics.au_table(labels, s, **NAMES).set_index(["target", "metric"]).loc[("macro", "f1")]
        for s in (scores, worse)
    )
    assert (
        difference.value == pytest.approx(a.value - b.value)
        and difference.low < difference.value < difference.high
    )
    assert difference.high - difference.low < (a.high - a.low) + (b.high - b.low)
    same = metrics.paired_difference(labels, scores, scores)
    assert (same[["value", "low", "high"]] == 0).all() and same.support == 500


def test_emotion_table_agrees_with_scikit_learn_and_counts_silence_as_wrong():
    rng = np.random.default_rng(0)
    names = np.array(["anger", "happiness", "neutral"])
    true = rng.choice(names, 200)
    predicted = np.where(rng.random(200) < 0.6, true, rng.choice(names, 200)).astype(object)
    predicted[:10], predicted[10] = None, np.nan
    table = metrics.emotion_table(
        [*true, None], [*predicted, "anger"], **NAMES, groups=np.arange(201) % 40, resamples=200
    )
    got, text = values(table), ["" if pd.isna(p) else p for p in predicted]
    assert list(table.target.unique()) == ["neutral", "happiness", "anger", "macro"]
    assert got["macro", "accuracy"] == pytest.approx(100 * sk.accuracy_score(true, text))
    assert got["macro", "f1"] == pytest.approx(100 * sk.f1_score(true, text, labels=names, average="macro"))
    assert got["macro", "balanced_accuracy"] == pytest.approx(
        100 * sk.recall_score(true, text, labels=names, average="macro")
    )
    assert got["anger", "precision"] == pytest.approx(
        100 * sk.precision_score(true, text, labels=["anger"], average="micro")
    )
    assert (table.low < table.value).all() and (table.value < table.high).all()
    assert table.support.tolist()[-1] == 200 and table.support[0] == (true == "neutral").sum()


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("something reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_au_f1_loads_offline_and_adds_batches(offline):
    labels, scores = faces(unlabelled=0.1)
    metric = metrics.load("au_f1", aus=(1, 4, 12))
    y = labels.to_numpy(dtype=float, na_value=np.nan)
    for part in np.array_split(np.arange(len(y)), 4):
        metric.add_batch(predictions=scores.to_numpy()[part], references=y[part])
    f1 = values(metrics.au_table(labels, scores, **NAMES, resamples=0)).xs("f1", level="metric")
    wanted = pytest.approx({f"f1_{target}": value for target, value in f1.items()})
    assert metric.compute() == wanted
    assert metric.compute(predictions=scores.to_numpy(), references=y) == wanted
    for row, truth in zip(scores.to_numpy().tolist(), y.tolist(), strict=True):
        metric.add(prediction=row, reference=truth)
    assert metric.compute() == wanted


def test_metrics_combine_offline(offline):
    labels, scores = faces()
    both = evaluate.combine(
        {t: metrics.load("au_f1", aus=(1, 4, 12), threshold=float(t)) for t in ("0.3", "0.5")}
    )
    both.add_batch(predictions=scores.to_numpy(), references=labels.to_numpy())
    got = both.compute()
    for t in ("0.3", "0.5"):
        table = values(metrics.au_table(labels, scores, **NAMES, threshold=float(t), resamples=0))
        assert got[f"{t}_f1_macro"] == pytest.approx(table["macro", "f1"])


def test_emotion_accuracy_loads_offline_and_takes_missing_predictions(offline):
    metric = metrics.load("emotion_accuracy")
    metric.add_batch(predictions=[None, "anger"], references=["anger", "anger"])
    metric.add(prediction=float("nan"), reference="fear")
    metric.add(prediction="fear", reference="fear")
    assert metric.compute() == pytest.approx({"accuracy": 50, "macro_f1": 200 / 3, "balanced_accuracy": 50})
    assert metric.compute(predictions=["fear"], references=["fear"])["accuracy"] == 100
    assert (
        evaluate.combine([metric]).compute(predictions=["fear", None], references=["fear", "fear"])[
            "accuracy"
        ]
        == 50
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda y, s: (y, s.assign(AU4=s.AU4.where(s.index != 7, 1.5))),
            "score in row 7, column AU4 is 1.5; expected a probability",
        ),
        (lambda y, s: (y, s.assign(AU4=s.AU4.where(s.index != 7))), "score in row 7, column AU4 is nan"),
        (
            lambda y, s: (y.assign(AU1=y.AU1.where(y.index != 3, 2)), s),
            "label in row 3, column AU1 is 2; expected 0, 1 or missing",
        ),
        (lambda y, s: (y.assign(AU1="yes"), s), "label column AU1: holds something that is not a number"),
        (lambda y, s: (y, s[["AU1"]]), "no column AU4, AU12"),
        (lambda y, s: (y, s.iloc[1:]), "different rows"),
        (lambda y, s: (y.rename(columns=str.lower), s), "no AU column has a label"),
    ],
)
@pytest.mark.filterwarnings("ignore:never labelled")
def test_bad_tables_are_named(change, message):
    with pytest.raises(TableError, match=message):
        metrics.au_table(*change(*faces()), **NAMES)


def test_other_errors_say_what_is_allowed():
    labels, scores = faces()
    with pytest.raises(TableError, match="groups: 2 values for 300 rows"):
        metrics.au_table(labels, scores, **NAMES, groups=["a", "b"])
    with pytest.raises(TableError, match="1 predicted emotions for 2"):
        metrics.emotion_table(["fear", "fear"], ["fear"], **NAMES)
    with pytest.raises(TableError, match="no row has a true emotion"):
        metrics.emotion_table([None], ["fear"], **NAMES)
    with pytest.raises(SettingsError, match="known are f1, auc"):
        metrics.paired_difference(labels, scores, scores, metric="f2")
    with pytest.raises(SettingsError, match="known are au_f1, captions, emotion_accuracy"):
        metrics.load("f1")
    with pytest.raises(TableError, match="prediction 0 has 2 values; expected 12: AU1"):
        metrics.load("au_f1").compute(predictions=[[0.1, 0.2]], references=[[0, 1]])
