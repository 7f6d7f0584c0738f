"""Readers of the licensed data sets: each rule on files of the distributed layout, and that every row is accounted for."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from corpora_fixtures import BUILDERS, put

from expvqa_lib.data import splits
from expvqa_lib.data import table as face_table
from expvqa_lib.data.readers import READERS, layouts, read_and_keep, read_corpus, split_path
from expvqa_lib.data.readers import report as inspection
from expvqa_lib.data.readers.pictures import read_faceme, read_raf_au
from expvqa_lib.data.readers.videos import read_bp4d
from expvqa_lib.data.table import labelled_aus
from expvqa_lib.errors import SettingsError, TableError
from expvqa_lib.pipeline.cli import main

ALL = pytest.mark.parametrize("name", READERS)


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
    again = face_table.read_table(output, folder)
    assert again["image"].tolist() == [str(folder.resolve() / image) for image in first.table["image"]]
    assert again.attrs["notes"] == first.table.attrs["notes"]
    kept = pd.read_csv(split_path(output), dtype=str)
    assert kept.to_dict("list") == first.splits.to_dict("list")
    kept["split"] = "test"
    kept[1:].to_csv(split_path(output), index=False)
    second = read_and_keep(name, folder, output)
    assert set(second.table["split"]) == {"test"} and set(second.table["subject"]) == set(
        first.table["subject"]
    ) - {kept["subject"][0]}
    assert second.dropped["subject of no split"] >= 1 and "split: as in faces.splits.csv" in second.notes
    assert len(pd.read_csv(split_path(output))) == len(kept) - 1


@ALL
def test_a_folder_without_the_data_set_says_what_was_expected(tmp_path, name):
    with pytest.raises(TableError, match=r"no such folder"):
        read_corpus(name, tmp_path / "nowhere")
    with pytest.raises(
        TableError, match=rf"{tmp_path}: no .* below it; is this the folder of {name.partition('-basic')[0]}"
    ):
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
    assert (
        problem.examples[0].startswith("Sequences_2D+3D/M007: leads to")
        and reading.dropped["image missing"] == 4
    )
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
        assert told.loc[("AU24", split)].tolist() == [
            (values == 1).sum(),
            (values == 0).sum(),
            values.isna().sum(),
        ]
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


def test_the_command_reads_a_table_and_its_split_and_exits_with_1_where_nothing_is_usable(
    root, tmp_path, capsys
):
    folder, output = root("RAF-DB"), tmp_path / "raf.parquet"
    assert main(["data", "read", "RAF-DB", "--root", str(folder), "--output", str(output)]) == 0
    assert f"{output}: the face table; {split_path(output)}: its split" in capsys.readouterr().out
    assert len(face_table.read_table(output, folder)) == 26
    assert main(["data", "read", "RAF-DB", "--root", str(folder)]) == 1
    assert "read needs --output" in capsys.readouterr().err
    shutil.rmtree(folder / "compound" / "Image")
    assert main(["data", "check", "RAF-DB", "--root", str(folder)]) == 1
    told = capsys.readouterr().err
    assert (
        "nothing of RAF-DB can be used: 26 rows read (26 image missing); first: compound/EmoLabel/list_patition_label.txt, row 1"
        in told
    )


# --------------------------------------------------------------------------------------------------- as far as a fine-tuning


@ALL
def test_each_data_set_is_paired_trained_on_and_scored(root, tmp_path, name):
    import torch

    from expvqa_lib.data import pairs
    from expvqa_lib.expvqa import load
    from expvqa_lib.model.answer import score_yes_no
    from expvqa_lib.pipeline.profiles import BASE
    from expvqa_lib.training.finetune import finetune
    from expvqa_lib.training.recipe import Recipe

    read_and_keep(name, root(name), tmp_path / "faces.parquet")
    table = face_table.read_table(tmp_path / "faces.parquet", tmp_path / name)
    made = pairs.build_pairs(table)
    base = load(BASE, quiet=True)
    recipe = Recipe(steps=None, epochs=1, images=8, pairs_per_image=8, augment=False)
    log = finetune(base.model, base.processor, made, tmp_path / "model", variant="exp_vqa_fz", recipe=recipe)
    assert np.isfinite(log["loss"].dropna()).all() and len(log["loss"].dropna()) > 0
    held = table[table["split"] != "train"]
    with torch.inference_mode():
        scores = score_yes_no(base.model, base.processor, held["image"].tolist(), labelled_aus(table) or [12])
    assert scores.shape == (len(held), len(labelled_aus(table) or [12])) and scores.to_numpy().min() >= 0


def test_the_documented_layouts_are_those_of_the_readers():
    page = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
    assert page == layouts()
    assert all(f"## {name}\n" in page for name in BUILDERS) and page.count("root/") >= len(BUILDERS) - 1
