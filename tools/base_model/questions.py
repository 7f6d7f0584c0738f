"""General knowledge for the base: text about faces, and questions on landmarks, motion, identity and scene.

`passage` makes text alone: facts, a question, its answer. `image_questions` makes questions about a rendered
face that its landmarks, their motion since rest, its identity and its scene answer. Neither uses an AU or
emotion label of an image: the text has the words for action units and their places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from expvqa_lib import questions
from expvqa_lib.facs import ACTION_UNITS, AREAS, EMOTIONS
from expvqa_lib.synthfacs import Face
from tools.base_model.faces import random_face
from tools.base_model.places import AU_PLACES, LANDMARKS, MEASURES, SPANS

GRID = 8
_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
_PLACE = "row {} column {}"


@dataclass(frozen=True)
class ImageQuestion:
    """A question about an image, its answer (None: the place alone is learnt), and its place as landmarks."""

    text: str
    answer: str | None
    places: tuple[int, ...] = ()


def _place(point) -> str:
    column, row = (int(np.clip(v * GRID, 0, GRID - 1)) for v in point)
    return _PLACE.format(_NUMBERS[row], _NUMBERS[column])


def _span_question(rng: np.random.Generator) -> tuple[int, str]:
    """One of `MEASURES` and the question for its span."""
    k = int(rng.integers(len(MEASURES)))
    return k, f"How large is the {MEASURES[k][0]}?"


def _compare_question(rng: np.random.Generator) -> tuple[int, str, int, bool]:
    """One of `MEASURES`, whether it is above or below a span, that span, and whether above."""
    k, limit, more = int(rng.integers(len(MEASURES))), int(rng.choice((1, 2, 3))), bool(rng.integers(2))
    return k, f"Is the {MEASURES[k][0]} {'more' if more else 'less'} than {SPANS[limit]}?", limit, more


def describe(face: Face) -> str:
    """A caption of the identity and the scene, nothing else."""
    who = face.identity
    hair = "no hair" if who.hairstyle == "bald" else f"{who.hairstyle} {who.hair} hair"
    extras = [name for name, there in (("a beard", _has_beard(who)), ("glasses", bool(who.lens))) if there]
    return f"A {_age(who)} {_sex(who)} with {', '.join([hair, *extras])}."


def _age(who) -> str:
    return "young" if who.age < 36 else "middle-aged" if who.age < 58 else "old"


def _sex(who) -> str:
    return "man" if who.male > 0.5 else "woman"


def _has_beard(who) -> bool:
    return who.beard not in ("none", "stubble")


def image_questions(
    face: Face, landmarks: np.ndarray, spans: np.ndarray, size: int, n: int, rng: np.random.Generator
) -> list[ImageQuestion]:
    """Ask `n` questions about a rendered face.

    Args:
        face: its identity and scene are used, its actions are not.
        landmarks: [L, 2] in pixels.
        spans: [len(MEASURES)] from `measure` and `to_spans`.
        size: of the image in pixels.
    """
    points = landmarks / size
    index = {name: k for k, name in enumerate(LANDMARKS)}
    found = []
    for kind in rng.choice(7, n, p=(0.12, 0.08, 0.20, 0.28, 0.20, 0.10, 0.02)):
        if kind == 0:
            k = int(rng.integers(len(LANDMARKS)))
            found.append(ImageQuestion(f"Where is the {LANDMARKS[k]}?", _place(points[k]), (k,)))
        elif kind == 1:  # the words of an AU and the place that they speak of
            au = int(rng.choice(list(AU_PLACES)))
            k = int(rng.choice(AU_PLACES[au]))
            text = f"Where is the {LANDMARKS[k]}? {questions.ask_q3(au, int(rng.integers(3)))}"
            found.append(ImageQuestion(text, _place(points[k]), AU_PLACES[au]))
        elif kind == 2:  # the same without an answer: where to look, not what is there
            if rng.random() < 0.8:
                au = int(rng.choice(list(AU_PLACES)))
                found.append(ImageQuestion(questions.ask_q3(au, int(rng.integers(3))), None, AU_PLACES[au]))
            else:
                area = str(rng.choice(AREAS))
                places = {
                    k for au, where in AU_PLACES.items() if ACTION_UNITS[au].area == area for k in where
                }
                found.append(
                    ImageQuestion(questions.ask_q2(area, int(rng.integers(3))), None, tuple(sorted(places)))
                )
        elif kind == 3:  # yes or no about a measure
            k, text, limit, more = _compare_question(rng)
            yes = spans[k] > limit if more else spans[k] < limit
            found.append(
                ImageQuestion(text, "yes" if yes else "no", tuple(index[name] for name in MEASURES[k][1]))
            )
        elif kind == 4:
            k, text = _span_question(rng)
            found.append(ImageQuestion(text, SPANS[spans[k]], tuple(index[name] for name in MEASURES[k][1])))
        elif kind == 5:
            found.append(ImageQuestion(*_identity_question(face, rng)))
        else:
            found.append(ImageQuestion("Describe this person.", describe(face)))
    return found


def _identity_question(face: Face, rng: np.random.Generator) -> tuple[str, str]:
    who = face.identity
    options = (
        ("Is this a man or a woman?", _sex(who)),
        ("What colour is the hair?", "there is none" if who.hairstyle == "bald" else who.hair),
        ("How is the hair cut?", who.hairstyle),
        ("Does this person wear glasses?", "yes" if bool(who.lens) else "no"),
        ("Does this person have a beard?", "yes" if _has_beard(who) else "no"),
        ("How old is this person?", _age(who)),
        ("Is the skin dark?", "yes" if who.looks.skin > 0.5 else "no"),
        (
            "Where does the head turn?",
            "left" if face.scene.pose[0] < -8 else "right" if face.scene.pose[0] > 8 else "straight",
        ),
        (
            "Which way does the head lean?",
            "left" if face.scene.pose[2] > 3 else "right" if face.scene.pose[2] < -3 else "upright",
        ),
        (
            "Where do the eyes look?",
            "left" if face.gaze[0] < -0.2 else "right" if face.gaze[0] > 0.2 else "ahead",
        ),
        (
            "Where does the light come from?",
            "left" if face.scene.lamp[0] < -0.3 else "right" if face.scene.lamp[0] > 0.3 else "the front",
        ),
    )
    return options[int(rng.integers(len(options)))]


def passage(rng: np.random.Generator) -> tuple[list[str], str, str]:
    """Text alone: facts, a question, and the answer that follows from the facts."""
    kind = rng.random()
    if kind < 0.2:
        word = "yes" if rng.random() < 0.5 else "no"
        return [word], _any_yes_no_question(rng), word
    if kind < 0.35:
        fact, question = _plain_fact(rng)
        return [fact], question, fact
    emotion = str(rng.choice(list(EMOTIONS)))
    aus = [au for au in EMOTIONS[emotion].prototype if rng.random() < 0.85]
    if rng.random() < 0.5:
        aus = rng.choice(list(ACTION_UNITS), int(rng.integers(0, 6)), replace=False).tolist()
    else:
        aus += [
            int(au)
            for au in rng.choice(list(ACTION_UNITS), int(rng.integers(0, 3)), replace=False)
            if au not in aus
        ]
    facts = [ACTION_UNITS[au].third_person for au in aus]
    labels = {au: int(au in aus) for au in ACTION_UNITS}
    if kind < 0.6:
        au = int(rng.choice(aus)) if aus and rng.random() < 0.5 else int(rng.choice(list(ACTION_UNITS)))
        return (
            facts,
            questions.ask_q3(au, int(rng.integers(3))),
            questions.YES if labels[au] else questions.NO,
        )
    if kind < 0.78:
        area = (
            ACTION_UNITS[int(rng.choice(aus))].area if aus and rng.random() < 0.7 else str(rng.choice(AREAS))
        )
        answer = questions.answer_q2(labels, area, rng)
        if rng.random() < 0.5:  # an instruction-aware reader is told of the area only
            facts = [ACTION_UNITS[au].third_person for au in aus if ACTION_UNITS[au].area == area]
            facts += (
                [] if facts else [f"does not {ACTION_UNITS[au].verb}" for au in questions.read_aus(answer)[1]]
            )
        return facts, questions.ask_q2(area, int(rng.integers(3))), answer
    known = rng.random() < 0.75
    if known:
        facts = [*facts, emotion]
    answer = questions.answer_q1(aus, emotion if known else None)
    if answer is None:
        return passage(rng)
    return facts, questions.ask_q1(int(rng.integers(3)), emotion=known), answer


def _any_yes_no_question(rng: np.random.Generator) -> str:
    if rng.random() < 0.7:
        return questions.ask_q3(int(rng.choice(list(ACTION_UNITS))), int(rng.integers(3)))
    if rng.random() < 0.3:
        return str(
            rng.choice(
                ("Does this person wear glasses?", "Does this person have a beard?", "Is the skin dark?")
            )
        )
    return _compare_question(rng)[1]


def _plain_fact(rng: np.random.Generator) -> tuple[str, str]:
    """A fact that answers its question by itself, about a person without an image."""
    face = random_face(rng)
    if rng.random() < 0.25:
        return describe(face), "Describe this person."
    if rng.random() < 0.4:
        answer, question = reversed(_identity_question(face, rng))
        return answer, question
    if rng.random() < 0.5:
        return str(rng.choice(SPANS)), _span_question(rng)[1]
    place = _PLACE.format(*rng.choice(_NUMBERS, 2))
    return place, f"Where is the {LANDMARKS[int(rng.integers(len(LANDMARKS)))]}?"
