"""Pseudo-labels: face tables from what OpenFace 2, Py-Feat and LibreFace write.

Faces that a program did not find, or is not sure of, are dropped and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from .labels import (
    AU,
    NOTHING,
    Files,
    label_aus,
    labelled_images,
    name_emotions,
    read_label_files,
    read_numbers,
)
from .log import Reading

PYFEAT_EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")


@dataclass(frozen=True)
class Program:
    """What a program writes, and which of it counts."""

    columns: Mapping[str, str]  # patterns of `log.match_columns`
    frames: str = ""  # where a video's frames are, if the column of images holds their numbers
    confidence: float = 0  # faces below it are dropped
    probability: float | None = None  # AUs and emotions are present from this probability on
    intensity: float | None = None  # an AU that has an intensity alone is present from here on


PROGRAMS = {
    "OpenFace": Program(
        {"image": "frame", "confidence": "confidence", "success": "success"}
        | {"AU": r"au(\d\d)_c", "intensity": r"au(\d\d)_r"},
        frames="{name}_aligned/frame_det_00_{frame:06d}.bmp",
        confidence=0.8,
    ),
    "Py-Feat": Program(
        {"image": "input", "confidence": "facescore", "AU": AU} | {name: name for name in PYFEAT_EMOTIONS},
        confidence=0.9,
        probability=0.5,
    ),
    "LibreFace": Program(
        {"image": "input_image_path|aligned_frame_path", "emotion": "facial_expression"}
        | {"AU": r"au_(\d+)", "intensity": r"au_(\d+)_intensity"},
        intensity=2.0,  # as is usual for DISFA, from which LibreFace learnt them
    ),
}


def read_au_tool(name: str, root: str | Path, labels: Files, split_file: str | Path | None = None) -> Reading:
    """Read what OpenFace 2, Py-Feat or LibreFace write as CSV; the data set is called by the program's name.

    - OpenFace (its wiki, Output Format), a file a video by FeatureExtraction: `frame`, `confidence` (faces
      below 0.8 are dropped), `success`, `AU01_c` (0 or 1), `AU01_r` (intensity, 0 to 5). Images are the
      aligned faces that it writes, `{name}_aligned/frame_det_00_{frame:06d}.bmp` below root; the file's name
      is the subject.
    - Py-Feat (`Fex.to_csv`): `input` (the image), `FaceScore` (faces below 0.9 are dropped), and
      probabilities: of AUs, `AU01`, present from 0.5 on, and of seven emotions, of which the likeliest is
      taken from 0.5 on.
    - LibreFace (github.com/ihp-lab/LibreFace), a file an image or video: the image's path, `au_1` (0 or 1, 12
      AUs), `au_1_intensity` (0 to 5; an AU that has an intensity alone is present from 2 on) and
      `facial_expression`.

    Images with several faces are dropped. Each image of Py-Feat and LibreFace is a subject of its own.

    Args:
        name: a key of `PROGRAMS`.
        labels, split_file: as in `read_own`. Errors too.
    """
    program = PROGRAMS[name]
    reading = Reading(name, root)
    rows = read_label_files(reading, labels, program.columns)
    rows = reading.drop(rows, rows["image"].str.lower().isin(NOTHING), "no face found")
    if "success" in rows:
        rows = reading.drop(rows, read_numbers(reading, rows, "success", whole=True) != 1, "no face found")
    if "confidence" in rows:
        confidence = read_numbers(reading, rows, "confidence", 1)
        rows = reading.drop(rows, confidence.isna(), "no face found")
        rows = reading.drop(rows, confidence[rows.index] < program.confidence, "confidence too low")
    if program.frames:
        bad = ~rows["image"].str.fullmatch("[0-9]{1,9}")
        rows = reading.drop(rows, bad, "frame that is no number", "image")
        subjects = [Path(file).stem for file in rows["file"]]
        frames = rows["image"].tolist()
        images = [
            program.frames.format(name=subject, frame=int(frame))
            for subject, frame in zip(subjects, frames, strict=True)
        ]
        rows = rows.assign(image=images, subject=subjects, frame=frames)
    label_aus(reading, rows, program.probability, program.intensity)
    if emotions := [emotion for emotion in PYFEAT_EMOTIONS if emotion in rows]:
        chances = pd.DataFrame({emotion: read_numbers(reading, rows, emotion, 1) for emotion in emotions})
        chances = chances.fillna(-1.0)
        rows["emotion"] = chances.idxmax(axis=1).where(chances.max(axis=1) >= program.probability)
    elif "emotion" in rows:
        name_emotions(reading, rows)
    return labelled_images(reading, rows.drop(columns=emotions), split_file, labelled_by=name)
