"""Percentile bootstrap over subjects or rows, in chunks, so that 50 000 rows stay small."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pandas as pd

from ...errors import SettingsError, TableError

LEVEL = 95.0  # percent, of every interval
COLUMNS = ("model", "dataset", "split", "target", "metric", "value", "low", "high", "support")
_CHUNK_VALUES = 4_000_000  # weights held at once: 32 MB

Measure = Callable[[np.ndarray], np.ndarray]
"""Row weights [R, N] to values [R, ...] of R resamples; NaN where a value is not defined."""


def bootstrap_table(
    measure: Measure,
    rows: Iterable[tuple[str, str, int]],
    codes: np.ndarray,
    *,
    model: str,
    dataset: str,
    split: str,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return a measure's values with their 95% intervals as a tidy table, columns `COLUMNS`.

    Args:
        rows: target, metric and support of each value, in the order in which the measure gives them.
        codes: of `group_codes`.
        model, dataset, split: names, the same in each row of the table.
        resamples: of the bootstrap; 0 leaves the intervals NaN.
        seed: of the resamples: the same rows, groups and seed are resampled alike.
    """
    table = pd.DataFrame(list(rows), columns=["target", "metric", "support"])
    intervals = zip(("value", "low", "high"), bootstrap(measure, codes, resamples, seed), strict=True)
    values = {name: value.ravel() for name, value in intervals}
    return table.assign(model=model, dataset=dataset, split=split, **values)[list(COLUMNS)]


def group_codes(groups: Iterable[object] | None, rows: int) -> np.ndarray:
    """Return an integer [N] from 0 that tells which rows are drawn together.

    `groups` holds one subject a row; a missing subject stands alone. None draws each row on its own.

    Raises:
        TableError: there is not one group a row.
    """
    if groups is None:
        return np.arange(rows)
    groups = pd.Series(groups).reset_index(drop=True)
    if len(groups) != rows:
        raise TableError(f"groups: {len(groups)} values for {rows} rows; give one subject a row")
    codes, names = pd.factorize(groups)
    alone = codes < 0
    codes[alone] = len(names) + np.arange(alone.sum())
    return codes


def resample(codes: np.ndarray, resamples: int = 1000, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield chunks [r, N] of how often each row was drawn, `resamples` in all.

    Each resample draws as many groups as there are, with replacement, and takes all rows of a drawn group.

    Raises:
        SettingsError: `resamples` is negative.
    """
    if resamples < 0:
        raise SettingsError(f"resamples is {resamples}; give 0 (no interval) or more, 1000 is usual")
    rng = np.random.default_rng(seed)
    groups = int(codes.max()) + 1
    step = max(1, _CHUNK_VALUES // len(codes))
    for start in range(0, resamples, step):
        r = min(step, resamples - start)
        drawn = rng.integers(groups, size=(r, groups)) + np.arange(r)[:, None] * groups
        counts = np.bincount(drawn.ravel(), minlength=r * groups).reshape(r, groups).astype(float)
        yield counts[:, codes]  # [r, N]


def bootstrap(
    measure: Measure, codes: np.ndarray, resamples: int = 1000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return value, low and high of a weighted measure, each [...]: the plain value and its 95% interval.

    With fewer than two groups, or without resamples, the interval is NaN: nothing was learned about it.
    """
    value, values = _resampled(measure, codes, resamples, seed)
    if not len(values):
        return value, np.full_like(value, np.nan), np.full_like(value, np.nan)
    return value, *percentiles(values)


def difference(measure: Measure, codes: np.ndarray, resamples: int = 1000, seed: int = 0) -> dict[str, float]:
    """Return value, low, high and p of a measure that is the difference of two models on the same rows.

    `p` is two-sided: twice the share of resamples on the rarer side of 0, which counts to both, with one
    added to either count (Davison and Hinkley 1997, section 4.2), so that it is never 0.
    """
    value, values = _resampled(measure, codes, resamples, seed)
    if not len(values):
        return {"value": float(value), "low": np.nan, "high": np.nan, "p": np.nan}
    low, high = map(float, percentiles(values))
    rarer = min((values <= 0).sum(), (values >= 0).sum())
    return {
        "value": float(value),
        "low": low,
        "high": high,
        "p": min(1.0, 2 * (rarer + 1) / (len(values) + 1)),
    }


def _resampled(
    measure: Measure, codes: np.ndarray, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The measure of the rows as they are, [...], and of each resample, [R, ...]."""
    value = measure(np.ones((1, len(codes))))[0]
    if resamples == 0 or len(codes) == 0 or codes.max() < 1:
        return value, np.empty((0, *np.shape(value)))
    return value, np.concatenate([measure(weights) for weights in resample(codes, resamples, seed)])


def percentiles(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends [...] of the 95% interval of resampled values [R, ...]; NaN drop out."""
    tail = (100 - LEVEL) / 2
    undefined = np.isnan(values).all(axis=0)
    low, high = np.nanpercentile(np.where(undefined, 0.0, values), [tail, 100 - tail], axis=0)
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)


def ratio(part: np.ndarray, whole: np.ndarray, empty: float = 0.0) -> np.ndarray:
    """Return part / whole in percent; `empty` where the whole is zero."""
    return np.divide(100.0 * part, whole, out=np.full(np.shape(whole), empty), where=whole > 0)


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Return the mean [...] over the last axis of the values that are not NaN; NaN where none is."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=-1)
    total = np.where(defined, values, 0.0).sum(axis=-1)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
