"""Whether a probability of yes is one: of all answers given with 70%, 70% should be right."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ...errors import SettingsError
from .labels import label_array, score_array

BINS = 10  # of equal width, as usual (Guo et al. 2017, arXiv 1706.04599)


def reliability_table(labels: pd.DataFrame, scores: pd.DataFrame, *, bins: int = BINS) -> pd.DataFrame:
    """Sort the scores into bins of equal width and compare each bin's mean score with its share of positive labels.

    Args:
        labels, scores: as for `au_table`.

    Returns:
        One row an AU and bin, then `all` AUs together: target, from, to (both in percent), faces, mean_score and positives (percent; NaN
        for a bin without faces).

    Raises:
        TableError: as for `au_table`.
        SettingsError: there is less than one bin.
    """
    if bins < 1:
        raise SettingsError(f"bins={bins}: expected 1 or more, 10 is usual")
    y, columns = label_array(labels, scores.columns)
    p = score_array(scores, labels.index, columns)
    parts = [(name, y[:, a], p[:, a]) for a, name in enumerate(columns)] + [("all", y.ravel(), p.ravel())]
    rows = []
    for target, truth, score in parts:
        for k in range(bins):
            inside = (bin_of(score, bins) == k) & ~np.isnan(truth)
            said, true = (
                100 * values[inside].mean() if inside.any() else np.nan for values in (score, truth)
            )
            rows.append((target, 100 * k / bins, 100 * (k + 1) / bins, int(inside.sum()), said, true))
    return pd.DataFrame(rows, columns=["target", "from", "to", "faces", "mean_score", "positives"])


def bin_of(p: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Return the bin 0 ... of each probability; the last holds 1.0, too."""
    return np.minimum((p * bins).astype(int), bins - 1)


def gaps(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return [N, A, BINS], label minus score in the row's bin and 0 elsewhere; y (0, 1, NaN), p [N, A].

    Its weighted sum over the rows, made positive, summed over the bins and divided by the labelled rows, is the expected calibration error.
    """
    return np.where(bin_of(p)[..., None] == np.arange(BINS), np.nan_to_num(y - p)[..., None], 0.0)
