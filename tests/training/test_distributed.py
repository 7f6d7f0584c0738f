"""Two processes compute what one does."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from weights import save, weights
from work import TOY

from expvqa_lib.training import VARIANTS, finetune


@pytest.fixture(scope="module")
def two(_tiny, pairs, tmp_path_factory) -> Path:
    """The folder of what two processes made; in it stands that layers sharded over them compute the same."""
    folder = tmp_path_factory.mktemp("two")
    save(*_tiny, folder / "start")
    pairs.save_to_disk(folder / "pairs")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = [Path(__file__).with_name("work.py"), "share", folder / "start", folder / "pairs", folder]
    options = {"capture_output": True, "text": True, "timeout": 300}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*torchrun, *map(str, script)], env=environment, **options)
    assert done.returncode == 0, done.stderr[-3000:]
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
