"""Fine-tuning: what trains, what a shared pass computes, and runs that are cut off."""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from transformers import InstructBlipForConditionalGeneration, Trainer

from expvqa_lib import batches, training
from expvqa_lib.batches import Collator, ImagePairs
from expvqa_lib.companion import ExpVQA, load
from expvqa_lib.errors import ModelError, SettingsError, TableError, TrainingError
from expvqa_lib.recipe import PAPER, VARIANTS, Recipe, learning_rate
from expvqa_lib.text import encode
from expvqa_lib.training import batch_loss, finetune, freeze

TOY = Recipe(steps=4, images=4, questions=3, validate_every=2, seed=3)
THREE = Recipe(questions=3, seed=0)
TOKENS = ("input_ids", "attention_mask", "labels", "qformer_input_ids", "qformer_attention_mask")


@pytest.fixture
def batch(pairs, processor):
    """Four images, two of the emotion corpus (one question) and two of the lab corpus (three)."""
    dataset = ImagePairs(pairs["train"], THREE)
    return Collator(processor, THREE)([dataset[k] for k in (0, 1, 20, 30)])


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
    few = ImagePairs(pairs["validation"], TOY, train=False)
    log = finetune(model, processor, pairs, tmp_path / "model", recipe=replace(TOY, images=4, steps=2))
    assert len(few) % 4
    freeze(model, "exp_vqa")
    with torch.no_grad():
        expected = batch_loss(model, Collator(processor, TOY)([few[k] for k in range(len(few))]))
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
def test_kept_states_give_the_loss_of_looking_again(model, processor, pairs, tmp_path):
    freeze(model, "exp_vqa_fz")
    dataset = ImagePairs(pairs["train"], replace(THREE, augment=False))
    items = [dataset[k] for k in (0, 1, 20, 30)]
    images = [item["image"] for item in items]
    states = training._kept_states(model, processor, images, tmp_path / "kept", Accelerator())
    kept, again = (batch_loss(model, Collator(processor, THREE, s)(items)) for s in (states, None))
    torch.testing.assert_close(kept, again, rtol=1e-6, atol=1e-6)


def test_kept_states_serve_the_next_training_and_give_the_same_model(model, processor, pairs, tmp_path, monkeypatch):
    recipe, looked = replace(TOY, augment=False), []
    original = training._vision_states
    monkeypatch.setattr(training, "_vision_states", lambda model, pixels: looked.append(len(pixels)) or original(model, pixels))
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
    handle = model.vision_model.encoder.register_forward_hook(lambda _, __, output: seen.append(len(output.last_hidden_state)))
    shared = batch_loss(model, batch)
    assert seen == [len(batch["pixel_values"])]
    handle.remove()
    apart, tokens = [], []
    for k in range(count):
        one = {key: batch[key][[k]] for key in TOKENS}
        one |= {"pixel_values": batch["pixel_values"][batch["image_index"][[k]]], "image_index": torch.tensor([0])}
        apart.append(batch_loss(model, one))
        tokens.append(int((one["labels"] != -100).sum()))
    expected = (torch.stack(apart) * torch.tensor(tokens)).sum() / sum(tokens)
    torch.testing.assert_close(shared, expected, rtol=1e-4, atol=1e-5)


def test_a_batch_pairs_each_question_with_its_own_image(pairs, processor):
    dataset = ImagePairs(pairs["validation"], THREE, train=False)
    items = [dataset[k] for k in (0, 12, 14)]
    batch = Collator(processor, THREE)(items)
    assert batch["images"] == [item["image"] for item in items]
    assert batch["image_index"].tolist() == [k for k, item in enumerate(items) for _ in item["pairs"]]
    questions = [q for item in items for q, _ in item["pairs"]]
    for question, ids, mask in zip(questions, batch["input_ids"], batch["attention_mask"], strict=True):
        assert processor.tokenizer.decode(ids[mask.bool()], skip_special_tokens=True).strip().startswith(question.lower())
    alone = processor.image_processor([Image.open(item["image"]) for item in items], return_tensors="pt")["pixel_values"]
    assert torch.equal(batch["pixel_values"], alone)  # validation images are not augmented


def test_items_choose_their_own_images_pairs(pairs):
    table = pairs["train"].to_pandas()
    dataset = ImagePairs(pairs["train"], THREE)
    assert len(dataset) == table["image"].nunique()
    kinds = []
    for k in range(len(dataset)):
        item = dataset[k]
        own = table[table["image"] == item["image"]]
        known = {(q, a): kind for q, a, kind in zip(own["text_input"], own["text_output"], own["question_type"], strict=True)}
        assert set(item["pairs"]) <= set(known) and len(set(item["pairs"])) == min(3, len(own))
        if own["question_type"].nunique() == 3:
            kinds += [known[pair] for pair in item["pairs"]]
    share = pd.Series(kinds).value_counts(normalize=True)
    assert len(kinds) > 60 and share["Q3"] > share["Q2"] and share["Q3"] > share["Q1"] and share.min() > 0.05


def test_pairs_are_chosen_anew_each_epoch_and_the_same_for_validation(pairs):
    train, validation = (ImagePairs(pairs[split], replace(THREE, questions=2), train=split == "train") for split in ("train", "validation"))
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
    dataset = ImagePairs(pairs["train"], replace(PAPER, questions=questions, reference_text=False))
    orders = []
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        items = [dataset[k] for k in range(len(dataset))]
        assert all(1 <= len(item["pairs"]) <= questions for item in items)
        orders.append([(item["image"], *pair) for item in items for pair in item["pairs"]])
        assert sorted(orders[-1]) == sorted(zip(table["image"], table["text_input"], table["text_output"], strict=True))
    assert orders[0] != orders[1]
    if questions == 1:
        assert len(dataset) == len(table)


def test_the_papers_recipe_prepares_texts_as_the_reference_does(pairs):
    long = pairs["train"].select([0]).map(lambda row: {"text_input": 'Is "AU12" (smile) there?', "text_output": "Yes: " + "very " * 60})
    assert ImagePairs(long, PAPER)[0]["pairs"] == [("is au12 smile there?", " ".join(["yes"] + ["very"] * 49))]
    assert len(ImagePairs(long, replace(PAPER, max_words=200))[0]["pairs"][0][1].split()) == 61
    assert ImagePairs(long, TOY)[0]["pairs"][0][0] == 'Is "AU12" (smile) there?'


def test_augmented_images_change_with_the_epoch_and_validation_images_do_not(pairs, processor):
    recipe = replace(THREE, augment=True, randaugment=(2, 5))
    train, validation = (ImagePairs(pairs["train"], recipe, train=flag) for flag in (True, False))
    looks = []
    for epoch in (0, 1, 0):
        for dataset in (train, validation):
            dataset.set_epoch(epoch)
        looks.append([Collator(processor, recipe)([dataset[0], dataset[5]])["pixel_values"] for dataset in (train, validation)])
    assert torch.equal(looks[0][0], looks[2][0]) and not torch.equal(looks[0][0], looks[1][0])
    assert torch.equal(looks[0][1], looks[1][1])


def test_pairs_without_a_column_or_a_row_are_refused(pairs):
    with pytest.raises(TableError, match="no pairs to train on"):
        ImagePairs(pairs["train"].select([]), TOY)
    with pytest.raises(TableError, match="no column text_output; found image"):
        ImagePairs(pairs["train"].remove_columns("text_output"), TOY)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_shortcut_together_gives_the_loss_of_the_plain_path(model, processor, pairs, tmp_path, variant):
    """Plain: transformers' own forward pass, one question at a time, its image looked at anew, padded to the longest."""
    freeze(model, variant)
    recipe = Recipe(images=3, questions=8, augment=False)
    dataset = ImagePairs(pairs["train"], recipe)
    items = [dataset[k] for k in (20, 30, 0)]
    states = None
    if variant == "exp_vqa_fz":
        states = training._kept_states(model, processor, [item["image"] for item in items], tmp_path / "kept", Accelerator())
    batch = Collator(processor, recipe, states)(items)
    asked = [(item["image"], *pair) for item in items for pair in item["pairs"]]
    text = encode(processor, [q for _, q, _ in asked], [a for _, _, a in asked])
    pixels = processor.image_processor([Image.open(image) for image, _, _ in asked], return_tensors="pt")["pixel_values"]
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
    model.language_model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    counts = []

    def losses(name: str, **changes) -> pd.Series:
        passes.clear()
        log = finetune(copy.deepcopy(model), processor, pairs, tmp_path / name, variant=variant, recipe=replace(TOY, **changes))
        counts.append(sum(passes))
        return log["loss"].dropna()

    plain, saving, half = losses("plain"), losses("saving", gradient_checkpointing=True), losses("half", precision="bfloat16")
    assert counts == [8, 16, 8]  # two groups by length in each of four steps; what was not kept is computed again
    np.testing.assert_allclose(saving, plain, rtol=1e-5)
    np.testing.assert_allclose(half, plain, rtol=0.03)
    assert not np.allclose(half, plain, rtol=1e-6)
    mine = load(tmp_path / "half", quiet=True).model.state_dict()
    assert all(torch.isfinite(value).all() for value in mine.values())


def test_a_recipe_of_epochs_trains_by_the_references_schedule(model, processor, pairs, tmp_path):
    recipe = replace(PAPER, epochs=3, images=40, questions=2, precision="float32", warmup_steps=2, workers=0, validate_every=1000)
    few = datasets.DatasetDict(train=pairs["train"].select(range(200)))  # no validation split, as in the paper
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
    with pytest.raises(TrainingError, match=r"step 1: loss nan with the images .*\.png, .*\.png.* lower the learning rate"):
        finetune(model, processor, pairs, tmp_path / "model", recipe=TOY)
    assert not (tmp_path / "model").exists()


def test_weights_that_are_no_longer_finite_are_not_saved_over_the_last_checkpoint(model, processor, pairs, tmp_path, monkeypatch):
    original = training._PairTrainer._save_checkpoint

    def spoil(self, *arguments):
        if self.state.global_step == 4:
            with torch.no_grad():
                self.model.query_tokens[0, 0, 0] = torch.inf
        original(self, *arguments)

    monkeypatch.setattr(training._PairTrainer, "_save_checkpoint", spoil)
    with pytest.raises(TrainingError, match="step 4: query_tokens is no longer finite; the last checkpoint stays"):
        finetune(model, processor, pairs, tmp_path / "model", recipe=replace(TOY, steps=6))
    assert [path.name for path in tmp_path.rglob("checkpoint-*")] == ["checkpoint-2"]


def test_float16_needs_a_gpu(model, processor, pairs, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    with pytest.raises(SettingsError, match="precision='float16' needs a CUDA GPU; use 'bfloat16' or 'float32' here"):
        finetune(model, processor, pairs, tmp_path / "model", recipe=replace(TOY, precision="float16"))


def test_an_encoder_decoder_language_model_cannot_be_trained(model, processor, pairs, tmp_path):
    model.config.use_decoder_only_language_model = False
    with pytest.raises(ModelError, match="only models with a decoder-only language model"):
        finetune(model, processor, pairs, tmp_path / "model", recipe=TOY)


# -------------------------------------------------------------------------------------------------------- cut off, again


class Cut(Exception):
    """A power cut."""


@pytest.fixture
def cut_off(monkeypatch):
    """Make reading images fail from the n-th on, once."""

    def arrange(n: int) -> None:
        read, left = batches.load_image, iter(range(n))

        def load_image(source):
            if next(left, None) is None:
                raise Cut
            return read(source)

        monkeypatch.setattr(batches, "load_image", load_image)

    yield arrange


def start(model, processor, pairs, folder, **options) -> pd.DataFrame:
    return finetune(copy.deepcopy(model), processor, pairs, folder, recipe=replace(TOY, steps=18, validate_every=6, images=8), **options)


def cut_after_a_checkpoint(model, processor, pairs, folder, monkeypatch, cut_off, **options) -> Path:
    """Start a run that is cut off between step 12 and 18; return the folder of its checkpoint."""
    faces = len(ImagePairs(pairs["validation"], TOY))
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
    original = batches.load_image
    monkeypatch.setattr(batches, "load_image", lambda source: read.append(source) or original(source))
    log = start(model, processor, pairs, folder)
    assert len(read) < 9 * 8 + len(ImagePairs(pairs["validation"], TOY))  # the last steps only, not all 18 again
    whole = start(model, processor, pairs, tmp_path / "whole")
    assert os.listdir(folder.parent) == ["model"]
    for column in ("step", "loss", "eval_loss", "learning_rate"):
        np.testing.assert_array_equal(log[column], whole[column], err_msg=column)
    assert not changed(weights(folder), weights(tmp_path / "whole"))  # bit by bit


def test_a_half_written_checkpoint_is_passed_over(model, processor, pairs, tmp_path, monkeypatch, cut_off):
    checkpoint = cut_after_a_checkpoint(model, processor, pairs, tmp_path / "model", monkeypatch, cut_off)
    half = checkpoint.parent / ".partial" / "checkpoint-13"  # where checkpoints are written before they get their place
    shutil.copytree(checkpoint, half)
    (half / "optimizer.pt").write_bytes(b"half")
    log = start(model, processor, pairs, tmp_path / "model")
    assert log["step"].max() == 18 and os.listdir(tmp_path) == ["model"]


def test_the_last_good_checkpoint_stays_until_the_next_is_whole(model, processor, pairs, tmp_path, monkeypatch):
    there = []
    original = Trainer._save_checkpoint

    def save(self, *arguments):
        original(self, *arguments)  # all is written, but not in its place yet
        there.append(sorted(path.name for path in Path(self.args.output_dir).parent.glob("checkpoint-*")))
        if len(there) == 2:
            raise Cut

    monkeypatch.setattr(Trainer, "_save_checkpoint", save)
    with pytest.raises(Cut):
        start(model, processor, pairs, tmp_path / "model")
    assert there == [[], ["checkpoint-6"]]
    monkeypatch.undo()
    assert start(model, processor, pairs, tmp_path / "model")["step"].max() == 18


KILLED = """
import sys, datasets, torch
torch.set_num_threads(1)
from dataclasses import replace
from expvqa_lib.model import load
from expvqa_lib.recipe import Recipe
from expvqa_lib.training import finetune
model, processor = load(sys.argv[1], quiet=True)
recipe = Recipe(steps=30, images=4, questions=3, validate_every=3, seed=3, workers=int(sys.argv[4]))
finetune(model, processor, datasets.load_from_disk(sys.argv[2]), sys.argv[3], recipe=recipe)
"""


@pytest.mark.parametrize("workers", [0, 1])
def test_a_killed_process_goes_on_and_ends_with_the_same_bits(model, processor, pairs, tmp_path, workers):
    """SIGKILL at three moments that chance chooses, then to the end; against a run that nobody disturbed."""
    ExpVQA(model, processor).save(tmp_path / "start")
    pairs.save_to_disk(tmp_path / "pairs")

    def run(name: str) -> subprocess.Popen:
        command = [sys.executable, "-c", KILLED, tmp_path / "start", tmp_path / "pairs", tmp_path / name / "model", str(workers)]
        return subprocess.Popen(
            list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    killed, rng = 0, np.random.default_rng(workers)
    for _ in range(3):
        process = run("killed")
        work = tmp_path / "killed"
        until = time.monotonic() + 120
        before = {path.name for path in work.glob(".model-checkpoints-*/checkpoint-*")}
        while process.poll() is None and time.monotonic() < until:
            if {path.name for path in work.glob(".model-checkpoints-*/checkpoint-*")} - before:  # it has come further
                time.sleep(rng.uniform(0, 0.4))
                break
            time.sleep(0.01)
        killed += process.poll() is None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert killed >= 1
    for name in ("killed", "whole"):
        process = run(name)
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
    assert not changed(weights(tmp_path / "killed" / "model"), weights(tmp_path / "whole" / "model"))
    logs = [pd.read_csv(tmp_path / name / "model" / "log.csv") for name in ("killed", "whole")]
    pd.testing.assert_frame_equal(*logs, check_exact=True)
    assert os.listdir(tmp_path / "killed") == ["model"]


DISTRIBUTED = """
import sys, datasets, torch
torch.set_num_threads(1)
from expvqa_lib.model import load
from expvqa_lib.recipe import Recipe
from expvqa_lib.training import finetune
start, pairs, folder, variant, images = sys.argv[1:]
model, processor = load(start, quiet=True)
recipe = Recipe(steps=6, images=int(images), questions=3, validate_every=3, seed=3, augment=variant == "exp_vqa")
finetune(model, processor, datasets.load_from_disk(pairs), folder, variant=variant, recipe=recipe)
"""


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_processes_give_the_loss_curve_of_one_with_the_same_global_batch(model, processor, pairs, tmp_path, variant):
    ExpVQA(model, processor).save(tmp_path / "start")
    pairs.save_to_disk(tmp_path / "pairs")
    (tmp_path / "train.py").write_text(DISTRIBUTED)
    for processes, images in ((1, 8), (2, 4)):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), tmp_path / "train.py"]
        command += [tmp_path / "start", tmp_path / "pairs", tmp_path / f"by{processes}" / "model", variant, str(images)]
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (pd.read_csv(tmp_path / f"by{n}" / "model" / "log.csv") for n in (1, 2))
    for column in ("loss", "eval_loss"):
        np.testing.assert_allclose(two[column].dropna(), one[column].dropna(), rtol=1e-4, err_msg=column)
    assert len(one["loss"].dropna()) == 6 and one["loss"].dropna().nunique() == 6
    mine, theirs = weights(tmp_path / "by2" / "model"), weights(tmp_path / "by1" / "model")
    for name in mine:
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-3, atol=2e-4, msg=name)


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
        ImagePairs(pairs["train"].select([]), TOY)


def test_a_folder_of_something_else_is_never_replaced(model, processor, pairs, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(SettingsError, match=f"{tmp_path}: not a model folder"):
        finetune(model, processor, pairs, tmp_path, recipe=TOY)
    assert (tmp_path / "thesis.tex").read_text() == "precious"
