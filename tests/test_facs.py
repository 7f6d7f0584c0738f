"""The vocabulary: numbers, phrases, areas and prototypes."""

import itertools

import pytest

from expvqa_lib.errors import SettingsError
from expvqa_lib.facs import ACTION_UNITS, AREAS, BP4D_AUS, EMOTIONS, action_unit, au_column
from expvqa_lib.synthfacs import AUS


def test_every_unit_is_filed_under_its_number_in_a_known_area():
    assert all(number == unit.number for number, unit in ACTION_UNITS.items())
    assert {unit.area for unit in ACTION_UNITS.values()} == set(AREAS)


@pytest.mark.parametrize(
    ("number", "name", "third_person"),
    [
        (1, "AU1", "raises inner eyebrow"),
        (12, "AU12", "pulls lip corner"),
        (20, "AU20", "stretches lips"),
        (24, "AU24", "presses lips"),
        (43, "AU43", "closes eyes"),
    ],
)
def test_names_and_third_person(number, name, third_person):
    assert ACTION_UNITS[number].name == au_column(number) == name
    assert ACTION_UNITS[number].third_person == third_person


def test_no_phrase_of_a_unit_stands_inside_a_phrase_of_another():
    phrases = {number: (unit.noun, unit.verb, unit.third_person) for number, unit in ACTION_UNITS.items()}
    for a, b in itertools.permutations(ACTION_UNITS, 2):
        for mine, other in itertools.product(phrases[a], phrases[b]):
            assert f" {mine} " not in f" {other} ", f"AU{a} {mine!r} would be read out of AU{b} {other!r}"


def test_bp4d_has_its_twelve_units():
    assert BP4D_AUS == (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)


def test_emotions_are_affectnets_eight_and_their_prototypes_can_be_drawn():
    assert list(EMOTIONS) == [
        "neutral",
        "happiness",
        "sadness",
        "surprise",
        "fear",
        "disgust",
        "anger",
        "contempt",
    ]
    assert all(
        name == emotion.name and set(emotion.prototype) <= set(AUS) for name, emotion in EMOTIONS.items()
    )
    prototypes = [frozenset(emotion.prototype) for emotion in EMOTIONS.values()]
    assert len(set(prototypes)) == len(prototypes)


@pytest.mark.parametrize("number", [3, 0, -1, None, "smile", float("nan"), float("inf")])
def test_an_unknown_number_is_refused_with_the_known_ones(number):
    with pytest.raises(SettingsError, match=r"AU .* is unknown; known are 1, 2, 4"):
        action_unit(number)


def test_a_number_may_come_as_text():
    assert action_unit("12") is ACTION_UNITS[12]
