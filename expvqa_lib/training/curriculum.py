"""Which pairs a model is trained on: the curriculum of each variant, ablation and captioner by name."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import datasets
import numpy as np
import pandas as pd

from ..data import PSEUDO, RULES, au_labels, pair_row, to_dataset
from ..errors import SettingsError
from ..facs import action_unit
from ..questions import QUESTION_TYPES, answer_q1, ask_q1
from .recipe import VARIANTS


@dataclass(frozen=True)
class Curriculum:
    """Types of question that a model is trained on; or a captioner's pairs: the first Q1 question, a
    sentence a face.

    The captioners are Exp-BLIP's: `aus` describes action units, `emotion` the emotion, `mix` whichever a
    face is labelled with (in two pairs where it has both), `cat` both in two sentences, `exp` both in the
    one sentence of `questions.answer_q1`.
    """

    questions: tuple[str, ...] = QUESTION_TYPES
    unseen: tuple[int, ...] = ()  # AUs without Q3 pairs; answers to Q1 and Q2 still name them
    captioner: str | None = None  # in place of the questions


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
    known = dict.fromkeys(VARIANTS, Curriculum()) | ABLATIONS
    if left_out := re.fullmatch(r"without_au(\d+)", name):
        unseen = (*unseen, int(left_out[1]))
    elif name not in known:
        raise SettingsError(f"model {name!r} is unknown; known are {', '.join(known)} and without_au12, say")
    for au in unseen:
        action_unit(au)  # refuses an unknown one
    return replace(known.get(name, Curriculum()), unseen=unseen)


def variant_of(name: str) -> str:
    """The variant whose recipe a model follows: its own, or Exp-VQA(fz)'s for an ablation."""
    return name if name in VARIANTS else "exp_vqa_fz"


def select(pairs: datasets.DatasetDict, curriculum: Curriculum) -> datasets.DatasetDict:
    """Select the training and validation pairs of a curriculum; the test pairs stay whole."""
    if curriculum == Curriculum():
        return pairs
    selected = pairs.copy()
    for split in set(pairs) - {"test"}:
        table = pairs[split].select_columns(["question_type", "au"]).to_pandas()
        unseen = table["question_type"].eq("Q3") & table["au"].isin(curriculum.unseen)
        rows = np.flatnonzero(table["question_type"].isin(curriculum.questions) & ~unseen)
        selected[split] = pairs[split].select(rows)
    return selected


def captioner_pairs(
    faces: pd.DataFrame, captioner: str, completed: Mapping[object, tuple[list[int], str]] | None = None
) -> datasets.DatasetDict:
    """A captioner's training and validation pairs.

    Args:
        faces: a face table.
        captioner: `Curriculum.captioner`.
        completed: for `cat` and `exp`, by row of `faces`: AUs and emotion where a model's answer fills in
            one of them (`pseudo_labels.complete_labels`). These pairs are marked as pseudo; faces that
            still lack one are left out.
    """
    return datasets.DatasetDict(
        {
            split: to_dataset(_rows(faces[faces["split"] == split], captioner, completed or {}))
            for split in ("train", "validation")
        }
    )


def _rows(faces: pd.DataFrame, captioner: str, completed: Mapping) -> Iterator[dict]:
    for row, face in zip(faces.index, faces.to_dict("records"), strict=True):
        labels, emotion = au_labels(face), face["emotion"] if pd.notna(face["emotion"]) else None
        present = sorted(au for au, label in labels.items() if label)
        source = RULES if pd.isna(face["labelled_by"]) else PSEUDO
        if captioner in ("cat", "exp") and not (labels and emotion):
            if row not in completed:
                continue
            (present, emotion), source = completed[row], PSEUDO
        halves = [answer_q1(present, None), answer_q1((), emotion)]
        sentences = {
            "aus": halves[:1],
            "emotion": halves[1:],
            "mix": halves,
            "cat": [" ".join(filter(None, halves))],
            "exp": [answer_q1(present, emotion)],
        }[captioner]
        for sentence in filter(None, sentences):
            yield pair_row(face, source, "Q1", ask_q1(), sentence)
