"""The face table: one row a face, whatever the data set.

Columns: `image` (path, relative to the table's folder), `dataset`, `subject`, `frame`, `split` (train, validation or test), one nullable
column an AU (`AU12`: 1 present, 0 absent, missing where unlabelled) with `AU12_intensity` beside it where known, `emotion` (a name of
`facs.EMOTIONS`, several joined as in `happiness+surprise`, or missing), and `labelled_by` (the program that labelled the row; missing
where people did). Further columns may follow. `table.attrs` keeps what is true of the whole table, also on disk: its `emotions` lists
words that the column may hold besides the names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ..errors import TableError
from ..facs import ACTION_UNITS, EMOTIONS
from ..files import atomic, inside

AU_COLUMNS = tuple(unit.name for unit in ACTION_UNITS.values())
SPLITS = ("train", "validation", "test")
_REQUIRED = ("image", "dataset", "subject", "frame", "split")


def check(table: pd.DataFrame, source: str = "face table") -> pd.DataFrame:
    """Return the table with every column present and typed.

    Raises:
        TableError: a column is missing or a value is not allowed; the message names the column, the first row (from 0) and the value. Also
            where a subject stands in more than one split.
    """
    if missing := [c for c in _REQUIRED if c not in table]:
        raise TableError(
            f"{source}: columns {missing} are missing; a face table needs {list(_REQUIRED)} and AU columns or emotion"
        )
    table = table.copy()
    for column in _REQUIRED:
        if (absent := table[column].isna().to_numpy()).any():
            raise TableError(
                f"{source}: row {absent.argmax()}, column {column}: missing; every face needs it"
            )
    for column in AU_COLUMNS:
        if column in table:
            _allowed(table, column, (0, 1), source)
        table[column] = (
            table[column].astype("Int8") if column in table else pd.Series(pd.NA, table.index, "Int8")
        )
    for column in ("emotion", "labelled_by"):
        table[column] = (
            table[column].astype("string") if column in table else pd.Series(pd.NA, table.index, "string")
        )
    known = (*EMOTIONS, *table.attrs.get("emotions", ()))
    wrong = [value for value in table["emotion"].dropna().unique() if not set(value.split("+")) <= set(known)]
    _allowed(table, "emotion", known, source, table["emotion"].isin(wrong))
    _allowed(table, "split", SPLITS, source)
    shared = table.groupby(["dataset", "subject"])["split"].nunique()
    if len(shared := shared[shared > 1]):
        raise TableError(
            f"{source}: subject {shared.index[0][1]!r} of {shared.index[0][0]} stands in several splits; each belongs to one"
        )
    return table


def _allowed(
    table: pd.DataFrame, column: str, allowed: tuple, source: str, bad: pd.Series | None = None
) -> None:
    bad = (table[column].notna() & ~table[column].isin(allowed) if bad is None else bad).to_numpy()
    if bad.any():
        row = int(bad.argmax())
        found = table[column].tolist()[row]
        raise TableError(
            f"{source}: row {row}, column {column}: found {found!r}, expected one of {list(allowed)}"
        )


def write(table: pd.DataFrame, path: str | Path) -> None:
    """Check the table and write it as Parquet, atomically."""
    table = check(table, str(path))
    with atomic(path) as temporary:
        table.to_parquet(temporary, index=False)


def read(path: str | Path, root: str | Path | None = None) -> pd.DataFrame:
    """Read a face table, Parquet or .csv; its image paths come back resolved under `root` (default: the table's own folder).

    Raises:
        TableError: no readable table is there, it breaks a rule of `check`, or an image path leads out of the folder.
    """
    path = Path(path)
    try:
        text = dict.fromkeys(
            (*_REQUIRED, "emotion", "labelled_by"), "string"
        )  # 007 is a subject, not a number
        table = pd.read_csv(path, dtype=text) if path.suffix == ".csv" else pd.read_parquet(path)
    except Exception as error:
        raise TableError(f"{path}: not a readable Parquet face table, or .csv ({error})") from error
    table = check(table, str(path))
    root = Path(root or path.parent).resolve()
    images = inside(root, table["image"])
    if None in images:
        row = images.index(None)
        raise TableError(
            f"{path}: row {row}: image {table['image'].iat[row]!r} lies outside {root}, or is no path"
        )
    table["image"] = images
    return table


def concat(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Put tables below each other and keep what their `attrs` say: lists are joined, of other values the first table's counts."""
    attrs: dict = {}
    for table in tables:
        for key, value in table.attrs.items():
            attrs[key] = (
                list(dict.fromkeys([*attrs.get(key, ()), *value]))
                if isinstance(value, list)
                else attrs.get(key, value)
            )
    whole = pd.concat(tables, ignore_index=True)
    whole.attrs = attrs
    return check(whole)


def emotions(row: Mapping) -> tuple[str, ...]:
    """Return the emotions of one row: one, several where it is compound, none where it is not labelled."""
    return () if pd.isna(row["emotion"]) else tuple(row["emotion"].split("+"))


def au_labels(row: Mapping) -> dict[int, int]:
    """Return the labelled AUs of one row: number to 1 or 0."""
    return {n: int(row[unit.name]) for n, unit in ACTION_UNITS.items() if pd.notna(row[unit.name])}


def labelled_aus(table: pd.DataFrame) -> list[int]:
    """Return the numbers of the AUs that are labelled in at least one row."""
    return [n for n, unit in ACTION_UNITS.items() if table[unit.name].notna().any()]
