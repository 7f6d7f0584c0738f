"""Data sets whose pictures show more than a face: each face is cut out once, into a folder to read."""

from multiprocessing import get_context
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from ..errors import ExpVQAError, SettingsError
from ..files import atomic
from .face_crop import NO_FACE, crop_face
from .table import read_table, write_table

SIDE = 288  # px: what 224 px need when a random crop takes 0.8 of the area


def crop_dataset(
    table: str | Path, root: str | Path, output: str | Path
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Cut the largest face out of every image of a face table, which is written anew below `output`.

    Faces are JPEG files of at most `SIDE` pixels below `output`, named as the images (`a.png.jpg` of
    `a.png`). Those that are there already stay, so a run that was interrupted goes on.

    Args:
        table: a face table; its images are relative to `root`.

    Returns:
        The table of faces, and how many rows were dropped by reason (no face, image that cannot be read).

    Raises:
        TableError: the table cannot be read.
        SettingsError: `output` is the folder of the images themselves.
    """
    root, output = Path(root).resolve(), Path(output).resolve()
    if output == root:
        raise SettingsError(f"{output}: holds the images themselves; expected another folder for the faces")
    faces = read_table(table, root)
    names = faces["image"].map(lambda image: Path(image).relative_to(root).as_posix())
    names = names.where(names.str.endswith(".jpg"), names + ".jpg")
    jobs = dict(zip(faces["image"], (str(output / name) for name in names), strict=True))
    with get_context("spawn").Pool() as pool:
        results = pool.imap(_crop, jobs.items(), chunksize=16)
        reasons = dict(zip(jobs, tqdm(results, "cutting faces out", len(jobs)), strict=True))
    reason = faces["image"].map(reasons)
    cropped = faces.assign(image=names)[reason.isna()].reset_index(drop=True)
    write_table(cropped, output / Path(table).name)
    return cropped, reason.value_counts().to_dict()


def _crop(job: tuple[str, str]) -> str | None:
    """Write one face; return why there is none."""
    image, target = job
    if Path(target).exists():
        return None
    try:
        face, notice = crop_face(image)
    except ExpVQAError:
        return "image that cannot be read"
    if notice == NO_FACE:
        return "no face found"
    face.thumbnail((SIDE, SIDE))
    with atomic(target) as temporary:
        face.save(temporary, quality=95)
    return None
