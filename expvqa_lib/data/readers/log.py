"""What the readers of the licensed data sets share: looking below one folder and nowhere else, and a count of all that is found.

A reader may meet any damage. A file that cannot be read at all is a `TableError` that names it; a row that cannot be read is dropped and
counted with its file and line; a code that cannot be read leaves its AU unlabelled, and is counted too. Nothing is guessed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ...errors import TableError
from .. import table as face_table

LISTED = 10
"""How many examples of each kind of problem are kept; all are counted."""

SUFFIX = r"\.(?i:jpe?g|png|bmp|tiff?|webp)$"
"""How the name of an image ends."""

_WANTED = re.compile(SUFFIX + r"|\.(?i:csv|txt|npy)$")
_OUTSIDE = r"^(?:[/\\]|[A-Za-z]:)|(?:^|[/\\])\.\.(?:[/\\]|$)"


@dataclass(frozen=True)
class Problem:
    """One kind of problem: how often it was met, and the first `LISTED` places, each with file and line."""

    kind: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """A data set as read: `read` label rows, which are those of `table` and the `dropped` ones (reason to count).

    `table` is a face table with images relative to `root`; `splits` has columns subject and split, also of subjects whose faces were
    dropped; `notes` say where the split comes from and what was chosen on the way.
    """

    dataset: str
    root: Path
    table: pd.DataFrame
    read: int
    dropped: Mapping[str, int]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    splits: pd.DataFrame


class Log:
    """The files below one folder, and what a reader has found in them so far."""

    def __init__(self, dataset: str, root: str | Path) -> None:
        if not os.path.isdir(root):
            raise TableError(
                f"{root}: no such folder; give the folder that holds {dataset} as it was distributed"
            )
        self.dataset, self.root = dataset, Path(root).resolve()
        self.read = 0
        self.dropped: dict[str, int] = {}
        self.notes: list[str] = []
        self._problems: dict[str, tuple[int, list[str]]] = {}
        self.files = pd.Series(sorted(self._walk()), dtype=object)

    def _walk(self) -> Iterable[str]:
        """Every image and label file below the root, relative to it. A link is followed only where it leads to a place below the root."""
        folders, followed = [self.root], set()
        while folders:
            folder = folders.pop()
            try:
                entries = list(os.scandir(folder))
            except OSError as error:
                self.problem("folder that cannot be opened", [f"{folder}: {error.strerror}"])
                continue
            for entry in entries:
                name = entry.path[len(str(self.root)) :].lstrip(os.sep)
                if entry.is_symlink():
                    target = Path(os.path.realpath(entry.path))
                    if not target.is_relative_to(self.root):
                        self.problem(
                            "link that leads out of the folder",
                            [f"{name}: leads to {target}; put the files themselves there"],
                        )
                        continue
                    if not target.is_file():
                        if (
                            not target.is_dir()
                            or target in followed
                            or Path(entry.path).is_relative_to(target)
                        ):
                            continue  # leads nowhere, or round in a circle
                        followed.add(target)
                if entry.is_dir():
                    folders.append(Path(entry.path))
                elif _WANTED.search(name) and entry.is_file():
                    if name.isprintable():
                        yield name.replace(os.sep, "/")
                    else:
                        self.problem("file name that cannot be read", [ascii(name)])

    # ------------------------------------------------------------------------------------------------- what was found

    def note(self, text: str) -> None:
        """Keep something that the user should know about the whole data set."""
        self.notes.append(text)

    def problem(self, kind: str, examples: Sequence[str], count: int = 1) -> None:
        """Count a problem of this kind, met `count` times, and keep the first examples."""
        before, kept = self._problems.get(kind, (0, []))
        self._problems[kind] = (before + count, [*kept, *examples][:LISTED])

    def drop(
        self, rows: pd.DataFrame, bad: pd.Series, reason: str, found: str | None = None, mend: str = ""
    ) -> pd.DataFrame:
        """Return the rows that are not `bad`; the others are counted under `reason`, and are a problem where a column `found` is given."""
        if count := int(bad.sum()):
            self.dropped[reason] = self.dropped.get(reason, 0) + count
            if found:
                self.problem(reason, places(rows[bad.to_numpy()], found, mend), count)
        return rows[~bad.to_numpy()]

    def malformed(self, file: str, bad: list[tuple[int, str]], expected: str) -> None:
        """Count rows that are no rows: they are read and dropped."""
        if bad:
            self.read += len(bad)
            self.dropped["malformed row"] = self.dropped.get("malformed row", 0) + len(bad)
            self.problem("malformed row", bad_lines(file, bad, expected), len(bad))

    def reading(self, rows: pd.DataFrame, splits: pd.Series, emotions: Sequence[str] = ()) -> Reading:
        """Make the face table of what is left: columns subject, frame, split, image, and AUs, intensities or emotion where there are any.

        Raises:
            TableError: nothing is left.
        """
        rows = self.drop(rows, rows["image"].isna(), "image missing", "wanted")
        if rows.empty:
            why = (
                ", ".join(f"{count} {reason}" for reason, count in self.dropped.items())
                or "no label rows were found"
            )
            raise TableError(
                f"{self.root}: nothing of {self.dataset} can be used: {self.read} rows read ({why}){self._first_problem()}"
            )
        columns = ("subject", "frame", "split", "image", "emotion", "dataset", "labelled_by")
        kept = [c for c in rows if c in columns or re.fullmatch(r"AU\d+(_intensity)?", c)]
        named = rows[kept] if "dataset" in kept else rows[kept].assign(dataset=self.dataset)
        table = named.sort_values(["subject", "frame"], kind="stable", ignore_index=True)
        table.attrs = {"notes": [f"{self.dataset}: {note}" for note in self.notes]} | (
            {"emotions": list(emotions)} if emotions else {}
        )
        table = face_table.check_table(table, f"{self.root} ({self.dataset})")
        problems = tuple(
            Problem(kind, count, tuple(places)) for kind, (count, places) in self._problems.items()
        )
        listed = splits.rename_axis("subject").rename("split").reset_index()
        return Reading(
            self.dataset, self.root, table, self.read, dict(self.dropped), problems, tuple(self.notes), listed
        )

    def _first_problem(self) -> str:
        examples = [places[0] for _, places in self._problems.values() if places]
        return f"; first: {examples[0]}" if examples else ""

    # --------------------------------------------------------------------------------------------------- finding files

    def find(self, pattern: str, prefer: str = "") -> pd.DataFrame:
        """Return the files whose path matches, one row a file: `path`, `base` (the folders before the match), the pattern's groups.

        Where several files match with the same groups, the one in the folder that `prefer` names counts, else the one in the fuller folder.
        """
        found = self.files.str.extract(f"^(?P<base>(?:.*/)?){pattern}").assign(path=self.files)
        found = found[found["base"].notna()]
        groups = [c for c in found if c not in ("base", "path")]
        full = found["base"].map(found["base"].value_counts())
        order = pd.DataFrame(
            {"other": ~found["path"].str.contains(prefer, regex=False), "full": -full, "path": found["path"]}
        )
        found = found.loc[order.sort_values(["other", "full", "path"]).index]
        again = found.duplicated(groups) if groups else pd.Series(False, found.index)
        if again.any():
            used, left = found["path"][~again].iloc[0], found["path"][again].iloc[0]
            self.note(
                f"{int(again.sum())} files stand there in another copy: {used} is used, for instance, and {left} is not"
            )
        return found[~again].sort_index()

    def require(self, found: pd.DataFrame, expected: str) -> pd.DataFrame:
        """Return what was found.

        Raises:
            TableError: it is empty; the message says what was `expected`.
        """
        if found.empty:
            raise TableError(
                f"{self.root}: no {expected} below it; is this the folder of {self.dataset}?{self._first_problem()}"
            )
        return found

    def bytes(self, file: str, most: int = -1) -> bytes:
        """Return a file's content, or its first bytes, without a mark of UTF-8; `file` is one of `files`."""
        try:
            with open(self.root / file, "rb") as opened:
                content = opened.read(most)
        except OSError as error:
            raise TableError(f"{self.root / file}: cannot be read ({error.strerror})") from error
        if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise TableError(
                f"{self.root / file}: row 1: UTF-16 text, expected UTF-8; save it again as UTF-8 (in Excel, CSV UTF-8)"
            )
        return content.removeprefix(b"\xef\xbb\xbf")


def places(rows: pd.DataFrame, found: str, mend: str = "") -> list[str]:
    """Say of the first rows where they are, what their column `found` holds, and how to mend it."""
    return [
        f"{row.file}, row {row.line}: found {getattr(row, found)!r}{mend}"
        for row in rows[:LISTED].itertuples()
    ]


def bad_lines(file: str, bad: list[tuple[int, str]], expected: str) -> list[str]:
    """Say of the first lines that `textfiles.read_csv` could not take where they are, what they hold and what was expected."""
    return [f"{file}, row {line}: found {text[:60]!r}, expected {expected}" for line, text in bad[:LISTED]]


def codes(log: Log, rows: pd.DataFrame, column: str, known: Mapping[str, float], name: str = "") -> pd.Series:
    """Return a column's codes as numbers, NaN where unlabelled; a cell that is not in `known` is unlabelled too, and a problem."""
    values = rows[column].map(known).astype(float)
    if (bad := rows[column].notna() & ~rows[column].isin(list(known))).any():
        places = [
            f"{row['file']}, row {row['line']}, column {name or column}: found {row[column][:60]!r}, expected one of {', '.join(known)}"
            for row in rows[bad][:LISTED].to_dict("records")
        ]
        log.problem("label that cannot be read, left unlabelled", places, int(bad.sum()))
    return values


def unrepeated(log: Log, rows: pd.DataFrame, key: list[str], labels: list[str]) -> pd.DataFrame:
    """Keep one of several rows that say the same of a face, and none where they contradict one another."""
    rows = log.drop(rows, rows.duplicated([*key, *labels]), "repeated row", key[-1])
    return log.drop(rows, rows.duplicated(key, keep=False), "labelled twice, differently", key[-1])


def drop_outside(log: Log, rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Drop rows whose image path is absolute or leads upwards."""
    return log.drop(
        rows,
        rows[column].str.contains(_OUTSIDE, regex=True),
        "image path that leads out of the folder",
        column,
    )
