"""Reading any picture as people have them: real files of every kind."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from expvqa_lib.data.images import load_image
from expvqa_lib.errors import ImageError

ORANGE = (240, 120, 20)


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
    assert near(image.getpixel((10, 5)), (255, 0, 0), 8) and near(
        image.getpixel((10, 35)), (255, 255, 255), 8
    )
    assert load_image(image).size == load_image(Image.open(path)).size == (20, 40)


def test_the_first_frame_of_an_animation_is_read(tmp_path):
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "blue")]
    assert first_pixel(saved(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])) == (
        255,
        0,
        0,
    )


def test_paths_bytes_files_images_and_arrays_are_the_same_picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    path = saved(Image.fromarray(pixels), tmp_path / "a.png")
    with path.open("rb") as file:
        for source in (
            path,
            str(path),
            path.read_bytes(),
            file,
            io.BytesIO(path.read_bytes()),
            Image.open(path),
            pixels,
        ):
            np.testing.assert_array_equal(np.asarray(load_image(source)), pixels)


def test_arrays_of_grey_alpha_and_16_bits_are_read():
    assert first_pixel(np.full((5, 4), 9, np.uint8)) == (9, 9, 9)
    assert first_pixel(np.zeros((5, 4, 4), np.uint8)) == (255, 255, 255)
    assert first_pixel(np.full((5, 4), 257 * 50, np.uint16)) == (50, 50, 50)
    assert first_pixel(np.full((5, 8, 3), 7, np.uint8)[:, ::-2]) == (7, 7, 7)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((0, 4, 3), np.uint8),
        ((9, 8, 2), np.uint8),
        ((3, 40, 40), np.uint8),
        ((2, 4, 4, 3), np.uint8),
        ((9,), np.uint8),
        ((4, 4, 3), np.float32),
    ],
)
def test_arrays_that_are_no_picture_are_refused_with_what_was_found(shape, dtype):
    with pytest.raises(ImageError, match="array"):
        load_image(np.zeros(shape, dtype))


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("potrait.png", "potrait.png"),
        (".", "^.: "),
        ("https://example.org/face.jpg", "https://example.org/face.jpg"),
        ("x" * 9000, "x" * 200 + ":"),
        ("a\0b", "null"),
        (None, "NoneType"),
        (["a.png"], "list"),
        (io.StringIO("text"), "StringIO"),
        (Image.new("RGB", (0, 5)), "0 x 5"),
        (b"", "bytes"),
        (b"Dear reader, this is a letter", "bytes"),
    ],
)
def test_what_is_no_picture_is_named(source, name):
    with pytest.raises(ImageError, match=name):
        load_image(source)


@pytest.mark.parametrize("name", ["cut.jpg", "cut.png", "cut.gif", "cut.webp", "cut.tif"])
def test_a_file_cut_short_is_refused(tmp_path, name):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path = saved(noise, tmp_path / name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=name):
        load_image(path)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_damage_within_a_png_is_refused(tmp_path):
    path = saved(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)),
        tmp_path / "a.png",
    )
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    with pytest.raises(ImageError, match="bytes"):
        load_image(bytes(content))


def test_a_decompression_bomb_is_refused_and_pillows_own_limit_stays():
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    bomb += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError, match="limit"):
        load_image(bomb)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_large_photos_pass_without_a_warning(tmp_path, monkeypatch):
    path = saved(Image.new("RGB", (10, 10), ORANGE), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)  # 100 pixels are warned of, as 100 megapixels are
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert first_pixel(path) == ORANGE
