"""Emotion classification: recall, precision, F1 of each emotion, accuracy and macro averages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from ...errors import TableError
from ...facs import EMOTIONS
from .bootstrap import bootstrap_table, difference, group_codes, mean_of_defined, ratio

PER_EMOTION = ("recall", "precision", "f1")
OVERALL = ("accuracy", "f1", "balanced_accuracy")


def emotion_table(
    true: Iterable[str | None],
    predicted: Iterable[str | None],
    *,
    groups: Iterable[object] | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Score one emotion a face.

    Args:
        true: an emotion a row; rows without one (None, NaN) are left out.
        predicted: as many; None or NaN where no emotion could be read from the answer, which counts as wrong.
        groups: the subject of each row, see `group_codes`.
        settings: model, dataset, split, resamples and seed, see `bootstrap_table`.

    Returns:
        Tidy table with the columns of `au_table`: targets are the emotions that occur (recall, precision, F1;
        support: their rows), then `macro` (accuracy, F1 and balanced accuracy over those emotions; support:
            labelled
        rows). Percent. 0/0 is 0 in recall, precision and F1; balanced accuracy averages over the emotions
        that a resample holds.

    Raises:
        TableError: no row has an emotion.
    """
    true, (predicted,), codes = _labelled(true, [predicted], groups)
    names = set(true)
    emotions = [name for name in EMOTIONS if name in names] + sorted(names - set(EMOTIONS))
    is_true, is_predicted = (np.stack([v == name for name in emotions], axis=1) for v in (true, predicted))
    cells = np.stack([is_true & is_predicted, is_true, is_predicted]).astype(float)  # [3, N, C]

    def measure(weights: np.ndarray) -> np.ndarray:
        hits, positives, answers = weights @ cells  # [R, C] each
        f1 = ratio(2 * hits, positives + answers)
        per_emotion = np.stack([ratio(hits, positives), ratio(hits, answers), f1], axis=-1)  # [R, C, 3]
        accuracy = ratio(hits.sum(axis=1), positives.sum(axis=1))
        balanced = mean_of_defined(ratio(hits, positives, np.nan))
        overall = np.stack([accuracy, f1.mean(axis=1), balanced], axis=-1)
        return np.concatenate([per_emotion, overall[:, None]], axis=1)

    support = is_true.sum(axis=0).tolist()
    rows = [(name, metric, n) for name, n in zip(emotions, support, strict=True) for metric in PER_EMOTION]
    rows += [("macro", metric, len(true)) for metric in OVERALL]
    return bootstrap_table(measure, rows, codes, **settings)


def emotion_difference(
    true: Iterable[str | None],
    predicted_a: Iterable[str | None],
    predicted_b: Iterable[str | None],
    groups: Iterable[object] | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.Series:
    """Return the accuracy of a minus that of b on the same resamples: value, low, high, p, support.

    In percentage points. Arguments and errors as for `emotion_table`, the result as of `paired_difference`.
    """
    true, (a, b), codes = _labelled(true, [predicted_a, predicted_b], groups)
    gain = (a == true).astype(float) - (b == true)
    return difference(lambda w: ratio(w @ gain, w.sum(axis=1)), codes, len(true), resamples, seed)


def _labelled(
    true: Iterable[str | None], predicted: list[Iterable[str | None]], groups: Iterable[object] | None
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """True and predicted emotions ("" where none was read) of the rows with a true one, and their groups."""
    true, *predicted = (pd.Series(list(values), dtype=object) for values in (true, *predicted))
    labelled = true.notna().to_numpy()
    if not labelled.any():
        raise TableError("no row has a true emotion; expected names such as " + ", ".join(EMOTIONS))
    codes = np.unique(group_codes(groups, len(true))[labelled], return_inverse=True)[1]
    return true[labelled].to_numpy(), [values[labelled].fillna("").to_numpy() for values in predicted], codes
