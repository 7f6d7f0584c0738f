"""Labels and scores of action units as checked arrays: what the metrics of action units start from."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable

import numpy as np
import pandas as pd

from ...errors import TableError


def au_columns(columns: Iterable[str]) -> list[str]:
    """Return the columns that name an AU (`AU1` ...), by number."""
    return sorted((c for c in columns if re.fullmatch(r"AU\d+", str(c))), key=lambda name: int(name[2:]))


def label_array(labels: pd.DataFrame, scored: Iterable[str]) -> tuple[np.ndarray, list[str]]:
    """Return labels [N, A] as 0, 1 or NaN, and the columns of the AUs with a label; warn of the others.

    Raises:
        TableError: a label is none of 0, 1 and missing, or no AU has one.
    """
    columns = au_columns(labels.columns)
    y = _numbers(labels, columns, "label")
    _check(labels, columns, np.isnan(y) | np.isin(y, (0, 1)), "label", "0, 1 or missing (unlabelled)")
    labelled = (~np.isnan(y)).any(axis=0)
    names = [c for c, kept in zip(columns, labelled, strict=True) if kept]
    if without := au_columns({*columns, *scored} - set(names)):
        warnings.warn(f"never labelled here and left out: {', '.join(without)}", stacklevel=3)
    if not names:
        raise TableError(
            "labels: no AU column has a label; expected columns AU1, AU2 ... with 0, 1 or missing"
        )
    return y[:, labelled], names


def score_array(scores: pd.DataFrame, index: pd.Index, columns: list[str]) -> np.ndarray:
    """Return scores [N, A] of `columns`.

    Raises:
        TableError: a column is missing, the rows are not those of `index`, or a score is no probability.
    """
    check_rows(scores, index, columns, "scores")
    p = _numbers(scores, columns, "score")
    _check(scores, columns, (p >= 0) & (p <= 1), "score", "a probability in [0, 1]")
    return p


def check_rows(table: pd.DataFrame, index: pd.Index, columns: list[str], kind: str) -> None:
    """Raise TableError where a table lacks a column of the labels, or has other rows."""
    if missing := [c for c in columns if c not in table.columns]:
        names = ", ".join(missing)
        raise TableError(
            f"{kind}: no column {names}, which the labels have; ask the model about these AUs, too"
        )
    if not table.index.equals(index):
        count = f"{len(table)} and {len(index)}"
        raise TableError(f"{kind} and labels have different rows ({count}); use {kind}.reindex(labels.index)")


def _numbers(table: pd.DataFrame, columns: list[str], kind: str) -> np.ndarray:
    values = np.empty((len(table), len(columns)))
    for k, name in enumerate(columns):
        try:
            values[:, k] = pd.to_numeric(table[name]).astype("Float64").to_numpy(float, na_value=np.nan)
        except (ValueError, TypeError) as error:
            raise TableError(
                f"{kind} column {name}: holds something that is not a number ({error})"
            ) from error
    return values


def _check(table: pd.DataFrame, columns: list[str], fine: np.ndarray, kind: str, expected: str) -> None:
    if not fine.all():
        row, k = np.argwhere(~fine)[0]
        found = f"{kind} in row {table.index[row]!r}, column {columns[k]} is {table[columns[k]].iloc[row]}"
        raise TableError(f"{found}; expected {expected} ({(~fine).sum()} such values in all)")
