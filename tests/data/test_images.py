"""Real files of every kind are read; faces are found, levelled and framed in real pictures."""

import io
import struct
import warnings
import zlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance, ImageFile, ImageOps
from skimage import data

from expvqa_lib.data import crop_dataset, crop_face, load_image, read_available, write_table
from expvqa_lib.data.images import NO_FACE, SIDE, _detect
from expvqa_lib.errors import ImageError, SettingsError

ORANGE, WHITE, RED = (240, 120, 20), (255, 255, 255), (255, 0, 0)
SHAPES = [(0, 4, 3), (9, 8, 2), (3, 40, 40), (2, 4, 4, 3), (9,)]  # of no picture
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def assert_near(image: Image.Image, place: tuple[int, int], colour: tuple[int, int, int]) -> None:
    assert image.mode == "RGB"
    np.testing.assert_allclose(image.getpixel(place), colour, atol=6)


@pytest.mark.parametrize(
    ("mode", "colour", "name", "expected"),
    [
        ("RGB", ORANGE, "a.jpg", ORANGE),
        ("L", 77, "a.png", (77, 77, 77)),
        ("1", 1, "a.png", WHITE),
        ("LA", (0, 0), "a.png", WHITE),
        ("RGBA", (200, 0, 0, 0), "a.png", WHITE),
        ("RGBA", (0, 0, 0, 128), "a.png", (127, 127, 127)),
        ("CMYK", (0, 255, 255, 0), "a.jpg", RED),
        ("CMYK", (0, 255, 255, 0), "a.tif", RED),
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


def test_paths_bytes_files_images_and_arrays_of_every_kind_are_read(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(NOISE).save(path)
    file = io.BytesIO(path.read_bytes())
    for source in (path, str(path), path.read_bytes(), file, Image.open(path), NOISE):
        np.testing.assert_array_equal(np.asarray(load_image(source)), NOISE)
    assert_near(load_image(np.full((5, 4), 9, np.uint8)), (0, 0), (9, 9, 9))
    assert_near(load_image(np.zeros((5, 4, 4), np.uint8)), (0, 0), WHITE)
    assert_near(load_image(np.full((5, 4), 257 * 50, np.uint16)), (0, 0), (50, 50, 50))
    assert_near(load_image(np.full((5, 8, 3), 7, np.uint8)[:, ::-2]), (0, 0), (7, 7, 7))


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("potrait.png", "potrait.png"),
        ("https://example.org/face.jpg", "https://example.org/face.jpg"),
        ("x" * 9000, "x" * 200 + ":"),
        ("a\0b", "null"),
        (None, "NoneType"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        *((np.zeros(shape, np.uint8), "array") for shape in SHAPES),
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


def test_a_decompression_bomb_is_refused_and_large_photos_pass_without_a_warning(tmp_path, monkeypatch):
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    bomb += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)  # 100 pixels are warned of, as 100 megapixels are
    with pytest.raises(ImageError, match="limit"):
        load_image(bomb)
    assert Image.MAX_IMAGE_PIXELS == 60  # Pillow's own limit stays
    Image.new("RGB", (10, 10), ORANGE).save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_near(load_image(tmp_path / "a.png"), (0, 0), ORANGE)


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    return Image.fromarray(data.astronaut())


@pytest.fixture(scope="module")
def pair(astronaut) -> Image.Image:
    """A smaller face on the left, a larger one on the right."""
    picture = Image.new("RGB", (900, 512))
    picture.paste(astronaut.resize((380, 380)), (0, 60))
    picture.paste(astronaut, (388, 0))
    return picture


def test_the_crop_frames_the_face(astronaut):
    face, notice = crop_face(astronaut)
    assert notice is None and face.mode == "RGB" and face.width == face.height
    left, top, width, height, eyes = (x / face.width for x in _detect(face)[0])
    assert 0.33 < eyes < 0.45 and 0.88 < top + height < 1.0 and abs(left + width / 2 - 0.5) < 0.1


def test_of_two_faces_the_larger_is_used_with_a_notice(pair):
    face, notice = crop_face(pair)
    assert notice.startswith("2 faces found") and abs(face.width - 128) < 10  # the smaller one: 95


def likeness(one: Image.Image, two: Image.Image) -> float:
    """Correlation of two pictures, small, grey and equally bright."""
    small = [picture.convert("L").resize((24, 24), Image.Resampling.BOX) for picture in (one, two)]
    return np.corrcoef([np.ravel(ImageOps.equalize(picture)) for picture in small])[0, 1]


@pytest.mark.parametrize("turn", [-90, -25, 10, 40, 135, 180, -135])
def test_a_tilted_face_is_levelled(astronaut, turn):
    tilted = astronaut.rotate(-turn, Image.Resampling.BICUBIC, center=(225, 118), fillcolor="grey")
    assert likeness(crop_face(astronaut)[0], crop_face(tilted)[0]) > 0.85


def test_the_face_is_found_and_framed_in_changed_pictures(astronaut):
    brightness = ImageEnhance.Brightness(astronaut)
    far = ImageOps.expand(astronaut, (700, 900, 2400, 1000), "grey")  # the face is 2 % of the long side
    for picture in (astronaut.convert("L"), brightness.enhance(0.2), brightness.enhance(2.0), far):
        face, notice = crop_face(picture)
        assert notice is None and likeness(crop_face(astronaut)[0], face) > 0.7


def test_small_real_faces_are_found_and_background_and_things_are_not():
    notices = []
    for patch in data.lfw_subset()[75:125]:  # 25 faces, then patches of background
        picture = Image.fromarray((255 * patch).clip(0, 255).astype(np.uint8)).resize((75, 75), 3)
        notices.append(crop_face(ImageOps.expand(picture.convert("RGB"), 75, (128, 128, 128)))[1])
    assert sum(notice != NO_FACE for notice in notices[:25]) >= 23
    assert notices[25:] == [NO_FACE] * 25
    for pixels in (data.coffee(), data.chelsea(), data.coins(), data.text()):
        face, notice = crop_face(pixels)
        assert notice == NO_FACE and face.size == (max(pixels.shape[:2]),) * 2


@pytest.mark.parametrize(("size", "side"), [((30_000, 300), 2048), ((1, 1), 1), ((900, 1), 900)])
def test_pictures_of_odd_sizes_are_squared_in_bounded_memory(size, side):
    assert crop_face(Image.new("RGB", size, ORANGE))[0].size == (side, side)


@pytest.mark.parametrize(("box", "eyes"), [((165, 50, 285, 185), 0.35), ((177, 20, 273, 220), 0.40)])
def test_narrow_pictures_keep_the_chin(astronaut, box, eyes):
    face, notice = crop_face(astronaut.crop(box))  # the picture's width fits, or the border is repeated
    ((_, top, _, height, found),) = _detect(face)
    assert notice is None and face.width == face.height
    np.testing.assert_allclose(np.array([found, top + height]) / face.height, [eyes, 0.94], atol=0.05)


def test_a_picture_that_is_a_face_crop_already_is_not_cropped_again(astronaut, faces):
    for picture in (astronaut.crop((150, 45, 300, 195)), *map(load_image, faces["image"][:5])):
        assert crop_face(picture) == (picture, None)


@pytest.fixture
def photos(tmp_path, astronaut):
    """A photograph, its mirror image, a wall and a file that is no picture, in a face table."""
    folder = tmp_path / "photos"
    (folder / "a").mkdir(parents=True)
    astronaut.save(folder / "a" / "one.png")
    ImageOps.mirror(astronaut).save(folder / "two.jpg")
    Image.new("RGB", (400, 300), "grey").save(folder / "wall.png")
    (folder / "text.jpg").write_text("no picture")
    names = ["a/one.png", "two.jpg", "wall.png", "text.jpg"]
    table = pd.DataFrame(
        {"image": names, "subject": list("abcd"), "AU12": [1, 0, 1, 0], "left": 3, "width": 9}
    )
    write_table(table.assign(dataset="mine", frame="0", split="train"), tmp_path / "mine.parquet")
    return tmp_path


def test_faces_are_cut_out_once_and_what_is_dropped_is_counted(photos):
    output = photos / "faces"
    options = {"table": photos / "mine.parquet", "root": photos / "photos", "output": output}
    cropped, dropped = crop_dataset(**options)
    assert not {"left", "width"} & set(cropped), "boxes of the whole picture stay with a crop"
    assert len(cropped) == 2 and dropped == {"no face found": 1, "image that cannot be read": 1}
    faces = read_available(output, photos / "tables")
    assert faces["AU12"].tolist() == [1, 0] and faces["image"].str.startswith(str(output)).all()
    for path in faces["image"]:
        assert max(load_image(path).size) <= SIDE
    first, second = output / "a/one.png.jpg", output / "two.jpg"
    before = first.stat().st_mtime_ns
    second.unlink()  # as after a run that was cut off
    crop_dataset(**options)
    assert first.stat().st_mtime_ns == before and second.is_file()
    with pytest.raises(SettingsError, match="holds the images themselves"):
        crop_dataset(**options | {"output": photos / "photos"})
