"""The split of a data set: as published, as labelled, as written beside a table, or drawn."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ...errors import TableError
from ..table import SPLITS
from .reading import Reading

SEED = 42
VALIDATION = 0.05  # of the training subjects; the published splits have no validation set


def published_sizes(dataset: str) -> dict[str, int]:
    """Return the paper's sizes of a data set: `train_images`, `train_subjects`, and so for the test."""
    published = Path(__file__).parents[2] / "assets" / "published" / "datasets.csv"
    sizes = pd.read_csv(published).set_index("dataset").filter(regex="^(train|test)_")
    return {} if dataset not in sizes.index else sizes.loc[dataset].dropna().astype(int).to_dict()


def assign_splits(
    reading: Reading, rows: pd.DataFrame, given: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Give each row its subject's split, and the reading the split of every subject.

    The split that was written beside a table counts alone, else a column `split`. Else validation people are
    drawn among the training people of a published split, and test people where their list is not public.
    Labels of one's own are split by a hash of the subject's name, a tenth each for test and validation:
    tables that are read apart, people's and a program's, thereby put a person into the same split.

    `given` is train or test of each subject, as published.
    """
    names = np.unique(rows["subject"].to_numpy(dtype=str))
    if reading.split_file:
        splits, note = read_split(reading.split_file), f"as in {Path(reading.split_file).name}"
    elif "split" in rows:
        rows = reading.drop(rows, ~rows["split"].isin(SPLITS), "split that is none of the three", "split")
        splits, note = rows.drop_duplicates("subject").set_index("subject")["split"], "as labelled"
        other = rows["split"] != rows["subject"].map(splits)
        rows = reading.drop(rows, other, "another split of the same subject", "split")
    elif given is None and not published_sizes(reading.dataset):
        shares = [int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 16**8 for name in names]
        parts = [np.less(shares, 0.1), np.less(shares, 0.2)]
        splits = pd.Series(np.select(parts, ["test", "validation"], "train"), names)
        note = "by a hash of each subject's name, a tenth each for test and validation"
    else:
        splits = _draw_test(reading, names) if given is None else pd.Series(given).reindex(names).dropna()
        train = splits.index[splits == "train"].sort_values()
        count = max(1, round(VALIDATION * len(train))) if len(train) > 1 else 0
        drawn = np.random.default_rng([SEED, 1]).permutation(train)[:count]
        splits = splits.where(~splits.index.isin(drawn), "validation")
        note = f"{count} of {len(train)} training subjects for validation, drawn with seed {SEED}"
    reading.notes.append(f"split: {note}")
    reading.splits = splits.rename_axis("subject").rename("split").reset_index()
    rows = rows.assign(split=rows["subject"].map(splits))
    return reading.drop(rows, rows["split"].isna(), "subject of no split", "subject")


def _draw_test(reading: Reading, names: np.ndarray) -> pd.Series:
    sizes = published_sizes(reading.dataset)
    unit = "subjects" if "test_subjects" in sizes else "images"
    train, test = sizes[f"train_{unit}"], sizes[f"test_{unit}"]
    count = min(max(1, round(len(names) * test / (train + test))), len(names) - 1)
    reading.notes.append(
        f"split: {count} of {len(names)} {unit} for the test, drawn with seed {SEED};"
        f" the paper has {train} and {test} {unit}, whose list is not public"
    )
    drawn = np.random.default_rng([SEED, 0]).permutation(names)[:count]
    return pd.Series(np.where(np.isin(names, drawn), "test", "train"), names)


def read_split(path: str | Path) -> pd.Series:
    """Read a CSV with columns subject and split, each subject once: subject to split."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
        bad = ~table["split"].isin(SPLITS) | table["subject"].duplicated() | (table["subject"] == "")
    except (OSError, ValueError, KeyError) as error:
        raise TableError(f"{path}: cannot be read ({error}); expected columns subject and split") from error
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise TableError(
            f"{path}: row {row + 2}: found {list(table.iloc[row])}, "
            f"expected each subject once, and one of {list(SPLITS)}"
        )
    return table.set_index("subject")["split"].astype(object)
