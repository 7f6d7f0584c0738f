"""Cutting the faces out of a data set: counted, resumed, and read like any other data set."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage.data import astronaut

from expvqa_lib.data import read_available, write_table
from expvqa_lib.data.face_crop import SIDE, crop_dataset
from expvqa_lib.errors import SettingsError


@pytest.fixture
def photos(tmp_path):
    """A photograph, its mirror image, a wall and a file that is no picture, in a face table."""
    portrait = Image.fromarray(astronaut())
    (tmp_path / "photos" / "a").mkdir(parents=True)
    portrait.save(tmp_path / "photos" / "a" / "one.png")
    portrait.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "photos" / "two.jpg")
    Image.fromarray(np.full((300, 400, 3), 120, np.uint8)).save(tmp_path / "photos" / "wall.png")
    (tmp_path / "photos" / "text.jpg").write_text("no picture")
    names = ["a/one.png", "two.jpg", "wall.png", "text.jpg"]
    table = pd.DataFrame(
        {
            "image": names,
            "dataset": "mine",
            "subject": list("abcd"),
            "frame": "0",
            "split": "train",
            "AU12": [1, 0, 1, 0],
        }
    )
    write_table(table, tmp_path / "mine.parquet")
    return tmp_path


def test_faces_are_cut_out_once_and_what_is_dropped_is_counted(photos):
    options = {"table": photos / "mine.parquet", "root": photos / "photos", "output": photos / "faces"}
    cropped, dropped = crop_dataset(**options)
    assert len(cropped) == 2 and dropped == {"no face found": 1, "image that cannot be read": 1}
    faces = read_available(photos / "faces", photos / "tables")
    assert faces["AU12"].tolist() == [1, 0] and faces["image"].str.startswith(str(photos / "faces")).all()
    for path in faces["image"]:
        with Image.open(path) as face:
            assert face.size == (SIDE, SIDE) or max(face.size) < SIDE
    before = [(photos / "faces" / name).stat().st_mtime_ns for name in ("a/one.png.jpg", "two.jpg")]
    (photos / "faces" / "two.jpg").unlink()  # as after a run that was cut off
    crop_dataset(**options)
    after = [(photos / "faces" / name).stat().st_mtime_ns for name in ("a/one.png.jpg", "two.jpg")]
    assert after[0] == before[0] and after[1] > before[1]


def test_the_pictures_themselves_are_never_replaced(photos):
    with pytest.raises(SettingsError, match="holds the images themselves"):
        crop_dataset(photos / "mine.parquet", photos / "photos", photos / "photos")
