"""Pictures as people have them: read any file or array as RGB."""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import re
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from ..errors import ImageError

ImageSource = str | Path | Image.Image | np.ndarray | bytes | BinaryIO

MAX_PIXELS = 178_000_000  # just below the size that Pillow itself refuses as a decompression bomb


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
    raise ImageError(
        f"an image is a path, a PIL image, a NumPy array, bytes or a binary file; found {type(source).__name__}"
    )


def _open_path(source: str | os.PathLike) -> BinaryIO:
    path = Path(source)
    if re.match(r"[a-zA-Z][\w+.-]+://|data:", str(source)):
        raise ImageError(
            f"{str(source)[:80]}: a web address, and nothing is downloaded; save the picture and give its path"
        )
    if os.path.isdir(path):
        raise ImageError(
            f"{path}: a folder, expected one picture; give the path of a file in it, or a list of paths"
        )
    try:
        return open(path, "rb")
    except FileNotFoundError as error:
        near = difflib.get_close_matches(path.name, (other.name for other in path.parent.glob("*")), 1)
        hint = f"did you mean {near[0]}?" if near else f"check the name; relative paths start at {Path.cwd()}"
        raise ImageError(f"{path}: no such file; {hint}") from error
    except (OSError, ValueError) as error:
        raise ImageError(
            f"{str(path)[:80]!r}: cannot be opened ({error}); check the name and its permissions"
        ) from error


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
        raise ImageError(
            f"{name}: not a picture, found {_kind(head)}; expected JPEG, PNG or another picture format"
        ) from error
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
        mend = (
            "move the channels last: array.transpose(1, 2, 0)"
            if array.shape[0] in (3, 4)
            else "keep 3 channels, or 1 as [H, W]"
        )
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
        raise ImageError(
            f"{name}: an image of {image.width} x {image.height} pixels holds nothing; check where it was cut out"
        )
    if image.width * image.height > MAX_PIXELS:
        megapixels = image.width * image.height // 10**6
        raise ImageError(
            f"{name}: {megapixels} megapixels, expected at most {MAX_PIXELS // 10**6}; save a smaller copy"
        )
    try:
        image.load()
        with contextlib.suppress(Exception):  # a damaged EXIF block says nothing about the pixels
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # 16 bits, or 32 that hold 16
            return Image.fromarray(
                (np.clip(np.asarray(image), 0, 65535) / 257).round().astype(np.uint8)
            ).convert("RGB")
        if image.mode == "F":
            raise ImageError(
                f"{name}: pixels are 32-bit floats, expected 8 or 16 bits; save it with 8 bits a channel"
            )
        if image.has_transparency_data:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        return image.convert("RGB")
    except ImageError:
        raise
    except Exception as error:  # as above
        raise ImageError(
            f"{name}: damaged or cut short ({error}); copy or download the picture again"
        ) from error
