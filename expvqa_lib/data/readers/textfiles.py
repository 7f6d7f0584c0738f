"""Label files: lines and comma-separated text, as text and with the line numbers that messages need. Nothing is interpreted here."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from ...errors import TableError
from .log import Log

_LINES = re.compile(r"\r\n|\r|\n")
_CHUNK = 1 << 20  # bytes, longer than any line


def _require_utf8(log: Log, file: str) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with open(log.root / file, "rb") as opened:
            while chunk := opened.read(_CHUNK):
                decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except OSError as error:
        raise TableError(f"{log.root / file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError:
        _decoded(log, file)


def _decoded(log: Log, file: str) -> str:
    content = log.bytes(file)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        lines = re.split(rb"\r\n|\r|\n", content[: error.start])
        where = f"row {len(lines)}, column {lines[-1].count(b',') + 1}"
        raise TableError(
            f"{log.root / file}: {where}: not UTF-8 text; save it again as UTF-8 (in Excel, CSV UTF-8)"
        ) from error


def read_lines(log: Log, file: str) -> pd.DataFrame:
    """Return a text file's lines that are not blank: columns `file`, `line` (from 1) and `text`.

    Raises:
        TableError: it is not UTF-8; the message names the row.
    """
    lines = _LINES.split(_decoded(log, file))
    rows = pd.DataFrame(
        {"file": file, "line": range(1, len(lines) + 1), "text": pd.Series(lines, dtype=object)}
    )
    return rows[rows["text"].str.strip() != ""]


def header(log: Log, file: str) -> list[str]:
    """Return the cells of the first line of comma-separated text, without the quotes and blanks around them."""
    line = _LINES.split(log.bytes(file, _CHUNK).decode("utf-8", "replace"), maxsplit=1)[0]
    return [name.strip().strip("\"'").strip() for name in line.split(",")]


def read_csv(
    log: Log,
    file: str,
    names: Sequence[str] | None = None,
    wanted: Iterable[str] | None = None,
    quote: str | bool = False,
) -> tuple[pa.Table, list[tuple[int, str]]]:
    """Read comma-separated text; every cell stays text, without the blanks around it.

    Args:
        names: of the columns, where the file has no line of names.
        wanted: columns to keep; by default all.
        quote: the character that may stand around a cell.

    Returns:
        The rows, with `file` and `line` (from 1, as an editor counts) after the columns; and the lines with too few or too many
        cells, as (line, text).

    Raises:
        TableError: it is empty, has two columns of one name, or is not UTF-8; the message names file, row and column.
    """
    place, head = log.root / file, names is None
    _require_utf8(log, file)
    names = header(log, file) if names is None else names
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise TableError(f"{place}: row 1: two columns are called {twice!r}; each needs a name of its own")
    bad: list[tuple[int, str]] = []

    def skip(row) -> str:
        bad.append((row.number, row.text))
        return "skip"

    numbers = [str(k) for k in range(len(names))]
    kept = [k for k, name in zip(numbers, names, strict=True) if wanted is None or name in set(wanted)]
    try:
        cells = pa.csv.read_csv(
            str(place),
            read_options=pa.csv.ReadOptions(use_threads=False, column_names=numbers),
            parse_options=pa.csv.ParseOptions(
                quote_char=quote, ignore_empty_lines=False, invalid_row_handler=skip
            ),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(numbers, pa.string()), include_columns=kept
            ),
        )
    except (pa.ArrowInvalid, OSError) as error:
        raise TableError(f"{place}: not comma-separated text ({error})") from error
    cells = pa.table([pc.utf8_trim_whitespace(cells[k]) for k in kept], [names[int(k)] for k in kept])
    lines = np.setdiff1d(np.arange(1, len(cells) + len(bad) + 1), [line for line, _ in bad])
    empty = lines[np.all([pc.equal(column, "").to_numpy() for column in cells.columns], axis=0)]
    if len(empty):  # blank lines are no rows, lines of empty cells are
        text = _LINES.split(_decoded(log, file))
        empty = [line for line in empty if not text[line - 1].strip()]
    cells = cells.append_column("file", pa.repeat(file, len(cells))).append_column("line", pa.array(lines))
    return cells.filter(pa.array((lines > int(head)) & ~np.isin(lines, empty))), bad
