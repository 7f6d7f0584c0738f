"""Per-AU detection: F1, AUC, balanced accuracy, precision and recall in percent, with bootstrap intervals; more where asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
import pandas as pd

from ...errors import SettingsError, TableError
from ...facs import BP4D_AUS, au_column
from .bootstrap import bootstrap, difference, group_codes, mean_of_defined, ratio
from .calibration import gaps
from .labels import au_columns, label_array, score_array
from .ranking import auc, average_precision

METRICS = ("f1", "auc", "balanced_accuracy", "precision", "recall")
ALL_METRICS = (*METRICS, "accuracy", "average_precision", "calibration_error")
COLUMNS = ("model", "dataset", "split", "target", "metric", "value", "low", "high", "support")
TUNED = "_tuned"
"""Ends the name of a metric whose threshold was chosen on validation labels, not fixed beforehand."""

_RANKED = {"auc": auc, "average_precision": average_precision}
_NO_THRESHOLD = (*_RANKED, "calibration_error")


def au_table(
    labels: pd.DataFrame,
    scores: pd.DataFrame,
    *,
    model: str,
    dataset: str,
    split: str,
    groups: Iterable[object] | None = None,
    threshold: float | Mapping[str, float] = 0.5,
    metrics: Sequence[str] = METRICS,
    averages: Sequence[str] = ("macro",),
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Score yes/no answers on each AU and their averages.

    Args:
        labels: columns `AU1` ...: 0, 1, or missing for unlabelled (that row then counts for the other AUs only).
        scores: the same index and at least the same AU columns: probability of yes, in [0, 1].
        groups: the subject of each row; intervals then come from drawing subjects, not rows.
        threshold: yes from this probability on; never fitted to the test labels. One an AU, from `best_thresholds` on validation labels,
            gives the metrics that depend on it names ending in `_tuned`.
        metrics: of `ALL_METRICS`, in this order.
        averages: `macro`, the mean over the AUs; `micro`, all labels of all AUs taken together.
        resamples: of the bootstrap; 0 leaves the intervals NaN.

    Returns:
        Tidy table with the columns `COLUMNS`: targets `AU1` ... then the averages, with value and 95% interval in percent. Support is the
        number of positive labels; for averages, of rows with any label. F1, precision and recall are 0 where 0/0; balanced accuracy
        averages over the classes that occur; AUC is NaN where a class is missing, average precision where no label is positive, and macro
        leaves them out. AUs without any label are left out, with a warning that names them. `calibration_error` is the expected
        calibration error over 10 bins.

    Raises:
        TableError: the indices differ, a column is missing, or a label or score is out of range (row and column are named).
        SettingsError: a metric or average is unknown, or an AU has no threshold.
    """
    _known(metrics, ALL_METRICS, "metric")
    _known(averages, ("macro", "micro"), "average")
    y, columns = label_array(labels, scores.columns)
    p = score_array(scores, labels.index, columns)
    measure = _measures(y, p, _thresholds(threshold, columns), metrics, averages)
    value, low, high = bootstrap(
        measure, group_codes(groups, len(labels)), resamples, seed
    )  # [A + averages, metric] each
    any_label = int((~np.isnan(y)).any(axis=1).sum())
    support = [*np.nansum(y, axis=0).astype(int), *(any_label for _ in averages)]
    tuned = isinstance(threshold, Mapping)
    names = [name + TUNED if tuned and name not in _NO_THRESHOLD else name for name in metrics]
    return pd.DataFrame(
        [
            (model, dataset, split, target, metric, value[t, m], low[t, m], high[t, m], support[t])
            for t, target in enumerate([*columns, *averages])
            for m, metric in enumerate(names)
        ],
        columns=list(COLUMNS),
    )


def paired_difference(
    labels: pd.DataFrame,
    scores_a: pd.DataFrame,
    scores_b: pd.DataFrame,
    groups: Iterable[object] | None = None,
    *,
    metric: str = "f1",
    threshold: float = 0.5,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.Series:
    """Return macro `metric` of a minus that of b on the same resamples: value, low, high (percentage points), p, support.

    Arguments as for `au_table`. An interval without 0 says that one of the two is better on faces like these; `p` is the two-sided
    p-value of no difference (see `intervals.difference`).

    Raises:
        TableError: as for `au_table`.
        SettingsError: the metric is not one of `ALL_METRICS`.
    """
    _known([metric], ALL_METRICS, "metric")
    y, columns = label_array(labels, scores_a.columns)
    thresholds = _thresholds(threshold, columns)
    a, b = (
        _measures(y, score_array(scores, labels.index, columns), thresholds, [metric])
        for scores in (scores_a, scores_b)
    )
    found = difference(
        lambda w: a(w)[:, -1, 0] - b(w)[:, -1, 0], group_codes(groups, len(labels)), resamples, seed
    )
    return pd.Series(found | {"support": int((~np.isnan(y)).any(axis=1).sum())}, name=f"{metric} difference")


def prior_scores(train_labels: pd.DataFrame, index: pd.Index) -> pd.DataFrame:
    """Return what the label prior answers: yes to every AU of the training labels, a score of 1.0 for each row of `index`.

    Of all answers that never look at the image, yes to all has the best F1: an AU with base rate p gets precision p and
    recall 1, so F1 = 2p / (1 + p); a coin that says yes with rate q gets 2pq / (p + q), less for every q below 1. AUC and
    balanced accuracy are 50. A model that has learned to see must beat it.
    """
    return pd.DataFrame(1.0, index=index, columns=au_columns(train_labels.columns))


def best_thresholds(labels: pd.DataFrame, scores: pd.DataFrame) -> dict[str, float]:
    """Return for each AU the threshold with the best F1 on validation labels (the highest of equals); 0.5 where none is positive.

    Arguments and errors as for `au_table`; give the result to its `threshold`, with the test's labels and scores.
    """
    y, columns = label_array(labels, scores.columns)
    p = score_array(scores, labels.index, columns)
    found = {}
    for a, name in enumerate(columns):
        rows = np.flatnonzero(~np.isnan(y[:, a]))
        rows = rows[np.argsort(-p[rows, a], kind="stable")]
        score, truth = p[rows, a], y[rows, a]
        f1 = 2 * truth.cumsum() / (truth.sum() + np.arange(1, len(rows) + 1))  # yes to the first 1, 2, ...
        f1[:-1][score[:-1] == score[1:]] = -1.0  # equal scores are answered alike
        found[name] = float(score[f1.argmax()]) if truth.any() else 0.5
    return found


def _known(asked: Iterable[str], known: Sequence[str], kind: str) -> None:
    for name in asked:
        if name not in known:
            raise SettingsError(f"{kind} {name!r} is unknown; known are {', '.join(known)}")


def _thresholds(threshold: float | Mapping[str, float], columns: Sequence[str]) -> np.ndarray:
    """Return one threshold a column [A]."""
    if not isinstance(threshold, Mapping):
        return np.full(len(columns), threshold, dtype=float)
    if missing := [c for c in columns if c not in threshold]:
        raise SettingsError(
            f"no threshold for {', '.join(missing)}; choose it on labels that have these AUs, or give one number for all"
        )
    return np.array([threshold[c] for c in columns], dtype=float)


def _measures(
    y: np.ndarray,
    p: np.ndarray,
    thresholds: np.ndarray,
    metrics: Sequence[str] = METRICS,
    averages: Sequence[str] = ("macro",),
) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function from row weights [R, N] to percent [R, A + averages, metric]; y (NaN unlabelled), p [N, A], thresholds [A]."""
    of_each = _counted(y, p, thresholds, metrics)
    of_all = _counted(y, p, thresholds, metrics, pooled=True) if "micro" in averages else None

    def measure(weights: np.ndarray) -> np.ndarray:
        per_au = of_each(weights)  # [R, A, metric]
        average = {"macro": mean_of_defined(per_au.swapaxes(1, 2))[:, None]}
        if of_all:
            average["micro"] = of_all(weights)
        return np.concatenate([per_au, *(average[name] for name in averages)], axis=1)

    return measure


def _counted(
    y: np.ndarray, p: np.ndarray, thresholds: np.ndarray, metrics: Sequence[str], pooled: bool = False
) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function from row weights [R, N] to percent [R, A, metric], or [R, 1, metric] of all AUs `pooled`."""
    labelled, positive = ~np.isnan(y), y == 1
    yes = (p >= thresholds) & labelled
    cells = np.stack([yes & positive, positive, yes, labelled]).astype(float)  # [4, N, A]
    gap = gaps(y, p) if "calibration_error" in metrics else None  # [N, A, bins]
    if pooled:
        cells, gap = cells.sum(axis=2, keepdims=True), gap if gap is None else gap.sum(axis=1, keepdims=True)
    columns = (
        [(y.ravel(), p.ravel(), y.shape[1])] if pooled else [(y[:, a], p[:, a], 1) for a in range(y.shape[1])]
    )
    ranked = {name: [_RANKED[name](*column) for column in columns] for name in metrics if name in _RANKED}

    def measure(weights: np.ndarray) -> np.ndarray:
        hits, positives, answers, rows = weights @ cells  # [R, A] each
        recall = ratio(hits, positives)
        rejected = rows - positives - answers + hits
        specificity = ratio(rejected, rows - positives, np.nan)
        found = {
            "f1": ratio(2 * hits, positives + answers),
            "precision": ratio(hits, answers),
            "recall": recall,
            "accuracy": ratio(hits + rejected, rows, np.nan),
            "balanced_accuracy": mean_of_defined(
                np.stack([ratio(hits, positives, np.nan), specificity], axis=-1)
            ),
        }
        counts = weights.astype(np.int32)
        found |= {name: np.stack([score(counts) for score in each], axis=-1) for name, each in ranked.items()}
        if gap is not None:
            found["calibration_error"] = ratio(
                np.abs(np.tensordot(weights, gap, 1)).sum(axis=-1), rows, np.nan
            )
        return np.stack([found[name] for name in metrics], axis=-1)  # [R, A, metric]

    return measure


class AuF1(evaluate.Metric):
    """`au_table`'s values as an `evaluate` metric, per AU and macro; predictions (P(yes)) and references (0, 1 or NaN) are [N, A].

    Args:
        aus: FACS numbers of the A columns, in order.
        threshold: yes from this probability on.
        metrics: of `ALL_METRICS`, in percent (`f1_AU12`, `f1_macro`, ...), or `support`, the number of positive labels (of labelled rows).
    """

    def __init__(
        self,
        aus: Sequence[int] = BP4D_AUS,
        threshold: float = 0.5,
        metrics: Sequence[str] = ("f1",),
        keep_in_memory: bool = True,
        **kwargs: Any,
    ) -> None:
        _known(metrics, (*ALL_METRICS, "support"), "metric")
        self.columns = [au_column(number) for number in aus]
        self.threshold, self.metrics = threshold, metrics
        super().__init__(keep_in_memory=keep_in_memory, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        row = datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description="F1 or other metrics of each action unit and their mean, in percent.",
            citation="",
            inputs_description="predictions: probability of yes for each AU; references: 0, 1, or NaN for unlabelled.",
            features=datasets.Features({"predictions": row, "references": row}),
        )

    def _compute(
        self, *, predictions: Sequence[Sequence[float]], references: Sequence[Sequence[float]]
    ) -> dict[str, float]:
        scores, labels = (
            self._frame(rows, kind) for rows, kind in ((predictions, "prediction"), (references, "reference"))
        )
        wanted = [name for name in self.metrics if name != "support"] or ["f1"]
        table = au_table(
            labels,
            scores,
            model="",
            dataset="",
            split="",
            threshold=self.threshold,
            metrics=wanted,
            resamples=0,
        )
        values = table.pivot(index="target", columns="metric", values="value").assign(
            support=table.groupby("target")["support"].first()
        )
        return {
            f"{name}_{target}": float(values.at[target, name])
            for name in self.metrics
            for target in table["target"].unique()
        }

    def _frame(self, rows: Sequence[Sequence[float]], kind: str) -> pd.DataFrame:
        for number, row in enumerate(rows):
            if len(row) != len(self.columns):
                raise TableError(
                    f"{kind} {number} has {len(row)} values; expected {len(self.columns)}: {', '.join(self.columns)}"
                )
        return pd.DataFrame(np.array(rows, dtype=float).reshape(-1, len(self.columns)), columns=self.columns)
