"""Weights of saved models, compared bit by bit."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import InstructBlipForConditionalGeneration


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a model folder by name."""
    return InstructBlipForConditionalGeneration.from_pretrained(folder).state_dict()


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """The names of the weights that differ in any bit."""
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}
