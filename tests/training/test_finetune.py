"""Fine-tuning: what trains, that shortcuts change no loss, and what is refused."""

from __future__ import annotations

import copy
import os
from dataclasses import replace

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from weights import changed, weights

from expvqa_lib.errors import SettingsError, TrainingError
from expvqa_lib.expvqa import load
from expvqa_lib.model import encode
from expvqa_lib.training import (
    PAPER,
    VARIANTS,
    Collator,
    ImagePairs,
    Recipe,
    VisionStates,
    batch_loss,
    finetune,
    freeze,
    learning_rate,
    trainer,
)

TOY = Recipe(steps=4, images=4, pairs_per_image=3, validate_every=2, seed=3)


@pytest.fixture
def looks(model) -> list[int]:
    """How many images the vision encoder has seen, pass by pass."""
    seen = []
    model.vision_model.encoder.register_forward_hook(
        lambda *call: seen.append(len(call[2].last_hidden_state))
    )
    return seen


# --------------------------------------------------------------------------------------- what trains


@pytest.mark.parametrize("variant", VARIANTS)
def test_fine_tuning_changes_what_the_variant_trains_and_nothing_else(
    model, processor, pairs, tmp_path, variant
):
    before = copy.deepcopy(model.state_dict())
    log = finetune(model, processor, pairs, tmp_path / "model", variant=variant, recipe=TOY)
    saved = weights(tmp_path / "model")
    assert not changed(model.state_dict(), saved)
    moved = changed(before, saved)
    vision = {name for name in moved if name.startswith("vision_model.")}
    norm = {"vision_model.post_layernorm.weight", "vision_model.post_layernorm.bias"}
    assert vision == norm if variant == "exp_vqa_fz" else len(vision) > 10
    key = "qformer.encoder.layer.0.crossattention.attention.key.weight"
    assert {"query_tokens", "language_projection.weight", key} <= moved
    assert not any(name.startswith("language_model.") for name in moved)
    assert all(p.requires_grad for p in model.parameters()) and not model.training

    assert list(log.columns) == ["step", "loss", "eval_loss", "learning_rate"]
    assert log.loc[log["loss"].notna(), "step"].tolist() == [1, 2, 3, 4]
    assert log.loc[log["eval_loss"].notna(), "step"].tolist() == [2, 4]
    saved_log = pd.read_csv(tmp_path / "model" / "log.csv")
    pd.testing.assert_frame_equal(saved_log, log.reset_index(drop=True), check_dtype=False)
    assert os.listdir(tmp_path) == ["model"]


def test_fine_tuning_lowers_the_validation_loss_and_the_folder_answers(model, processor, pairs, tmp_path):
    recipe = replace(TOY, steps=16, validate_every=8, images=8, learning_rate=5e-3)
    log = finetune(model, processor, pairs, tmp_path / "model", recipe=recipe)
    losses = log["eval_loss"].dropna().tolist()
    assert losses[1] < losses[0] < log["loss"].iloc[0]
    assert isinstance(load(tmp_path / "model").ask(pairs["test"]["image"][0], "Why?"), str)


def test_validation_counts_every_image_even_where_they_do_not_fill_a_batch(model, processor, pairs, tmp_path):
    validation = ImagePairs(pairs["validation"], TOY, train=False)
    log = finetune(model, processor, pairs, tmp_path / "model", recipe=replace(TOY, steps=2))
    assert len(validation) % TOY.images
    with torch.no_grad():
        expected = batch_loss(model, Collator(processor, TOY)(list(validation)))
    assert log["eval_loss"].dropna().tolist() == [pytest.approx(float(expected), rel=1e-4)]


def test_the_vision_encoder_has_a_learning_rate_of_its_own(model, processor, pairs, tmp_path):
    before = copy.deepcopy(model.state_dict())
    finetune(model, processor, pairs, tmp_path / "model", recipe=replace(TOY, vision_learning_rate=0.0))
    moved = changed(before, model.state_dict())
    assert "query_tokens" in moved and not any(name.startswith("vision_model.") for name in moved)


def test_a_recipe_of_epochs_trains_by_the_references_schedule(model, processor, pairs, tmp_path):
    changes = {"images": 40, "pairs_per_image": 2, "precision": "float32", "warmup_steps": 2, "workers": 0}
    recipe = replace(PAPER, epochs=3, **changes)
    few = datasets.DatasetDict(train=pairs["train"].select(range(200)))  # as in the paper, no validation
    log = finetune(model, processor, few, tmp_path / "model", recipe=recipe)
    steps = 3 * (len(ImagePairs(few["train"], recipe)) // 40)
    assert log["step"].tolist() == list(range(1, steps + 1)) and steps >= 6
    rates = [recipe.learning_rate * learning_rate(recipe, step, steps) for step in range(steps)]
    np.testing.assert_allclose(log["learning_rate"], rates)
    assert log["eval_loss"].isna().all() and len(set(np.round(rates, 12))) >= 4  # warm-up and three epochs


def test_the_seed_decides_the_weights(model, processor, pairs, tmp_path):
    trained = []
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        recipe = replace(TOY, steps=2, seed=seed)
        finetune(copy.deepcopy(model), processor, pairs, tmp_path / name, recipe=recipe)
        trained.append(weights(tmp_path / name))
    first, again, other = trained
    assert not changed(first, again) and changed(first, other)


# -------------------------------------------------------------------------------------- the same loss


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_shortcuts_give_the_loss_of_the_plain_path(model, processor, pairs, tmp_path, looks, variant):
    """Plain: transformers' own forward pass, one image for each question, padded to the longest."""
    freeze(model, variant)
    recipe = Recipe(images=3, pairs_per_image=8, augment=False)
    dataset = ImagePairs(pairs["train"], recipe)
    items = [dataset[k] for k in (20, 30, 0)]
    images, states = [item["image"] for item in items], None
    if variant == "exp_vqa_fz":
        states = VisionStates(model, processor, images, tmp_path / "cache")
    batch = Collator(processor, recipe, states)(items)
    loss = batch_loss(model, batch)
    assert looks == [3]  # each image once, in one pass
    asked = [(item["image"], *pair) for item in items for pair in item["pairs"]]
    text = encode(processor, [question for _, question, _ in asked], [answer for *_, answer in asked])
    pictures = [Image.open(image) for image, *_ in asked]
    queries = torch.full((len(asked), model.config.num_query_tokens), model.config.image_token_index)
    logits = model(
        pixel_values=processor.image_processor(pictures, return_tensors="pt")["pixel_values"],
        qformer_input_ids=text["qformer_input_ids"],
        qformer_attention_mask=text["qformer_attention_mask"],
        input_ids=torch.cat([queries, text["input_ids"]], 1),
        attention_mask=torch.cat([torch.ones_like(queries), text["attention_mask"]], 1),
    ).logits[:, queries.shape[1] - 1 : -1]
    logits[..., model.config.image_token_index] = -torch.inf
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1), text["labels"].flatten())
    assert len(asked) > 12
    torch.testing.assert_close(loss, plain, rtol=1e-5, atol=1e-5)


def test_a_frozen_vision_encoder_sees_each_image_once_in_two_trainings(
    model, processor, pairs, tmp_path, looks
):
    recipe = replace(TOY, augment=False)
    for name in ("first", "second"):
        finetune(copy.deepcopy(model), processor, pairs, tmp_path / name, variant="exp_vqa_fz", recipe=recipe)
    images = {image for split in ("train", "validation") for image in pairs[split]["image"]}
    assert sum(looks) == len(images)
    assert not changed(weights(tmp_path / "first"), weights(tmp_path / "second"))


def test_gradient_checkpointing_and_bfloat16_train_too(model, processor, pairs, tmp_path):
    passes = []
    model.language_model.model.layers[0].mlp.register_forward_pre_hook(
        lambda *_: passes.append(torch.is_grad_enabled())
    )

    def losses(name: str, **changes) -> tuple[pd.Series, int]:
        passes.clear()
        recipe = replace(TOY, steps=3, **changes)
        log = finetune(copy.deepcopy(model), processor, pairs, tmp_path / name, recipe=recipe)
        return log["loss"].dropna(), sum(passes)

    plain, once = losses("plain")
    saving, twice = losses("saving", gradient_checkpointing=True)
    half, _ = losses("half", precision="bfloat16")
    assert (once, twice) == (6, 12)  # two groups by length in each step; checkpointing computes them again
    np.testing.assert_allclose(saving, plain, rtol=1e-5)
    np.testing.assert_allclose(half, plain, rtol=0.03)
    assert not np.allclose(half, plain, rtol=1e-6)


# ------------------------------------------------------------------------------------ what is refused


def test_a_loss_that_is_not_a_number_names_step_and_images(model, processor, pairs, tmp_path):
    with torch.no_grad():
        model.language_projection.bias[0] = torch.nan
    with pytest.raises(TrainingError, match=r"step 1: loss nan .*\.png, .*\.png"):
        finetune(model, processor, pairs, tmp_path / "model", recipe=TOY)
    assert not (tmp_path / "model").exists()


def test_weights_that_are_not_finite_do_not_replace_the_last_checkpoint(
    model, processor, pairs, tmp_path, monkeypatch
):
    monkeypatch.setattr(trainer, "learning_rate", lambda recipe, step, steps: np.inf if step == 3 else 1.0)
    with pytest.raises(TrainingError, match="step 4: query_tokens"):
        finetune(model, processor, pairs, tmp_path / "model", recipe=replace(TOY, steps=6))
    assert [path.name for path in tmp_path.rglob("checkpoint-*")] == ["checkpoint-2"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "exp_blip"}, "'exp_blip'.* exp_vqa, exp_vqa_fz"),
        ({"recipe": replace(TOY, images=61)}, "60 training images .* 61.*Recipe.images"),
        ({"recipe": replace(TOY, precision="float16")}, "precision='float16'"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(
    model, processor, pairs, tmp_path, monkeypatch, options, message
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match=message):
        finetune(model, processor, pairs, tmp_path / "model", **options)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_a_models_is_never_replaced(model, processor, pairs, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(SettingsError, match=str(tmp_path)):
        finetune(model, processor, pairs, tmp_path, recipe=TOY)
    assert (tmp_path / "thesis.tex").read_text() == "precious"
