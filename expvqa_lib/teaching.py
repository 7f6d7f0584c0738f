"""What a model is taught: which of a run's pairs it is trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .errors import SettingsError
from .facs import action_unit

if TYPE_CHECKING:
    import datasets

QUESTION_TYPES = ("Q1", "Q2", "Q3")


@dataclass(frozen=True)
class Lesson:
    """Which pairs a model is trained on: all, unless something is left out.

    Raises:
        SettingsError: a type of question or an AU is unknown.
    """

    questions: tuple[str, ...] = QUESTION_TYPES
    unseen: tuple[int, ...] = ()  # AUs that no Q3 pair asks about; Q1 and Q2 still name them

    def __post_init__(self) -> None:
        """Check the types and numbers."""
        for kind in self.questions:
            if kind not in QUESTION_TYPES:
                raise SettingsError(f"question type {kind!r} is unknown; known are {', '.join(QUESTION_TYPES)}")
        for au in self.unseen:
            action_unit(au)


def choose(pairs: datasets.DatasetDict, lesson: Lesson) -> datasets.DatasetDict:
    """Leave in the training and validation pairs what the lesson holds; the test pairs stay whole.

    Raises:
        SettingsError: no training pair is left.
    """
    if lesson == Lesson():
        return pairs
    chosen = pairs.copy()
    for split in set(pairs) - {"test"}:
        columns = pairs[split].with_format("pandas")
        kinds, aus = columns["question_type"][:], columns["au"][:]
        kept = np.isin(kinds, lesson.questions) & ~((kinds == "Q3") & np.isin(aus, lesson.unseen))
        chosen[split] = pairs[split].select(np.flatnonzero(kept))
    if not len(chosen["train"]):
        raise SettingsError(f"{lesson}: none of the {len(pairs['train'])} training pairs is left; leave in another type of question or AU")
    return chosen
