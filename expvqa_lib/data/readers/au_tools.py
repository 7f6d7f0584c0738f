"""Pseudo-labels: face tables from what OpenFace 2, Py-Feat and LibreFace write, marked in the column `labelled_by`.

Faces that a program did not find, or is not sure of, are dropped and counted.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ...errors import SettingsError
from .labels import AU, NOTHING, Files, OwnLog, cells, mark_presence, name_emotions, numbers, to_reading
from .log import Reading

PYFEAT_EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")


def read_openface(
    root: str | Path,
    labels: Files,
    *,
    images: str = "{name}_aligned/frame_det_00_{frame:06d}.bmp",
    confidence: float = 0.8,
    intensity: float | None = None,
    dataset: str = "own",
    shares: tuple[float, float] = (0.1, 0.1),
    seed: int = 42,
    split_file: str | Path | None = None,
) -> Reading:
    """Read what OpenFace 2 writes: CSV, a file a video (by FeatureExtraction) or picture (by FaceLandmarkImg).

    Columns (OpenFace's wiki, Output Format): `frame`, or `face` of pictures; `confidence`, and of videos `success`; `AU01_c` (0 or 1),
    `AU01_r` (intensity, 0 to 5). AU45, blink, has no phrase here and is left out. A file's name is the subject.

    Args:
        labels: the files.
        images: where the images are below `root`, with `{name}`, the file's name without .csv, and `{frame}`. The default is where
            FeatureExtraction puts aligned faces; `"{name}.jpg"` finds the pictures that FaceLandmarkImg was given.
        confidence: rows below it are dropped, as are those without `success`.
        intensity: take an AU for present from this intensity on, in place of what `AU01_c` says.
        dataset, shares, seed, split_file: as in `read_own`. Errors too.
    """
    log = OwnLog(dataset, root)
    roles = {"frame": "frame|face", "confidence": "confidence", "success": "success"}
    rows = cells(log, labels, roles, r"au(\d\d)_c", r"au(\d\d)_r", needed=("frame", "confidence"))
    sure = numbers(log, rows, "confidence", 1)
    failed = sure.isna() | (numbers(log, rows, "success", 1) != 1 if "success" in rows else False)
    rows = log.drop(rows, failed, "no face found")
    rows = log.drop(rows, sure[rows.index] < confidence, "confidence too low")
    frames = numbers(log, rows, "frame")
    rows = log.drop(rows, frames.isna() | (frames % 1 != 0), "frame that is no number", "frame")
    names = rows["file"].map(lambda file: Path(file).stem)
    try:
        places = [
            images.format(name=name, frame=int(frame))
            for name, frame in zip(names, frames[rows.index], strict=True)
        ]
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise SettingsError(f"images={images!r}: no pattern with {{name}} and {{frame}} ({error})") from error
    rows = rows.assign(image=places, subject=names)
    mark_presence(log, rows, None, intensity, by_intensity=intensity is not None)
    return to_reading(log, rows, "OpenFace 2", shares, seed, split_file)


def read_pyfeat(
    root: str | Path,
    labels: Files,
    *,
    threshold: float = 0.5,
    emotion: float = 0.5,
    score: float = 0.9,
    dataset: str = "own",
    shares: tuple[float, float] = (0.1, 0.1),
    seed: int = 42,
    split_file: str | Path | None = None,
) -> Reading:
    """Read what Py-Feat's `Fex.to_csv` writes: `input` (the image), `FaceScore`, `AU01` (a probability) and seven emotions.

    Each image is a subject of its own. Columns: Py-Feat's documentation, Fex.

    Args:
        labels: the files.
        threshold: probability from which an AU is present.
        emotion: the likeliest emotion is taken from this probability on, else the face is left without.
        score: faces that were found with a lower score are dropped, as are images without a face and with several.
        dataset, shares, seed, split_file: as in `read_own`. Errors too.
    """
    log = OwnLog(dataset, root)
    roles = {"image": "input", "score": "facescore"} | {name: name for name in PYFEAT_EMOTIONS}
    rows = cells(log, labels, roles, AU, needed=("image", "score"))
    found = numbers(log, rows, "score", 1)
    rows = log.drop(rows, found.isna(), "no face found")
    rows = log.drop(rows, found[rows.index] < score, "confidence too low")
    mark_presence(log, rows, threshold, None, most=1)
    if known := [name for name in PYFEAT_EMOTIONS if name in rows]:
        chances = pd.DataFrame({name: numbers(log, rows, name, 1) for name in known}).fillna(-1.0)
        rows["emotion"] = chances.idxmax(axis=1).where(chances.max(axis=1) >= emotion)
    return to_reading(log, rows.drop(columns=known), "Py-Feat", shares, seed, split_file)


def read_libreface(
    root: str | Path,
    labels: Files,
    *,
    image: str = "input_image_path|aligned_frame_path",
    intensity: float = 2.0,
    dataset: str = "own",
    shares: tuple[float, float] = (0.1, 0.1),
    seed: int = 42,
    split_file: str | Path | None = None,
) -> Reading:
    """Read what LibreFace writes: CSV, a file an image or video.

    Columns (github.com/ihp-lab/LibreFace, `save_facial_attributes_image` and `_video`): the image's path, `au_1` (0 or 1, 12 AUs),
    `au_1_intensity` (0 to 5, 12 AUs) and `facial_expression`. Each image is a subject of its own.

    Args:
        labels: the files, one an image or video.
        image: the column of the image (a regular expression).
        intensity: an AU that has an intensity alone is present from here on (2, as is usual for DISFA, from which LibreFace learnt them).
        dataset, shares, seed, split_file: as in `read_own`. Errors too.
    """
    log = OwnLog(dataset, root)
    rows = cells(
        log, labels, {"image": image, "emotion": "facial_expression"}, r"au_(\d+)", r"au_(\d+)_intensity"
    )
    rows = log.drop(rows, rows["image"].str.lower().isin(NOTHING), "no face found")
    mark_presence(log, rows, None, intensity)
    if "emotion" in rows:
        name_emotions(log, rows, ())
    return to_reading(log, rows, "LibreFace", shares, seed, split_file)
