"""The readers by name, and what is kept of a reading: the face table, and its split beside it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from ...errors import SettingsError
from .. import splits
from .. import table as face_table
from .au_tools import read_libreface, read_openface, read_pyfeat
from .labels import read_own
from .log import Reading
from .pictures import read_affectnet, read_emotionet, read_faceme, read_raf_au, read_raf_db, read_raf_db_basic
from .videos import read_bp4d, read_disfa, read_gft

READERS: dict[str, Callable[..., Reading]] = {
    "BP4D": read_bp4d,
    "DISFA": read_disfa,
    "GFT": read_gft,
    "RAF-AU": read_raf_au,
    "EmotioNet": read_emotionet,
    "AffectNet": read_affectnet,
    "RAF-DB": read_raf_db,
    "RAF-DB-basic": read_raf_db_basic,
    "FaceME": read_faceme,
}
"""Each reader's docstring shows the layout that it reads."""

LABEL_READERS: dict[str, Callable[..., Reading]] = {
    "own": read_own,
    "OpenFace": read_openface,
    "Py-Feat": read_pyfeat,
    "LibreFace": read_libreface,
}
"""Readers of label files that are given as `labels`; the images are below the root."""


def read_corpus(name: str, root: str | Path, **options) -> Reading:
    """Read the data set `name` (a key of `READERS` or `LABEL_READERS`) below the folder `root`; `options` go to its reader.

    Raises:
        SettingsError: there is no such data set, or it does not go with `labels`.
        TableError: nothing usable is there, or a file cannot be read; the message names it.
    """
    known = READERS | LABEL_READERS
    if name not in known:
        raise SettingsError(f"data set {name!r} is unknown; known are {', '.join(known)}")
    if (name in LABEL_READERS) != ("labels" in options):
        takes = (
            "needs label files (labels, --labels)"
            if name in LABEL_READERS
            else "takes no label files: its own are below the root"
        )
        raise SettingsError(f"{name} {takes}")
    return known[name](root, **options)


def split_path(table: str | Path) -> Path:
    """Where the split of a face table is kept: `faces.splits.csv` beside `faces.parquet`."""
    return Path(table).with_suffix(".splits.csv")


def read_and_keep(name: str, root: str | Path, output: str | Path, **options) -> Reading:
    """Read a data set and write its face table to `output` and its split beside it; a split that is there already is followed.

    Read the table back with `table.read(output, root)`. Errors as in `read_corpus`.
    """
    kept = split_path(output)
    reading = read_corpus(name, root, split_file=kept if kept.exists() else None, **options)
    dropped = "".join(f" + {count:,} {reason}" for reason, count in reading.dropped.items())
    reading.table.attrs["rows"] = [
        f"{name}: {reading.read:,} rows read = {len(reading.table):,} kept{dropped}"
    ]
    face_table.write_table(reading.table, output)
    if not kept.exists():
        splits.write(reading.splits, kept)
    return reading


def read_available(root: str | Path, kept: str | Path) -> pd.DataFrame:
    """Read every data set that has a folder below `root` (`root/BP4D`, `root/DISFA`, ...), and face tables `root/*.parquet` of one's own.

    What is read is kept in `kept`, a table a data set, and read back from there the next time: delete it to read the folder again.

    Returns:
        One face table with absolute image paths; `dataset` says where a row comes from.

    Raises:
        SettingsError: there is none of them.
        TableError: a data set cannot be read.
    """
    root, kept = Path(root), Path(kept)
    folders = {name: root / name for name in READERS if (root / name).is_dir()}
    tables = []
    for name, folder in folders.items():
        path = kept / f"{name}.parquet"
        if not path.exists():
            read_and_keep(name, folder, path)
        tables.append(face_table.read_table(path, folder))
    tables += [face_table.read_table(path) for path in sorted(root.glob("*.parquet"))]
    if not tables:
        raise SettingsError(
            f"{root}: no data set below it; expected folders named {', '.join(READERS)}, or face tables *.parquet"
        )
    return face_table.concat_tables(tables)


def layouts() -> str:
    """Return what each reader expects, as Markdown made from its docstring: `docs/datasets.md`."""
    parts = [
        "# The data sets and their layouts",
        "The readers' docstrings. `expvqa data check NAME --root DIR` says what is found of one.",
    ]
    for name, reader in {**READERS, **LABEL_READERS}.items():
        parts += [f"## {name}", inspect.getdoc(reader).partition("\n\nArgs:")[0]]
    return "\n\n".join(parts) + "\n"
