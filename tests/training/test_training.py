"""Fine-tuning: what trains, what a shared pass computes, and what goes wrong."""

from __future__ import annotations

import copy
import os
from dataclasses import replace

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from weights import changed, weights

from expvqa_lib.errors import ModelError, SettingsError, TrainingError
from expvqa_lib.expvqa import load
from expvqa_lib.model.tokenize import encode
from expvqa_lib.training import finetune as training
from expvqa_lib.training.dataset import Collator, ImagePairs
from expvqa_lib.training.finetune import batch_loss, finetune, freeze
from expvqa_lib.training.recipe import PAPER, VARIANTS, Recipe, learning_rate

TOY = Recipe(steps=4, images=4, pairs_per_image=3, validate_every=2, seed=3)
THREE = Recipe(pairs_per_image=3, seed=0)
TOKENS = ("input_ids", "attention_mask", "labels", "qformer_input_ids", "qformer_attention_mask")


@pytest.fixture
def batch(pairs, processor):
    """Four images, two of the emotion corpus (one question) and two of the lab corpus (three)."""
    dataset = ImagePairs(pairs["train"], THREE)
    return Collator(processor, THREE)([dataset[k] for k in (0, 1, 20, 30)])


# ----------------------------------------------------------------------------------------------------------- what trains


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_gives_gradients_to_what_it_trains(model, batch, variant):
    freeze(model, variant)
    batch_loss(model, batch).backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert not {name for name in moved if name.startswith("language_model.")}
    expected = {"query_tokens"} | {
        name for name, _ in model.named_parameters() if name.startswith(("qformer.", "language_projection."))
    }
    expected |= {
        name for name, _ in model.named_parameters() if name.startswith("vision_model.post_layernorm.")
    }
    if variant == "exp_vqa":
        expected |= {name for name, _ in model.named_parameters() if name.startswith("vision_model.")}
    unused = {
        n for n in expected - moved if n.endswith("key.bias")
    }  # a constant added to all scores: softmax leaves it no gradient
    unused |= {
        n for n in expected - moved if n.startswith("qformer.encoder.layer.1.") and "_query" not in n
    }  # text after its last use
    assert moved == expected - unused
    assert (
        "vision_model.post_layernorm.weight" in moved
        and "qformer.encoder.layer.1.output_query.dense.weight" in moved
    )


def test_freezing_one_variant_after_the_other_leaves_no_trace(model):
    freeze(model, "exp_vqa_fz")
    freeze(model, "exp_vqa")
    assert all(
        p.requires_grad == (not name.startswith("language_model.")) for name, p in model.named_parameters()
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_fine_tuning_changes_what_the_variant_trains_and_nothing_else(
    model, processor, pairs, tmp_path, variant
):
    before = copy.deepcopy(model.state_dict())
    log = finetune(model, processor, pairs, tmp_path / "model", variant=variant, recipe=TOY)
    moved = changed(before, weights(tmp_path / "model"))
    assert not changed(model.state_dict(), weights(tmp_path / "model"))
    assert not any(name.startswith("language_model.") for name in moved)
    vision = {name for name in moved if name.startswith("vision_model.")}
    if variant == "exp_vqa_fz":
        assert vision == {"vision_model.post_layernorm.weight", "vision_model.post_layernorm.bias"}
    else:
        assert (
            "vision_model.embeddings.patch_embedding.weight" in vision
            and "vision_model.encoder.layers.0.mlp.fc1.weight" in vision
        )
    assert {
        "query_tokens",
        "language_projection.weight",
        "qformer.encoder.layer.0.crossattention.attention.key.weight",
    } <= moved
    assert all(p.requires_grad for p in model.parameters()) and not model.training

    assert list(log.columns) == ["step", "loss", "eval_loss", "learning_rate"]
    assert log.loc[log["loss"].notna(), "step"].tolist() == [1, 2, 3, 4]
    assert log.loc[log["eval_loss"].notna(), "step"].tolist() == [2, 4]
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "model" / "log.csv"), log.reset_index(drop=True), check_dtype=False
    )
    assert os.listdir(tmp_path) == ["model"]


def test_fine_tuning_lowers_the_validation_loss_and_the_folder_answers(model, processor, pairs, tmp_path):
    recipe = replace(TOY, steps=24, validate_every=12, images=8, learning_rate=5e-3)
    log = finetune(model, processor, pairs, tmp_path / "model", recipe=recipe)
    losses = log["eval_loss"].dropna().tolist()
    assert losses[1] < losses[0] < log["loss"].iloc[0]
    assert isinstance(load(tmp_path / "model").ask(pairs["test"]["image"][0], "Why?"), str)


def test_every_validation_image_counts_even_where_they_do_not_fill_a_batch(model, processor, pairs, tmp_path):
    few = ImagePairs(pairs["validation"], TOY, train=False)
    log = finetune(model, processor, pairs, tmp_path / "model", recipe=replace(TOY, images=4, steps=2))
    assert len(few) % 4
    freeze(model, "exp_vqa")
    with torch.no_grad():
        expected = batch_loss(model, Collator(processor, TOY)([few[k] for k in range(len(few))]))
    assert log["eval_loss"].dropna().tolist() == [pytest.approx(float(expected), rel=1e-4)]


def test_the_learning_rate_warms_up_and_decays(model, processor, pairs, tmp_path):
    log = finetune(
        model,
        processor,
        pairs,
        tmp_path / "model",
        recipe=replace(TOY, steps=10, warmup=0.3, validate_every=10),
    )
    rates = log["learning_rate"].dropna().to_numpy()
    assert rates.argmax() in (2, 3) and (np.diff(rates[:3]) > 0).all() and (np.diff(rates[4:]) < 0).all()
    assert rates.max() <= TOY.learning_rate


def test_the_vision_encoder_moves_at_its_own_rate(model, processor, pairs, tmp_path):
    before = copy.deepcopy(model.state_dict())
    finetune(model, processor, pairs, tmp_path / "model", recipe=replace(TOY, vision_learning_rate=0.0))
    moved = changed(before, weights(tmp_path / "model"))
    assert "query_tokens" in moved and not any(name.startswith("vision_model.") for name in moved)


# -------------------------------------------------------------------------------------------------------- the same losses


def test_a_frozen_vision_encoder_looks_once_at_each_image_unless_images_change(
    model, processor, pairs, tmp_path, monkeypatch
):
    looked = []
    original = training._vision_states
    monkeypatch.setattr(
        training,
        "_vision_states",
        lambda model, pixels: looked.append(len(pixels)) or original(model, pixels),
    )
    finetune(
        model, processor, pairs, tmp_path / "fz", variant="exp_vqa_fz", recipe=replace(TOY, augment=False)
    )
    images = {image for split in ("train", "validation") for image in pairs[split]["image"]}
    assert sum(looked) == len(images)


@torch.no_grad()
def test_kept_states_give_the_loss_of_looking_again(model, processor, pairs, tmp_path):
    freeze(model, "exp_vqa_fz")
    dataset = ImagePairs(pairs["train"], replace(THREE, augment=False))
    items = [dataset[k] for k in (0, 1, 20, 30)]
    images = [item["image"] for item in items]
    states = training._kept_states(model, processor, images, tmp_path / "kept", Accelerator())
    kept, again = (batch_loss(model, Collator(processor, THREE, s)(items)) for s in (states, None))
    torch.testing.assert_close(kept, again, rtol=1e-6, atol=1e-6)


def test_kept_states_serve_the_next_training_and_give_the_same_model(
    model, processor, pairs, tmp_path, monkeypatch
):
    recipe, looked = replace(TOY, augment=False), []
    original = training._vision_states
    monkeypatch.setattr(
        training,
        "_vision_states",
        lambda model, pixels: looked.append(len(pixels)) or original(model, pixels),
    )
    for name in ("first", "second"):
        finetune(copy.deepcopy(model), processor, pairs, tmp_path / name, variant="exp_vqa_fz", recipe=recipe)
    images = {image for split in ("train", "validation") for image in pairs[split]["image"]}
    assert sum(looked) == len(images)
    assert not changed(weights(tmp_path / "first"), weights(tmp_path / "second"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_shared_vision_pass_gives_the_loss_of_one_pass_a_question(model, batch, variant):
    freeze(model, variant)
    count = len(batch["image_index"])
    assert batch["image_index"].tolist() == [0, 1, 2, 2, 2, 3, 3, 3]
    seen = []
    handle = model.vision_model.encoder.register_forward_hook(
        lambda _, __, output: seen.append(len(output.last_hidden_state))
    )
    shared = batch_loss(model, batch)
    assert seen == [len(batch["pixel_values"])]
    handle.remove()
    apart, tokens = [], []
    for k in range(count):
        one = {key: batch[key][[k]] for key in TOKENS}
        one |= {
            "pixel_values": batch["pixel_values"][batch["image_index"][[k]]],
            "image_index": torch.tensor([0]),
            "groups": 1,
        }
        apart.append(batch_loss(model, one))
        tokens.append(int((one["labels"] != -100).sum()))
    expected = (torch.stack(apart) * torch.tensor(tokens)).sum() / sum(tokens)
    torch.testing.assert_close(shared, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_shortcut_together_gives_the_loss_of_the_plain_path(model, processor, pairs, tmp_path, variant):
    """Plain: transformers' own forward pass, one question at a time, its image looked at anew, padded to the longest."""
    freeze(model, variant)
    recipe = Recipe(images=3, pairs_per_image=8, augment=False)
    dataset = ImagePairs(pairs["train"], recipe)
    items = [dataset[k] for k in (20, 30, 0)]
    states = None
    if variant == "exp_vqa_fz":
        states = training._kept_states(
            model, processor, [item["image"] for item in items], tmp_path / "kept", Accelerator()
        )
    batch = Collator(processor, recipe, states)(items)
    asked = [(item["image"], *pair) for item in items for pair in item["pairs"]]
    text = encode(processor, [q for _, q, _ in asked], [a for _, _, a in asked])
    pixels = processor.image_processor([Image.open(image) for image, _, _ in asked], return_tensors="pt")[
        "pixel_values"
    ]
    queries = torch.full((len(asked), model.config.num_query_tokens), model.config.image_token_index)
    logits = model(
        pixel_values=pixels,
        qformer_input_ids=text["qformer_input_ids"],
        qformer_attention_mask=text["qformer_attention_mask"],
        input_ids=torch.cat([queries, text["input_ids"]], 1),
        attention_mask=torch.cat([torch.ones_like(queries), text["attention_mask"]], 1),
    ).logits[:, queries.shape[1] - 1 : -1]
    logits[..., model.config.image_token_index] = -torch.inf
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1), text["labels"].flatten())
    assert len(asked) > 12
    torch.testing.assert_close(batch_loss(model, batch), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_checkpointing_and_bfloat16_train_too(model, processor, pairs, tmp_path, variant):
    passes = []
    model.language_model.model.layers[0].mlp.register_forward_pre_hook(
        lambda *_: passes.append(torch.is_grad_enabled())
    )
    counts = []

    def losses(name: str, **changes) -> pd.Series:
        passes.clear()
        log = finetune(
            copy.deepcopy(model),
            processor,
            pairs,
            tmp_path / name,
            variant=variant,
            recipe=replace(TOY, **changes),
        )
        counts.append(sum(passes))
        return log["loss"].dropna()

    plain, saving, half = (
        losses("plain"),
        losses("saving", gradient_checkpointing=True),
        losses("half", precision="bfloat16"),
    )
    assert counts == [
        8,
        16,
        8,
    ]  # two groups by length in each of four steps; what was not kept is computed again
    np.testing.assert_allclose(saving, plain, rtol=1e-5)
    np.testing.assert_allclose(half, plain, rtol=0.03)
    assert not np.allclose(half, plain, rtol=1e-6)
    mine = load(tmp_path / "half", quiet=True).model.state_dict()
    assert all(torch.isfinite(value).all() for value in mine.values())


def test_a_recipe_of_epochs_trains_by_the_references_schedule(model, processor, pairs, tmp_path):
    recipe = replace(
        PAPER,
        epochs=3,
        images=40,
        pairs_per_image=2,
        precision="float32",
        warmup_steps=2,
        workers=0,
        validate_every=1000,
    )
    few = datasets.DatasetDict(
        train=pairs["train"].select(range(200))
    )  # no validation split, as in the paper
    log = finetune(model, processor, few, tmp_path / "model", recipe=recipe)
    assert log["eval_loss"].isna().all()
    steps = 3 * (len(ImagePairs(few["train"], recipe)) // 40)
    assert log["step"].tolist() == list(range(1, steps + 1)) and steps >= 6
    expected = [recipe.learning_rate * learning_rate(recipe, step, steps) for step in range(steps)]
    np.testing.assert_allclose(log["learning_rate"], expected)
    assert len(set(np.round(expected, 12))) >= 4  # a warm-up and three epochs
    loaded = load(tmp_path / "model", quiet=True)
    assert isinstance(loaded.ask(pairs["test"]["image"][0], "Why?"), str)


# ---------------------------------------------------------------------------------------------------------- what goes wrong


def test_a_loss_that_is_no_number_stops_and_names_step_and_images(model, processor, pairs, tmp_path):
    with torch.no_grad():
        model.language_projection.bias[0] = torch.nan
    with pytest.raises(
        TrainingError, match=r"step 1: loss nan with the images .*\.png, .*\.png.* lower the learning rate"
    ):
        finetune(model, processor, pairs, tmp_path / "model", recipe=TOY)
    assert not (tmp_path / "model").exists()


def test_weights_that_are_no_longer_finite_are_not_saved_over_the_last_checkpoint(
    model, processor, pairs, tmp_path, monkeypatch
):
    original = training._PairTrainer._save_checkpoint

    def spoil(self, *arguments):
        if self.state.global_step == 4:
            with torch.no_grad():
                self.model.query_tokens[0, 0, 0] = torch.inf
        original(self, *arguments)

    monkeypatch.setattr(training._PairTrainer, "_save_checkpoint", spoil)
    with pytest.raises(
        TrainingError, match="step 4: query_tokens is no longer finite; the last checkpoint stays"
    ):
        finetune(model, processor, pairs, tmp_path / "model", recipe=replace(TOY, steps=6))
    assert [path.name for path in tmp_path.rglob("checkpoint-*")] == ["checkpoint-2"]


def test_float16_needs_a_gpu(model, processor, pairs, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    with pytest.raises(
        SettingsError, match="precision='float16' needs a CUDA GPU; use 'bfloat16' or 'float32' here"
    ):
        finetune(model, processor, pairs, tmp_path / "model", recipe=replace(TOY, precision="float16"))


def test_an_encoder_decoder_language_model_cannot_be_trained(model, processor, pairs, tmp_path):
    model.config.use_decoder_only_language_model = False
    with pytest.raises(ModelError, match="only models with a decoder-only language model"):
        finetune(model, processor, pairs, tmp_path / "model", recipe=TOY)


def test_the_seed_decides_the_weights(model, processor, pairs, tmp_path):
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        finetune(copy.deepcopy(model), processor, pairs, tmp_path / name, recipe=replace(TOY, seed=seed))
    assert not changed(weights(tmp_path / "first"), weights(tmp_path / "again"))
    assert changed(weights(tmp_path / "first"), weights(tmp_path / "other"))


# ---------------------------------------------------------------------------------------------------------------- errors


def test_an_unknown_variant_is_refused_before_anything_is_written(model, processor, pairs, tmp_path):
    with pytest.raises(SettingsError, match="variant 'exp_blip' is unknown; known are exp_vqa, exp_vqa_fz"):
        finetune(model, processor, pairs, tmp_path / "model", variant="exp_blip")
    assert os.listdir(tmp_path) == []


def test_fewer_images_than_a_batch_are_refused(model, processor, pairs, tmp_path):
    with pytest.raises(
        SettingsError, match=r"60 training images are fewer than one batch of 61; lower Recipe.images"
    ):
        finetune(model, processor, pairs, tmp_path / "model", recipe=replace(TOY, images=61))


def test_a_folder_of_something_else_is_never_replaced(model, processor, pairs, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(SettingsError, match=f"{tmp_path}: not a model folder"):
        finetune(model, processor, pairs, tmp_path, recipe=TOY)
    assert (tmp_path / "thesis.tex").read_text() == "precious"
