"""Vocabulary, questions, answers by rules, and labels read back out of answers."""

import numpy as np
import pytest

from expvqa_lib import questions as vqa
from expvqa_lib.errors import SettingsError
from expvqa_lib.facs import ACTION_UNITS, AREAS, EMOTIONS, action_unit
from expvqa_lib.questions import answer_q1, answer_q2, ask_q2, ask_q3, read_aus, read_emotion

NUMBERS = list(ACTION_UNITS)


def test_the_papers_own_question_comes_first_and_no_two_questions_are_the_same():
    assert vqa.ask_q1() == "How can this person's emotion be inferred from their facial actions?"
    area_questions = {ask_q2(area, k): area for area in AREAS for k in range(len(vqa.Q2))}
    au_questions = {ask_q3(number, k): number for number in NUMBERS for k in range(len(vqa.Q3))}
    assert all(area in question for question, area in area_questions.items())
    assert all(set.union(*read_aus(question)) == {number} for question, number in au_questions.items())
    questions = {*vqa.Q1_EMOTION, *vqa.Q1_ACTIONS, *area_questions, *au_questions}
    sizes = len(vqa.Q1_EMOTION), len(vqa.Q1_ACTIONS), len(AREAS) * len(vqa.Q2), len(NUMBERS) * len(vqa.Q3)
    assert len(questions) == sum(sizes) and not any("{" in question for question in questions)


@pytest.mark.parametrize(
    ("present", "emotion", "answer"),
    [
        ([12], "happiness", "The person pulls lip corner, which suggests happiness."),
        ([43, 24, 1], None, "The person raises inner eyebrow, presses lips and closes eyes."),
        ([12], "neutral", "The person pulls lip corner, which suggests a neutral expression."),
        ([], "happiness+fear", "The face shows happiness and fear."),
        ([], None, None),
    ],
)
def test_q1_describes_the_whole_face(present, emotion, answer):
    assert answer_q1(present, emotion) == answer


def test_q2_describes_one_area_with_at_most_three_absent_aus():
    labels, lips = {1: 1, 2: 0, 4: 1, 12: 1}, dict.fromkeys((10, 16, 18, 22), 0)
    assert answer_q2(labels, "brows") == "The person raises inner eyebrow and lowers brow."
    absent = "The person does not raise upper lip, depress lower lip or pucker lips."
    assert answer_q2(lips, "lips") == absent and answer_q2({1: 1}, "lips") is None


def test_answers_read_back_as_their_labels_and_an_unlabelled_au_is_never_named():
    rng = np.random.default_rng(2)
    for _ in range(300):
        labelled, share = rng.permutation(NUMBERS)[: rng.integers(len(NUMBERS) + 1)], rng.random()
        labels = {int(n): int(rng.random() < share) for n in labelled}
        q3 = [n for n in labels if rng.random() < 0.5]
        emotion = str(rng.choice(list(EMOTIONS))) if rng.random() < 0.5 else None
        pairs = {"Q1": [], "Q2": [], "Q3": []}
        for kind, *pair in vqa.face_pairs(labels, emotion, rng, q3):
            pairs[kind].append(pair)
        present = {n for n, label in labels.items() if label}
        assert len(pairs["Q1"]) == bool(present or emotion)
        for question, answer in pairs["Q1"]:
            assert read_aus(answer) == (present, set()) and read_emotion(answer) == emotion
            assert (question in vqa.Q1_EMOTION) == (emotion is not None)
        coded = {ACTION_UNITS[n].area for n in labels}
        assert [area for *_, area in pairs["Q2"]] == [area for area in AREAS if area in coded]
        for _, answer, area in pairs["Q2"]:
            here = {n for n in labels if ACTION_UNITS[n].area == area}
            named, denied = read_aus(answer)
            assert named == here & present and denied <= here - present
            assert len(denied) == (0 if named else min(3, len(here)))
        expected = [[("no", "yes")[labels[n]], ACTION_UNITS[n].area, n] for n in q3]
        assert [pair[1:] for pair in pairs["Q3"]] == expected


def test_balanced_q3_draws_two_no_for_each_yes_and_no_unlabelled_au():
    rng = np.random.default_rng(4)
    labels = np.where(rng.random((200, 5)) < [0.05, 0.5, 0.9, 1.0, 0.3], 1.0, 0.0)
    labels[rng.random(labels.shape) < 0.3] = np.nan
    labels[:, 4] = np.nan
    first, again, other = (vqa.balanced_q3(labels, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert (first == again).all() and (first != other).any()
    assert first.dtype == bool and not first[np.isnan(labels)].any()
    for k in range(5):
        yes, no = (labels[:, k] == 1).sum(), (labels[:, k] == 0).sum()
        n = min(yes, no // 2)
        assert (labels[first[:, k], k] == 1).sum() == n and (labels[first[:, k], k] == 0).sum() == 2 * n
    assert first.any(axis=0).tolist() == [True, True, True, False, False]


def test_yes_and_no_are_read_from_the_first_word():
    assert vqa.read_yes_no("  YES, the lip corners are pulled") is True
    assert vqa.read_yes_no("No!") is vqa.read_yes_no("not at all") is False
    assert [vqa.read_yes_no(text) for text in ("yesterday", "The answer is yes", "да", " ")] == [None] * 4


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("This person looks AFRAID", ["fear"]),
        ("sad, then angry", ["sadness", "anger"]),
        ("A joyful face; some fear, and anger.", ["happiness", "fear", "anger"]),
        ("depresses the lip corner with a made-up face", []),
    ],
)
def test_emotions_are_read_in_their_order_and_in_all_their_words(answer, expected):
    assert vqa.read_emotions(answer) == expected
    assert read_emotion(answer) == (expected[0] if expected else None)


@pytest.mark.parametrize("unit", ACTION_UNITS.values(), ids=lambda unit: unit.name)
def test_every_au_is_read_from_its_code_noun_and_verb_in_all_inflections(unit):
    verb, _, thing = unit.verb.partition(" ")
    past = {"stick": "stuck", "show": "show", "drop": "dropped"}.get(verb, verb.removesuffix("e") + "ed")
    for text in (
        answer_q1([unit.number], None),
        f"AU {unit.number:02}",
        f"The {unit.noun} is at work here.",
        f"One sees how they slightly {unit.verb}.",
        f"The person has {past} the {thing}.",
    ):
        assert read_aus(text) == ({unit.number}, set()), text


@pytest.mark.parametrize(
    ("answer", "present", "absent"),
    [
        ("AU12 and au6 are there, AU13 is not known.", set(), {6, 12}),
        ("The person doesn’t raise cheek. The person drops jaw.", {26}, {6}),
        ("Without closing the eyes, the person drops the jaw; the chin is raised.", {17}, {26, 43}),
        ("The person raises cheek, which suggests no sadness.", {6}, set()),
        ("The person pulls lip corner. The person does not pull lip corner.", {12}, {12}),
        ("The person pulls the corners of the lips upward and the cheeks are raised.", {6, 12}, set()),
        ("The corners of her mouth are being pulled up.", {12}, set()),
        ("She is raising the inner eyebrows, tightening both eyelids.", {1, 7}, set()),
        ("The person tightens the lip corners.", {14}, set()),  # not the lips
        ("The person pulls the lip corner, tightens the lids and drops the jaw.", {12, 7, 26}, set()),
    ],
)
def test_present_and_absent_aus_are_read_from_prose(answer, present, absent):
    assert read_aus(answer) == (present, absent)


def test_an_au_is_found_by_its_number_or_text_and_what_is_unknown_is_refused_with_the_known():
    assert all(action_unit(str(number)) is unit for number, unit in ACTION_UNITS.items())
    assert [action_unit(str(number)).number for number in NUMBERS] == NUMBERS
    for number in (3, -1, None, "smile", float("nan"), float("inf")):
        with pytest.raises(SettingsError, match=f"{number!r}.*1, 2, 4"):
            action_unit(number)
    with pytest.raises(SettingsError, match="AU 3 .*1, 2, 4"):
        ask_q3(3)
    with pytest.raises(SettingsError, match="'ears'.*brows"):
        ask_q2("ears")


def test_emotions_have_the_names_of_their_rows_and_different_prototypes():
    names = ["neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt"]
    assert list(EMOTIONS) == names == [emotion.name for emotion in EMOTIONS.values()]
    assert len({frozenset(emotion.prototype) for emotion in EMOTIONS.values()}) == len(EMOTIONS)
