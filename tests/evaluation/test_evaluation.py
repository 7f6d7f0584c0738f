"""The tables and their controls, on predictions whose score is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from expvqa_lib.data.table import au_labels
from expvqa_lib.errors import TableError
from expvqa_lib.evaluation import tables as evaluation
from expvqa_lib.evaluation.tables import MAIN, au_columns, derange, told_aus, told_emotions, with_controls
from expvqa_lib.facs import AREAS, BP4D_AUS
from expvqa_lib.model.answer import score_yes_no
from expvqa_lib.questions import answer_q1, answer_q2

SHUFFLED = f"{MAIN}_shuffled_images"

COLUMNS = ["model", "dataset", "split", "target", "metric", "value", "low", "high", "support"]


def part(faces: pd.DataFrame, dataset: str, split: str = "test") -> pd.DataFrame:
    return faces[(faces["dataset"] == f"synth_{dataset}") & (faces["split"] == split)].reset_index(drop=True)


def value(table: pd.DataFrame, model: str, target: str, metric: str) -> float:
    (found,) = table.loc[
        (table["model"] == model) & (table["target"] == target) & (table["metric"] == metric), "value"
    ]
    return found


# -------------------------------------------------------------------------------------------------------------- controls


@pytest.mark.parametrize(
    "sizes", [(1, 1), (2, 2), (3, 2, 1), (12,) * 5, (1,) * 40, (10, 5, 3, 2), (7, 1, 1, 1, 1, 1, 1, 1)]
)
def test_derange_is_a_permutation_that_never_keeps_the_group(sizes):
    groups = pd.Series([f"s{k}" for k, n in enumerate(sizes) for _ in range(n)])
    for seed in range(20):
        order = derange(groups.sample(frac=1, random_state=seed), seed)
        shuffled = groups.sample(frac=1, random_state=seed).to_numpy()
        assert sorted(order) == list(range(len(groups)))
        assert (shuffled[order] != shuffled).all()
    assert (derange(groups, 1) == derange(groups, 1)).all()
    if len(groups) > 10:
        assert any((derange(groups, 1) != derange(groups, seed)).any() for seed in (2, 3))


@pytest.mark.parametrize("groups", [["a"], ["a", "a", "a"], ["a", "a", "b"]])
def test_derange_says_where_one_subject_has_most_rows(groups):
    with pytest.raises(TableError, match="subject 'a' has more than half of the .* rows"):
        derange(pd.Series(groups), 0)


def test_the_shuffled_control_is_really_asking_about_somebody_elses_image(model, processor, faces):
    test = part(faces, "lab")
    scores = score_yes_no(model, processor, test["image"].tolist(), BP4D_AUS)
    shuffled = with_controls({MAIN: scores, "base": scores}, test, seed=3)[SHUFFLED]
    other = derange(test["subject"], 3)
    assert (test["subject"].to_numpy()[other] != test["subject"]).all()
    asked = score_yes_no(model, processor, test["image"].iloc[other].tolist(), BP4D_AUS)
    np.testing.assert_allclose(shuffled, asked, atol=1e-5)
    assert np.abs(shuffled - scores).to_numpy().max() > 1e-4 and list(shuffled.index) == list(scores.index)


# ---------------------------------------------------------------------------------------------------------------- tables


def test_perfect_scores_are_perfect_and_everybody_elses_are_not(faces):
    test, train = part(faces, "lab"), part(faces, "lab", "train")
    truth = test[au_columns(test)].astype(float)
    table = evaluation.au_detection(test, train, {"base": truth * 0 + 0.2, MAIN: truth}, resamples=40, seed=1)
    assert list(table.columns) == COLUMNS
    assert (
        set(table["model"]) == {"prior", "base", MAIN, SHUFFLED}
        and set(table["dataset"]) == {"synth_lab"}
        and set(table["split"]) == {"test"}
    )
    assert set(table["target"]) == {f"AU{n}" for n in BP4D_AUS} | {"macro"}
    assert (
        value(table, MAIN, "macro", "auc") == 100
        and value(table, "base", "macro", "auc") == value(table, "prior", "macro", "auc") == 50
    )
    assert value(table, "base", "macro", "f1") == 0 < value(table, SHUFFLED, "macro", "f1") < 90
    rate = truth["AU12"].mean()
    assert value(table, "prior", "AU12", "f1") == pytest.approx(200 * rate / (1 + rate))
    assert (table["low"].dropna() <= table["value"][table["low"].notna()] + 1e-9).all()


def words(faces: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rules' own answers to Q1 about emotions and to Q2 about every labelled area."""
    q1, q2 = [], []
    for row, face in enumerate(faces.to_dict("records")):
        if pd.notna(face["emotion"]):
            q1.append({"row": row, "area": None, "question": "", "answer": answer_q1([], face["emotion"])})
        q2 += [
            {"row": row, "area": a, "question": "", "answer": t}
            for a in AREAS
            if (t := answer_q2(au_labels(face), a))
        ]
    return pd.DataFrame(q1), pd.DataFrame(q2)


def captions(emotion_faces, au_faces, train, q1, q2, resamples) -> pd.DataFrame:
    """Both tables of what is told in words, below each other."""
    return pd.concat([told_emotions(emotion_faces, train, q1, resamples), told_aus(au_faces, q2, resamples)])


def test_captions_read_back_what_the_answers_say(faces):
    emotion, lab, train = part(faces, "emotion"), part(faces, "lab"), part(faces, "emotion", "train")
    q1, q2 = words(emotion)[0], words(lab)[1]
    silent1, silent2 = (
        q1.assign(answer="A person."),
        q2.assign(answer="The person does not raise cheek or pull lip corner."),
    )
    table = captions(
        emotion, lab, train, {"base": silent1, MAIN: q1}, {"base": silent2, MAIN: q2}, resamples=20
    )
    assert list(table.columns) == [*COLUMNS, "question"]
    assert set(table["model"]) == {"prior", "base", MAIN, SHUFFLED}
    assert set(table["dataset"]) == {"synth_emotion", "synth_lab"} and "auc" not in set(table["metric"])
    told = table[table["dataset"] == "synth_emotion"]
    assert value(told, MAIN, "macro", "accuracy") == 100 and value(told, "base", "macro", "accuracy") == 0
    assert value(told, SHUFFLED, "macro", "accuracy") < 60
    mode = train["emotion"].mode().iat[0]
    assert value(told, "prior", "macro", "accuracy") == pytest.approx(
        100 * (emotion["emotion"] == mode).mean()
    )
    read = table[table["dataset"] == "synth_lab"]
    occurs = [f"AU{n}" for n in BP4D_AUS if (lab[f"AU{n}"] == 1).any()]
    assert occurs and all(value(read, MAIN, name, "f1") == 100 for name in occurs)
    assert value(read, "base", "macro", "recall") == 0  # what is denied does not count as told


def test_an_au_told_of_the_wrong_face_does_not_count(faces):
    lab, emotion = part(faces, "lab"), part(faces, "emotion")
    q1 = words(emotion)[0]
    q2 = pd.DataFrame(
        {"row": [0], "area": ["lip corners"], "question": [""], "answer": ["The person pulls lip corner."]}
    )
    table = captions(emotion, lab, emotion, {MAIN: q1}, {MAIN: q2}, resamples=0)
    assert value(table[table["dataset"] == "synth_lab"], MAIN, "AU12", "recall") == pytest.approx(
        100 * int(lab["AU12"].iat[0]) / (lab["AU12"] == 1).sum()
    )


def test_the_summary_has_a_row_a_model(faces):
    test, emotion = part(faces, "lab"), part(faces, "emotion")
    truth = test[au_columns(test)].astype(float)
    q1, q2 = words(emotion)[0], words(test)[1]
    au = evaluation.au_detection(test, test, {MAIN: truth, "base": truth * 0}, resamples=10)
    told = captions(emotion, test, emotion, {MAIN: q1, "base": q1}, {MAIN: q2, "base": q2}, resamples=10)
    lines = evaluation.summary(au, told).splitlines()
    assert len(lines) == 2 + 4 and len({line.count("|") for line in lines}) == 1
    assert any("100.0 [100.0, 100.0]" in line for line in lines)
