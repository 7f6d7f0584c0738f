"""What a model is taught: which of a run's pairs it is trained on, or sentences in their place; the ablations by name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..data.table import au_labels
from ..errors import SettingsError, TableError
from ..facs import action_unit
from ..questions import Pair, answer_q1, ask_q1
from .recipe import VARIANTS

if TYPE_CHECKING:
    import datasets

    from ..pipeline.run import Run

QUESTION_TYPES = ("Q1", "Q2", "Q3")
CAPTIONERS = ("aus", "emotion", "mix", "cat", "exp")


@dataclass(frozen=True)
class Lesson:
    """Which pairs a model is trained on: all, unless something is left out; or a captioner's, one sentence a face and one question always.

    Captioners are those of Exp-BLIP: `aus` tells action units, `emotion` the emotion, `mix` each face's own of the two, `cat` both one
    after the other, `exp` both in the one sentence of `questions.answer_q1`.

    Raises:
        SettingsError: a type of question, a captioner or an AU is unknown.
    """

    questions: tuple[str, ...] = QUESTION_TYPES
    unseen: tuple[int, ...] = ()  # AUs that no Q3 pair asks about; Q1 and Q2 still name them
    captioner: str | None = None  # one of `CAPTIONERS`, in place of the questions

    def __post_init__(self) -> None:
        """Check the types and numbers."""
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
    "q1_only": Lesson(("Q1",)),
    "q1_q2": Lesson(("Q1", "Q2")),
    "q3_only": Lesson(("Q3",)),
    "au_captioner": Lesson(("Q1",), captioner="aus"),
    "emot_captioner": Lesson(("Q1",), captioner="emotion"),
    "mix_captioner": Lesson(("Q1",), captioner="mix"),
    "cat_captioner": Lesson(("Q1",), captioner="cat"),
    "exp_captioner": Lesson(("Q1",), captioner="exp"),
}
"""What a model may be taught in place of everything; that is what `exp_vqa_fz` is taught, whose recipe all of them share."""


def named(name: str, unseen: tuple[int, ...] = ()) -> Lesson:
    """The lesson of a variant, of one of `ABLATIONS`, or of `without_auN`, which is never asked about AU N either; Q3 leaves `unseen` out.

    Raises:
        SettingsError: none is called so, or the AU is unknown.
    """
    if name in VARIANTS:
        return Lesson(unseen=unseen)
    if name in ABLATIONS:
        return replace(ABLATIONS[name], unseen=unseen)
    if found := re.fullmatch(r"without_au(\d+)", name):
        return Lesson(unseen=(*unseen, int(found[1])))
    raise SettingsError(
        f"model {name!r} is unknown; known are {', '.join((*VARIANTS, *ABLATIONS))} and without_au12, say"
    )


def variant(name: str) -> str:
    """The variant whose recipe a model of `named` follows: its own, or that of Exp-VQA(fz)."""
    return name if name in VARIANTS else "exp_vqa_fz"


def taught(run: Run, name: str) -> datasets.DatasetDict:
    """The pairs that a model of the run is trained on. What `cat` and `exp` lack the AU- and the Emot-captioner tell, trained first."""
    lesson = run.lesson(name)
    if lesson.captioner is None:
        return choose(run.pairs(), lesson)
    from .pseudo_labels import caption

    faces, told = run.faces(), None
    if lesson.captioner in ("cat", "exp"):
        folder, who = run.run_dir / "captions", {"actions": "au_captioner", "emotion": "emot_captioner"}
        parts = [
            caption(run.model(who[half]), faces, folder, lacking=half, question=ask_q1()) for half in who
        ]
        told = pd.concat(parts, ignore_index=True)
    return sentences(faces, lesson.captioner, told)


def choose(pairs: datasets.DatasetDict, lesson: Lesson) -> datasets.DatasetDict:
    """Leave in the training and validation pairs what the lesson's questions and AUs allow; the test pairs stay whole.

    Raises:
        SettingsError: no training pair is left.
        TableError: the pairs do not say their type or AU.
    """
    if lesson == Lesson():
        return pairs
    if missing := [name for name in ("question_type", "au") if name not in pairs["train"].column_names]:
        raise TableError(
            f"the pairs have no column {', '.join(missing)}, by which some could be left out; found {pairs['train'].column_names}"
        )
    chosen = pairs.copy()
    for split in set(pairs) - {"test"}:
        columns = pairs[split].with_format("pandas")
        kinds, aus = columns["question_type"][:], columns["au"][:]
        kept = np.isin(kinds, lesson.questions) & ~((kinds == "Q3") & np.isin(aus, lesson.unseen))
        chosen[split] = pairs[split].select(np.flatnonzero(kept))
        if split != "train" and not len(chosen[split]):
            del chosen[split]
    if not len(chosen["train"]):
        raise SettingsError(
            f"{lesson}: none of the {len(pairs['train'])} training pairs is left; leave in another type of question or AU"
        )
    return chosen


def sentences(faces: pd.DataFrame, captioner: str, told: pd.DataFrame | None = None) -> datasets.DatasetDict:
    """A captioner's pairs for training and validation: the first Q1 question and a sentence, for `mix` up to two, about each face.

    Args:
        faces: a face table.
        captioner: one of `CAPTIONERS`.
        told: captions (`captioning.caption`) of what training faces lack, for `cat` and `exp`, which leave out faces that still lack a
            half. They are marked as pseudo, and no validation face has any.

    Raises:
        SettingsError: no training face has what the captioner tells.
    """
    import datasets

    from ..data.pairs import to_dataset
    from .pseudo_labels import completed

    seen = {} if told is None else completed(faces, told)
    made = {
        split: to_dataset(_sentences(faces[faces["split"] == split], captioner, seen))
        for split in ("train", "validation")
    }
    if not len(made["train"]):
        raise SettingsError(
            f"captioner {captioner!r}: no training face has a label that it could tell; add a data set that has"
        )
    return datasets.DatasetDict({split: rows for split, rows in made.items() if len(rows)})


def _sentences(faces: pd.DataFrame, captioner: str, seen: dict) -> Iterator[dict]:
    from ..data.pairs import PSEUDO, RULES, as_row

    for row, face in zip(faces.index, faces.to_dict("records"), strict=True):
        labels, emotion = au_labels(face), face["emotion"] if pd.notna(face["emotion"]) else None
        present = sorted(au for au, label in labels.items() if label)
        source = RULES if pd.isna(face["labelled_by"]) else PSEUDO
        if captioner in ("cat", "exp") and not (labels and emotion):
            if row not in seen:
                continue
            (present, emotion), source = seen[row], PSEUDO
        halves = {"aus": answer_q1(present, None), "emotion": answer_q1((), emotion)}
        known = [half for half in halves.values() if half]
        said = {"mix": known, "cat": [" ".join(known)], "exp": [answer_q1(present, emotion)]}.get(
            captioner
        ) or [halves.get(captioner)]
        for answer in filter(None, said):
            yield as_row(face, Pair("Q1", ask_q1(), answer), source)
