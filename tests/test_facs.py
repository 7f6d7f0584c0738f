"""The vocabulary: numbers, phrases, areas and prototypes."""

import pytest

from expvqa_lib.errors import SettingsError
from expvqa_lib.facs import ACTION_UNITS, AREAS, EMOTIONS, action_unit, au_column


@pytest.mark.parametrize(
    ("number", "phrase"),
    [(1, "raises inner eyebrow"), (20, "stretches lips"), (24, "presses lips"), (43, "closes eyes")],
)
def test_names_and_third_person(number, phrase):
    assert ACTION_UNITS[number].name == au_column(number) == f"AU{number}"
    assert ACTION_UNITS[number].third_person == phrase


def test_units_and_emotions_have_their_names_areas_and_different_prototypes():
    assert all(number == unit.number for number, unit in ACTION_UNITS.items())
    assert {unit.area for unit in ACTION_UNITS.values()} == set(AREAS)
    names = ["neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt"]
    assert list(EMOTIONS) == names and all(name == emotion.name for name, emotion in EMOTIONS.items())
    assert len({frozenset(emotion.prototype) for emotion in EMOTIONS.values()}) == len(EMOTIONS)


def test_a_number_may_be_text_and_an_unknown_one_is_refused_with_the_known_ones():
    assert action_unit("12") is ACTION_UNITS[12]
    for number in (3, -1, None, "smile", float("nan"), float("inf")):
        with pytest.raises(SettingsError, match=f"{number!r}.*1, 2, 4"):
            action_unit(number)
