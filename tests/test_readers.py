"""Readers of the licensed data sets: each rule on files of the distributed layout, and that every row is accounted for."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from corpora_fixtures import BUILDERS, build_affectnet_arrays, build_disfa, faces, put, put_lines

from expvqa_lib.cli import main
from expvqa_lib.corpora import inspection, splits
from expvqa_lib.corpora import table as face_table
from expvqa_lib.corpora.pictures import RAF_COMPOUND, read_affectnet, read_emotionet, read_faceme, read_raf_au, read_raf_db
from expvqa_lib.corpora.readers import READERS, layouts, read_and_keep, read_corpus, split_path
from expvqa_lib.corpora.reading import Reading
from expvqa_lib.corpora.table import AU_COLUMNS, labelled_aus
from expvqa_lib.corpora.videos import BP4D_PARTS, DISFA_AUS, GFT_AUS, read_bp4d, read_disfa, read_gft, taken
from expvqa_lib.errors import SettingsError, TableError
from expvqa_lib.facs import BP4D_AUS

ALL = pytest.mark.parametrize("name", READERS)


@pytest.fixture
def root(tmp_path):
    """Makes one data set in miniature and returns its folder."""

    def make(name: str) -> Path:
        BUILDERS[name](tmp_path / name)
        return tmp_path / name

    return make


def by_image(reading: Reading) -> pd.DataFrame:
    return reading.table.assign(name=reading.table["image"].str.rpartition("/")[2]).set_index("name")


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


# ------------------------------------------------------------------------------------------------------- every data set


@ALL
def test_all_rows_are_kept_or_dropped_for_a_reason_and_every_split_has_faces(root, name):
    reading = read_corpus(name, root(name))
    assert reading.read == len(reading.table) + sum(reading.dropped.values()) > 20
    assert not reading.problems
    assert (inspection.counts(reading)["images"][: 2 if name == "FaceME" else 3] > 0).all()
    assert all((reading.root / image).is_file() for image in reading.table["image"])
    assert not reading.table["image"].duplicated().any()
    assert all(note.startswith(f"{reading.dataset}: ") for note in reading.table.attrs["notes"])
    assert any("split" in note or "validation" in note for note in reading.notes)


@ALL
def test_reading_twice_gives_the_same_and_another_seed_another_split(root, name):
    folder = root(name)
    one, two, *others = (read_corpus(name, folder, seed=seed) for seed in (42, 42, 1, 2, 3))
    pd.testing.assert_frame_equal(one.table, two.table)
    assert any((one.splits["split"] != other.splits["split"]).any() for other in others)
    assert all(one.splits["subject"].equals(other.splits["subject"]) for other in others)


@ALL
def test_a_missing_image_drops_its_row_and_leaves_the_split_alone(root, name):
    folder = root(name)
    before = read_corpus(name, folder)
    lost = before.table["image"].iat[0]
    (folder / lost).unlink()
    shutil.rmtree(folder / "compound" / "Image" / "original", ignore_errors=True)
    shutil.rmtree(folder / "basic" / "Image" / "original", ignore_errors=True)
    after = read_corpus(name, folder)
    assert after.dropped["image missing"] == 1 and len(after.table) == len(before.table) - 1
    (problem,) = (p for p in after.problems if p.kind == "image missing")
    assert problem.count == 1 and ", row " in problem.examples[0]
    pd.testing.assert_frame_equal(after.splits, before.splits)


@ALL
def test_a_kept_split_is_followed(root, name, tmp_path):
    folder, output = root(name), tmp_path / "out" / "faces.parquet"
    first = read_and_keep(name, folder, output)
    again = face_table.read(output, folder)
    assert again["image"].tolist() == [str(folder.resolve() / image) for image in first.table["image"]]
    assert again.attrs["notes"] == first.table.attrs["notes"]
    kept = pd.read_csv(split_path(output), dtype=str)
    assert kept.to_dict("list") == first.splits.to_dict("list")
    kept["split"] = "test"
    kept[1:].to_csv(split_path(output), index=False)
    second = read_and_keep(name, folder, output)
    assert set(second.table["split"]) == {"test"} and set(second.table["subject"]) == set(first.table["subject"]) - {kept["subject"][0]}
    assert second.dropped["subject of no split"] >= 1 and "split: as in faces.splits.csv" in second.notes
    assert len(pd.read_csv(split_path(output))) == len(kept) - 1


@ALL
def test_a_folder_without_the_data_set_says_what_was_expected(tmp_path, name):
    with pytest.raises(TableError, match=r"no such folder"):
        read_corpus(name, tmp_path / "nowhere")
    with pytest.raises(TableError, match=rf"{tmp_path}: no .* below it; is this the folder of {name.partition('-basic')[0]}"):
        read_corpus(name, tmp_path)


def test_an_unknown_data_set_is_an_error_that_names_the_known_ones(tmp_path):
    with pytest.raises(SettingsError, match=r"'CK' is unknown; known are BP4D, DISFA"):
        read_corpus("CK", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("subject,split\na,train\na,test\n", "row 3, column subject: found 'a', expected each subject once"),
        ("subject,split\na,dev\n", "row 2, column split: found 'dev', expected one of"),
        ("who,split\na,train\n", r"columns \['who', 'split'\], expected subject and split"),
        ("", "no split can be read"),
    ],
)
def test_a_split_file_that_breaks_a_rule_is_refused(tmp_path, content, message):
    put(tmp_path / "s.csv", content)
    with pytest.raises(TableError, match=f"{tmp_path / 's.csv'}: {message}"):
        splits.read(tmp_path / "s.csv")


# ---------------------------------------------------------------------------------------------------------------- videos


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
    assert {image[-7:] for image in read_bp4d(folder, every=1).table.query("subject == 'F003'")["image"]} == {"098.jpg", "099.jpg"} | {
        f"{k}.jpg" for k in (100, 101, 102)
    }


def test_bp4d_folds_are_thirds_of_the_41_subjects(root):
    parts = [part.split() for part in BP4D_PARTS]
    assert [len(part) for part in parts] == [14, 14, 13] and len({s for part in parts for s in part}) == 41
    folder = root("BP4D")
    tested = {fold: set(read_bp4d(folder, fold=fold).table.query("split == 'test'")["subject"]) for fold in (1, 2, 3)}
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
    assert train == ["T1_02440", "T1_02441", "T1_02442", "T1_02444"]  # 1 differs in AU24 alone; 2 and 4 are new faces
    assert set(read_gft(root("GFT")).table["frame"]) == {"00001", "00003", "00005"}


def test_one_frame_in_ten_is_taken_and_each_whose_labels_differ_from_the_frame_before():
    labels = [0.0] * 12 + [1.0] * 5 + [np.nan] * 2 + [1.0] * 6
    rows = pd.DataFrame({"subject": "a", "video": "T1", "AU1": labels})
    rows = pd.concat([rows, rows.assign(video="T2")], ignore_index=True)
    assert np.flatnonzero(taken(rows, ["AU1"], 10)).tolist() == [0, 10, 12, 17, 19, 20, 25, 35, 37, 42, 44, 45]
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
    assert [first[f"AU{au}_intensity"] for au in DISFA_AUS] == [round(5 * faces()[0][1].get(au, 0)) for au in DISFA_AUS]
    for threshold in (1, 2, 4):
        table = read_disfa(folder, every=1, present_from=threshold).table
        assert all(((table[f"AU{au}_intensity"] >= threshold) == (table[f"AU{au}"] == 1)).all() for au in DISFA_AUS)


def test_disfa_images_counted_from_0_belong_to_frames_counted_from_1(tmp_path):
    build_disfa(tmp_path / "one")
    build_disfa(tmp_path / "zero", first_image=0)
    one, zero = read_disfa(tmp_path / "one"), read_disfa(tmp_path / "zero")
    pd.testing.assert_frame_equal(one.table.drop(columns="image"), zero.table.drop(columns="image"), check_flags=False)
    assert (
        zero.table["image"].iat[0] == "Images/SN001/00000.jpg"
        and "images are counted from 0: frame 1 of the labels is image 0" in zero.notes
    )


def test_a_disfa_au_without_a_file_is_unlabelled_for_that_subject_only(root):
    folder = root("DISFA")
    (folder / "ActionUnit_Labels" / "SN002" / "SN002_au5.txt").unlink()
    table = read_disfa(folder).table
    assert table.loc[table["subject"] == "SN002", "AU5"].isna().all() and table.loc[table["subject"] != "SN002", "AU5"].notna().all()


def test_gft_codes_of_9_and_minus_9_are_unlabelled(root):
    folder = root("GFT")
    lines = (folder / "AU_OCC" / "001A.csv").read_text().splitlines()
    put_lines(folder / "AU_OCC" / "001A.csv", [lines[0], "1" + ",9" * 11, "2" + ",999" * 10 + ",0", *lines[3:]])
    assert read_gft(folder, every=1).dropped["no AU labelled"] == 2
    table = read_gft(folder, every=1).table
    assert labelled_aus(table) == list(GFT_AUS)
    assert (table["AU14"].isna() == (table["subject"] == "002A")).all() and table["AU1"].notna().all()


# -------------------------------------------------------------------------------------------------------------- pictures


def test_raf_au_prefixes_are_removed_and_what_is_not_listed_is_absent_where_it_is_coded_at_all(root):
    folder = root("RAF-AU")
    rows = by_image(read_raf_au(folder))
    coded = {au for k in range(23) for au in faces()[k % 16][1]}
    for k in range(23):
        drawn = faces()[k % 16][1]
        row = rows.loc[f"{k:04d}_aligned.jpg"]
        assert {au for au in coded if row[f"AU{au}"] == 1} == set(drawn) and {au for au in coded if row[f"AU{au}"] == 0} == coded - set(
            drawn
        )
    assert all(rows[column].isna().all() for column in AU_COLUMNS if int(column[2:]) not in coded)
    assert (rows.loc["0023_aligned.jpg", [f"AU{au}" for au in sorted(coded)]] == 0).all()  # null
    assert "codes that are ignored, because no phrase is known for them: 32" in read_raf_au(folder).notes


def test_raf_au_reads_every_prefix_and_original_images(tmp_path):
    put_lines(tmp_path / "RAFAU_label.txt", ["0001.jpg T1+B2+L4+R12", "0002.jpg 25", "0003.jpg L12+R12"])
    for k in (1, 2, 3):
        put(tmp_path / "original" / f"{k:04d}.jpg", faces()[k][0])
    rows = by_image(read_raf_au(tmp_path))
    assert rows[["AU1", "AU2", "AU4", "AU12", "AU25"]].to_numpy().tolist() == [[1, 1, 1, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 1, 0]]


def test_raf_au_code_that_cannot_be_read_leaves_all_that_is_not_listed_unlabelled(root):
    folder = root("RAF-AU")
    change(folder / "RAFAU_label.txt", "0001.jpg ", "0001.jpg x7+")
    before = by_image(read_raf_au(folder)).loc["0001_aligned.jpg"]
    assert not (before[list(AU_COLUMNS)] == 0).any() and (before[list(AU_COLUMNS)] == 1).sum() == len(faces()[1][1])
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
        f"{name[:2]}{k:08x}.jpg": faces()[k % 16][2] for name, size in (("training", 24), ("validation", 8)) for k in range(size)
    }
    assert set(by_image(old).query("split == 'test'").index) == {f"va{k:08x}.jpg" for k in range(8)}
    lists = tmp_path / "AffectNet" / "Manually_Annotated_file_lists"
    for file in lists.iterdir():
        file.write_text(file.read_text().partition("\n")[2])
    pd.testing.assert_frame_equal(read_affectnet(tmp_path / "AffectNet").table, old.table)
    build_affectnet_arrays(tmp_path / "new")
    new = read_affectnet(tmp_path / "new")
    assert dict(zip(new.table["image"], new.table["emotion"], strict=True)) == {
        f"{folder}/images/{k}.jpg": faces()[k % 16][2] for folder, size in (("train_set", 24), ("val_set", 8)) for k in range(size)
    }
    assert inspection.counts(new)["images"].tolist() == inspection.counts(old)["images"].tolist() == [23, 1, 8]


def test_an_affectnet_picture_of_both_lists_is_tested_on(root):
    folder = root("AffectNet")
    lists = folder / "Manually_Annotated_file_lists"
    row = (lists / "validation.csv").read_text().splitlines()[1]
    with open(lists / "training.csv", "a") as file:
        file.write(row + "\n")
    reading = read_affectnet(folder)
    assert reading.dropped["repeated row"] == 1
    assert reading.table.loc[reading.table["image"].str.endswith(row.partition(",")[0]), "split"].tolist() == ["test"]


def test_raf_db_compound_emotions_are_two_words_and_names_tell_the_split(root):
    reading = read_raf_db(root("RAF-DB"))
    rows = by_image(reading)
    assert rows.loc["train_0001_aligned.jpg", "emotion"] == "happiness+surprise"
    assert rows.loc[[f"train_{k:04d}_aligned.jpg" for k in range(1, 12)], "emotion"].tolist() == list(RAF_COMPOUND.values())
    assert all(name.startswith("test_") == (split == "test") for name, split in rows["split"].items())
    assert face_table.emotions(reading.table.iloc[0]) == tuple(reading.table["emotion"].iat[0].split("+"))


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
    assert by_image(reading)["emotion"].to_dict() == {"1.jpg": "awe+happiness", "3.jpg": "fear+envy", "4.jpg": "fear"}
    assert reading.dropped == {"no word of 2 annotators": 1} and reading.table.attrs["emotions"] == ["awe", "envy"]
    assert by_image(read_faceme(tmp_path, agreeing=3))["emotion"].to_dict() == {"3.jpg": "fear"}


# ------------------------------------------------------------------------------------------------------- copies and links


def test_of_two_copies_of_the_images_one_is_used_and_named(root):
    folder = root("BP4D")
    before = read_bp4d(folder).table
    shutil.copytree(folder / "Sequences_2D+3D" / "F001", folder / "aligned" / "F001")
    reading = read_bp4d(folder)
    assert reading.table["image"].equals(before["image"])
    assert any("6 files stand there in another copy" in note for note in reading.notes)


def test_a_link_within_the_folder_is_followed_and_one_that_leads_out_is_not(root, tmp_path):
    folder = root("BP4D")
    frames = folder / "Sequences_2D+3D"
    (frames / "F001").rename(folder / "kept-elsewhere")
    os.symlink(folder / "kept-elsewhere", frames / "F001")
    os.symlink(folder, folder / "loop")
    os.symlink(folder / "self", folder / "self")
    os.symlink(folder / "gone.csv", folder / "AUCoding" / "AU_OCC" / "F099_T1.csv")
    (frames / "M007").rename(tmp_path / "outside")
    os.symlink(tmp_path / "outside", frames / "M007")
    reading = read_bp4d(folder)
    assert {"F001"} <= set(reading.table["subject"]) and "M007" not in set(reading.table["subject"])
    (problem,) = (p for p in reading.problems if p.kind == "link that leads out of the folder")
    assert problem.examples[0].startswith("Sequences_2D+3D/M007: leads to") and reading.dropped["image missing"] == 4
    assert reading.read == len(reading.table) + sum(reading.dropped.values())


# ------------------------------------------------------------------------------------------------------------ the command


def test_check_prints_counts_that_add_up_and_what_is_missing(root, capsys):
    folder = root("BP4D")
    (folder / "Sequences_2D+3D" / "F007" / "T1" / "0098.jpg").unlink()
    put(folder / "Sequences_2D+3D" / "F015" / "T1" / "0098.jpg", b"no picture")
    assert main(["data", "check", "BP4D", "--root", str(folder)]) == 0
    told = capsys.readouterr().out
    for part in (
        "read     36",
        "dropped: image missing      1",
        "kept     25",
        "test       9         2",
        "AU24",
        "train images      16627     16      -16611",
        "problem: 1 x image missing\n  AUCoding/AU_OCC/F007_T1.csv, row 2: found 'F007/T1_00098'",
        "problem: 1 x image that cannot be opened\n  Sequences_2D+3D/F015/T1/0098.jpg",
        "split: fold 1 of the usual three",
    ):
        assert part in told


def test_the_labels_of_a_reading_are_counted_a_split(root):
    reading = read_bp4d(root("BP4D"))
    told = inspection.labels(reading).set_index(["label", "split"])
    for split in face_table.SPLITS:
        values = reading.table.loc[reading.table["split"] == split, "AU24"]
        assert told.loc[("AU24", split)].tolist() == [(values == 1).sum(), (values == 0).sum(), values.isna().sum()]
    told = inspection.labels(read_faceme(root("FaceME"))).set_index(["label", "split"])["present"]
    assert told[("awe", "train")] + told.get(("awe", "validation"), 0) == 8


def test_many_problems_are_counted_and_few_are_shown(root):
    folder = root("RAF-AU")
    shutil.rmtree(folder / "aligned")
    for k in range(4):
        put(folder / "aligned" / f"{k:04d}_aligned.jpg", b"")
    reading = read_raf_au(folder)
    (problem,) = reading.problems
    assert problem.count == 20 and len(problem.examples) == 10 and "and 10 more" in inspection.report(reading)
    assert inspection.unreadable(reading).count == 4


def test_the_command_reads_a_table_and_its_split_and_exits_with_1_where_nothing_is_usable(root, tmp_path, capsys):
    folder, output = root("RAF-DB"), tmp_path / "raf.parquet"
    assert main(["data", "read", "RAF-DB", "--root", str(folder), "--output", str(output)]) == 0
    assert f"{output}: the face table; {split_path(output)}: its split" in capsys.readouterr().out
    assert len(face_table.read(output, folder)) == 26
    assert main(["data", "read", "RAF-DB", "--root", str(folder)]) == 1
    assert "read needs --output" in capsys.readouterr().err
    shutil.rmtree(folder / "compound" / "Image")
    assert main(["data", "check", "RAF-DB", "--root", str(folder)]) == 1
    told = capsys.readouterr().err
    assert "nothing of RAF-DB can be used: 26 rows read (26 image missing); first: compound/EmoLabel/list_patition_label.txt, row 1" in told


# --------------------------------------------------------------------------------------------------- as far as a fine-tuning


@ALL
def test_each_data_set_is_paired_trained_on_and_scored(root, tmp_path, name):
    import torch

    from expvqa_lib import pairs
    from expvqa_lib.answering import score_yes_no
    from expvqa_lib.companion import load
    from expvqa_lib.profiles import BASE
    from expvqa_lib.recipe import Recipe
    from expvqa_lib.training import finetune

    read_and_keep(name, root(name), tmp_path / "faces.parquet")
    table = face_table.read(tmp_path / "faces.parquet", tmp_path / name)
    made = pairs.build(table)
    base = load(BASE, quiet=True)
    recipe = Recipe(steps=None, epochs=1, images=8, questions=8, augment=False)
    log = finetune(base.model, base.processor, made, tmp_path / "model", variant="exp_vqa_fz", recipe=recipe)
    assert np.isfinite(log["loss"].dropna()).all() and len(log["loss"].dropna()) > 0
    held = table[table["split"] != "train"]
    with torch.inference_mode():
        scores = score_yes_no(base.model, base.processor, held["image"].tolist(), labelled_aus(table) or [12])
    assert scores.shape == (len(held), len(labelled_aus(table) or [12])) and scores.to_numpy().min() >= 0


def test_the_documented_layouts_are_those_of_the_readers():
    page = (Path(__file__).parents[1] / "docs" / "datasets.md").read_text(encoding="utf-8")
    assert page == layouts()
    assert all(f"## {name}\n" in page for name in BUILDERS) and page.count("root/") >= len(BUILDERS) - 1
