"""Runs that are cut off or killed go on and end as if they had not been."""

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

import numpy as np
import pandas as pd
import pytest
from transformers import Trainer
from weights import changed, weights

from expvqa_lib.expvqa import ExpVQA
from expvqa_lib.training import dataset as batches
from expvqa_lib.training.dataset import ImagePairs
from expvqa_lib.training.finetune import finetune
from expvqa_lib.training.recipe import Recipe

TOY = Recipe(steps=4, images=4, pairs_per_image=3, validate_every=2, seed=3)


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
    return finetune(
        copy.deepcopy(model),
        processor,
        pairs,
        folder,
        recipe=replace(TOY, steps=18, validate_every=6, images=8),
        **options,
    )


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


def test_a_run_that_was_cut_off_goes_on_and_ends_as_if_it_had_not_been(
    model, processor, pairs, tmp_path, monkeypatch, cut_off
):
    folder = tmp_path / "cut" / "model"
    cut_after_a_checkpoint(model, processor, pairs, folder, monkeypatch, cut_off)
    read = []
    original = batches.load_image
    monkeypatch.setattr(batches, "load_image", lambda source: read.append(source) or original(source))
    log = start(model, processor, pairs, folder)
    assert len(read) < 9 * 8 + len(
        ImagePairs(pairs["validation"], TOY)
    )  # the last steps only, not all 18 again
    whole = start(model, processor, pairs, tmp_path / "whole")
    assert os.listdir(folder.parent) == ["model"]
    for column in ("step", "loss", "eval_loss", "learning_rate"):
        np.testing.assert_array_equal(log[column], whole[column], err_msg=column)
    assert not changed(weights(folder), weights(tmp_path / "whole"))  # bit by bit


def test_a_half_written_checkpoint_is_passed_over(model, processor, pairs, tmp_path, monkeypatch, cut_off):
    checkpoint = cut_after_a_checkpoint(model, processor, pairs, tmp_path / "model", monkeypatch, cut_off)
    half = (
        checkpoint.parent / ".partial" / "checkpoint-13"
    )  # where checkpoints are written before they get their place
    shutil.copytree(checkpoint, half)
    (half / "optimizer.pt").write_bytes(b"half")
    log = start(model, processor, pairs, tmp_path / "model")
    assert log["step"].max() == 18 and os.listdir(tmp_path) == ["model"]


def test_the_last_good_checkpoint_stays_until_the_next_is_whole(
    model, processor, pairs, tmp_path, monkeypatch
):
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
from expvqa_lib.model import load_model
from expvqa_lib.recipe import Recipe
from expvqa_lib.training import finetune
model, processor = load_model(sys.argv[1], quiet=True)
recipe = Recipe(steps=30, images=4, pairs_per_image=3, validate_every=3, seed=3, workers=int(sys.argv[4]))
finetune(model, processor, datasets.load_from_disk(sys.argv[2]), sys.argv[3], recipe=recipe)
"""


@pytest.mark.parametrize("workers", [0, 1])
def test_a_killed_process_goes_on_and_ends_with_the_same_bits(model, processor, pairs, tmp_path, workers):
    """SIGKILL at three moments that chance chooses, then to the end; against a run that nobody disturbed."""
    ExpVQA(model, processor).save(tmp_path / "start")
    pairs.save_to_disk(tmp_path / "pairs")

    def run(name: str) -> subprocess.Popen:
        command = [
            sys.executable,
            "-c",
            KILLED,
            tmp_path / "start",
            tmp_path / "pairs",
            tmp_path / name / "model",
            str(workers),
        ]
        return subprocess.Popen(
            list(map(str, command)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    killed, rng = 0, np.random.default_rng(workers)
    for _ in range(3):
        process = run("killed")
        work = tmp_path / "killed"
        until = time.monotonic() + 120
        before = {path.name for path in work.glob(".model-checkpoints-*/checkpoint-*")}
        while process.poll() is None and time.monotonic() < until:
            if {
                path.name for path in work.glob(".model-checkpoints-*/checkpoint-*")
            } - before:  # it has come further
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


@pytest.mark.parametrize("other", [{"variant": "exp_vqa_fz"}, {"recipe": replace(TOY, steps=4, seed=9)}])
def test_a_run_with_other_settings_does_not_go_on_from_it(
    model, processor, pairs, tmp_path, monkeypatch, cut_off, other
):
    cut_after_a_checkpoint(model, processor, pairs, tmp_path / "model", monkeypatch, cut_off)
    options = {"recipe": TOY, "variant": "exp_vqa"} | other
    finetune(copy.deepcopy(model), processor, pairs, tmp_path / "model", **options)
    finetune(copy.deepcopy(model), processor, pairs, tmp_path / "apart" / "model", **options)
    assert not changed(weights(tmp_path / "model"), weights(tmp_path / "apart" / "model"))
