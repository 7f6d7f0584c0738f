"""Damaged data sets: a reader says what is wrong and where, never lies about a label and never leaves its folder."""

from __future__ import annotations

import os
import random
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from corpora_fixtures import BUILDERS, build_affectnet_arrays, put
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from expvqa_lib.data.readers import read_corpus
from expvqa_lib.data.readers import report as inspection
from expvqa_lib.data.readers.log import LISTED, Reading
from expvqa_lib.data.table import AU_COLUMNS
from expvqa_lib.errors import ExpVQAError, TableError

SETS = {**BUILDERS, "AffectNet since 2021": build_affectnet_arrays}
VIDEOS = ("BP4D", "DISFA", "GFT")
NONSENSE = (
    "",
    "nan",
    "NaN",
    "-1",
    "99",
    "0.5",
    "inf",
    "1e400",
    "TRUE",
    "1" * 40,
    "é",
    "\x00",
    "=1+1",
    "../../etc/passwd",
    "/etc/passwd",
    "C:\\x",
)


# ---------------------------------------------------------------------------------- damage to the text of one label file


def cut_line(dice: random.Random, lines: list[str], line: int) -> None:
    # a list of AUs cut within its list is another list: there the whole list goes
    lines[line] = (
        lines[line].split()[0]
        if lines[line].count(",") == 0
        else lines[line][: dice.randrange(len(lines[line]))]
    )


def lose_line(dice: random.Random, lines: list[str], line: int) -> None:
    del lines[line]


def empty_line(dice: random.Random, lines: list[str], line: int) -> None:
    lines.insert(line, dice.choice(("", "   ", ",")))


def repeat_line(dice: random.Random, lines: list[str], line: int) -> None:
    lines.insert(dice.randrange(line, len(lines)) + 1, lines[line])


def contradict_line(dice: random.Random, lines: list[str], line: int) -> None:
    cells = re.split("([, ])", lines[line])
    places = [k for k, cell in enumerate(cells) if k and cell in ("0", "1")]
    if places:
        place = dice.choice(places)
        cells[place] = "1" if cells[place] == "0" else "0"
    lines.append("".join(cells))


def write_nonsense(dice: random.Random, lines: list[str], line: int) -> None:
    cells = re.split("([, ])", lines[line])
    cells[dice.randrange(0, len(cells), 2)] = dice.choice(NONSENSE)
    lines[line] = "".join(cells)


def move_cells(dice: random.Random, lines: list[str], line: int) -> None:
    places = [k for k, sign in enumerate(lines[line]) if sign in ", "] or [0]
    place = dice.choice(places)
    lines[line] = lines[line][:place] + dice.choice((",,", "", ";", "\t", " , ")) + lines[line][place + 1 :]


TEXT = (cut_line, lose_line, empty_line, repeat_line, contradict_line, write_nonsense, move_cells)


# ------------------------------------------------------------------------------------------------- damage to a whole file


def mark(dice: random.Random, root: Path, file: Path) -> None:
    put(file, b"\xef\xbb\xbf" + file.read_bytes())


def windows(dice: random.Random, root: Path, file: Path) -> None:
    put(file, file.read_bytes().replace(b"\n", dice.choice((b"\r\n", b"\r"))))


def utf16(dice: random.Random, root: Path, file: Path) -> None:
    put(file, file.read_bytes().decode("latin-1").encode("utf-16"))


def no_utf8(dice: random.Random, root: Path, file: Path) -> None:
    content = file.read_bytes()
    place = dice.randrange(len(content) + 1)
    put(file, content[:place] + bytes([dice.randrange(128, 256)]) + content[place:])


def no_text(dice: random.Random, root: Path, file: Path) -> None:
    put(file, dice.randbytes(dice.choice((0, 1, 300))))


def no_file(dice: random.Random, root: Path, file: Path) -> None:
    file.unlink()


def folder_instead(dice: random.Random, root: Path, file: Path) -> None:
    file.unlink()
    file.mkdir()


def link_out(dice: random.Random, root: Path, file: Path) -> None:
    """Make the file a link out of the folder, to a copy that says other things."""
    outside = root.parent / "outside" / file.name
    put(
        outside,
        file.read_bytes().replace(b"1", b"0") if file.suffix in (".csv", ".txt") else file.read_bytes(),
    )
    file.unlink()
    os.symlink(outside, file)


def link_folder_out(dice: random.Random, root: Path, file: Path) -> None:
    if file.parent != root:
        outside = root.parent / "outside"
        shutil.move(file.parent, outside)
        os.symlink(outside, file.parent)


FILE = (mark, windows, utf16, no_utf8, no_text, no_file, folder_instead, link_out, link_folder_out)


# ------------------------------------------------------------------------------------------------------------- the checks


def read(name: str, root: Path) -> Reading:
    options = {"every": 1} if name in VIDEOS else {}
    return read_corpus(name.partition(" since")[0], root, **options)


def absent(reading: Reading) -> set[tuple[str, str]]:
    """Every image with every AU that is said to be absent from it."""
    values = (reading.table[list(AU_COLUMNS)] == 0).fillna(False).to_numpy(dtype=bool)
    images = reading.table["image"].tolist()
    return {(images[row], AU_COLUMNS[column]) for row, column in np.argwhere(values)}


class Whole:
    """Each data set undamaged: its folder and what is absent in it."""

    def __init__(self, folder: Path) -> None:
        self.sets = {}
        for name, build in SETS.items():
            build(folder / name)
            self.sets[name] = folder / name, absent(read(name, folder / name))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Whole:
    return Whole(tmp_path_factory.mktemp("sets"))


def label_files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.suffix in (".csv", ".txt", ".npy"))


def examine(name: str, root: Path, truth: set[tuple[str, str]]) -> None:
    """Read a damaged data set; it says nothing absent that was not, or fails with a message that names a file."""
    try:
        reading = read(name, root)
    except ExpVQAError as error:
        assert str(root.resolve()) in str(error)
        return
    assert reading.read == len(reading.table) + sum(reading.dropped.values())
    assert absent(reading) <= truth
    assert all(
        (root / image).resolve().is_relative_to(root.resolve()) and (root / image).is_file()
        for image in reading.table["image"]
    )
    assert all(len(problem.examples) == min(problem.count, LISTED) for problem in reading.problems)
    assert inspection.report(reading)


def damage(
    name: str, source: Path, root: Path, text: list, files: list, images: list, dice: random.Random
) -> None:
    """Copy a data set to `root` and damage some of its label files and images."""
    shutil.copytree(source, root, copy_function=shutil.copyfile)
    for change in text:
        if lists := [file for file in label_files(root) if file.suffix != ".npy"]:
            file = dice.choice(lists)
            lines = file.read_text().splitlines()
            change(dice, lines, dice.randrange(len(lines)))
            put(file, "\n".join(lines))
    for change in files:
        if found := [file for file in label_files(root) if file.is_file()]:
            change(dice, root, dice.choice(found))
    for change in images:
        if found := [file for file in sorted(root.rglob("*.jpg")) if file.is_file()]:
            change(dice, root, dice.choice(found))


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(sorted(SETS)),
    text=st.lists(st.sampled_from(TEXT), max_size=1),
    files=st.lists(st.sampled_from(FILE), max_size=1),
    images=st.lists(
        st.sampled_from((no_text, no_file, folder_instead, link_out, link_folder_out)), max_size=2
    ),
    dice=st.randoms(use_true_random=True),
)
def test_damage_is_told_and_never_becomes_a_label(whole, name, text, files, images, dice):
    source, truth = whole.sets[name]
    with tempfile.TemporaryDirectory() as folder:
        damage(name, source, Path(folder) / "set", text, files, images, dice)
        examine(name, Path(folder) / "set", truth)


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("name", sorted(set(SETS) - {"AffectNet since 2021"}))
def test_label_files_with_one_row_or_none_are_read_or_refused(whole, tmp_path, name, rows):
    source, truth = whole.sets[name]
    damage(name, source, tmp_path / "set", [], [], [], random.Random(0))
    for file in label_files(tmp_path / "set"):
        head = 0 if name in ("DISFA", "RAF-AU", "RAF-DB", "RAF-DB-basic") else 1
        put(file, "".join(file.read_text().splitlines(keepends=True)[: head + rows]))
    examine(name, tmp_path / "set", truth)
    if rows == 0:
        with pytest.raises(TableError, match=r"can be used: 0 rows read|row 1|Empty CSV file"):
            read(name, tmp_path / "set")


@pytest.mark.parametrize(
    ("name", "file", "line", "told"),
    [
        (
            "BP4D",
            "AUCoding/AU_OCC/F001_T1.csv",
            "2441,7" + ",9" * 28,
            "AUCoding/AU_OCC/F001_T1.csv, row 3, column AU1: found '7', expected one of 0, 1, 9",
        ),
        (
            "BP4D",
            "AUCoding/AU_OCC/F001_T1.csv",
            "2441,0",
            "AUCoding/AU_OCC/F001_T1.csv, row 3: found '2441,0', expected a frame and 29 codes",
        ),
        (
            "DISFA",
            "ActionUnit_Labels/SN001/SN001_au1.txt",
            "3,6",
            "SN001_au1.txt, row 3, column intensity: found '6', expected one of 0, 1, 2",
        ),
        (
            "RAF-AU",
            "RAFAU_label.txt",
            "0002.jpg 70",
            "RAFAU_label.txt, row 3: found '70', expected a FACS number",
        ),
        (
            "RAF-DB",
            "compound/EmoLabel/list_patition_label.txt",
            "train_0003.jpg 12",
            "row 3: found '12', expected label 1, 2",
        ),
        (
            "RAF-DB",
            "compound/EmoLabel/list_patition_label.txt",
            "../../etc/passwd 1",
            "row 3: found '../../etc/passwd'",
        ),
        (
            "AffectNet",
            "Manually_Annotated_file_lists/training.csv",
            "/etc/passwd,1,1,1,1,1,1,0,0",
            "training.csv, row 3: found '/etc/passwd'",
        ),
        (
            "FaceME",
            "annotations.csv",
            "../../etc/passwd,fear,fear,fear",
            "annotations.csv, row 3: found '../../etc/passwd'",
        ),
        (
            "EmotioNet",
            "EmotioNet_FACS_aws_2020_24600.csv",
            "'http://x/../y.jpg','u'" + ",0" * 60,
            "row 3: found '../y.jpg'",
        ),
    ],
)
def test_what_is_wrong_is_told_with_file_row_and_column(whole, tmp_path, name, file, line, told):
    source, truth = whole.sets[name]
    damage(name, source, tmp_path / "set", [], [], [], random.Random(0))
    lines = (tmp_path / "set" / file).read_text().splitlines()
    lines[2] = line
    put(tmp_path / "set" / file, "\n".join(lines))
    examine(name, tmp_path / "set", truth)
    examples = [place for problem in read(name, tmp_path / "set").problems for place in problem.examples]
    assert any(told in place for place in examples), examples


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"0,1,2\n1,0,\xff\n", "row 2, column 3: not UTF-8 text; save it again as UTF-8"),
        ("0,1,2\n1,0,0\n".encode("utf-16"), "row 1: UTF-16 text, expected UTF-8"),
        (b"0,1,1\n1,0,0\n", "row 1: two columns are called '1'"),
        (b"0,1,AU1\n1,0,0\n", "row 1: one AU has two columns"),
        (b"", "not comma-separated text"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(whole, tmp_path, content, told):
    damage("BP4D", whole.sets["BP4D"][0], tmp_path / "set", [], [], [], random.Random(0))
    file = tmp_path / "set" / "AUCoding" / "AU_OCC" / "F003_T1.csv"
    put(file, content)
    with pytest.raises(TableError) as caught:
        read("BP4D", tmp_path / "set")
    assert str(file) in str(caught.value) and told in str(caught.value)


@pytest.mark.parametrize("end", ["\r\n", "\r"])
@pytest.mark.parametrize("name", ["BP4D", "DISFA", "RAF-AU", "AffectNet"])
def test_marks_and_line_ends_of_other_systems_change_nothing(whole, tmp_path, name, end):
    source, _ = whole.sets[name]
    damage(name, source, tmp_path / "set", [], [], [], random.Random(0))
    for file in label_files(tmp_path / "set"):
        put(file, b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", end.encode()))
    assert read(name, tmp_path / "set").table.equals(read(name, source).table)
