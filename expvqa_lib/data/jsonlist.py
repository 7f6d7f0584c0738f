"""A JSON file that is one long list of objects, read one object at a time and trusted in nothing.

The standard library's decoder on a window of the file: as fast as reading the whole file at once, in a fraction of its memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from ..errors import TableError

BLOCK, LARGEST = 1 << 16, 1 << 20  # characters: read at a time, and of the largest object that is taken
_BLANK = re.compile(r"[ \t\r\n]*")


def objects(path: str | Path) -> Iterator[dict]:
    """Yield the objects of a list in order.

    Raises:
        TableError: the file cannot be read, is not UTF-8, not a list of objects, cut off, or holds what is no proper JSON (NaN, a key
            twice); the message names the file and the row (from 0).
    """
    row = 0
    try:
        with open(path, encoding="utf-8-sig") as file:
            window = _Window(file)
            if (mark := window.mark()) != "[":
                found = (
                    "an object: JSON lines, perhaps, which jq -s . makes a list"
                    if mark == "{"
                    else repr(mark)
                )
                raise ValueError(f"found {found}, expected a list of objects")
            window.at += 1
            end = window.mark() == "]"
            while not end:
                if window.mark() != "{":
                    raise ValueError(f"found {window.here()}, expected an object")
                yield window.object()
                row += 1
                if window.mark() not in (",", "]"):
                    raise ValueError(
                        f"found {window.here()}, expected a comma or the end of the list; the file may be cut off"
                    )
                end = window.mark() == "]"
                window.at += not end
            window.at += 1
            if window.mark():
                raise ValueError(f"found {window.here()} behind the list")
    except OSError as error:
        raise TableError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise TableError(
            f"{path}: behind row {row}: not UTF-8 text ({error.reason}); save it again as UTF-8"
        ) from error
    except RecursionError as error:
        raise TableError(f"{path}: row {row}: nested too deep; expected plain values") from error
    except ValueError as error:
        raise TableError(f"{path}: row {row}: {error}") from error


class _Window:
    """The part of a file that is being read: `text`, of which everything before `at` is done with."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.text, self.at = file, "", 0

    def mark(self) -> str:
        """Go to the next character that is not blank and return it; nothing at the end of the file."""
        while (at := _BLANK.match(self.text, self.at).end()) == len(self.text):
            self.text, self.at = self.file.read(BLOCK), 0
            if not self.text:
                return ""
        self.at = at
        return self.text[at]

    def here(self) -> str:
        """The next characters, for a message."""
        return repr(self.text[self.at : self.at + 20]) if self.mark() else "the end of the file"

    def object(self) -> dict:
        """Decode the object that begins here, reading on as far as it takes."""
        while True:
            try:
                value, self.at = _DECODER.raw_decode(self.text, self.at)
                return value
            except json.JSONDecodeError as error:
                text = self.text[self.at :]
                more = self.file.read(len(text) + BLOCK) if len(text) < LARGEST else ""
                if not more:
                    why = f"{error.msg}, {error.pos - self.at} characters into it"
                    raise ValueError(
                        f"no JSON object ({why}): damaged, cut off, or larger than {LARGEST} characters"
                    ) from error
                self.text, self.at = text + more, 0


def _unrepeated(items: list[tuple[str, object]]) -> dict:
    value = dict(items)
    if len(value) < len(items):
        names = [name for name, _ in items]
        raise ValueError(
            f"key {next(name for name in names if names.count(name) > 1)!r} stands twice in one object"
        )
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unrepeated, parse_constant=_refuse)
