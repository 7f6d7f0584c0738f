"""Questions, answers by rules, and labels read back out of answers."""

from __future__ import annotations

import numpy as np
import pytest

from expvqa_lib.errors import SettingsError
from expvqa_lib.facs import ACTION_UNITS, AREAS, EMOTIONS
from expvqa_lib.questions import (
    Q1_ACTIONS,
    Q1_EMOTION,
    Q2,
    Q3,
    answer_q1,
    answer_q2,
    ask_q1,
    ask_q2,
    ask_q3,
    balanced_q3,
    face_pairs,
    read_aus,
    read_emotion,
    read_yes_no,
)

NUMBERS = list(ACTION_UNITS)


def random_labels(rng: np.random.Generator) -> dict[int, int]:
    """Some AUs labelled, each 1 or 0."""
    labelled = rng.choice(NUMBERS, int(rng.integers(0, len(NUMBERS) + 1)), replace=False)
    share = rng.random()
    return {int(n): int(rng.random() < share) for n in labelled}


# -------------------------------------------------------------------------------------------------------------- wordings


def test_the_papers_own_question_comes_first():
    assert ask_q1() == "How can this person's emotion be inferred from their facial actions?"


def test_every_wording_asks_for_what_it_should_and_no_two_are_the_same():
    asked = [ask_q1(k, emotion=e) for e in (True, False) for k in range(3)]
    assert asked == [*Q1_EMOTION, *Q1_ACTIONS]
    for area in AREAS:
        asked += [ask_q2(area, k) for k in range(len(Q2))]
        assert all(area in question for question in asked[-len(Q2) :])
    for number, unit in ACTION_UNITS.items():
        wordings = [ask_q3(number, k) for k in range(len(Q3))]
        assert all(unit.verb in q or unit.noun in q for q in wordings) and any(
            unit.name in q for q in wordings
        )
        asked += wordings
    assert len(set(asked)) == len(asked)
    assert all(q.endswith(("?", ".")) for q in asked) and not any("{" in q for q in asked)


def test_a_question_tells_its_own_au_and_no_other():
    for number in NUMBERS:
        for wording in range(len(Q3)):
            present, absent = read_aus(ask_q3(number, wording))
            assert present | absent == {number}


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: ask_q2("ears"), "area 'ears' is unknown; known are brows, eyes and cheeks"),
        (lambda: ask_q3(3), "AU 3 is unknown; known are 1, 2, 4"),
        (lambda: ask_q1(3), "wording 3 is unknown; expected 0 to 2"),
        (lambda: ask_q2("lips", -1), "wording -1 is unknown; expected 0 to 2"),
        (lambda: ask_q3(12, 9), "wording 9 is unknown; expected 0 to 2"),
    ],
)
def test_what_cannot_be_asked_is_refused(ask, message):
    with pytest.raises(SettingsError, match=message):
        ask()


# --------------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("present", "emotion", "answer"),
    [
        ([12], "happiness", "The person pulls lip corner, which suggests happiness."),
        ([6, 12], None, "The person raises cheek and pulls lip corner."),
        (
            [25, 2, 1],
            "surprise",
            "The person raises inner eyebrow, raises outer eyebrow and separates lips, which suggests surprise.",
        ),
        ([12], "neutral", "The person pulls lip corner, which suggests a neutral expression."),
        ([], "neutral", "The face shows a neutral expression."),
        ([], "fear", "The face shows fear."),
        ([], None, None),
    ],
)
def test_q1_describes_the_whole_face(present, emotion, answer):
    assert answer_q1(present, emotion) == answer


@pytest.mark.parametrize(
    ("labels", "area", "answer"),
    [
        ({1: 1, 2: 0, 4: 1, 12: 1}, "brows", "The person raises inner eyebrow and lowers brow."),
        ({1: 0, 2: 0}, "brows", "The person does not raise inner eyebrow or raise outer eyebrow."),
        ({17: 0}, "chin and jaw", "The person does not raise chin."),
        (
            {8: 0, 10: 0, 16: 0, 18: 0, 22: 0},
            "lips",
            "The person does not pull lips toward each other, raise upper lip or depress lower lip.",
        ),
        ({1: 1}, "lips", None),
        ({}, "brows", None),
    ],
)
def test_q2_describes_one_area(labels, area, answer):
    assert answer_q2(labels, area) == answer


def test_absent_aus_are_named_by_chance_so_that_each_gets_its_turn():
    lips = {n: 0 for n, unit in ACTION_UNITS.items() if unit.area == "lips"}
    rng = np.random.default_rng(0)
    named = [read_aus(answer_q2(lips, "lips", rng))[1] for _ in range(100)]
    assert {len(n) for n in named} == {3} and set().union(*named) == set(lips)


def test_answers_read_back_as_their_labels():
    rng = np.random.default_rng(1)
    for _ in range(500):
        labels = random_labels(rng)
        present = {n for n, v in labels.items() if v}
        emotion = str(rng.choice(list(EMOTIONS))) if rng.random() < 0.7 else None
        if answer := answer_q1(sorted(present), emotion):
            assert read_aus(answer) == (present, set())
            assert read_emotion(answer) == emotion
        for area in AREAS:
            here = {n: v for n, v in labels.items() if ACTION_UNITS[n].area == area}
            answer = answer_q2(labels, area, rng)
            if not here:
                assert answer is None
            elif any(here.values()):
                assert read_aus(answer) == ({n for n, v in here.items() if v}, set())
            else:
                told, denied = read_aus(answer)
                assert not told and denied <= set(here) and len(denied) == min(3, len(here))


def test_an_unlabelled_au_is_never_asked_and_never_spoken_of():
    rng = np.random.default_rng(2)
    for _ in range(300):
        labels = random_labels(rng)
        q3 = [n for n in labels if rng.random() < 0.5]
        emotion = str(rng.choice(list(EMOTIONS))) if rng.random() < 0.5 else None
        pairs = face_pairs(labels, emotion, rng, q3)
        present = {n for n, v in labels.items() if v}
        for pair in pairs:
            told, denied = read_aus(pair.text_output)
            assert told <= present and denied <= set(labels) - present
            if pair.question_type == "Q2":
                assert any(ACTION_UNITS[n].area == pair.area for n in labels)
            if pair.question_type == "Q1":
                assert (pair.text_input in Q1_EMOTION) == (emotion is not None)
        assert [(p.au, p.text_output, p.area) for p in pairs if p.question_type == "Q3"] == [
            (n, "yes" if labels[n] else "no", ACTION_UNITS[n].area) for n in q3
        ]
        assert all(
            (p.au is None) == (p.question_type != "Q3") and (p.area is None) == (p.question_type == "Q1")
            for p in pairs
        )
        assert [p.area for p in pairs if p.question_type == "Q2"] == [
            a for a in AREAS if any(ACTION_UNITS[n].area == a for n in labels)
        ]
        assert sum(p.question_type == "Q1" for p in pairs) == bool(present or emotion)


def test_all_wordings_are_used():
    rng = np.random.default_rng(3)
    asked = {pair.text_input for _ in range(60) for pair in face_pairs({12: 1, 1: 0}, "happiness", rng, [12])}
    assert asked == {
        *Q1_EMOTION,
        *(ask_q2(a, k) for a in ("lip corners", "brows") for k in range(3)),
        *(ask_q3(12, k) for k in range(3)),
    }


# -------------------------------------------------------------------------------------------------------------- balanced


def test_balanced_q3_asks_two_no_for_each_yes():
    rng = np.random.default_rng(4)
    labels = np.where(rng.random((200, 5)) < [0.05, 0.5, 0.9, 1.0, 0.3], 1.0, 0.0)
    labels[rng.random(labels.shape) < 0.3] = np.nan
    labels[:, 4] = np.nan
    asked = balanced_q3(labels, rng)
    assert asked.dtype == bool and not asked[np.isnan(labels)].any()
    for k in range(5):
        yes, no = (labels[:, k] == 1).sum(), (labels[:, k] == 0).sum()
        n = min(yes, no // 2)
        assert (labels[asked[:, k], k] == 1).sum() == n and (labels[asked[:, k], k] == 0).sum() == 2 * n
    assert asked.any(axis=0).tolist() == [True, True, True, False, False]


def test_balanced_q3_draws_the_commoner_answer_anew_for_each_seed():
    labels = np.array([[1.0]] * 5 + [[0.0]] * 50)
    first, again, other = (balanced_q3(labels, np.random.default_rng(s)) for s in (0, 0, 1))
    assert (first == again).all() and (first != other).any()
    assert first[:5].all() and other[:5].all()


# --------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("yes", True),
        ("Yes.", True),
        ("  YES, the lip corners are pulled", True),
        ("no", False),
        ("No!", False),
        ("not at all", False),
        ("yesterday", None),
        ("nothing", None),
        ("", None),
        (" \n\t", None),
        ("...", None),
        ("The answer is yes", None),
        ("1", None),
        ("oui", None),
        ("😀", None),
        ("да", None),
    ],
)
def test_read_yes_no(answer, expected):
    assert read_yes_no(answer) is expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The face shows fear.", "fear"),
        ("This person looks AFRAID", "fear"),
        ("happy", "happiness"),
        ("sad, then angry", "sadness"),
        ("angry, then sad", "anger"),
        ("The emotion is a neutral expression", "neutral"),
        ("unhappy", "sadness"),
        ("a joyful face", "happiness"),
        ("unfearing", None),
        ("", None),
        ("?!", None),
        ("悲しい", None),
        ("surprise-surprise", "surprise"),
        ("x" * 1000, None),
    ],
)
def test_read_emotion(answer, expected):
    assert read_emotion(answer) == expected


@pytest.mark.parametrize(
    ("answer", "present", "absent"),
    [
        ("AU12 and AU6 are there.", {6, 12}, set()),
        ("au12", {12}, set()),
        ("AU1", {1}, set()),  # not AU12 or AU10
        ("lip corner puller; no brow lowerer", {12}, {4}),
        ("The person doesn't raise cheek.", set(), {6}),
        ("The person doesn’t raise cheek. The person drops jaw.", {26}, {6}),
        ("There is no dimpler; without a chin raiser", set(), {14, 17}),
        ("The person raises cheek, which suggests no sadness.", {6}, set()),
        ("The person pulls lip corner. The person does not pull lip corner.", {12}, {12}),
        ("", set(), set()),
        ("raise raise raise", set(), set()),
        ("口角を上げる", set(), set()),
    ],
)
def test_read_aus(answer, present, absent):
    assert read_aus(answer) == (present, absent)
