"""What goes beyond F1: further metrics against scikit-learn, thresholds of validation, calibration, saved predictions, the paired test."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk
from test_metrics import AUS, NAMES, faces, values

from expvqa_lib.errors import SettingsError, TableError
from expvqa_lib.evaluation import metrics
from expvqa_lib.evaluation.metrics import bootstrap as intervals
from expvqa_lib.evaluation.metrics import ranking
from expvqa_lib.evaluation.metrics.au import ALL_METRICS


def test_further_metrics_and_averages_agree_with_scikit_learn():
    labels, scores = faces(unlabelled=0.2)
    table = metrics.au_table(
        labels, scores, **NAMES, metrics=ALL_METRICS, averages=("macro", "micro"), resamples=20
    )
    got = values(table)
    stacked = {"micro": (labels.to_numpy(dtype=float, na_value=np.nan).ravel(), scores.to_numpy().ravel())}
    for target, (y, p) in (
        {au: (labels[au].to_numpy(dtype=float, na_value=np.nan), scores[au].to_numpy()) for au in AUS}
        | stacked
    ).items():
        y, p = y[~np.isnan(y)], p[~np.isnan(y)]
        wanted = {
            "f1": sk.f1_score(y, p >= 0.5),
            "auc": sk.roc_auc_score(y, p),
            "balanced_accuracy": sk.balanced_accuracy_score(y, p >= 0.5),
            "precision": sk.precision_score(y, p >= 0.5),
            "recall": sk.recall_score(y, p >= 0.5),
            "accuracy": sk.accuracy_score(y, p >= 0.5),
            "average_precision": sk.average_precision_score(y, p),
        }
        assert got[target].drop("calibration_error").to_dict() == pytest.approx(
            {m: 100 * v for m, v in wanted.items()}
        ), target
    assert got["macro", "accuracy"] == pytest.approx(np.mean([got[au, "accuracy"] for au in AUS]))
    assert (table["low"] < table["value"]).all()


def test_average_precision_of_every_resample_is_scikit_learns_weighted_value():
    labels, scores = faces(rows=80)
    y, p = labels["AU4"].to_numpy(dtype=float), scores["AU4"].to_numpy()
    weights = next(intervals.resample(np.arange(80), 5, seed=3))
    got = ranking.average_precision(y, p)(weights.astype(np.int32))
    assert got == pytest.approx([100 * sk.average_precision_score(y, p, sample_weight=w) for w in weights])


def test_calibration_by_hand():
    labels = pd.DataFrame({"AU1": [1, 0, 1, 1, pd.NA], "AU2": [0, 0, 0, 1, 1]})
    scores = pd.DataFrame({"AU1": [0.62, 0.68, 0.98, 1.0, 0.62], "AU2": [0.0, 0.0, 0.0, 1.0, 1.0]})
    table = metrics.au_table(
        labels, scores, **NAMES, metrics=["calibration_error"], averages=["macro", "micro"], resamples=0
    )
    of_au1 = 100 * (2 * abs(0.65 - 0.5) + 2 * abs(0.99 - 1)) / 4
    assert values(table).droplevel("metric").to_dict() == pytest.approx(
        {"AU1": of_au1, "AU2": 0, "macro": of_au1 / 2, "micro": of_au1 * 4 / 9}
    )
    bins = metrics.reliability_table(labels, scores).set_index(["target", "from"])
    assert bins.loc[("AU1", 60), ["to", "faces", "mean_score", "positives"]].tolist() == pytest.approx(
        [70, 2, 65, 50]
    )
    assert bins.loc[("all", 90), ["faces", "mean_score", "positives"]].tolist() == pytest.approx(
        [4, 99.5, 100]
    )
    assert (
        bins.loc[("AU2", 50), "faces"] == 0
        and np.isnan(bins.loc[("AU2", 50), "positives"])
        and bins.loc["all", "faces"].sum() == 9
    )
    with pytest.raises(SettingsError, match="bins=0"):
        metrics.reliability_table(labels, scores, bins=0)


def test_thresholds_of_validation_are_the_best_there_and_named_in_the_table():
    labels, scores = faces(unlabelled=0.1)
    found = metrics.best_thresholds(labels, scores)
    for au in AUS:
        kept = labels[au].notna()
        y, p = labels.loc[kept, au].astype(int), scores.loc[kept, au]
        best = max((sk.f1_score(y, p >= t), t) for t in p.unique())
        assert found[au] == best[1]
    table = metrics.au_table(
        labels, scores, **NAMES, threshold=found, metrics=["f1", "auc", "recall"], resamples=0
    )
    assert set(table["metric"]) == {"f1_tuned", "auc", "recall_tuned"}
    kept = labels["AU1"].notna()
    wanted = sk.f1_score(labels.loc[kept, "AU1"].astype(int), scores.loc[kept, "AU1"] >= found["AU1"])
    assert values(table)["AU1", "f1_tuned"] == pytest.approx(100 * wanted)
    assert metrics.best_thresholds(labels * 0, scores) == dict.fromkeys(AUS, 0.5)
    with pytest.raises(SettingsError, match="no threshold for AU12"):
        metrics.au_table(labels, scores, **NAMES, threshold={"AU1": 0.5, "AU4": 0.5})


def test_an_au_of_one_class_has_a_row_of_its_own():
    labels, scores = faces()
    table = metrics.au_table(labels.assign(AU1=0, AU4=1), scores, **NAMES, metrics=ALL_METRICS)
    got = values(table)
    assert np.isnan(got["AU1", "auc"]) and np.isnan(got["AU1", "average_precision"]) and got["AU1", "f1"] == 0
    assert (
        np.isnan(got["AU4", "auc"])
        and got["AU4", "average_precision"] == pytest.approx(100)
        and got["AU4", "precision"] == 100
    )
    assert got["macro", "auc"] == got["AU12", "auc"]


def test_the_paired_tests_p_goes_with_its_interval():
    labels, scores = faces(rows=400)
    worse = (scores + np.random.default_rng(5).normal(0, 0.5, scores.shape)).clip(0, 1)
    clear = metrics.paired_difference(labels, scores, worse, metric="average_precision")
    assert clear.low > 0 and clear.p == pytest.approx(2 / 1001)
    assert metrics.paired_difference(labels, worse, scores, metric="average_precision").p == clear.p
    assert metrics.paired_difference(labels, scores, scores).p == 1
    assert np.isnan(metrics.paired_difference(labels, scores, worse, resamples=0).p)


def test_the_p_of_equal_models_is_below_5_percent_about_once_in_20_times():
    rng = np.random.default_rng(0)
    y = pd.DataFrame({"AU1": rng.integers(0, 2, 300)})
    found = []
    for seed in range(200):
        a, b = (pd.DataFrame({"AU1": rng.random(300)}) for _ in range(2))
        found.append(metrics.paired_difference(y, a, b, metric="accuracy", resamples=200, seed=seed).p)
    assert 0.01 <= np.mean(np.array(found) < 0.05) <= 0.1


def test_emotion_difference_is_that_of_the_accuracies():
    rng = np.random.default_rng(0)
    true = rng.choice(["anger", "fear"], 300).astype(object)
    a, b = (np.where(rng.random(300) < share, true, "none").astype(object) for share in (0.9, 0.5))
    true[0], b[1] = None, None
    found = metrics.emotion_difference(true, a, b, groups=np.arange(300) // 2)
    wanted = 100 * (np.mean(true[1:] == a[1:]) - np.mean(true[1:] == b[1:]))
    assert (
        found.value == pytest.approx(wanted)
        and 0 < found.low < found.value < found.high
        and found.support == 299
    )
    with pytest.raises(TableError, match="1 and 2 predicted emotions for 2"):
        metrics.emotion_difference(["fear", "fear"], ["fear"], ["fear", "fear"])


def saved(**columns):
    rows = pd.DataFrame([(i, a) for a in ("AU4", "AU1") for i in ("y.png", "x.png")], columns=["image", "au"])
    return rows.assign(**columns)


def test_saved_predictions_take_the_faces_order():
    table = metrics.wide(saved(score=[0.1, 0.2, 0.3, 0.4]), ["x.png", "y.png"], ["AU1", "AU4"])
    assert table.columns.tolist() == ["AU1", "AU4"] and table.to_numpy().tolist() == [[0.4, 0.2], [0.3, 0.1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.iloc[1:], r"no prediction: AU4 of y.png \(1 such rows"),
        (lambda t: pd.concat([t, t.iloc[:2]]), r"answered more than once: AU4 of y.png \(2 such"),
        (lambda t: t.replace("x.png", "z.png"), "image not among the 2 that were asked about: AU4 of z.png"),
        (lambda t: t.replace("AU1", "AU99"), "au not among the 2 that were asked about: AU99 of y.png"),
        (lambda t: t.drop(columns="score"), "no column score; found image, au"),
    ],
)
def test_missing_duplicate_and_unknown_predictions_are_named(change, message):
    with pytest.raises(TableError, match=message):
        metrics.wide(change(saved(score=0.5)), ["x.png", "y.png"], ["AU1", "AU4"])


def test_answers_that_are_neither_are_counted_and_never_a_no():
    labels = pd.DataFrame({"AU1": [1, 1, 0, 0, pd.NA], "AU4": [1, 0, 0, 0, 0]})
    answers = pd.DataFrame(
        {"AU1": ["Yes.", "maybe", "no", "", "perhaps"], "AU4": ["yes", "No, it does not", "no", "no", "no"]}
    )
    answers.loc[3, "AU1"] = None
    table = metrics.answer_table(labels, answers, **NAMES, resamples=10).set_index(["target", "metric"])
    got = table["value"]
    assert got["AU4"].to_dict() == {
        "f1": 100,
        "balanced_accuracy": 100,
        "precision": 100,
        "recall": 100,
        "accuracy": 100,
        "unread": 0,
    }
    assert got["AU1"].to_dict() == pytest.approx(
        dict.fromkeys(("f1", "balanced_accuracy", "precision", "recall", "accuracy", "unread"), 50)
    )
    assert got["macro", "unread"] == 25 and table.loc[("macro", "unread"), "support"] == 2
    with pytest.raises(TableError, match="answers and labels have different rows"):
        metrics.answer_table(labels, answers.iloc[1:], **NAMES)
    with pytest.raises(TableError, match="answers: no column AU4"):
        metrics.answer_table(labels, answers[["AU1"]], **NAMES)


def test_au_f1_gives_further_metrics_and_the_support_where_asked():
    labels, scores = faces(unlabelled=0.1)
    wanted = ("f1", "precision", "recall", "accuracy", "balanced_accuracy", "auc", "average_precision")
    y = labels.to_numpy(dtype=float, na_value=np.nan)
    told = metrics.load("au_f1", aus=(1, 4, 12), metrics=(*wanted, "support")).compute(
        predictions=scores.to_numpy(), references=y
    )
    table = metrics.au_table(labels, scores, **NAMES, metrics=wanted, resamples=0)
    expected = {f"{row.metric}_{row.target}": row.value for row in table.itertuples()}
    expected |= {f"support_{row.target}": row.support for row in table.itertuples()}
    assert told == pytest.approx(expected) and len(told) == 4 * 8
    assert set(
        metrics.load("au_f1", aus=(1, 4, 12), metrics=["support"]).compute(
            predictions=scores.to_numpy(), references=y
        )
    ) == {f"support_{target}" for target in (*AUS, "macro")}
    with pytest.raises(SettingsError, match="metric 'kappa' is unknown"):
        metrics.load("au_f1", metrics=["kappa"])
