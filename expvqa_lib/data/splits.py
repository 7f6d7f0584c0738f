"""Train, validation and test: published lists where they are public, else drawn subjects in the published proportion."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import TableError
from ..files import atomic
from .readers.log import Log
from .table import SPLITS

_PUBLISHED = Path(__file__).parents[1] / "assets" / "published" / "datasets.csv"
VALIDATION = 0.05
"""Share of the training subjects set apart for validation: the published splits have none."""


def published_sizes(dataset: str) -> dict[str, int]:
    """Return what the paper says of a data set: `train_images`, `train_subjects`, `test_images`, `test_subjects` where given."""
    sizes = pd.read_csv(_PUBLISHED).set_index("dataset").filter(regex="^(train|test)_")
    return {} if dataset not in sizes.index else sizes.loc[dataset].dropna().astype(int).to_dict()


def assign(
    log: Log,
    rows: pd.DataFrame,
    seed: int,
    given: Mapping[str, str] | None = None,
    file: str | Path | None = None,
) -> tuple[pd.DataFrame, pd.Series]:
    """Give each row its subject's split.

    Args:
        rows: with a column `subject`.
        seed: for what is drawn.
        given: train or test of each subject, where that is known; rows of other subjects are dropped. Drawn where None.
        file: a split kept by `write`, which then counts alone.

    Returns:
        The rows with a column `split`, and the split of every subject.
    """
    names = np.unique(rows["subject"].to_numpy(dtype=str))
    if file:
        splits = read(file)
        log.note(f"split: as in {Path(file).name}")
    else:
        splits = (
            pd.Series(given, dtype=object).reindex(names).dropna()
            if given is not None
            else _drawn(log, names, seed)
        )
        splits = _with_validation(log, splits, seed)
    rows = rows.assign(split=rows["subject"].map(splits))
    return log.drop(rows, rows["split"].isna(), "subject of no split", "subject"), splits


def _drawn(log: Log, names: np.ndarray, seed: int) -> pd.Series:
    sizes = published_sizes(log.dataset)
    unit = "subjects" if "test_subjects" in sizes else "images"
    train, test = sizes[f"train_{unit}"], sizes[f"test_{unit}"]
    count = min(max(1, round(len(names) * test / (train + test))), len(names) - 1)
    chosen = np.random.default_rng([seed, 0]).permutation(names)[:count]
    log.note(
        f"split: {count} of {len(names)} {unit} for the test, drawn with seed {seed}; the paper has {train} and {test} {unit}, "
        "whose list is not public"
    )
    return pd.Series(np.where(np.isin(names, chosen), "test", "train"), index=names, dtype=object)


def _with_validation(log: Log, splits: pd.Series, seed: int) -> pd.Series:
    train = splits.index[splits == "train"].sort_values()
    if len(train) < 2:
        return splits
    chosen = np.random.default_rng([seed, 1]).permutation(train)[: max(1, round(VALIDATION * len(train)))]
    log.note(
        f"validation: {len(chosen)} of the {len(train)} published training subjects (or images), drawn with seed {seed}"
    )
    return splits.where(~splits.index.isin(chosen), "validation")


def write(splits: pd.DataFrame, path: str | Path) -> None:
    """Write columns subject and split as CSV, so that others can train and test on the same people."""
    with atomic(path) as temporary:
        splits.to_csv(temporary, index=False)


def read(path: str | Path) -> pd.Series:
    """Read a split kept by `write`: subject to split.

    Raises:
        TableError: it cannot be read, has other columns, an unknown split, or a subject twice; the message names the row.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
    except (OSError, ValueError) as error:
        raise TableError(
            f"{path}: no split can be read ({error}); expected CSV with columns subject and split"
        ) from error
    if list(table) != ["subject", "split"]:
        raise TableError(f"{path}: columns {list(table)}, expected subject and split")
    for column, bad, expected in (
        ("split", ~table["split"].isin(SPLITS), f"one of {list(SPLITS)}"),
        ("subject", table["subject"].duplicated() | (table["subject"] == ""), "each subject once"),
    ):
        if bad.any():
            row = int(bad.to_numpy().argmax())
            raise TableError(
                f"{path}: row {row + 2}, column {column}: found {table[column].iat[row]!r}, expected {expected}"
            )
    return table.set_index("subject")["split"].astype(object)
