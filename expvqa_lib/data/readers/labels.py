"""Face tables from labels of one's own, in CSV or Parquet.

A column is found by its name, whatever its case and the blanks around it. A cell that is empty (or NaN, NA,
null, none) is unlabelled; so is one that cannot be read, which is counted as a problem with file, row and
column. No such cell ever makes an AU absent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ...errors import TableError
from ...facs import ACTION_UNITS, EMOTIONS
from ...files import inside
from ..table import SPLITS
from .log import UNLABELLED, Reading, match_columns
from .splits import assign_splits, split_by_name

Files = str | Path | Sequence[str | Path]

NOTHING = ("", "nan", "na", "null", "none")
AU = r"au[ _-]?0*(\d{1,3})"
_WORDS = {name: name for name in EMOTIONS} | {e.adjective: e.name for e in EMOTIONS.values()}
_COLUMNS = {name: name for name in ("image", "subject", "split", "frame", "emotion", "dataset")} | {
    "AU": AU,
    "intensity": AU + r"[ _-]?(?:r|intensity)",
}


def read_own(root: str | Path, labels: Files, split_file: str | Path | None = None) -> Reading:
    """Read a CSV or Parquet table with a line a face.

    Columns: the image's path below `root`; AUs (`AU1`, `AU01`, `au_1`: 1 present, 0 absent, empty where
    unlabelled) and, where known, their intensities (`AU1_intensity`, `AU01_r`); and if there are such,
    `subject`, `split` (train, validation, test), `frame`, `emotion` (a name or adjective of `facs.EMOTIONS`,
    several joined by `+`) and `dataset`. Without a column of subjects, each image is a subject of its own;
    without one of splits, a hash of the subject's name decides (`splits.split_by_name`).

    Args:
        labels: the file, or several with the same columns.
        split_file: a split written by `splits.write_split`, followed instead.

    Raises:
        TableError: a file cannot be read, lacks a column, or nothing usable is left; the message names it.
    """
    reading = Reading("own", root)
    rows = read_label_files(reading, labels, _COLUMNS)
    label_aus(reading, rows)
    if "emotion" in rows:
        name_emotions(reading, rows)
    return labelled_images(reading, rows, split_file)


def read_label_files(reading: Reading, labels: Files, patterns: Mapping[str, str]) -> pd.DataFrame:
    """Return the rows of all label files as text, in the columns that `match_columns` finds."""
    parts = []
    for file in map(os.path.abspath, [labels] if isinstance(labels, (str, Path)) else labels):
        if file.lower().endswith((".parquet", ".pq")):
            parts.append(_read_parquet(reading, file, patterns))
        else:
            parts.append(reading.read_csv(file, patterns))
    return pd.concat(parts, ignore_index=True).fillna("")


def _read_parquet(reading: Reading, file: str, patterns: Mapping[str, str]) -> pd.DataFrame:
    try:
        table = pd.read_parquet(file)
    except Exception as error:  # Arrow meets damage with a dozen kinds of exceptions
        raise TableError(f"{file}: not a readable Parquet table ({error})") from error
    columns = match_columns(file, list(table), patterns)
    reading.read += len(table)
    table = table[list(columns)].rename(columns=columns).astype("str")
    return table.assign(file=file, line=np.arange(len(table)) + 1)


def read_numbers(
    reading: Reading, rows: pd.DataFrame, column: str, most: float = np.inf, *, whole: bool = False
) -> pd.Series:
    """A column's numbers from 0 to `most` (`whole`: 0 and 1 alone); NaN where empty, or not such a number."""
    text = rows[column].str.strip().str.lower().replace({"true": "1", "false": "0"})
    values = pd.to_numeric(text, errors="coerce").astype(float)
    good = values.isin([0, 1]) if whole else np.isfinite(values) & values.between(0, most)
    expected = "1, 0 or nothing" if whole else f"a number from 0 to {most:g}"
    reading.problem(UNLABELLED, rows[~good & ~text.isin(NOTHING)], column, expected)
    return values.where(good)


def label_aus(
    reading: Reading, rows: pd.DataFrame, probability: float | None = None, intensity: float | None = None
) -> None:
    """Turn the text of AUs and intensities into numbers, in place.

    Args:
        probability: AU columns hold probabilities; an AU is present from this one on.
        intensity: an AU with an intensity alone is present from this one on.
    """
    for unit in ACTION_UNITS.values():
        name, strength = unit.name, f"{unit.name}_intensity"
        if strength in rows:
            rows[strength] = read_numbers(reading, rows, strength)
        if name in rows and probability is None:
            rows[name] = read_numbers(reading, rows, name, whole=True)
        elif name in rows:
            values = read_numbers(reading, rows, name, 1)
            rows[name] = (values >= probability).astype(float).where(values.notna())
        elif strength in rows and intensity is not None:
            rows[name] = (rows[strength] >= intensity).astype(float).where(rows[strength].notna())


def name_emotions(reading: Reading, rows: pd.DataFrame) -> None:
    """Turn the words for emotions into names, in place; an unknown word leaves the face unlabelled."""
    words = rows["emotion"].str.lower().str.split("+")
    names = words.map(lambda parts: [_WORDS.get(word.strip()) for word in parts])
    good = names.map(all)
    unknown = ~good & ~rows["emotion"].str.lower().isin(NOTHING)
    reading.problem(UNLABELLED, rows[unknown], "emotion", f"one of {', '.join(EMOTIONS)}")
    rows["emotion"] = names.where(good).str.join("+").astype(object)


def labelled_images(
    reading: Reading, rows: pd.DataFrame, split_file: str | Path | None, labelled_by: str | None = None
) -> Reading:
    """Find the images, drop what cannot be used, and give the rest subjects and a split."""
    rows = reading.drop(rows, rows["image"].str.strip() == "", "image not named")
    places = pd.Series(inside(reading.root, rows["image"]), rows.index, dtype=object)
    rows = reading.drop(rows, places.isna(), "image path that leads out of the folder", "image")
    images = {
        place: os.path.relpath(place, reading.root) for place in set(places.dropna()) if os.path.isfile(place)
    }
    rows = rows.assign(wanted=rows["image"], image=places[rows.index].map(images))
    rows = reading.drop(rows, rows["image"].isna(), "image missing", "wanted")
    labels = [column for column in rows if column in _COLUMNS or column.startswith("AU")]
    if labelled_by:
        rows = reading.drop(rows, rows.duplicated(labels), "repeated row", "image")
        rows = reading.drop(rows, rows.duplicated("image", keep=False), "several faces in the image", "image")
    else:
        rows = reading.drop_repeated(rows, ["image"], labels)
    aus = [column for column in rows if re.fullmatch(r"AU\d+|emotion", column)]
    rows = reading.drop(rows, rows[aus].isna().all(axis=1), "nothing labelled")
    no_subject = "subject" not in rows
    rows = rows.assign(subject=rows["image"] if no_subject else rows["subject"], labelled_by=labelled_by)
    rows = reading.drop(rows, rows["subject"] == "", "subject not named", "image")
    if "frame" not in rows:
        rows = rows.assign(frame="0" if no_subject else rows["image"])
    if "dataset" in rows:
        rows = rows.assign(dataset=rows["dataset"].replace("", reading.dataset))
    if split_file:
        rows, _ = assign_splits(reading, rows, file=split_file)
    elif "split" in rows:
        rows = reading.drop(rows, ~rows["split"].isin(SPLITS), "split that is none of the three", "split")
    else:
        rows = rows.assign(split=split_by_name(reading, rows["subject"]))
    return reading.finish(rows, rows.drop_duplicates("subject").set_index("subject")["split"])
