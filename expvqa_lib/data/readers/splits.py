"""Train, validation and test: published lists, or people drawn in the published proportion."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ...errors import TableError
from ...files import atomic
from ..table import SPLITS
from .log import Reading

SEED = 42
VALIDATION = 0.05  # of the training subjects; the published splits have no validation set
_PUBLISHED = Path(__file__).parents[2] / "assets" / "published" / "datasets.csv"


def published_sizes(dataset: str) -> dict[str, int]:
    """Return the paper's sizes of a data set: `train_images`, `train_subjects`, and so for the test."""
    sizes = pd.read_csv(_PUBLISHED).set_index("dataset").filter(regex="^(train|test)_")
    return {} if dataset not in sizes.index else sizes.loc[dataset].dropna().astype(int).to_dict()


def assign_splits(
    reading: Reading,
    rows: pd.DataFrame,
    given: Mapping[str, str] | None = None,
    file: str | Path | None = None,
) -> tuple[pd.DataFrame, pd.Series]:
    """Give each row its subject's split; rows of subjects without one are dropped.

    Args:
        rows: with a column `subject`.
        given: train or test of each subject, where that is known; else the test subjects are drawn.
        file: a split written by `write_split`, followed in place of both.

    Returns:
        The rows with a column `split`, and the split of every subject.
    """
    names = np.unique(rows["subject"].to_numpy(dtype=str))
    if file:
        splits = read_split(file)
        reading.notes.append(f"split: as in {Path(file).name}")
    else:
        known = pd.Series(given, dtype=object).reindex(names).dropna() if given is not None else None
        splits = _with_validation(reading, _draw_test(reading, names) if known is None else known)
    rows = rows.assign(split=rows["subject"].map(splits))
    return reading.drop(rows, rows["split"].isna(), "subject of no split", "subject"), splits


def _draw_test(reading: Reading, names: np.ndarray) -> pd.Series:
    sizes = published_sizes(reading.dataset)
    unit = "subjects" if "test_subjects" in sizes else "images"
    train, test = sizes[f"train_{unit}"], sizes[f"test_{unit}"]
    count = min(max(1, round(len(names) * test / (train + test))), len(names) - 1)
    chosen = np.random.default_rng([SEED, 0]).permutation(names)[:count]
    reading.notes.append(
        f"split: {count} of {len(names)} {unit} for the test, drawn with seed {SEED};"
        f" the paper has {train} and {test} {unit}, whose list is not public"
    )
    return pd.Series(np.where(np.isin(names, chosen), "test", "train"), index=names, dtype=object)


def _with_validation(reading: Reading, splits: pd.Series) -> pd.Series:
    train = splits.index[splits == "train"].sort_values()
    if len(train) < 2:
        return splits
    chosen = np.random.default_rng([SEED, 1]).permutation(train)[: max(1, round(VALIDATION * len(train)))]
    reading.notes.append(
        f"validation: {len(chosen)} of the {len(train)} published training subjects (or images),"
        f" drawn with seed {SEED}"
    )
    return splits.where(~splits.index.isin(chosen), "validation")


def split_by_name(reading: Reading, subjects: pd.Series) -> pd.Series:
    """Return each row's split by a hash of its subject's name: a tenth each for test and validation.

    Tables that are read apart, people's labels and a program's, thereby put a person into the same split.
    """
    split = {}
    for name in subjects.unique():
        share = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 16**8
        split[name] = "test" if share < 0.1 else "validation" if share < 0.2 else "train"
    sizes = pd.Series(split).value_counts()
    counts = ", ".join(f"{sizes.get(part, 0)} {part}" for part in SPLITS)
    reading.notes.append(f"split: by a hash of each subject's name; subjects: {counts}")
    return subjects.map(split)


def write_split(splits: pd.DataFrame, path: str | Path) -> None:
    """Write columns subject and split as CSV, so that others can train and test on the same people."""
    with atomic(path) as temporary:
        splits.to_csv(temporary, index=False)


def read_split(path: str | Path) -> pd.Series:
    """Read a split written by `write_split`: subject to split.

    Raises:
        TableError: it cannot be read, or has other columns, another split or a subject twice; names the row.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
    except (OSError, ValueError) as error:
        raise TableError(f"{path}: cannot be read ({error}); expected columns subject and split") from error
    if list(table) != ["subject", "split"]:
        raise TableError(f"{path}: columns {list(table)}, expected subject and split")
    bad = ~table["split"].isin(SPLITS) | table["subject"].duplicated() | (table["subject"] == "")
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise TableError(
            f"{path}: row {row + 2}: found {list(table.iloc[row])}, expected each subject once,"
            f" and one of {list(SPLITS)}"
        )
    return table.set_index("subject")["split"].astype(object)
