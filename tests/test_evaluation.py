"""The tables and their controls, on predictions whose score is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from expvqa_lib import attention, evaluation
from expvqa_lib.answering import score_yes_no
from expvqa_lib.corpora.drawing import au_mask
from expvqa_lib.corpora.faces import Face
from expvqa_lib.corpora.table import au_labels, labelled_aus
from expvqa_lib.errors import TableError
from expvqa_lib.evaluation import MAIN, au_columns, derange, pointing, pointing_cases, told_aus, told_emotions, with_controls
from expvqa_lib.facs import ACTION_UNITS, AREAS, BP4D_AUS
from expvqa_lib.questions import answer_q1, answer_q2

SHUFFLED = f"{MAIN}_shuffled_images"

COLUMNS = ["model", "dataset", "split", "target", "metric", "value", "low", "high", "support"]


def part(faces: pd.DataFrame, dataset: str, split: str = "test") -> pd.DataFrame:
    return faces[(faces["dataset"] == f"synth_{dataset}") & (faces["split"] == split)].reset_index(drop=True)


def value(table: pd.DataFrame, model: str, target: str, metric: str) -> float:
    (found,) = table.loc[(table["model"] == model) & (table["target"] == target) & (table["metric"] == metric), "value"]
    return found


# -------------------------------------------------------------------------------------------------------------- controls


@pytest.mark.parametrize("sizes", [(1, 1), (2, 2), (3, 2, 1), (12,) * 5, (1,) * 40, (10, 5, 3, 2), (7, 1, 1, 1, 1, 1, 1, 1)])
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
    assert value(table, MAIN, "macro", "auc") == 100 and value(table, "base", "macro", "auc") == value(table, "prior", "macro", "auc") == 50
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
        q2 += [{"row": row, "area": a, "question": "", "answer": t} for a in AREAS if (t := answer_q2(au_labels(face), a))]
    return pd.DataFrame(q1), pd.DataFrame(q2)


def captions(emotion_faces, au_faces, train, q1, q2, resamples) -> pd.DataFrame:
    """Both tables of what is told in words, below each other."""
    return pd.concat([told_emotions(emotion_faces, train, q1, resamples), told_aus(au_faces, q2, resamples)])


def test_captions_read_back_what_the_answers_say(faces):
    emotion, lab, train = part(faces, "emotion"), part(faces, "lab"), part(faces, "emotion", "train")
    q1, q2 = words(emotion)[0], words(lab)[1]
    silent1, silent2 = q1.assign(answer="A person."), q2.assign(answer="The person does not raise cheek or pull lip corner.")
    table = captions(emotion, lab, train, {"base": silent1, MAIN: q1}, {"base": silent2, MAIN: q2}, resamples=20)
    assert list(table.columns) == [*COLUMNS, "question"]
    assert set(table["model"]) == {"prior", "base", MAIN, SHUFFLED}
    assert set(table["dataset"]) == {"synth_emotion", "synth_lab"} and "auc" not in set(table["metric"])
    told = table[table["dataset"] == "synth_emotion"]
    assert value(told, MAIN, "macro", "accuracy") == 100 and value(told, "base", "macro", "accuracy") == 0
    assert value(told, SHUFFLED, "macro", "accuracy") < 60
    mode = train["emotion"].mode().iat[0]
    assert value(told, "prior", "macro", "accuracy") == pytest.approx(100 * (emotion["emotion"] == mode).mean())
    read = table[table["dataset"] == "synth_lab"]
    occurs = [f"AU{n}" for n in BP4D_AUS if (lab[f"AU{n}"] == 1).any()]
    assert occurs and all(value(read, MAIN, name, "f1") == 100 for name in occurs)
    assert value(read, "base", "macro", "recall") == 0  # what is denied does not count as told


def test_an_au_told_of_the_wrong_face_does_not_count(faces):
    lab, emotion = part(faces, "lab"), part(faces, "emotion")
    q1 = words(emotion)[0]
    q2 = pd.DataFrame({"row": [0], "area": ["lip corners"], "question": [""], "answer": ["The person pulls lip corner."]})
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


# -------------------------------------------------------------------------------------------------------------- pointing


@pytest.fixture
def maps_of(monkeypatch):
    """Replace the attention maps, nothing else: how they are scored is what is tested."""

    def arrange(draw) -> list[dict]:
        calls = []

        def relevance(model, processor, images, asked, **options):
            calls.append({"images": images, "asked": asked} | options)
            return np.stack([draw(k) for k in range(len(images))]).astype(np.float32), None, None

        monkeypatch.setattr(attention, "relevance", relevance)
        return calls

    return arrange


def regions(faces: pd.DataFrame, each: int, seed: int) -> list[np.ndarray]:
    cases = pointing_cases(faces, each, seed)
    return [au_mask(Face.from_json(faces["face"].iat[r]), au) for r, au in zip(cases["row"], cases["au"], strict=True)]


def test_cases_are_faces_that_show_the_au(faces):
    test = part(faces, "wild")
    cases = pointing_cases(test, 2, seed=0)
    assert all(test[ACTION_UNITS[au].name].iat[row] == 1 for row, au in cases.itertuples(index=False))
    assert not cases.duplicated().any()
    counts = cases["au"].value_counts()
    for au in labelled_aus(test):
        assert counts.get(au, 0) == min(2, (test[ACTION_UNITS[au].name] == 1).sum())


def test_a_perfect_map_scores_100_and_one_that_looks_away_0(faces, maps_of):
    test = part(faces, "lab")
    masks = regions(test, 3, 5)
    calls = maps_of(lambda k: masks[k])
    table = pointing(None, None, test, 3, method="gradient_patch", resamples=20, seed=5)
    assert list(table.columns) == COLUMNS
    assert (table.loc[table["metric"] == "pointing_accuracy", ["value", "low", "high"]] == 100).all(axis=None)
    (call,) = calls
    assert call["method"] == "gradient_patch" and set(call["targets"]) == {"yes"} and len(call["asked"]) == len(masks)
    maps_of(lambda k: ~masks[k])
    away = pointing(None, None, test, 3, resamples=20, seed=5)
    assert (away.loc[away["metric"] == "pointing_accuracy", ["value", "low", "high"]] == 0).all(axis=None)


def test_chance_is_the_regions_share_of_the_pixels(faces, maps_of):
    test = part(faces, "lab")
    masks, cases = regions(test, 3, 5), pointing_cases(test, 3, 5)
    maps_of(lambda k: masks[k])
    table = pointing(None, None, test, 3, resamples=20, seed=5)
    shares = pd.Series([mask.mean() * 100 for mask in masks]).groupby(cases["au"]).mean()
    for au, share in shares.items():
        assert value(table, MAIN, f"AU{au}", "chance") == pytest.approx(share)
    assert value(table, MAIN, "macro", "chance") == pytest.approx(shares.mean())
    assert table.loc[table["target"] == "macro", "support"].tolist() == [len(cases)] * 2


def test_pointing_asks_the_model_itself(model, processor, faces):
    test = part(faces, "lab")
    table = pointing(model, processor, test, 1, resamples=10)
    hits = table.loc[(table["metric"] == "pointing_accuracy") & (table["target"] != "macro"), "value"]
    assert set(hits) <= {0.0, 100.0}
    again = pointing(model, processor, test, 1, resamples=10)
    pd.testing.assert_frame_equal(table, again)
