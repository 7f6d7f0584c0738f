"""What notebooks 01 and 02 count and choose."""

import pandas as pd
import pytest

from expvqa_lib.data import inspection


def test_counts_name_every_data_set_and_split(faces):
    counts = inspection.count_faces(faces)
    assert counts["faces"].to_numpy().sum() == len(faces)
    assert counts.loc["synth_lab", ("people", "train")] == 3


def test_a_person_or_picture_in_two_splits_is_counted(faces):
    assert inspection.shared_between_splits(faces).to_numpy().sum() == 0
    moved = pd.concat([faces, faces[faces["split"] == "train"].head(1).assign(split="test")])
    assert inspection.shared_between_splits(moved)["train and test"].tolist() == [1, 1]


def test_an_unlabelled_action_unit_has_no_prevalence(faces):
    percent = inspection.au_prevalence(faces)
    lab = percent["synth_lab"]["train"]
    assert pd.isna(lab["AU5"]) and 0 <= lab["AU1"] <= 100 and "synth_emotion" not in percent


def test_the_example_video_is_one_video_in_order(faces):
    film, curves = inspection.example_video(faces[faces["dataset"] == "synth_lab"])
    assert list(film) == sorted(film) == list(curves.index) and (curves.max() > 0).all()


@pytest.fixture(scope="module")
def table(pairs):
    return pd.concat([rows.to_pandas().assign(split=split) for split, rows in pairs.items()])


def test_example_pairs_hold_a_yes_and_a_no(table):
    examples = inspection.example_pairs(table, seed=1)
    assert set(examples["question_type"]) == {"Q1", "Q2", "Q3"}
    assert {"yes", "no"} <= set(examples["text_output"])


def test_every_training_question_has_one_of_the_wordings(table):
    assert inspection.wordings(table)["training pairs"].sum() == (table["split"] == "train").sum()
    assert inspection.q3_balance(table).to_numpy().sum() == (table["question_type"] == "Q3").sum()


def test_the_labels_answer_every_type_or_say_that_they_cannot(faces):
    lab = faces[faces["dataset"] == "synth_lab"].head(1)
    rows = inspection.label_answers(lab, {"Q1": "a", "Q2": "b", "Q3": "c"}, area="lips", au=5)
    assert [row[:3] for row in rows] == [(0, "a", "Label"), (0, "b", "Label"), (0, "c", "Label")]
    assert rows[2][3] == "not labelled"  # AU5 is none of the lab's
