"""Labels and scores of action units as checked arrays: what every metric of this package starts from."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from ...errors import TableError


def au_columns(columns: Iterable[str]) -> list[str]:
    """Return the columns that name an AU (`AU1` ...), by number."""
    return sorted((c for c in columns if re.fullmatch(r"AU\d+", str(c))), key=lambda name: int(name[2:]))


def label_array(labels: pd.DataFrame, scored: Iterable[str]) -> tuple[np.ndarray, list[str]]:
    """Return labels [N, A] as 0, 1 or NaN, and the columns of the AUs that have a label; a warning names the others.

    Raises:
        TableError: a label is none of 0, 1 and missing, or no AU has one.
    """
    columns = au_columns(labels.columns)
    y = (
        np.column_stack([_floats(labels[c], "label") for c in columns])
        if columns
        else np.empty((len(labels), 0))
    )
    _check(
        np.isnan(y) | np.isin(y, (0, 1)), labels.index, columns, y, "label", "0, 1 or missing (unlabelled)"
    )
    has_label = (~np.isnan(y)).any(axis=0)
    known = [c for c, kept in zip(columns, has_label, strict=True) if kept]
    without = au_columns({*columns, *scored} - set(known))
    if without:
        warnings.warn(f"never labelled here and left out: {', '.join(without)}", stacklevel=3)
    if not known:
        raise TableError(
            "labels: no AU column has a label; expected columns named AU1, AU2 ... with 0, 1 or missing values"
        )
    return y[:, has_label], known


def score_array(scores: pd.DataFrame, index: pd.Index, columns: list[str]) -> np.ndarray:
    """Return scores [N, A] of `columns`.

    Raises:
        TableError: a column is missing, the rows are not those of `index`, or a score is no probability.
    """
    missing = [c for c in columns if c not in scores.columns]
    if missing:
        raise TableError(
            f"scores: no column {', '.join(missing)}, which the labels have; ask the model about these AUs, too"
        )
    if not scores.index.equals(index):
        raise TableError(
            f"scores and labels have different rows ({len(scores)} and {len(index)}); use scores.reindex(labels.index)"
        )
    p = np.column_stack([_floats(scores[c], "score") for c in columns])
    _check((p >= 0) & (p <= 1), index, columns, p, "score", "a probability in [0, 1]")
    return p


def _floats(column: pd.Series, kind: str) -> np.ndarray:
    try:
        return pd.to_numeric(column).astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    except (ValueError, TypeError) as error:
        raise TableError(
            f"{kind} column {column.name}: holds something that is not a number ({error})"
        ) from error


def _check(
    fine: np.ndarray, index: pd.Index, columns: Sequence[str], values: np.ndarray, kind: str, expected: str
) -> None:
    if not fine.all():
        row, column = np.argwhere(~fine)[0]
        raise TableError(
            f"{kind} in row {index[row]!r}, column {columns[column]} is {values[row, column]:g}; expected {expected} "
            f"({(~fine).sum()} such values in all)"
        )
