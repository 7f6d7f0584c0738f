"""Fine-tuning: recipe, curriculum, data set, augmentation, feature cache and pseudo labels."""

from .curriculum import ABLATIONS, Curriculum, captioner_pairs, curriculum, select, variant_of
from .dataset import Collator, ImagePairs
from .feature_cache import VisionStates, encoder_key
from .finetune import finetune, freeze
from .loss import LossModel, batch_loss, vision_states
from .pseudo_labels import add_pseudo_pairs, caption, complete_labels
from .recipe import PAPER, VARIANTS, Recipe, learning_rate

__all__ = [
    "ABLATIONS",
    "PAPER",
    "VARIANTS",
    "Collator",
    "Curriculum",
    "ImagePairs",
    "LossModel",
    "Recipe",
    "VisionStates",
    "add_pseudo_pairs",
    "batch_loss",
    "caption",
    "captioner_pairs",
    "complete_labels",
    "curriculum",
    "encoder_key",
    "finetune",
    "freeze",
    "learning_rate",
    "select",
    "variant_of",
    "vision_states",
]
