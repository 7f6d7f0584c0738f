"""Readers of videos: BP4D, DISFA and GFT, each rule on files of the distributed layout."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from corpora_fixtures import build_disfa, faces, put_lines

from expvqa_lib.data.readers.videos import (
    BP4D_PARTS,
    DISFA_AUS,
    GFT_AUS,
    read_bp4d,
    read_disfa,
    read_gft,
    taken,
)
from expvqa_lib.data.table import labelled_aus
from expvqa_lib.errors import SettingsError
from expvqa_lib.facs import BP4D_AUS


def test_bp4d_labels_are_the_codes_and_9_is_unlabelled(root):
    table = read_bp4d(root("BP4D"), every=1).table
    assert labelled_aus(table) == list(BP4D_AUS)
    rows = table.set_index(["subject", "frame"])
    for k in range(5):
        row, drawn = rows.loc[("F001", f"T1_{2440 + k:05d}")], faces()[k // 2][1]
        assert row["image"] == f"Sequences_2D+3D/F001/T1/{2440 + k}.jpg"
        for au in BP4D_AUS:
            assert pd.isna(row[f"AU{au}"]) if (au, k) == (24, 1) else row[f"AU{au}"] == (au in drawn)
    assert ("F001", "T1_02445") not in rows.index  # all of it is 9
    assert set(rows.loc["M007"]["image"].str[-8:]) == {f"{k}.jpg" for k in range(2440, 2445)}
    assert "Sequences_2D+3D/F003/T1/0098.jpg" in set(table["image"])


def test_bp4d_reads_three_digits_and_tables_without_their_folder(root):
    folder = root("BP4D")
    for file in (folder / "AUCoding" / "AU_OCC").iterdir():
        file.rename(folder / "AUCoding" / file.name)
    (folder / "AUCoding" / "AU_OCC").rmdir()
    for file in sorted((folder / "Sequences_2D+3D" / "F003" / "T1").iterdir()):
        file.rename(file.with_name(f"{int(file.stem):03d}.jpg"))
    assert {image[-7:] for image in read_bp4d(folder, every=1).table.query("subject == 'F003'")["image"]} == {
        "098.jpg",
        "099.jpg",
    } | {f"{k}.jpg" for k in (100, 101, 102)}


def test_bp4d_folds_are_thirds_of_the_41_subjects(root):
    parts = [part.split() for part in BP4D_PARTS]
    assert [len(part) for part in parts] == [14, 14, 13] and len({s for part in parts for s in part}) == 41
    folder = root("BP4D")
    tested = {
        fold: set(read_bp4d(folder, fold=fold).table.query("split == 'test'")["subject"])
        for fold in (1, 2, 3)
    }
    assert tested == {1: {"F007", "F015"}, 2: {"M011", "F003"}, 3: {"F001", "M007"}}
    with pytest.raises(SettingsError, match="fold=4: expected 1, 2 or 3"):
        read_bp4d(folder, fold=4)


def test_a_bp4d_subject_outside_of_the_folds_is_dropped_and_counted(root):
    folder = root("BP4D")
    (folder / "AUCoding" / "AU_OCC" / "F001_T1.csv").rename(folder / "AUCoding" / "AU_OCC" / "F099_T1.csv")
    assert read_bp4d(folder).dropped["subject of no split"] == 5


def test_training_frames_are_sampled_and_test_frames_are_not(root):
    reading = read_bp4d(root("BP4D"))
    frames = reading.table.groupby("split")["frame"].agg(lambda frames: sorted(f[-1] for f in frames))
    assert len(frames["test"]) == 10 and reading.dropped["not sampled"] == 4
    train = reading.table.query("subject == 'F001'")["frame"].tolist()
    assert train == [
        "T1_02440",
        "T1_02441",
        "T1_02442",
        "T1_02444",
    ]  # 1 differs in AU24 alone; 2 and 4 are new faces
    assert set(read_gft(root("GFT")).table["frame"]) == {"00001", "00003", "00005"}


def test_one_frame_in_ten_is_taken_and_each_whose_labels_differ_from_the_frame_before():
    labels = [0.0] * 12 + [1.0] * 5 + [np.nan] * 2 + [1.0] * 6
    rows = pd.DataFrame({"subject": "a", "video": "T1", "AU1": labels})
    rows = pd.concat([rows, rows.assign(video="T2")], ignore_index=True)
    assert np.flatnonzero(taken(rows, ["AU1"], 10)).tolist() == [
        0,
        10,
        12,
        17,
        19,
        20,
        25,
        35,
        37,
        42,
        44,
        45,
    ]
    assert taken(rows, ["AU1"], 1).all()


def test_options_out_of_range_are_refused(root):
    with pytest.raises(SettingsError, match="every=0: expected 1"):
        read_bp4d(root("BP4D"), every=0)
    with pytest.raises(SettingsError, match="present_from=6: expected an intensity of 1 to 5"):
        read_disfa(root("DISFA"), present_from=6)


def test_disfa_is_present_from_intensity_2_or_as_asked_and_keeps_intensities(root):
    folder = root("DISFA")
    table = read_disfa(folder, every=1).table
    assert labelled_aus(table) == list(DISFA_AUS) and len(table) == 36
    assert set(np.unique(table[[f"AU{au}_intensity" for au in DISFA_AUS]])) <= {0, 1, 2, 3, 4, 5}
    first = table.set_index(["subject", "frame"]).loc[("SN001", "00001")]
    assert [first[f"AU{au}_intensity"] for au in DISFA_AUS] == [
        round(5 * faces()[0][1].get(au, 0)) for au in DISFA_AUS
    ]
    for threshold in (1, 2, 4):
        table = read_disfa(folder, every=1, present_from=threshold).table
        assert all(
            ((table[f"AU{au}_intensity"] >= threshold) == (table[f"AU{au}"] == 1)).all() for au in DISFA_AUS
        )


def test_disfa_images_counted_from_0_belong_to_frames_counted_from_1(tmp_path):
    build_disfa(tmp_path / "one")
    build_disfa(tmp_path / "zero", first_image=0)
    one, zero = read_disfa(tmp_path / "one"), read_disfa(tmp_path / "zero")
    pd.testing.assert_frame_equal(
        one.table.drop(columns="image"), zero.table.drop(columns="image"), check_flags=False
    )
    assert (
        zero.table["image"].iat[0] == "Images/SN001/00000.jpg"
        and "images are counted from 0: frame 1 of the labels is image 0" in zero.notes
    )


def test_a_disfa_au_without_a_file_is_unlabelled_for_that_subject_only(root):
    folder = root("DISFA")
    (folder / "ActionUnit_Labels" / "SN002" / "SN002_au5.txt").unlink()
    table = read_disfa(folder).table
    assert (
        table.loc[table["subject"] == "SN002", "AU5"].isna().all()
        and table.loc[table["subject"] != "SN002", "AU5"].notna().all()
    )


def test_gft_codes_of_9_and_minus_9_are_unlabelled(root):
    folder = root("GFT")
    lines = (folder / "AU_OCC" / "001A.csv").read_text().splitlines()
    put_lines(
        folder / "AU_OCC" / "001A.csv", [lines[0], "1" + ",9" * 11, "2" + ",999" * 10 + ",0", *lines[3:]]
    )
    assert read_gft(folder, every=1).dropped["no AU labelled"] == 2
    table = read_gft(folder, every=1).table
    assert labelled_aus(table) == list(GFT_AUS)
    assert (table["AU14"].isna() == (table["subject"] == "002A")).all() and table["AU1"].notna().all()
