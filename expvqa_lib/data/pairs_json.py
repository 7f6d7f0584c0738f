"""The authors' pair files as they are released: JSON lists of questions and answers about images below one folder."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import SettingsError, TableError
from ..files import inside
from ..questions import read_aus
from .jsonlist import objects
from .pairs import to_dataset

LISTED = 10
"""How many missing images are named."""

_PART = 10_000  # rows whose images are looked for together
_TYPE = re.compile(r"(?<![a-z0-9])(?:q|type[-_]?)([123])(?![0-9])", re.IGNORECASE)
_AU = re.compile(r"\bAU[ _-]?0*(\d+)", re.IGNORECASE)
_YES_NO = re.compile(r"\s*(?:yes|no)\s*(?:[.,;:!]|$)", re.IGNORECASE)
_MISSING, _EMPTY = "image missing", "empty question or answer"


@dataclass(frozen=True)
class Released:
    """Pair files as read: `read` rows, which are those of `pairs` and the `dropped` ones (reason to count).

    `missing` names the first `LISTED` images that are not there.
    """

    pairs: datasets.Dataset
    read: int
    dropped: Mapping[str, int]
    missing: tuple[str, ...]


def read_json(
    files: Sequence[str | Path],
    root: str | Path,
    *,
    question_types: Sequence[str] | None = None,
    drop_missing: bool = False,
    folder: str | Path | None = None,
) -> Released:
    """Read lists of objects with `image`, `text_input`, `text_output` and, where known, `image_id` and `area`; other keys are passed over.

    The type of a question is what `question_types` says, else what the file's name does where it holds Q1, Q2, Q3, type1, type2 or type3,
    else what the row does: Q3 where the answer is yes or no (or goes on behind a comma), Q2 where there is an area, else Q1. The AU of a
    Q3 is the one that its question names, if it names one. Rows with an empty question or answer are dropped.

    Args:
        root: the images' paths are relative to it.
        question_types: Q1, Q2 or Q3 of each file.
        drop_missing: drop the rows whose image is not there, rather than to refuse all.
        folder: where to write an Arrow file that the pairs are then read from as needed; without it they are held in memory.

    Raises:
        TableError: a file is damaged, a value has the wrong type, an image's path leads out of the root, images are missing, or nothing is
            left; the message names file, row (from 0) and key.
        SettingsError: the question types are not one of the three for each file.
    """
    if question_types is not None and (
        len(question_types) != len(files) or not set(question_types) <= {"Q1", "Q2", "Q3"}
    ):
        raise SettingsError(
            f"question_types={list(question_types)}: expected Q1, Q2 or Q3 for each of the {len(files)} files"
        )
    if not os.path.isdir(root):
        raise TableError(f"{root}: no such folder; give the one that the images' paths are relative to")
    named = [_TYPE.search(Path(path).stem) for path in files]
    types = question_types or [found and f"Q{found[1]}" for found in named]
    counts: Counter[str] = Counter()
    missing: dict[str, None] = {}

    def rows() -> Iterator[dict]:
        for path, kind in zip(files, types, strict=True):
            values = ((f"{path}: row {row}", value) for row, value in enumerate(objects(path)))
            while part := [(row, _pair(value, kind, row)) for row, value in islice(values, _PART)]:
                counts["read"] += len(part)
                places = _places(part, root)
                for _, pair in part:
                    if not (pair["text_input"].strip() and pair["text_output"].strip()):
                        counts[_EMPTY] += 1
                    elif place := places[pair["image"]]:
                        yield pair | {"image": place}
                    else:
                        counts[_MISSING] += 1
                        if len(missing) < LISTED:
                            missing[pair["image"]] = None

    pairs = to_dataset(rows(), None if folder is None else Path(folder) / "released.arrow")
    read = counts.pop("read", 0)
    if counts[_MISSING] and not drop_missing:
        raise TableError(
            f"{root}: the images of {counts[_MISSING]} of {read} rows are not there, among them {', '.join(missing)}; "
            "check the folder, or drop these rows (drop_missing, --drop-missing)"
        )
    if not len(pairs):
        raise TableError(f"{', '.join(map(str, files))}: no pairs: {read} rows read, {dict(+counts)} dropped")
    return Released(pairs, read, dict(+counts), tuple(missing))


def _pair(value: dict, kind: str | None, row: str) -> dict:
    """Return one row with its values checked; `row` says file and row."""
    for key, needed in (("image", True), ("text_input", True), ("text_output", True), ("area", False)):
        text = value.get(key)
        if not isinstance(text, str) and (needed or text is not None):
            raise TableError(
                f"{row}, key {key}: found {text!r:.60}, expected text"
                if key in value
                else f"{row}, key {key}: missing"
            )
        if text and not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise TableError(f"{row}, key {key}: found {text!r:.60}, which holds half a character")
    identity = value.get("image_id", value["image"])
    if isinstance(identity, bool) or not isinstance(identity, (str, int)):
        raise TableError(f"{row}, key image_id: found {identity!r:.60}, expected text or a whole number")
    question, answer, area = value["text_input"], value["text_output"], value.get("area") or None
    kind = kind or ("Q3" if _YES_NO.match(answer) else "Q2" if area else "Q1")
    return {
        "image": value["image"],
        "image_id": str(identity),
        "text_input": question,
        "text_output": answer,
        "area": area,
        "question_type": kind,
        "au": _asked_au(question) if kind == "Q3" else None,
        "dataset": "released",
    }


def _places(part: list[tuple[str, dict]], root: str | Path) -> dict[str, str | None]:
    """Where the images are, None for one that is not there. Raises TableError for one whose path leads out of the root."""
    first = {}  # where an image is asked for first
    for row, pair in part:
        first.setdefault(pair["image"], row)
    places = dict(zip(first, inside(root, first), strict=True))
    for image, place in places.items():
        if place is None or os.path.isabs(image) or ".." in image.split("/"):
            raise TableError(
                f"{first[image]}, key image: found {image!r:.120}, expected a path below {root} that does not lead out of it"
            )
    return {image: place if os.path.isfile(place) else None for image, place in places.items()}


@lru_cache(maxsize=4096)
def _asked_au(question: str) -> int | None:
    told, denied = read_aus(_AU.sub(r"AU\1", question))
    return next(iter(told | denied)) if len(told | denied) == 1 else None


def split_by_image(pairs: datasets.Dataset, validation: float, seed: int = 42) -> datasets.DatasetDict:
    """Draw a share of the images for validation: splits `train` and `validation`. The files tell no subjects, so people may be in both.

    Raises:
        SettingsError: the share leaves no image to one of the splits.
    """
    images = sorted(pairs.unique("image"))
    drawn = np.random.default_rng(seed).permutation(len(images))[: round(validation * len(images))]
    if not 0 < len(drawn) < len(images):
        raise SettingsError(
            f"validation={validation}: {len(drawn)} of {len(images)} images; both splits need some"
        )
    column = pairs.with_format("arrow")[:]["image"]
    held = pc.is_in(column, pa.array(images, column.type).take(pa.array(drawn))).to_numpy()
    return datasets.DatasetDict(
        {"train": pairs.select(np.flatnonzero(~held)), "validation": pairs.select(np.flatnonzero(held))}
    )
