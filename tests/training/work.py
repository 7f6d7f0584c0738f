"""What tests run in processes of their own: `python work.py FUNCTION START PAIRS FOLDER`, also by torchrun.

START is a model's folder, PAIRS that of the pairs, and FOLDER is for results.
"""

import copy
import sys
from dataclasses import replace
from pathlib import Path

import datasets
import torch
import torch.distributed as dist
import yaml
from torch.distributed.fsdp import fully_shard

from expvqa_lib import training
from expvqa_lib.model import load_model
from expvqa_lib.training import VARIANTS, Collator, ImagePairs, LossModel, Recipe, finetune

TOY = Recipe(steps=4, images=8, pairs_per_image=3, validate_every=2, seed=3)
KILLED = replace(TOY, steps=16, images=4)


def train_until_killed(start: str, pairs: str, folder: str) -> None:
    model, processor = load_model(start, quiet=True)
    finetune(model, processor, datasets.load_from_disk(pairs), folder, recipe=replace(KILLED, workers=1))


def share(start: str, pairs: str, folder: str) -> None:
    """In two processes, train both variants and compare sharded layers with whole ones."""
    data = datasets.load_from_disk(pairs)
    for variant in VARIANTS:
        recipe = replace(TOY, images=TOY.images // 2, augment=variant == "exp_vqa")
        model, processor = load_model(start, quiet=True)
        finetune(model, processor, data, f"{folder}/{variant}", variant=variant, recipe=recipe)
    for variant in VARIANTS:
        compare_sharded(*load_model(start, quiet=True), data["train"], variant)


def compare_sharded(model, processor, pairs: datasets.Dataset, variant: str) -> None:
    """Compare loss and gradients with layers sharded by the shipped configuration and in one process."""
    file = Path(training.__file__).parents[1] / "assets" / "accelerate" / "fsdp.yaml"
    layers = yaml.safe_load(file.read_text())["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"].split(",")
    recipe = replace(TOY, augment=False)
    items, collate = ImagePairs(pairs, recipe), Collator(processor, recipe)
    batches = [collate([items[k] for k in some]) for some in ((0, 1, 20, 30), (2, 3, 21, 31))]
    for batch in batches:
        del batch["images"]
    training.freeze(model.train(), variant)
    count = sum(int((batch["labels"] != -100).sum()) for batch in batches)
    whole = copy.deepcopy(model)
    expected = sum(training.batch_loss(whole, batch, count) for batch in batches)
    expected.backward()
    sharded = LossModel(model)
    assert set(layers) <= {type(module).__name__ for module in sharded.modules()}
    for module in list(sharded.modules()):
        if type(module).__name__ in layers:
            fully_shard(module)
    fully_shard(sharded)
    loss = sharded(**batches[dist.get_rank()], num_items_in_batch=count)["loss"]
    (2 * loss).backward()  # gradients are averaged over the processes
    loss = loss.detach()
    dist.all_reduce(loss)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=0)
    compared = 0
    for (name, part), parameter in zip(sharded.named_parameters(), whole.parameters(), strict=True):
        if part.grad is not None:
            gradient = part.grad.full_tensor()
            torch.testing.assert_close(gradient, parameter.grad, rtol=1e-3, atol=1e-5, msg=name)
            compared += bool(parameter.grad.any())
    assert compared > 30, compared


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"train_until_killed": train_until_killed, "share": share}[sys.argv[1]](*sys.argv[2:])
