"""Per-AU detection: F1, AUC, balanced accuracy, precision and recall in percent, with bootstrap intervals."""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ...errors import SettingsError, TableError
from .bootstrap import Measure, bootstrap_table, difference, group_codes, mean_of_defined, ratio

METRICS = ("f1", "auc", "balanced_accuracy", "precision", "recall")
ALL_METRICS = (*METRICS, "accuracy", "average_precision", "calibration_error")
BINS = 10  # of equal width, of the expected calibration error (Guo et al. 2017, arXiv 1706.04599)
_NO_THRESHOLD = ("auc", "average_precision", "calibration_error")


def au_columns(columns: Iterable[str]) -> list[str]:
    """Return the columns that name an AU (`AU1` ...), by number."""
    return sorted((c for c in columns if re.fullmatch(r"AU\d+", str(c))), key=lambda name: int(name[2:]))


def label_array(labels: pd.DataFrame, scored: Iterable[str] = ()) -> tuple[np.ndarray, list[str]]:
    """Return labels [N, A] as 0, 1 or NaN, and the columns of the AUs with a label; warn of the others.

    Raises:
        TableError: a label is none of 0, 1 and missing, or no AU has one.
    """
    columns = au_columns(labels.columns)
    y = _numbers(labels[columns], "label", (0, 1, np.nan))
    labelled = (~np.isnan(y)).any(axis=0)
    names = [column for column, has_label in zip(columns, labelled, strict=True) if has_label]
    if not names:
        raise TableError(
            "labels: no AU column has a label; expected columns AU1, AU2 ... with 0, 1 or missing"
        )
    if without := au_columns({*columns, *scored} - set(names)):
        warnings.warn(f"never labelled here and left out: {', '.join(without)}", stacklevel=3)
    return y[:, labelled], names


def _arrays(
    labels: pd.DataFrame, *scores: pd.DataFrame
) -> tuple[list[str], np.ndarray, *tuple[np.ndarray, ...]]:
    """The labelled AUs' columns, and as [N, A] the labels and each table of scores."""
    y, columns = label_array(labels, scores[0].columns)
    for table in scores:
        if not table.index.equals(labels.index) or not set(columns) <= set(table):
            wanted = f"expected {', '.join(columns)} for each of the {len(labels)} rows of labels"
            raise TableError(
                f"scores: {wanted}; found {len(table)} rows, columns {', '.join(map(str, table))}"
            )
    return columns, y, *(_numbers(table[columns], "score") for table in scores)


def _numbers(table: pd.DataFrame, kind: str, allowed: tuple | None = None) -> np.ndarray:
    """A table as floats [N, A]; TableError where one is not allowed, or outside [0, 1]."""
    values = table.astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    fine = np.isin(values, allowed) | (np.isnan(values)) if allowed else (values >= 0) & (values <= 1)
    if not fine.all():
        row, column = np.argwhere(~fine)[0]
        place = f"{kind} in row {table.index[row]!r}, column {table.columns[column]}"
        wanted = f"expected {allowed or 'a probability'} ({(~fine).sum()} such values in all)"
        raise TableError(f"{place} is {values[row, column]:g}; {wanted}")
    return values


def au_table(
    labels: pd.DataFrame,
    scores: pd.DataFrame,
    *,
    groups: Iterable[object] | None = None,
    threshold: float | Mapping[str, float] = 0.5,
    metrics: Sequence[str] = METRICS,
    averages: Sequence[str] = ("macro",),
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
        averages: `macro`, the mean over the AUs, with or without `micro`, all labels of all AUs together.
        settings: model, dataset, split, resamples and seed, see `bootstrap_table`.

    Returns:
        Tidy table with the columns `COLUMNS`: targets `AU1` ... then the averages, with value and 95%
        interval in percent. Support is the number of positive labels; for averages, of rows with any label.
        F1, precision and recall are 0 where 0/0; balanced accuracy averages over the classes that occur; AUC
        is NaN where a class is missing, average precision where no label is positive, and macro leaves them
        out. AUs without any label are left out, with a warning. `calibration_error` is the expected
        calibration error over 10 bins.

    Raises:
        TableError: the indices differ, a column is missing, or a label or score is out of range.
        SettingsError: a metric is unknown.
    """
    check_names(metrics, ALL_METRICS, "metric")
    columns, y, p = _arrays(labels, scores)
    tuned = isinstance(threshold, Mapping)
    thresholds = np.array([threshold[name] for name in columns]) if tuned else threshold
    measure = _measure(y, p, thresholds, metrics, averages)
    any_label = int((~np.isnan(y)).any(axis=1).sum())
    support = [*np.nansum(y, axis=0).astype(int), *[any_label] * len(averages)]
    names = [f"{name}_tuned" if tuned and name not in _NO_THRESHOLD else name for name in metrics]
    targets = zip([*columns, *averages], support, strict=True)
    rows = [(target, name, count) for target, count in targets for name in names]
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


def prior_scores(train_labels: pd.DataFrame, index: pd.Index) -> pd.DataFrame:
    """Return the label prior's scores: yes (1.0) to every AU of the training labels, for each row of `index`.

    Of all answers that never look at the image, yes to all has the best F1: an AU with base rate p gets
    precision p and recall 1, so F1 = 2p / (1 + p); a coin that says yes with rate q gets 2pq / (p + q).
    """
    return pd.DataFrame(1.0, index=index, columns=au_columns(train_labels.columns))


def best_thresholds(labels: pd.DataFrame, scores: pd.DataFrame) -> dict[str, float]:
    """Return each AU's threshold with the best F1 on validation labels, the highest of equals.

    It is 0.5 for an AU that is never positive. Arguments and errors as for `au_table`; give the result to its
    `threshold`, with the test's labels and scores.
    """
    columns, y, p = _arrays(labels, scores)
    best = {}
    for a, name in enumerate(columns):
        rows = np.flatnonzero(~np.isnan(y[:, a]))
        rows = rows[np.argsort(-p[rows, a], kind="stable")]
        score, truth = p[rows, a], y[rows, a]
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
    bins = _bin_of(p)
    faces, total, positives = (np.bincount(bins, weights, BINS) for weights in (None, p, y))
    edges = 100 * np.arange(BINS + 1) / BINS
    table = pd.DataFrame({"from": edges[:-1], "to": edges[1:], "faces": faces})
    return table.assign(mean_score=ratio(total, faces, np.nan), positives=ratio(positives, faces, np.nan))


def _bin_of(p: np.ndarray) -> np.ndarray:
    """The bin 0 ... of each probability; the last holds 1.0, too."""
    return np.minimum((p * BINS).astype(int), BINS - 1)


def check_names(names: Iterable[str], allowed: Sequence[str], kind: str) -> None:
    """Raise SettingsError where one of `names` is not allowed."""
    if unknown := [name for name in names if name not in allowed]:
        raise SettingsError(f"{kind} {unknown[0]!r} is unknown; expected one of {', '.join(allowed)}")


def _measure(
    y: np.ndarray,
    p: np.ndarray,
    thresholds: np.ndarray | float,
    metrics: Sequence[str],
    averages: Sequence[str] = ("macro",),
) -> Measure:
    """From row weights [R, N] to percent [R, A + averages, metric]; y and p [N, A]."""
    of_each = _of_columns(y, p, thresholds, metrics)
    pooled = [_of_columns(y, p, thresholds, metrics, pooled=True)] if "micro" in averages else []

    def measure(weights: np.ndarray) -> np.ndarray:
        per_au = of_each(weights)  # [R, A, metric]
        macro = mean_of_defined(per_au.swapaxes(1, 2))[:, None]
        return np.concatenate([per_au, macro, *(of_all(weights) for of_all in pooled)], axis=1)

    return measure


def _of_columns(
    y: np.ndarray, p: np.ndarray, thresholds: np.ndarray | float, metrics: Sequence[str], pooled: bool = False
) -> Measure:
    """From row weights [R, N] to percent [R, A, metric], or [R, 1, metric] of all AUs `pooled`."""
    labelled, positive = ~np.isnan(y), y == 1
    yes = (p >= thresholds) & labelled
    cells = np.stack([yes & positive, positive, yes, labelled]).astype(float)  # [4, N, A]
    bins = np.arange(
        BINS if "calibration_error" in metrics else 0
    )  # label minus score in the row's bin, else 0
    gap = np.where(_bin_of(p)[..., None] == bins, np.nan_to_num(y - p)[..., None], 0.0)  # [N, A, bins]
    columns = [(y[:, a], p[:, a], 1) for a in range(y.shape[1])]
    if pooled:
        cells, gap = cells.sum(axis=2, keepdims=True), gap.sum(axis=1, keepdims=True)
        columns = [(y.ravel(), p.ravel(), y.shape[1])]
    ranked = {name: [_RANKED[name](*column) for column in columns] for name in metrics if name in _RANKED}

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
        return np.stack([values[name] for name in metrics], axis=-1)  # [R, A, metric]

    return measure


def auc(y: np.ndarray, p: np.ndarray, each: int = 1) -> Measure:
    """Return the measure of the area under the ROC curve, ties counted half; NaN where a class is missing.

    Labels y (0, 1, NaN) and scores p are [N], sorted once for all resamples; where a row has `each` of them,
    one after the other, they are [N * each] and share its weight. Weights are int32, the result is [R].
    """
    positives, negatives, below, up_to, _ = _sorted(y, p, each)

    def measure(weights: np.ndarray) -> np.ndarray:
        beaten = _running(weights, negatives)
        wins = np.take(beaten, below, axis=1) + np.take(beaten, up_to, axis=1)  # twice: a tie is half a win
        positive = np.take(weights, positives, axis=1)
        won = np.einsum("rp,rp->r", positive, wins, dtype=float, casting="unsafe") / 2
        return ratio(won, positive.sum(axis=1, dtype=float) * beaten[:, -1], np.nan)

    return measure


def average_precision(y: np.ndarray, p: np.ndarray, each: int = 1) -> Measure:
    """Return the measure of the average precision, as scikit-learn defines it; NaN without positives."""
    positives, negatives, below, _, first = _sorted(y, p, each)

    def measure(weights: np.ndarray) -> np.ndarray:
        beaten, reached = _running(weights, negatives), _running(weights, positives)
        hits = reached[:, -1:] - np.take(reached, first, axis=1)  # from this score on
        alarms = beaten[:, -1:] - np.take(beaten, below, axis=1)
        precision = np.divide(hits, hits + alarms, out=np.zeros(hits.shape), where=hits > 0)
        total = np.einsum("rp,rp->r", np.take(weights, positives, axis=1), precision)
        return ratio(total, reached[:, -1], np.nan)

    return measure


def _sorted(y: np.ndarray, p: np.ndarray, each: int) -> tuple[np.ndarray, ...]:
    """Rows of positives and negatives by rising score; of each positive, the number of negatives below it,
    of those up to it, and the first positive of the same score."""
    positives, negatives = (
        rows[np.argsort(p[rows], kind="stable")] for rows in (np.flatnonzero(y == 1), np.flatnonzero(y == 0))
    )
    below, up_to = (np.searchsorted(p[negatives], p[positives], side=side) for side in ("left", "right"))
    return positives // each, negatives // each, below, up_to, np.searchsorted(p[positives], p[positives])


def _running(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Weight [R, n + 1] of the first 0, 1, ... n of `rows`."""
    running = np.zeros((len(weights), len(rows) + 1), weights.dtype)
    np.cumsum(np.take(weights, rows, axis=1), axis=1, out=running[:, 1:])
    return running


_RANKED = {"auc": auc, "average_precision": average_precision}
