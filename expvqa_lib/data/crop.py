"""Corpora whose pictures show more than a face: each face found, levelled and cut out once, into a folder that the notebooks can read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from ..errors import ExpVQAError, SettingsError
from ..files import atomic
from . import table as face_table
from .face_crop import crop_face

SIDE = 288  # px: what 224 px need when a random crop takes 0.8 of the area


@dataclass(frozen=True)
class Cropped:
    """A face table with cut-out faces: `read` rows are those of `table` and the `dropped` ones (reason to count)."""

    table: pd.DataFrame
    read: int
    dropped: Mapping[str, int]


def crop_corpus(
    table: str | Path, root: str | Path, output: str | Path, processes: int | None = None
) -> Cropped:
    """Cut the largest face out of every image of a face table, and write the table anew as `output/<its name>`.

    Faces are JPEG files of at most `SIDE` pixels below `output`, named as the images (`a.png.jpg` of `a.png`). What is there already is
    kept, so a run that was cut off goes on. Images without a face are dropped and counted, as are those that cannot be read.

    Args:
        table: from `readers.read_and_keep` or of one's own; its images lie below `root`.
        processes: that share the work; default: one a core.

    Raises:
        TableError: the table cannot be read.
        SettingsError: `output` is the folder of the images themselves.
    """
    root, output = Path(root).resolve(), Path(output).resolve()
    if output == root:
        raise SettingsError(
            f"{output}: holds the images themselves; give another folder for the faces that are cut out"
        )
    faces = face_table.read_table(table, root)
    names = [
        name if name.endswith(".jpg") else f"{name}.jpg"
        for name in (str(Path(i).relative_to(root)) for i in faces["image"])
    ]
    jobs = list(dict.fromkeys(zip(faces["image"], (str(output / name) for name in names), strict=True)))
    with get_context("spawn").Pool(processes or os.cpu_count()) as pool:
        done = tqdm(pool.imap(_crop, jobs, chunksize=16), total=len(jobs), desc="cutting faces out")
        reasons = dict(zip((image for image, _ in jobs), done, strict=True))
    why = faces["image"].map(reasons)
    kept = faces.assign(image=names)[why.isna()].reset_index(drop=True)
    kept.attrs = faces.attrs
    face_table.write_table(kept, output / Path(table).name)
    return Cropped(
        kept, len(faces), {str(reason): int(count) for reason, count in why.value_counts().items()}
    )


def _crop(job: tuple[str, str]) -> str | None:
    """Write one face; return why there is none."""
    image, target = job
    if Path(target).exists():
        return None
    try:
        crop = crop_face(image)
    except ExpVQAError:
        return "image that cannot be read"
    if crop.faces == 0 and crop.notice:  # a small square picture is a face already, and is not searched
        return "no face found"
    crop.image.thumbnail((SIDE, SIDE))
    with atomic(target) as temporary:
        crop.image.save(temporary, quality=95)
    return None
