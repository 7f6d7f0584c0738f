"""Per-AU detection: F1, AUC, balanced accuracy, precision and recall in percent, with bootstrap intervals."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ...data import AU_COLUMNS
from ...errors import TableError
from .bootstrap import Measure, bootstrap_table, difference, group_codes, mean_of_defined, ratio

METRICS = ("f1", "auc", "balanced_accuracy", "precision", "recall")
ALL_METRICS = (*METRICS, "accuracy", "average_precision", "calibration_error")
BINS = 10  # of equal width, of the expected calibration error (Guo et al. 2017, arXiv 1706.04599)
_RANKED = ("auc", "average_precision")
_NO_THRESHOLD = (*_RANKED, "calibration_error")


def _arrays(labels: pd.DataFrame, *scores: pd.DataFrame) -> tuple[list[str], np.ndarray, ...]:
    """The columns of the AUs with a label, and as [N, A] the labels and each table of scores.

    AUs without a label are named in a warning.
    """
    labelled = labels[[name for name in AU_COLUMNS if name in labels]].dropna(axis=1, how="all")
    columns = list(labelled)
    if not columns:
        raise TableError(
            "labels: no AU column has a label; expected columns AU1, AU2 ... with 0, 1 or missing"
        )
    if without := [name for name in AU_COLUMNS if name in {*labels, *scores[0]} - set(columns)]:
        warnings.warn(f"never labelled here and left out: {', '.join(without)}", stacklevel=3)
    if nowhere := list(labelled.columns[(labelled == 1).sum() == 0]):
        warnings.warn(f"no positive label here, left out of macro: {', '.join(nowhere)}", stacklevel=3)
    for table in scores:
        if not table.index.equals(labels.index) or not set(columns) <= set(table):
            raise TableError(
                f"scores: expected {', '.join(columns)} for each of the {len(labels)} rows of labels; "
                f"found {len(table)} rows, columns {', '.join(map(str, table))}"
            )
    scores = (_numbers(table[columns], "score") for table in scores)
    return columns, _numbers(labelled, "label", (0, 1, np.nan)), *scores


def _numbers(table: pd.DataFrame, kind: str, allowed: tuple | None = None) -> np.ndarray:
    """A table as floats [N, A]; TableError where one is not allowed, or outside [0, 1]."""
    values = table.astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    fine = np.isin(values, allowed) | (np.isnan(values)) if allowed else (values >= 0) & (values <= 1)
    if not fine.all():
        row, column = np.argwhere(~fine)[0]
        raise TableError(
            f"{kind} in row {table.index[row]!r}, column {table.columns[column]} is {values[row, column]:g}; "
            f"expected {allowed or 'a probability'} ({(~fine).sum()} such values in all)"
        )
    return values


def au_table(
    labels: pd.DataFrame,
    scores: pd.DataFrame,
    *,
    groups: Iterable[object] | None = None,
    threshold: float | Mapping[str, float] = 0.5,
    metrics: Sequence[str] = METRICS,
    micro: bool = False,
    **settings: Any,
) -> pd.DataFrame:
    """Score yes/no answers on each AU and their averages.

    Args:
        labels: columns `AU1` ...: 0, 1, or missing (that row then counts for the other AUs only).
        scores: the same index and at least the same AU columns: probability of yes, in [0, 1].
        groups: the subject of each row; intervals then come from drawing subjects, not rows.
        threshold: yes from this probability on. One an AU, from `best_thresholds` on validation labels, gives
            the metrics that depend on it names ending in `_tuned`.
        metrics: of `ALL_METRICS`, in this order.
        micro: also measure all labels of all AUs together.
        settings: model, dataset, split, resamples and seed, see `bootstrap_table`.

    Returns:
        Tidy table with the columns `COLUMNS`: targets `AU1` ..., then `macro`, the mean over the AUs, and
        `micro`, with value and 95% interval in percent. Support is the number of positive labels; for the
        last two, of rows with any label.
        F1, precision and recall are 0 where 0/0; balanced accuracy averages over the classes that occur; AUC
        is NaN where a class is missing, average precision where no label is positive, and macro leaves them
        out. AUs without any label are left out, and without a
        positive one out of macro, with a warning. `calibration_error` is the expected
        calibration error over 10 bins.

    Raises:
        TableError: the indices differ, a column is missing, or a label or score is out of range.
    """
    columns, y, p = _arrays(labels, scores)
    tuned = isinstance(threshold, Mapping)
    thresholds = np.array([threshold[name] for name in columns]) if tuned else threshold
    support = dict(zip(columns, np.nansum(y, axis=0).astype(int), strict=True))
    support |= dict.fromkeys(
        ["macro", "micro"] if micro else ["macro"], int((~np.isnan(y)).any(axis=1).sum())
    )
    names = [f"{name}_tuned" if tuned and name not in _NO_THRESHOLD else name for name in metrics]
    rows = [(target, name, count) for target, count in support.items() for name in names]
    measure = _measure(y, p, thresholds, metrics, micro)
    return bootstrap_table(measure, rows, group_codes(groups, len(labels)), **settings)


def paired_difference(
    labels: pd.DataFrame,
    scores_a: pd.DataFrame,
    scores_b: pd.DataFrame,
    groups: Iterable[object] | None = None,
    *,
    metric: str = "f1",
    resamples: int = 1000,
    seed: int = 0,
) -> pd.Series:
    """Return macro `metric` of a minus that of b on the same resamples: value, low, high, p, support.

    In percentage points. Arguments and errors as for `au_table`. An interval without 0 says that one of the
    two is better on faces like these; `p` is the two-sided p-value of no difference (see
    `bootstrap.difference`).
    """
    _, y, *both = _arrays(labels, scores_a, scores_b)
    a, b = (_measure(y, p, 0.5, [metric]) for p in both)
    codes, support = group_codes(groups, len(labels)), int((~np.isnan(y)).any(axis=1).sum())
    return difference(lambda w: a(w)[:, -1, 0] - b(w)[:, -1, 0], codes, support, resamples, seed)


def prior_scores(labels: pd.DataFrame) -> pd.DataFrame:
    """Return the label prior's scores in the shape of the labels: yes (1.0) to every AU.

    Of all answers that never look at the image, yes to all has the best F1: an AU with base rate p gets
    precision p and recall 1, so F1 = 2p / (1 + p); a coin that says yes with rate q gets 2pq / (p + q).
    """
    return pd.DataFrame(1.0, labels.index, labels.columns)


def best_thresholds(labels: pd.DataFrame, scores: pd.DataFrame) -> dict[str, float]:
    """Return each AU's threshold with the best F1 on validation labels, the highest of equals.

    It is 0.5 for an AU that is never positive. Arguments and errors as for `au_table`; give the result to its
    `threshold`, with the test's labels and scores.
    """
    columns, y, p = _arrays(labels, scores)
    best = {}
    for name, truth, score in zip(columns, y.T, p.T, strict=True):
        rows = np.flatnonzero(~np.isnan(truth))
        rows = rows[np.argsort(-score[rows], kind="stable")]
        score, truth = score[rows], truth[rows]
        f1 = 2 * truth.cumsum() / (truth.sum() + np.arange(1, len(rows) + 1))  # yes to the first 1, 2, ...
        f1[:-1][score[:-1] == score[1:]] = -1.0  # equal scores are answered alike
        best[name] = float(score[f1.argmax()]) if truth.any() else 0.5
    return best


def reliability_table(labels: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Sort the scores of all AUs into 10 bins: each bin's mean score beside its share of positive labels.

    Arguments and errors as for `au_table`.

    Returns:
        One row a bin: from, to (both in percent), faces, mean_score, positives (percent; NaN without faces).
    """
    _, y, p = _arrays(labels, scores)
    p, y = p[~np.isnan(y)], y[~np.isnan(y)]
    faces, total, positives = (np.bincount(_bin_of(p), weights, BINS) for weights in (None, p, y))
    edges = 100 * np.arange(BINS + 1) / BINS
    shares = {"mean_score": ratio(total, faces, np.nan), "positives": ratio(positives, faces, np.nan)}
    return pd.DataFrame({"from": edges[:-1], "to": edges[1:], "faces": faces, **shares})


def _bin_of(p: np.ndarray) -> np.ndarray:
    """The bin 0 ... of each probability; the last holds 1.0, too."""
    return np.minimum((p * BINS).astype(int), BINS - 1)


def _measure(
    y: np.ndarray, p: np.ndarray, thresholds: np.ndarray | float, metrics: Sequence[str], micro: bool = False
) -> Measure:
    """From row weights [R, N] to percent [R, A + averages, metric]; y and p [N, A]."""
    labelled, positive, aus = ~np.isnan(y), y == 1, y.shape[1]
    yes = (p >= thresholds) & labelled
    cells = np.stack([yes & positive, positive, yes, labelled]).astype(float)  # [4, N, A]
    bins = np.arange(BINS if "calibration_error" in metrics else 0)
    # label minus score in the row's bin, else 0: [N, A, bins]
    gap = np.where(_bin_of(p)[..., None] == bins, np.nan_to_num(y - p)[..., None], 0.0)
    columns = [(y[:, a], p[:, a], 1) for a in range(aus)]
    if micro:  # as one more column
        cells = np.concatenate([cells, cells.sum(axis=2, keepdims=True)], axis=2)
        gap = np.concatenate([gap, gap.sum(axis=1, keepdims=True)], axis=1)
        columns.append((y.ravel(), p.ravel(), aus))
    ranked = {name: [_rank_measure(name, *c) for c in columns] for name in metrics if name in _RANKED}

    def measure(weights: np.ndarray) -> np.ndarray:
        hits, positives, answers, rows = weights @ cells
        rejected = rows - positives - answers + hits
        classes = ratio(hits, positives, np.nan), ratio(rejected, rows - positives, np.nan)
        values = {
            "f1": ratio(2 * hits, positives + answers),
            "precision": ratio(hits, answers),
            "recall": ratio(hits, positives),
            "accuracy": ratio(hits + rejected, rows, np.nan),
            "balanced_accuracy": mean_of_defined(np.stack(classes, axis=-1)),
            "calibration_error": ratio(np.abs(np.tensordot(weights, gap, 1)).sum(axis=-1), rows, np.nan),
        }
        for name, ranks in ranked.items():
            values[name] = np.stack([rank(weights.astype(np.int32)) for rank in ranks], axis=-1)
        scores = np.stack([values[name] for name in metrics], axis=-1)  # [R, A, metric]
        macro = mean_of_defined(scores[:, :aus][:, positive.any(axis=0)].swapaxes(1, 2))[:, None]
        return np.concatenate([scores[:, :aus], macro, scores[:, aus:]], axis=1)

    return measure


def _rank_measure(metric: str, y: np.ndarray, p: np.ndarray, each: int) -> Measure:
    """The measure of the area under the ROC curve, or of the average precision as scikit-learn defines it.

    Labels y (0, 1, NaN) and scores p are [N], sorted once for all resamples; where a row has `each` of them,
    one after the other, they are [N * each] and share its weight. Weights are int32, the result is [R]: NaN
    where a class is missing, or of the average precision the positives are.
    """
    positives, negatives = (
        rows[np.argsort(p[rows], kind="stable")] for rows in (np.flatnonzero(y == 1), np.flatnonzero(y == 0))
    )
    # of each positive: the negatives below it and up to it, and the first positive of the same score
    below, up_to = (np.searchsorted(p[negatives], p[positives], side=side) for side in ("left", "right"))
    first = np.searchsorted(p[positives], p[positives])

    def measure(weights: np.ndarray) -> np.ndarray:
        beaten, positive = _running(weights, negatives // each), np.take(weights, positives // each, axis=1)
        if metric == "auc":  # twice the wins: a tie is half a win
            wins = np.take(beaten, below, axis=1) + np.take(beaten, up_to, axis=1)
            won = np.einsum("rp,rp->r", positive, wins, dtype=float, casting="unsafe") / 2
            return ratio(won, positive.sum(axis=1, dtype=float) * beaten[:, -1], np.nan)
        reached = _running(weights, positives // each)
        hits = reached[:, -1:] - np.take(reached, first, axis=1)  # from this score on
        alarms = beaten[:, -1:] - np.take(beaten, below, axis=1)
        precision = np.divide(hits, hits + alarms, out=np.zeros(hits.shape), where=hits > 0)
        return ratio(np.einsum("rp,rp->r", positive, precision), reached[:, -1], np.nan)

    return measure


def _running(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Weight [R, n + 1] of the first 0, 1, ... n of `rows`."""
    running = np.zeros((len(weights), len(rows) + 1), weights.dtype)
    np.cumsum(np.take(weights, rows, axis=1), axis=1, out=running[:, 1:])
    return running
