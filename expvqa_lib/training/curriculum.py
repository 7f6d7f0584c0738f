"""Which pairs a model is trained on: the curriculum of each variant, ablation and captioner by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import datasets
import numpy as np
import pandas as pd

from ..data import PSEUDO, RULES, au_labels, pair_row, to_dataset
from ..errors import SettingsError, TableError
from ..facs import action_unit
from ..questions import QUESTION_TYPES, Pair, answer_q1, ask_q1
from .recipe import VARIANTS

CAPTIONERS = ("aus", "emotion", "mix", "cat", "exp")


@dataclass(frozen=True)
class Curriculum:
    """Types of question that a model is trained on; or a captioner's pairs: the first Q1 question, a
    sentence a face.

    The captioners are Exp-BLIP's: `aus` describes action units, `emotion` the emotion, `mix` whichever a
    face is labelled with (in two pairs where it has both), `cat` both in two sentences, `exp` both in the
    one sentence of `questions.answer_q1`.

    Raises:
        SettingsError: a type of question, a captioner or an AU is unknown.
    """

    questions: tuple[str, ...] = QUESTION_TYPES
    unseen: tuple[int, ...] = ()  # AUs without Q3 pairs; answers to Q1 and Q2 still name them
    captioner: str | None = None  # one of `CAPTIONERS`, in place of the questions

    def __post_init__(self) -> None:
        for kind in self.questions:
            if kind not in QUESTION_TYPES:
                raise SettingsError(
                    f"question type {kind!r} is unknown; known are {', '.join(QUESTION_TYPES)}"
                )
        for au in self.unseen:
            action_unit(au)
        if self.captioner not in (None, *CAPTIONERS):
            raise SettingsError(f"captioner {self.captioner!r} is unknown; known are {', '.join(CAPTIONERS)}")


ABLATIONS = {
    "q1_only": Curriculum(("Q1",)),
    "q1_q2": Curriculum(("Q1", "Q2")),
    "q3_only": Curriculum(("Q3",)),
    "au_captioner": Curriculum(("Q1",), captioner="aus"),
    "emot_captioner": Curriculum(("Q1",), captioner="emotion"),
    "mix_captioner": Curriculum(("Q1",), captioner="mix"),
    "cat_captioner": Curriculum(("Q1",), captioner="cat"),
    "exp_captioner": Curriculum(("Q1",), captioner="exp"),
}
"""All of them are trained by the recipe of `exp_vqa_fz`, which learns from every type of question."""


def curriculum(name: str, unseen: tuple[int, ...] = ()) -> Curriculum:
    """The curriculum of a variant, of one of `ABLATIONS`, or of `without_auN`: no Q3 pairs about AU N.

    No curriculum has Q3 pairs about the AUs `unseen`.

    Raises:
        SettingsError: the name or the AU is unknown.
    """
    if name in VARIANTS:
        return Curriculum(unseen=unseen)
    if name in ABLATIONS:
        return replace(ABLATIONS[name], unseen=unseen)
    if left_out := re.fullmatch(r"without_au(\d+)", name):
        return Curriculum(unseen=(*unseen, int(left_out[1])))
    known = ", ".join((*VARIANTS, *ABLATIONS))
    raise SettingsError(f"model {name!r} is unknown; known are {known} and without_au12, say")


def variant_of(name: str) -> str:
    """The variant whose recipe a model follows: its own, or Exp-VQA(fz)'s for an ablation."""
    return name if name in VARIANTS else "exp_vqa_fz"


def select(pairs: datasets.DatasetDict, curriculum: Curriculum) -> datasets.DatasetDict:
    """Select the training and validation pairs of a curriculum; the test pairs stay whole.

    Raises:
        SettingsError: no training pair is left.
        TableError: the pairs have no column for their type or AU.
    """
    if curriculum == Curriculum():
        return pairs
    columns = pairs["train"].column_names
    if missing := [name for name in ("question_type", "au") if name not in columns]:
        raise TableError(
            f"the pairs have no column {', '.join(missing)}, by which to select some; found {columns}"
        )
    selected = pairs.copy()
    for split in set(pairs) - {"test"}:
        table = pairs[split].with_format("pandas")
        kinds, aus = table["question_type"][:], table["au"][:]
        unseen = (kinds == "Q3") & np.isin(aus, curriculum.unseen)
        rows = np.flatnonzero(np.isin(kinds, curriculum.questions) & ~unseen)
        selected[split] = pairs[split].select(rows)
        if split != "train" and not len(rows):
            del selected[split]
    if not len(selected["train"]):
        raise SettingsError(
            f"{curriculum}: none of the {len(pairs['train'])} training pairs is left; add a type or an AU"
        )
    return selected


def captioner_pairs(
    faces: pd.DataFrame, captioner: str, completed: Mapping[object, tuple[list[int], str]] | None = None
) -> datasets.DatasetDict:
    """A captioner's training and validation pairs.

    Args:
        faces: a face table.
        captioner: one of `CAPTIONERS`.
        completed: for `cat` and `exp`, by row of `faces`: AUs and emotion where a model's answer fills in
            one of them (`pseudo_labels.complete_labels`). These pairs are marked as pseudo; faces that
            still lack one are left out.

    Raises:
        SettingsError: no training face has a label for the captioner.
    """
    splits = {}
    for split in ("train", "validation"):
        rows = to_dataset(_captioner_rows(faces[faces["split"] == split], captioner, completed or {}))
        if len(rows):
            splits[split] = rows
    if "train" not in splits:
        raise SettingsError(
            f"captioner {captioner!r}: no training face is labelled with what it describes; add a data set"
        )
    return datasets.DatasetDict(splits)


def _captioner_rows(
    faces: pd.DataFrame, captioner: str, completed: Mapping[object, tuple[list[int], str]]
) -> Iterator[dict]:
    for row, face in zip(faces.index, faces.to_dict("records"), strict=True):
        labels, emotion = au_labels(face), face["emotion"] if pd.notna(face["emotion"]) else None
        present = sorted(au for au, label in labels.items() if label)
        source = RULES if pd.isna(face["labelled_by"]) else PSEUDO
        if captioner in ("cat", "exp") and not (labels and emotion):
            if row not in completed:
                continue
            (present, emotion), source = completed[row], PSEUDO
        for sentence in _sentences(captioner, present, emotion):
            yield pair_row(face, Pair("Q1", ask_q1(), sentence), source)


def _sentences(captioner: str, present: list[int], emotion: str | None) -> list[str]:
    actions, feeling = answer_q1(present, None), answer_q1((), emotion)
    both = [sentence for sentence in (actions, feeling) if sentence]
    sentences = {
        "aus": [actions],
        "emotion": [feeling],
        "mix": both,
        "cat": [" ".join(both)],
        "exp": [answer_q1(present, emotion)],
    }[captioner]
    return [sentence for sentence in sentences if sentence]
