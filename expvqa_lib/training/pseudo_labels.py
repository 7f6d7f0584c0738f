"""Labels by a model: AUs where only the emotion is labelled and the reverse, as training pairs.

This is the paper's step before AUs and emotion are fused into one answer. The model's answer is read back
into our vocabulary and becomes one Q1 pair with source `pseudo`, for training alone: no Q3, no label in the
face table.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
from tqdm.auto import tqdm
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from ..data import AU_COLUMNS, PSEUDO, au_labels, pair_row, to_dataset
from ..files import cached, file_state, fingerprint
from ..model.answer import generate
from ..questions import Q1_EMOTION, answer_q1, ask_q1, read_aus, read_emotion
from .feature_cache import encoder_key

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
        emotion = read_emotion(caption.answer)
        if caption.missing == "actions" and present - absent:
            labels[caption.row] = sorted(present - absent), face["emotion"]
        elif caption.missing == "emotion" and emotion:
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
