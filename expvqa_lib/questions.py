"""Question-answer pairs from labels by rules, and labels read back out of answers.

Q1 asks for the whole face, Q2 for one area, Q3 for one action unit (AU). Answers follow Exp-BLIP's rules: third-person verb phrases of
the present AUs, emotions as "The face shows <emotion>", both fused into one sentence. The first Q1 question is the only wording of the
paper that is public; the other wordings are ours. An unlabelled AU is never asked about and never called absent: what is absent is
named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .errors import SettingsError
from .facs import ACTION_UNITS, AREAS, EMOTIONS, ActionUnit, action_unit

QUESTION_TYPES = ("Q1", "Q2", "Q3")
Q1_EMOTION = (
    "How can this person's emotion be inferred from their facial actions?",
    "Which emotion does this face show, and which facial actions tell so?",
    "What does this person feel, to judge by the face?",
)
Q1_ACTIONS = (
    "Which facial actions does this person show?",
    "Describe all facial actions of this face.",
    "What is this person's face doing?",
)
Q2 = (
    "Which facial actions are there in the {area}?",
    "Describe the facial actions of the {area}.",
    "What happens in the {area} of this face?",
)
Q3 = (
    "Does this person {verb}?",
    "Does AU{number}, {noun}, occur?",
    "Is the {noun} active in this face?",
)
YES, NO = "yes", "no"
NO_A_YES = 2
"""How many Q3 questions are answered no for each that is answered yes."""


@dataclass(frozen=True)
class Pair:
    """One question about one face; `area` for Q2 and Q3, `au` for Q3 only."""

    question_type: str
    text_input: str
    text_output: str
    area: str | None = None
    au: int | None = None


def _wording(wordings: Sequence[str], number: int) -> str:
    if number not in range(len(wordings)):
        raise SettingsError(
            f"wording {number} is unknown; known are {', '.join(map(str, range(len(wordings))))}"
        )
    return wordings[number]


def ask_q1(wording: int = 0, *, emotion: bool = True) -> str:
    """Return a Q1 question; without `emotion` it asks for the actions alone."""
    return _wording(Q1_EMOTION if emotion else Q1_ACTIONS, wording)


def ask_q2(area: str, wording: int = 0) -> str:
    """Return a Q2 question about one of `facs.AREAS`."""
    if area not in AREAS:
        raise SettingsError(f"area {area!r} is unknown; known are {', '.join(AREAS)}")
    return _wording(Q2, wording).format(area=area)


def ask_q3(au: int, wording: int = 0) -> str:
    """Return a Q3 question about one AU."""
    unit = action_unit(au)
    return _wording(Q3, wording).format(verb=unit.verb, noun=unit.noun, number=unit.number)


def _join(phrases: Sequence[str], last: str = "and") -> str:
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} {last} {phrases[-1]}"


def _units(numbers) -> list[ActionUnit]:
    return [ACTION_UNITS[n] for n in sorted(numbers)]


def answer_q1(present: Sequence[int], emotion: str | None) -> str | None:
    """Describe the whole face; None where nothing can be said (no action present and no emotion known).

    Args:
        present: numbers of the AUs that are present.
        emotion: a name of `facs.EMOTIONS` or another word, several joined by "+"; None where it is not labelled.
    """
    feeling = (
        None
        if emotion is None
        else "a neutral expression"
        if emotion == "neutral"
        else _join(emotion.split("+"))
    )
    if present:
        actions = f"The person {_join([u.third_person for u in _units(present)])}"
        return f"{actions}, which suggests {feeling}." if feeling else f"{actions}."
    return f"The face shows {feeling}." if feeling else None


def answer_q2(labels: Mapping[int, int], area: str, rng: np.random.Generator | None = None) -> str | None:
    """Describe one area; None where none of its AUs is labelled. Where nothing is present, up to three absent AUs are named.

    Args:
        labels: 1 or 0 for each labelled AU of the face (an AU that is not in it is unlabelled).
        rng: chooses which absent AUs are named; the first three without it.
    """
    here = {n: v for n, v in labels.items() if ACTION_UNITS[n].area == area}
    if not here:
        return None
    if present := [n for n, v in here.items() if v]:
        return f"The person {_join([u.third_person for u in _units(present)])}."
    absent = sorted(here)
    if len(absent) > 3:
        absent = sorted(rng.choice(absent, 3, replace=False).tolist()) if rng is not None else absent[:3]
    return f"The person does not {_join([u.verb for u in _units(absent)], 'or')}."


def face_pairs(
    labels: Mapping[int, int], emotion: str | None, rng: np.random.Generator, q3: Sequence[int] = ()
) -> list[Pair]:
    """All pairs of one face: Q1 where something can be said, Q2 for each labelled area, Q3 for the AUs in `q3`; wordings by chance.

    Args:
        labels: 1 or 0 for each labelled AU.
        emotion: its name, or None.
        rng: random generator for the wordings.
        q3: labelled AUs to ask one by one (`balanced_q3` chooses them for a whole table).
    """
    pairs = []
    present = [n for n, v in labels.items() if v]
    if answer := answer_q1(present, emotion):
        pairs.append(Pair("Q1", ask_q1(int(rng.integers(3)), emotion=emotion is not None), answer))
    for area in AREAS:
        if answer := answer_q2(labels, area, rng):
            pairs.append(Pair("Q2", ask_q2(area, int(rng.integers(len(Q2)))), answer, area))
    for au in q3:
        answer = YES if labels[au] else NO
        pairs.append(Pair("Q3", ask_q3(au, int(rng.integers(len(Q3)))), answer, ACTION_UNITS[au].area, au))
    return pairs


def balanced_q3(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose which AUs to ask: for each AU as many faces as can be, drawn by chance, so that `NO_A_YES` answers are no for each yes.

    So every AU has the same share of "yes", and the words of a question tell nothing about its answer. Two to one, because AUs are rarer
    still: a model trained on as many of both says yes too readily.

    Args:
        labels: float [faces, AUs]; 1 present, 0 absent, NaN unlabelled.

    Returns:
        bool [faces, AUs]; true where the question is asked. Never where the label is NaN.
    """
    asked = np.zeros(labels.shape, bool)
    for k in range(labels.shape[1]):
        yes, no = np.flatnonzero(labels[:, k] == 1), np.flatnonzero(labels[:, k] == 0)
        n = min(len(yes), len(no) // NO_A_YES)
        for rows, wanted in ((yes, n), (no, NO_A_YES * n)):
            asked[rng.choice(rows, wanted, replace=False) if wanted else [], k] = True
    return asked


# ------------------------------------------------------------------------------------------------------- reading answers

_FOLD, _NOT = re.compile(r"[^a-z0-9]+"), re.compile(r"n['\u2019]t\b")


def _fold(text: str) -> str:
    return f" {_FOLD.sub(' ', _NOT.sub(' not', text.lower())).strip()} "


def read_yes_no(answer: str) -> bool | None:
    """Read yes (True) or no (False) from the first word of an answer; None where it is neither."""
    words = _fold(answer).split()
    return {"yes": True, "no": False, "not": False}.get(words[0]) if words else None


def read_aus(answer: str) -> tuple[set[int], set[int]]:
    """Read the AUs that an answer says are present, and those it says are absent. It may use any form of our phrases."""
    present: set[int] = set()
    absent: set[int] = set()
    for clause in re.split(r"[.;]|, which", answer):
        text = _fold(clause)
        target = absent if re.search(r" (does not|do not|no|not|without) ", text) else present
        for unit in ACTION_UNITS.values():
            if any(_fold(phrase) in text for phrase in (unit.third_person, unit.verb, unit.noun, unit.name)):
                target.add(unit.number)
    return present, absent - present


def read_emotion(answer: str) -> str | None:
    """Read the emotion that an answer names first, by noun or adjective; None where it names none."""
    text = _fold(answer)
    places = {
        emotion.name: min(
            place for word in (emotion.name, emotion.adjective) if (place := text.find(f" {word} ")) >= 0
        )
        for emotion in EMOTIONS.values()
        if f" {emotion.name} " in text or f" {emotion.adjective} " in text
    }
    return min(places, key=places.get) if places else None
