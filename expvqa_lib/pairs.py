"""Pairs as a Hugging Face data set: the released JSON's keys (image, image_id, text_input, text_output, area), and further
`question_type`, `au`, `dataset` and `source`, who wrote the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import datasets
import numpy as np
import pandas as pd

from .corpora.table import SPLITS, au_labels
from .facs import ACTION_UNITS
from .questions import Pair, balanced_q3, face_pairs

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


def as_row(face: Mapping, pair: Pair, source: str = RULES) -> dict:
    """One pair about one face of the table, with the columns of `FEATURES`."""
    source = source if pd.isna(face["labelled_by"]) else PSEUDO
    identity = {"image": face["image"], "image_id": f"{face['dataset']}/{face['subject']}/{face['frame']}"}
    return identity | vars(pair) | {"dataset": face["dataset"], "source": source}


def as_dataset(rows: Sequence[Mapping]) -> datasets.Dataset:
    """Rows with the columns of `FEATURES`, also none, as one split."""
    return datasets.Dataset.from_dict({key: [row[key] for row in rows] for key in FEATURES}, features=FEATURES)


def build(table: pd.DataFrame, seed: int = 42) -> datasets.DatasetDict:
    """Make the pairs of a face table, a split each: Q1 and Q2 by the rules of `questions`, Q3 by `balanced_q3`."""
    found = {}
    for split in SPLITS:
        rows: list[dict] = []
        for number, (_, faces) in enumerate(table[table["split"] == split].groupby("dataset", sort=True)):
            rng = np.random.default_rng([seed, SPLITS.index(split), number])
            labels = faces[[u.name for u in ACTION_UNITS.values()]].to_numpy(dtype=float, na_value=np.nan)
            asked = balanced_q3(labels, rng)
            numbers = np.array(list(ACTION_UNITS))
            for k, face in enumerate(faces.to_dict("records")):
                emotion = face["emotion"] if pd.notna(face["emotion"]) else None
                for pair in face_pairs(au_labels(face), emotion, rng, numbers[asked[k]].tolist()):
                    rows.append(as_row(face, pair))
        found[split] = as_dataset(rows)
    return datasets.DatasetDict(found)
