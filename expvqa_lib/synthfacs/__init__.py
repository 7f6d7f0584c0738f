"""SynthFACS: rendered faces with exact action units, landmarks and changed pixels."""

from .corpora import (
    PRESENT,
    VERSION,
    CorpusSizes,
    example_photos,
    make,
    on_all_cores,
    prototype_face,
    random_expression,
    sequence,
)
from .expression import AUS, LEVELS
from .identity import BEARDS, EYES, HAIR, HAIRSTYLES, Identity, random_identity
from .render import Face, Rendering, Scene, au_mask, random_scene, render

__all__ = [
    "AUS",
    "BEARDS",
    "EYES",
    "HAIR",
    "HAIRSTYLES",
    "LEVELS",
    "PRESENT",
    "VERSION",
    "CorpusSizes",
    "Face",
    "Identity",
    "Rendering",
    "Scene",
    "au_mask",
    "example_photos",
    "make",
    "on_all_cores",
    "prototype_face",
    "random_expression",
    "random_identity",
    "random_scene",
    "render",
    "sequence",
]
