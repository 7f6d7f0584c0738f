"""Readers of pictures: RAF-AU, EmotioNet, AffectNet, RAF-DB and FaceME, each rule on files of the distributed layout."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest
from corpora_fixtures import build_affectnet_arrays, by_image, change, faces, put, put_lines

from expvqa_lib.data.readers import read_corpus
from expvqa_lib.data.readers import report as inspection
from expvqa_lib.data.readers.pictures import (
    RAF_COMPOUND,
    read_affectnet,
    read_emotionet,
    read_faceme,
    read_raf_au,
    read_raf_db,
)
from expvqa_lib.data.table import AU_COLUMNS, labelled_aus
from expvqa_lib.errors import TableError


def test_raf_au_prefixes_are_removed_and_what_is_not_listed_is_absent_where_it_is_coded_at_all(root):
    folder = root("RAF-AU")
    rows = by_image(read_raf_au(folder))
    coded = {au for k in range(23) for au in faces()[k % 16][1]}
    for k in range(23):
        drawn = faces()[k % 16][1]
        row = rows.loc[f"{k:04d}_aligned.jpg"]
        assert {au for au in coded if row[f"AU{au}"] == 1} == set(drawn) and {
            au for au in coded if row[f"AU{au}"] == 0
        } == coded - set(drawn)
    assert all(rows[column].isna().all() for column in AU_COLUMNS if int(column[2:]) not in coded)
    assert (rows.loc["0023_aligned.jpg", [f"AU{au}" for au in sorted(coded)]] == 0).all()  # null
    assert "codes that are ignored, because no phrase is known for them: 32" in read_raf_au(folder).notes


def test_raf_au_reads_every_prefix_and_original_images(tmp_path):
    put_lines(tmp_path / "RAFAU_label.txt", ["0001.jpg T1+B2+L4+R12", "0002.jpg 25", "0003.jpg L12+R12"])
    for k in (1, 2, 3):
        put(tmp_path / "original" / f"{k:04d}.jpg", faces()[k][0])
    rows = by_image(read_raf_au(tmp_path))
    assert rows[["AU1", "AU2", "AU4", "AU12", "AU25"]].to_numpy().tolist() == [
        [1, 1, 1, 1, 0],
        [0, 0, 0, 0, 1],
        [0, 0, 0, 1, 0],
    ]


def test_raf_au_code_that_cannot_be_read_leaves_all_that_is_not_listed_unlabelled(root):
    folder = root("RAF-AU")
    change(folder / "RAFAU_label.txt", "0001.jpg ", "0001.jpg x7+")
    before = by_image(read_raf_au(folder)).loc["0001_aligned.jpg"]
    assert not (before[list(AU_COLUMNS)] == 0).any() and (before[list(AU_COLUMNS)] == 1).sum() == len(
        faces()[1][1]
    )
    (problem,) = read_raf_au(folder).problems
    assert problem.examples[0].startswith("RAFAU_label.txt, row 2: found 'x7'")


def test_emotionet_999_is_unlabelled_and_images_may_lie_in_one_folder(root):
    folder = root("EmotioNet")
    reading = read_emotionet(folder)
    rows = by_image(reading)
    assert labelled_aus(reading.table) == [1, 2, 4, 5, 6, 9, 12, 17, 20, 25, 26]
    assert rows["AU5"].isna().tolist() == [int(name[2:12]) % 4 == 0 for name in rows.index]
    assert rows.loc["N_0000000001_00001.jpg", "AU1"] == int(1 in faces()[1][1])
    for file in list((folder / "images").glob("*/*.jpg")):
        file.rename(folder / "images" / file.name)
    assert len(read_emotionet(folder).table) == 24


def test_affectnet_layouts_old_headless_and_new_say_the_same(root, tmp_path):
    old = read_affectnet(root("AffectNet"))
    assert old.dropped == {"none, uncertain or no face": 6}
    assert by_image(old)["emotion"].to_dict() == {
        f"{name[:2]}{k:08x}.jpg": faces()[k % 16][2]
        for name, size in (("training", 24), ("validation", 8))
        for k in range(size)
    }
    assert set(by_image(old).query("split == 'test'").index) == {f"va{k:08x}.jpg" for k in range(8)}
    lists = tmp_path / "AffectNet" / "Manually_Annotated_file_lists"
    for file in lists.iterdir():
        file.write_text(file.read_text().partition("\n")[2])
    pd.testing.assert_frame_equal(read_affectnet(tmp_path / "AffectNet").table, old.table)
    build_affectnet_arrays(tmp_path / "new")
    new = read_affectnet(tmp_path / "new")
    assert dict(zip(new.table["image"], new.table["emotion"], strict=True)) == {
        f"{folder}/images/{k}.jpg": faces()[k % 16][2]
        for folder, size in (("train_set", 24), ("val_set", 8))
        for k in range(size)
    }
    assert (
        inspection.counts(new)["images"].tolist() == inspection.counts(old)["images"].tolist() == [23, 1, 8]
    )


def test_an_affectnet_picture_of_both_lists_is_tested_on(root):
    folder = root("AffectNet")
    lists = folder / "Manually_Annotated_file_lists"
    row = (lists / "validation.csv").read_text().splitlines()[1]
    with open(lists / "training.csv", "a") as file:
        file.write(row + "\n")
    reading = read_affectnet(folder)
    assert reading.dropped["repeated row"] == 1
    assert reading.table.loc[
        reading.table["image"].str.endswith(row.partition(",")[0]), "split"
    ].tolist() == ["test"]


def test_raf_db_compound_emotions_are_two_words_and_names_tell_the_split(root):
    reading = read_raf_db(root("RAF-DB"))
    rows = by_image(reading)
    assert rows.loc["train_0001_aligned.jpg", "emotion"] == "happiness+surprise"
    assert rows.loc[[f"train_{k:04d}_aligned.jpg" for k in range(1, 12)], "emotion"].tolist() == list(
        RAF_COMPOUND.values()
    )
    assert all(name.startswith("test_") == (split == "test") for name, split in rows["split"].items())


def test_the_two_sets_of_raf_db_are_not_confused(root, tmp_path):
    root("RAF-DB")
    shutil.copytree(tmp_path / "RAF-DB" / "compound", tmp_path / "RAF-DB" / "basic")
    list_file = tmp_path / "RAF-DB" / "basic" / "EmoLabel" / "list_patition_label.txt"
    put_lines(list_file, ["train_0001.jpg 5", "train_0002.jpg 7", "test_0001.jpg 3"])
    basic, compound = read_corpus("RAF-DB-basic", tmp_path / "RAF-DB"), read_raf_db(tmp_path / "RAF-DB")
    assert sorted(basic.table["emotion"]) == ["disgust", "neutral", "sadness"] and len(compound.table) == 26
    assert all(image.startswith("basic/Image/aligned/") for image in basic.table["image"])
    assert len(read_raf_db(tmp_path / "RAF-DB" / "compound").table) == 26
    with pytest.raises(TableError, match=r"no basic/EmoLabel/list_patition_label.txt below it"):
        read_raf_db(tmp_path / "RAF-DB" / "compound", basic=True)


def test_faceme_words_need_two_of_three_annotators(tmp_path):
    lines = [
        "image,a,b,c",
        "1.jpg,happy;awe,Happiness,awe",
        "2.jpg,awe;awe,fear,envy",
        "3.jpg,envy;fear,fear;envy,fear;awe",
        "4.jpg,,fear,fear",
    ]
    put_lines(tmp_path / "annotations.csv", lines)
    for k in range(1, 5):
        put(tmp_path / "images" / f"{k}.jpg", faces()[k][0])
    reading = read_faceme(tmp_path)
    assert by_image(reading)["emotion"].to_dict() == {
        "1.jpg": "awe+happiness",
        "3.jpg": "fear+envy",
        "4.jpg": "fear",
    }
    assert reading.dropped == {"no word of 2 annotators": 1} and reading.table.attrs["emotions"] == [
        "awe",
        "envy",
    ]
    assert by_image(read_faceme(tmp_path, agreeing=3))["emotion"].to_dict() == {"3.jpg": "fear"}
