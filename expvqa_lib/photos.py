"""Pictures as people have them: read any file or array as RGB, find the faces, and frame one as the corpora do."""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import re
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from .errors import ImageError, SettingsError

ImageSource = str | Path | Image.Image | np.ndarray | bytes | BinaryIO

MAX_PIXELS = 178_000_000  # just below the size that Pillow itself refuses as a decompression bomb
SEARCH_SIDE = 480  # px: faces are searched on a copy whose long side is at most this
SMALLEST_FACE = 0.08  # of the copy's long side
ALREADY_CROPPED = 160  # px: a square picture this small is taken for a face crop
WINDOW = 24  # px: the cascade was trained on squares of this side


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of a picture; it may reach out of it."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class Crop:
    """One face cut out: the square RGB `image`, its `box` in the original, the count of `faces` found, and a `notice` or None."""

    image: Image.Image
    box: Box
    faces: int
    notice: str | None


def load_image(source: ImageSource) -> Image.Image:
    """Return any picture as an upright RGB image; transparent parts become white, of an animation the first frame is read.

    `source` is a path, the file's bytes, a binary file object, a PIL image, or an array [H, W], [H, W, 3] or [H, W, 4] of uint8
    or uint16. 16 bits become 8 (65535 is white).

    Raises:
        ImageError: it is missing, not a picture, damaged, empty, too large (over 178 megapixels), or of another shape or type.
    """
    if isinstance(source, Image.Image):
        return _to_rgb(source, "the PIL image")
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source), "the array")
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode(io.BytesIO(source), "the given bytes")
    if isinstance(source, str | os.PathLike):
        with _open_path(source) as file:
            return _decode(file, str(source))
    if hasattr(source, "read"):
        name = str(getattr(source, "name", "the file object"))
        content = source.read()
        if not isinstance(content, bytes):
            raise ImageError(f'{name}: opened as text; a picture needs binary mode: open(path, "rb")')
        return _decode(io.BytesIO(content), name)
    raise ImageError(f"an image is a path, a PIL image, a NumPy array, bytes or a binary file; found {type(source).__name__}")


def find_faces(source: ImageSource) -> list[Box]:
    """Return the frontal, upright faces, largest first, in pixels of the picture; a box spans the cheeks, from forehead to chin.

    The cascade of local binary patterns that scikit-image carries scans a pyramid of the picture and of its mirror image. It
    answers to a face dozens of times and in both; a false alarm seldom does so. Profiles, tilted faces and faces narrower than 8%
    of the picture's long side are missed.

    Raises:
        ImageError: the picture cannot be read.
    """
    image = load_image(source)
    grey = image.convert("L")
    grey.thumbnail((SEARCH_SIDE, SEARCH_SIDE), Image.Resampling.BOX)
    scale = max(image.size) / max(grey.size)
    boxes: list[Box] = []
    for cluster in _clusters(_scan(grey)):
        mirrored = cluster[:, 3].sum()
        # portraits, also dark, noisy or turned by 8 degrees: 25 to 54 answers, 11 or more from each side; false alarms: at most 9
        if len(cluster) >= 14 and min(mirrored, len(cluster) - mirrored) >= 5:
            left, top, side = (round(v) for v in cluster[:, :3].mean(0) * scale)
            box = Box(left, top, side, side)
            if all(_overlap(box, kept) < 0.5 for kept in boxes):
                boxes.append(box)
    return sorted(boxes, key=lambda b: (-b.width, b.left, b.top))


def crop_face(source: ImageSource, *, margin: float = 0.0, face: int = 0) -> Crop:
    """Frame one face as the corpora do: eyes at about 40% of the height, the chin at about 94%, both cheeks inside.

    A picture that a face already fills stays whole, but for what makes it square. `margin` adds room on each side, as a share of
    the frame; `face` picks among `find_faces`, 0 the largest. What lies outside of the picture repeats its border.

    Raises:
        ImageError: the picture cannot be read, or has no face number `face`.
        SettingsError: `margin` is not within 0 to 2, or `face` is negative.
    """
    if not 0 <= margin <= 2:
        raise SettingsError(f"margin={margin}: expected 0 (the face fills the crop) to 2 (five times as wide)")
    if face < 0:
        raise SettingsError(f"face={face}: expected 0 for the largest face, 1 for the next, ...")
    image = load_image(source)
    found = find_faces(image)
    if face and face >= len(found):
        raise ImageError(f"face={face}: {len(found)} found in this picture; count from 0, or leave `face` out")
    width, height = image.size
    short, long = sorted(image.size)
    small_square = long <= ALREADY_CROPPED and long <= 1.1 * short
    notice = None
    if len(found) > 1:
        notice = f"{len(found)} faces found: {'the largest' if face == 0 else f'number {face + 1} by size'} is used."
    if not found and not small_square:
        box = Box((width - long) // 2, (height - long) // 2, long, long)
        notice = "No face found: the whole picture is used."
    elif not found or (face == 0 and found[0].width >= (0.4 if small_square else 0.55) * width):
        seen = found[0] if found else Box(0, 0, width, height)
        left = round(seen.left + seen.width / 2 - short / 2)
        top = round(seen.top + seen.height / 2 - short / 2)
        box = Box(min(max(left, 0), width - short), min(max(top, 0), height - short), short, short)
    else:
        seen = found[face]
        frame = 1.3 * seen.width  # on portraits, the eyes are 0.375 of the found box below its top, the chin is 1.07 below
        side = round(frame * (1 + 2 * margin))
        left = round(seen.left + seen.width / 2 - side / 2)
        box = Box(left, round(seen.top - 0.145 * seen.width - margin * frame), side, side)
    return Crop(_cut(image, box), box, len(found), notice)


def _open_path(source: str | os.PathLike) -> BinaryIO:
    path = Path(source)
    if re.match(r"[a-zA-Z][\w+.-]+://|data:", str(source)):
        raise ImageError(f"{str(source)[:80]}: a web address, and nothing is downloaded; save the picture and give its path")
    if os.path.isdir(path):
        raise ImageError(f"{path}: a folder, expected one picture; give the path of a file in it, or a list of paths")
    try:
        return open(path, "rb")
    except FileNotFoundError as error:
        near = difflib.get_close_matches(path.name, (other.name for other in path.parent.glob("*")), 1)
        hint = f"did you mean {near[0]}?" if near else f"check the name; relative paths start at {Path.cwd()}"
        raise ImageError(f"{path}: no such file; {hint}") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"{str(path)[:80]!r}: cannot be opened ({error}); check the name and its permissions") from error


def _decode(file: BinaryIO, name: str) -> Image.Image:
    head = file.read(256)
    file.seek(0)
    if not head:
        raise ImageError(f"{name}: an empty file; copy or download the picture again")
    try:
        with warnings.catch_warnings():  # large photos are welcome; _to_rgb refuses what is too large
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(file)
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: {error}; save a smaller copy") from error
    except Exception as error:  # decoders meet damage with a dozen kinds of exceptions
        raise ImageError(f"{name}: not a picture, found {_kind(head)}; expected JPEG, PNG or another picture format") from error
    return _to_rgb(image, name)


def _kind(head: bytes) -> str:
    """Say in words what a file that no decoder knows begins with."""
    if head[4:8] == b"ftyp":
        return "a HEIC photo or a video (save it as JPEG first)"
    text = head.decode(errors="ignore")
    if "\0" not in text and len(text.encode()) > len(head) - 4:  # the last character may be cut
        return f"text that begins {text.strip()[:30]!r}"
    return f"unknown or damaged content that begins {head[:8]!r}"


def _from_array(array: np.ndarray) -> Image.Image:
    expected = "expected uint8 of shape [height, width], [height, width, 3] or [height, width, 4]"
    found = f"the array: found {array.dtype} of shape {list(array.shape)}, {expected}"
    if array.ndim == 4:
        raise ImageError(f"{found}; give one picture at a time")
    if array.ndim == 3 and array.shape[2] not in (3, 4):
        mend = "move the channels last: array.transpose(1, 2, 0)" if array.shape[0] in (3, 4) else "keep 3 channels, or 1 as [H, W]"
        raise ImageError(f"{found}; {mend}")
    if array.ndim not in (2, 3) or array.size == 0:
        raise ImageError(f"{found}; check where it was cut out")
    if array.dtype == np.uint16:
        array = (array / 257).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise ImageError(f"{found}; values of 0 to 1 become uint8 by (array * 255).astype('uint8')")
    return Image.fromarray(np.ascontiguousarray(array))


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if 0 in image.size:
        raise ImageError(f"{name}: an image of {image.width} x {image.height} pixels holds nothing; check where it was cut out")
    if image.width * image.height > MAX_PIXELS:
        megapixels = image.width * image.height // 10**6
        raise ImageError(f"{name}: {megapixels} megapixels, expected at most {MAX_PIXELS // 10**6}; save a smaller copy")
    try:
        image.load()
        with contextlib.suppress(Exception):  # a damaged EXIF block says nothing about the pixels
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # 16 bits, or 32 that hold 16
            return Image.fromarray((np.clip(np.asarray(image), 0, 65535) / 257).round().astype(np.uint8)).convert("RGB")
        if image.mode == "F":
            raise ImageError(f"{name}: pixels are 32-bit floats, expected 8 or 16 bits; save it with 8 bits a channel")
        if image.has_transparency_data:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        return image.convert("RGB")
    except ImageError:
        raise
    except Exception as error:  # as above
        raise ImageError(f"{name}: damaged or cut short ({error}); copy or download the picture again") from error


@cache
def _cascade():
    from skimage.data import lbp_frontal_face_cascade_filename
    from skimage.feature import Cascade

    return Cascade(lbp_frontal_face_cascade_filename())


def _scan(grey: Image.Image) -> np.ndarray:
    """Return the cascade's answers as rows [left, top, side, mirrored] in pixels of `grey`.

    Only the window's own size is scanned, on resized pictures: at other sizes scikit-image rounds the blocks that it compares.
    The mean is taken off because it sums them in single precision.
    """
    rows, pad = [], 2
    side = max(float(WINDOW), SMALLEST_FACE * max(grey.size))
    while side <= 1.05 * min(grey.size):
        size = [max(WINDOW + 1, round(s * WINDOW / side)) for s in grey.size]
        pixels = np.pad(np.asarray(grey.resize(size, Image.Resampling.BILINEAR), float) / 255, pad, mode="edge")  # [h, w]
        pixels -= pixels.mean()
        for mirrored in (0, 1):
            view = np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels
            for hit in _cascade().detect_multi_scale(view, 1.1, 1, (WINDOW, WINDOW), (WINDOW + 1, WINDOW + 1), 1, 1.1):
                column = view.shape[1] - WINDOW - hit["c"] if mirrored else hit["c"]
                rows.append(((column - pad) * grey.width / size[0], (hit["r"] - pad) * grey.height / size[1], side, mirrored))
        side *= 1.1
    return np.array(sorted(rows), float).reshape(-1, 4)  # sorted: threads find them in any order


def _clusters(answers: np.ndarray) -> list[np.ndarray]:
    """Split rows [n, 4] into clusters, largest first, each around the row that most others overlap (IoU above 0.4)."""
    low, high = answers[:, None, :2], answers[:, None, :2] + answers[:, None, 2:3]  # [n, 1, 2]
    shared = np.clip(np.minimum(high, high.swapaxes(0, 1)) - np.maximum(low, low.swapaxes(0, 1)), 0, None).prod(-1)  # [n, n]
    area = answers[:, 2] ** 2
    near = shared / (area[:, None] + area - shared) > 0.4
    clusters, left = [], np.ones(len(answers), bool)
    while left.any():
        members = near[np.argmax((near & left).sum(1) * left)] & left
        clusters.append(answers[members])
        left &= ~members
    return clusters


def _overlap(a: Box, b: Box) -> float:
    """Return the shared share of the smaller box."""
    wide = min(a.left + a.width, b.left + b.width) - max(a.left, b.left)
    high = min(a.top + a.height, b.top + b.height) - max(a.top, b.top)
    return max(wide, 0) * max(high, 0) / min(a.width * a.height, b.width * b.height)


def _cut(image: Image.Image, box: Box) -> Image.Image:
    """Return the box's pixels; outside of the picture its border repeats."""
    right, bottom = box.left + box.width, box.top + box.height
    inside = image.crop((max(box.left, 0), max(box.top, 0), min(right, image.width), min(bottom, image.height)))
    pad = ((max(-box.top, 0), max(bottom - image.height, 0)), (max(-box.left, 0), max(right - image.width, 0)), (0, 0))
    return Image.fromarray(np.pad(np.asarray(inside), pad, mode="edge")) if any(map(any, pad)) else inside
