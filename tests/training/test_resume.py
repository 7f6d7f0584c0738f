"""Trainings that are cut off or killed end as if they had not been; two processes compute what one does."""

import copy
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import TrainerState
from weights import changed, save, weights
from work import KILLED, TOY

from expvqa_lib.training import VARIANTS, ImagePairs, Recipe, dataset, finetune

CUT = Recipe(steps=6, images=4, pairs_per_image=3, validate_every=2, seed=3)


class PowerCut(Exception):
    pass


@pytest.fixture
def cut(model, processor, pairs, tmp_path, monkeypatch) -> Path:
    """The folder of a training that was cut off while it wrote its second checkpoint, at step 4 of 6."""
    folder, steps = tmp_path / "cut" / "model", []
    save = TrainerState.save_to_json

    def save_once(self, path):
        steps.append(self.global_step)
        if len(steps) == 2:
            raise PowerCut
        save(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(TrainerState, "save_to_json", save_once)
        with pytest.raises(PowerCut):
            finetune(copy.deepcopy(model), processor, pairs, folder, recipe=CUT)
    names = {path.name for path in folder.parent.rglob("checkpoint-*")}
    assert steps == [2, 4] and names == {"checkpoint-2", "checkpoint-4"} and not folder.exists()
    return folder


def test_a_training_goes_on_from_its_last_whole_checkpoint_and_ends_with_the_same_bits(
    model, processor, pairs, tmp_path, cut, monkeypatch
):
    read, load_image = [], dataset.load_image
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "load_image", lambda image: read.append(image) or load_image(image))
        log = finetune(copy.deepcopy(model), processor, pairs, cut, recipe=CUT)
    validation = len(ImagePairs(pairs["validation"], CUT))
    assert len(read) < 6 * CUT.images + 2 * validation  # the last four steps, with a batch read ahead
    whole = finetune(copy.deepcopy(model), processor, pairs, tmp_path / "whole", recipe=CUT)
    pd.testing.assert_frame_equal(log, whole, check_exact=True)
    assert not changed(weights(cut), weights(tmp_path / "whole"))
    assert os.listdir(cut.parent) == ["model"]


@pytest.mark.parametrize("other", [{"variant": "exp_vqa_fz"}, {"recipe": replace(CUT, seed=9)}])
def test_a_training_with_other_settings_starts_anew(model, processor, pairs, tmp_path, cut, other):
    options, apart = {"recipe": CUT} | other, tmp_path / "apart" / "model"
    log = finetune(copy.deepcopy(model), processor, pairs, cut, **options)
    whole = finetune(model, processor, pairs, apart, **options)
    pd.testing.assert_frame_equal(log, whole, check_exact=True)


def test_a_killed_process_goes_on_and_ends_with_the_same_bits(model, processor, pairs, tmp_path):
    """SIGKILL a moment after the first checkpoint; against a training that nothing disturbed."""
    save(model, processor, tmp_path / "start")
    pairs.save_to_disk(tmp_path / "pairs")
    folder, script = tmp_path / "killed" / "model", Path(__file__).with_name("work.py")
    command = [sys.executable, script, "train_until_killed", tmp_path / "start", tmp_path / "pairs", folder]
    process, until = subprocess.Popen(command, start_new_session=True), time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until:
        if list(folder.parent.glob(".model-*/checkpoint-*")):
            break
        time.sleep(0.01)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run(command, check=True, timeout=300)
    finetune(model, processor, pairs, tmp_path / "whole", recipe=KILLED)
    assert not changed(weights(folder), weights(tmp_path / "whole"))
    log = pd.read_csv(folder / "log.csv")
    pd.testing.assert_frame_equal(log, pd.read_csv(tmp_path / "whole" / "log.csv"), check_exact=True)
    assert os.listdir(folder.parent) == ["model"]


@pytest.fixture(scope="module")
def two(_tiny, pairs, tmp_path_factory) -> Path:
    """The folder of what two processes made; in it stands that layers sharded over them compute the same."""
    folder = tmp_path_factory.mktemp("two")
    save(*_tiny, folder / "start")
    pairs.save_to_disk(folder / "pairs")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = [Path(__file__).with_name("work.py"), "share", folder / "start", folder / "pairs", folder]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*torchrun, *script], env=environment, check=True, timeout=300)
    return folder


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_processes_train_as_one_does(model, processor, pairs, two, tmp_path, variant):
    recipe, folder = replace(TOY, augment=variant == "exp_vqa"), tmp_path / "model"
    log = finetune(model, processor, pairs, folder, variant=variant, recipe=recipe)
    shared = pd.read_csv(two / variant / "log.csv")
    for column in ("loss", "eval_loss"):
        np.testing.assert_allclose(shared[column].dropna(), log[column].dropna(), rtol=1e-4, err_msg=column)
    assert log["loss"].dropna().nunique() == TOY.steps
    expected, found = weights(folder), weights(two / variant)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=2e-4, msg=name)
