"""Profiles: every setting of a run in one frozen dataclass, chosen by name."""

from __future__ import annotations

from dataclasses import dataclass, field

from .corpora.synthetic import CorpusSizes
from .errors import SettingsError
from .training import Recipe


@dataclass(frozen=True)
class Profile:
    """Settings of one run from faces to figures."""

    name: str
    corpora: CorpusSizes = field(default_factory=CorpusSizes)
    exp_vqa: Recipe = field(default_factory=lambda: Recipe(steps=850, learning_rate=7e-4, augment=False))
    exp_vqa_fz: Recipe = field(default_factory=lambda: Recipe(steps=2200, learning_rate=1.2e-3, augment=False))
    exp_vqa_start: str = "base"  # what Exp-VQA starts from; `exp_vqa_fz` frees the vision encoder of a model that can read it already
    explained: int = 40  # faces an AU in the attention measurements
    resamples: int = 1000  # of the bootstrap
    seed: int = 42


PROFILES = {
    "quick": Profile("quick", exp_vqa_start="exp_vqa_fz"),
    "smoke": Profile(
        "smoke",
        exp_vqa_start="exp_vqa_fz",
        corpora=CorpusSizes(
            lab_train=6,
            lab_validation=2,
            lab_test=3,
            videos=2,
            wild_train=48,
            wild_validation=8,
            wild_test=24,
            emotion_train=48,
            emotion_validation=8,
            emotion_test=32,
        ),
        exp_vqa=Recipe(steps=4, images=8, questions=4, validate_every=2),
        exp_vqa_fz=Recipe(steps=4, images=8, questions=4, validate_every=2),
        explained=2,
        resamples=50,
    ),
}
"""`quick` regenerates the committed figures; `smoke` runs the same code on a miniature in the tests and learns nothing."""


def get(name: str) -> Profile:
    """Return a profile by its name.

    Raises:
        SettingsError: there is none of that name; or it is `paper`, which cannot run yet.
    """
    if name == "paper":
        raise SettingsError(
            "profile 'paper' cannot run yet: readers of the licensed data sets and the 7B recipe are missing in this version; use 'quick'"
        )
    if name not in PROFILES:
        raise SettingsError(f"profile {name!r} is unknown; known are {', '.join(PROFILES)}")
    return PROFILES[name]
