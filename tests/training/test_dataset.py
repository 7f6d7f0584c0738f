"""Batches: which pairs an item shows, what a batch holds, and pairs that are refused."""

from __future__ import annotations

from dataclasses import replace

import datasets
import pandas as pd
import pytest
import torch
from weights import pixels_of

from expvqa_lib.errors import TableError
from expvqa_lib.training import PAPER, Collator, ImagePairs, Recipe

THREE = Recipe(pairs_per_image=3, seed=0)


def test_a_batch_pairs_each_question_with_its_own_image(pairs, processor):
    dataset = ImagePairs(pairs["validation"], THREE, train=False)
    items = [dataset[k] for k in (0, 12, 14)]
    batch = Collator(processor, THREE)(items)
    assert batch["images"] == [item["image"] for item in items]
    assert batch["image_index"].tolist() == [k for k, item in enumerate(items) for _ in item["pairs"]]
    questions = [question for item in items for question, _ in item["pairs"]]
    for question, ids, mask in zip(questions, batch["input_ids"], batch["attention_mask"], strict=True):
        text = processor.tokenizer.decode(ids[mask.bool()], skip_special_tokens=True)
        assert text.strip().startswith(question.lower())
    assert torch.equal(batch["pixel_values"], pixels_of(processor, batch["images"]))  # not augmented


def test_an_item_holds_pairs_of_its_own_image_most_of_them_q3(pairs):
    table = pairs["train"].to_pandas()
    dataset = ImagePairs(pairs["train"], THREE)
    assert len(dataset) == table["image"].nunique()
    kinds = []
    for item in dataset:
        rows = table[table["image"] == item["image"]]
        texts = zip(rows["text_input"], rows["text_output"], strict=True)
        known = dict(zip(texts, rows["question_type"], strict=True))
        assert set(item["pairs"]) <= set(known) and len(set(item["pairs"])) == min(3, len(rows))
        if rows["question_type"].nunique() == 3:
            kinds += [known[pair] for pair in item["pairs"]]
    share = pd.Series(kinds).value_counts(normalize=True)
    assert len(kinds) > 60 and share["Q3"] > share[["Q1", "Q2"]].max() and share.min() > 0.05


def test_drawn_pairs_stay_as_they_were_when_figures_were_made():
    table = pd.DataFrame({"text_input": [f"{kind} {k}" for k in range(2) for kind in ("Q1", "Q2", "Q3")]})
    table = table.assign(image="a", text_output="yes", question_type=table["text_input"].str[:2])
    dataset, drawn = ImagePairs(datasets.Dataset.from_pandas(table), THREE), []
    for epoch in range(3):
        dataset.set_epoch(epoch)
        drawn.append([question for question, _ in dataset[0]["pairs"]])
    assert drawn == [["Q3 1", "Q2 1", "Q1 0"], ["Q3 0", "Q3 1", "Q1 0"], ["Q3 0", "Q1 1", "Q3 1"]]


@pytest.mark.parametrize("questions", [1, 4])
def test_a_recipe_of_epochs_shows_each_pair_once_an_epoch(pairs, questions):
    table = pairs["train"].to_pandas()
    dataset = ImagePairs(pairs["train"], replace(PAPER, pairs_per_image=questions, reference_text=False))
    orders = []
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        items = list(dataset)
        assert all(1 <= len(item["pairs"]) <= questions for item in items)
        orders.append([(item["image"], *pair) for item in items for pair in item["pairs"]])
        rows = zip(table["image"], table["text_input"], table["text_output"], strict=True)
        assert sorted(orders[-1]) == sorted(rows)
    assert orders[0] != orders[1]


def test_the_papers_recipe_prepares_texts_as_the_reference_does(pairs):
    texts = {"text_input": 'Is "AU12" (smile) there?', "text_output": "Yes: " + "very " * 60}
    long = pairs["train"].select([0]).map(lambda row: texts)
    short = ("is au12 smile there?", " ".join(["yes"] + ["very"] * 49))
    assert ImagePairs(long, PAPER)[0]["pairs"] == [short]
    assert len(ImagePairs(long, replace(PAPER, max_words=200))[0]["pairs"][0][1].split()) == 61
    assert ImagePairs(long, THREE)[0]["pairs"][0][0] == 'Is "AU12" (smile) there?'


def test_pairs_and_augmented_images_change_with_the_epoch_and_stay_for_validation(pairs, processor):
    recipe = replace(THREE, randaugment=2, pairs_per_image=2)

    def draw(train: bool, epoch: int) -> tuple[list, list]:
        dataset = ImagePairs(pairs["train"], recipe, train=train)
        dataset.set_epoch(epoch)
        pixels = Collator(processor, recipe)([dataset[0], dataset[5]])["pixel_values"]
        return [item["pairs"] for item in dataset], pixels.tolist()

    (pairs_0, pixels_0), (pairs_1, pixels_1) = draw(True, 0), draw(True, 1)
    assert draw(True, 0) == (pairs_0, pixels_0) and pairs_0 != pairs_1 and pixels_0 != pixels_1
    assert draw(False, 0) == draw(False, 1)


def test_pairs_without_a_column_a_row_or_a_value_are_refused(pairs):
    with pytest.raises(TableError, match="empty"):
        ImagePairs(pairs["train"].select([]), THREE)
    with pytest.raises(TableError, match="no column text_output; found image"):
        ImagePairs(pairs["train"].remove_columns("text_output"), THREE)
    rows = {"image": "a", "text_input": "?", "text_output": ["yes", None], "question_type": "Q3"}
    with pytest.raises(TableError, match="row 1, column text_output"):
        ImagePairs(datasets.Dataset.from_pandas(pd.DataFrame(rows)), THREE)
