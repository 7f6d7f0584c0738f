"""The missing half: what a trained model sees where nobody labelled, as pairs that are marked as such.

The paper's step before fusing: faces with an emotion get the action units that a captioner reads, faces with action units its emotion.
The model's sentence is read back into our vocabulary and becomes one Q1 pair a face, with source `pseudo`: for training alone, never Q3,
never a label in the face table, and so never part of an evaluation.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import datasets
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ..data.pairs import PSEUDO, as_row, to_dataset
from ..data.rewriting.checks import read_actions
from ..data.table import AU_COLUMNS, au_labels
from ..errors import ImageError
from ..files import atomic, fingerprint
from ..model.answer import generate
from ..questions import Q1_EMOTION, Pair, answer_q1, ask_q1, read_emotion
from .feature_cache import encoder_key

if TYPE_CHECKING:
    from ..expvqa import ExpVQA

HALVES = ("actions", "emotion")
CHUNK = 256  # faces a file
"""Where the run is stopped, as many answers at most are lost."""


def caption(
    model: ExpVQA,
    table: pd.DataFrame,
    folder: str | Path,
    *,
    lacking: str | None = None,
    question: str | None = None,
) -> pd.DataFrame:
    """Ask a model for what the training faces of a table lack: the actions where only the emotion is labelled, and the reverse.

    Args:
        model: the captioner, from `expvqa_lib.load`.
        table: a face table; its images are aligned crops.
        folder: keeps the answers, so that a run that was stopped goes on; another model, question or image asks anew.
        lacking: one of `HALVES`, for a captioner that tells no other; default: both.
        question: what to ask; default: the first Q1 question about what is missing.

    Returns:
        One row a face: `row` (the index in `table`), `missing` ("actions" or "emotion"), `question` and `answer`.

    Raises:
        ImageError: an image is missing or unreadable.
    """
    faces = table[table["split"] == "train"]
    has_aus, has_emotion = faces[list(AU_COLUMNS)].notna().any(axis=1), faces["emotion"].notna()
    key = encoder_key([model.model], model.model.generation_config.to_diff_dict())
    incomplete, parts = (
        dict(zip(HALVES, (faces[has_emotion & ~has_aus], faces[has_aus & ~has_emotion]), strict=True)),
        [],
    )
    for missing in HALVES if lacking is None else (lacking,):
        asked, those = question or ask_q1(emotion=missing == "emotion"), incomplete[missing]
        for k in tqdm(
            range(0, len(those), CHUNK), desc=f"captioning {missing}", unit=f"x{CHUNK}", disable=those.empty
        ):
            rows = those.iloc[k : k + CHUNK]
            answers = _answers(model, key, rows["image"].tolist(), asked, Path(folder))
            parts.append(
                pd.DataFrame({"row": rows.index, "missing": missing, "question": asked, "answer": answers})
            )
    return (
        pd.concat(parts, ignore_index=True)
        if parts
        else pd.DataFrame(columns=["row", "missing", "question", "answer"])
    )


def _answers(model: ExpVQA, key: str, images: list[str], question: str, folder: Path) -> list[str]:
    """Read the answers about some images, or ask and keep them."""
    path = folder / f"{fingerprint(key, question, [image_state(image) for image in images])}.parquet"
    if not path.exists():
        told = generate(model.model, model.processor, images, [question] * len(images))
        with atomic(path) as temporary:
            pd.DataFrame({"image": images, "answer": [answers[0] for answers in told]}).to_parquet(
                temporary, index=False
            )
    return pd.read_parquet(path)["answer"].tolist()


def image_state(image: str) -> tuple[str, int, int]:
    """What tells that an image is still the same, without reading it."""
    try:
        stat = Path(image).stat()
    except OSError as error:
        raise ImageError(
            f"{image}: cannot be read ({error.strerror}); check the path in the face table"
        ) from error
    return str(image), stat.st_size, stat.st_mtime_ns


def completed(table: pd.DataFrame, captions: pd.DataFrame) -> dict[object, tuple[list[int], str]]:
    """Present AUs and emotion by row of the table, for each caption in which the missing half can be read."""
    found = {}
    for told, face in zip(captions.itertuples(), table.loc[captions["row"]].to_dict("records"), strict=True):
        if told.missing == "actions":
            named, denied = read_actions(told.answer)
            present, emotion = named - denied, face["emotion"]
        else:
            present, emotion = {n for n, v in au_labels(face).items() if v}, read_emotion(told.answer)
        if present if told.missing == "actions" else emotion:
            found[told.row] = sorted(present), emotion
    return found


def add(
    pairs: datasets.DatasetDict, table: pd.DataFrame, captions: pd.DataFrame, seed: int = 42
) -> datasets.DatasetDict:
    """Append to the training pairs one Q1 pair, with source `pseudo`, for each caption in which the missing half can be read.

    Args:
        pairs: of the same table, from `pairs.build`.
        captions: from `caption`.
        seed: of the wordings.
    """
    halves, rows = completed(table, captions), []
    wordings = np.random.default_rng(seed).integers(len(Q1_EMOTION), size=len(captions))
    for row, face, wording in zip(
        captions["row"], table.loc[captions["row"]].to_dict("records"), wordings.tolist(), strict=True
    ):
        if row in halves:
            rows.append(as_row(face, Pair("Q1", ask_q1(wording), answer_q1(*halves[row])), PSEUDO))
    return datasets.DatasetDict(
        {**pairs, "train": datasets.concatenate_datasets([pairs["train"], to_dataset(rows)])}
    )
