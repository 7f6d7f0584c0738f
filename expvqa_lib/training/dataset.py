"""Batches of question-answer pairs: several about each image, drawn anew in every epoch."""

from collections.abc import Mapping, Sequence

import datasets
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import InstructBlipProcessor

from ..data.images import load_image
from ..errors import TableError
from ..files import fingerprint
from ..model.tokenize import encode, reference_text
from .augment import augment
from .recipe import Recipe

KEYS = ("image", "text_input", "text_output", "question_type")
WEIGHTS = {"Q1": 1, "Q2": 1, "Q3": 4}
"""How often a type of question is drawn, beside the others."""


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
            found = ", ".join(pairs.column_names)
            raise TableError(f"the pairs have no column {', '.join(missing)}; found {found}")
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
        codes = (self.rows.tobytes(), self.starts.tobytes(), self.question.tobytes(), self.answer.tobytes())
        return fingerprint(self.images, self.questions, self.answers, *codes)

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

    With `states` (`feature_cache.VisionStates`) a batch holds `vision_states` [I, 1 + patches,
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
        if item["augment"] is None:
            return load_image(item["image"])
        settings = {"crop": self.recipe.crop, "draws": self.recipe.randaugment}
        size = self.processor.image_processor.size["height"]
        return augment(load_image(item["image"]), item["augment"], size=size, **settings)
