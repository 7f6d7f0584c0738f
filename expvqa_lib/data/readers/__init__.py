"""The data sets' readers by name, and the face tables that they write."""

import inspect
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd

from ...errors import SettingsError
from ...files import atomic
from ..table import concat_tables, read_table, write_table
from .labels import SOURCES, Files, read_labels
from .pictures import read_affectnet, read_emotionet, read_raf_au, read_raf_db
from .reading import Reading
from .videos import read_bp4d, read_disfa

READERS: dict[str, Callable[..., None]] = {
    "BP4D": read_bp4d,
    "DISFA": read_disfa,
    "RAF-AU": read_raf_au,
    "EmotioNet": read_emotionet,
    "AffectNet": read_affectnet,
    "RAF-DB": read_raf_db,
    "RAF-DB-basic": partial(read_raf_db, basic=True),
}
"""Each reader's docstring shows the layout that it reads."""

LABEL_READERS: dict[str, Callable[..., None]] = dict.fromkeys(SOURCES, read_labels)
"""Readers of label files that are given as `labels`; the images are below the root."""

__all__ = [
    "LABEL_READERS",
    "READERS",
    "Reading",
    "read_available",
    "read_dataset",
    "split_path",
]


def read_dataset(
    name: str,
    root: str | Path,
    output: str | Path | None = None,
    labels: Files | None = None,
    **options: object,
) -> Reading:
    """Read a data set below the folder `root`.

    Args:
        name: a key of `READERS`, or with `labels` one of `LABEL_READERS`.
        output: where to write the face table, .parquet; its split is written beside it, or followed if it is
            there already. Read the table back with `read_table(output, root)`.
        labels: label files, where they are not part of the data set.
        options: further arguments of the reader (`images` and `threshold` of `read_labels`, `threshold` of
            `read_disfa`).

    Raises:
        SettingsError: there is no such data set, or label files are missing or one too many.
        TableError: nothing usable is there, or a file cannot be read; the message names it.
    """
    readers = READERS | LABEL_READERS
    if name not in readers:
        raise SettingsError(f"data set {name!r} is unknown; expected one of {', '.join(readers)}")
    if (name in LABEL_READERS) != bool(labels):
        raise SettingsError(
            f"{name} {'takes no label files' if labels else 'needs label files: give --labels'}"
        )
    if unknown := options.keys() - inspect.signature(readers[name]).parameters:
        raise SettingsError(f"{name} takes no {', '.join(sorted(unknown))}")
    follow = split_path(output) if output and split_path(output).exists() else None
    reading = Reading(name, root, follow)
    readers[name](reading, *([labels] if labels else []), **options)
    if output:
        write_table(reading.table, output)
    if output and not follow:
        with atomic(split_path(output)) as temporary:
            reading.splits.to_csv(temporary, index=False)
    return reading


def split_path(table: str | Path) -> Path:
    """Return where the split of a face table is: `faces.splits.csv` beside `faces.parquet`."""
    return Path(table).with_suffix(".splits.csv")


def read_available(root: str | Path, tables: str | Path) -> pd.DataFrame:
    """Read each data set that has a folder below `root` (`root/BP4D`), and face tables `root/*.parquet`.

    Folders may differ in case, hyphens and underscores (`raf_db`).

    Args:
        tables: folder for a face table a data set, read in place of the data set from then on: delete a table
            to read its folder again.

    Returns:
        One face table with absolute image paths; `dataset` says where a row comes from.

    Raises:
        SettingsError: there is none of them.
        TableError: a data set cannot be read.
    """
    root = Path(root)
    paths = sorted(root.glob("[!.]*/"), key=lambda path: (path.name in READERS, path))  # exact names win
    spelled = {_plain(path.name): path for path in paths}
    folders = {name: spelled[_plain(name)] for name in READERS if _plain(name) in spelled}
    faces = []
    for name, folder in folders.items():
        path = Path(tables) / f"{name}.parquet"
        if not path.exists():
            read_dataset(name, folder, path)
        faces.append(read_table(path, folder))
    faces += [read_table(path) for path in sorted(root.glob("[!.]*.parquet")) if path.stem not in folders]
    if not faces:
        raise SettingsError(
            f"{root}: no data set below it; expected folders named {', '.join(READERS)},"
            " or face tables *.parquet"
        )
    return concat_tables(faces)


def _plain(name: str) -> str:
    return re.sub("[ _-]", "", name).lower()
