"""What a caption tells, and whether it may stand."""

from __future__ import annotations

import numpy as np
import pytest

from expvqa_lib.data.rewriting.checks import faults
from expvqa_lib.facs import ACTION_UNITS, EMOTIONS
from expvqa_lib.questions import answer_q1, read_aus, read_emotions


@pytest.mark.parametrize("unit", ACTION_UNITS.values(), ids=lambda unit: unit.name)
def test_every_action_is_recognised_in_its_verb_and_its_noun_and_as_no_other(unit):
    verb, _, thing = unit.verb.partition(" ")
    past = {"stick": "stuck", "show": "show"}.get(
        verb, verb.removesuffix("e") + ("ped" if verb == "drop" else "ed")
    )
    for text in (
        answer_q1([unit.number], None),
        f"The {unit.noun} is at work here.",
        f"One sees how they slightly {unit.verb}.",
    ):
        assert read_aus(text) == ({unit.number}, set()) and not faults(text, [unit.number])
    assert read_aus(f"The person has {past} the {thing}.")[0] == {unit.number}


def test_what_the_rules_write_may_always_stand():
    rng = np.random.default_rng(0)
    for _ in range(500):
        present = sorted(rng.choice(list(ACTION_UNITS), rng.integers(1, 10), replace=False).tolist())
        emotion = rng.choice([None, "happiness+surprise", *EMOTIONS])
        assert faults(answer_q1(present, emotion), present, emotion) == {}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("The person pulls the corners of the lips upward and the cheeks are raised.", {6, 12}),
        ("The corners of her mouth are being pulled up.", {12}),
        ("She is raising the inner eyebrows, tightening both eyelids.", {1, 7}),
        ("The raised cheek and the pulled lip corner go together.", {6, 12}),
        ("The person tightens the lip corners.", {14}),  # and not the lips
        ("The person tightens the lips.", {23}),
        (
            "The person pulls the lip corner, tightens the lids and drops the jaw.",
            {12, 7, 26},
        ),  # and does not tighten the lip corner
        ("Pressing the lips, the person keeps the jaw dropped.", {24, 26}),
        ("The person raises the cheek and the brow.", {6}),
        ("The person looks at the camera.", set()),
        ("", set()),
    ],
)
def test_actions_are_read_in_all_inflections(text, named):
    assert read_aus(text) == (named, set())


def test_actions_in_a_sentence_with_a_negation_are_denied():
    assert read_aus("The person doesn't raise the cheek. The person drops the jaw.") == ({26}, {6})
    assert read_aus("Without closing the eyes, the person drops the jaw; the chin is raised.") == (
        {17},
        {43, 26},
    )


def test_emotions_are_read_in_all_their_words():
    assert read_emotions("A happy, joyful face; some fear, and anger.") == ["happiness", "fear", "anger"]
    assert read_emotions("An unhappy face") == ["sadness"]
    assert read_emotions("The person depresses the lip corner with a made-up face.") == []


# ---------------------------------------------------------------------------------------------------------------- faults

GOOD = "The person raises the cheek and pulls the lip corner."


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        (GOOD, set()),
        (f"{GOOD} Both go together well.", set()),
        ("The person raises the cheek.", {"missing action"}),
        (f"{GOOD} The person also lowers the brow.", {"invented action"}),
        (f"{GOOD} The forehead is smooth and the nose is long.", {"invented action"}),
        (f"{GOOD} The jaw hangs.", {"invented action"}),
        (f"{GOOD} The person does not drop the jaw.", {"invented action", "denied action"}),
        ("The person raises the cheek without pulling the lip corner.", {"denied action"}),
        ("Here AU6 and AU12 act: " + GOOD, {"code"}),
        ("These are two action units. " + GOOD, {"code"}),
        ("At 100 percent. " + GOOD, {"code"}),
        ("The person smiles. " + GOOD, {"emotion word"}),
        ("The happy " + GOOD, {"emotion word"}),
        (f"{GOOD} This is a sign of positive feelings.", {"emotion word"}),
        (f"{GOOD[:-1]}\n{GOOD}", {"form", "repetition"}),
        (f"- raises the cheek\n- {GOOD}", {"form"}),
        (f"**{GOOD}**", {"form", "length"}),
        (f"{GOOD} {GOOD}", {"repetition"}),
        (f"{GOOD} It is so." + " It is so indeed, really." * 9, {"length", "repetition"}),
        (GOOD[:-1], {"length"}),
        ("面部", {"length", "form", "missing action"}),
        ("", {"length", "form", "missing action"}),
        ("...", {"length", "missing action"}),
        ("the the the the the the the the", {"length", "repetition", "missing action"}),
    ],
)
def test_faults_of_an_action_caption(text, kinds):
    found = faults(text, [6, 12])
    assert set(found) == kinds
    assert all(sentence.endswith(".") for sentence in found.values())


@pytest.mark.parametrize(
    ("text", "emotion", "kinds"),
    [
        (f"{GOOD} This tells of happiness.", "happiness", set()),
        (f"{GOOD} This joyful look and smile is inferred from both.", "happiness", set()),
        (GOOD, "happiness", {"wrong emotion"}),
        (f"{GOOD} This tells of sadness.", "happiness", {"wrong emotion"}),
        (f"{GOOD} This tells of happiness rather than anger.", "happiness", {"wrong emotion"}),
        (f"{GOOD} It is a happy surprise.", "happiness+surprise", set()),
        (f"{GOOD} It is happiness.", "happiness+surprise", {"wrong emotion"}),
        (f"{GOOD} The expression is neutral.", "neutral", set()),
        (f"{GOOD} The person is Frustration itself.", "frustration", set()),
        (f"{GOOD} The person looks sad.", "frustration", {"wrong emotion"}),
        ("The lowered brow tells of happiness.", "happiness", {"missing action", "invented action"}),
    ],
)
def test_faults_of_a_fused_caption(text, emotion, kinds):
    assert set(faults(text, [6, 12], emotion)) == kinds


def test_a_fault_tells_the_writer_what_to_mend():
    found = faults("AU4: the brow lowerer makes an angry face.", [6])
    assert found["missing action"] == "Name these actions in the words of their definitions: raise cheek."
    assert found["invented action"] == "These actions were not given: brow lowerer."
    assert "you wrote anger." in found["emotion word"]
