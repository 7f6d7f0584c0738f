"""A folder of photos: every face of every file, and the reason where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from skimage import data

from expvqa_lib.data import album
from expvqa_lib.errors import SettingsError


def test_every_face_of_every_file_is_there_and_the_rest_is_explained(tmp_path):
    astronaut = data.astronaut()
    Image.fromarray(np.hstack([astronaut, astronaut])).save(tmp_path / "b two.jpg")
    Image.fromarray(astronaut).save(tmp_path / "a one.png")
    Image.fromarray(data.coffee()).save(tmp_path / "c none.png")
    Image.fromarray(astronaut).resize((96, 96)).save(tmp_path / "d crop.png")
    Image.fromarray(astronaut[::-1]).save(tmp_path / "f turned.png")
    (tmp_path / "e text.jpg").write_text("not a picture")
    (tmp_path / ".hidden").write_text("")
    (tmp_path / "folder").mkdir()
    found = album.read(tmp_path)
    assert list(found.columns) == list(album.COLUMNS)
    assert found["photo"].tolist() == [
        "a one.png",
        "b two.jpg",
        "b two.jpg",
        "c none.png",
        "d crop.png",
        "e text.jpg",
        "f turned.png",
    ]
    assert found["face"].fillna(0).tolist() == [1, 1, 2, 0, 1, 0, 1]
    notes = found["note"].tolist()
    assert notes[:5] == ["", "", "", "no face found", ""] and notes[5].startswith("not a picture, found text")
    crops = found["crop"].tolist()
    assert [crop is None for crop in crops] == found["face"].isna().tolist()
    assert all(crop.width == crop.height and crop.mode == "RGB" for crop in crops if crop is not None)


def test_a_folder_that_is_not_there_or_empty_is_named(tmp_path):
    with pytest.raises(SettingsError, match="nowhere: no such folder"):
        album.read(tmp_path / "nowhere")
    with pytest.raises(SettingsError, match="no file in this folder"):
        album.read(tmp_path)
