"""Questions about a face, answers to them by rules from labels, and labels read back out of answers.

Q1 asks about the whole face, Q2 about one area, Q3 about one action unit (AU). The rules are Exp-BLIP's:
present AUs as verb phrases in the third person, the emotion as "The face shows <emotion>", or both in one
sentence. Only the first wording of Q1 is published; the other wordings are ours. An unlabelled AU is neither
asked about nor called absent.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from .errors import SettingsError
from .facs import ACTION_UNITS, AREAS, EMOTIONS, action_unit

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
NO_PER_YES = 2
"""Q3 questions with the answer no for each with the answer yes."""
MOST_ABSENT = 3
"""Absent AUs that an answer names at most."""


def ask_q1(wording: int = 0, *, emotion: bool = True) -> str:
    """Return a Q1 question; without `emotion` it asks about the actions alone."""
    return (Q1_EMOTION if emotion else Q1_ACTIONS)[wording]


def ask_q2(area: str, wording: int = 0) -> str:
    """Return a Q2 question about one of `facs.AREAS`."""
    if area not in AREAS:
        raise SettingsError(f"area {area!r} is unknown; known are {', '.join(AREAS)}")
    return Q2[wording].format(area=area)


def ask_q3(au: int, wording: int = 0) -> str:
    """Return a Q3 question about one AU."""
    unit = action_unit(au)
    return Q3[wording].format(verb=unit.verb, noun=unit.noun, number=unit.number)


def join_phrases(phrases: Sequence[str], last: str = "and") -> str:
    """Join phrases into a list in prose: "a, b and c"."""
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} {last} {phrases[-1]}"


def answer_q1(present: Sequence[int], emotion: str | None) -> str | None:
    """Describe the whole face; None where there is nothing to say (no AU present, no emotion labelled).

    Args:
        present: numbers of the AUs that are present.
        emotion: a name of `facs.EMOTIONS` or another word, several joined by "+"; None where it is not
            labelled.
    """
    feeling = "a neutral expression" if emotion == "neutral" else join_phrases((emotion or "").split("+"))
    if not present:
        return f"The face shows {feeling}." if feeling else None
    actions = f"The person {join_phrases([ACTION_UNITS[n].third_person for n in sorted(present)])}"
    return f"{actions}, which suggests {feeling}." if feeling else f"{actions}."


def answer_q2(labels: Mapping[int, int], area: str, rng: np.random.Generator | None = None) -> str | None:
    """Describe one area, by absent AUs where none is present; None where none of its AUs is labelled.

    Args:
        labels: 1 or 0 for each labelled AU of the face.
        area: one of `facs.AREAS`.
        rng: chooses `MOST_ABSENT` absent AUs; without it, the first are named.
    """
    labels = {n: label for n, label in labels.items() if ACTION_UNITS[n].area == area}
    if not labels:
        return None
    if present := [n for n, label in labels.items() if label]:
        return answer_q1(present, None)
    absent = sorted(labels)
    if rng is not None and len(absent) > MOST_ABSENT:
        absent = sorted(rng.choice(absent, MOST_ABSENT, replace=False).tolist())
    verbs = [ACTION_UNITS[n].verb for n in absent[:MOST_ABSENT]]
    return f"The person does not {join_phrases(verbs, 'or')}."


def face_pairs(
    labels: Mapping[int, int], emotion: str | None, rng: np.random.Generator, q3: Sequence[int] = ()
) -> list[tuple]:
    """Make all pairs of one face: Q1, Q2 for each area with a labelled AU, Q3 for the AUs in `q3`.

    Args:
        labels: 1 or 0 for each labelled AU.
        emotion: see `answer_q1`.
        rng: draws the wordings.
        q3: labelled AUs to ask about one by one (`balanced_q3` chooses them for a whole table).

    Returns:
        Type, question and answer of each pair; of Q2 also the area, of Q3 the area and the AU.
    """
    pairs = []
    if answer := answer_q1([n for n, label in labels.items() if label], emotion):
        pairs.append(("Q1", ask_q1(int(rng.integers(3)), emotion=emotion is not None), answer))
    for area in AREAS:
        if answer := answer_q2(labels, area, rng):
            pairs.append(("Q2", ask_q2(area, int(rng.integers(len(Q2)))), answer, area))
    for au in q3:
        answer = YES if labels[au] else NO
        pairs.append(("Q3", ask_q3(au, int(rng.integers(len(Q3)))), answer, ACTION_UNITS[au].area, au))
    return pairs


def balanced_q3(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the faces for each AU's Q3, as many as possible, with `NO_PER_YES` times as many no as yes.

    Every AU has the same share of yes, so a question's words give nothing away. Two to one, because AUs are
    rare: a model trained on as many of both says yes too readily.

    Args:
        labels: float [faces, AUs]; 1 present, 0 absent, NaN unlabelled.
        rng: draws the faces.

    Returns:
        bool [faces, AUs]: whether to ask; never where the label is NaN.
    """
    chosen = np.zeros(labels.shape, bool)
    for k in range(labels.shape[1]):
        yes, no = np.flatnonzero(labels[:, k] == 1), np.flatnonzero(labels[:, k] == 0)
        n = min(len(yes), len(no) // NO_PER_YES)
        for rows, count in ((yes, n), (no, NO_PER_YES * n)):
            chosen[rng.choice(rows, count, replace=False) if count else [], k] = True
    return chosen


# ------------------------------------------------------------------------------- labels out of answers

EMOTION_WORDS = {
    "neutral": "neutral",
    "happiness": "happy|happi|joy|glad|delight|cheer|amus",
    "sadness": "sad|sorrow|unhapp|grief|griev|melanchol|gloom",
    "surprise": "surpris|astonish|amaze|startl|shock",
    "fear": "fear|afraid|scare|fright|terrif|terror|anxi",
    "disgust": "disgust|revuls|repuls|revolt",
    "anger": "anger|angry|angri|furious|fury|rage|irritat|annoy",
    "contempt": "contempt|disdain|scorn",
}
"""Beginnings of the words for each emotion."""
_EMOTIONS = {name: re.compile(rf"\b(?:{EMOTION_WORDS[name]})\w*", re.IGNORECASE) for name in EMOTIONS}
_NEGATION = re.compile(r"\b(?:no|not|none|without|neither|nor|never|absent|cannot)\b|n['’]t\b", re.IGNORECASE)
_SKIPPED = re.compile(r"the|an?|his|her|its|their|this|both|is|are|be|being|upwards?|up|.*ly")
_OF = re.compile(r"\b(\w+) of (?:(?:the|his|her|their|both) )*(\w+)")
_CODE = re.compile(r"\bau[ _-]?0*(\d+)")


def read_yes_no(answer: str) -> bool | None:
    """Read yes (True) or no (False) from the first word of an answer; None where it is neither."""
    word = re.match(r"[^a-z0-9]*(yes|no|not)(?![a-z0-9])", answer.lower())
    return None if word is None else word[1] == YES


def read_aus(answer: str) -> tuple[set[int], set[int]]:
    """Read the AUs that a text calls present, and those that it calls absent, in any inflection.

    A clause with a negation calls its AUs absent. An AU is in both sets where the text contradicts itself.
    """
    present, absent = set(), set()
    for clause in re.split(r"[.!?;]|, which", answer):
        numbers = {_PHRASES[phrase] for phrase in _ACTION.findall(f" {' '.join(_stems(clause))} ")}
        (absent if _NEGATION.search(clause) else present).update(numbers)
    return present, absent


def read_emotions(answer: str) -> list[str]:
    """Read the emotions that a text names, by `EMOTION_WORDS`, in the order of their mention."""
    places = {name: word.start() for name, words in _EMOTIONS.items() if (word := words.search(answer))}
    return sorted(places, key=places.get)


def read_emotion(answer: str) -> str | None:
    """Read the emotion that a text names first; None where it names none."""
    return next(iter(read_emotions(answer)), None)


def _stem(word: str) -> str:
    """Fold the inflections of one word: raises, raised and raising; press and presses."""
    word = {"stuck": "stick", "eyelid": "lid", "eyelids": "lid"}.get(word, word.replace("eyebrow", "brow"))
    short = re.sub(r"(?:ing|ed|es|s|e)$", "", word) if len(word) > 3 else word
    return re.sub(r"([a-z])\1$", r"\1", short)


def _stems(text: str) -> list[str]:
    """Split a text into stems and punctuation; `the corners of the lips` becomes `lip corner`."""
    text = _OF.sub(r"\2 \1", _CODE.sub(r"au\1", text.lower())).replace("mouth corner", "lip corner")
    words = re.findall(r"au\d+|[a-z]+|[^\sa-z]", text)
    return [_stem(word) for word in words if not _SKIPPED.fullmatch(word)]


_PHRASES = {
    " ".join(_stems(words)): unit.number
    for unit in ACTION_UNITS.values()
    for words in (unit.name, unit.noun, unit.verb, " ".join(unit.verb.split()[1:] + unit.verb.split()[:1]))
}
"""The ways to name an AU, in stems: code, noun, verb and object, object and verb."""
# the longest first, so that "tightens lip corner" is not also "tightens lips"
_ACTION = re.compile(rf" ({'|'.join(sorted(_PHRASES, key=len, reverse=True))})(?= )")
