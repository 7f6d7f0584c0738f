"""Which pairs a model is trained on."""

import numpy as np
import pandas as pd
import pytest

from expvqa_lib.data import pairs
from expvqa_lib.data.table import AU_COLUMNS, SPLITS
from expvqa_lib.errors import SettingsError
from expvqa_lib.questions import ask_q1
from expvqa_lib.training.curriculum import Curriculum, captioner_pairs, complete_labels, curriculum, select


def _faces(images, splits, emotions, **aus) -> pd.DataFrame:
    columns = {"image": images, "dataset": "own", "subject": "s", "frame": 0, "labelled_by": None}
    labels = pd.DataFrame(pd.NA, index=range(len(images)), columns=list(AU_COLUMNS), dtype="Int8")
    table = pd.concat([pd.DataFrame(columns | {"split": splits, "emotion": emotions}), labels], axis=1)
    return table.assign(**{au: pd.array(values, dtype="Int8") for au, values in aus.items()})


@pytest.fixture(scope="module")
def drawn():
    """Pairs of 60 faces in three splits, three AUs labelled."""
    n = 60
    labels = np.random.default_rng(0).integers(0, 2, (3, n))
    images, splits = [f"{k}.png" for k in range(n)], [SPLITS[k % 3] for k in range(n)]
    aus = dict(zip(("AU1", "AU12", "AU25"), labels.tolist(), strict=True))
    return pairs.build_pairs(_faces(images, splits, "happiness", **aus))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("exp_vqa_fz", Curriculum(unseen=(5,))),
        ("q1_q2", Curriculum(("Q1", "Q2"), unseen=(5,))),
        ("cat_captioner", Curriculum(("Q1",), unseen=(5,), captioner="cat")),
        ("without_au12", Curriculum(unseen=(5, 12))),
    ],
)
def test_a_models_name_gives_its_curriculum(name, expected):
    assert curriculum(name, (5,)) == expected


def test_unknown_names_are_refused():
    message = "'q4_only'.* exp_vqa, exp_vqa_fz, q1_only.*without_au12"
    for options, match in ((["q4_only"], message), (["without_au3"], "AU 3 "), (["exp_vqa", (3,)], "AU 3 ")):
        with pytest.raises(SettingsError, match=match):
            curriculum(*options)


def test_an_unseen_action_unit_has_no_q3_pairs_but_is_still_described(drawn):
    selected = select(drawn, Curriculum(unseen=(25,)))
    for split in ("train", "validation"):
        before, after = drawn[split].to_pandas(), selected[split].to_pandas()
        unseen = before["question_type"].eq("Q3") & before["au"].eq(25)
        assert unseen.any() and after["text_output"].str.contains("separates lips").any()
        pd.testing.assert_frame_equal(after, before[~unseen].reset_index(drop=True))
    assert selected["test"].to_dict() == drawn["test"].to_dict()


@pytest.mark.parametrize("kinds", [("Q1", "Q2"), ("Q1", "Q2", "Q3")])
def test_a_curriculum_holds_its_types_of_question(drawn, kinds):
    counts = pd.Series(drawn["train"]["question_type"]).value_counts()
    selected = pd.Series(select(drawn, Curriculum(questions=kinds))["train"]["question_type"]).value_counts()
    assert selected.to_dict() == counts[list(kinds)].to_dict()


EMOTIONS = {"both": "happiness", "actions": None, "emotion": "anger", "still": "neutral"}
FACES = _faces([*EMOTIONS], "train", EMOTIONS.values(), AU12=[1, 1, pd.NA, 0])
SMILE, HAPPY = "The person pulls lip corner.", "The face shows happiness."
ANGRY, NEUTRAL = "The face shows anger.", "The face shows a neutral expression."


@pytest.mark.parametrize(
    ("captioner", "sentences"),
    [
        ("aus", {"both": [SMILE], "actions": [SMILE]}),
        ("emotion", {"both": [HAPPY], "emotion": [ANGRY], "still": [NEUTRAL]}),
        ("mix", {"both": [SMILE, HAPPY], "actions": [SMILE], "emotion": [ANGRY], "still": [NEUTRAL]}),
        ("cat", {"both": [f"{SMILE} {HAPPY}"], "still": [NEUTRAL]}),
        ("exp", {"both": ["The person pulls lip corner, which suggests happiness."], "still": [NEUTRAL]}),
    ],
)
def test_a_captioner_describes_what_a_face_is_labelled_with(captioner, sentences):
    rows = captioner_pairs(FACES, captioner)["train"].to_pandas()
    assert rows.groupby("image")["text_output"].agg(list).to_dict() == sentences
    assert set(rows["text_input"]) == {ask_q1()} and set(rows["source"]) == {"rules"}


def test_other_captioners_fill_in_the_missing_half_and_it_is_marked():
    answers = ["the face shows fear.", "the person lowers brow and drops jaw."]
    captions = pd.DataFrame({"row": [1, 2], "missing": ["emotion", "actions"], "answer": answers})
    halves = complete_labels(FACES, captions)
    cat, exp = (captioner_pairs(FACES, name, halves)["train"].to_pandas() for name in ("cat", "exp"))
    cat, exp = cat.set_index("image"), exp.set_index("image")
    assert cat.loc["actions", "text_output"] == f"{SMILE} The face shows fear."
    assert cat.loc["emotion", "text_output"] == f"The person lowers brow and drops jaw. {ANGRY}"
    assert exp.loc["emotion", "text_output"] == "The person lowers brow and drops jaw, which suggests anger."
    pseudo = {"both": "rules", "actions": "pseudo", "emotion": "pseudo", "still": "rules"}
    assert exp["source"].to_dict() == pseudo
    unreadable = complete_labels(FACES, captions.assign(answer="a face."))
    assert captioner_pairs(FACES, "cat", unreadable)["train"]["image"][:] == ["both", "still"]
