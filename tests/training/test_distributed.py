"""Several processes compute what one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from weights import weights

from expvqa_lib.expvqa import ExpVQA
from expvqa_lib.training import finetune as training
from expvqa_lib.training.recipe import VARIANTS


def launch(processes: int, *command) -> str:
    """Run a script in so many processes and return what they print."""
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        processes,
        *command,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        list(map(str, torchrun)), capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


DISTRIBUTED = """
import sys, datasets, torch
torch.set_num_threads(1)
from expvqa_lib.model import load_model
from expvqa_lib.recipe import Recipe
from expvqa_lib.training import finetune
start, pairs, folder, variant, images = sys.argv[1:]
model, processor = load_model(start, quiet=True)
recipe = Recipe(steps=6, images=int(images), pairs_per_image=3, validate_every=3, seed=3, augment=variant == "exp_vqa")
finetune(model, processor, datasets.load_from_disk(pairs), folder, variant=variant, recipe=recipe)
"""


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_processes_give_the_loss_curve_of_one_with_the_same_global_batch(
    model, processor, pairs, tmp_path, variant
):
    ExpVQA(model, processor).save(tmp_path / "start")
    pairs.save_to_disk(tmp_path / "pairs")
    (tmp_path / "train.py").write_text(DISTRIBUTED)
    for processes, images in ((1, 8), (2, 4)):
        folder = tmp_path / f"by{processes}" / "model"
        launch(
            processes, tmp_path / "train.py", tmp_path / "start", tmp_path / "pairs", folder, variant, images
        )
    one, two = (pd.read_csv(tmp_path / f"by{n}" / "model" / "log.csv") for n in (1, 2))
    for column in ("loss", "eval_loss"):
        np.testing.assert_allclose(two[column].dropna(), one[column].dropna(), rtol=1e-4, err_msg=column)
    assert len(one["loss"].dropna()) == 6 and one["loss"].dropna().nunique() == 6
    mine, theirs = weights(tmp_path / "by2" / "model"), weights(tmp_path / "by1" / "model")
    for name in mine:
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-3, atol=2e-4, msg=name)


SHARDED = """
import copy, sys, datasets, torch, yaml
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from expvqa_lib.batches import Collator, ImagePairs
from expvqa_lib.model import load_model
from expvqa_lib.recipe import Recipe
from expvqa_lib.training import _Trained, batch_loss, freeze
torch.set_num_threads(1)
start, pairs, variant, layers = sys.argv[1:]
dist.init_process_group("gloo")
model, processor = load_model(start, quiet=True)
recipe = Recipe(pairs_per_image=3, augment=False)
items = ImagePairs(datasets.load_from_disk(pairs)["train"], recipe)
shares = [Collator(processor, recipe)([items[k] for k in some]) for some in ((0, 1, 20, 30), (2, 3, 21, 31))]
for share in shares:
    del share["images"]
freeze(model.train(), variant)
count = sum(int((share["labels"] != -100).sum()) for share in shares)
whole = copy.deepcopy(model)
expected = sum(batch_loss(whole, share, "sum") for share in shares) / count
expected.backward()
model.__class__ = _Trained
for module in list(model.modules()):
    if type(module).__name__ in layers.split(","):
        fully_shard(module)
fully_shard(model)
loss = model(**shares[dist.get_rank()], num_items_in_batch=count)["loss"]
(2 * loss).backward()  # gradients are averaged over the processes
loss = loss.detach()
dist.all_reduce(loss)
torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=0)
compared = 0
for (name, mine), theirs in zip(model.named_parameters(), whole.parameters()):
    if mine.grad is not None:
        torch.testing.assert_close(mine.grad.full_tensor(), theirs.grad, rtol=1e-3, atol=1e-5, msg=name)
        compared += bool(theirs.grad.any())
print("compared", compared)
dist.destroy_process_group()
"""


@pytest.mark.parametrize("variant", VARIANTS)
def test_fully_sharded_layers_give_the_loss_and_gradients_of_one_process(
    model, processor, pairs, tmp_path, variant
):
    """The layers that the shipped configuration wraps, spread over two processes."""
    config = yaml.safe_load((Path(training.__file__).parents[1] / "assets/accelerate/fsdp.yaml").read_text())[
        "fsdp_config"
    ]
    ExpVQA(model, processor).save(tmp_path / "start")
    pairs.save_to_disk(tmp_path / "pairs")
    (tmp_path / "shard.py").write_text(SHARDED)
    output = launch(
        2,
        tmp_path / "shard.py",
        tmp_path / "start",
        tmp_path / "pairs",
        variant,
        config["fsdp_transformer_layer_cls_to_wrap"],
    )
    assert int(output.split("compared ")[1].split()[0]) > 30


ASKED = """
import sys, pandas as pd, torch
torch.set_num_threads(1)
from accelerate import PartialState
from expvqa_lib.model import embed_images, generate, score_yes_no
from expvqa_lib.model import load_model
start, folder, *images = sys.argv[1:]
model, processor = load_model(start, quiet=True)
for count in (len(images), 1, 0):
    scores = score_yes_no(model, processor, images[:count], [1, 12, 25], batch=4)
    told = generate(model, processor, images[:count], ["Why?"] * count, max_new_tokens=4)
    here = score_yes_no(model, processor, [], [1, 12, 25], embeds=embed_images(model, processor, images[:count]))
    table = pd.concat([scores, here.add_suffix("_here"), pd.DataFrame({"told": [answer for (answer,) in told]})], axis=1)
    table.to_parquet(f"{folder}/{count}-{PartialState().process_index}-of-{PartialState().num_processes}.parquet")
"""


def test_two_processes_score_and_answer_as_one_does_all_images_in_order(model, processor, faces, tmp_path):
    ExpVQA(model, processor).save(tmp_path / "start")
    images = faces["image"].iloc[[0, 20, 70, 100, 5]].tolist()
    (tmp_path / "ask.py").write_text(ASKED)
    for processes in (1, 2):
        launch(processes, tmp_path / "ask.py", tmp_path / "start", tmp_path, *images)
    for count in (5, 1, 0):  # of fewer images than processes, too
        one, first, second = (
            pd.read_parquet(tmp_path / f"{count}-{which}.parquet") for which in ("0-of-1", "0-of-2", "1-of-2")
        )
        assert len(one) == count
        pd.testing.assert_frame_equal(first, second)
        pd.testing.assert_frame_equal(first, one, rtol=0, atol=1e-6)
        np.testing.assert_allclose(one["AU12"], one["AU12_here"], atol=1e-6)
