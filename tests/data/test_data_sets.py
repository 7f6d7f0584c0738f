"""Readers of the data sets, each rule on files as distributed."""

import shutil

import numpy as np
import pandas as pd
import pytest
from corpora_fixtures import build_affectnet_arrays, build_disfa, by_image, change, drawn, put, put_lines

from expvqa_lib.data import AU_COLUMNS, au_labels, labelled_aus, read_dataset
from expvqa_lib.data.readers import pictures, videos
from expvqa_lib.data.readers.videos import DISFA_AUS, is_sampled
from expvqa_lib.errors import TableError
from expvqa_lib.facs import BP4D_AUS


def test_raf_au_prefixes_are_removed_and_an_au_not_listed_is_absent_where_it_is_coded_at_all(root):
    reading = read_dataset("RAF-AU", root("RAF-AU"))
    present = [set(drawn(k % 16)[1]) for k in range(23)] + [set()]  # the last: null
    coded = set.union(*present)
    labels = by_image(reading)[list(AU_COLUMNS)].dropna(axis="columns", how="all")
    assert set(labels) == {f"AU{au}" for au in coded}
    for k, aus in enumerate(present):
        assert labels.loc[f"{k:04d}_aligned.jpg"].to_dict() == {f"AU{au}": int(au in aus) for au in coded}
    assert any(note.endswith(" 32") for note in reading.notes)  # a code without a phrase


def test_raf_au_reads_every_prefix_odd_codes_and_original_images(tmp_path):
    codes = {"T1+B2+L4+R12": {1, 2, 4, 12}, "25": {25}, "L12+R12": {12}, "9+AD19+t23": {9, 19, 23}}
    codes |= {"L12L+BL18 ": {12, 18}, " 26+26 + 1": {26, 1}, "23+12+9+26+1": {23, 12, 9, 26, 1}}
    put_lines(tmp_path / "RAFAU_label.txt", [f"{k:04d}.jpg {code}" for k, code in enumerate(codes)])
    for k in range(len(codes)):
        put(tmp_path / (f"original/{k:04d}.jpg" if k < 3 else f"aligned/{k:04d}_aligned.jpg"), drawn(k)[0])
    reading = read_dataset("RAF-AU", tmp_path)
    for row, aus in zip(reading.table.to_dict("records"), codes.values(), strict=True):
        assert au_labels(row) == {au: int(au in aus) for au in set.union(*codes.values())}
    assert not reading.problems


def test_a_raf_au_code_that_cannot_be_read_leaves_all_that_is_not_listed_unlabelled(root):
    folder = root("RAF-AU")
    change(folder / "RAFAU_label.txt", "0001.jpg ", "0001.jpg x7+")
    reading = read_dataset("RAF-AU", folder)
    labels = by_image(reading).loc["0001_aligned.jpg", list(AU_COLUMNS)].dropna()
    assert labels.to_dict() == {f"AU{au}": 1 for au in drawn(1)[1]}
    ((example,),) = reading.problems.values()
    assert example.startswith("RAFAU_label.txt, row 2: found 'x7+")


def test_emotionet_999_is_unlabelled_and_images_may_lie_in_one_folder(root):
    folder = root("EmotioNet")
    reading = read_dataset("EmotioNet", folder)
    rows = by_image(reading)
    assert labelled_aus(reading.table) == [1, 2, 4, 5, 6, 9, 12, 17, 20, 25, 26]
    assert rows["AU5"].isna().tolist() == [int(name[2:12]) % 4 == 0 for name in rows.index]
    assert rows.loc["N_0000000001_00001.jpg", "AU1"] == int(1 in drawn(1)[1])
    for file in list(folder.glob("images/*/*.jpg")):
        file.rename(folder / "images" / file.name)
    assert len(read_dataset("EmotioNet", folder).table) == 24


def test_affectnet_layouts_with_and_without_names_in_any_case_and_of_2021_label_the_same(root, tmp_path):
    folder = root("AffectNet")
    build_affectnet_arrays(tmp_path / "new")
    old, new = read_dataset("AffectNet", folder), read_dataset("AffectNet", tmp_path / "new")
    assert old.dropped == {"none, uncertain or no face": 6}
    train, test = [drawn(k % 16)[2] for k in range(24)], [drawn(k)[2] for k in range(8)]
    emotions = {f"tr{k:08x}.jpg": emotion for k, emotion in enumerate(train)}
    emotions |= {f"va{k:08x}.jpg": emotion for k, emotion in enumerate(test)}
    assert by_image(old)["emotion"].to_dict() == emotions
    emotions = {f"train_set/images/{k}.jpg": emotion for k, emotion in enumerate(train)}
    emotions |= {f"val_set/images/{k}.jpg": emotion for k, emotion in enumerate(test)}
    assert new.table.set_index("image")["emotion"].to_dict() == emotions
    for reading in (old, new):
        assert reading.table["split"].value_counts().to_dict() == {"train": 23, "validation": 1, "test": 8}
        assert reading.table.query("split == 'test'")["image"].str.contains("va").all()
    for head in ("SUBDIRECTORY_filepath,face_x,y,w,h,landmarks,expression,valence,arousal\n", ""):
        for file in (folder / "Manually_Annotated_file_lists").iterdir():
            put(file, head + file.read_text().partition("\n")[2])
        pd.testing.assert_frame_equal(read_dataset("AffectNet", folder).table, old.table)


def test_an_affectnet_picture_in_both_lists_is_a_test_picture(root):
    folder = root("AffectNet")
    lists = folder / "Manually_Annotated_file_lists"
    row = (lists / "validation.csv").read_text().splitlines()[1]
    put(lists / "training.csv", (lists / "training.csv").read_text() + row)
    reading = read_dataset("AffectNet", folder)
    assert reading.dropped["repeated row"] == 1
    assert by_image(reading).loc[row.partition(",")[0].rpartition("/")[2], "split"] == "test"


def test_raf_db_compound_emotions_are_two_words_and_names_tell_the_split(root):
    rows = by_image(read_dataset("RAF-DB", root("RAF-DB")))
    emotions = rows.loc[[f"train_{k:04d}_aligned.jpg" for k in range(1, 12)], "emotion"]
    assert tuple(emotions) == pictures.RAF_COMPOUND
    assert (rows.index.str.startswith("test_") == (rows["split"] == "test")).all()


def test_the_two_sets_of_raf_db_are_not_confused(root, tmp_path):
    folder = root("RAF-DB")
    shutil.copytree(folder / "compound", folder / "basic")
    lines = ["train_0001.jpg 5", "train_0002.jpg 7", "test_0001.jpg 3"]
    put_lines(folder / "basic" / "EmoLabel" / "list_patition_label.txt", lines)
    basic, compound = read_dataset("RAF-DB-basic", folder), read_dataset("RAF-DB", folder)
    assert sorted(basic.table["emotion"]) == ["disgust", "neutral", "sadness"] and len(compound.table) == 26
    assert basic.table["image"].str.startswith("basic/Image/aligned/").all()
    assert compound.table["image"].str.startswith("compound/Image/aligned/").all()
    assert len(read_dataset("RAF-DB", folder / "compound").table) == 26
    with pytest.raises(TableError, match="basic/EmoLabel/list_patition_label.txt"):
        read_dataset("RAF-DB-basic", folder / "compound")


@pytest.fixture
def every_frame(monkeypatch):
    monkeypatch.setattr(videos, "EVERY", 1)


def test_bp4d_labels_are_the_codes_and_9_is_unlabelled(root, every_frame):
    table = read_dataset("BP4D", root("BP4D")).table
    assert labelled_aus(table) == list(BP4D_AUS)
    rows = table.set_index(["subject", "frame"])
    for k in range(5):
        row, aus = rows.loc[("F001", f"T1_{2440 + k:05d}")], drawn(k // 2)[1]
        assert row["image"] == f"Sequences_2D+3D/F001/T1/{2440 + k}.jpg"
        assert au_labels(row) == {au: int(au in aus) for au in BP4D_AUS if (au, k) != (24, 1)}
    assert ("F001", "T1_02445") not in rows.index  # all of it is 9
    assert "Sequences_2D+3D/F003/T1/0098.jpg" in set(table["image"])


def test_bp4d_reads_three_digits_and_tables_without_their_folder(root, every_frame):
    folder = root("BP4D")
    for file in (folder / "AUCoding" / "AU_OCC").iterdir():
        file.rename(folder / "AUCoding" / file.name)
    for file in sorted((folder / "Sequences_2D+3D" / "F003" / "T1").iterdir()):
        file.rename(file.with_name(f"{int(file.stem):03d}.jpg"))
    images = read_dataset("BP4D", folder).table.query("subject == 'F003'")["image"].str[-7:]
    assert images.tolist() == ["098.jpg", "099.jpg", "100.jpg", "101.jpg", "102.jpg"]


def test_bp4d_tests_on_all_frames_of_13_of_its_41_subjects_and_drops_other_subjects(root):
    train, test = videos.BP4D_TRAIN.split(), videos.BP4D_TEST.split()
    assert (len(train), len(test), len({*train, *test})) == (28, 13, 41)
    folder = root("BP4D")
    reading = read_dataset("BP4D", folder)
    tested = reading.table.query("split == 'test'")["subject"].value_counts().to_dict()
    assert tested == {"F007": 5, "F015": 5} and reading.dropped["not sampled"] == 4
    train = reading.table.query("subject == 'F001'")["frame"].tolist()
    # 1 differs in AU24 alone; 2 and 4 are new faces
    assert train == ["T1_02440", "T1_02441", "T1_02442", "T1_02444"]
    codes = folder / "AUCoding" / "AU_OCC"
    (codes / "F001_T1.csv").rename(codes / "F099_T1.csv")
    assert read_dataset("BP4D", folder).dropped["subject of no split"] == 5


def test_one_frame_in_ten_is_taken_and_each_whose_labels_differ_from_the_frame_before(monkeypatch):
    labels = [0.0] * 12 + [1.0] * 5 + [np.nan] * 2 + [1.0] * 6
    rows = pd.DataFrame({"subject": "a", "video": "T1", "AU1": labels})
    rows = pd.concat([rows, rows.assign(video="T2")], ignore_index=True)
    sampled = np.flatnonzero(is_sampled(rows, ["AU1"])).tolist()
    assert sampled == [0, 10, 12, 17, 19, 20, 25, 35, 37, 42, 44, 45]


def test_disfa_is_present_from_intensity_2_and_keeps_intensities(root, every_frame):
    table = read_dataset("DISFA", root("DISFA")).table
    assert labelled_aus(table) == list(DISFA_AUS) and len(table) == 36
    first = table.set_index(["subject", "frame"]).loc[("SN001", "00001")]
    intensities = [round(5 * drawn(0)[1].get(au, 0)) for au in DISFA_AUS]
    assert [first[f"AU{au}_intensity"] for au in DISFA_AUS] == intensities
    assert all(((table[f"AU{au}_intensity"] >= 2) == table[f"AU{au}"]).all() for au in DISFA_AUS)


def test_a_disfa_au_without_a_file_or_with_two_intensities_is_unlabelled_there_only(root, every_frame):
    folder = root("DISFA") / "ActionUnit_Labels"
    (folder / "SN002" / "SN002_au5.txt").unlink()
    put_lines(folder / "SN003" / "SN003_au5.txt", ["1,0", "1,3", *(f"{k},1" for k in range(2, 7))])
    reading = read_dataset("DISFA", folder.parent)
    unlabelled = reading.table.set_index(["subject", "frame"])["AU5"].isna()
    assert unlabelled["SN002"].all() and unlabelled["SN003"].tolist() == [True] + 5 * [False]
    assert not unlabelled.drop(["SN002", "SN003"]).any()
    assert reading.dropped["labelled twice, differently"] == 2


def test_disfa_images_may_count_from_0_for_each_subject_and_the_threshold_is_a_choice(tmp_path, every_frame):
    for name, first in (("one", 1), ("zero", 0), ("mixed", 1)):
        build_disfa(tmp_path / name, first)
    shutil.rmtree(tmp_path / "mixed" / "Images" / "SN002")
    shutil.copytree(tmp_path / "zero" / "Images" / "SN002", tmp_path / "mixed" / "Images" / "SN002")
    one, zero, mixed = (read_dataset("DISFA", tmp_path / name) for name in ("one", "zero", "mixed"))
    for other in (zero, mixed):
        assert one.table.drop(columns="image").equals(other.table.drop(columns="image"))
        assert other.table.query("subject == 'SN002'")["image"].iat[0] == "Images/SN002/00000.jpg"
        assert len(other.notes) > len(one.notes)
    assert mixed.table["image"].iat[0] == "Images/SN001/00001.jpg"
    low = read_dataset("DISFA", tmp_path / "one", threshold=1).table
    assert all(((low[f"AU{au}_intensity"] >= 1) == low[f"AU{au}"]).all() for au in DISFA_AUS)


def test_a_bp4d_column_that_is_there_twice_is_named_and_the_rest_is_read(root, every_frame):
    folder = root("BP4D")
    change(folder / "AUCoding" / "AU_OCC" / "F001_T1.csv", "0,1,2,3,4,", "1,1,2,2,4,")
    reading = read_dataset("BP4D", folder)
    rows = reading.table.query("subject == 'F001'")
    assert rows["AU2"].isna().all() and rows[["AU1", "AU4"]].notna().all(axis=None) and len(rows) == 5
    assert all("column '2' is AU2" in place for place in reading.problems.popitem()[1])


def test_bp4d_samples_among_the_frames_that_have_images(root):
    folder = root("BP4D")
    (folder / "Sequences_2D+3D" / "F001" / "T1" / "2442.jpg").unlink()
    frames = read_dataset("BP4D", folder).table.query("subject == 'F001'")["frame"].tolist()
    assert frames == ["T1_02440", "T1_02441", "T1_02443", "T1_02444"]  # 2443 now differs from 2441


@pytest.mark.parametrize(
    ("folder", "label", "name", "reads"),
    [("raf-basic", 5, "RAF-DB-basic", True), ("raf-basic", 5, "RAF-DB", False), ("x", 5, "RAF-DB", False)]
    + [("x", 5, "RAF-DB-basic", True), ("x", 9, "RAF-DB", True), ("x", 9, "RAF-DB-basic", False)]
    + [("basic", 9, "RAF-DB-basic", False)],
)
def test_what_tells_the_two_sets_of_raf_db_apart(tmp_path, folder, label, name, reads):
    put_lines(tmp_path / folder / "EmoLabel" / "list_patition_label.txt", [f"train_0001.jpg {label}"])
    put(tmp_path / folder / "Image" / "original" / "train_0001.jpg", drawn(0)[0])
    if reads:
        assert len(read_dataset(name, tmp_path / folder).table) == 1
    else:
        with pytest.raises(TableError, match="EmoLabel/list_patition_label.txt"):
            read_dataset(name, tmp_path / folder)
