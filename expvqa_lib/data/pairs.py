"""Pairs as a Hugging Face data set: the released JSON's keys (image, image_id, text_input, text_output, area), and further
`question_type`, `au`, `dataset` and `source`, who wrote the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa

from ..facs import ACTION_UNITS
from ..questions import Pair, balanced_q3, face_pairs
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
"""Values of `source`: rules from labels by people; a language model from those rules' answers; either, from what a model saw."""


CHUNK = 50_000
"""Pairs that are held as Python objects at a time."""


def build(table: pd.DataFrame, seed: int = 42, folder: str | Path | None = None) -> datasets.DatasetDict:
    """Make the pairs of a face table, a split each: Q1 and Q2 by the rules of `questions`, Q3 by `balanced_q3`.

    Args:
        folder: an empty folder to write Arrow files to, which the pairs are then read from as they are needed: hundreds of thousands of
            faces take little more memory than some. Without it, pairs are held in memory.
    """
    paths = {split: None if folder is None else Path(folder) / f"{split}.arrow" for split in SPLITS}
    return datasets.DatasetDict(
        {split: to_dataset(_rows(table, split, seed), path) for split, path in paths.items()}
    )


def save(pairs: datasets.DatasetDict, folder: str | Path) -> None:
    """Write the splits to be read with `datasets.load_from_disk`, each in one file: an empty one gets none else, and cannot be read."""
    pairs.save_to_disk(folder, num_shards=dict.fromkeys(pairs, 1))


def to_dataset(rows: Iterable[dict], path: Path | None = None) -> datasets.Dataset:
    """Put rows with the keys of `FEATURES` into a data set, in memory or in an Arrow file at `path`."""
    schema, rows = FEATURES.arrow_schema, iter(rows)
    with pa.BufferOutputStream() if path is None else pa.OSFile(str(path), "wb") as sink:
        with pa.ipc.new_stream(sink, schema) as writer:
            while some := list(islice(rows, CHUNK)):
                writer.write_table(pa.Table.from_pylist(some, schema))
        return (
            datasets.Dataset.from_buffer(sink.getvalue())
            if path is None
            else datasets.Dataset.from_file(str(path))
        )


def as_row(face: Mapping, pair: Pair, source: str = RULES) -> dict:
    """One pair about one face of the table, with the keys of `FEATURES`."""
    identity = {
        "image": face["image"],
        "image_id": f"{face['dataset']}/{face['subject']}/{face['frame']}",
        "dataset": face["dataset"],
    }
    return identity | vars(pair) | {"source": source}


def _rows(table: pd.DataFrame, split: str, seed: int) -> Iterator[dict]:
    """The pairs of one face after the other; what chance decides hangs on the order of a data set's faces."""
    told = ["image", "dataset", "subject", "frame", "emotion", "labelled_by"]
    here = table.loc[table["split"] == split, [*told, *AU_COLUMNS]]
    for number, (_, faces) in enumerate(here.groupby("dataset", sort=True)):
        rng = np.random.default_rng([seed, SPLITS.index(split), number])
        labels = faces[list(AU_COLUMNS)].to_numpy(dtype=float, na_value=np.nan)  # [faces, AUs]
        asked = balanced_q3(labels, rng)
        numbers = np.array(list(ACTION_UNITS))
        for k, face in enumerate(faces[told].to_dict("records")):
            known = {
                n: int(label)
                for n, label in zip(ACTION_UNITS, labels[k].tolist(), strict=True)
                if label == label
            }
            emotion = None if pd.isna(face["emotion"]) else face["emotion"]
            source = RULES if pd.isna(face["labelled_by"]) else PSEUDO
            for pair in face_pairs(known, emotion, rng, numbers[asked[k]].tolist()):
                yield as_row(face, pair, source)
