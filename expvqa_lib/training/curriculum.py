"""Which pairs a model is trained on: the curriculum of each variant, ablation and captioner; pseudo labels.

Pseudo labels are AUs by a model where only the emotion is labelled, and the reverse: the paper's step before
both are fused into one answer. The model's answer is read back into our vocabulary and becomes one Q1 pair
with source `pseudo`, for training alone: no Q3, no label in the face table.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
from tqdm.auto import tqdm
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from ..data import AU_COLUMNS, PSEUDO, RULES, au_labels, pair_row, to_dataset
from ..errors import SettingsError
from ..facs import action_unit
from ..files import cached, file_state, fingerprint
from ..model import generate
from ..questions import Q1_EMOTION, QUESTION_TYPES, answer_q1, ask_q1, read_aus, read_emotion
from .loss import encoder_key
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
    selected = pairs.copy()
    for split in set(pairs) - {"test"}:
        table = pairs[split].select_columns(["question_type", "au"]).to_pandas()
        unseen = table["question_type"].eq("Q3") & table["au"].isin(curriculum.unseen)
        chosen = table["question_type"].isin(curriculum.questions) & ~unseen
        selected[split] = pairs[split].select(np.flatnonzero(chosen))
    return selected


def captioner_pairs(
    faces: pd.DataFrame, captioner: str, completed: Mapping[object, tuple[list[int], str]] | None = None
) -> datasets.DatasetDict:
    """A captioner's training and validation pairs.

    Args:
        faces: a face table.
        captioner: `Curriculum.captioner`.
        completed: for `cat` and `exp`, by row of `faces`: AUs and emotion where a model's answer fills in
            one of them (`complete_labels`). These pairs are marked as pseudo; faces that
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


CHUNK = 256
"""Faces in one cached file: a run that is stopped loses the answers about as many at most."""


def caption(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    table: pd.DataFrame,
    folder: str | Path,
    *,
    halves: Sequence[str] = ("actions", "emotion"),
    question: str | None = None,
) -> pd.DataFrame:
    """Ask a model for the half of the labels that training faces lack: the actions, or the emotion.

    Args:
        model: the captioner, with its processor.
        table: a face table of aligned crops.
        folder: answers are cached here, by model, question and images.
        halves: one of them, for a captioner that tells only one.
        question: default: the first Q1 question about the missing half.

    Returns:
        One row a face: `row` (its index in `table`), `missing` ("actions" or "emotion"), `question` and
        `answer`.

    Raises:
        ImageError: an image is missing or unreadable.
    """
    faces = table[table["split"] == "train"]
    has_aus, has_emotion = faces[list(AU_COLUMNS)].notna().any(axis=1), faces["emotion"].notna()
    lacking = {"actions": faces[has_emotion & ~has_aus], "emotion": faces[has_aus & ~has_emotion]}
    key = encoder_key([model], model.generation_config.to_diff_dict())
    rows = []
    for half in halves:
        text, images = question or ask_q1(emotion=half == "emotion"), lacking[half]["image"]
        for k in tqdm(
            range(0, len(images), CHUNK), f"captioning {half}", unit=f"x{CHUNK}", disable=images.empty
        ):
            chunk = images.iloc[k : k + CHUNK]
            name = fingerprint(key, text, [file_state(image) for image in chunk])
            make = partial(_answers, model, processor, chunk.tolist(), text)
            answers = cached(Path(folder) / f"{name}.parquet", make)["answer"]
            rows += [(row, half, text, answer) for row, answer in zip(chunk.index, answers, strict=True)]
    return pd.DataFrame(rows, columns=["row", "missing", "question", "answer"])


def _answers(model, processor, images: list[str], question: str) -> pd.DataFrame:
    answers = generate(model, processor, images, [question] * len(images))
    return pd.DataFrame({"image": images, "answer": [first for first, *_ in answers]})


def complete_labels(table: pd.DataFrame, captions: pd.DataFrame) -> dict[object, tuple[list[int], str]]:
    """Join labels and captions: present AUs and emotion, by row, of faces that a caption completes."""
    labels = {}
    for caption, face in zip(
        captions.itertuples(), table.loc[captions["row"]].to_dict("records"), strict=True
    ):
        present, absent = read_aus(caption.answer)
        if caption.missing == "actions" and present - absent:
            labels[caption.row] = sorted(present - absent), face["emotion"]
        elif caption.missing == "emotion" and (emotion := read_emotion(caption.answer)):
            labels[caption.row] = [n for n, label in au_labels(face).items() if label], emotion
    return labels


def add_pseudo_pairs(
    pairs: datasets.DatasetDict, table: pd.DataFrame, captions: pd.DataFrame, seed: int = 42
) -> datasets.DatasetDict:
    """Append to the training pairs one Q1 pair, with source `pseudo`, for each face that a caption completes.

    Args:
        pairs: of the same table, from `data.build_pairs`.
        table: a face table.
        captions: from `caption`.
        seed: of the wordings.
    """
    labels = complete_labels(table, captions)
    wordings = np.random.default_rng(seed).integers(len(Q1_EMOTION), size=len(captions))
    rows = [
        pair_row(table.loc[row], PSEUDO, "Q1", ask_q1(wording), answer_q1(*labels[row]))
        for row, wording in zip(captions["row"], wordings.tolist(), strict=True)
        if row in labels
    ]
    train = datasets.concatenate_datasets([pairs["train"], to_dataset(rows)])
    return datasets.DatasetDict({**pairs, "train": train})
