"""Fine-tuning: what trains, that shortcuts change no loss, a frozen encoder's states, what is refused."""

import copy
import importlib
import os
import re
import shutil
from dataclasses import replace

import datasets
import mistune
import numpy as np
import pandas as pd
import pytest
import torch
from bs4 import BeautifulSoup
from huggingface_hub import ModelCard
from torch import nn
from weights import changed, full_logits, pixels_of, weights

from expvqa_lib.data import load_image
from expvqa_lib.errors import ImageError, ModelError, SettingsError, TrainingError
from expvqa_lib.model import encode, load_model
from expvqa_lib.training import Collator, ImagePairs, add_results, finetune, freeze, loss
from expvqa_lib.training.card import model_card
from expvqa_lib.training.loss import batch_loss, cached_states, encoder_key, vision_states
from expvqa_lib.training.recipe import PAPER, VARIANTS, Recipe, learning_rate

TOY = Recipe(steps=4, images=4, pairs_per_image=3, validate_every=2, seed=3)


@pytest.fixture
def looks(model) -> list[int]:
    """How many images the vision encoder has seen, pass by pass."""
    seen = []
    model.vision_model.encoder.register_forward_hook(lambda *call: seen.append(len(call[2][0])))
    return seen


@pytest.fixture
def tune(model, processor, pairs, tmp_path):
    """Fine-tunes the model in place by a changed recipe; returns the log."""

    def tune(variant: str = "exp_vqa", name: str = "model", to=model, **changes) -> pd.DataFrame:
        recipe = replace(TOY, **changes)
        return finetune(to, processor, pairs, tmp_path / name, variant=variant, recipe=recipe)

    return tune


@pytest.mark.parametrize("variant", VARIANTS)
def test_fine_tuning_changes_what_the_variant_trains_and_nothing_else(model, tune, tmp_path, variant):
    before = copy.deepcopy(model.state_dict())
    log = tune(variant)
    assert not changed(model.state_dict(), weights(tmp_path / "model"))
    moved = changed(before, model.state_dict())
    vision = {name for name in moved if name.startswith("vision_model.")}
    norm = {"vision_model.post_layernorm.weight", "vision_model.post_layernorm.bias"}
    assert vision == norm if variant == "exp_vqa_fz" else len(vision) > 10
    key = "qformer.encoder.layer.0.crossattention.attention.key.weight"
    assert {"query_tokens", "language_projection.weight", key} <= moved
    assert not any(name.startswith("language_model.") for name in moved)
    assert all(p.requires_grad for p in model.parameters()) and not model.training
    assert list(log.columns) == ["step", "loss", "eval_loss", "learning_rate", "weight_change"]
    largest = max((before[name] - value).abs().max().item() for name, value in model.state_dict().items())
    assert log["weight_change"].dropna().tolist() == [pytest.approx(largest)]
    assert log["step"][log["loss"].notna()].tolist() == [1, 2, 3, 4]
    assert log["step"][log["eval_loss"].notna()].tolist() == [2, 4]
    saved_log = pd.read_csv(tmp_path / "model" / "log.csv")
    pd.testing.assert_frame_equal(saved_log, log.reset_index(drop=True), check_dtype=False)
    assert os.listdir(tmp_path) == ["model"]


def test_fine_tuning_lowers_the_validation_loss(tune):
    log = tune(steps=16, validate_every=8, images=8, learning_rate=5e-3)
    losses = log["eval_loss"].dropna().tolist()
    assert losses[1] < losses[0] < log["loss"].iloc[0]


def test_validation_counts_every_image_even_where_they_do_not_fill_a_batch(model, processor, pairs, tune):
    validation = ImagePairs(pairs["validation"], TOY, train=False)
    log = tune(steps=2)
    assert len(validation) % TOY.images
    with torch.no_grad():
        expected = batch_loss(model, Collator(processor, TOY)(list(validation)))
    assert log["eval_loss"].dropna().tolist() == [pytest.approx(float(expected), rel=1e-4)]


def test_the_vision_encoder_has_a_learning_rate_of_its_own_and_the_seed_decides_the_weights(model, tune):
    trained = [copy.deepcopy(model) for _ in range(3)]
    for seed, other in zip((1, 1, 2), trained, strict=True):
        tune(to=other, steps=2, seed=seed, vision_learning_rate=0.0)
    first, again, other = (each.state_dict() for each in trained)
    assert not changed(first, again) and changed(first, other)
    moved = changed(model.state_dict(), first)
    assert "query_tokens" in moved and not any(name.startswith("vision_model.") for name in moved)


def test_a_recipe_of_epochs_trains_by_the_references_schedule(model, processor, pairs, tmp_path):
    changes = {"images": 40, "pairs_per_image": 2, "precision": "float32", "warmup": 2, "workers": 0}
    recipe = replace(PAPER, epochs=3, **changes)
    few = datasets.DatasetDict(train=pairs["train"].select(range(200)))  # as in the paper, no validation
    log = finetune(model, processor, few, tmp_path / "model", recipe=recipe)
    steps = 3 * (len(ImagePairs(few["train"], recipe)) // 40)
    assert log["step"].tolist() == list(range(1, steps + 1)) and steps >= 6
    rates = [recipe.learning_rate * learning_rate(recipe, step, steps) for step in range(steps)]
    np.testing.assert_allclose(log["learning_rate"], rates)
    assert log["eval_loss"].isna().all() and len(set(np.round(rates, 12))) >= 4  # warm-up and three epochs


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_shortcuts_give_the_loss_of_the_plain_path(model, processor, pairs, tmp_path, looks, variant):
    """Plain: transformers' own forward pass, one image for each question, padded to the longest."""
    freeze(model, variant)
    recipe = Recipe(images=3, pairs_per_image=8, augment=False)
    dataset = ImagePairs(pairs["train"], recipe)
    items = [dataset[k] for k in (20, 30, 0)]
    images, states = [item["image"] for item in items], None
    if variant == "exp_vqa_fz":
        states = cached_states(model, processor, images, tmp_path / "cache")
    loss = batch_loss(model, Collator(processor, recipe, states)(items))
    assert looks == [3]  # each image once, in one pass
    rows = [(item["image"], *pair) for item in items for pair in item["pairs"]]
    pictures, questions, answers = zip(*rows, strict=True)
    text = encode(processor, questions, answers)
    logits = full_logits(model, pixels_of(processor, pictures), text)
    logits = logits[:, model.config.num_query_tokens - 1 : -1]
    logits[..., model.config.image_token_index] = -torch.inf
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1), text["labels"].flatten())
    assert len(questions) > 12
    torch.testing.assert_close(loss, plain, rtol=1e-5, atol=1e-5)


def test_a_frozen_vision_encoder_sees_each_image_once_in_two_trainings(model, pairs, tune, tmp_path, looks):
    for name in ("first", "second"):
        tune("exp_vqa_fz", name, copy.deepcopy(model), augment=False)
    assert sum(looks) == len({image for split in ("train", "validation") for image in pairs[split]["image"]})
    assert not changed(weights(tmp_path / "first"), weights(tmp_path / "second"))


def test_gradient_checkpointing_and_bfloat16_train_too(model, tune):
    passes, counts, losses = [], [], []
    mlp = model.language_model.model.layers[0].mlp
    mlp.register_forward_pre_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    for changes in ({}, {"gradient_checkpointing": True}, {"precision": "bfloat16"}):
        losses.append(tune(to=copy.deepcopy(model), steps=3, **changes)["loss"].dropna())
        counts.append(sum(passes))
    plain, saving, half = losses
    # two groups by length in each step; checkpointing computes them again
    assert counts == [6, 6 + 12, 6 + 12 + 6]
    np.testing.assert_allclose(saving, plain, rtol=1e-5)
    np.testing.assert_allclose(half, plain, rtol=0.03)
    assert not np.allclose(half, plain, rtol=1e-6)


def test_a_loss_that_is_not_a_number_names_step_and_images(model, tune, tmp_path):
    with torch.no_grad():
        model.language_projection.bias[0] = torch.nan
    with pytest.raises(TrainingError, match=r"step 1: loss nan .*\.png, .*\.png"):
        tune()
    assert not (tmp_path / "model").exists()


def test_weights_that_are_not_finite_do_not_replace_the_last_checkpoint(tune, tmp_path, monkeypatch):
    module = importlib.import_module("expvqa_lib.training.finetune")
    monkeypatch.setattr(module, "learning_rate", lambda recipe, step, steps: np.inf if step == 3 else 1.0)
    with pytest.raises(TrainingError, match="step 4: query_tokens"):
        tune(steps=6)
    assert [path.name for path in tmp_path.rglob("checkpoint-*")] == ["checkpoint-2"]


def test_impossible_settings_are_refused_and_no_other_folder_is_replaced(tune, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "thesis.tex").write_text("precious")
    for options, message in (
        ({"variant": "exp_blip"}, "'exp_blip'.* exp_vqa, exp_vqa_fz"),
        ({"images": 61}, "60 training images.* 61.*Recipe.images"),
        ({"precision": "float16"}, "precision='float16'"),
        ({"name": "."}, str(tmp_path)),
    ):
        with pytest.raises(SettingsError, match=message):
            tune(**options)
        assert os.listdir(tmp_path) == ["thesis.tex"]


@pytest.fixture
def images(faces, tmp_path) -> list[str]:
    """Seven faces, which a test may change."""
    return [shutil.copy(image, tmp_path) for image in faces["image"][:7]]


@pytest.fixture
def encoded(model, processor, looks, tmp_path, monkeypatch):
    """Open the cache for some images, two a file; return it and how many of them are encoded."""
    monkeypatch.setattr(loss, "CHUNK", 2)

    def open_cache(images: list[str]) -> tuple[dict[str, torch.Tensor], int]:
        looks.clear()
        return cached_states(model, processor, images, tmp_path / "cache"), sum(looks)

    return open_cache


def test_each_image_is_encoded_once_until_it_changes_and_read_back_exactly(
    model, processor, images, encoded, tmp_path
):
    with pytest.raises(ImageError, match=r"nobody\.png"):
        encoded([*images, str(tmp_path / "nobody.png")])
    assert not (tmp_path / "cache").exists()
    assert encoded(images)[1] == 7
    states, count = encoded(images)
    assert count == 0
    for image in images:
        torch.testing.assert_close(states[image], vision_states(model, pixels_of(processor, [image]))[0])
    os.utime(images[1], (0, 0))
    assert encoded(images)[1] == 1


def test_a_killed_run_computes_only_what_is_missing(images, encoded, tmp_path, monkeypatch):
    def cut(image: str):
        if image == images[4]:
            raise KeyboardInterrupt
        return load_image(image)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loss, "load_image", cut)
        encoded(images)
    files = list((tmp_path / "cache").rglob("*.safetensors"))
    assert len(files) == 2  # whole ones; nothing half-written beside them
    files[0].with_name(".half-1234.safetensors").write_bytes(b"killed while writing")
    assert encoded(images)[1] == 3


def test_the_key_changes_with_weights_precision_and_settings():
    layer, size = nn.Linear(3, 2), {"size": 96}
    keys = [encoder_key([layer], size), encoder_key([layer], {"size": 224})]
    assert encoder_key([layer], size) == keys[0]
    keys.append(encoder_key([copy.deepcopy(layer).bfloat16()], size))
    layer.weight.data[1, 2] += 1e-6
    assert len({*keys, encoder_key([layer], size)}) == 4


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_card_says_what_it_is_made_of_and_takes_the_results(tune, model, pairs, tmp_path, variant):
    model.name_or_path, folder = "Salesforce/instructblip-vicuna-7b", tmp_path / "model"
    tune(variant)
    card = ModelCard.load(folder / "README.md")
    assert card.data.base_model == model.name_or_path and card.data.pipeline_tag == "image-text-to-text"
    assert load_model(folder, quiet=True)[0].config.base_model == model.name_or_path
    assert f"variant `{variant}`" in card.text and "| learning_rate | 0.001 |" in card.text
    for split in ("train", "validation"):
        rows = [line.split(" | ") for line in card.text.splitlines() if line.startswith(f"| {split} |")]
        assert sum(int(row[3]) for row in rows) == len(pairs[split])
    results = {"F1": pd.DataFrame({"model": ["a|b", "prior"], "AU12": ["71.3 [66.0, 75.2]", "50.0"]})}
    for _ in range(2):  # again: in place of the last ones
        add_results(folder, results)
        text = (folder / "README.md").read_text()
        assert text.count("| 0 | a\\|b | 71.3 [66.0, 75.2] |") == 1 and "Nothing yet" not in text
    assert ModelCard.load(folder / "README.md").data.tags == card.data.tags and "## Not to trust" in text
    (folder / "README.md").write_text("# Mine\n")
    with pytest.raises(ModelError, match="no model card with a section Measured"):
        add_results(folder, results)


@pytest.mark.parametrize(
    ("name", "license"),
    [
        ("synth_lab", "bsd-3-clause"),
        ("BP4D", "other"),
        ('a|b: "<i>c</i>" *d* _e_ `f` [g](h) ~i~ &lt; \\', "other"),
        ("- données\n\n## Licence\n---", "other"),
        ("表情", "other"),
    ],
)
def test_the_card_shows_any_name_letter_by_letter(model, pairs, tmp_path, name, license):
    model.config.trained_on, model.name_or_path = "rendered faces", str(tmp_path / name.replace("/", "-"))
    columns = ["image", "text_input", "text_output", "question_type"]  # all that training asks for
    rows = datasets.Dataset.from_dict(pairs["train"].select_columns(columns)[:90])
    rows = rows.add_column("dataset", [name] * len(rows))
    card = ModelCard(model_card(model, "exp_vqa", TOY, 4, 1, {"train": rows}))
    assert card.data.license == license and card.data.base_model is None
    assert re.fullmatch(r"[A-Za-z\d_][\w.-]*", card.data.datasets[0], re.ASCII)
    page = BeautifulSoup(mistune.create_markdown(plugins=["table"])(card.text), "html.parser")
    cells = [[cell.text for cell in row("td")] for row in page.table("tr")[1:]]
    assert {row[1] for row in cells} == {" ".join(name.split())}
    assert sum(int(row[3]) for row in cells) == 90
    assert [title.text for title in page("h2")][-1] == "Licence and citation" and len(page("h2")) == 5
    assert not page.i and not page.a and not page.em
    assert "| not named |" in model_card(
        model, "exp_vqa", TOY, 4, 1, {"train": rows.remove_columns("dataset")}
    )
