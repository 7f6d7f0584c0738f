"""The other test of a representation: what gives the features is trained further with a linear head, until validation stops it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from ..errors import TableError, TrainingError
from .metrics import label_array
from .probes import QUESTION, modules, pixels_of, pool

Labels = pd.DataFrame | pd.Series


@dataclass(frozen=True)
class ProbeRecipe:
    """Settings of the fine-tuning with a linear head; its classes are balanced by weights, as in the linear probe."""

    epochs: int = 20  # at most
    patience: int = 3  # epochs without a lower validation loss before it stops
    images: int = 32  # a batch
    learning_rate: float = 1e-4
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.05
    flip: bool = True  # each training image by chance, left to right
    seed: int = 0


def finetuned_probe(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    images: Mapping[str, Sequence[str]],
    labels: Mapping[str, Labels],
    part: str = "encoder",
    *,
    question: str = QUESTION,
    recipe: ProbeRecipe | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train a copy of a part with a linear head on its features (`probing.pool`) and return its probabilities for the test images.

    Args:
        model: stays as it is; the copy trains in float32.
        images: paths of the splits `train`, `validation` and `test`.
        labels: of `train` and `validation`, as for `probing.linear_probe`; images without any are left out.

    Returns:
        Probabilities as `probing.linear_probe` gives them; and the log: epoch, loss, validation_loss, of which the lowest was kept.

    Raises:
        TableError: images and labels differ in length, or a split has no label.
        SettingsError: the part is not one of `probing.PARTS`.
        TrainingError: the loss is not a number.
    """
    recipe = recipe or ProbeRecipe()
    torch.manual_seed(recipe.seed)
    shared = {id(model.language_model): model.language_model}  # takes no part, and may be large
    copied = copy.deepcopy(model, shared)
    trained = modules(copied, part)
    for module in trained:
        module.float().requires_grad_(True)
    names, emotions, paths, targets = _data(images, labels)
    device = model.device
    weight = _balance(targets["train"], emotions).to(device)

    def logits(paths: Sequence[str], flip: bool = False) -> Tensor:
        pixels = pixels_of(processor, paths).to(device)
        if flip:
            mirrored = torch.rand(len(pixels), device=device) < 0.5
            pixels = torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)
        return head(pool(copied, processor, pixels, part, question))

    width = (
        copied.config.vision_config.hidden_size
        if part == "encoder"
        else copied.config.qformer_config.hidden_size
    )
    head = nn.Linear(width, len(names)).to(device)
    log = _train(recipe, nn.ModuleList([*trained, head]), head, logits, paths, targets, weight, emotions)
    with torch.inference_mode():
        told = torch.cat([logits(paths["test"][k : k + 64]) for k in range(0, len(paths["test"]), 64)]).cpu()
    return pd.DataFrame((told.softmax(1) if emotions else told.sigmoid()).numpy(), columns=names), log


def _train(
    recipe: ProbeRecipe,
    trained: nn.Module,
    head: nn.Module,
    logits,
    paths,
    targets,
    weight: Tensor,
    emotions: bool,
) -> pd.DataFrame:
    """Train in place until validation stops it, and put the best weights back."""
    own = set(head.parameters())
    body = [p for p in trained.parameters() if p not in own]
    groups = [
        {"params": body, "lr": recipe.learning_rate},
        {"params": head.parameters(), "lr": recipe.head_learning_rate},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
    rows, best, bar = [], None, tqdm(range(recipe.epochs), desc="fine-tuning the probe", unit="epoch")
    for epoch in bar:
        trained.train()
        losses = []
        for some in torch.randperm(len(paths["train"])).split(recipe.images):
            loss = _loss(
                logits([paths["train"][k] for k in some], recipe.flip),
                targets["train"][some].to(weight.device),
                weight,
                emotions,
            )
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"epoch {epoch + 1}: loss {float(loss.detach())}; lower ProbeRecipe.learning_rate"
                )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        trained.eval()
        with torch.inference_mode():
            parts = [
                logits(paths["validation"][k : k + 64]).cpu() for k in range(0, len(paths["validation"]), 64)
            ]
        checked = float(_loss(torch.cat(parts), targets["validation"], weight.cpu(), emotions))
        rows.append((epoch + 1, np.mean(losses), checked))
        if best is None or checked < best[0]:
            best = checked, epoch, copy.deepcopy(trained.state_dict())
        elif epoch - best[1] >= recipe.patience:
            break
    trained.load_state_dict(best[2])
    return pd.DataFrame(rows, columns=["epoch", "loss", "validation_loss"])


def _loss(logits: Tensor, y: Tensor, weight: Tensor, emotions: bool) -> Tensor:
    """Balanced cross entropy; y [I, K] is 0, 1 or NaN (an AU that is not labelled), or one class an image."""
    if emotions:
        return nn.functional.cross_entropy(logits, y, weight=weight)
    each = nn.functional.binary_cross_entropy_with_logits(
        logits, y.nan_to_num(), pos_weight=weight, reduction="none"
    )
    return each[~y.isnan()].mean()


def _balance(y: Tensor, emotions: bool) -> Tensor:
    """Weight [K] of each class, or of each AU's positives."""
    known = ~y.isnan()
    positives = y.nan_to_num().sum(0).clamp(min=1)
    return (
        known.sum(0) / (y.shape[1] * positives)
        if emotions
        else (known.sum(0) - positives).clamp(min=1) / positives
    )


def _data(images: Mapping[str, Sequence[str]], labels: Mapping[str, Labels]) -> tuple[list, bool, dict, dict]:
    """Names of the outputs, whether they are emotions, and of each split the labelled images and their targets [N, K]."""
    emotions = isinstance(labels["train"], pd.Series)
    names = sorted(labels["train"].dropna().unique()) if emotions else label_array(labels["train"], ())[1]
    paths, targets = {"test": list(images["test"])}, {}
    for split in ("train", "validation"):
        if len(images[split]) != len(labels[split]):
            raise TableError(
                f"{split}: {len(images[split])} images for {len(labels[split])} labels; give one a row"
            )
        if emotions:
            y = (
                labels[split].to_numpy(dtype=object, na_value=None)[:, None] == np.array(names, dtype=object)
            ).astype(np.float32)
            kept = y.any(axis=1)
        else:
            y = (
                labels[split]
                .reindex(columns=names)
                .astype("Float64")
                .to_numpy(dtype=np.float32, na_value=np.nan)
            )
            kept = ~np.isnan(y).all(axis=1)
        if not kept.any():
            raise TableError(
                f"{split}: no image has a label; fine-tuning needs some to learn from and some to stop by"
            )
        paths[split] = [image for image, k in zip(images[split], kept, strict=True) if k]
        targets[split] = torch.from_numpy(y[kept])
    return names, emotions, paths, targets
