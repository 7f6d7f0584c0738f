"""Fine-tuning: recipe, curriculum with pseudo labels, data set with augmentation, feature cache, trainer."""

from .card import add_results, read_card
from .curriculum import (
    ABLATIONS,
    Curriculum,
    add_pseudo_pairs,
    caption,
    captioner_pairs,
    complete_labels,
    curriculum,
    select,
    variant_of,
)
from .dataset import Collator, ImagePairs
from .finetune import finetune, freeze
from .loss import LossModel, batch_loss, cached_states, encoder_key, vision_states
from .recipe import PAPER, VARIANTS, Recipe, change, learning_rate

__all__ = [
    "ABLATIONS",
    "PAPER",
    "VARIANTS",
    "Collator",
    "Curriculum",
    "ImagePairs",
    "LossModel",
    "Recipe",
    "add_pseudo_pairs",
    "add_results",
    "batch_loss",
    "cached_states",
    "caption",
    "captioner_pairs",
    "change",
    "complete_labels",
    "curriculum",
    "encoder_key",
    "finetune",
    "freeze",
    "learning_rate",
    "read_card",
    "select",
    "variant_of",
    "vision_states",
]
