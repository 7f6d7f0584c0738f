"""Damaged data sets: the damage is named with its place, makes up no label and opens no other folder."""

import contextlib
import json
import os
import random
import re
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from corpora_fixtures import BUILDERS, build_affectnet_arrays, put

from expvqa_lib.data import AU_COLUMNS, describe_reading, read_dataset, read_pairs_json, read_table
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
        with pytest.raises(TableError, match="0 rows read|row 1|an empty file"):
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


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("name", sorted(SETS))
def test_line_ends_marks_and_files_of_other_systems_change_nothing_in_any_data_set(whole, copy, name, end):
    folder = copy(name)
    for file in [path for path in folder.rglob("*.*") if path.is_file()]:
        put(file.with_name(f"._{file.name}"), b"\0\5\x16\7")
        put(folder / "__MACOSX" / file.relative_to(folder), b"\0\5\x16\7")
        if file.suffix in (".csv", ".txt"):
            put(file, b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", end))
    assert read(name, folder).table.equals(read(name, whole[name][0]).table)


TEXTS = {
    "own": "image,AU1,AU2_r,emotion\na.jpg,1,0.5,fear\nb.jpg,0,2,\n",
    "OpenFace": "frame, confidence, AU01_r, AU01_c\n1, 0.98, 0.4, 0\n2, 0.98, 2.4, 1\n",
    "Py-Feat": "input,FaceScore,AU01,anger,happiness\na.jpg,0.99,0.7,0.1,0.8\nb.jpg,0.97,0.2,0.3,0.2\n",
    "LibreFace": "input_image_path,facial_expression,au_1\na.jpg,Happiness,1\nb.jpg,Contempt,0\n",
    "table": "image,dataset,subject,frame,split,AU1,emotion\na.jpg,x,s,1,train,1,fear\nb.jpg,x,t,2,test,0,\n",
    "pairs": '[{"image": "a.jpg", "text_input": "Is it?", "text_output": "yes"}]',
}
OTHERS = [b"", b"\n", b"\0", b"PK\x03\x04"]
OTHERS += [b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/spec/v1\n"]


def damage_text(dice: random.Random, text: str) -> bytes:
    """Another file in place of the text, or the text cut off, changed, in other separators or encodings."""
    data = text.replace(",", dice.choice((",", ";", "\t", "|"))).encode(dice.choice(("utf-8", "utf-16")))
    match dice.choice(("other", "cut", "byte", "nonsense")):
        case "other":
            return dice.choice(OTHERS)
        case "cut":
            return data[: dice.randrange(len(data))]
        case "byte":
            place = dice.randrange(len(data))
            return data[:place] + dice.randbytes(1) + data[place + 1 :]
    parts = re.split("([,\n])", text)
    parts[dice.randrange(0, len(parts), 2)] = dice.choice(NONSENSE)
    return "".join(parts).encode(errors="replace")


def test_no_damaged_label_file_table_or_pair_file_ends_in_a_traceback(tmp_path):
    for name in ("a.jpg", "b.jpg", "f_aligned/frame_det_00_000001.bmp", "f_aligned/frame_det_00_000002.bmp"):
        put(tmp_path / name, b"picture")
    dice, refused = random.Random(7), []
    for (name, text), _ in product(TEXTS.items(), range(60)):
        ends = {"table": ("csv", "parquet"), "pairs": ("json",)}.get(name, ("csv", "csv", "parquet"))
        file = tmp_path / f"f.{dice.choice(ends)}"
        put(file, damage_text(dice, text))
        try:
            if name == "pairs":
                read_pairs_json([file], tmp_path, drop_missing=True)
            elif name == "table":
                read_table(file)
            else:
                reading = read_dataset(name, tmp_path, labels=file)
                assert reading.read == len(reading.table) + sum(reading.dropped.values())
        except ExpVQAError as error:
            assert str(tmp_path) in str(error), error
            refused.append(error)
    assert 50 < len(refused) < 310  # of 360


HEADS = {  # the columns of each version of the programs
    "OpenFace": ("frame,confidence,AU01_c", "face,confidence,AU01_c", "frame,face_id,confidence,AU01_r"),
    "Py-Feat": ("input,frame,FaceScore,AU01", "input,FaceScore,FaceRectWidth,FaceRectHeight,AU01"),
    "LibreFace": ("frame_idx,au_1", "au_1,facial_expression", "input_image_path,au_1"),
    "own": ("image,AU1", "image,1,subject"),
}
ROWS = ("", "x,y,z", "1,nan,0,0,0", "clip.mp4,0,0.99,1,1", "a.jpg,0.99,1,1,1", "1,1,1,1,1", ";;;", '"a.jpg,1')
OPTIONS = ({}, {"images": "{name}/{frame:06d}.jpg"}, {"images": "{x}"}, {"threshold": 1.0})


def test_no_odd_rows_of_any_program_end_in_a_traceback(tmp_path):
    put(tmp_path / "a.jpg", b"picture")
    dice = random.Random(3)
    for name, heads in HEADS.items():
        for head, row, options in product(heads, ROWS, OPTIONS):
            columns = head.count(",") + 1
            cells = [(text.split(",") + [""] * columns)[:columns] for text in (row, dice.choice(ROWS))]
            put(tmp_path / "c.csv", "\n".join([head, *map(",".join, cells)]))
            with contextlib.suppress(ExpVQAError):
                reading = read_dataset(name, tmp_path, labels=tmp_path / "c.csv", **options)
                assert reading.read == len(reading.table) + sum(reading.dropped.values())


def write_labels(folder: Path, images: list[str]) -> tuple[Path, Path, Path]:
    """Labels of one's own, a face table and a pair file that name the images."""
    put(folder / "own.csv", "\n".join(["image;AU1", *(f"{image};1" for image in images)]))
    rows = [f"{image},x,s,{k},train" for k, image in enumerate(images)]
    put(folder / "t.csv", "\n".join(["Image,dataset,subject,frame,split", *rows]))
    pairs = [{"image": image, "text_input": "Is it?", "text_output": "yes"} for image in images]
    put(folder / "p.json", json.dumps(pairs))
    return folder / "own.csv", folder / "t.csv", folder / "p.json"


@pytest.mark.parametrize(
    "image", ["sub\\b.jpg", "C:\\x\\sub\\b.jpg", "./{root}/sub/b.jpg", "/far/away/sub/b.jpg"]
)
def test_a_path_of_another_computer_finds_its_image_in_every_reader(tmp_path, image):
    root, image = tmp_path / "photos", image.format(root="photos")
    put(root / "sub" / "b.jpg", b"picture")
    own, table, pairs = write_labels(tmp_path, [image])
    expected = str((root / "sub" / "b.jpg").resolve())
    assert list(read_dataset("own", root, labels=own).table["image"]) == ["sub/b.jpg"]
    assert list(read_table(table, root)["image"]) == [expected]
    assert read_pairs_json([pairs], root)[0]["image"][:] == [expected]


OUTSIDE = ["../secret.png", "a/../../secret.png", "/etc/passwd", "link/secret.png", "out.png"]


@pytest.mark.parametrize("image", OUTSIDE)
def test_an_image_outside_of_the_root_is_named_and_not_read_by_any_reader(tmp_path, image):
    root = tmp_path / "photos"
    for path in (root / "a" / "1.png", root / "2.png", tmp_path / "secret.png"):
        put(path, b"picture")
    for link, target in (("link", tmp_path), ("out.png", tmp_path / "secret.png")):
        (root / link).symlink_to(target)
    own, table, pairs = write_labels(tmp_path, ["2.png", image, f"{root}/a/1.png", "gone.png"])
    reading = read_dataset("own", root, labels=own)
    assert sorted(reading.table["image"]) == ["2.png", "a/1.png"] and (reading.table["AU1"] == 1).all()
    assert reading.dropped == {"image path that leads out of the folder": 1, "image missing": 1}
    named = "\n".join(place for places in reading.problems.values() for place in places)
    assert f"row 3: found {image!r}" in named and "row 5: found 'gone.png'" in named
    with pytest.raises(TableError, match=f"{table}: row 1, column image: found {image!r}.*{root}"):
        read_table(table, root)
    with pytest.raises(TableError, match=f"{pairs}: row 1, key image: {image!r}.*{root}"):
        read_pairs_json([pairs], root, drop_missing=True)
