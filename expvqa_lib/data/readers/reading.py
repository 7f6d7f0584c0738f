"""What the readers share: the files below one folder, and a count of every row that is dropped.

A file that cannot be read is a `TableError` that names it; a row that cannot be read is dropped and counted
with its file and line; a code that cannot be read leaves its AU unlabelled and is counted too.
"""

import csv
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, product
from pathlib import Path

import numpy as np
import pandas as pd

from ...errors import TableError
from ...facs import ACTION_UNITS, EMOTIONS
from ...files import misnamed
from ..table import check_table

SUFFIX = r"\.(?i:jpe?g|png|bmp|tiff?|webp)$"  # of an image
UNLABELLED = "label that cannot be read, left unlabelled"
_LINK = "link that is not followed (put the files themselves there)"
_FILES = re.compile(SUFFIX + r"|\.(?i:csv|txt|npy)$")
_WORDS = "|".join(word for emotion in EMOTIONS.values() for word in (emotion.name, emotion.adjective))
_BLENDSHAPE = "(?:brow|cheek|eye|jaw|mouth|nose|tongue)[A-Z][A-Za-z]+"  # of ARKit and MediaPipe, as Py-Feat 2
_LABEL_LIKE = re.compile(rf"(?i:au[ _-]?\d.*|.*emotion.*|.*expression.*|{_WORDS})|{_BLENDSHAPE}")
_COLUMNS = (
    r"^(?:subject|frame|split|image|emotion|dataset|labelled_by|left|top|width|height|AU\d+(?:_intensity)?)$"
)
_OPTIONAL = {"subject", "split", "frame", "dataset", "emotion", *EMOTIONS}
_OPTIONAL |= {"face", "path", "left", "top", "right", "bottom", "width", "height", "AU{}", "AU{}_intensity"}
_OF_LABEL_FILES = {"confidence", "AU{}_intensity"}


class Reading:
    """A data set and the result of reading it, with a count of every label row.

    Attributes:
        dataset, root: its name and folder.
        split_file: a split that was written beside a table, and is followed.
        table: its face table, with images relative to root; after `finish`.
        splits: columns subject and split, also of subjects whose faces were dropped; after `assign_splits`.
        read: how many label rows were read; they are those of the table and the dropped ones.
        dropped: how many rows were dropped, by reason.
        problems: the rows and files that could not be read as expected, by kind, each with its place.
        notes: where the split comes from, and what a reader decided.
    """

    def __init__(self, dataset: str, root: str | Path, split_file: str | Path | None = None) -> None:
        if not os.path.isdir(root):
            raise TableError(f"{root}: no such folder; expected the one that holds {dataset} as distributed")
        self.dataset, self.root, self.split_file = dataset, Path(root).resolve(), split_file
        self.read, self.dropped = 0, Counter()
        self.problems: dict[str, list[str]] = defaultdict(list)
        self.notes: list[str] = []
        self.table = self.splits = pd.DataFrame()

    def problem(self, kind: str, rows: pd.DataFrame, column: str, expected: str = "") -> None:
        """Note rows as a kind of problem, with their place and what `column` holds."""
        cell = f", column {column}" if kind == UNLABELLED else ""
        expected = f", expected {expected}" if expected else ""
        for file, line, value in rows[["file", "line", column]].itertuples(index=False):
            self.problems[kind].append(f"{file}, row {line}{cell}: found {str(value)[:60]!r}{expected}")

    def drop(
        self, rows: pd.DataFrame, bad: pd.Series, reason: str, column: str = "", expected: str = ""
    ) -> pd.DataFrame:
        """Return the rows that are not bad; the others are counted, and a problem where a column is given."""
        bad = np.asarray(bad, bool)
        self.dropped += Counter({reason: int(bad.sum())})  # which keeps no reason without a row
        if column:
            self.problem(reason, rows[bad], column, expected)
        return rows[~bad]

    def drop_repeated(self, rows: pd.DataFrame, key: list[str], labels: list[str]) -> pd.DataFrame:
        """Keep one of several rows that label a face alike, and none where they contradict one another."""
        rows = self.drop(rows, rows.duplicated([*key, *labels]), "repeated row", key[-1])
        return self.drop(rows, rows.duplicated(key, keep=False), "labelled twice, differently", key[-1])

    def codes(self, rows: pd.DataFrame, column: str, codes: Mapping[str, float]) -> pd.Series:
        """Return a column's codes as numbers; another code is a problem, and unlabelled (NaN)."""
        unknown = rows[column].notna() & ~rows[column].isin(list(codes))
        self.problem(UNLABELLED, rows[unknown], column, f"one of {', '.join(codes)}")
        return rows[column].map(codes).astype(float)

    def finish(self, rows: pd.DataFrame) -> None:
        """Make the face table of the rows that are left; `wanted` is the name of a missing image.

        Raises:
            TableError: no row is left.
        """
        rows = self.drop(rows, rows["image"].isna(), "image missing", "wanted")
        self.problems = {kind: places for kind, places in self.problems.items() if places}
        reasons = [f"{count:,} {reason}" for reason, count in self.dropped.items()]
        if rows.empty:
            first = next((f"; {kind}: {places[0]}" for kind, places in self.problems.items()), "")
            raise TableError(
                f"{self.root}: nothing of {self.dataset} can be used: {self.read} rows read, {reasons}{first}"
            )
        rows = rows.filter(regex=_COLUMNS).assign(dataset=rows.get("dataset", self.dataset))
        table = rows.sort_values(["subject", "frame"], kind="stable", ignore_index=True)
        sizes = " + ".join([f"{len(table):,} kept", *reasons])
        table.attrs = {"rows": [f"{self.dataset}: {self.read:,} rows read = {sizes}"]}
        self.table = check_table(table, f"{self.root} ({self.dataset})")

    @cached_property
    def files(self) -> pd.Series:
        """Every image and label file below the root, relative to it; without links and hidden files."""
        names, links = [], []
        for folder, folders, files in os.walk(self.root):
            folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
            files = [name for name in files if not name.startswith(".")]  # a Mac's ._0001.jpg is no image
            below = "" if folder == str(self.root) else f"{os.path.relpath(folder, self.root)}/"
            links += [below + name for name in folders + files if os.path.islink(f"{folder}/{name}")]
            names += [below + name for name in files if _FILES.search(name) and name.isprintable()]
        self.problems[_LINK] += links
        return pd.Series(sorted({*names} - {*links}), dtype=object)

    def find(self, pattern: str, expected: str = "") -> pd.DataFrame:
        """Return the files whose path matches: `path`, `base` (the folders before the match), and its groups.

        Of several files with the same groups, the one in the fuller folder is taken.

        Raises:
            TableError: nothing matches, and something is `expected`.
        """
        found = self.files.str.extract(f"^(?P<base>(?:.*/)?){pattern}")
        found = found.assign(path=self.files).dropna(subset="base")
        if expected and found.empty:
            links = "".join(f"; {_LINK}: {link}" for link in self.problems[_LINK][:1])
            raise TableError(
                f"{self.root}: no {expected} below it; is this the folder of {self.dataset}?{links}"
            )
        size = found.groupby("base")["path"].transform("size")
        found = found.assign(size=size).sort_values(["size", "path"], ascending=[False, True])
        again = found.duplicated([*re.compile(pattern).groupindex] or ["path"])
        if again.any():
            used, unused = found["path"][~again].iloc[0], found["path"][again].iloc[0]
            self.notes.append(f"{again.sum()} files are copies: {used} is used, {unused} is not")
        return found[~again].sort_index()

    def lines(self, file: str) -> Iterator[tuple[int, str]]:
        """Yield the lines of a text file that are not blank, with their numbers from 1.

        Raises:
            TableError: it cannot be opened or is not UTF-8; the message names row and column.
        """
        place = self.root / file
        try:
            with open(place, encoding="utf-8-sig", errors="surrogateescape") as opened:
                for number, text in enumerate(opened, 1):
                    text.encode()
                    if number == 1 and text.strip() and (what := misnamed(text.encode())):
                        raise TableError(f"{place}: it is {what}")
                    if text.strip():
                        yield number, text.rstrip("\n")
        except OSError as error:
            raise TableError(f"{place}: cannot be read ({error.strerror})") from error
        except UnicodeEncodeError as error:
            raise TableError(
                f"{place}: row {number}, column {text[: error.start].count(',') + 1}: not UTF-8 text; "
                "save it again as UTF-8 (in Excel, CSV UTF-8)"
            ) from error

    def read_csv(
        self, file: str, patterns: Mapping[str, str], names: Sequence[str] = (), first: str = ""
    ) -> pd.DataFrame:
        """Read the columns of a text table that match a pattern; `file` and `line` follow them.

        Cells are separated by commas, or by semicolons (decimal commas are then read) or tabs. Rows of
        another length than the first are dropped as malformed.

        Args:
            patterns: as in `columns`.
            names: of the columns, where the first line does not hold them.
            first: name of the first column, whatever the file calls it.

        Raises:
            TableError: the file cannot be read, or a column is missing.
        """
        lines = self.lines(file)
        top = next(lines, (1, ""))
        if not top[1]:
            raise TableError(f"{self.root / file}: it is {misnamed(b'')}")
        separator = max(",;\t", key=top[1].count)
        header = [name.strip("'\" ") for name in _cells(top[1], separator)]
        if names and not {name.lower() for name in names} & {name.lower() for name in header}:
            header, lines = list(names), chain([top], lines)
        header[:1] = [first or header[0]] if header else []
        columns = self.columns(str(self.root / file), header, patterns)
        places = [header.index(name) for name in columns]
        rows, numbers, malformed = [], [], []
        for number, text in lines:
            cells = _cells(text, separator)
            if len(cells) == len(header):
                rows.append([cells[place] for place in places])
                numbers.append(number)
            else:
                malformed.append((text, file, number))
        self.read += len(malformed)
        malformed = pd.DataFrame(malformed, columns=["text", "file", "line"])
        self.drop(malformed, malformed["line"] > 0, "malformed row", "text", f"{len(header)} cells")
        return self.rows_of(pd.DataFrame(rows, columns=list(columns)), columns, file, numbers)

    def rows_of(
        self, table: pd.DataFrame, columns: Mapping[str, str | None], file: str, lines: Sequence[int]
    ) -> pd.DataFrame:
        """Count the rows of a table of text, name its `columns`, and add `file` and `line`."""
        self.read += len(table)
        unread = [name for name, role in columns.items() if role is None]
        self.problems["column that looks like a label, not read"] += [
            f"{file}: {name}, {count} values" for name, count in table[unread].ne("").sum().items()
        ]
        return (
            table.drop(columns=unread).rename(columns=columns).assign(file=file, line=np.asarray(lines, int))
        )

    def columns(self, file: str, names: Sequence[str], patterns: Mapping[str, str]) -> dict[str, str | None]:
        """Match a file's columns to their names here. Columns of one meaning are a problem and not read.

        Args:
            patterns: a regular expression of the column by its name here, whatever the case; `AU{}` and
                `AU{}_intensity` are those of all action units, whose group is the number.

        Returns:
            The name here by the file's name; None for what looks like a label and matches nothing.

        Raises:
            TableError: a column is missing.
        """
        matched: dict[str, str] = {}
        for name, (role, pattern) in product(names, patterns.items()):
            match = re.fullmatch(pattern, name.strip(), re.IGNORECASE)
            if match and {*map(int, match.groups())} <= ACTION_UNITS.keys():
                matched[name] = role.format(*map(int, match.groups()))
        roles = Counter(matched[name] for name in names if name in matched)
        twice = {name: role for name, role in matched.items() if roles[role] > 1}
        self.problems["column called twice, not read"] += [
            f"{file}: column {name!r} is {role}, as is another" for name, role in twice.items()
        ]
        columns = {name: role for name, role in matched.items() if name not in twice}
        if missing := [patterns[role] for role in patterns if role not in _OPTIONAL | {*columns.values()}]:
            found = f"found columns {', '.join(names)[:200]}"
            again = f"; {', '.join(twice)} twice" if twice else ""
            raise TableError(f"{file}: row 1: {found}{again}; expected also {missing}, once each")
        if patterns.keys() & _OF_LABEL_FILES:
            unread = [name for name in names if name not in matched and _LABEL_LIKE.fullmatch(name)]
            columns |= dict.fromkeys(unread)
        return columns


def _cells(text: str, separator: str) -> list[str]:
    try:
        cells = [
            cell.strip() for cell in next(csv.reader([text], delimiter=separator, skipinitialspace=True))
        ]
        return cells if separator == "," else [re.sub(r"^(-?\d+),(\d+)$", r"\1.\2", cell) for cell in cells]
    except csv.Error:  # a cell of more than 131 072 characters
        return []
