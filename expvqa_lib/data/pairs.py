"""Question-answer pairs of a face table, as a Hugging Face data set.

Columns are the released JSON's keys (image, image_id, text_input, text_output, area), and `question_type`,
`au`, `dataset` and `source`, which says who wrote the answer.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa

from ..facs import ACTION_UNITS
from ..questions import balanced_q3, face_pairs
from .table import AU_COLUMNS, SPLITS

FEATURES = datasets.Features(
    {
        "image": datasets.Value("string"),
        "image_id": datasets.Value("string"),
        "text_input": datasets.Value("string"),
        "text_output": datasets.Value("string"),
        "area": datasets.Value("string"),
        "question_type": datasets.Value("string"),
        "au": datasets.Value("int16"),
        "dataset": datasets.Value("string"),
        "source": datasets.Value("string"),
    }
)
RULES, LANGUAGE_MODEL, PSEUDO = "rules", "llm", "pseudo"
"""Values of `source`: rules from people's labels, a language model's words, a model's labels."""
CHUNK = 50_000
"""Pairs held as Python objects at a time."""


def build_pairs(
    table: pd.DataFrame, seed: int = 42, folder: str | Path | None = None
) -> datasets.DatasetDict:
    """Make the pairs of a face table, a split each: Q1 and Q2 by rules, Q3 by `balanced_q3`.

    Args:
        table: a face table.
        seed: of wordings and of the choice of Q3.
        folder: an empty folder for Arrow files, for more faces than memory holds; by default pairs are in
            memory.
    """
    paths = {split: None if folder is None else Path(folder) / f"{split}.arrow" for split in SPLITS}
    return datasets.DatasetDict(
        {split: to_dataset(_rows(table, split, seed), path) for split, path in paths.items()}
    )


def save_pairs(pairs: datasets.DatasetDict, folder: str | Path) -> None:
    """Write pairs for `datasets.load_from_disk`, each split in one file (an empty split would get none)."""
    pairs.save_to_disk(folder, num_shards=dict.fromkeys(pairs, 1))


def to_dataset(rows: Iterable[dict], path: Path | None = None) -> datasets.Dataset:
    """Put rows with the keys of `FEATURES` into a data set, in memory or in an Arrow file at `path`."""
    schema, rows = FEATURES.arrow_schema, iter(rows)
    with pa.BufferOutputStream() if path is None else pa.OSFile(str(path), "wb") as sink:
        with pa.ipc.new_stream(sink, schema) as writer:
            while chunk := list(islice(rows, CHUNK)):
                writer.write_table(pa.Table.from_pylist(chunk, schema))
        if path is None:
            return datasets.Dataset.from_buffer(sink.getvalue())
        return datasets.Dataset.from_file(str(path))


def pair_row(
    face: Mapping,
    source: str,
    question_type: str,
    question: str,
    answer: str,
    area: str | None = None,
    au: int | None = None,
) -> dict:
    """Return one pair about one face of a face table, with the keys of `FEATURES`."""
    return {
        "image": face["image"],
        "image_id": f"{face['dataset']}/{face['subject']}/{face['frame']}",
        "text_input": question,
        "text_output": answer,
        "area": area,
        "question_type": question_type,
        "au": au,
        "dataset": face["dataset"],
        "source": source,
    }


def _rows(table: pd.DataFrame, split: str, seed: int) -> Iterator[dict]:
    """Yield the pairs of a split; each data set draws for itself, in the order of its faces."""
    numbers = np.array(list(ACTION_UNITS))
    for index, (_, part) in enumerate(table[table["split"] == split].groupby("dataset", sort=True)):
        rng = np.random.default_rng([seed, SPLITS.index(split), index])
        values = part[list(AU_COLUMNS)].to_numpy(dtype=float, na_value=np.nan)  # [faces, AUs]
        faces = part[["image", "dataset", "subject", "frame", "emotion", "labelled_by"]].to_dict("records")
        for face, row, q3 in zip(faces, values, balanced_q3(values, rng), strict=True):
            labels = {n: int(x) for n, x in zip(ACTION_UNITS, row, strict=True) if not np.isnan(x)}
            emotion = None if pd.isna(face["emotion"]) else face["emotion"]
            source = RULES if pd.isna(face["labelled_by"]) else PSEUDO
            for pair in face_pairs(labels, emotion, rng, numbers[q3].tolist()):
                yield pair_row(face, source, *pair)
