"""Finding, levelling and framing the face: the real pictures that scikit-image carries, changed in many ways."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from skimage import data

from expvqa_lib.data.face_crop import Box, crop_face, find_faces
from expvqa_lib.data.images import load_image
from expvqa_lib.errors import ImageError, SettingsError

ORANGE = (240, 120, 20)


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    return Image.fromarray(data.astronaut())


def test_the_astronaut_has_one_face_and_its_crop_frames_it(astronaut):
    (found,) = find_faces(astronaut)
    assert abs(found.left + found.width / 2 - 225) < 10 and abs(found.top + found.height / 2 - 118) < 10
    assert 85 < found.width < 115
    crop = crop_face(astronaut)
    assert crop.faces == 1 and crop.notice is None
    assert (
        crop.image.mode == "RGB"
        and crop.image.size == (crop.box.width, crop.box.height)
        and crop.box.width == crop.box.height
    )
    eyes, chin = ((y - crop.box.top) / crop.box.height for y in (103, 177))  # read off the picture
    assert 0.33 < eyes < 0.45 and 0.88 < chin < 1.0


def test_margin_widens_the_crop_around_the_same_centre(astronaut):
    tight, wide = crop_face(astronaut).box, crop_face(astronaut, margin=0.25).box
    assert abs(wide.width - 1.5 * tight.width) <= 2
    assert abs((wide.left + wide.width / 2) - (tight.left + tight.width / 2)) <= 2
    assert abs((wide.top + wide.height / 2) - (tight.top + tight.height / 2)) <= 2


def test_two_faces_are_found_and_told_and_either_can_be_had(astronaut):
    pair = Image.new("RGB", (900, 512))
    pair.paste(astronaut.resize((380, 380)), (0, 60))
    pair.paste(astronaut, (388, 0))
    large, small = find_faces(pair)
    assert large.width > small.width and large.left > 388 > small.left
    crop, other = crop_face(pair), crop_face(pair, face=1)
    assert crop.notice == "2 faces found: the largest is used." and crop.box.left > 388
    assert other.notice == "2 faces found: number 2 by size is used." and other.box.left < 388
    with pytest.raises(ImageError, match="face=2: 2 found"):
        crop_face(pair, face=2)


@pytest.mark.parametrize("turn", [-90, -40, -25, -10, 10, 25, 40, 90])
def test_a_tilted_face_is_levelled(astronaut, turn):
    upright = crop_face(astronaut)
    tilted = crop_face(astronaut.rotate(-turn, Image.Resampling.BICUBIC, center=(225, 118), fillcolor="grey"))
    assert abs(tilted.angle - upright.angle - turn) < 5
    assert tilted.faces == 1 and tilted.image.size == (tilted.box.width,) * 2
    one, two = (
        np.asarray(c.image.convert("L").resize((32, 32), Image.Resampling.BOX), float)
        for c in (upright, tilted)
    )
    assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.85


@pytest.mark.parametrize(
    "change",
    [
        ImageOps.mirror,
        ImageOps.grayscale,
        lambda picture: ImageEnhance.Brightness(picture).enhance(0.2),
        lambda picture: ImageEnhance.Brightness(picture).enhance(2.0),
        lambda picture: ImageOps.pad(picture, (4096, 4096)).resize((2048, 2048)),
        lambda picture: picture.resize((256, 256)),
        lambda picture: ImageOps.expand(
            picture, (700, 900, 2400, 1000), "grey"
        ),  # the face: 2% of the long side
        lambda picture: Image.fromarray(
            np.clip(
                np.asarray(picture) + np.random.default_rng(0).normal(0, 30, (512, 512, 3)), 0, 255
            ).astype("u1")
        ),
    ],
    ids=["mirrored", "grey", "dark", "bright", "large", "half", "far", "noisy"],
)
def test_the_face_is_found_and_levelled_in_changed_pictures(astronaut, change):
    crop = crop_face(change(astronaut))
    assert crop.faces == 1 and abs(crop.angle) < 9


def test_small_real_faces_are_found_and_what_is_none_is_not():
    patches = [
        Image.fromarray((255 * p).clip(0, 255).astype(np.uint8)).resize((75, 75), 3)
        for p in data.lfw_subset()
    ]
    found = [
        len(find_faces(ImageOps.expand(patch, 75, (128, 128, 128))))
        for patch in (p.convert("RGB") for p in patches)
    ]
    assert sum(n == 1 for n in found[:100]) >= 95  # faces
    assert sum(found[100:]) == 0  # patches of background


@pytest.mark.parametrize("name", ["coffee", "chelsea", "brick", "coins", "rocket", "text"])
def test_pictures_without_a_human_face_are_used_whole_and_said_so(name):
    pixels = getattr(data, name)()
    crop = crop_face(pixels)
    assert crop.faces == 0 and crop.notice == "No face found: the whole picture is used."
    assert crop.image.size == (max(pixels.shape[:2]),) * 2 and crop.angle == 0


def test_a_panorama_without_a_face_is_squared_in_bounded_memory():
    crop = crop_face(Image.new("RGB", (30_000, 300), ORANGE))
    assert crop.box == Box(0, -14_850, 30_000, 30_000) and crop.image.size == (2048, 2048)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 3), (40, 31), (161, 32)])
def test_pictures_of_a_few_pixels_pass(size):
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert crop_face(noise).faces == 0


def test_a_crop_that_leaves_the_picture_repeats_the_border(astronaut):
    level = astronaut.rotate(crop_face(astronaut).angle, Image.Resampling.BICUBIC)
    crop = crop_face(level.crop((200, 0, 512, 512)))
    assert crop.box.left < 0 and crop.angle == 0
    pixels = np.asarray(crop.image)
    np.testing.assert_array_equal(pixels[:, 0], pixels[:, -crop.box.left])


def test_a_picture_that_is_a_face_crop_already_is_not_cropped_again(astronaut):
    assert crop_face(astronaut.crop((150, 45, 300, 195))).box == Box(0, 0, 150, 150)
    close = crop_face(astronaut.crop((165, 50, 285, 185)))  # 120 x 135: the largest square
    assert close.box.width == close.box.height == 120 and close.box.left == 0 and close.notice is None
    blank = crop_face(Image.new("RGB", (112, 112), ORANGE))
    assert blank.box == Box(0, 0, 112, 112) and blank.faces == 0 and blank.notice is None


def test_drawn_faces_pass_unchanged(faces):
    for drawn in faces["image"][:20]:
        crop = crop_face(drawn)
        assert crop.angle == 0 and crop.notice is None
        np.testing.assert_array_equal(np.asarray(crop.image), np.asarray(load_image(drawn)))


def test_a_photo_of_20_megapixels_taken_sideways_is_cropped(astronaut, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8  # turn counter-clockwise by a quarter to view
    large = astronaut.resize((4480, 4480), Image.Resampling.NEAREST).transpose(Image.Transpose.ROTATE_270)
    large.save(tmp_path / "phone.jpg", exif=exif, quality=60)
    crop = crop_face(tmp_path / "phone.jpg")
    scale = 4480 / 512
    assert crop.faces == 1
    assert abs(crop.box.left + crop.box.width / 2 - 224 * scale) < 10 * scale
    assert abs(crop.box.top + crop.box.height / 2 - 118 * scale) < 10 * scale


@pytest.mark.parametrize(
    "change",
    [lambda astronaut: astronaut.rotate(180), lambda _: Image.fromarray(data.camera())],
    ids=["over", "profile"],
)
def test_a_face_whose_tilt_cannot_be_told_stays_as_it_is_and_said_so(astronaut, change):
    crop = crop_face(change(astronaut))
    assert crop.faces == 1 and crop.angle == 0 and crop.notice.startswith("The face's tilt cannot be told")


def test_margin_and_face_are_checked(astronaut):
    for arguments in ({"margin": -0.1}, {"margin": 3}, {"margin": float("nan")}, {"face": -1}):
        with pytest.raises(SettingsError, match=next(iter(arguments))):
            crop_face(astronaut, **arguments)
