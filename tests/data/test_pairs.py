"""Pairs of a whole face table, as a Hugging Face data set."""

import datasets
import pandas as pd
import pytest

from expvqa_lib.data import SPLITS, build_pairs, save_pairs
from expvqa_lib.data import pairs as module
from expvqa_lib.files import fingerprint


@pytest.fixture(scope="module")
def rows(pairs) -> pd.DataFrame:
    return pd.concat([pairs[split].to_pandas().assign(split=split) for split in pairs], ignore_index=True)


def test_the_source_tells_peoples_labels_from_those_of_a_program(faces, pairs):
    assert set(pairs["train"]["source"]) == {"rules"}
    labelled_by = faces["dataset"].map({"synth_wild": "OpenFace 2"}).astype("string")
    made = build_pairs(faces.assign(labelled_by=labelled_by))["train"].to_pandas()
    assert (made["source"] == made["dataset"].map({"synth_wild": "pseudo"}).fillna("rules")).all()


def test_each_image_stays_in_its_split_under_one_name(rows, faces):
    assert (rows["image"].map(faces.set_index("image")["split"]) == rows["split"]).all()
    assert (rows.groupby("image_id")["image"].nunique() == 1).all()
    assert (rows.groupby("image")["image_id"].nunique() == 1).all()


def test_the_seed_alone_decides_in_memory_or_in_parts_on_disk(faces, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 7)
    on_disk, other = build_pairs(faces, seed=7, folder=tmp_path), build_pairs(faces, seed=8)
    for split in SPLITS:
        assert on_disk[split].to_list() == pairs[split].to_list() != other[split].to_list()
    assert [file["filename"] for file in on_disk["test"].cache_files] == [str(tmp_path / "test.arrow")]


def test_the_draws_of_a_seed_are_those_of_earlier_versions(pairs):
    """The committed figures were made from these words, in this order."""
    rows = [row for split in SPLITS for row in pairs[split]]
    words = "\n".join(f"{row['image_id']} {row['text_input']} {row['text_output']}" for row in rows)
    assert fingerprint(words) == "e7b3288ead74c41c"


def test_an_empty_split_survives_the_disk(faces, tmp_path):
    pairs = build_pairs(faces[faces["split"] == "test"])
    assert len(pairs["train"]) == 0 < len(pairs["test"])
    save_pairs(pairs, tmp_path)
    again = datasets.load_from_disk(str(tmp_path))
    assert again["train"].features == again["test"].features == module.FEATURES
    assert len(again["train"]) == 0 and again["test"].to_list() == pairs["test"].to_list()
