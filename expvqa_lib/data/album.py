"""A folder of one's own photos: every face in every file, and for a file without one the reason."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ..errors import ImageError, SettingsError
from .face_crop import crop_face
from .images import load_image

COLUMNS = ("photo", "face", "crop", "note")


def read(folder: str | Path) -> pd.DataFrame:
    """Cut out the faces of all files that lie directly in a folder, in the order of their names.

    Returns:
        A row a face and a row a file without one, with the columns `photo` (the file's name), `face` (1 the largest, 2 the next, ...;
        missing without a face), `crop` (PIL image of `framing.crop_face`, or None) and `note` (what should be known of it, or why there
        is no face; may be empty).

    Raises:
        SettingsError: there is no such folder, or no file in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SettingsError(f"{folder}: no such folder; make it, put photos into it, and start again")
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not files:
        raise SettingsError(f"{folder}: no file in this folder; put photos into it, and start again")
    rows = [(path.name, *row) for path in files for row in _faces(path)]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"face": "Int64"})


def _faces(path: Path) -> list[tuple]:
    """(face, crop, note) of each face in a file, or one such row without a face."""
    try:
        image = load_image(path)
        crops = [crop_face(image)]
        crops += [crop_face(image, face=k) for k in range(1, crops[0].faces)]
    except ImageError as error:
        return [(None, None, str(error).removeprefix(f"{path}: "))]
    if not crops[0].faces and crops[0].notice:
        return [(None, None, "no face found")]
    notes = [crop.notice or "" for crop in crops]
    if len(crops) > 1:  # all of them are used, not the one that the notice names
        notes = [note.partition("is used.")[2].strip() for note in notes]
    return [(k, crop.image, note) for k, (crop, note) in enumerate(zip(crops, notes, strict=True), 1)]
