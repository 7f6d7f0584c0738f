"""Batches: which pairs an item shows, what a batch holds, pairs that are refused, and the augmentation."""

from collections import Counter
from dataclasses import replace

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from weights import pixels_of

from expvqa_lib.errors import TableError
from expvqa_lib.training import PAPER, Collator, ImagePairs, Recipe
from expvqa_lib.training import dataset as module
from expvqa_lib.training.dataset import GREY, OPERATIONS, apply, augment, random_crop

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


def test_a_recipe_of_epochs_shows_each_pair_once_an_epoch(pairs):
    table = pairs["train"].to_pandas()
    dataset = ImagePairs(pairs["train"], replace(PAPER, pairs_per_image=4, reference_text=False))
    orders = []
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        items = list(dataset)
        assert all(1 <= len(item["pairs"]) <= 4 for item in items)
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


PICTURE = Image.fromarray(np.random.default_rng(0).integers(40, 200, (60, 80, 3), dtype=np.uint8))


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def test_brightness_and_sharpness_change_nothing_and_other_operations_do():
    acting = [name for name in OPERATIONS if not np.array_equal(array(apply(name, PICTURE)), array(PICTURE))]
    assert acting == ["Equalize", "ShearX", "ShearY", "TranslateX", "TranslateY"]


@pytest.mark.parametrize("sign", [1, -1])
def test_shifts_are_of_5_pixels_and_uncover_grey(sign):
    edge = slice(-5, None) if sign > 0 else slice(0, 5)
    for name, axis in (("TranslateX", 1), ("TranslateY", 0)):
        expected = np.roll(array(PICTURE), -5 * sign, axis)
        expected.swapaxes(0, axis)[edge] = GREY
        assert np.array_equal(array(apply(name, PICTURE, sign)), expected)


@pytest.mark.parametrize("sign", [1, -1])
def test_shears_move_each_row_or_column_by_015_of_its_number(sign):
    """As the reference's warpAffine: about the corner pixel's centre, bilinear, which is exact on a ramp."""
    y, x = np.mgrid[0:40, 0:60]
    for name, moved, along in (("ShearX", x - 0.15 * sign * y, x), ("ShearY", y - 0.15 * sign * x, y)):
        ramp = np.repeat((3 * along[..., None]).astype(np.uint8), 3, 2)
        sheared = array(apply(name, Image.fromarray(ramp), sign))[..., 0]
        inside = (moved >= 1) & (moved <= along.max() - 1)
        outside = (moved < -1) | (moved > along.max() + 1)
        assert inside.sum() > 1000 and np.abs(sheared - 3 * moved)[inside].max() <= 1
        assert outside.sum() > 50 and (sheared[outside] == GREY[0]).all()


def test_crops_have_the_area_and_aspect_of_the_recipe(monkeypatch):
    boxes, resize = [], Image.Image.resize

    def record(self, size, resample, box=None):
        boxes.append(box)
        return resize(self, size, resample, box=box)

    monkeypatch.setattr(Image.Image, "resize", record)
    image, rng = Image.new("RGB", (100, 100)), np.random.default_rng(0)
    assert {random_crop(image, rng, 32, (0.8, 1.0)).size for _ in range(300)} == {(32, 32)}
    left, top, right, bottom = np.array(boxes).T
    wide, high = right - left, bottom - top
    assert (wide * high >= 0.79 * 10_000).all() and (wide <= 100).all() and (high <= 100).all()
    assert (wide / high > 0.74).all() and (wide / high < 1.35).all() and np.std(wide / high) > 0.05
    assert len(set(left)) > 5 and len(set(top)) > 5
    random_crop(Image.new("RGB", (300, 20)), rng, 32, (0.8, 1.0))  # no such rectangle fits
    assert boxes[-1] == (136, 0, 163, 20)  # the largest central one


def test_operations_are_applied_half_of_the_time_and_half_of_the_images_flipped(monkeypatch):
    applied, rng = Counter(), np.random.default_rng(0)
    monkeypatch.setattr(module, "apply", lambda name, image, sign: applied.update([name, sign]) or image)
    ramp = Image.fromarray(np.repeat(np.arange(64, dtype=np.uint8)[None, :, None].repeat(64, 0), 3, 2))
    looks = [array(augment(ramp, rng, 64, Recipe(randaugment=2))) for _ in range(800)]
    assert 330 < sum(look[:, -1].mean() < look[:, 0].mean() for look in looks) < 470
    assert 730 < sum(applied[name] for name in OPERATIONS) < 870  # of 1600 draws
    assert all(60 < applied[name] < 140 for name in OPERATIONS) and 330 < applied[1] < 470
