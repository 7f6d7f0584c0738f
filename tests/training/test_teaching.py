"""Which pairs a model is taught."""

import datasets
import numpy as np
import pandas as pd
import pytest

from expvqa_lib.data import pairs
from expvqa_lib.data.table import AU_COLUMNS, SPLITS
from expvqa_lib.errors import SettingsError, TableError
from expvqa_lib.questions import ask_q1
from expvqa_lib.training.curriculum import Lesson, choose, named, sentences


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(0)
    n = 60
    labels = pd.DataFrame(pd.NA, index=range(n), columns=list(AU_COLUMNS), dtype="Int8")
    labels[["AU1", "AU12", "AU25"]] = rng.integers(0, 2, (n, 3))
    columns = {
        "image": [f"{k}.png" for k in range(n)],
        "dataset": "own",
        "subject": "s",
        "frame": range(n),
        "labelled_by": None,
    }
    table = pd.DataFrame(columns | {"split": [SPLITS[k % 3] for k in range(n)], "emotion": "happiness"})
    return pairs.build(pd.concat([table, labels], axis=1))


def _counts(rows):
    return pd.Series(rows["question_type"]).value_counts().to_dict()


def test_everything_is_taught_unless_something_is_left_out(made):
    assert choose(made, Lesson()) is made


def test_an_unseen_action_unit_is_never_asked_about_but_still_named(made):
    chosen = choose(made, Lesson(unseen=(25,)))
    for split in ("train", "validation"):
        before, after = made[split].to_pandas(), chosen[split].to_pandas()
        assert (
            before.query("question_type == 'Q3' and au == 25").size
            and not after.query("question_type == 'Q3' and au == 25").size
        )
        assert after["text_output"].str.contains("separates lips").any()
        rest = before[~(before["question_type"].eq("Q3") & before["au"].eq(25))].reset_index(drop=True)
        pd.testing.assert_frame_equal(after, rest)
    assert chosen["test"].to_dict() == made["test"].to_dict()


@pytest.mark.parametrize("kinds", [("Q1",), ("Q1", "Q2"), ("Q3",)])
def test_a_lesson_holds_its_types_of_question(made, kinds):
    chosen = choose(made, Lesson(questions=kinds))
    assert _counts(chosen["train"]) == {
        kind: n for kind, n in _counts(made["train"]).items() if kind in kinds
    }


def test_what_cannot_be_taught_is_refused(made):
    with pytest.raises(SettingsError, match="'Q4' is unknown; known are Q1, Q2, Q3"):
        Lesson(questions=("Q4",))
    with pytest.raises(SettingsError, match="AU 3 is unknown"):
        Lesson(unseen=(3,))
    with pytest.raises(SettingsError, match="none of the .* training pairs is left"):
        choose(made, Lesson(questions=("Q3",), unseen=(1, 12, 25)))


# ------------------------------------------------------------------------------------------------------ names and captioners


@pytest.mark.parametrize(
    ("name", "lesson"),
    [
        ("exp_vqa_fz", Lesson(unseen=(5,))),
        ("q1_q2", Lesson(("Q1", "Q2"), unseen=(5,))),
        ("cat_captioner", Lesson(("Q1",), unseen=(5,), captioner="cat")),
        ("without_au12", Lesson(unseen=(5, 12))),
    ],
)
def test_a_model_is_taught_what_its_name_says(name, lesson):
    assert named(name, (5,)) == lesson


def test_names_and_captioners_that_are_not_known_are_refused():
    with pytest.raises(
        SettingsError,
        match="model 'q4_only' is unknown; known are exp_vqa, exp_vqa_fz, q1_only.*without_au12",
    ):
        named("q4_only")
    with pytest.raises(SettingsError, match="AU 3 is unknown"):
        named("without_au3")
    with pytest.raises(
        SettingsError, match="captioner 'all' is unknown; known are aus, emotion, mix, cat, exp"
    ):
        Lesson(captioner="all")


def _faces(**halves) -> pd.DataFrame:
    """A training face for each keyword: its AU12 (or None, unlabelled) and its emotion."""
    rows = {
        "image": [f"{name}.png" for name in halves],
        "dataset": "own",
        "split": "train",
        "subject": "s",
        "frame": 0,
        "labelled_by": None,
        "emotion": [emotion for _, emotion in halves.values()],
    }
    labels = pd.DataFrame(pd.NA, index=range(len(halves)), columns=list(AU_COLUMNS), dtype="Int8")
    labels["AU12"] = [pd.NA if label is None else label for label, _ in halves.values()]
    return pd.concat([pd.DataFrame(rows), labels], axis=1)


FACES = _faces(both=(1, "happiness"), actions=(1, None), emotion=(None, "anger"), still=(0, "neutral"))
SMILE, HAPPY, ANGRY, NEUTRAL = (
    "The person pulls lip corner.",
    "The face shows happiness.",
    "The face shows anger.",
    "The face shows a neutral expression.",
)


@pytest.mark.parametrize(
    ("captioner", "told"),
    [
        ("aus", {"both": [SMILE], "actions": [SMILE]}),
        ("emotion", {"both": [HAPPY], "emotion": [ANGRY], "still": [NEUTRAL]}),
        ("mix", {"both": [SMILE, HAPPY], "actions": [SMILE], "emotion": [ANGRY], "still": [NEUTRAL]}),
        ("cat", {"both": [f"{SMILE} {HAPPY}"], "still": [NEUTRAL]}),
        ("exp", {"both": ["The person pulls lip corner, which suggests happiness."], "still": [NEUTRAL]}),
    ],
)
def test_a_captioner_tells_what_it_is_for_of_faces_that_are_labelled_so(captioner, told):
    rows = sentences(FACES, captioner)["train"].to_pandas()
    assert rows.groupby(rows["image"].str.removesuffix(".png"))["text_output"].agg(list).to_dict() == told
    assert set(rows["text_input"]) == {ask_q1()} and set(rows["source"]) == {"rules"}


def test_the_missing_half_is_what_the_other_captioners_told_and_marked():
    told = pd.DataFrame(
        {
            "row": [1, 2],
            "missing": ["emotion", "actions"],
            "answer": ["the face shows fear.", "the person lowers brow and drops jaw."],
        }
    )
    cat, exp = (
        sentences(FACES, name, told)["train"].to_pandas().set_index("image") for name in ("cat", "exp")
    )
    assert cat.loc["actions.png", "text_output"] == f"{SMILE} The face shows fear."
    assert cat.loc["emotion.png", "text_output"] == f"The person lowers brow and drops jaw. {ANGRY}"
    assert (
        exp.loc["emotion.png", "text_output"] == "The person lowers brow and drops jaw, which suggests anger."
    )
    assert exp["source"].to_dict() == {
        "both.png": "rules",
        "actions.png": "pseudo",
        "emotion.png": "pseudo",
        "still.png": "rules",
    }
    unread = sentences(FACES, "cat", told.assign(answer="a face."))["train"].to_pandas()
    assert set(unread["image"]) == {"both.png", "still.png"}


def test_a_captioner_without_a_face_to_tell_is_refused():
    with pytest.raises(
        SettingsError, match="captioner 'emotion': no training face has a label that it could tell"
    ):
        sentences(FACES[FACES["emotion"].isna()], "emotion")
    with pytest.raises(TableError, match="the pairs have no column question_type, au"):
        bare = datasets.Dataset.from_dict({"image": ["a.png"], "text_input": ["?"], "text_output": ["yes"]})
        choose(datasets.DatasetDict(train=bare), Lesson(unseen=(12,)))


def test_a_split_of_which_nothing_is_left_is_left_out(made):
    q1 = made["validation"].filter(lambda row: row["question_type"] == "Q1")
    assert set(choose(type(made)({**made, "validation": q1}), Lesson(questions=("Q3",)))) == {"train", "test"}
