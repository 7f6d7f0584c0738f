"""Reading any picture, and framing the face in it: real files, and the real portrait that scikit-image carries."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile
from skimage import data

from expvqa_lib.errors import ImageError, SettingsError
from expvqa_lib.photos import MAX_PIXELS, Box, crop_face, find_faces, load_image

ORANGE = (240, 120, 20)


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    return Image.fromarray(data.astronaut())


def saved(image: Image.Image, path, **options):
    image.save(path, **options)
    return path


def first_pixel(source) -> tuple[int, ...]:
    image = load_image(source)
    assert image.mode == "RGB"
    return image.getpixel((0, 0))


def near(found, expected, tolerance=4) -> bool:
    return max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= tolerance


@pytest.mark.parametrize(
    ("mode", "colour", "name", "expected"),
    [
        ("RGB", ORANGE, "a.png", ORANGE),
        ("RGB", ORANGE, "a.jpg", ORANGE),
        ("RGB", ORANGE, "a.webp", ORANGE),
        ("RGB", ORANGE, "a.bmp", ORANGE),
        ("L", 77, "a.png", (77, 77, 77)),
        ("1", 1, "a.png", (255, 255, 255)),
        ("LA", (0, 0), "a.png", (255, 255, 255)),
        ("RGBA", (*ORANGE, 255), "a.png", ORANGE),
        ("RGBA", (200, 0, 0, 0), "a.png", (255, 255, 255)),
        ("RGBA", (0, 0, 0, 128), "a.png", (127, 127, 127)),
        ("CMYK", (0, 255, 255, 0), "a.jpg", (255, 0, 0)),
        ("CMYK", (0, 255, 255, 0), "a.tif", (255, 0, 0)),
        ("I;16", 65535, "a.png", (255, 255, 255)),
        ("I;16", 257 * 100, "a.tif", (100, 100, 100)),
    ],
)
def test_files_of_every_mode_become_rgb(tmp_path, mode, colour, name, expected):
    assert near(first_pixel(saved(Image.new(mode, (16, 12), colour), tmp_path / name)), expected)


def test_a_palette_with_a_transparent_colour_becomes_white_there(tmp_path):
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([0, 0, 0, *ORANGE, 9, 9, 9])
    assert first_pixel(saved(picture, tmp_path / "solid.png")) == ORANGE
    assert first_pixel(saved(picture, tmp_path / "clear.png", transparency=1)) == (255, 255, 255)


def test_a_photo_held_sideways_is_turned_upright(tmp_path):
    picture = Image.new("RGB", (40, 20), "white")
    picture.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by a quarter to view
    path = saved(picture, tmp_path / "phone.jpg", exif=exif, quality=95)
    image = load_image(path)
    assert image.size == (20, 40)
    assert near(image.getpixel((10, 5)), (255, 0, 0), 8) and near(image.getpixel((10, 35)), (255, 255, 255), 8)
    assert load_image(image).size == load_image(Image.open(path)).size == (20, 40)


def test_the_first_frame_of_an_animation_is_read(tmp_path):
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "blue")]
    assert first_pixel(saved(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])) == (255, 0, 0)


def test_paths_bytes_files_images_and_arrays_are_the_same_picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    path = saved(Image.fromarray(pixels), tmp_path / "a.png")
    with path.open("rb") as file:
        for source in (path, str(path), path.read_bytes(), file, io.BytesIO(path.read_bytes()), Image.open(path), pixels):
            np.testing.assert_array_equal(np.asarray(load_image(source)), pixels)


def test_arrays_of_grey_alpha_and_16_bits_are_read():
    assert first_pixel(np.full((5, 4), 9, np.uint8)) == (9, 9, 9)
    assert first_pixel(np.zeros((5, 4, 4), np.uint8)) == (255, 255, 255)
    assert first_pixel(np.full((5, 4), 257 * 50, np.uint16)) == (50, 50, 50)
    assert first_pixel(np.full((5, 8, 3), 7, np.uint8)[:, ::-2]) == (7, 7, 7)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, 4, 3), np.uint8), r"\[0, 4, 3\].*cut out"),
        (np.zeros((9, 8, 2), np.uint8), r"\[9, 8, 2\].*keep 3 channels"),
        (np.zeros((9, 8, 7), np.uint8), r"\[9, 8, 7\].*keep 3 channels"),
        (np.zeros((3, 40, 40), np.uint8), r"transpose\(1, 2, 0\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), "one picture at a time"),
        (np.zeros(9, np.uint8), r"\[9\], expected uint8"),
        (np.zeros((4, 4, 3), np.float32), r"float32.*\* 255"),
    ],
)
def test_arrays_that_are_no_picture_are_explained(array, message):
    with pytest.raises(ImageError, match=message):
        load_image(array)


def test_an_image_without_pixels_is_refused():
    with pytest.raises(ImageError, match="0 x 5"):
        load_image(Image.new("RGB", (0, 5)))


def test_what_is_no_file_is_explained(tmp_path):
    saved(Image.new("RGB", (4, 4)), tmp_path / "portrait.png")
    for source, message in [
        (tmp_path / "potrait.png", "no such file; did you mean portrait.png"),
        (tmp_path / "nowhere" / "zzz.png", "no such file; check the name"),
        (tmp_path, "a folder, expected one picture"),
        ("https://example.org/face.jpg", "nothing is downloaded"),
        ("data:image/png;base64," + "A" * 9000, "nothing is downloaded"),
        ("x" * 9000, "cannot be opened"),
        ("a\0b", "cannot be opened"),
        (None, "found NoneType"),
        (["a.png"], "found list"),
        (io.StringIO("text"), "binary mode"),
    ]:
        with pytest.raises(ImageError, match=message):
            load_image(source)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"\nDear reader, this is a letter", "not a picture, found text that begins 'Dear reader"),
        ("é".encode() * 400, "found text that begins 'éé"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (bytes(range(128, 256)) * 4, "unknown or damaged content"),
    ],
)
def test_files_that_are_no_picture_are_named_and_described(tmp_path, content, message):
    path = tmp_path / "face.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=f"face.jpg.*{message}"):
        load_image(path)
    with pytest.raises(ImageError, match=message):
        load_image(content)


@pytest.mark.parametrize("name", ["cut.jpg", "cut.png", "cut.gif", "cut.webp", "cut.tif"])
def test_a_file_cut_short_is_refused(tmp_path, name):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path = saved(noise, tmp_path / name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=name):
        load_image(path)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_damage_within_a_png_is_refused(tmp_path):
    path = saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)), tmp_path / "a.png")
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    with pytest.raises(ImageError, match="damaged"):
        load_image(bytes(content))


def test_a_decompression_bomb_is_refused_and_pillows_own_limit_stays(monkeypatch):
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    bomb += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError, match="exceeds limit.*smaller copy"):
        load_image(bomb)
    assert limit == Image.MAX_IMAGE_PIXELS and limit * 2 >= MAX_PIXELS
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match="900 megapixels, expected at most 178"):
        load_image(bomb)


def test_large_photos_pass_without_a_warning(tmp_path, monkeypatch):
    path = saved(Image.new("RGB", (10, 10), ORANGE), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)  # 100 pixels are warned of, as 100 megapixels are
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert first_pixel(path) == ORANGE


def test_the_astronaut_has_one_face_and_its_crop_frames_it(astronaut):
    (found,) = find_faces(astronaut)
    assert abs(found.left + found.width / 2 - 225) < 10 and abs(found.top + found.height / 2 - 118) < 10
    assert 85 < found.width < 115
    crop = crop_face(astronaut)
    assert crop.faces == 1 and crop.notice is None
    assert crop.image.mode == "RGB" and crop.image.size == (crop.box.width, crop.box.height) and crop.box.width == crop.box.height
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


@pytest.mark.parametrize("name", ["coffee", "camera", "chelsea", "brick"])
def test_pictures_without_a_human_face_are_used_whole_and_said_so(name):
    pixels = getattr(data, name)()
    crop = crop_face(pixels)
    assert crop.faces == 0 and crop.notice == "No face found: the whole picture is used."
    assert crop.image.size == (max(pixels.shape[:2]),) * 2


def test_a_crop_that_leaves_the_picture_repeats_the_border(astronaut):
    crop = crop_face(astronaut.crop((172, 0, 512, 512)))
    assert crop.box.left < 0
    pixels = np.asarray(crop.image)
    np.testing.assert_array_equal(pixels[:, 0], pixels[:, -crop.box.left])


def test_a_picture_that_is_a_face_crop_already_is_not_cropped_again(astronaut):
    assert crop_face(astronaut.crop((150, 45, 300, 195))).box == Box(0, 0, 150, 150)
    portrait = crop_face(astronaut.crop((145, 30, 305, 230)))  # 160 x 200: a square of it, around the face
    assert portrait.box.width == portrait.box.height == 160 and portrait.notice is None
    blank = crop_face(Image.new("RGB", (112, 112), ORANGE))
    assert blank.box == Box(0, 0, 112, 112) and blank.faces == 0 and blank.notice is None


def test_a_photo_of_20_megapixels_taken_sideways_is_cropped(astronaut, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8  # turn counter-clockwise by a quarter to view
    large = astronaut.resize((4480, 4480), Image.Resampling.NEAREST).transpose(Image.Transpose.ROTATE_270)
    crop = crop_face(saved(large, tmp_path / "phone.jpg", exif=exif, quality=60))
    scale = 4480 / 512
    assert crop.faces == 1
    assert abs(crop.box.left + crop.box.width / 2 - 224 * scale) < 10 * scale
    assert abs(crop.box.top + crop.box.height / 2 - 118 * scale) < 10 * scale


def test_margin_and_face_are_checked(astronaut):
    for arguments in ({"margin": -0.1}, {"margin": 3}, {"margin": float("nan")}, {"face": -1}):
        with pytest.raises(SettingsError, match=next(iter(arguments))):
            crop_face(astronaut, **arguments)
