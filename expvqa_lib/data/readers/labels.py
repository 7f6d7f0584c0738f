"""Face tables from labels of one's own, in CSV or Parquet.

A column is found by its name, whatever its case and the blanks around it. A cell that is empty (or NaN, NA, null, none) is unlabelled;
so is one that cannot be read, which is counted as a problem with file, row and column. No such cell ever makes an AU absent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from ...errors import SettingsError, TableError
from ...facs import ACTION_UNITS, EMOTIONS
from ...files import inside
from .. import splits
from ..table import SPLITS
from .log import LISTED, Log, Reading, unrepeated
from .textfiles import header, read_csv

Files = str | Path | Sequence[str | Path]

_WORDS = {name: name for name in EMOTIONS} | {
    emotion.adjective: emotion.name for emotion in EMOTIONS.values()
}
NOTHING = ("", "nan", "na", "null", "none")
AU = r"au[ _-]?0*(\d{1,3})"
_OPTIONAL = {name: name for name in ("subject", "split", "frame", "emotion", "dataset")}


class OwnLog(Log):
    """Images are looked for where the labels say, so the folder, which may be anybody's home, need not be walked through."""

    def _walk(self):
        return ()


def read_own(
    root: str | Path,
    labels: Files,
    *,
    dataset: str = "own",
    image: str = "image",
    subject: str = "subject",
    threshold: float | None = None,
    emotions: Sequence[str] = (),
    shares: tuple[float, float] = (0.1, 0.1),
    seed: int = 42,
    split_file: str | Path | None = None,
) -> Reading:
    """Read a CSV or Parquet table with a line a face.

    Columns: the image's path below `root`; AUs (`AU1`, `AU01`, `au_1`: 1 present, 0 absent, empty where unlabelled) and, where known, their
    intensities (`AU1_intensity`, `AU01_r`); and if there are such, `subject`, `split` (train, validation, test), `frame`, `emotion` (a name
    or adjective of `facs.EMOTIONS`, several joined by `+`) and `dataset`.

    Args:
        labels: the file, or several with the same columns.
        dataset: its name, where there is no such column.
        image, subject: names of these columns; without a column of subjects, each image is a subject of its own.
        threshold: the AU columns hold intensities, which are present from here on; an AU with an intensity alone follows it too.
        emotions: further words that `emotion` may hold.
        shares: of the subjects that are drawn for validation and test, where there is no column `split`.
        seed: for the draw.
        split_file: a split kept by `splits.write`, which then counts alone.

    Raises:
        TableError: a file cannot be read, lacks a column, or nothing usable is left; the message names it.
        SettingsError: the shares leave nothing for training.
    """
    log = OwnLog(dataset, root)
    rows = cells(
        log,
        labels,
        {"image": re.escape(image)} | _OPTIONAL | {"subject": re.escape(subject)},
        AU,
        AU + r"[ _-]?(?:r|intensity)",
    )
    mark_presence(log, rows, threshold, threshold)
    if "emotion" in rows:
        name_emotions(log, rows, emotions)
    return to_reading(log, rows, None, shares, seed, split_file, emotions)


# ---------------------------------------------------------------------------------------------------------- the columns


def cells(
    log: Log,
    labels: Files,
    roles: Mapping[str, str],
    present: str,
    intensity: str = "(?!)",
    needed: Sequence[str] = ("image",),
):
    """Return the rows of all files as text, with the columns that are known, by their names here: `roles`, `AU12`, `AU12_intensity`."""
    files = [labels] if isinstance(labels, (str, Path)) else list(labels)
    if not files:
        raise SettingsError("no label files are given")
    parts = []
    for file in map(os.path.abspath, files):
        parquet = file.lower().endswith((".parquet", ".pq"))
        names = _parquet_names(file) if parquet else header(log, file)
        chosen = _chosen(file, names, roles, present, intensity)
        if lacking := [role for role in needed if role not in chosen.values()]:
            expected = ", ".join(f"{role} ({roles[role]})" for role in lacking)
            raise TableError(
                f"{file}: row 1: found columns {', '.join(names)[:200]}, expected also {expected}"
            )
        if not any(name.startswith("AU") or name in ("emotion", *EMOTIONS) for name in chosen.values()):
            raise TableError(
                f"{file}: row 1: found columns {', '.join(names)[:200]}, expected an AU, `AU12` say, or emotion"
            )
        table, bad = (
            (_parquet_cells(file, list(chosen)), [])
            if parquet
            else read_csv(log, file, wanted=chosen, quote='"')
        )
        log.malformed(file, bad, f"{len(names)} cells")
        log.read += len(table)
        parts.append(table.to_pandas().astype(dict.fromkeys(chosen, object)).rename(columns=chosen))
    rows = pd.concat(parts, ignore_index=True)
    texts = rows.columns.difference(["file", "line"])
    return rows.assign(**{name: rows[name].where(rows[name].notna(), "") for name in texts})


def _chosen(
    file: str, names: Sequence[str], roles: Mapping[str, str], present: str, intensity: str
) -> dict[str, str]:
    """Map the columns that are known to their names here."""
    chosen: dict[str, str] = {}
    for name in names:
        plain = name.strip()
        role = next(
            (role for role, pattern in roles.items() if re.fullmatch(pattern, plain, re.IGNORECASE)), None
        )
        for pattern, ending in ((present, ""), (intensity, "_intensity")):
            if (found := re.fullmatch(pattern, plain, re.IGNORECASE)) and int(found[1]) in ACTION_UNITS:
                role = f"AU{int(found[1])}{ending}"
        if role in chosen.values():
            raise TableError(f"{file}: row 1: column {name!r} is {role}, as is another; keep one of them")
        if role:
            chosen[name] = role
    return chosen


def _parquet_names(file: str) -> list[str]:
    try:
        return pa.parquet.read_schema(file).names
    except Exception as error:  # Arrow meets damage with a dozen kinds of exceptions
        raise TableError(f"{file}: not a readable Parquet table ({error})") from error


def _parquet_cells(file: str, names: list[str]) -> pa.Table:
    try:
        table = pa.parquet.read_table(file, columns=names)
        texts = {name: table[name].cast(pa.string()) for name in names}
    except Exception as error:
        raise TableError(
            f"{file}: columns {', '.join(names)[:200]} are not readable as text or numbers ({error})"
        ) from error
    return pa.table(
        texts | {"file": pa.repeat(file, len(table)), "line": pa.array(np.arange(len(table)) + 1)}
    )


def numbers(log: Log, rows: pd.DataFrame, column: str, most: float = np.inf) -> pd.Series:
    """A column's numbers from 0 to `most`; NaN where it is empty, and with a problem where it holds something else."""
    text = rows[column].str.strip().str.lower().replace({"true": "1", "false": "0"})
    values = pd.to_numeric(text, errors="coerce").astype(float)
    good = np.isfinite(values) & (values >= 0) & (values <= most)
    _unread(
        log,
        rows,
        column,
        ~good & ~text.isin(NOTHING),
        f"a number from 0 to {most:g}" if most < np.inf else "a number from 0",
    )
    return values.where(good)


def _unread(log: Log, rows: pd.DataFrame, column: str, bad: pd.Series, expected: str) -> None:
    places = [
        f"{row['file']}, row {row['line']}, column {column}: found {row[column][:60]!r}, expected {expected}"
        for row in rows[bad][:LISTED].to_dict("records")
    ]
    if places:
        log.problem("label that cannot be read, left unlabelled", places, int(bad.sum()))


def mark_presence(
    log: Log,
    rows: pd.DataFrame,
    threshold: float | None,
    intensity: float | None,
    *,
    most: float = np.inf,
    by_intensity: bool = False,
) -> None:
    """Turn the text of AUs and intensities into numbers (in place): present from `threshold` on, or as 1 and 0 say; or by intensity."""
    for unit in ACTION_UNITS.values():
        name, strength = unit.name, f"{unit.name}_intensity"
        if strength in rows:
            rows[strength] = numbers(log, rows, strength)
        if strength in rows and intensity is not None and (by_intensity or name not in rows):
            rows[name] = (rows[strength] >= intensity).astype(float).where(rows[strength].notna())
        elif name in rows and threshold is not None:
            values = numbers(log, rows, name, most)
            rows[name] = (values >= threshold).astype(float).where(values.notna())
        elif name in rows:
            values = numbers(log, rows, name)
            _unread(log, rows, name, values.notna() & ~values.isin([0, 1]), "1, 0 or nothing")
            rows[name] = values.where(values.isin([0, 1]))


def name_emotions(log: Log, rows: pd.DataFrame, further: Sequence[str]) -> None:
    """Turn the words for emotions into names (in place); one that is not known leaves the face without."""
    known = _WORDS | {word.lower(): word for word in further}
    words = (
        rows["emotion"]
        .str.lower()
        .str.split("+")
        .map(lambda parts: [known.get(part.strip()) for part in parts])
    )
    good = words.map(all)
    _unread(
        log,
        rows,
        "emotion",
        ~good & ~rows["emotion"].str.lower().isin(NOTHING),
        f"of {', '.join([*EMOTIONS, *further])}",
    )
    rows["emotion"] = words.where(good).str.join("+").astype(object)


# -------------------------------------------------------------------------------------------------------------- the table


def to_reading(
    log: Log,
    rows: pd.DataFrame,
    labelled_by: str | None,
    shares: tuple[float, float],
    seed: int,
    split_file: str | Path | None,
    emotions: Sequence[str] = (),
) -> Reading:
    """Find the images, drop what cannot be used, and give the rest subjects and a split."""
    rows = log.drop(rows, rows["image"].str.strip() == "", "image not named")
    places = pd.Series(inside(log.root, rows["image"]), rows.index, dtype=object)
    rows = log.drop(rows, places.isna(), "image path that leads out of the folder", "image")
    there = {
        place: place[len(str(log.root)) :].lstrip(os.sep)
        for place in places.dropna().unique()
        if os.path.isfile(place)
    }
    rows = rows.assign(wanted=rows["image"], image=places[rows.index].map(there))
    rows = log.drop(rows, rows["image"].isna(), "image missing", "wanted")
    labels = [c for c in rows if c in _OPTIONAL or c.startswith("AU")]
    if labelled_by:
        rows = log.drop(rows, rows.duplicated([*labels, "image"]), "repeated row", "image")
        rows = log.drop(rows, rows.duplicated("image", keep=False), "several faces in the image", "image")
    else:
        rows = unrepeated(log, rows, ["image"], labels)
    told = [c for c in rows if re.fullmatch(r"AU\d+|emotion", c)]
    rows = log.drop(rows, rows[told].isna().all(axis=1), "nothing labelled")
    own = "subject" not in rows
    rows = rows.assign(subject=rows["image"] if own else rows["subject"], labelled_by=labelled_by)
    rows = log.drop(rows, rows["subject"] == "", "subject not named", "image")
    if "frame" not in rows:
        rows = rows.assign(frame="0" if own else rows["image"])
    if "dataset" in rows:
        rows = rows.assign(dataset=rows["dataset"].replace("", log.dataset))
    if split_file:
        rows, _ = splits.assign(log, rows, seed, file=split_file)
    elif "split" in rows:
        rows = log.drop(
            rows, ~rows["split"].isin(SPLITS), "split that is not train, validation or test", "split"
        )
    else:
        rows = rows.assign(split=_drawn(log, rows["subject"], shares, seed))
    if labelled_by:
        log.note(f"labels: pseudo-labels by {labelled_by}")
    return log.reading(rows, rows.drop_duplicates("subject").set_index("subject")["split"], emotions)


def _drawn(log: Log, subjects: pd.Series, shares: tuple[float, float], seed: int) -> pd.Series:
    """Draw the shares of the subjects for validation and test."""
    if min(shares) < 0 or sum(shares) >= 1:
        raise SettingsError(
            f"validation={shares[0]}, test={shares[1]}: expected shares from 0 that leave some for training"
        )
    names = np.random.default_rng(seed).permutation(np.sort(subjects.unique().astype(str)))
    count = [round(share * len(names)) for share in shares]
    drawn = pd.Series(
        np.repeat(["validation", "test", "train"], [*count, len(names) - sum(count)]), names, dtype=object
    )
    log.note(
        f"split: {count[0]} of {len(names)} subjects for validation and {count[1]} for the test, drawn with seed {seed}"
    )
    return subjects.map(drawn)
