"""Batches: which pairs an item shows, what a batch holds, and tables that are refused."""

from __future__ import annotations

from dataclasses import replace

import datasets
import pandas as pd
import pytest
import torch
from PIL import Image

from expvqa_lib.errors import TableError
from expvqa_lib.training.dataset import Collator, ImagePairs
from expvqa_lib.training.recipe import PAPER, Recipe

TOY = Recipe(steps=4, images=4, pairs_per_image=3, validate_every=2, seed=3)
THREE = Recipe(pairs_per_image=3, seed=0)
TOKENS = ("input_ids", "attention_mask", "labels", "qformer_input_ids", "qformer_attention_mask")


def test_a_batch_pairs_each_question_with_its_own_image(pairs, processor):
    dataset = ImagePairs(pairs["validation"], THREE, train=False)
    items = [dataset[k] for k in (0, 12, 14)]
    batch = Collator(processor, THREE)(items)
    assert batch["images"] == [item["image"] for item in items]
    assert batch["image_index"].tolist() == [k for k, item in enumerate(items) for _ in item["pairs"]]
    questions = [q for item in items for q, _ in item["pairs"]]
    for question, ids, mask in zip(questions, batch["input_ids"], batch["attention_mask"], strict=True):
        assert (
            processor.tokenizer.decode(ids[mask.bool()], skip_special_tokens=True)
            .strip()
            .startswith(question.lower())
        )
    alone = processor.image_processor([Image.open(item["image"]) for item in items], return_tensors="pt")[
        "pixel_values"
    ]
    assert torch.equal(batch["pixel_values"], alone)  # validation images are not augmented


def test_items_choose_their_own_images_pairs(pairs):
    table = pairs["train"].to_pandas()
    dataset = ImagePairs(pairs["train"], THREE)
    assert len(dataset) == table["image"].nunique()
    kinds = []
    for k in range(len(dataset)):
        item = dataset[k]
        own = table[table["image"] == item["image"]]
        known = {
            (q, a): kind
            for q, a, kind in zip(own["text_input"], own["text_output"], own["question_type"], strict=True)
        }
        assert set(item["pairs"]) <= set(known) and len(set(item["pairs"])) == min(3, len(own))
        if own["question_type"].nunique() == 3:
            kinds += [known[pair] for pair in item["pairs"]]
    share = pd.Series(kinds).value_counts(normalize=True)
    assert len(kinds) > 60 and share["Q3"] > share["Q2"] and share["Q3"] > share["Q1"] and share.min() > 0.05


def test_pairs_are_chosen_anew_each_epoch_and_the_same_for_validation(pairs):
    train, validation = (
        ImagePairs(pairs[split], replace(THREE, pairs_per_image=2), train=split == "train")
        for split in ("train", "validation")
    )
    fixed = [validation[k]["pairs"] for k in range(len(validation))]
    first = [train[k]["pairs"] for k in range(len(train))]
    for dataset in (train, validation):
        dataset.set_epoch(1)
    assert [train[k]["pairs"] for k in range(len(train))] != first
    assert [validation[k]["pairs"] for k in range(len(validation))] == fixed
    train.set_epoch(0)
    assert [train[k]["pairs"] for k in range(len(train))] == first


@pytest.mark.parametrize("questions", [1, 4])
def test_a_recipe_of_epochs_shows_each_pair_once_an_epoch(pairs, questions):
    table = pairs["train"].to_pandas()
    dataset = ImagePairs(pairs["train"], replace(PAPER, pairs_per_image=questions, reference_text=False))
    orders = []
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        items = [dataset[k] for k in range(len(dataset))]
        assert all(1 <= len(item["pairs"]) <= questions for item in items)
        orders.append([(item["image"], *pair) for item in items for pair in item["pairs"]])
        assert sorted(orders[-1]) == sorted(
            zip(table["image"], table["text_input"], table["text_output"], strict=True)
        )
    assert orders[0] != orders[1]
    if questions == 1:
        assert len(dataset) == len(table)


def test_the_papers_recipe_prepares_texts_as_the_reference_does(pairs):
    long = (
        pairs["train"]
        .select([0])
        .map(lambda row: {"text_input": 'Is "AU12" (smile) there?', "text_output": "Yes: " + "very " * 60})
    )
    assert ImagePairs(long, PAPER)[0]["pairs"] == [
        ("is au12 smile there?", " ".join(["yes"] + ["very"] * 49))
    ]
    assert len(ImagePairs(long, replace(PAPER, max_words=200))[0]["pairs"][0][1].split()) == 61
    assert ImagePairs(long, TOY)[0]["pairs"][0][0] == 'Is "AU12" (smile) there?'


def test_augmented_images_change_with_the_epoch_and_validation_images_do_not(pairs, processor):
    recipe = replace(THREE, augment=True, randaugment=(2, 5))
    train, validation = (ImagePairs(pairs["train"], recipe, train=flag) for flag in (True, False))
    looks = []
    for epoch in (0, 1, 0):
        for dataset in (train, validation):
            dataset.set_epoch(epoch)
        looks.append(
            [
                Collator(processor, recipe)([dataset[0], dataset[5]])["pixel_values"]
                for dataset in (train, validation)
            ]
        )
    assert torch.equal(looks[0][0], looks[2][0]) and not torch.equal(looks[0][0], looks[1][0])
    assert torch.equal(looks[0][1], looks[1][1])


def test_pairs_without_a_column_or_a_row_are_refused(pairs):
    with pytest.raises(TableError, match="no pairs to train on"):
        ImagePairs(pairs["train"].select([]), TOY)
    with pytest.raises(TableError, match="no column text_output; found image"):
        ImagePairs(pairs["train"].remove_columns("text_output"), TOY)
    holed = datasets.Dataset.from_list(
        [{"image": "a", "text_input": "?", "text_output": answer} for answer in ("yes", None)]
    )
    with pytest.raises(TableError, match="row 1, column text_output: missing"):
        ImagePairs(holed, TOY)


def test_an_empty_split_is_refused(pairs):
    with pytest.raises(TableError, match="the split is empty"):
        ImagePairs(pairs["train"].select([]), TOY)
