"""Pairs of a whole face table, as a Hugging Face data set."""

from __future__ import annotations

from pathlib import Path

import datasets
import pandas as pd
import pytest

from expvqa_lib.data import pairs as pairs_module
from expvqa_lib.data.table import SPLITS, au_labels
from expvqa_lib.facs import ACTION_UNITS, BP4D_AUS
from expvqa_lib.files import fingerprint
from expvqa_lib.questions import Q1_ACTIONS, Q1_EMOTION, read_aus, read_emotion


@pytest.fixture(scope="module")
def rows(pairs) -> pd.DataFrame:
    return pd.concat([pairs[split].to_pandas().assign(split=split) for split in pairs], ignore_index=True)


def test_the_keys_are_those_of_the_released_files_and_some_more(pairs):
    assert list(pairs) == list(SPLITS)
    released = {"image", "image_id", "text_input", "text_output", "area"}
    assert set(pairs["train"].column_names) == released | {"question_type", "au", "dataset", "source"}
    assert pairs["train"].features["au"].dtype == "int16"


def test_the_source_tells_labels_by_people_from_those_by_a_program(faces, pairs):
    assert set(pairs["train"]["source"]) == {"rules"}
    labelled_by = faces["dataset"].map({"synth_wild": "OpenFace 2"}).astype("string")
    by_program = pairs_module.build_pairs(faces.assign(labelled_by=labelled_by))["train"].to_pandas()
    assert (by_program["source"] == by_program["dataset"].map({"synth_wild": "pseudo"}).fillna("rules")).all()


def test_each_image_is_there_and_stays_in_its_split(rows, faces):
    split = faces.set_index("image")["split"]
    assert set(rows["image"]) <= set(faces["image"]) and all(
        Path(image).is_file() for image in rows["image"].unique()
    )
    assert (rows["image"].map(split) == rows["split"]).all()
    assert (rows.groupby("image_id")["image"].nunique() == 1).all() and (
        rows.groupby("image")["image_id"].nunique() == 1
    ).all()


def test_answers_are_the_labels_of_the_face(rows, faces):
    labels = {face["image"]: (au_labels(face), face["emotion"]) for face in faces.to_dict("records")}
    assert set(rows["question_type"]) == {"Q1", "Q2", "Q3"}
    for row in rows.itertuples():
        aus, emotion = labels[row.image]
        if row.question_type == "Q3":
            assert row.text_output == ("yes" if aus[int(row.au)] else "no")
            assert row.area == ACTION_UNITS[int(row.au)].area
            continue
        told, denied = read_aus(row.text_output)
        assert all(aus[n] == 1 for n in told) and all(aus[n] == 0 for n in denied)
        if row.question_type == "Q1":
            assert told == {n for n, v in aus.items() if v}
            assert read_emotion(row.text_output) == (None if pd.isna(emotion) else emotion)


def test_each_corpus_is_asked_only_what_it_has_labels_for(rows):
    lab, wild, emotion = (rows[rows["dataset"] == f"synth_{name}"] for name in ("lab", "wild", "emotion"))
    assert set(lab["au"].dropna()) <= set(BP4D_AUS) and not lab["area"].isin(["nose"]).any()
    assert set(lab.loc[lab["question_type"] == "Q1", "text_input"]) <= set(Q1_ACTIONS)
    assert set(wild.loc[wild["question_type"] == "Q1", "text_input"]) <= set(Q1_EMOTION)
    assert (
        set(emotion["question_type"]) == {"Q1"}
        and emotion["text_output"].str.startswith("The face shows").all()
    )


def test_yes_answers_a_third_of_the_questions_about_every_au(rows):
    q3 = rows[rows["question_type"] == "Q3"]
    share = (q3["text_output"] == "yes").groupby([q3["split"], q3["dataset"], q3["au"]]).mean()
    assert len(share) > 10 and ((share - 1 / 3).abs() < 1e-9).all()
    assert not q3.duplicated(["image", "au"]).any()


def test_every_labelled_area_of_every_face_is_asked_about_once(rows, faces):
    q2 = rows[rows["question_type"] == "Q2"]
    asked = {image: sorted(areas) for image, areas in q2.groupby("image")["area"]}
    for face in faces.to_dict("records"):
        assert asked.get(face["image"], []) == sorted({ACTION_UNITS[n].area for n in au_labels(face)})


def test_the_seed_decides_and_nothing_else(faces, pairs, tmp_path):
    again, other = pairs_module.build_pairs(faces, seed=7), pairs_module.build_pairs(faces, seed=8)
    for split in SPLITS:
        assert again[split].to_list() == pairs[split].to_list() != other[split].to_list()


def test_pairs_survive_the_disk(pairs, tmp_path):
    pairs.save_to_disk(tmp_path / "pairs")
    again = datasets.load_from_disk(str(tmp_path / "pairs"))
    assert (
        again["test"].features == pairs["test"].features
        and again["test"].to_list() == pairs["test"].to_list()
    )


def test_pairs_made_in_parts_and_kept_on_disk_are_the_same(faces, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(pairs_module, "CHUNK", 7)
    kept = pairs_module.build_pairs(faces, seed=7, folder=tmp_path)
    assert {split: kept[split].to_list() for split in SPLITS} == {
        split: pairs[split].to_list() for split in SPLITS
    }
    assert [file["filename"] for file in kept["test"].cache_files] == [
        str(tmp_path / "test.arrow")
    ] and not pairs["test"].cache_files


def test_the_draws_of_a_seed_are_those_of_earlier_versions(faces, pairs):
    """What the shipped figures were made from: a digest of the words, in order."""
    told = "\n".join(
        f"{row['image_id']} {row['text_input']} {row['text_output']}"
        for split in SPLITS
        for row in pairs[split]
    )
    assert fingerprint(told) == "e7b3288ead74c41c"


def test_a_table_without_a_split_gives_an_empty_one_that_survives_the_disk(faces, tmp_path):
    built = pairs_module.build_pairs(faces[faces["split"] == "test"])
    assert len(built["train"]) == 0 and len(built["test"]) > 0
    assert built["train"].features == built["test"].features
    pairs_module.save_pairs(built, tmp_path)
    again = datasets.load_from_disk(str(tmp_path))
    assert len(again["train"]) == 0 and again["test"].to_list() == built["test"].to_list()
