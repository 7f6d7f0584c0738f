"""Batches of question-answer pairs: several about each image, chosen anew in every epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import datasets
import numpy as np
import torch
from torch import Tensor
from transformers import InstructBlipProcessor

from ..data.images import load_image
from ..errors import TableError
from ..files import fingerprint
from ..model.tokenize import encode, reference_text
from .augment import augment
from .recipe import Recipe

KEYS = ("image", "text_input", "text_output")


class ImagePairs(torch.utils.data.Dataset):
    """Pairs grouped by image: an item is one image with up to `Recipe.pairs_per_image` of its pairs.

    Where the recipe counts steps, each image is one item, and its pairs are chosen by chance: of six, four are Q3, one Q2 and one Q1,
    as far as it has them. Where it counts epochs, an image has as many items as it takes to show each of its pairs once, in random order.
    """

    def __init__(self, pairs: datasets.Dataset, recipe: Recipe, *, train: bool = True) -> None:
        """Take one split. Raises TableError where it is empty or lacks a column of `KEYS`."""
        if missing := [key for key in KEYS if key not in pairs.column_names]:
            raise TableError(
                f"the pairs have no column {', '.join(missing)}; found {', '.join(pairs.column_names)}"
            )
        if not len(pairs):
            raise TableError("no pairs to train on: the split is empty")
        self.recipe, self.train, self.epoch = recipe, train, 0
        prepare = (lambda text: reference_text(text, recipe.max_words)) if recipe.reference_text else str
        self.images, image = _different(pairs, "image")
        self.questions, self.asked = _different(pairs, "text_input", prepare)
        self.answers, self.answered = _different(pairs, "text_output", prepare)
        kinds, kind = (
            _different(pairs, "question_type")
            if "question_type" in pairs.column_names
            else (["Q3"], np.zeros_like(image))
        )
        self.kinds = np.array(kinds)[kind]
        counts = np.bincount(image)  # [images]
        items = -(-counts // recipe.pairs_per_image) if recipe.epochs else np.ones_like(counts)
        self.rows, self.starts = (
            image.argsort(kind="stable"),
            np.append(0, counts.cumsum()),
        )  # rows of image k: starts[k] to starts[k + 1]
        self.first = np.append(0, items.cumsum())  # items of image k: first[k] to first[k + 1]

    def __len__(self) -> int:
        return int(self.first[-1])

    def fingerprint(self) -> str:
        """16 hex digits that change with any pair or their order."""
        codes = (self.rows.tobytes(), self.starts.tobytes(), self.asked.tobytes(), self.answered.tobytes())
        return fingerprint(self.images, self.questions, self.answers, *codes)

    def set_epoch(self, epoch: int) -> None:
        """Choices depend on the epoch, not on what this process has read, so that a run that goes on sees what it would have seen."""
        self.epoch = epoch if self.train else 0

    def __getitem__(self, k: int) -> dict:
        k = range(len(self))[k]  # IndexError where a loop over all must end
        image = int(self.first.searchsorted(k, side="right")) - 1
        rows = self.rows[self.starts[image] : self.starts[image + 1]]
        first = int(k - self.first[image]) * self.recipe.pairs_per_image
        rng = np.random.default_rng([self.recipe.seed, image, self.epoch])
        if self.recipe.epochs:
            order = rng.permutation(len(rows))
        else:
            kinds = self.kinds[rows]
            share = {
                kind: weight / max(1, (kinds == kind).sum())
                for kind, weight in (("Q1", 1), ("Q2", 1), ("Q3", 4))
            }
            order = np.argsort(-np.log(rng.random(len(rows))) / np.array([share[kind] for kind in kinds]))
        chosen = rows[order[first : first + self.recipe.pairs_per_image]]
        if self.recipe.epochs:  # pairs that are shown apart see the image differently
            rng = np.random.default_rng([self.recipe.seed, image, self.epoch, first + 1])
        augmented = rng if self.train and self.recipe.augment else None
        shown = [(self.questions[self.asked[r]], self.answers[self.answered[r]]) for r in chosen]
        return {"image": self.images[image], "pairs": shown, "augment": augmented}


def _different(
    pairs: datasets.Dataset, column: str, prepare: Callable[[str], str] = str
) -> tuple[list[str], np.ndarray]:
    """Return a column's different texts, in the order of their first appearance and prepared, and which of them each row holds [N]."""
    values = pairs.select_columns([column]).with_format("arrow")[:][column]
    if values.null_count:
        row = values.is_null().index(True).as_py()
        raise TableError(f"the pairs' row {row}, column {column}: missing; every pair needs it")
    encoded = values.dictionary_encode().combine_chunks()
    return [prepare(value) for value in encoded.dictionary.to_pylist()], encoded.indices.to_numpy()


class Collator:
    """Load, augment and stack images [I, 3, S, S]; tokenise the pairs [N, T]; `image_index` [N] says which image each asks about.

    Where `states` holds what a frozen vision encoder makes of each image, that is stacked instead: [I, 1 + patches, D_vision]. `images` are
    the paths, to be named in an error. `groups` is into how many passes of the language model the pairs are split by length: the same in
    all processes, whose sharded layers wait for each other, so it must not hang on how many pairs the images happen to have.
    """

    def __init__(
        self, processor: InstructBlipProcessor, recipe: Recipe, states: Mapping[str, Tensor] | None = None
    ) -> None:
        self.processor, self.recipe, self.states = processor, recipe, states

    def __call__(self, items: Sequence[dict]) -> dict:
        if self.states is None:
            seen = {
                "pixel_values": self.processor.image_processor(
                    [self._look(i) for i in items], return_tensors="pt"
                )["pixel_values"]
            }
        else:
            seen = {"vision_states": torch.stack([self.states[item["image"]] for item in items])}
        pairs = [pair for item in items for pair in item["pairs"]]
        index = torch.tensor([k for k, item in enumerate(items) for _ in item["pairs"]])
        text = encode(self.processor, [q for q, _ in pairs], [a for _, a in pairs])
        groups = min(len(items), max(2, round(len(items) * self.recipe.pairs_per_image / 24)))
        return {
            **seen,
            "image_index": index,
            **text,
            "groups": groups,
            "images": [item["image"] for item in items],
        }

    def _look(self, item: dict):
        picture = load_image(item["image"])
        if item["augment"] is None:
            return picture
        size = self.processor.image_processor.size["height"]
        return augment(
            picture, item["augment"], size=size, crop=self.recipe.crop, randaugment=self.recipe.randaugment
        )
