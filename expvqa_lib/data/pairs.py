"""Question-answer pairs as a Hugging Face data set: of a face table, or of the authors' JSON files.

Columns are the released JSON's keys (image, image_id, text_input, text_output, area), and `question_type`,
`au`, `dataset` and `source`, which says who wrote the answer.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress, islice
from pathlib import Path
from types import NoneType

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa

from ..errors import SettingsError, TableError
from ..facs import ACTION_UNITS
from ..files import inside
from ..questions import NO, YES, balanced_q3, face_pairs, read_aus
from .table import AU_COLUMNS, SPLITS

FEATURES = datasets.Features(
    {
        key: datasets.Value("int16" if key == "au" else "string")
        for key in (
            *("image", "image_id", "text_input", "text_output", "area"),
            *("question_type", "au", "dataset", "source"),
        )
    }
)
RULES, LANGUAGE_MODEL, PSEUDO = "rules", "llm", "pseudo"
"""Values of `source`: rules from people's labels, a language model's words, a model's labels."""
CHUNK = 50_000
"""Pairs held as Python objects at a time."""
_KEYS = {
    "image": str,
    "text_input": str,
    "text_output": str,
    "area": str | NoneType,
    "image_id": str | int | NoneType,
}
_TYPE = re.compile(r"(?<![a-z0-9])(?:q|type[-_]?)([123])(?![0-9])", re.IGNORECASE)
_YES_NO = re.compile(rf"\s*(?:{YES}|{NO})\s*(?:[.,;:!]|$)", re.IGNORECASE)


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
    return datasets.DatasetDict(
        {
            split: to_dataset(_rows(table, split, seed), folder and Path(folder) / f"{split}.arrow")
            for split in SPLITS
        }
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
    for index, (_, part) in enumerate(table[table["split"] == split].groupby("dataset", sort=True)):
        rng = np.random.default_rng([seed, SPLITS.index(split), index])
        values = part[list(AU_COLUMNS)].to_numpy(dtype=float, na_value=np.nan)  # [faces, AUs]
        faces = part[["image", "dataset", "subject", "frame", "emotion", "labelled_by"]].to_dict("records")
        for face, row, q3 in zip(faces, values, balanced_q3(values, rng), strict=True):
            labels = {n: int(x) for n, x in zip(ACTION_UNITS, row, strict=True) if not np.isnan(x)}
            emotion = None if pd.isna(face["emotion"]) else face["emotion"]
            source = RULES if pd.isna(face["labelled_by"]) else PSEUDO
            for pair in face_pairs(labels, emotion, rng, list(compress(ACTION_UNITS, q3))):
                yield pair_row(face, source, *pair)


def read_pairs_json(
    files: Sequence[str | Path],
    root: str | Path,
    *,
    drop_missing: bool = False,
    folder: str | Path | None = None,
) -> tuple[datasets.Dataset, dict[str, int]]:
    """Read lists of objects with `image`, `text_input`, `text_output`, and sometimes `image_id` and `area`.

    The type of a question is in the file's name (Q1 or type1, say); else it is Q3 where the answer is yes or
    no, Q2 where there is an area, else Q1. The AU of a Q3 is the one that its question names. Rows with an
    empty question or answer are dropped.

    Args:
        files: JSON files.
        root: the folder that the images' paths are relative to.
        drop_missing: drop rows whose image is missing; by default they are an error.
        folder: for an Arrow file, for more pairs than memory holds; by default pairs are in memory.

    Returns:
        The pairs, and counts of the dropped rows by reason.

    Raises:
        TableError: a file is damaged, a value has the wrong type, an image is missing or outside of the root,
            or no pair is left; the message names file, row (from 0) and key.
    """
    if not os.path.isdir(root):
        raise TableError(f"{root}: no such folder; expected the one that the images' paths are relative to")
    dropped: Counter[str] = Counter()
    rows = (row for path in files for row in _read_json(Path(path), root, drop_missing, dropped))
    pairs = to_dataset(rows, folder and Path(folder) / "released.arrow")
    if not len(pairs):
        raise TableError(f"{', '.join(map(str, files))}: no pairs, dropped: {dict(dropped)}")
    return pairs, dict(dropped)


def _read_json(path: Path, root: str | Path, drop_missing: bool, dropped: Counter[str]) -> Iterator[dict]:
    """Yield the rows of a file as pairs, and count the dropped ones."""
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise TableError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(values, list):
        raise TableError(f"{path}: found {values!r:.60}, expected a list of objects")
    for number, value in enumerate(values):
        if not isinstance(value, dict):
            raise TableError(f"{path}: row {number}: found {value!r:.60}, expected an object")
        for key, kind in _KEYS.items():
            if not isinstance(value.get(key), kind):
                raise TableError(
                    f"{path}: row {number}, key {key}: found {value.get(key)!r:.60}, expected text"
                )
    named = _TYPE.search(path.stem)
    places = inside(root, [value["image"] for value in values])
    for number, (value, place) in enumerate(zip(values, places, strict=True)):
        question, answer, area = value["text_input"], value["text_output"], value.get("area") or None
        if not (question.strip() and answer.strip()):
            dropped["empty question or answer"] += 1
        elif place is not None and os.path.isfile(place):
            kind = f"Q{named[1]}" if named else "Q3" if _YES_NO.match(answer) else "Q2" if area else "Q1"
            aus = set().union(*read_aus(question)) if kind == "Q3" else ()
            yield {
                "image": place,
                "image_id": str(value["image"] if value.get("image_id") is None else value["image_id"]),
                "text_input": question,
                "text_output": answer,
                "area": area,
                "question_type": kind,
                "au": aus.pop() if len(aus) == 1 else None,
                "dataset": "released",
            }
        elif place is not None and drop_missing:
            dropped["image missing"] += 1
        else:
            raise TableError(
                f"{path}: row {number}, key image: {value['image']!r:.120} is not a file below {root}; "
                "check the folder, or drop rows with missing images (drop_missing, --drop-missing)"
            )


def split_by_image(pairs: datasets.Dataset, validation: float) -> datasets.DatasetDict:
    """Draw a share of the images for validation. The files name no subjects, so people may be in both splits.

    Raises:
        SettingsError: the share leaves no image to one of the splits.
    """
    images = np.unique(pairs["image"][:])
    drawn = np.random.default_rng(42).permutation(images)[: round(validation * len(images))]
    if not 0 < len(drawn) < len(images):
        raise SettingsError(
            f"validation={validation}: {len(drawn)} of {len(images)} images; both splits need some"
        )
    held = np.isin(pairs["image"][:], drawn)
    rows = {"train": np.flatnonzero(~held), "validation": np.flatnonzero(held)}
    return datasets.DatasetDict({split: pairs.select(indices) for split, indices in rows.items()})
