"""Area under the ROC curve and average precision of many weighted resamples; scores are sorted once.

Labels y (0, 1, NaN) and scores p are [N]; where a row has `each` of them, one after the other, they are [N *
each] and share its weight.
"""

from collections.abc import Callable

import numpy as np

from .bootstrap import ratio

Weighted = Callable[[np.ndarray], np.ndarray]  # row weights [R, N], whole numbers of int32, to percent [R]


def auc(y: np.ndarray, p: np.ndarray, each: int = 1) -> Weighted:
    """Return the measure of the area under the ROC curve, ties counted half; NaN where a class is missing."""
    positives, negatives, below, up_to, _ = _sorted(y, p, each)

    def measure(weights: np.ndarray) -> np.ndarray:
        beaten = _running(weights, negatives)
        wins = np.take(beaten, below, axis=1) + np.take(beaten, up_to, axis=1)  # twice: a tie is half a win
        positive = np.take(weights, positives, axis=1)
        won = np.einsum("rp,rp->r", positive, wins, dtype=float, casting="unsafe") / 2
        return ratio(won, positive.sum(axis=1, dtype=float) * beaten[:, -1], np.nan)

    return measure


def average_precision(y: np.ndarray, p: np.ndarray, each: int = 1) -> Weighted:
    """Return the measure of the average precision, as scikit-learn defines it; NaN without positives."""
    positives, negatives, below, _, first = _sorted(y, p, each)

    def measure(weights: np.ndarray) -> np.ndarray:
        beaten, reached = _running(weights, negatives), _running(weights, positives)
        hits = reached[:, -1:] - np.take(reached, first, axis=1)  # from this score on
        alarms = beaten[:, -1:] - np.take(beaten, below, axis=1)
        precision = np.divide(hits, hits + alarms, out=np.zeros(hits.shape), where=hits > 0)
        return ratio(
            np.einsum("rp,rp->r", np.take(weights, positives, axis=1), precision), reached[:, -1], np.nan
        )

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
