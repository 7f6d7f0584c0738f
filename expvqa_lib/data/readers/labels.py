"""Face tables from label files: people's own, and those of OpenFace 2, Py-Feat and LibreFace.

A column is found by its name, whatever its case and the blanks around it. A cell that is empty (or NaN, NA,
null, none) is unlabelled; so is one that cannot be read, which is a problem with file, row and column. No
such cell ever makes an AU absent.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ...errors import TableError
from ...facs import EMOTIONS
from ...files import inside
from ..table import AU_COLUMNS
from .reading import UNLABELLED, Reading
from .splits import assign_splits

Files = str | Path | Sequence[str | Path]

_AU = r"au[ _-]?0*(\d{1,3})"
_NOTHING = ("", "nan", "na", "null", "none")
_WORDS = {name: name for name in EMOTIONS} | {e.adjective: e.name for e in EMOTIONS.values()}
_PYFEAT_EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")


@dataclass(frozen=True)
class Source:
    """The columns of a kind of label files, and which of their values count."""

    columns: Mapping[str, str]  # patterns of `reading.match_columns`
    frames: str = ""  # where a video's frames are, if the column of images holds their numbers
    confidence: float = 0  # faces below it are dropped
    probability: float | None = None  # AUs and emotions are present from this probability on
    intensity: float | None = None  # an AU that has an intensity alone is present from here on


SOURCES = {
    "own": Source(
        {name: name for name in ("image", "subject", "split", "frame", "emotion", "dataset")}
        | {"AU": _AU, "intensity": _AU + r"[ _-]?(?:r|intensity)"}
    ),
    "OpenFace": Source(
        {"image": "frame", "confidence": "confidence", "AU": r"au(\d\d)_c", "intensity": r"au(\d\d)_r"},
        frames="{name}_aligned/frame_det_00_{frame:06d}.bmp",
        confidence=0.8,
    ),
    "Py-Feat": Source(
        {"image": "input", "confidence": "facescore", "AU": _AU} | {name: name for name in _PYFEAT_EMOTIONS},
        confidence=0.9,
        probability=0.5,
    ),
    "LibreFace": Source(
        {"image": "input_image_path|aligned_frame_path", "emotion": "facial_expression"}
        | {"AU": r"au_(\d+)", "intensity": r"au_(\d+)_intensity"},
        intensity=2.0,  # as is usual for DISFA, from which LibreFace learnt them
    ),
}


def read_labels(name: str, root: str | Path, labels: Files, split_file: str | Path | None = None) -> Reading:
    """Read labels of images below `root`: people's own, or a program's, which `labelled_by` then names.

    - own: `image` (its path below root); AUs (`AU1`, `AU01`, `au_1`: 1 present, 0 absent, empty where
      unlabelled), intensities (`AU1_intensity`, `AU01_r`); and if there are such, `subject`, `split` (train,
      validation, test), `frame`, `emotion` (a name or adjective of `facs.EMOTIONS`, several joined by `+`)
      and `dataset`.
    - OpenFace, a file a video by FeatureExtraction: `frame`, `confidence` (faces below 0.8 are dropped),
      `AU01_c` (0 or 1), `AU01_r` (intensity). Images are the aligned faces that it writes,
      `{name}_aligned/frame_det_00_{frame:06d}.bmp` below root; the file's name is the subject.
    - Py-Feat (`Fex.to_csv`): `input` (the image), `FaceScore` (faces below 0.9 are dropped), and
      probabilities: of AUs, `AU01`, present from 0.5 on, and of seven emotions, of which the likeliest is
      taken from 0.5 on.
    - LibreFace, a file an image or video: the image's path, `au_1` (0 or 1), `au_1_intensity` (0 to 5; an AU
      that has an intensity alone is present from 2 on) and `facial_expression`.

    An image with several faces is dropped. Without subjects, each image is a subject of its own; without
    splits, a hash of the subject's name decides (`reading.assign_splits`).

    Args:
        name: a key of `SOURCES`.
        labels: the file, or several.
        split_file: a split that was written beside a table, followed instead.

    Raises:
        TableError: a file cannot be read, lacks a column, or nothing usable is left; the message names it.
    """
    source, reading = SOURCES[name], Reading(name, root, split_file)
    labels = [labels] if isinstance(labels, (str, Path)) else labels
    tables = (_read_file(reading, os.path.abspath(file), source.columns) for file in labels)
    rows = pd.concat(tables, ignore_index=True).fillna("")
    rows = reading.drop(rows, rows["image"].str.lower().isin(_NOTHING), "no face, or image not named")
    if "confidence" in rows:
        confidence = _numbers(reading, rows, "confidence", 1)
        rows = reading.drop(rows, confidence.isna(), "no face, or image not named")
        rows = reading.drop(rows, confidence[rows.index] < source.confidence, "confidence too low")
    if source.frames:
        rows = reading.drop(rows, ~rows["image"].str.fullmatch("[0-9]{1,9}"), "malformed row", "image")
        rows = rows.assign(frame=rows["image"], subject=rows["file"].map(lambda file: Path(file).stem))
        frames = zip(rows["subject"], rows["frame"].astype(int), strict=True)
        rows["image"] = [source.frames.format(name=video, frame=number) for video, number in frames]
    _label_aus(reading, rows, source)
    if "emotion" in rows:
        _name_emotions(reading, rows)
    elif "happiness" in rows:
        chances = {word: _numbers(reading, rows, word, 1) for word in _PYFEAT_EMOTIONS if word in rows}
        chances = pd.DataFrame(chances).fillna(-1.0)
        rows["emotion"] = chances.idxmax(axis=1).where(chances.max(axis=1) >= source.probability)
    return _finish(reading, rows.assign(labelled_by=None if name == "own" else name))


def _read_file(reading: Reading, file: str, patterns: Mapping[str, str]) -> pd.DataFrame:
    if not file.lower().endswith((".parquet", ".pq")):
        return reading.read_csv(file, patterns)
    try:
        table = pd.read_parquet(file)
    except Exception as error:  # Arrow meets damage with a dozen kinds of exceptions
        raise TableError(f"{file}: not a readable Parquet table ({error})") from error
    columns = reading.columns(file, list(table), patterns)
    reading.read += len(table)
    table = table[list(columns)].rename(columns=columns).astype("string")
    return table.assign(file=file, line=np.arange(len(table)) + 1)


def _numbers(
    reading: Reading, rows: pd.DataFrame, column: str, most: float = np.inf, *, whole: bool = False
) -> pd.Series:
    """A column's numbers from 0 to `most` (`whole`: 0 and 1 alone); NaN where empty, or not such a number."""
    text = rows[column].str.strip().str.lower().replace({"true": "1", "false": "0"})
    values = pd.to_numeric(text, errors="coerce").astype(float)
    good = values.isin([0, 1]) if whole else np.isfinite(values) & values.between(0, most)
    expected = "1, 0 or nothing" if whole else f"a number from 0 to {most:g}"
    reading.problem(UNLABELLED, rows[~good & ~text.isin(_NOTHING)], column, expected)
    return values.where(good)


def _label_aus(reading: Reading, rows: pd.DataFrame, source: Source) -> None:
    """Turn the text of AUs and intensities into numbers, in place."""
    for name in AU_COLUMNS:
        strength = f"{name}_intensity"
        if strength in rows:
            rows[strength] = _numbers(reading, rows, strength)
        if name in rows:
            values = _numbers(reading, rows, name, 1, whole=source.probability is None)
            rows[name] = (values >= (source.probability or 1)).astype(float).where(values.notna())
        elif strength in rows and source.intensity is not None:
            rows[name] = (rows[strength] >= source.intensity).astype(float).where(rows[strength].notna())


def _name_emotions(reading: Reading, rows: pd.DataFrame) -> None:
    """Turn the words for emotions into names, in place; an unknown word leaves the face unlabelled."""
    words = rows["emotion"].str.lower().str.split("+")
    names = words.map(lambda parts: [_WORDS.get(word.strip()) for word in parts])
    good = names.map(all)
    unknown = rows[~good & ~rows["emotion"].str.lower().isin(_NOTHING)]
    reading.problem(UNLABELLED, unknown, "emotion", f"one of {', '.join(EMOTIONS)}")
    rows["emotion"] = names.where(good).str.join("+").astype(object)


def _finish(reading: Reading, rows: pd.DataFrame) -> Reading:
    """Find the images, drop what cannot be used, and give the rest subjects and a split."""
    places = pd.Series(inside(reading.root, rows["image"]), rows.index, dtype=object)
    rows = reading.drop(rows, places.isna(), "image path that leads out of the folder", "image")
    images = {
        place: os.path.relpath(place, reading.root) for place in set(places) if os.path.isfile(place or "")
    }
    rows = rows.assign(wanted=rows["image"], image=places[rows.index].map(images))
    rows = reading.drop(rows, rows["image"].isna(), "image missing", "wanted")
    defaults = {"subject": rows["image"], "frame": rows["image"], "dataset": reading.dataset}
    for column, default in defaults.items():
        rows[column] = rows[column].where(rows[column] != "", default) if column in rows else default
    labels = [*AU_COLUMNS, "emotion"]
    given = [column for column in (*labels, "subject", "frame", "split") if column in rows]
    rows = reading.drop_repeated(rows, ["image"], given)
    rows = reading.drop(rows, rows.reindex(columns=labels).isna().all(axis=1), "nothing labelled")
    return reading.finish(assign_splits(reading, rows))
