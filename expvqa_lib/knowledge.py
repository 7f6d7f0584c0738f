"""What a generic model would know: text about faces, and questions on landmarks, identity, parts and scene.

`passage` makes text only: facts, a question, its answer. `image_questions` asks about a drawn face what its landmarks, its identity and its
scene answer. Neither looks at an AU or emotion label of an image: of action units the text knows the words and the places.
"""

from __future__ import annotations

import numpy as np

from . import questions
from .corpora.drawing import LANDMARKS
from .corpora.faces import AUS, Face, random_identity, random_scene
from .facs import ACTION_UNITS, AREAS, EMOTIONS

GRID = 8
_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
_PLACE = "row {} column {}"
DISTANCES = tuple(
    (f"{side} {a}", f"{side} {b}")
    for side in ("left", "right")
    for a, b in (
        ("brow inner", "eye inner"),
        ("brow middle", "eye iris"),
        ("brow outer", "eye outer"),
        ("eye upper lid", "eye lower lid"),
        ("eye lower lid", "cheek"),
        ("nose wing", "eye inner"),
        ("mouth corner", "eye outer"),
        ("mouth corner", "jaw"),
        ("upper lip", "lower lip"),
    )
) + (
    ("left brow inner", "right brow inner"),
    ("left mouth corner", "right mouth corner"),
    ("left nose wing", "right nose wing"),
    ("nose tip", "upper lip top"),
    ("upper lip top", "upper lip edge"),
    ("upper lip edge", "lower lip edge"),
    ("lower lip edge", "lower lip bottom"),
    ("lower lip bottom", "chin"),
    ("nose tip", "chin"),
)
"""Pairs of landmarks whose distance is asked: small, medium or large among all faces."""

SPANS = ("very small", "small", "medium", "large", "very large")

AU_PLACES = (
    {
        1: "brow inner",
        2: "brow outer",
        4: "brow inner",
        5: "eye upper lid",
        6: "cheek",
        7: "eye lower lid",
        9: "nose wing",
        10: "upper lip",
        11: "nose wing",
        12: "mouth corner",
        14: "mouth corner",
        15: "mouth corner",
        16: "lower lip",
        20: "mouth corner",
        22: "upper lip",
        23: "upper lip",
        24: "lower lip",
        43: "eye upper lid",
    }
    | dict.fromkeys((18, 19, 25, 28), "upper lip edge")
    | dict.fromkeys((17, 26, 27), "chin")
)
"""Which landmark an AU's name speaks of (on both sides where there are two)."""


def _place(point) -> str:
    column, row = (int(np.clip(v * GRID, 0, GRID - 1)) for v in point)
    return _PLACE.format(_NUMBERS[row], _NUMBERS[column])


def random_face(rng: np.random.Generator) -> Face:
    """A face that moves at random: each drawable AU by chance, at any strength, so that expressions carry no label and no emotion."""
    moved = rng.choice(AUS, size=rng.integers(0, 6), replace=False)
    aus = {int(au): float(rng.uniform(0.1, 1.0)) for au in moved}
    lateral = {au: float(np.clip(rng.normal(0, 0.3), -1, 1)) for au in aus}
    return Face(random_identity(rng), random_scene(rng, spread=1.2), aus, lateral)


def _compare(pair: int, word: str, limit: int) -> str:
    a, b = DISTANCES[pair]
    return f"Is the distance from {a} to {b} more {word} than {SPANS[limit]}?"


def describe(face: Face) -> str:
    """A caption of the identity and the scene, nothing else."""
    who = face.identity
    hair = "no hair" if who.hairstyle == "bald" else f"{who.hairstyle} {who.hair} hair"
    extras = [name for name, there in (("a beard", who.beard > 0), ("glasses", who.glasses)) if there]
    return f"A {_age(who)} person with {', '.join([hair, f'{who.eyes} eyes', *extras])} before a {face.scene.background} wall."


def _age(who) -> str:
    return "young" if who.age < 0.35 else "middle-aged" if who.age < 0.65 else "old"


def distance_bounds(landmarks: np.ndarray) -> np.ndarray:
    """Quintile bounds [len(DISTANCES), 4] of the distances over many faces; landmarks [n, L, 2]."""
    return np.stack([np.quantile(d, (0.2, 0.4, 0.6, 0.8)) for d in _distances(landmarks)])


def _distances(landmarks: np.ndarray) -> list[np.ndarray]:
    index = {name: k for k, name in enumerate(LANDMARKS)}
    return [np.linalg.norm(landmarks[..., index[a], :] - landmarks[..., index[b], :], axis=-1) for a, b in DISTANCES]


def image_questions(
    face: Face, landmarks: np.ndarray, bounds: np.ndarray, size: int, n: int, rng: np.random.Generator
) -> list[tuple[str, str]]:
    """Ask `n` questions about a drawn face: pairs of question and answer.

    Args:
        face: its identity and scene are used, its actions are not.
        landmarks: [L, 2] in pixels.
        bounds: from `distance_bounds`.
        size: of the image in pixels.
    """
    points = landmarks / size
    spans = [int(np.searchsorted(b, d)) for b, d in zip(bounds, _distances(landmarks), strict=True)]
    found = []
    for kind in rng.choice(6, n, p=(0.16, 0.16, 0.32, 0.14, 0.17, 0.05)):
        if kind == 0:
            k = int(rng.integers(len(LANDMARKS)))
            found.append((f"Where is the {LANDMARKS[k]}?", _place(points[k])))
        elif kind == 1:  # the words of an AU and the place that they speak of
            au = int(rng.choice(AUS))
            sides = [k for k, name in enumerate(LANDMARKS) if name.endswith(AU_PLACES[au]) and name != "lower lip bottom"]
            k = sides[int(rng.integers(len(sides)))]
            unit = ACTION_UNITS[au]
            words = questions.Q3[int(rng.integers(3))].format(verb=unit.verb, noun=unit.noun, number=au)
            side = f" on the {LANDMARKS[k].split()[0]}" if len(sides) > 1 else ""
            found.append((f"Where would one look{side}? {words}", _place(points[k])))
        elif kind == 2:
            k = int(rng.integers(len(DISTANCES)))
            question = f"How far is the {DISTANCES[k][0]} from the {DISTANCES[k][1]}?"
            found.append((question, SPANS[spans[k]]))
        elif kind == 3:  # yes or no about a distance
            k, limit = int(rng.integers(len(DISTANCES))), int(rng.choice((1, 2, 3)))
            word = "large" if (upper := bool(rng.integers(2))) else "small"
            yes = spans[k] > limit if upper else spans[k] < limit
            found.append((_compare(k, word, limit), "yes" if yes else "no"))
        elif kind == 4:
            found.append(_identity_question(face, rng))
        else:
            found.append(("Describe this person.", describe(face)))
    return found


def _identity_question(face: Face, rng: np.random.Generator) -> tuple[str, str]:
    who = face.identity
    options = (
        ("What colour are the eyes?", who.eyes),
        ("What colour is the hair?", "there is none" if who.hairstyle == "bald" else who.hair),
        ("How is the hair cut?", who.hairstyle),
        ("What colour is the wall?", face.scene.background),
        ("Does this person wear glasses?", "yes" if who.glasses else "no"),
        ("Does this person have a beard?", "yes" if who.beard > 0 else "no"),
        ("How old is this person?", _age(who)),
        ("Is the skin dark?", "yes" if who.skin > 0.5 else "no"),
        ("Where does the head turn?", "left" if face.scene.yaw < -0.2 else "right" if face.scene.yaw > 0.2 else "straight"),
        ("Which way does the head lean?", "left" if face.scene.roll > 3 else "right" if face.scene.roll < -3 else "upright"),
        (
            "Where does the light come from?",
            "left" if face.scene.light_x < -0.05 else "right" if face.scene.light_x > 0.05 else "the front",
        ),
    )
    return options[int(rng.integers(len(options)))]


def passage(rng: np.random.Generator) -> tuple[list[str], str, str]:
    """Text only: facts that a reader is told, a question, and the answer that follows from the facts."""
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
        aus += [int(au) for au in rng.choice(list(ACTION_UNITS), int(rng.integers(0, 3)), replace=False) if au not in aus]
    facts = [ACTION_UNITS[au].third_person for au in aus]
    labels = {au: int(au in aus) for au in ACTION_UNITS}
    if kind < 0.6:
        au = int(rng.choice(aus)) if aus and rng.random() < 0.5 else int(rng.choice(list(ACTION_UNITS)))
        return facts, questions.ask_q3(au, int(rng.integers(3))), questions.YES if labels[au] else questions.NO
    if kind < 0.78:
        area = ACTION_UNITS[int(rng.choice(aus))].area if aus and rng.random() < 0.7 else str(rng.choice(AREAS))
        answer = questions.answer_q2(labels, area, rng)
        if rng.random() < 0.5:  # an instruction-aware reader is told of the area only
            facts = [ACTION_UNITS[au].third_person for au in aus if ACTION_UNITS[au].area == area]
            facts += [] if facts else [f"does not {ACTION_UNITS[au].verb}" for au in questions.read_aus(answer)[1]]
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
        return str(rng.choice(("Does this person wear glasses?", "Does this person have a beard?", "Is the skin dark?")))
    return _compare(int(rng.integers(len(DISTANCES))), str(rng.choice(("large", "small"))), int(rng.choice((1, 2, 3))))


def _plain_fact(rng: np.random.Generator) -> tuple[str, str]:
    """A fact that answers its question by itself, about a person who is not seen."""
    face = random_face(rng)
    if rng.random() < 0.25:
        return describe(face), "Describe this person."
    if rng.random() < 0.4:
        answer, question = reversed(_identity_question(face, rng))
        return answer, question
    if rng.random() < 0.5:
        a, b = DISTANCES[int(rng.integers(len(DISTANCES)))]
        return str(rng.choice(SPANS)), f"How far is the {a} from the {b}?"
    place = _PLACE.format(*rng.choice(_NUMBERS, 2))
    return place, f"Where is the {LANDMARKS[int(rng.integers(len(LANDMARKS)))]}?"
