"""What notebooks 01 and 02 count and choose."""

import pandas as pd

from expvqa_lib.data import inspection


def test_faces_people_and_those_in_two_splits_are_counted(faces):
    counts = inspection.count_faces(faces)
    assert counts["faces"].to_numpy().sum() == len(faces)
    assert counts.loc["synth_lab", ("people", "train")] == 3
    assert inspection.shared_between_splits(faces).to_numpy().sum() == 0
    moved = pd.concat([faces, faces[faces["split"] == "train"].head(1).assign(split="test")])
    assert inspection.shared_between_splits(moved)["train and test"].tolist() == [1, 1]


def test_an_unlabelled_action_unit_has_no_prevalence_and_no_answer(faces):
    percent = inspection.au_prevalence(faces)
    train = percent["synth_lab"]["train"]
    assert pd.isna(train["AU5"]) and 0 <= train["AU1"] <= 100 and "synth_emotion" not in percent
    lab = faces[faces["dataset"] == "synth_lab"]
    rows = inspection.label_answers(lab.head(1), {"Q1": "a", "Q2": "b", "Q3": "c"}, area="lips", au=5)
    assert [row[:3] for row in rows] == [(0, "a", "Label"), (0, "b", "Label"), (0, "c", "Label")]
    assert rows[2][3] == "not labelled"
    film, curves = inspection.example_video(lab)
    assert list(film) == sorted(film) == list(curves.index) and (curves.max() > 0).all()


def test_pairs_of_every_type_are_counted_and_shown(pairs):
    table = pd.concat([rows.to_pandas().assign(split=split) for split, rows in pairs.items()])
    examples = inspection.example_pairs(table, seed=1)
    assert set(examples["question_type"]) == {"Q1", "Q2", "Q3"}
    assert {"yes", "no"} <= set(examples["text_output"])
    assert inspection.wordings(table)["training pairs"].sum() == (table["split"] == "train").sum()
    assert inspection.q3_balance(table).to_numpy().sum() == (table["question_type"] == "Q3").sum()
