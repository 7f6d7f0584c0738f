"""Fine-tuning: what trains, what a shared pass computes, and runs that are cut off."""

from __future__ import annotations

import copy
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from transformers import InstructBlipForConditionalGeneration

from expvqa_lib import training
from expvqa_lib.companion import load
from expvqa_lib.errors import SettingsError, TableError
from expvqa_lib.training import VARIANTS, Collator, ImagePairs, Recipe, batch_loss, crop_and_flip, finetune, freeze

TOY = Recipe(steps=4, images=4, questions=3, validate_every=2, seed=3)


@pytest.fixture
def batch(pairs, processor):
    """Four images, two of the emotion corpus (one question) and two of the lab corpus (three)."""
    dataset = ImagePairs(pairs["train"], 3, seed=0)
    return Collator(processor)([dataset[k] for k in (0, 1, 20, 30)])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return InstructBlipForConditionalGeneration.from_pretrained(folder).state_dict()


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


# ----------------------------------------------------------------------------------------------------------- what trains


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_gives_gradients_to_what_it_trains(model, batch, variant):
    freeze(model, variant)
    batch_loss(model, batch).backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert not {name for name in moved if name.startswith("language_model.")}
    expected = {"query_tokens"} | {name for name, _ in model.named_parameters() if name.startswith(("qformer.", "language_projection."))}
    expected |= {name for name, _ in model.named_parameters() if name.startswith("vision_model.post_layernorm.")}
    if variant == "exp_vqa":
        expected |= {name for name, _ in model.named_parameters() if name.startswith("vision_model.")}
    unused = {n for n in expected - moved if n.endswith("key.bias")}  # a constant added to all scores: softmax leaves it no gradient
    unused |= {n for n in expected - moved if n.startswith("qformer.encoder.layer.1.") and "_query" not in n}  # text after its last use
    assert moved == expected - unused
    assert "vision_model.post_layernorm.weight" in moved and "qformer.encoder.layer.1.output_query.dense.weight" in moved


def test_freezing_one_variant_after_the_other_leaves_no_trace(model):
    freeze(model, "exp_vqa_fz")
    freeze(model, "exp_vqa")
    assert all(p.requires_grad == (not name.startswith("language_model.")) for name, p in model.named_parameters())


@pytest.mark.parametrize("variant", VARIANTS)
def test_fine_tuning_changes_what_the_variant_trains_and_nothing_else(model, processor, pairs, tmp_path, variant):
    before = copy.deepcopy(model.state_dict())
    log = finetune(model, processor, pairs, tmp_path / "model", variant=variant, recipe=TOY)
    moved = changed(before, weights(tmp_path / "model"))
    assert not changed(model.state_dict(), weights(tmp_path / "model"))
    assert not any(name.startswith("language_model.") for name in moved)
    vision = {name for name in moved if name.startswith("vision_model.")}
    if variant == "exp_vqa_fz":
        assert vision == {"vision_model.post_layernorm.weight", "vision_model.post_layernorm.bias"}
    else:
        assert "vision_model.embeddings.patch_embedding.weight" in vision and "vision_model.encoder.layers.0.mlp.fc1.weight" in vision
    assert {"query_tokens", "language_projection.weight", "qformer.encoder.layer.0.crossattention.attention.key.weight"} <= moved
    assert all(p.requires_grad for p in model.parameters()) and not model.training

    assert list(log.columns) == ["step", "loss", "eval_loss", "learning_rate"]
    assert log.loc[log["loss"].notna(), "step"].tolist() == [1, 2, 3, 4]
    assert log.loc[log["eval_loss"].notna(), "step"].tolist() == [2, 4]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "model" / "log.csv"), log.reset_index(drop=True), check_dtype=False)
    assert os.listdir(tmp_path) == ["model"]


def test_fine_tuning_lowers_the_validation_loss_and_the_folder_answers(model, processor, pairs, tmp_path):
    recipe = replace(TOY, steps=24, validate_every=12, images=8, learning_rate=5e-3)
    log = finetune(model, processor, pairs, tmp_path / "model", recipe=recipe)
    losses = log["eval_loss"].dropna().tolist()
    assert losses[1] < losses[0] < log["loss"].iloc[0]
    assert isinstance(load(tmp_path / "model").ask(pairs["test"]["image"][0], "Why?"), str)


def test_every_validation_image_counts_even_where_they_do_not_fill_a_batch(model, processor, pairs, tmp_path):
    few = ImagePairs(pairs["validation"], 3, seed=TOY.seed, train=False)
    log = finetune(model, processor, pairs, tmp_path / "model", recipe=replace(TOY, images=len(few) + 1, steps=2))
    freeze(model, "exp_vqa")
    with torch.no_grad():
        expected = batch_loss(model, Collator(processor)([few[k] for k in range(len(few))]))
    assert log["eval_loss"].dropna().tolist() == [pytest.approx(float(expected), rel=1e-4)]


def test_the_learning_rate_warms_up_and_decays(model, processor, pairs, tmp_path):
    log = finetune(model, processor, pairs, tmp_path / "model", recipe=replace(TOY, steps=10, warmup=0.3, validate_every=10))
    rates = log["learning_rate"].dropna().to_numpy()
    assert rates.argmax() in (2, 3) and (np.diff(rates[:3]) > 0).all() and (np.diff(rates[4:]) < 0).all()
    assert rates.max() <= TOY.learning_rate


def test_the_vision_encoder_moves_at_its_own_rate(model, processor, pairs, tmp_path):
    before = copy.deepcopy(model.state_dict())
    finetune(model, processor, pairs, tmp_path / "model", recipe=replace(TOY, vision_learning_rate=0.0))
    moved = changed(before, weights(tmp_path / "model"))
    assert "query_tokens" in moved and not any(name.startswith("vision_model.") for name in moved)


# ----------------------------------------------------------------------------------------------------------- the batches


def test_a_frozen_vision_encoder_looks_once_at_each_image_unless_images_change(model, processor, pairs, tmp_path, monkeypatch):
    looked = []
    original = training._vision_states
    monkeypatch.setattr(training, "_vision_states", lambda model, pixels: looked.append(len(pixels)) or original(model, pixels))
    finetune(model, processor, pairs, tmp_path / "fz", variant="exp_vqa_fz", recipe=replace(TOY, augment=False))
    images = {image for split in ("train", "validation") for image in pairs[split]["image"]}
    assert sum(looked) == len(images)


@torch.no_grad()
def test_kept_states_give_the_loss_of_looking_again(model, processor, pairs):
    freeze(model, "exp_vqa_fz")
    dataset = ImagePairs(pairs["train"], 3, seed=0, augment=False)
    items = [dataset[k] for k in (0, 1, 20, 30)]
    states = training._all_states(model, processor, [item["image"] for item in items])
    kept, again = (batch_loss(model, Collator(processor, s)(items)) for s in (states, None))
    torch.testing.assert_close(kept, again, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_shared_vision_pass_gives_the_loss_of_one_pass_a_question(model, batch, variant):
    freeze(model, variant)
    count = len(batch["image_index"])
    assert batch["image_index"].tolist() == [0, 1, 2, 2, 2, 3, 3, 3]
    seen = []
    handle = model.vision_model.encoder.register_forward_hook(lambda _, __, output: seen.append(len(output.last_hidden_state)))
    shared = batch_loss(model, batch)
    assert seen == [len(batch["pixel_values"])]
    handle.remove()
    apart, tokens = [], []
    for k in range(count):
        one = {key: value[[k]] for key, value in batch.items() if key not in ("pixel_values", "image_index")}
        one |= {"pixel_values": batch["pixel_values"][batch["image_index"][[k]]], "image_index": torch.tensor([0])}
        apart.append(batch_loss(model, one))
        tokens.append(int((one["labels"] != -100).sum()))
    expected = (torch.stack(apart) * torch.tensor(tokens)).sum() / sum(tokens)
    torch.testing.assert_close(shared, expected, rtol=1e-4, atol=1e-5)


def test_a_batch_pairs_each_question_with_its_own_image(pairs, processor):
    dataset = ImagePairs(pairs["validation"], 3, seed=0, train=False)
    items = [dataset[k] for k in (0, 12, 14)]
    batch = Collator(processor)(items)
    assert batch["image_index"].tolist() == [k for k, item in enumerate(items) for _ in item["pairs"]]
    questions = [q for item in items for q, _ in item["pairs"]]
    for question, ids, mask in zip(questions, batch["input_ids"], batch["attention_mask"], strict=True):
        assert processor.tokenizer.decode(ids[mask.bool()], skip_special_tokens=True).strip().startswith(question.lower())
    alone = processor.image_processor([Image.open(item["image"]) for item in items], return_tensors="pt")["pixel_values"]
    assert torch.equal(batch["pixel_values"], alone)  # validation images are not augmented


def test_items_choose_their_own_images_pairs_q1_first(pairs):
    table = pairs["train"].to_pandas()
    dataset = ImagePairs(pairs["train"], 3, seed=0)
    assert len(dataset) == table["image"].nunique()
    for k in range(len(dataset)):
        item = dataset[k]
        own = table[table["image"] == item["image"]]
        known = set(zip(own["text_input"], own["text_output"], strict=True))
        assert set(item["pairs"]) <= known and len(set(item["pairs"])) == min(3, len(own))
        q1 = own[own["question_type"] == "Q1"]
        if len(q1):
            assert item["pairs"][0] == (q1["text_input"].iat[0], q1["text_output"].iat[0])


def test_pairs_are_chosen_anew_each_epoch_and_the_same_for_validation(pairs):
    train, validation = (ImagePairs(pairs[split], 2, 0, train=split == "train") for split in ("train", "validation"))
    fixed = [validation[k]["pairs"] for k in range(len(validation))]
    first = [train[k]["pairs"] for k in range(len(train))]
    for dataset in (train, validation):
        dataset.set_epoch(1)
    assert [train[k]["pairs"] for k in range(len(train))] != first
    assert [validation[k]["pairs"] for k in range(len(validation))] == fixed
    train.set_epoch(0)
    assert [train[k]["pairs"] for k in range(len(train))] == first


def test_crop_and_flip_keeps_the_size_and_most_of_the_face():
    pixels = np.zeros((96, 96, 3), np.uint8)
    pixels[:, :48] = 255
    rng = np.random.default_rng(0)
    found = [np.asarray(crop_and_flip(Image.fromarray(pixels), rng)) for _ in range(60)]
    assert {f.shape for f in found} == {(96, 96, 3)}
    flipped = [f[:, -1].mean() > f[:, 0].mean() for f in found]
    assert 10 < sum(flipped) < 50
    edges = [(f[..., 0] > 127).mean() for f in found]
    assert all(0.3 < e < 0.7 for e in edges) and np.std(edges) > 0.01


# -------------------------------------------------------------------------------------------------------- cut off, again


class Cut(Exception):
    """A power cut."""


@pytest.fixture
def cut_off(monkeypatch):
    """Make reading images fail from the n-th on, once."""

    def arrange(n: int) -> None:
        read, left = training.load_image, iter(range(n))

        def load_image(source):
            if next(left, None) is None:
                raise Cut
            return read(source)

        monkeypatch.setattr(training, "load_image", load_image)

    yield arrange


def start(model, processor, pairs, folder, **options) -> pd.DataFrame:
    return finetune(copy.deepcopy(model), processor, pairs, folder, recipe=replace(TOY, steps=18, validate_every=6, images=8), **options)


def cut_after_a_checkpoint(model, processor, pairs, folder, monkeypatch, cut_off, **options) -> Path:
    """Start a run that is cut off between step 12 and 18; return the folder of its checkpoint."""
    faces = len(ImagePairs(pairs["validation"], 3, 0))
    with monkeypatch.context():
        cut_off(14 * 8 + 2 * faces)
        with pytest.raises(Cut):
            start(model, processor, pairs, folder, **options)
        monkeypatch.undo()
    (checkpoint,) = folder.parent.rglob("checkpoint-*")
    assert checkpoint.name == "checkpoint-12"
    assert not folder.exists()
    return checkpoint


def test_a_run_that_was_cut_off_goes_on_and_ends_as_if_it_had_not_been(model, processor, pairs, tmp_path, monkeypatch, cut_off):
    folder = tmp_path / "cut" / "model"
    cut_after_a_checkpoint(model, processor, pairs, folder, monkeypatch, cut_off)
    read = []
    original = training.load_image
    monkeypatch.setattr(training, "load_image", lambda source: read.append(source) or original(source))
    log = start(model, processor, pairs, folder)
    assert len(read) < 9 * 8 + len(ImagePairs(pairs["validation"], 3, 0))  # the last steps only, not all 18 again
    whole = start(model, processor, pairs, tmp_path / "whole")
    assert os.listdir(folder.parent) == ["model"]
    for column in ("step", "loss", "eval_loss", "learning_rate"):
        np.testing.assert_allclose(log[column], whole[column], rtol=1e-5, err_msg=column)
    mine, theirs = weights(folder), weights(tmp_path / "whole")
    for name in mine:
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-4, atol=1e-6, msg=name)


def test_a_half_written_checkpoint_is_passed_over(model, processor, pairs, tmp_path, monkeypatch, cut_off):
    checkpoint = cut_after_a_checkpoint(model, processor, pairs, tmp_path / "model", monkeypatch, cut_off)
    half = checkpoint.with_name("checkpoint-13")
    shutil.copytree(checkpoint, half)
    (half / "trainer_state.json").unlink()  # the file that is written last
    (half / "optimizer.pt").write_bytes(b"half")
    log = start(model, processor, pairs, tmp_path / "model")
    assert log["step"].max() == 18 and os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("other", [{"variant": "exp_vqa_fz"}, {"recipe": replace(TOY, steps=4, seed=9)}])
def test_a_run_with_other_settings_does_not_go_on_from_it(model, processor, pairs, tmp_path, monkeypatch, cut_off, other):
    cut_after_a_checkpoint(model, processor, pairs, tmp_path / "model", monkeypatch, cut_off)
    options = {"recipe": TOY, "variant": "exp_vqa"} | other
    finetune(copy.deepcopy(model), processor, pairs, tmp_path / "model", **options)
    finetune(copy.deepcopy(model), processor, pairs, tmp_path / "apart" / "model", **options)
    assert not changed(weights(tmp_path / "model"), weights(tmp_path / "apart" / "model"))


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
    with pytest.raises(SettingsError, match=r"60 training images are fewer than one batch of 61; lower Recipe.images"):
        finetune(model, processor, pairs, tmp_path / "model", recipe=replace(TOY, images=61))


def test_an_empty_split_is_refused(pairs):
    with pytest.raises(TableError, match="the split is empty"):
        ImagePairs(pairs["train"].select([]), 3, 0)


def test_a_folder_of_something_else_is_never_replaced(model, processor, pairs, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(SettingsError, match=f"{tmp_path}: not a model folder"):
        finetune(model, processor, pairs, tmp_path, recipe=TOY)
    assert (tmp_path / "thesis.tex").read_text() == "precious"
