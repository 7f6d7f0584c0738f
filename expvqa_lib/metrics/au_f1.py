"""Per-AU detection: F1, AUC, balanced accuracy, precision and recall in percent, with bootstrap intervals."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
import pandas as pd

from ..errors import SettingsError, TableError
from ..facs import BP4D_AUS, au_column
from .intervals import bootstrap, group_codes, mean_of_defined, ratio

METRICS = ("f1", "auc", "balanced_accuracy", "precision", "recall")
COLUMNS = ("model", "dataset", "split", "target", "metric", "value", "low", "high", "support")


def au_table(
    labels: pd.DataFrame,
    scores: pd.DataFrame,
    *,
    model: str,
    dataset: str,
    split: str,
    groups: Iterable[object] | None = None,
    threshold: float = 0.5,
    n_resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Score yes/no answers on each AU and their macro average.

    Args:
        labels: columns `AU1` ...: 0, 1, or missing for unlabelled (that row then counts for the other AUs only).
        scores: the same index and at least the same AU columns: probability of yes, in [0, 1].
        groups: the subject of each row; intervals then come from drawing subjects, not rows.
        threshold: yes from this probability on; fixed, never fitted to the test labels.
        n_resamples: of the bootstrap; 0 leaves the intervals NaN.

    Returns:
        Tidy table with the columns `COLUMNS`: targets `AU1` ... then `macro`, five metrics each, value and 95% interval in
        percent. Support is the number of positive labels; for macro, of rows with any label. F1, precision and recall are 0
        where 0/0; balanced accuracy averages over the classes that occur; AUC is NaN where a class is missing, and macro
        leaves it out. AUs without any label are left out, with a warning that names them.

    Raises:
        TableError: the indices differ, a column is missing, or a label or score is out of range (row and column are named).
    """
    y, columns = _labels(labels, scores.columns)
    p = _scores(scores, labels.index, columns)
    codes = group_codes(groups, len(labels))
    value, low, high = bootstrap(_measures(y, p, threshold), codes, n_resamples, seed)  # [A + 1, metric] each
    support = [*np.nansum(y, axis=0).astype(int), int((~np.isnan(y)).any(axis=1).sum())]
    targets = [*columns, "macro"]
    return pd.DataFrame(
        [
            (model, dataset, split, target, metric, value[t, m], low[t, m], high[t, m], support[t])
            for t, target in enumerate(targets)
            for m, metric in enumerate(METRICS)
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
    n_resamples: int = 1000,
    seed: int = 0,
) -> pd.Series:
    """Return macro `metric` of a minus that of b on the same resamples: value, low, high (percentage points), support.

    Arguments as for `au_table`. An interval without 0 says that one of the two is better on faces like these.

    Raises:
        TableError: as for `au_table`.
        SettingsError: the metric is not one of `METRICS`.
    """
    if metric not in METRICS:
        raise SettingsError(f"metric {metric!r} is unknown; known are {', '.join(METRICS)}")
    y, columns = _labels(labels, scores_a.columns)
    a, b = (_measures(y, _scores(scores, labels.index, columns), threshold) for scores in (scores_a, scores_b))
    which = METRICS.index(metric)
    codes = group_codes(groups, len(labels))
    value, low, high = bootstrap(lambda weights: (a(weights) - b(weights))[:, -1, which], codes, n_resamples, seed)
    support = int((~np.isnan(y)).any(axis=1).sum())
    return pd.Series({"value": float(value), "low": float(low), "high": float(high), "support": support}, name=f"{metric} difference")


def prior_scores(train_labels: pd.DataFrame, index: pd.Index) -> pd.DataFrame:
    """Return what the label prior answers: yes to every AU of the training labels, a score of 1.0 for each row of `index`.

    Of all answers that never look at the image, yes to all has the best F1: an AU with base rate p gets precision p and
    recall 1, so F1 = 2p / (1 + p); a coin that says yes with rate q gets 2pq / (p + q), less for every q below 1. AUC and
    balanced accuracy are 50. A model that has learned to see must beat it.
    """
    return pd.DataFrame(1.0, index=index, columns=_au_columns(train_labels.columns))


def _measures(y: np.ndarray, p: np.ndarray, threshold: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function from row weights [R, N] to percentages [R, A + 1, metric], macro last; y (NaN unlabelled), p [N, A]."""
    labelled, positive = ~np.isnan(y), y == 1
    yes = (p >= threshold) & labelled
    cells = np.stack([yes & positive, positive, yes, labelled]).astype(float)  # [4, N, A]
    aucs = [_auc(y[:, a], p[:, a]) for a in range(y.shape[1])]

    def measure(weights: np.ndarray) -> np.ndarray:
        hits, positives, answers, rows = weights @ cells  # [R, A] each
        recall = ratio(hits, positives)
        specificity = ratio(rows - positives - answers + hits, rows - positives, np.nan)
        balanced = mean_of_defined(np.stack([ratio(hits, positives, np.nan), specificity], axis=-1))
        auc = np.stack([auc(weights) for auc in aucs], axis=-1)
        f1, precision = ratio(2 * hits, positives + answers), ratio(hits, answers)
        per_au = np.stack([f1, auc, balanced, precision, recall], axis=-1)  # [R, A, metric]
        macro = mean_of_defined(per_au.swapaxes(1, 2))[:, None]  # [R, 1, metric]
        return np.concatenate([per_au, macro], axis=1)

    return measure


def _auc(y: np.ndarray, p: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function from row weights [R, N] to the area under the ROC curve [R] in percent, ties counted half.

    Sorted once: each positive beats the negatives below it, whose weight is one cumulative sum away.
    """
    positives, negatives = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    negatives = negatives[np.argsort(p[negatives], kind="stable")]
    below = np.searchsorted(p[negatives], p[positives], side="left")
    up_to = np.searchsorted(p[negatives], p[positives], side="right")

    def auc(weights: np.ndarray) -> np.ndarray:
        negative = np.zeros((len(weights), len(negatives) + 1))
        np.cumsum(weights[:, negatives], axis=1, out=negative[:, 1:])
        positive = weights[:, positives]
        wins = np.einsum("rp,rp->r", positive, negative[:, below] + negative[:, up_to]) / 2
        return ratio(wins, positive.sum(axis=1) * negative[:, -1], np.nan)

    return auc


def _au_columns(columns: Iterable[str]) -> list[str]:
    return sorted((c for c in columns if re.fullmatch(r"AU\d+", str(c))), key=lambda name: int(name[2:]))


def _labels(labels: pd.DataFrame, scored: Iterable[str]) -> tuple[np.ndarray, list[str]]:
    """Return labels [N, A] as 0, 1 or NaN, and the columns of the AUs that have a label."""
    columns = _au_columns(labels.columns)
    y = np.column_stack([_floats(labels[c], "label") for c in columns]) if columns else np.empty((len(labels), 0))
    _check(np.isnan(y) | np.isin(y, (0, 1)), labels.index, columns, y, "label", "0, 1 or missing (unlabelled)")
    has_label = (~np.isnan(y)).any(axis=0)
    known = [c for c, kept in zip(columns, has_label, strict=True) if kept]
    without = _au_columns({*columns, *scored} - set(known))
    if without:
        warnings.warn(f"never labelled here and left out: {', '.join(without)}", stacklevel=3)
    if not known:
        raise TableError("labels: no AU column has a label; expected columns named AU1, AU2 ... with 0, 1 or missing values")
    return y[:, has_label], known


def _scores(scores: pd.DataFrame, index: pd.Index, columns: list[str]) -> np.ndarray:
    """Return scores [N, A] of `columns`, checked."""
    missing = [c for c in columns if c not in scores.columns]
    if missing:
        raise TableError(f"scores: no column {', '.join(missing)}, which the labels have; ask the model about these AUs, too")
    if not scores.index.equals(index):
        raise TableError(f"scores and labels have different rows ({len(scores)} and {len(index)}); use scores.reindex(labels.index)")
    p = np.column_stack([_floats(scores[c], "score") for c in columns])
    _check((p >= 0) & (p <= 1), index, columns, p, "score", "a probability in [0, 1]")
    return p


def _floats(column: pd.Series, kind: str) -> np.ndarray:
    try:
        return pd.to_numeric(column).astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    except (ValueError, TypeError) as error:
        raise TableError(f"{kind} column {column.name}: holds something that is not a number ({error})") from error


def _check(fine: np.ndarray, index: pd.Index, columns: Sequence[str], values: np.ndarray, kind: str, expected: str) -> None:
    if not fine.all():
        row, column = np.argwhere(~fine)[0]
        raise TableError(
            f"{kind} in row {index[row]!r}, column {columns[column]} is {values[row, column]:g}; expected {expected} "
            f"({(~fine).sum()} such values in all)"
        )


class AuF1(evaluate.Metric):
    """Per-AU and macro F1 in percent, as an `evaluate` metric; predictions (P(yes)) and references (0, 1 or NaN) are [N, A].

    Args:
        aus: FACS numbers of the A columns, in order.
        threshold: yes from this probability on.
    """

    def __init__(self, aus: Sequence[int] = BP4D_AUS, threshold: float = 0.5, keep_in_memory: bool = True, **kwargs: Any) -> None:
        self.columns = [au_column(number) for number in aus]
        self.threshold = threshold
        super().__init__(keep_in_memory=keep_in_memory, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        row = datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description="F1 of each action unit and their mean, in percent.",
            citation="",
            inputs_description="predictions: probability of yes for each AU; references: 0, 1, or NaN for unlabelled.",
            features=datasets.Features({"predictions": row, "references": row}),
        )

    def _compute(self, *, predictions: Sequence[Sequence[float]], references: Sequence[Sequence[float]]) -> dict[str, float]:
        scores, labels = (self._frame(rows, kind) for rows, kind in ((predictions, "prediction"), (references, "reference")))
        table = au_table(labels, scores, model="", dataset="", split="", threshold=self.threshold, n_resamples=0)
        f1 = table[table.metric == "f1"].set_index("target")["value"]
        return {f"f1_{target}": float(value) for target, value in f1.items()}

    def _frame(self, rows: Sequence[Sequence[float]], kind: str) -> pd.DataFrame:
        for number, row in enumerate(rows):
            if len(row) != len(self.columns):
                raise TableError(f"{kind} {number} has {len(row)} values; expected {len(self.columns)}: {', '.join(self.columns)}")
        return pd.DataFrame(np.array(rows, dtype=float).reshape(-1, len(self.columns)), columns=self.columns)
