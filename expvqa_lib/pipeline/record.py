"""The record of what made each table."""

from pathlib import Path

import pandas as pd

from ..files import atomic


def add_record(path: Path, row: dict[str, object]) -> None:
    """Write a row to the CSV file of records, in place of the row of the same table."""
    rows = pd.DataFrame([row])
    if path.exists():
        others = pd.read_csv(path, dtype=str, keep_default_na=False)
        rows = pd.concat([others[others["table"] != row["table"]], rows]).sort_values("table")
    with atomic(path) as temporary:
        rows.to_csv(temporary, index=False)
