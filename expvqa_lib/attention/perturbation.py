"""Changes to a model or a picture that a true map of relevance reveals: permuted weights, and patches blurred
or shown.
"""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from ..model.forward import encode_images
from ..model.yes_no import beginnings, first_p_yes
from .explain import inputs
from .methods import answer_logits, blur

SHARES = (0.0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
"""Of the patches that are blurred or shown; closer together where the first ones decide."""

_BLUR = 1 / 12  # standard deviation, as a share of the picture's side


@torch.no_grad()
def randomised(
    model: InstructBlipForConditionalGeneration, seed: int = 0
) -> InstructBlipForConditionalGeneration:
    """Copy a model with the values of each weight matrix permuted: same scale, nothing learned is left."""
    random = torch.Generator().manual_seed(seed)
    other = copy.deepcopy(model)
    for weight in other.parameters():
        if weight.ndim > 1:
            order = torch.randperm(weight.numel(), generator=random).to(weight.device)
            weight.copy_(weight.flatten()[order].view_as(weight))
    return other


@torch.no_grad()
def deletion_insertion(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    cases: pd.DataFrame,
    maps: np.ndarray,
    seed: int = 0,
    batch: int = 64,
) -> pd.DataFrame:
    """Measure P(yes) as `SHARES` of the patches, the most relevant first, are blurred or alone shown sharp.

    Args:
        cases: columns image and question.
        maps: [N, h, h], averaged over each patch; equal patches come in random order.

    Returns:
        A row a case: `deletion`, the area under P(yes) as patches are blurred (low is good), `insertion`, as
        they are shown in a blurred picture (high is good; both Petsiuk et al. 2018), and `deletion_25` and
        the like, P(yes) at that share of the patches; from 0 to 1.
    """
    grid = model.config.vision_config.image_size // model.config.vision_config.patch_size
    mean = adaptive_avg_pool2d(torch.from_numpy(maps), grid).flatten(1).numpy()  # [N, P]
    chance = np.random.default_rng(seed).random(mean.shape)
    rank = torch.from_numpy(np.lexsort((chance, -mean), axis=1).argsort(1)).view(-1, grid, grid)
    curves = [
        _curves(model, processor, cases[k : k + batch], rank[k : k + batch])
        for k in range(0, len(cases), batch)
    ]
    columns = {}
    for metric, curve in zip(
        ("deletion", "insertion"), np.concatenate(curves, 1).transpose(2, 0, 1), strict=True
    ):
        columns[metric] = np.trapezoid(curve, SHARES, axis=0)
        columns |= {f"{metric}_{100 * share:g}": p_yes for share, p_yes in zip(SHARES, curve, strict=True)}
    return pd.DataFrame(columns, cases.index)


def _curves(model, processor, cases: pd.DataFrame, rank: Tensor) -> np.ndarray:
    """P(yes) [shares, N, 2] with each share of the patches of lowest `rank` [N, g, g] blurred, and with them
    alone not blurred.
    """
    pixels, text = inputs(model, processor, list(cases["image"]), list(cases["question"]))
    blurred, patch = blur(pixels, _BLUR * pixels.shape[-1]), model.config.vision_config.patch_size
    begin = beginnings(processor.tokenizer)

    def p_yes(pictures: Tensor) -> Tensor:
        logits = answer_logits(model, encode_images(model, pictures.to(model.dtype)), text)
        return first_p_yes(logits, begin).cpu()

    whole, nothing = p_yes(pixels), p_yes(blurred)  # the curves' ends are shared
    points = [torch.stack([whole, nothing], 1)]
    for share in SHARES[1:-1]:
        taken = rank < round(share * rank[0].numel())
        taken = taken.repeat_interleave(patch, 1).repeat_interleave(patch, 2)[:, None].to(model.device)
        deleted, inserted = torch.where(taken, blurred, pixels), torch.where(taken, pixels, blurred)
        points.append(torch.stack([p_yes(deleted), p_yes(inserted)], 1))
    return torch.stack([*points, torch.stack([nothing, whole], 1)]).numpy()
