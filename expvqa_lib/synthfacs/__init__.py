"""SynthFACS: drawn faces with exact action units, landmarks and changed pixels."""

from .corpora import (
    PRESENT,
    VERSION,
    CorpusSizes,
    example_photos,
    make,
    prototype_face,
    random_expression,
    sequence,
)
from .face import (
    AUS,
    BACKGROUNDS,
    EYES,
    HAIR,
    HAIRSTYLES,
    SHAPE,
    Face,
    Identity,
    Scene,
    random_identity,
    random_scene,
)
from .render import LANDMARKS, Rendering, au_mask, close_gaps, render

__all__ = [
    "AUS",
    "BACKGROUNDS",
    "EYES",
    "HAIR",
    "HAIRSTYLES",
    "LANDMARKS",
    "PRESENT",
    "SHAPE",
    "VERSION",
    "CorpusSizes",
    "Face",
    "Identity",
    "Rendering",
    "Scene",
    "au_mask",
    "close_gaps",
    "example_photos",
    "make",
    "prototype_face",
    "random_expression",
    "random_identity",
    "random_scene",
    "render",
    "sequence",
]
