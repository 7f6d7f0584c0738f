"""Face tables from label files: people's own, and those of OpenFace 2, Py-Feat and LibreFace.

A column is found by its name, whatever its case and the blanks around it. A cell that is empty (or NaN, NA,
null, none) is unlabelled; so is one that cannot be read, which is a problem with file, row and column. No
such cell ever makes an AU absent.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ...facs import EMOTIONS
from ...files import read_frame
from ..table import AU_COLUMNS
from .programs import BOX, NOTHING, PYFEAT_EMOTIONS, SOURCES, Source, choose_faces, find_pictures
from .reading import UNLABELLED, Reading
from .splits import assign_splits

Files = str | Path | Sequence[str | Path]

_WORDS = {name: name for name in EMOTIONS} | {e.adjective: e.name for e in EMOTIONS.values()}


def read_labels(reading: Reading, labels: Files, *, images: str = "", threshold: float | None = None) -> None:
    """Read labels of images below `root`: people's own, or a program's, which `labelled_by` then names.

    - own: `image` (its path below root); AUs (`AU1`, `AU01`, `au_1`: 1 present, 0 absent, empty where
      unlabelled), intensities (`AU1_intensity`, `AU01_r`); and if there are such, `subject`, `split` (train,
      validation, test), `frame`, `emotion` (a name or adjective of `facs.EMOTIONS`, several joined by `+`),
      `dataset`, and the box of the face (`left`, `top`, `width`, `height` in pixels).
    - OpenFace 2, a file a video or picture: `confidence` (faces below 0.8 are dropped), `AU01_c` (0 or 1),
      `AU01_r` (intensity). Images are the aligned faces that it writes: of a video's `face_id` and `frame`
      `{name}_aligned/frame_det_00_000001.bmp`, of a picture's `face` `{name}_aligned/face_det_000000.bmp` or,
      where there is one face, the picture that is called as the file. Each person of a video is a subject.
    - Py-Feat (`Fex.to_csv`): `input` (the image), `FaceScore` (faces below 0.9 are dropped), and
      probabilities: of AUs, `AU01`, present from 0.5 on, and of seven emotions, of which the likeliest is
      taken from 0.5 on. Of several faces in an image the largest is taken, as in `crop_face`.
    - LibreFace, a file an image or video: `au_1` (0 or 1), `au_1_intensity` (0 to 5; an AU that has an
      intensity alone is present from 2 on), `facial_expression`; without paths, the image called as the file.

    An image with several faces that cannot be told apart is dropped. Without subjects, each image is one;
    without splits, a hash of the subject's name decides (`splits.assign_splits`).

    Args:
        reading: of a data set in `SOURCES`.
        labels: the file, or several.
        images: where a video's frames are below root, such as `{name}/{frame:06d}.jpg`, or with `{face}`.
        threshold: intensity from which an AU without a code is present; for Py-Feat, the probability.

    Raises:
        SettingsError: `images` is no such pattern.
        TableError: a file cannot be read, lacks a column, or nothing usable is left.
    """
    source = SOURCES[reading.dataset]
    if threshold is not None:
        source = replace(source, **{"probability" if source.probability else "intensity": threshold})
    rows = _read_rows(reading, [labels] if isinstance(labels, (str, Path)) else labels, source, images)
    _label_aus(reading, rows, source)
    if "emotion" in rows:
        _name_emotions(reading, rows)
    elif "happiness" in rows:
        chances = {word: _numbers(reading, rows, word, 1) for word in PYFEAT_EMOTIONS if word in rows}
        chances = pd.DataFrame(chances).fillna(-1.0)
        rows["emotion"] = chances.idxmax(axis=1).where(chances.max(axis=1) >= source.probability)
    for column in rows.columns.intersection(BOX):
        rows[column] = pd.to_numeric(rows[column], errors="coerce")
    _finish(reading, rows.assign(labelled_by=None if reading.dataset == "own" else reading.dataset))


def read_scores(
    reading: Reading, files: Files, *, images: str = "", labelled: pd.DataFrame | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What a program says of each AU of pictures below `root`, a row a picture (the index, below root).

    Args:
        reading, files, images: as of `read_labels`; the reading counts the rows that are dropped. What
            OpenFace says of a picture is about the one that is called as the file.
        labelled: boxes of the labelled faces, see `choose_faces`.

    Returns:
        Scores in [0, 1]: a probability, an intensity of 5 as 1, or the code where there is no more; and
        answers, 0 or 1: the program's own code, else from the threshold that `SOURCES` names (intensity: 1).
    """
    source = SOURCES[reading.dataset]
    rows = _read_rows(reading, files, replace(source, faces=""), images, labelled)
    rows = reading.drop(rows, rows.duplicated("image"), "repeated row")
    kind = {"whole": source.probability is None}
    codes = {name: _numbers(reading, rows, name, 1, **kind) for name in AU_COLUMNS if name in rows}
    strengths = {name: f"{name}_intensity" for name in AU_COLUMNS if f"{name}_intensity" in rows}
    strengths = {name: _numbers(reading, rows, column, 5) for name, column in strengths.items()}
    codes, strengths = (pd.DataFrame(part, rows.index).set_axis(rows["image"]) for part in (codes, strengths))
    answers = (codes >= (source.probability or 1)).astype(float).where(codes.notna())
    by_intensity = (strengths >= (source.intensity or 1)).astype(float).where(strengths.notna())
    return (strengths / 5).combine_first(codes), answers.combine_first(by_intensity)


def _read_rows(
    reading: Reading,
    labels: Sequence[str | Path],
    source: Source,
    images: str,
    labelled: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The rows of all files with the pictures that they are about, without faces that nobody is sure of."""
    tables = (_read_file(reading, os.path.abspath(file), source.columns) for file in labels)
    rows = pd.concat(tables, ignore_index=True).fillna("")
    if "confidence" in rows:
        confidence = _numbers(reading, rows, "confidence", 1)
        rows = reading.drop(rows.assign(confidence=confidence), confidence.isna(), "no face")
    rows = find_pictures(reading, rows, images or (source.frames if "frame" in rows else source.faces))
    if reading.dataset != "own":
        rows = choose_faces(reading, rows, labelled)
    if "confidence" in rows:
        rows = reading.drop(rows, rows["confidence"] < source.confidence, "confidence too low")
    return rows.copy()


def _read_file(reading: Reading, file: str, patterns: Mapping[str, str]) -> pd.DataFrame:
    if not file.lower().endswith((".parquet", ".pq")):
        return reading.read_csv(file, patterns)
    table = read_frame(file, "table of labels")
    columns = reading.columns(file, list(table), patterns)
    text = table[list(columns)].astype("string").fillna("")
    return reading.rows_of(text, columns, file, range(1, len(text) + 1))


def _numbers(
    reading: Reading, rows: pd.DataFrame, column: str, most: float = np.inf, *, whole: bool = False
) -> pd.Series:
    """A column's numbers from 0 to `most` (`whole`: 0 and 1 alone); NaN where empty, or not such a number."""
    text = rows[column].str.strip().str.lower().replace({"true": "1", "false": "0"})
    values = pd.to_numeric(text, errors="coerce").astype(float)
    good = values.isin([0, 1]) if whole else np.isfinite(values) & values.between(0, most)
    expected = "1, 0 or nothing" if whole else f"a number from 0 to {most:g}"
    reading.problem(UNLABELLED, rows[~good & ~text.isin(NOTHING)], column, expected)
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
        elif strength in rows:
            kind = "intensity alone, which is no label without a threshold (--threshold 1, say)"
            reading.problems[kind] += [f"{file}: {strength}" for file in rows["file"].unique()]


def _name_emotions(reading: Reading, rows: pd.DataFrame) -> None:
    """Turn the words for emotions into names, in place; an unknown word leaves the face unlabelled."""
    words = rows["emotion"].str.lower().str.split("+")
    names = words.map(lambda parts: [_WORDS.get(word.strip()) for word in parts])
    good = names.map(all)
    unknown = rows[~good & ~rows["emotion"].str.lower().isin(NOTHING)]
    reading.problem(UNLABELLED, unknown, "emotion", f"one of {', '.join(EMOTIONS)}")
    rows["emotion"] = names.where(good).str.join("+").astype(object)


def _finish(reading: Reading, rows: pd.DataFrame) -> None:
    """Drop what cannot be used, and give the rest subjects and a split."""
    if reading.dataset == "own" and "subject" not in rows.columns:
        reading.notes.append("no column subject: a person with several images may stand in several splits")
    defaults = {"subject": rows["image"], "frame": rows["image"], "dataset": reading.dataset}
    for column, default in defaults.items():
        rows[column] = rows[column].where(rows[column] != "", default) if column in rows else default
    labels = [*AU_COLUMNS, "emotion"]
    given = [column for column in (*labels, "subject", "frame", "split") if column in rows]
    rows = reading.drop_repeated(rows, ["image"], given)
    rows = reading.drop(rows, rows.reindex(columns=labels).isna().all(axis=1), "nothing labelled")
    reading.finish(assign_splits(reading, rows))
