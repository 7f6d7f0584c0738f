"""The reference's training augmentation with Pillow: random crop, flip, and RandAugment.

Source: the released `blip_processors.py` and `randaugment.py`. AutoContrast and Rotate are not among the
operations there. The magnitude is 5 of 10, at which Brightness and Sharpness change nothing.
"""

import math

import numpy as np
from PIL import Image, ImageOps

OPERATIONS = (
    "Identity",
    "Brightness",
    "Sharpness",
    "Equalize",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
)
GREY = (128, 128, 128)  # where shear and shift uncover nothing
SHEAR, SHIFT = 0.15, 5  # pixels a pixel, and pixels, at magnitude 5


def augment(
    image: Image.Image, rng: np.random.Generator, *, size: int, crop: tuple[float, float], draws: int
) -> Image.Image:
    """A random variant [size, size] of an RGB image: a crop, flipped half of the time, then RandAugment.

    RandAugment draws `draws` operations and applies each half of the time.
    """
    image = random_crop(image, rng, size, crop)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for name in rng.choice(OPERATIONS, draws):
        sign = -1 if rng.random() < 0.5 else 1
        if rng.random() < 0.5:
            image = apply(str(name), image, sign)
    return image


def random_crop(
    image: Image.Image, rng: np.random.Generator, size: int, share: tuple[float, float]
) -> Image.Image:
    """Cut out a random rectangle, `share` of the area and of aspect 3/4 to 4/3, and squash it to [size,
    size] (bicubic).

    torchvision's rule: ten attempts at a rectangle that fits, then the largest central one.
    """
    width, height = image.size
    for _ in range(10):
        area = rng.uniform(*share) * width * height
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            break
    else:
        w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
        left, top = (width - w) // 2, (height - h) // 2
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + w, top + h))


def apply(name: str, image: Image.Image, sign: int = 1) -> Image.Image:
    """Apply one of `OPERATIONS` at magnitude 5; `sign` is the direction of a shear or shift."""
    shear, shift = sign * SHEAR, sign * SHIFT
    # output to input, about the centre of the corner pixel: x = x' - shear * y' for ShearX
    matrix = {
        "ShearX": (1, -shear, shear / 2, 0, 1, 0),
        "ShearY": (1, 0, 0, -shear, 1, shear / 2),
        "TranslateX": (1, 0, shift, 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, shift),
    }.get(name)
    if matrix is None:
        return ImageOps.equalize(image) if name == "Equalize" else image
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=GREY
    )
