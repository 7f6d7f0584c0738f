"""Labels by a model: what it is asked, its marked training pairs, and a run that was stopped."""

from __future__ import annotations

import importlib

import datasets
import pandas as pd
import pytest

import expvqa_lib as expvqa
from expvqa_lib.data import au_labels, build_pairs, write_table
from expvqa_lib.errors import ImageError
from expvqa_lib.pipeline.cli import main
from expvqa_lib.questions import Q1_ACTIONS, Q1_EMOTION, read_aus, read_emotion
from expvqa_lib.synthfacs import CorpusSizes, make
from expvqa_lib.training import add_pseudo_pairs, caption

LAB, WILD = {"lab_train": 2, "lab_validation": 1, "lab_test": 1, "videos": 1}, {"wild_train": 3}
WILD |= {"wild_validation": 1, "wild_test": 1}
SIZES = CorpusSizes(**LAB, **WILD, emotion_train=24, emotion_validation=2, emotion_test=2)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> pd.DataFrame:
    """A few faces as large as the shipped model's."""
    return make(tmp_path_factory.mktemp("drawn") / "data", SIZES)


@pytest.fixture(scope="module")
def captioner():
    loaded = expvqa.load()
    return loaded.model, loaded.processor


@pytest.fixture(scope="module")
def captions(captioner, drawn, tmp_path_factory) -> pd.DataFrame:
    return caption(*captioner, drawn, tmp_path_factory.mktemp("captions"))


def test_training_faces_are_asked_about_what_they_lack_and_no_other_faces(captions, drawn):
    lacking = drawn[(drawn["split"] == "train") & (drawn["dataset"] != "synth_wild")]
    assert sorted(captions["row"]) == sorted(lacking.index)
    has_emotion = drawn.loc[captions["row"], "dataset"].eq("synth_emotion").to_numpy()
    assert (captions["missing"].eq("actions") == has_emotion).all()
    questions = captions["missing"].map({"actions": Q1_ACTIONS[0], "emotion": Q1_EMOTION[0]})
    assert captions["question"].equals(questions)


def test_captions_become_marked_q1_pairs_of_the_training_split_alone(captions, drawn):
    before = build_pairs(drawn)
    after = add_pseudo_pairs(before, drawn, captions)
    for split in ("validation", "test"):
        assert after[split].to_list() == before[split].to_list()
    assert after["train"].to_list()[: len(before["train"])] == before["train"].to_list()
    added = after["train"].to_pandas().iloc[len(before["train"]) :]
    assert 20 < len(added) <= len(captions) and not added["image"].duplicated().any()
    assert set(added["source"]) == {"pseudo"} and set(added["question_type"]) == {"Q1"}
    assert added[["au", "area"]].isna().all(axis=None) and set(added["text_input"]) == set(Q1_EMOTION)
    faces = {face["image"]: face for face in drawn.to_dict("records")}
    answers = dict(zip(drawn.loc[captions["row"], "image"], captions["answer"], strict=True))
    for row in added.itertuples():
        present, emotion = read_aus(row.text_output)[0], read_emotion(row.text_output)
        face, answer = faces[row.image], answers[row.image]
        if row.dataset == "synth_emotion":
            assert emotion == face["emotion"] and present == read_aus(answer)[0]
        else:
            assert present == {n for n, label in au_labels(face).items() if label}
            assert emotion == read_emotion(answer)


def test_a_stopped_run_goes_on_and_another_model_asks_anew(captioner, drawn, tmp_path, monkeypatch):
    faces = drawn[drawn["dataset"] == "synth_emotion"]
    module = importlib.import_module("expvqa_lib.training.curriculum")
    images, limit, generate = [], 12, module.generate

    def stopping(model, processor, chunk, questions):
        if len(images) >= limit:
            raise KeyboardInterrupt
        images.extend(chunk)
        return generate(model, processor, chunk, questions)

    monkeypatch.setattr(module, "CHUNK", 6)
    monkeypatch.setattr(module, "generate", stopping)
    with pytest.raises(KeyboardInterrupt):
        caption(*captioner, faces, tmp_path)
    limit = 1000
    first = caption(*captioner, faces, tmp_path)
    assert len(images) == len(set(images)) == len(first) == 24
    pd.testing.assert_frame_equal(caption(*captioner, faces, tmp_path), first)
    assert len(images) == 24
    monkeypatch.setattr(captioner[0].generation_config, "repetition_penalty", 1.1)
    caption(*captioner, faces.iloc[:6], tmp_path)
    assert len(images) == 30
    with pytest.raises(ImageError, match=r"nowhere/face\.png"):
        caption(*captioner, faces.assign(image="nowhere/face.png"), tmp_path)


def test_the_command_writes_pairs_with_pseudo_captions(drawn, captions, tmp_path):
    faces = drawn[drawn["dataset"] != "synth_wild"]
    root = faces["image"].iloc[0].rpartition("/data/")[0] + "/data"
    table, output = f"{root}/own.parquet", str(tmp_path / "pairs")
    write_table(faces.assign(image=faces["image"].str.removeprefix(f"{root}/")), table)
    options = ["--table", table, "--captioner", str(expvqa.expvqa.QUICK), "--output", output]
    assert main(["pairs", *options]) == 0
    made = datasets.load_from_disk(output)
    expected = add_pseudo_pairs(build_pairs(faces), faces, captions)
    assert made["train"].to_list() == expected["train"].to_list() and "pseudo" not in made["test"]["source"]
