"""What programs write: the columns of their label files, and the picture that each row is about."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ...errors import SettingsError, TableError
from ...facs import EMOTIONS
from ...files import inside
from .reading import SUFFIX, Reading

NOTHING = ("", "nan", "na", "null", "none")
PYFEAT_EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".wmv", ".m4v", ".mpg", ".mpeg")
BOX = ["left", "top", "width", "height"]  # of a face in its picture, px
_EDGES = [*BOX, "right", "bottom"]
_AU = r"au[ _-]?0*(\d{1,3})"
_RECT = {"left": "facerectx", "top": "facerecty", "width": "facerectwidth", "height": "facerectheight"}
_LANDMARKS = {"left": "x_0", "right": "x_16", "top": "y_19", "bottom": "y_8"}  # jaw, brow and chin, of 68


@dataclass(frozen=True)
class Source:
    """The columns of a kind of label files, and which of their values count."""

    columns: Mapping[str, str]  # patterns of `Reading.columns`
    frames: str = ""  # where the program puts the face of a video's frame
    faces: str = ""  # where it puts a face of a picture
    confidence: float = 0  # faces below it are dropped
    probability: float | None = None  # AUs and emotions are present from this probability on
    intensity: float | None = None  # an AU that has an intensity alone is present from here on


SOURCES = {
    "own": Source(
        {name: name for name in ("image", "subject", "split", "frame", "emotion", "dataset", *BOX)}
        | {"AU{}": r"(?:au[ _-]?)?0*(\d{1,3})(?: *\(.*\))?", "AU{}_intensity": _AU + r"[ _-]?(?:r|intensity)"}
    ),
    "OpenFace": Source(
        {"frame": "frame", "face": "face|face_id", "confidence": "confidence", **_LANDMARKS}
        | {"AU{}": r"au(\d\d)_c", "AU{}_intensity": r"au(\d\d)_r"},
        frames="{name}_aligned/frame_det_{face:02d}_{frame:06d}.bmp",
        faces="{name}_aligned/face_det_{face:06d}.bmp",
        confidence=0.8,
    ),
    "Py-Feat": Source(
        {"image": "input", "frame": "frame", "confidence": "facescore", "AU{}": _AU, **_RECT}
        | {name: f"{name}|{EMOTIONS[name].adjective}" for name in PYFEAT_EMOTIONS},
        confidence=0.9,
        probability=0.5,
    ),
    "LibreFace": Source(
        {"path": "input_image_path|aligned_frame_path", "frame": "frame_idx", "emotion": "facial_expression"}
        | {"AU{}": r"au_(\d+)", "AU{}_intensity": r"au_(\d+)_intensity"},
        intensity=2.0,  # as is usual for DISFA, from which LibreFace learnt them
    ),
    "Exp-VQA": Source(  # `expvqa score`, and whatever gives a probability an AU
        {"image": "file|image", "frame": "frame", "emotion": "emotion", "AU{}": _AU}
        | {name: name for name in BOX},
        probability=0.5,
    ),
}
_MARKS = {  # columns that only this program writes
    "Py-Feat": "facescore",
    "OpenFace": r"au\d\d_[cr]",
    "LibreFace": r"au_\d+_intensity|facial_expression|frame_idx|aligned_frame_path|input_image_path",
    "Exp-VQA": _AU,
}


def program_of(columns: Sequence[str]) -> str | None:
    """Which of `SOURCES` has written a table, told by its columns; None if none of them."""
    names = [name.strip().lower() for name in columns]
    return next((key for key, mark in _MARKS.items() if any(map(re.compile(mark).fullmatch, names))), None)


def find_pictures(reading: Reading, rows: pd.DataFrame, pattern: str) -> pd.DataFrame:
    """Give each row its picture below the root: `image`, and `wanted`, which the row or the pattern names.

    Raises:
        SettingsError: the pattern cannot be filled in.
        TableError: the rows are about the frames of a video, and no pattern says where these are.
    """
    rows = rows.rename(columns={"path": "image"}).assign(video=rows["file"].map(lambda file: Path(file).stem))
    if "image" in rows:
        rows = reading.drop(rows, rows["image"].str.lower().isin(NOTHING), "no face, or image not named")
        rows["image"] = rows["image"].str.replace("\\", "/")
        is_video = rows["image"].str.lower().str.endswith(VIDEOS)
        rows["video"] = rows["video"].where(~is_video, rows["image"].map(lambda name: Path(name).stem))
    elif not pattern and "frame" not in rows:
        rows, is_video = rows.assign(image=_called_as(reading, rows)), pd.Series(False, rows.index)
    else:
        is_video = pd.Series(True, rows.index)
    if is_video.any() or "image" not in rows:
        is_picture = "frame" not in rows
        rows = _frames(reading, rows, is_video, pattern)
        if is_picture:  # of one face, which the program may not have cut out
            there = rows["image"].map(lambda image: (reading.root / image).exists())
            rows["image"] = rows["image"].where(
                there | rows.duplicated("file", False), _called_as(reading, rows)
            )
    elif reading.dataset != "own":
        rows = rows.drop(columns="frame", errors="ignore")
    places = pd.Series(inside(reading.root, rows["image"]), rows.index, dtype=object)
    rows = reading.drop(rows, places.isna(), "image path that leads out of the folder", "image")
    is_other = ~rows["image"].str.contains(SUFFIX)
    rows = reading.drop(rows, is_other, "file that is no picture", "image", "a picture's name")
    files = {path: os.path.relpath(path, reading.root) for path in {*places} if os.path.isfile(path or "")}
    rows = rows.assign(wanted=rows["image"], image=places[rows.index].map(files))
    return reading.drop(rows, rows["image"].isna(), "image missing", "wanted")


def _called_as(reading: Reading, rows: pd.DataFrame) -> pd.Series:
    """The picture that is called as the label file; the file's name where there is none, or several."""
    pictures = reading.files[reading.files.str.contains(SUFFIX)]
    pictures.index = pictures.map(lambda path: Path(path).stem)
    alone = pictures[~pictures.index.duplicated(keep=False)]
    return rows["video"].map(alone).astype(object).fillna(rows["video"] + ".jpg")


def _frames(reading: Reading, rows: pd.DataFrame, is_frame: pd.Series, pattern: str) -> pd.DataFrame:
    """Name the picture of each face, and the subject: the video, with the face if it has several."""
    for column in ("frame", "face"):
        cells = rows.get(column, pd.Series("0", rows.index)).where(is_frame, "0")
        whole = cells.str.replace(r"\.0*$", "", regex=True)
        bad = ~whole.str.fullmatch("[0-9]{1,9}")
        rows = reading.drop(rows.assign(**{column: whole}), bad, "malformed row", column, "a whole number")
    is_frame = is_frame[rows.index]
    if not pattern and is_frame.any():
        first = rows[is_frame].iloc[0]
        video = first.get("image") or f"{first['video']}.mp4"
        folder = reading.root / Path(video).stem
        raise TableError(
            f"{first['file']}, row {first['line']}: found labels of the video {video}, expected those of "
            f"pictures. Take its frames out, `mkdir {folder}; ffmpeg -i {video} -start_number 0 "
            f"{folder}/%06d.jpg`, and add `--images '{{name}}/{{frame:06d}}.jpg'`"
        )
    several = rows.groupby("file")["face"].transform("nunique") > 1
    rows["subject"] = rows["video"].where(~several, rows["video"] + "_" + rows["face"])
    try:
        images = [_frame_path(reading.root, pattern, row) for row in rows.itertuples()]
    except (KeyError, IndexError, ValueError) as error:
        expected = "a path with {name} and {frame:06d}"
        raise SettingsError(f"--images {pattern}: {error!r}; expected {expected}") from error
    images = pd.Series(images, rows.index, dtype=object)
    return rows.assign(image=images.where(is_frame, rows.get("image")))


def _frame_path(root: Path, pattern: str, row: tuple) -> str:
    """The picture of a frame below the root; programs write it beside their table."""
    image = pattern.format(name=row.video, frame=int(row.frame), face=int(row.face))
    beside = os.path.relpath(f"{Path(row.file).parent}/{image}", root)
    return beside if not (root / image).exists() and (root / beside).exists() else image


def choose_faces(reading: Reading, rows: pd.DataFrame, labelled: pd.DataFrame | None = None) -> pd.DataFrame:
    """Keep one face of each image by its box; without boxes, no face of an image with several.

    It is the face that overlaps the labelled one most, where `labelled` has the columns `BOX` of that (the
    index is the image), else the largest.
    """
    boxes = _pixels(rows.reindex(columns=_EDGES))
    width = boxes["width"].fillna(boxes["right"] - boxes["left"])
    height = boxes["height"].fillna(boxes["bottom"] - boxes["top"]).fillna(width)
    if labelled is not None:
        boxes = boxes.assign(width=width, height=height)[BOX]
        places = _pixels(labelled.reindex(index=rows["image"], columns=BOX))
        shared = pd.Series(overlap(boxes.to_numpy(), places.to_numpy()), rows.index)
        is_other = (shared < shared.groupby(rows["image"]).transform("max")) | (shared == 0)
        rows = reading.drop(rows, is_other, "face that is not the labelled one")
    area = (width * height)[rows.index]
    largest = area == area.groupby(rows["image"]).transform("max")
    rows = reading.drop(rows, area.notna() & ~largest, "smaller face of its image")
    again = rows.duplicated("image", keep=False) & ~rows.drop(columns=["file", "line"]).duplicated(keep=False)
    rows = reading.drop(rows, again, "one of several faces in its image, which it does not name", "wanted")
    return rows.drop(columns=_EDGES, errors="ignore")


def _pixels(cells: pd.DataFrame) -> pd.DataFrame:
    return cells.apply(pd.to_numeric, errors="coerce").astype(float)  # of no rows, apply keeps text


def overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union [...] of boxes [..., 4]: left, top, width and height; NaN where one is NaN."""
    corner = np.minimum(boxes[..., :2] + boxes[..., 2:], others[..., :2] + others[..., 2:])
    shared = np.clip(corner - np.maximum(boxes[..., :2], others[..., :2]), 0, None).prod(-1)
    union = boxes[..., 2:].prod(-1) + others[..., 2:].prod(-1) - shared
    return np.divide(shared, union, out=np.zeros(np.shape(shared)), where=union != 0)
