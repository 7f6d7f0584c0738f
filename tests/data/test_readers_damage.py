"""Damaged data sets: the damage is named with its place, makes up no label and opens no other folder."""

import os
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from corpora_fixtures import BUILDERS, build_affectnet_arrays, put

from expvqa_lib.data import AU_COLUMNS, describe_reading, read_dataset
from expvqa_lib.data.readers import Reading, videos
from expvqa_lib.errors import ExpVQAError, TableError

SETS = BUILDERS | {"AffectNet since 2021": build_affectnet_arrays}
NONSENSE = ["", "nan", "-1", "99", "0.5", "inf", "1e400", "TRUE", "1111111111111111111111", "é", "\0", "=1+1"]
NONSENSE += ["../../etc/passwd", "/etc/passwd", "C:\\x"]


def damage_line(dice: random.Random, file: Path) -> None:
    """Cut, contradict or change one line of a label file, or move its cells."""
    lines = file.read_text().splitlines()
    row = dice.randrange(len(lines))
    cells = re.split("([, ])", lines[row])
    match dice.choice(("cut", "contradict", "nonsense", "move")):
        case "cut":  # a list of AUs cut within its list is another list: there the whole list goes
            cells = lines[row][: dice.randrange(len(lines[row]))] if "," in cells else cells[0]
        case "contradict":
            labels = [k for k, cell in enumerate(cells) if k and cell in ("0", "1")]
            for k in dice.sample(labels, min(1, len(labels))):
                cells[k] = "10"[int(cells[k])]
            row = len(lines)
        case "nonsense":
            cells[dice.randrange(0, len(cells), 2)] = dice.choice(NONSENSE)
        case "move":
            cells[1:2] = dice.choice((",,", "", ";", "\t"))
    lines[row : row + 1] = ["".join(cells)]
    put(file, "\n".join(lines))


def damage_file(dice: random.Random, root: Path, file: Path) -> None:
    """Make a file another one, none, a folder, or a link (or its folder a link) to what is outside."""
    kind = dice.choice(("bytes", "none", "folder", "link", "folder link"))
    outside = root.parent / "outside"
    if kind == "bytes":
        put(file, dice.randbytes(dice.choice((0, 1, 300))))
    elif kind != "folder link":
        put(outside / file.name, file.read_bytes().replace(b"1", b"0"))  # says other things
        file.unlink()
        if kind == "folder":
            file.mkdir()
        elif kind == "link":
            os.symlink(outside / file.name, file)
    elif file.parent != root:
        shutil.move(file.parent, outside)
        os.symlink(outside, file.parent)


def read(name: str, root: Path) -> Reading:
    return read_dataset(name.partition(" since")[0], root)


def absent(reading: Reading) -> set[tuple[str, str]]:
    """Every image with every AU that is absent from it."""
    values = (reading.table[list(AU_COLUMNS)] == 0).fillna(False).to_numpy(dtype=bool)
    return {(reading.table["image"][row], AU_COLUMNS[column]) for row, column in np.argwhere(values)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Each data set undamaged: its folder, and what is absent in it. Every frame of a video is read."""
    sets = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(videos, "EVERY", 1)
        for name, build in SETS.items():
            folder = tmp_path_factory.mktemp("sets") / ("RAF-DB" if "RAF-DB" in name else "set")
            build(folder)
            sets[name] = folder, absent(read(name, folder))
        yield sets


@pytest.fixture
def copy(whole, tmp_path):
    """Copies a data set into the test's folder and returns the copy."""
    return lambda name: Path(shutil.copytree(whole[name][0], tmp_path / "set"))


def label_files(root: Path) -> list[Path]:
    return [path for path in sorted(root.rglob("*.*")) if path.suffix in (".csv", ".txt", ".npy")]


def examine(name: str, root: Path, truth: set[tuple[str, str]]) -> None:
    """Read a damaged data set: no AU is absent that was not, or the error names a file."""
    try:
        reading = read(name, root)
    except ExpVQAError as error:
        assert str(root.resolve()) in str(error)
        return
    assert reading.read == len(reading.table) + sum(reading.dropped.values())
    assert absent(reading) <= truth
    for image in reading.table["image"]:
        assert (root / image).resolve().is_relative_to(root.resolve()) and (root / image).is_file()
    assert describe_reading(reading)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", sorted(SETS))
def test_damage_is_named_and_never_becomes_a_label(whole, copy, name, seed):
    dice, root = random.Random(f"{name} {seed}"), copy(name)
    if texts := [file for file in label_files(root) if file.suffix != ".npy"]:
        damage_line(dice, dice.choice(texts))
    for files in (label_files(root), sorted(root.rglob("*.jpg"))):
        if dice.random() < 0.5:
            damage_file(dice, root, dice.choice(files))
    examine(name, root, whole[name][1])


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_label_files_with_one_row_or_none_are_read_or_refused(whole, copy, name, rows):
    folder = copy(name)
    for file in label_files(folder):
        head = file.suffix == ".csv"
        put(file, "".join(file.read_text().splitlines(keepends=True)[: head + rows]))
    examine(name, folder, whole[name][1])
    if rows == 0:
        with pytest.raises(TableError, match="0 rows read|row 1"):
            read(name, folder)


@pytest.mark.parametrize(
    ("name", "line", "found"),
    [
        ("BP4D", "2441,7" + ",9" * 28, ", column AU1: found '7'"),
        ("DISFA", "3,6", ", column code: found '6'"),
        ("RAF-AU", "0002.jpg 70", ": found '70'"),
        ("RAF-DB", "train_0003.jpg 12", ": found '12', expected label 1, 2"),
        ("AffectNet", "/etc/passwd,1,1,1,1,1,1,0,0", ": found '/etc/passwd'"),
        ("EmotioNet", "'http://x/../y.jpg','u'" + ",0" * 60, ": found '../y.jpg'"),
    ],
)
def test_what_is_wrong_is_listed_with_file_row_and_column(whole, copy, name, line, found):
    folder = copy(name)
    file = label_files(folder)[0]
    lines = file.read_text().splitlines()
    put(file, "\n".join([*lines[:2], line, *lines[3:]]))
    examine(name, folder, whole[name][1])
    examples = [place for places in read(name, folder).problems.values() for place in places]
    assert any(f"{file.relative_to(folder)}, row 3{found}" in place for place in examples), examples


@pytest.mark.parametrize("end", ["\r\n", "\r"])
@pytest.mark.parametrize("name", ["BP4D", "DISFA", "RAF-AU", "AffectNet"])
def test_marks_and_line_ends_of_other_systems_change_nothing(whole, copy, name, end):
    folder = copy(name)
    for file in label_files(folder):
        put(file, b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", end.encode()))
    assert read(name, folder).table.equals(read(name, whole[name][0]).table)
