"""Pictures as people have them: read any file or array as RGB."""

import contextlib
import io
import os
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import ImageError

ImageSource = str | Path | Image.Image | np.ndarray | bytes | BinaryIO


def load_image(source: ImageSource) -> Image.Image:
    """Return any picture as an upright RGB image; transparent parts are white, animations one frame.

    Args:
        source: a path, the file's bytes, a binary file, a PIL image, or an array [H, W], [H, W, 3] or [H, W,
            4] of uint8 or uint16. 16 bits become 8 (65535 is white).

    Raises:
        ImageError: it is missing, not a picture, damaged, empty, too large (over 178 megapixels), or of
            another shape or type.
    """
    name = source if isinstance(source, str | os.PathLike) else f"the given {type(source).__name__}"
    try:
        if isinstance(source, np.ndarray):
            source = _from_array(source)
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


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype == np.uint16:
        array = (array / 257).round().astype(np.uint8)
    if array.dtype != np.uint8 or not (array.ndim == 2 or array.ndim == 3 and array.shape[2] in (3, 4)):
        raise ValueError(
            f"{array.dtype} of shape {list(array.shape)}, where [height, width], [height, width, 3] or"
            " [height, width, 4] of uint8 is needed"
        )
    return Image.fromarray(np.ascontiguousarray(array))


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
