"""Tables with their controls, on predictions whose score is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from expvqa_lib import evaluation
from expvqa_lib.data import au_labels
from expvqa_lib.errors import TableError
from expvqa_lib.evaluation import detection_table, with_intervals
from expvqa_lib.evaluation.detection import (
    au_answer_table,
    emotion_answer_table,
    exchange_subjects,
    with_controls,
)
from expvqa_lib.evaluation.metrics import COLUMNS
from expvqa_lib.evaluation.tables import MAIN, au_columns
from expvqa_lib.facs import ACTION_UNITS, AREAS, BP4D_AUS
from expvqa_lib.model import score_yes_no
from expvqa_lib.questions import answer_q1, answer_q2, read_aus

SHUFFLED = f"{MAIN}_shuffled_images"


def value(table: pd.DataFrame, model: str, target: str, metric: str) -> float:
    return table.set_index(["model", "target", "metric"]).loc[(model, target, metric), "value"]


SIZES = [(1, 1), (2, 2), (3, 2, 1), (12,) * 5, (1,) * 40, (10, 5, 3, 2), (7, 1, 1, 1, 1, 1, 1, 1)]


@pytest.mark.parametrize("sizes", SIZES)
def test_subjects_are_exchanged_by_a_permutation_that_never_keeps_one(sizes):
    subjects = pd.Series([f"s{k}" for k, n in enumerate(sizes) for _ in range(n)])
    for seed in range(20):
        mixed = subjects.sample(frac=1, random_state=seed)
        order = exchange_subjects(mixed, seed)
        assert sorted(order) == list(range(len(subjects)))
        assert (mixed.to_numpy()[order] != mixed.to_numpy()).all()
        assert (exchange_subjects(mixed, seed) == order).all()
    with pytest.raises(TableError, match="subject 's0'"):  # with more than half of the rows
        exchange_subjects(pd.concat([subjects, pd.Series(["s0"] * len(subjects))]), 0)


def test_the_shuffled_control_equals_asking_about_another_subjects_image(model, processor, faces_of):
    test = faces_of("synth_lab").iloc[::6].reset_index(drop=True)
    scores = score_yes_no(model, processor, test["image"].tolist(), BP4D_AUS)
    shuffled = with_controls({MAIN: scores, "base": scores}, test, seed=3)[SHUFFLED]
    other = exchange_subjects(test["subject"], 3)
    asked = score_yes_no(model, processor, test["image"].iloc[other].tolist(), BP4D_AUS)
    np.testing.assert_allclose(shuffled, asked, atol=1e-5)
    assert np.abs(shuffled - scores).to_numpy().max() > 1e-4 and list(shuffled.index) == list(scores.index)


def test_perfect_scores_are_perfect_and_those_of_shuffled_images_are_not(faces_of):
    test = faces_of("synth_lab")
    truth = test[au_columns(test)].astype(float)
    table = detection_table(test, {"base": truth * 0 + 0.2, MAIN: truth}, resamples=40, seed=1)
    assert tuple(table.columns) == COLUMNS
    assert list(table["model"].unique()) == ["prior", "base", MAIN, SHUFFLED]
    assert set(table["target"]) == {f"AU{n}" for n in BP4D_AUS} | {"macro"}
    assert value(table, MAIN, "macro", "auc") == 100
    assert value(table, "base", "macro", "auc") == value(table, "prior", "macro", "auc") == 50
    assert value(table, "base", "macro", "f1") == 0 < value(table, SHUFFLED, "macro", "f1") < 90
    rate = truth["AU12"].mean()
    assert value(table, "prior", "AU12", "f1") == pytest.approx(200 * rate / (1 + rate))
    assert (table["low"].dropna() <= table["value"][table["low"].notna()] + 1e-9).all()


def rule_answers(faces: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The rules' own answers to Q1 about emotions, or to Q2 about every labelled area."""
    rows = []
    for row, face in enumerate(faces.to_dict("records")):
        q1, q2 = answer_q1([], face["emotion"]), [answer_q2(au_labels(face), area) for area in AREAS]
        rows += [(row, answer) for answer in ([q1] if kind == "Q1" else q2)]
    return pd.DataFrame(rows, columns=["row", "answer"]).dropna(subset="answer")


def test_emotions_are_read_out_of_answers(faces_of):
    test, train = faces_of("synth_emotion"), faces_of("synth_emotion", "train")
    answers = rule_answers(test, "Q1")
    models = {"base": answers.assign(answer="A."), MAIN: answers}
    table = emotion_answer_table(test, train, models, resamples=20)
    right = {model: value(table, model, "macro", "accuracy") for model in table["model"].unique()}
    assert right[MAIN] == 100 and right["base"] == 0 and right[SHUFFLED] < 60
    assert value(table, "base", "macro", "names_actions") == 0
    alone = test.index[answers["answer"].map(lambda text: not read_aus(text)[0])]
    named = 100 * (1 - len(alone) / len(test))
    assert value(table, MAIN, "macro", "names_actions") == pytest.approx(named)
    mode = train["emotion"].mode().iat[0]
    assert right["prior"] == pytest.approx(100 * (test["emotion"] == mode).mean())
    layout = evaluation.emotion_layout(table.assign(question="Q1"))
    assert layout.index[0] == "accuracy" and layout.index[-1] == "macro F1" and layout.index.name == "Emotion"


def test_action_units_are_read_out_of_answers(faces_of):
    test = faces_of("synth_lab")
    answers = rule_answers(test, "Q2")
    denied = answers.assign(answer="The person does not raise cheek or pull lip corner.")
    occurs = [f"AU{n}" for n in BP4D_AUS if (test[f"AU{n}"] == 1).any()]
    told = f"The person {ACTION_UNITS[int(occurs[0][2:])].third_person}."
    first = pd.DataFrame({"row": [0], "answer": [told]})
    table = au_answer_table(test, {"base": denied, MAIN: answers, "once": first}, resamples=20)
    assert "auc" not in set(table["metric"])
    assert all(value(table, MAIN, name, "f1") == 100 for name in occurs)
    assert value(table, "base", "macro", "recall") == 0
    share = int(test[occurs[0]].iat[0]) / (test[occurs[0]] == 1).sum()  # an answer counts for its own face
    assert value(table, "once", occurs[0], "recall") == pytest.approx(100 * share)


@pytest.fixture
def run(faces_of):
    """Exp-VQA sees each AU, (fz) those of some faces; the base says the same of all faces."""

    def scores(name, rows=None):
        rows = faces_of("synth_lab") if rows is None else rows
        truth = rows[[f"AU{n}" for n in BP4D_AUS]].astype(float) * 0.3 + 0.1  # below 0.5, in the right order
        half = truth.mul(rows.index < 6, axis=0)
        return {"base": truth * 0 + 0.2, "exp_vqa": truth, "exp_vqa_fz": half}[name]

    def answers(name, kind, rows):
        answer = answer_q1([12], None) if name == "exp_vqa" else "A face."
        return pd.DataFrame({"row": rows.index, "area": pd.NA, "answer": answer})

    given = {"has_aus": True, "au_corpus": "synth_lab", "caption_corpus": "synth_lab", "faces_of": faces_of}
    profile = SimpleNamespace(resamples=20, seed=1)
    return SimpleNamespace(scores=scores, answers=answers, profile=profile, **given)


def test_differences_say_what_is_better_and_what_is_not_shown(run):
    table = evaluation.differences(run).set_index(["metric", "minus"])
    assert list(table.index.levels[1]) == ["base", "exp_vqa_fz", SHUFFLED, "prior"]
    verdict = table["verdict"]
    assert verdict["auc", "base"] == "better" and table["value"]["auc", "base"] == pytest.approx(50)
    assert verdict["f1", "prior"] == "worse"
    assert verdict["f1", "base"] == "no difference shown"  # neither ever says yes


def test_thresholds_are_tuned_on_validation_faces(run, faces_of):
    tuned, thresholds = evaluation.tuned_thresholds(run)
    assert set(tuned["metric"]) == {"f1_tuned", "balanced_accuracy_tuned", "precision_tuned", "recall_tuned"}
    assert value(tuned, "exp_vqa", "macro", "balanced_accuracy_tuned") > 50
    assert list(thresholds.index) == ["exp_vqa", "exp_vqa_fz"]
    fixed = detection_table(faces_of("synth_lab"), {MAIN: run.scores(MAIN)}, resamples=0)
    layout = evaluation.tuned_layout(fixed, tuned)
    assert list(layout.columns) == ["F1", "F1 tuned", "Balanced accuracy", "Balanced accuracy tuned"]
    run.faces_of = lambda corpus, split="test": faces_of(corpus, split).head(99 * (split == "test"))
    assert all(table.empty for table in evaluation.tuned_thresholds(run))


def test_captions_stand_beside_the_rules_sentence_and_the_shuffled_ones_are_of_others(run):
    table = evaluation.captions(run, "Q1")
    faces = run.faces_of("synth_lab")
    labelled = [row for row, face in enumerate(faces.to_dict("records")) if any(au_labels(face).values())]
    assert set(table["model"]) == {"base", "exp_vqa", "exp_vqa_fz", "prior", SHUFFLED}
    own = table[table["model"] == MAIN]
    assert own["row"].tolist() == labelled and (own["subject"] == faces.loc[labelled, "subject"].values).all()
    present = [n for n, label in au_labels(faces.loc[labelled[0]]).items() if label]
    assert own["references"].iat[0] == [answer_q1(present, None)]
    assert table.loc[table["model"] == "prior", "caption"].nunique() == 1


def test_layouts_have_values_with_intervals(faces_of):
    test = faces_of("synth_lab")
    absent = [column for column in au_columns(test) if not test[column].eq(1).any()]
    test = test.assign(**dict.fromkeys(absent, pd.Series(pd.NA, test.index, "Int8")))
    au = detection_table(test, {MAIN: test[au_columns(test)].astype(float)}, resamples=10)
    f1, table = (
        with_intervals(au, "f1"),
        evaluation.results_table(pd.concat([au.assign(question=kind) for kind in ("Q3", "Q2")])),
    )
    assert f1.loc["Average", "Exp-VQA"].startswith("100.0 [")
    assert evaluation.macro_averages(au).loc["Label prior", "AUC"] == "50.0 [50.0, 50.0]"
    assert table.loc["Exp-VQA", "Q3 macro F1"] == f1.loc["Average", "Exp-VQA"]
    with pytest.raises(TableError, match="'bleu'"):
        with_intervals(au, "bleu")
