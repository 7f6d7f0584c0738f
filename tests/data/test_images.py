"""Reading any picture as people have them: real files of every kind."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from expvqa_lib.data import load_image
from expvqa_lib.errors import ImageError

ORANGE, WHITE, RED = (240, 120, 20), (255, 255, 255), (255, 0, 0)
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def assert_near(image: Image.Image, place: tuple[int, int], colour: tuple[int, int, int]) -> None:
    assert image.mode == "RGB"
    np.testing.assert_allclose(image.getpixel(place), colour, atol=6)


@pytest.mark.parametrize(
    ("mode", "colour", "name", "expected"),
    [
        ("RGB", ORANGE, "a.jpg", ORANGE),
        ("RGB", ORANGE, "a.webp", ORANGE),
        ("L", 77, "a.png", (77, 77, 77)),
        ("1", 1, "a.png", WHITE),
        ("LA", (0, 0), "a.png", WHITE),
        ("RGBA", (200, 0, 0, 0), "a.png", WHITE),
        ("RGBA", (0, 0, 0, 128), "a.png", (127, 127, 127)),
        ("CMYK", (0, 255, 255, 0), "a.jpg", RED),
        ("CMYK", (0, 255, 255, 0), "a.tif", RED),
        ("I;16", 65535, "a.png", WHITE),
        ("I;16", 257 * 100, "a.tif", (100, 100, 100)),
    ],
)
def test_files_of_every_mode_become_rgb(tmp_path, mode, colour, name, expected):
    Image.new(mode, (16, 12), colour).save(tmp_path / name)
    assert_near(load_image(tmp_path / name), (0, 0), expected)


def test_a_palettes_transparent_colour_is_white_and_an_animation_is_its_first_frame(tmp_path):
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([0, 0, 0, *ORANGE, 9, 9, 9])
    picture.save(tmp_path / "clear.png", transparency=1)
    assert_near(load_image(tmp_path / "clear.png"), (0, 0), WHITE)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.gif", save_all=True, append_images=[picture])
    assert_near(load_image(tmp_path / "a.gif"), (0, 0), RED)


def test_a_photo_held_sideways_is_turned_upright_once(tmp_path):
    picture = Image.new("RGB", (40, 20), "white")
    picture.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by a quarter to view
    picture.save(tmp_path / "phone.jpg", exif=exif, quality=95)
    image = load_image(tmp_path / "phone.jpg")
    assert image.size == load_image(image).size == (20, 40)
    assert_near(image, (10, 5), RED)
    assert_near(image, (10, 35), WHITE)


def test_paths_bytes_files_images_and_arrays_are_the_same_picture(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(NOISE).save(path)
    content = path.read_bytes()
    with path.open("rb") as file:
        for source in (path, str(path), content, file, io.BytesIO(content), Image.open(path), NOISE):
            np.testing.assert_array_equal(np.asarray(load_image(source)), NOISE)


def test_arrays_of_grey_alpha_and_16_bits_are_read():
    assert_near(load_image(np.full((5, 4), 9, np.uint8)), (0, 0), (9, 9, 9))
    assert_near(load_image(np.zeros((5, 4, 4), np.uint8)), (0, 0), WHITE)
    assert_near(load_image(np.full((5, 4), 257 * 50, np.uint16)), (0, 0), (50, 50, 50))
    assert_near(load_image(np.full((5, 8, 3), 7, np.uint8)[:, ::-2]), (0, 0), (7, 7, 7))


@pytest.mark.parametrize("shape", [(0, 4, 3), (9, 8, 2), (3, 40, 40), (2, 4, 4, 3), (9,)])
def test_arrays_that_are_no_picture_are_refused(shape):
    with pytest.raises(ImageError, match="array"):
        load_image(np.zeros(shape, np.uint8))
    with pytest.raises(ImageError, match="float32"):
        load_image(np.zeros((4, 4, 3), np.float32))


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("potrait.png", "potrait.png"),
        ("https://example.org/face.jpg", "https://example.org/face.jpg"),
        ("x" * 9000, "x" * 200 + ":"),
        ("a\0b", "null"),
        (None, "NoneType"),
        (io.StringIO("text"), "StringIO"),
        (Image.new("RGB", (0, 5)), "0 x 5"),
        (b"Dear reader, this is a letter", "bytes"),
    ],
)
def test_what_is_no_picture_is_named(source, name):
    with pytest.raises(ImageError, match=name):
        load_image(source)


@pytest.mark.parametrize("name", ["cut.jpg", "cut.png", "cut.gif", "cut.webp", "cut.tif"])
def test_a_file_cut_short_is_refused(tmp_path, name):
    path = tmp_path / name
    Image.fromarray(NOISE).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=name):
        load_image(path)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_decompression_bomb_is_refused_and_pillows_own_limit_stays():
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    bomb += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError, match="limit"):
        load_image(bomb)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_large_photos_pass_without_a_warning(tmp_path, monkeypatch):
    Image.new("RGB", (10, 10), ORANGE).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)  # 100 pixels are warned of, as 100 megapixels are
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_near(load_image(tmp_path / "a.png"), (0, 0), ORANGE)
