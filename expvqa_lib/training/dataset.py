"""Batches of question-answer pairs, several about each image, and the reference's training augmentation.

Pairs are drawn and images are augmented anew in every epoch.
"""

import math
from collections.abc import Mapping, Sequence

import datasets
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from transformers import InstructBlipProcessor

from ..data.images import load_image
from ..errors import TableError
from ..files import fingerprint
from ..model import encode, reference_text
from .recipe import Recipe

KEYS = ("image", "text_input", "text_output", "question_type")
WEIGHTS = {"Q1": 1, "Q2": 1, "Q3": 4}
"""How often a type of question is drawn, beside the others."""

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


class ImagePairs(torch.utils.data.Dataset):
    """Pairs grouped by image: an item is one image with up to `Recipe.pairs_per_image` of its pairs.

    Where the recipe counts steps, each image is one item, and its pairs are drawn by the `WEIGHTS` of their
    types. Where it counts epochs, an image has as many items as it takes to show each of its pairs once, in
    random order.
    """

    def __init__(self, pairs: datasets.Dataset, recipe: Recipe, *, train: bool = True) -> None:
        """Group one split of the pairs.

        Raises:
            TableError: the split is empty, lacks a column of `KEYS`, or has a missing value there.
        """
        if missing := [key for key in KEYS if key not in pairs.column_names]:
            raise TableError(
                f"the pairs have no column {', '.join(missing)}; found {', '.join(pairs.column_names)}"
            )
        if not len(pairs):
            raise TableError("no pairs to train on: the split is empty, or the curriculum leaves none of it")
        self.recipe, self.train, self.epoch = recipe, train, 0
        self.images, image = _factorize(pairs, "image")
        self.questions, self.question = _factorize(pairs, "text_input")
        self.answers, self.answer = _factorize(pairs, "text_output")
        if recipe.reference_text:
            self.questions, self.answers = (
                [reference_text(text, recipe.max_words) for text in texts]
                for texts in (self.questions, self.answers)
            )
        names, kind = _factorize(pairs, "question_type")
        self.kinds = np.array(names)[kind]
        counts = np.bincount(image)  # pairs of each image
        items = -(-counts // recipe.pairs_per_image) if recipe.epochs else np.ones_like(counts)
        self.rows = image.argsort(kind="stable")  # of image k: rows[starts[k] : starts[k + 1]]
        self.starts = np.append(0, counts.cumsum())
        self.first = np.append(0, items.cumsum())  # items of image k: first[k] to first[k + 1]

    def __len__(self) -> int:
        return int(self.first[-1])

    def fingerprint(self) -> str:
        """16 hex digits that change with any pair or their order."""
        codes = (self.rows, self.starts, self.question, self.answer)
        return fingerprint(self.images, self.questions, self.answers, *(code.tobytes() for code in codes))

    def set_epoch(self, epoch: int) -> None:
        """Set what the draws depend on, so that a resumed training draws what it would have drawn."""
        self.epoch = epoch if self.train else 0

    def __getitem__(self, k: int) -> dict:
        """`image` (its path), `pairs` (questions and answers) and `augment` (a random generator, or None)."""
        k = range(len(self))[k]  # raises IndexError, where a loop over the items ends
        image = int(self.first.searchsorted(k, side="right")) - 1
        rows = self.rows[self.starts[image] : self.starts[image + 1]]
        first = int(k - self.first[image]) * self.recipe.pairs_per_image
        rng = np.random.default_rng([self.recipe.seed, image, self.epoch])
        order = rng.permutation(len(rows)) if self.recipe.epochs else _weighted_order(self.kinds[rows], rng)
        if self.recipe.epochs:  # items of one image are augmented apart
            rng = np.random.default_rng([self.recipe.seed, image, self.epoch, first + 1])
        chosen = rows[order[first : first + self.recipe.pairs_per_image]]
        return {
            "image": self.images[image],
            "pairs": [(self.questions[self.question[row]], self.answers[self.answer[row]]) for row in chosen],
            "augment": rng if self.train and self.recipe.augment else None,
        }


def _weighted_order(kinds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw all pairs of an image without replacement; pairs of one type share its weight equally.

    Exponential waiting times, shortest first (Efraimidis and Spirakis 2006): `rng.choice` with `p` draws
    otherwise.
    """
    weights = np.array([WEIGHTS[kind] / (kinds == kind).sum() for kind in kinds])
    return np.argsort(-np.log(rng.random(len(kinds))) / weights)


def _factorize(pairs: datasets.Dataset, column: str) -> tuple[list[str], np.ndarray]:
    """A column's unique texts in order of appearance, and the position of each row's text among them [N]."""
    values = pairs.select_columns([column]).with_format("arrow")[:][column]
    if values.null_count:
        row = values.is_null().index(True).as_py()
        raise TableError(f"the pairs' row {row}, column {column}: missing; every pair needs it")
    encoded = values.dictionary_encode().combine_chunks()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy()


class Collator:
    """Make a batch of items: images [I, 3, S, S], tokens of the pairs [N, T], and `image_index` [N], each
    pair's image.

    With `states` (`loss.cached_states`) a batch holds `vision_states` [I, 1 + patches,
    D_vision] in place of images. `images` are the paths, for error messages. `groups` is the number of
    groups by length in `loss.batch_loss`: the same in all processes, whose sharded layers wait for each
    other, so it must not depend on how many pairs the images of a batch have.
    """

    def __init__(
        self, processor: InstructBlipProcessor, recipe: Recipe, states: Mapping[str, Tensor] | None = None
    ) -> None:
        self.processor, self.recipe, self.states = processor, recipe, states

    def __call__(self, items: Sequence[dict]) -> dict:
        images = [item["image"] for item in items]
        if self.states is None:
            inputs = self.processor.image_processor([self._picture(i) for i in items], return_tensors="pt")
        else:
            inputs = {"vision_states": torch.stack([self.states[image] for image in images])}
        questions, answers = zip(*(pair for item in items for pair in item["pairs"]), strict=True)
        return {
            **inputs,
            **encode(self.processor, questions, answers),
            "image_index": torch.tensor([k for k, item in enumerate(items) for _ in item["pairs"]]),
            "groups": min(len(items), max(2, round(len(items) * self.recipe.pairs_per_image / 24))),
            "images": images,
        }

    def _picture(self, item: dict) -> Image.Image:
        image, size = load_image(item["image"]), self.processor.image_processor.size["height"]
        return augment(image, item["augment"], size, self.recipe) if item["augment"] else image


def augment(image: Image.Image, rng: np.random.Generator, size: int, recipe: Recipe) -> Image.Image:
    """A random variant [size, size] of an RGB image: a crop, flipped half of the time, then RandAugment.

    RandAugment draws `Recipe.randaugment` operations and applies each half of the time. Source: the released
    `blip_processors.py` and `randaugment.py`. AutoContrast and Rotate are not among the operations there. The
    magnitude is 5 of 10, at which Brightness and Sharpness change nothing.
    """
    image = random_crop(image, rng, size, recipe.crop)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for name in rng.choice(OPERATIONS, recipe.randaugment):
        sign = -1 if rng.random() < 0.5 else 1
        if rng.random() < 0.5:
            image = apply(str(name), image, sign)
    return image


def random_crop(
    image: Image.Image, rng: np.random.Generator, size: int, share: tuple[float, float]
) -> Image.Image:
    """Cut out a random rectangle, `share` of the area, of aspect 3/4 to 4/3, and squash it to [size, size].

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
