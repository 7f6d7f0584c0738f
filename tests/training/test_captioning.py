"""What a trained model sees where nobody labelled: marked, for training alone, and resumable."""

from __future__ import annotations

import datasets
import pandas as pd
import pytest

import expvqa_lib as expvqa
from expvqa_lib.data import pairs, table
from expvqa_lib.data.table import au_labels
from expvqa_lib.errors import ImageError
from expvqa_lib.facs import EMOTIONS
from expvqa_lib.pipeline.cli import main
from expvqa_lib.questions import Q1_ACTIONS, Q1_EMOTION, read_aus, read_emotion
from expvqa_lib.synthfacs import CorpusSizes, make
from expvqa_lib.training import pseudo_labels as captioning

SIZES = CorpusSizes(
    lab_train=2,
    lab_validation=1,
    lab_test=1,
    videos=1,
    wild_train=3,
    wild_validation=1,
    wild_test=1,
    emotion_train=24,
    emotion_validation=2,
    emotion_test=2,
)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> pd.DataFrame:
    """A few faces as large as the shipped model's."""
    return make(tmp_path_factory.mktemp("drawn") / "data", SIZES)


@pytest.fixture(scope="module")
def captioner():
    return expvqa.load()


@pytest.fixture(scope="module")
def told(captioner, drawn, tmp_path_factory) -> pd.DataFrame:
    return captioning.caption(captioner.model, captioner.processor, drawn, tmp_path_factory.mktemp("told"))


def test_each_training_face_is_asked_for_what_it_lacks_and_no_other_face(told, drawn):
    faces = drawn.loc[told["row"]]
    assert set(faces["split"]) == {"train"} and set(faces["dataset"]) == {"synth_lab", "synth_emotion"}
    assert sorted(told["row"]) == sorted(
        drawn[(drawn["split"] == "train") & (drawn["dataset"] != "synth_wild")].index
    )
    lacks_actions = (faces["dataset"] == "synth_emotion").to_numpy()
    assert (told["missing"] == pd.Series(lacks_actions).map({True: "actions", False: "emotion"})).all()
    assert (
        told["question"] == pd.Series(lacks_actions).map({True: Q1_ACTIONS[0], False: Q1_EMOTION[0]})
    ).all()


def test_the_shipped_model_sees_actions_that_go_with_the_emotion(told, drawn):
    seen = {name: [] for name in EMOTIONS}
    for row, answer in told.loc[told["missing"] == "actions", ["row", "answer"]].itertuples(index=False):
        seen[drawn.at[row, "emotion"]].append(read_aus(answer)[0])

    def share(name: str, au: int) -> float:
        return sum(au in found for found in seen[name]) / len(seen[name])

    assert share("happiness", 12) > 0.6 > share("sadness", 12) and share("sadness", 4) > 0.6 > share(
        "happiness", 4
    )


def test_captions_become_marked_q1_pairs_of_the_training_split_beside_the_others(told, drawn):
    before = pairs.build_pairs(drawn)
    after = captioning.add_pseudo_pairs(before, drawn, told)
    for split in ("validation", "test"):
        assert after[split].to_list() == before[split].to_list()
    assert after["train"].features == before["train"].features
    assert after["train"].to_list()[: len(before["train"])] == before["train"].to_list()
    added = after["train"].to_pandas().iloc[len(before["train"]) :]
    assert 20 < len(added) <= len(told) and not added["image"].duplicated().any()
    assert (
        set(added["source"]) == {"pseudo"}
        and set(added["question_type"]) == {"Q1"}
        and added[["au", "area"]].isna().all(axis=None)
    )
    assert set(added["text_input"]) == set(Q1_EMOTION)
    labels = {face["image"]: face for face in drawn.to_dict("records")}
    answers = dict(zip(drawn.loc[told["row"], "image"], told["answer"], strict=True))
    for row in added.itertuples():  # what people labelled stays, the model gives the rest
        face, present = labels[row.image], read_aus(row.text_output)[0]
        if row.dataset == "synth_emotion":
            assert (
                read_emotion(row.text_output) == face["emotion"]
                and present == read_aus(answers[row.image])[0]
            )
        else:
            assert present == {n for n, v in au_labels(face).items() if v}
            assert read_emotion(row.text_output) == read_emotion(answers[row.image])


def test_a_caption_in_which_nothing_can_be_read_gives_no_pair(drawn, told):
    before = pairs.build_pairs(drawn)
    nonsense = told.assign(answer="The person does not raise cheek. So to say.")
    assert (
        captioning.add_pseudo_pairs(before, drawn, nonsense)["train"].to_list() == before["train"].to_list()
    )


def test_a_stopped_run_goes_on_and_another_model_or_image_asks_anew(captioner, drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(captioning, "CHUNK", 6)
    faces = drawn[drawn["dataset"] == "synth_emotion"].copy()
    asked, ask = [], captioning.generate

    def until(limit: int):
        def generate(model, processor, images, questions):
            if len(asked) >= limit:
                raise KeyboardInterrupt
            asked.extend(images)
            return ask(model, processor, images, questions)

        return generate

    monkeypatch.setattr(captioning, "generate", until(12))
    with pytest.raises(KeyboardInterrupt):
        captioning.caption(captioner.model, captioner.processor, faces, tmp_path)
    assert len(asked) == 12 and not list(tmp_path.glob(".*"))
    monkeypatch.setattr(captioning, "generate", until(1000))
    first = captioning.caption(captioner.model, captioner.processor, faces, tmp_path)
    assert len(asked) == len(set(asked)) == len(first) == 24
    pd.testing.assert_frame_equal(
        captioning.caption(captioner.model, captioner.processor, faces, tmp_path), first
    )
    assert len(asked) == 24
    captioner.model.generation_config.repetition_penalty = 1.1
    try:
        captioning.caption(captioner.model, captioner.processor, faces.iloc[:6], tmp_path)
    finally:
        captioner.model.generation_config.repetition_penalty = None
    assert len(asked) == 30


def test_a_missing_image_is_named(captioner, drawn, tmp_path):
    faces = drawn[drawn["dataset"] == "synth_emotion"].assign(image="nowhere/face.png")
    with pytest.raises(ImageError, match="nowhere/face.png: cannot be read"):
        captioning.caption(captioner.model, captioner.processor, faces, tmp_path)


def test_the_command_writes_pairs_with_pseudo_captions(drawn, told, tmp_path, capsys):
    faces = drawn[drawn["dataset"] != "synth_wild"]
    root = faces["image"].iloc[0].rpartition("/data/")[0] + "/data"
    table.write_table(faces.assign(image=faces["image"].str.removeprefix(f"{root}/")), f"{root}/mine.parquet")
    captioner = str(expvqa.expvqa.QUICK)
    assert (
        main(
            [
                "pairs",
                "--table",
                f"{root}/mine.parquet",
                "--captioner",
                captioner,
                "--output",
                str(tmp_path / "pairs"),
            ]
        )
        == 0
    )
    made = datasets.load_from_disk(str(tmp_path / "pairs"))
    expected = captioning.add_pseudo_pairs(pairs.build_pairs(faces), faces, told)
    assert made["train"].to_list() == expected["train"].to_list()
    assert "pseudo" not in made["test"]["source"] and list((tmp_path / "pairs-captions").glob("*.parquet"))
    assert "train:" in capsys.readouterr().out
