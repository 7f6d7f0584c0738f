"""The face table: one row a face, whatever the data set.

Columns: `image` (path relative to the table's folder), `dataset`, `subject`, `frame`, `split` (train,
validation or test), one nullable column an AU (`AU12`: 1 present, 0 absent, missing where unlabelled) with
`AU12_intensity` beside it where known, `emotion` (a name of `facs.EMOTIONS`, several joined as in
`happiness+surprise`, or missing) and `labelled_by` (the program that labelled the row; missing where people
did). Further columns may follow, such as the box of the face in its image (`left`, `top`, `width`, `height`;
pixels). `table.attrs`, which Parquet keeps, holds lists about the whole table: `emotions` (further words that
the column emotion may hold) and `rows` (how many were read, dropped and kept).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ..errors import TableError
from ..facs import ACTION_UNITS, EMOTIONS
from ..files import inside, read_frame, save_table

AU_COLUMNS = tuple(unit.name for unit in ACTION_UNITS.values())
SPLITS = ("train", "validation", "test")
_REQUIRED = ("image", "dataset", "subject", "frame", "split")
_OPTIONAL = dict.fromkeys(AU_COLUMNS, "Int8") | {"emotion": "string", "labelled_by": "string"}


def check_table(table: pd.DataFrame, source: str = "face table") -> pd.DataFrame:
    """Return a copy of the table with every column present and typed.

    Raises:
        TableError: a column is missing, a value is not allowed (the message names column, row counted from 0,
            and value), or a subject is in more than one split.
    """
    if missing := [column for column in _REQUIRED if column not in table]:
        raise TableError(
            f"{source}: columns {missing} are missing; expected {list(_REQUIRED)}, and AUs or emotion"
        )
    table = table.assign(**{column: pd.NA for column in _OPTIONAL if column not in table})
    for column in _REQUIRED:
        _refuse(table, column, table[column].isna(), "a value, which every face needs", source)
    for column in AU_COLUMNS:
        wrong = table[column].notna() & ~table[column].isin((0, 1))
        _refuse(table, column, wrong, "0, 1 or nothing", source)
    table = table.astype(_OPTIONAL)
    words = [*EMOTIONS, *table.attrs.get("emotions", ())]
    wrong = [value for value in table["emotion"].dropna().unique() if not set(value.split("+")) <= set(words)]
    _refuse(table, "emotion", table["emotion"].isin(wrong), f"one of {words}, several joined by +", source)
    _refuse(table, "split", ~table["split"].isin(SPLITS), f"one of {list(SPLITS)}", source)
    splits = table.groupby(["dataset", "subject"])["split"].nunique()
    for dataset, subject in splits.index[splits > 1]:
        raise TableError(f"{source}: subject {subject!r} of {dataset} is in several splits; expected one")
    return table


def _refuse(table: pd.DataFrame, column: str, bad: pd.Series, expected: str, source: str) -> None:
    if bad.any():
        row = int(bad.to_numpy().argmax())
        value = table[column].tolist()[row]
        raise TableError(f"{source}: row {row}, column {column}: found {value!r}, expected {expected}")


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """Check the face table and write it as Parquet, atomically."""
    save_table(check_table(table, str(path)), path)


def read_table(path: str | Path, root: str | Path | None = None) -> pd.DataFrame:
    """Read a face table, Parquet or .csv; its image paths come back absolute.

    Args:
        root: the folder that the images are relative to (default: the table's own).

    Raises:
        TableError: the file cannot be read, breaks a rule, or names an image outside of root.
    """
    path = Path(path)
    text = dict.fromkeys((*_REQUIRED, "emotion", "labelled_by"), "string")  # 007 is a subject, not a number
    table = read_frame(path, "face table", text)
    spelled = {name.lower(): name for name in (*_REQUIRED, *_OPTIONAL)}
    table = check_table(table.rename(columns=lambda name: spelled.get(str(name).lower(), name)), str(path))
    root = Path(root or path.parent).resolve()
    images = pd.Series(inside(root, table["image"]), table.index)
    _refuse(table, "image", images.isna(), f"a path below {root}", str(path))
    return table.assign(image=images)


def concat_tables(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Put face tables below each other, and join the lists in their `attrs`."""
    whole = pd.concat(tables, ignore_index=True)
    whole.attrs = {}
    for key in ("emotions", "rows"):
        if values := [value for table in tables for value in table.attrs.get(key, ())]:
            whole.attrs[key] = list(dict.fromkeys(values))
    return check_table(whole)


def au_labels(row: Mapping) -> dict[int, int]:
    """Return the labelled AUs of one row: AU number to 1 or 0."""
    return {n: int(row[unit.name]) for n, unit in ACTION_UNITS.items() if pd.notna(row[unit.name])}


def labelled_aus(table: pd.DataFrame) -> list[int]:
    """Return the numbers of the AUs that are labelled in at least one row."""
    return [n for n, unit in ACTION_UNITS.items() if table[unit.name].notna().any()]
