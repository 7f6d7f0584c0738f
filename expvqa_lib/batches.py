"""Batches of question-answer pairs: several about each image, chosen anew in every epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import datasets
import numpy as np
import torch
from torch import Tensor
from transformers import InstructBlipProcessor

from .augmentation import augment
from .errors import TableError
from .photos import load_image
from .recipe import Recipe
from .text import encode, reference_text

KEYS = ("image", "text_input", "text_output")


class ImagePairs(torch.utils.data.Dataset):
    """Pairs grouped by image: an item is one image with up to `Recipe.questions` of its pairs.

    Where the recipe counts steps, each image is one item, and its pairs are chosen by chance: of six, four are Q3, one Q2 and one Q1,
    as far as it has them. Where it counts epochs, an image has as many items as it takes to show each of its pairs once, in random order.
    """

    def __init__(self, pairs: datasets.Dataset, recipe: Recipe, *, train: bool = True) -> None:
        """Take one split. Raises TableError where it is empty or lacks a column of `KEYS`."""
        if missing := [key for key in KEYS if key not in pairs.column_names]:
            raise TableError(f"the pairs have no column {', '.join(missing)}; found {', '.join(pairs.column_names)}")
        if not len(pairs):
            raise TableError("no pairs to train on: the split is empty")
        self.recipe, self.train, self.epoch = recipe, train, 0
        table = pairs.to_pandas()
        prepare = (lambda text: reference_text(text, recipe.max_words)) if recipe.reference_text else str
        self.text = [(prepare(q), prepare(a)) for q, a in zip(table["text_input"], table["text_output"], strict=True)]
        self.images = table["image"].to_numpy()
        self.kinds = (table["question_type"] if "question_type" in table else table["image"].map(lambda _: "Q3")).to_numpy()
        groups = list(table.groupby("image", sort=False).indices.values())
        each = recipe.questions
        parts = (lambda rows: range(0, len(rows), each)) if recipe.epochs else (lambda rows: (0,))
        self.items = [(k, rows, first) for k, rows in enumerate(groups) for first in parts(rows)]

    def __len__(self) -> int:
        return len(self.items)

    def set_epoch(self, epoch: int) -> None:
        """Choices depend on the epoch, not on what this process has read, so that a run that goes on sees what it would have seen."""
        self.epoch = epoch if self.train else 0

    def __getitem__(self, k: int) -> dict:
        image, rows, first = self.items[k]
        rng = np.random.default_rng([self.recipe.seed, image, self.epoch])
        if self.recipe.epochs:
            order = rng.permutation(len(rows))
        else:
            kinds = self.kinds[rows]
            share = {kind: weight / max(1, (kinds == kind).sum()) for kind, weight in (("Q1", 1), ("Q2", 1), ("Q3", 4))}
            order = np.argsort(-np.log(rng.random(len(rows))) / np.array([share[kind] for kind in kinds]))
        chosen = rows[order[first : first + self.recipe.questions]]
        if self.recipe.epochs:  # pairs that are shown apart see the image differently
            rng = np.random.default_rng([self.recipe.seed, image, self.epoch, first + 1])
        augmented = rng if self.train and self.recipe.augment else None
        return {"image": self.images[int(rows[0])], "pairs": [self.text[r] for r in chosen], "augment": augmented}


class Collator:
    """Load, augment and stack images [I, 3, S, S]; tokenise the pairs [N, T]; `image_index` [N] says which image each asks about.

    Where `states` holds what a frozen vision encoder makes of each image, that is stacked instead: [I, 1 + patches, D_vision]. `images` are
    the paths, to be named in an error. `groups` is into how many passes of the language model the pairs are split by length: the same in
    all processes, whose sharded layers wait for each other, so it must not hang on how many pairs the images happen to have.
    """

    def __init__(self, processor: InstructBlipProcessor, recipe: Recipe, states: Mapping[str, Tensor] | None = None) -> None:
        self.processor, self.recipe, self.states = processor, recipe, states

    def __call__(self, items: Sequence[dict]) -> dict:
        if self.states is None:
            seen = {"pixel_values": self.processor.image_processor([self._look(i) for i in items], return_tensors="pt")["pixel_values"]}
        else:
            seen = {"vision_states": torch.stack([self.states[item["image"]] for item in items])}
        pairs = [pair for item in items for pair in item["pairs"]]
        index = torch.tensor([k for k, item in enumerate(items) for _ in item["pairs"]])
        text = encode(self.processor, [q for q, _ in pairs], [a for _, a in pairs])
        groups = min(len(items), max(2, round(len(items) * self.recipe.questions / 24)))
        return {**seen, "image_index": index, **text, "groups": groups, "images": [item["image"] for item in items]}

    def _look(self, item: dict):
        picture = load_image(item["image"])
        if item["augment"] is None:
            return picture
        size = self.processor.image_processor.size["height"]
        return augment(picture, item["augment"], size=size, crop=self.recipe.crop, randaugment=self.recipe.randaugment)
