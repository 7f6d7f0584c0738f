"""Readers of videos: BP4D and DISFA, each rule on files of the distributed layout."""

import numpy as np
import pandas as pd
import pytest
from corpora_fixtures import build_disfa, faces, put_lines

from expvqa_lib.data import labelled_aus
from expvqa_lib.data.readers import videos
from expvqa_lib.data.readers.videos import DISFA_AUS, is_sampled, read_bp4d, read_disfa
from expvqa_lib.facs import BP4D_AUS


@pytest.fixture
def every_frame(monkeypatch):
    monkeypatch.setattr(videos, "EVERY", 1)


def test_bp4d_labels_are_the_codes_and_9_is_unlabelled(root, every_frame):
    table = read_bp4d(root("BP4D")).table
    assert labelled_aus(table) == list(BP4D_AUS)
    rows = table.set_index(["subject", "frame"])
    for k in range(5):
        row, drawn = rows.loc[("F001", f"T1_{2440 + k:05d}")], faces()[k // 2][1]
        assert row["image"] == f"Sequences_2D+3D/F001/T1/{2440 + k}.jpg"
        for au in BP4D_AUS:
            assert pd.isna(row[f"AU{au}"]) if (au, k) == (24, 1) else row[f"AU{au}"] == (au in drawn)
    assert ("F001", "T1_02445") not in rows.index  # all of it is 9
    assert "Sequences_2D+3D/F003/T1/0098.jpg" in set(table["image"])


def test_bp4d_reads_three_digits_and_tables_without_their_folder(root, every_frame):
    folder = root("BP4D")
    for file in (folder / "AUCoding" / "AU_OCC").iterdir():
        file.rename(folder / "AUCoding" / file.name)
    for file in sorted((folder / "Sequences_2D+3D" / "F003" / "T1").iterdir()):
        file.rename(file.with_name(f"{int(file.stem):03d}.jpg"))
    images = read_bp4d(folder).table.query("subject == 'F003'")["image"].str[-7:]
    assert images.tolist() == ["098.jpg", "099.jpg", "100.jpg", "101.jpg", "102.jpg"]


def test_bp4d_tests_on_13_of_its_41_subjects_and_drops_others(root):
    train, test = videos.BP4D_TRAIN.split(), videos.BP4D_TEST.split()
    assert (len(train), len(test), len({*train, *test})) == (28, 13, 41)
    folder = root("BP4D")
    tested = read_bp4d(folder).table.query("split == 'test'")["subject"]
    assert set(tested) == {"F007", "F015"}
    codes = folder / "AUCoding" / "AU_OCC"
    (codes / "F001_T1.csv").rename(codes / "F099_T1.csv")
    assert read_bp4d(folder).dropped["subject of no split"] == 5


def test_training_frames_are_sampled_and_test_frames_are_not(root):
    reading = read_bp4d(root("BP4D"))
    assert (reading.table["split"] == "test").sum() == 10 and reading.dropped["not sampled"] == 4
    train = reading.table.query("subject == 'F001'")["frame"].tolist()
    # 1 differs in AU24 alone; 2 and 4 are new faces
    assert train == ["T1_02440", "T1_02441", "T1_02442", "T1_02444"]


def test_one_frame_in_ten_is_taken_and_each_whose_labels_differ_from_the_frame_before(monkeypatch):
    labels = [0.0] * 12 + [1.0] * 5 + [np.nan] * 2 + [1.0] * 6
    rows = pd.DataFrame({"subject": "a", "video": "T1", "AU1": labels})
    rows = pd.concat([rows, rows.assign(video="T2")], ignore_index=True)
    sampled = np.flatnonzero(is_sampled(rows, ["AU1"])).tolist()
    assert sampled == [0, 10, 12, 17, 19, 20, 25, 35, 37, 42, 44, 45]


def test_disfa_is_present_from_intensity_2_and_keeps_intensities(root, every_frame):
    table = read_disfa(root("DISFA")).table
    assert labelled_aus(table) == list(DISFA_AUS) and len(table) == 36
    first = table.set_index(["subject", "frame"]).loc[("SN001", "00001")]
    drawn = [round(5 * faces()[0][1].get(au, 0)) for au in DISFA_AUS]
    assert [first[f"AU{au}_intensity"] for au in DISFA_AUS] == drawn
    for au in DISFA_AUS:
        assert ((table[f"AU{au}_intensity"] >= 2) == (table[f"AU{au}"] == 1)).all()


def test_disfa_images_counted_from_0_belong_to_frames_counted_from_1(tmp_path):
    build_disfa(tmp_path / "one")
    build_disfa(tmp_path / "zero", first_image=0)
    one, zero = read_disfa(tmp_path / "one"), read_disfa(tmp_path / "zero")
    pd.testing.assert_frame_equal(
        one.table.drop(columns="image"), zero.table.drop(columns="image"), check_flags=False
    )
    assert zero.table["image"].iat[0] == "Images/SN001/00000.jpg" and len(zero.notes) > len(one.notes)


def test_a_disfa_au_without_a_file_or_with_two_intensities_is_unlabelled_there_only(root, every_frame):
    folder = root("DISFA") / "ActionUnit_Labels"
    (folder / "SN002" / "SN002_au5.txt").unlink()
    put_lines(folder / "SN003" / "SN003_au5.txt", ["1,0", "1,3", *(f"{k},1" for k in range(2, 7))])
    reading = read_disfa(folder.parent)
    unlabelled = reading.table.set_index(["subject", "frame"])["AU5"].isna()
    assert unlabelled["SN002"].all() and unlabelled["SN003"].tolist() == [True] + 5 * [False]
    assert not unlabelled.drop(["SN002", "SN003"]).any()
    assert reading.dropped["labelled twice, differently"] == 2
