"""Writing files so that none is ever left half-written."""

import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import shutil
import unicodedata
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pandas as pd

from .errors import ExpVQAError, ImageError, TableError

_BEGINNINGS = {
    rb"\s*\Z": "an empty file; copy or download it again",
    rb"\0{8}": "nothing but zeros, a download that was broken off; download it again",
    rb"version https://git-lfs": "a Git LFS pointer, not the file itself; run `git lfs pull` in its folder",
    rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|\?xml|!--)": "a web page; download the file itself",
}


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` for a file or a folder; rename it to `path` on success.

    Missing parent folders are made. On an exception the temporary file or folder is removed and `path` stays.
    Files get the permissions of the user's umask, also where their writer (safetensors) makes them private.

    Raises:
        ExpVQAError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    temporary = path.parent / f".{path.stem}-{uuid.uuid4().hex[:8]}{path.suffix}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode  # of a new file; os.umask would change it for other threads too
        temporary.unlink()
    except OSError as error:
        raise ExpVQAError(
            f"{path.parent}: cannot write here ({error.strerror}); choose another folder"
        ) from error
    try:
        yield temporary
        for file in (temporary, *temporary.rglob("*")):
            if file.is_file() and not file.is_symlink():
                file.chmod(mode)
        if temporary.is_dir() and path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except Exception as error:  # safetensors tells of a full disk in words of its own
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            raise ExpVQAError(
                f"{path}: the disk is full; nothing was left behind, make room and start again"
            ) from error
        raise
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def cached(path: str | Path, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """Read the Parquet table at `path`; where there is none, write what `make` returns and read that."""
    if not os.path.exists(path):
        save_table(make(), path)
    return pd.read_parquet(path)


def save_table(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table without its index, as the path says: .csv (four decimals), or else Parquet."""
    with atomic(path) as temporary:
        if str(path).lower().endswith(".csv"):
            table.to_csv(temporary, index=False, float_format="%.4f")
        else:
            table.to_parquet(temporary, index=False)


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown without its index; each row is one line, whatever the cells hold."""
    rows = [table.columns, ["---"] * table.shape[1], *table.to_numpy().tolist()]
    cells = ([str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def inside(root: str | Path, paths: Iterable[str]) -> list[str | None]:
    """Join paths to `root`; None for one that leads out of it. Links are followed.

    A path may be as Windows writes it (`sub\\b.jpg`), in another Unicode form than the file's name, of
    another computer, or relative to a folder above the root.
    """
    root = os.path.realpath(root)
    resolve = functools.cache(os.path.realpath)
    places = []
    for path in _below(root, list(map(str, paths))):
        path = os.path.join(root, path.replace("\0", "?"))  # which no path can hold
        forms = (unicodedata.normalize(form, path) for form in ("NFC", "NFD") if not path.isascii())
        path = path if os.path.lexists(path) else next(filter(os.path.lexists, forms), path)
        folder, name = os.path.split(os.path.normpath(path))
        place = os.path.join(resolve(folder), name)
        place = os.path.realpath(place) if os.path.islink(place) else place
        places.append(place if place.startswith(os.path.join(root, "")) else None)
    return places


def _below(root: str, paths: list[str]) -> list[str]:
    """Paths with slashes alone, without the first folders of all of them that are not below `root`.

    These are left out where no path leads to a file as it is, and where they end in the root's name or begin
    a path of another computer. So two paths never become one.
    """
    is_there = [os.path.lexists(os.path.join(root, path.replace("\0", "?"))) for path in paths]
    slashed = [path.replace("\\", "/") for path in paths]
    if any(is_there):
        return [paths[k] if there else slashed[k] for k, there in enumerate(is_there)]
    paths = [path.replace("\0", "?").removeprefix("./") for path in slashed]
    folders = os.path.commonprefix([path.split("/")[:-1] for path in paths])
    for k, folder in enumerate(folders, 1):
        shorter = [path.split("/", k)[k] for path in paths]
        is_other = re.match(r"/|[A-Za-z]:", paths[0]) or folder == os.path.basename(root)
        if is_other and any(path and os.path.lexists(os.path.join(root, path)) for path in shorter):
            return shorter
    return paths


def read_frame(path: str | Path, kind: str, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Read a Parquet table or .csv, whose cells commas, semicolons (with decimal commas) or tabs separate.

    Args:
        kind: what the table is, for the message.
        columns: dtypes of columns of a .csv.

    Raises:
        TableError: there is no such file, or it is none of these.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(100_000)
        if what := misnamed(start):
            raise ValueError(f"it is {what}")
        if path.suffix.lower() != ".csv":
            return pd.read_parquet(path)
        header, _, rows = start.decode("utf-8", "replace").partition("\n")
        separator = max(",;\t", key=header.count)
        decimal = "." if separator == "," or re.search(rf"{separator}-?\d+\.\d", rows) else ","
        return pd.read_csv(path, sep=separator, decimal=decimal, dtype=columns)
    except FileNotFoundError as error:
        raise TableError(f"{path}: no such file; expected a {kind}, .parquet or .csv") from error
    except Exception as error:  # Arrow meets damage with a dozen kinds of exceptions
        raise TableError(f"{path}: not a readable {kind}, Parquet or .csv ({error})") from error


def misnamed(beginning: bytes) -> str | None:
    """What a file is, by its first bytes, where it is not what its name says; with a way out."""
    return next((what for start, what in _BEGINNINGS.items() if re.match(start, beginning, re.I)), None)


def file_state(path: str) -> tuple[str, int, int]:
    """Return path, size and time of change: whether an image is still the same, without reading it.

    Raises:
        ImageError: there is no such file.
    """
    try:
        stat = os.stat(path)
    except OSError as error:
        raise ImageError(
            f"{path}: cannot be read ({error.strerror}); check the path in the face table"
        ) from error
    return str(path), stat.st_size, stat.st_mtime_ns


def fingerprint(*parts: object) -> str:
    """Return 16 hex digits that change whenever one of `parts` (anything JSON can hold, or bytes) changes."""
    texts = [
        part if isinstance(part, bytes) else json.dumps(part, sort_keys=True, default=str).encode()
        for part in parts
    ]
    return hashlib.sha256(b"".join(text + b"\0" for text in texts)).hexdigest()[:16]
