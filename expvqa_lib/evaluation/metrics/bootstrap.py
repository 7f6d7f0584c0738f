"""Percentile bootstrap over subjects or rows, in chunks, so that 50 000 rows stay small."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pandas as pd

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
    value, low, high, _ = (part.ravel() for part in bootstrap(measure, codes, resamples, seed))
    table = pd.DataFrame(list(rows), columns=["target", "metric", "support"])
    table = table.assign(model=model, dataset=dataset, split=split, value=value, low=low, high=high)
    return table[list(COLUMNS)]


def group_codes(groups: Iterable[object] | None, rows: int) -> np.ndarray:
    """Return an integer [N] from 0 that tells which rows are drawn together.

    `groups` holds one subject a row; a missing subject stands alone. None draws each row on its own.
    """
    codes, names = pd.factorize(pd.Series(np.arange(rows) if groups is None else groups))
    alone = codes < 0
    codes[alone] = len(names) + np.arange(alone.sum())
    return codes


def bootstrap(
    measure: Measure, codes: np.ndarray, resamples: int = 1000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return value, low, high and p of a weighted measure, each [...]: the plain value and its 95% interval.

    `p` tests that the value is 0, two-sided: twice the share of resamples on the rarer side of 0, which
    counts to both, with one added to either count (Davison and Hinkley 1997, section 4.2), so that it is
    never 0. With fewer than two groups, or without resamples, interval and p are NaN; undefined (NaN)
    resamples drop out.
    """
    value = measure(np.ones((1, len(codes))))[0]
    unknown = np.full_like(value, np.nan)
    if resamples == 0 or codes.max() < 1:
        return value, unknown, unknown, unknown
    values = np.concatenate([measure(weights) for weights in resample(codes, resamples, seed)])
    undefined = np.isnan(values).all(axis=0)
    low, high = np.nanpercentile(np.where(undefined, 0.0, values), [2.5, 97.5], axis=0)
    rarer = np.minimum((values <= 0).sum(axis=0), (values >= 0).sum(axis=0))
    p = np.minimum(1.0, 2 * (rarer + 1) / (len(values) + 1))
    return value, *(np.where(undefined, np.nan, result) for result in (low, high, p))


def difference(
    measure: Measure, codes: np.ndarray, support: int, resamples: int = 1000, seed: int = 0
) -> pd.Series:
    """Return value, low, high, p and support of a measure [R] that is the difference of two models."""
    names = ["value", "low", "high", "p", "support"]
    return pd.Series([*map(float, bootstrap(measure, codes, resamples, seed)), support], names)


def resample(codes: np.ndarray, resamples: int = 1000, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield chunks [r, N] of how often each row was drawn, `resamples` in all.

    Each resample draws as many groups as there are, with replacement, and takes all rows of a drawn group.
    """
    rng = np.random.default_rng(seed)
    groups = int(codes.max()) + 1
    step = max(1, _CHUNK_VALUES // len(codes))
    for start in range(0, resamples, step):
        r = min(step, resamples - start)
        drawn = rng.integers(groups, size=(r, groups)) + np.arange(r)[:, None] * groups
        counts = np.bincount(drawn.ravel(), minlength=r * groups).reshape(r, groups)
        yield counts[:, codes].astype(float)  # [r, N]


def ratio(part: np.ndarray, whole: np.ndarray, empty: float = 0.0) -> np.ndarray:
    """Return part / whole in percent; `empty` where the whole is zero."""
    return np.divide(100.0 * part, whole, out=np.full(np.shape(whole), empty), where=whole > 0)


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Return the mean [...] over the last axis of the values that are not NaN; NaN where none is."""
    defined = ~np.isnan(values)
    total, count = np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
