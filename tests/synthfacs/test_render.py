"""SynthFACS draws what a face says: each action unit in its area, landmarks where the muscles pull."""

from __future__ import annotations

import numpy as np
import pytest

from expvqa_lib.errors import SettingsError
from expvqa_lib.facs import ACTION_UNITS
from expvqa_lib.synthfacs import (
    AUS,
    BACKGROUNDS,
    EYES,
    HAIR,
    HAIRSTYLES,
    LANDMARKS,
    PRESENT,
    Face,
    Scene,
    au_mask,
    close_gaps,
    random_expression,
    random_identity,
    random_scene,
    render,
)

PLACES = {  # rows and columns of a frontal face at 96 px in which an area's actions show, with their folds
    "brows": (8, 42, 12, 84),
    "eyes and cheeks": (28, 62, 12, 84),
    "nose": (22, 72, 26, 70),
    "lip corners": (52, 82, 16, 80),
    "lips": (50, 84, 26, 70),
    "chin and jaw": (60, 96, 10, 86),
}


def people(n):
    rng = np.random.default_rng(3)
    return [random_identity(rng) for _ in range(n)]


def random_faces(n, **options):
    rng = np.random.default_rng(5)
    faces = []
    for _ in range(n):
        _, aus, lateral = random_expression(rng, **options)
        faces.append(Face(random_identity(rng), random_scene(rng, 1.2), aus, lateral))
    return faces


def move(aus, name, lateral=None):
    """How far the AUs move a landmark of the average face, in pixels: x to the right, y down."""
    k = LANDMARKS.index(name)
    return render(Face(aus=aus, lateral=lateral or {})).landmarks[k] - render(Face()).landmarks[k]


@pytest.mark.parametrize("au", AUS)
def test_each_au_alone_changes_its_area(au):
    top, bottom, left, right = PLACES[ACTION_UNITS[au].area]
    for who in people(6):
        strong, weak = (au_mask(Face(who, Scene(), {au: intensity}), au) for intensity in (1.0, 0.45))
        assert strong.sum() >= 60 and weak.sum() >= 10, f"{strong.sum()} and {weak.sum()} pixels changed"
        assert strong[top:bottom, left:right].sum() >= 0.9 * strong.sum()


def test_every_au_that_the_labels_call_present_can_be_seen():
    for face in random_faces(40, mixed=0.5, extra=0.2):
        for au in (au for au, intensity in face.aus.items() if intensity >= PRESENT):
            assert au_mask(face, au).sum() >= 15, f"AU{au} changes nothing in {face.to_json()}"


def test_any_size_is_the_same_face_and_the_mask_of_an_absent_au_is_empty():
    face = Face(people(1)[0], random_scene(np.random.default_rng(0)), {12: 0.8, 25: 0.5})
    assert not any(au_mask(face, au).any() for au in AUS if au not in face.aus)
    small, large = render(face, 48), render(face, 96)
    assert small.image.shape == (48, 48, 3) and au_mask(face, 12, size=48).shape == (48, 48)
    np.testing.assert_allclose(2 * small.landmarks, large.landmarks, atol=1e-2)


def test_closing_fills_gaps_between_pixels_and_adds_nothing_beyond():
    mask = np.zeros((48, 48), bool)
    mask[10, 5:20] = mask[13, 5:20] = True  # two lines with a gap of two pixels, as of lids
    mask[30, 5:20] = True
    region = close_gaps(mask)
    assert region[10:14, 5:20].all() and region.sum() == 4 * 15 + 15


@pytest.mark.parametrize(
    ("au", "landmark", "dx", "dy"),
    [
        (1, "left inner eyebrow", 0, -1),
        (1, "right inner eyebrow", 0, -1),
        (2, "left outer eyebrow", 0, -1),
        (4, "left inner eyebrow", 1, 1),
        (5, "left upper lid", 0, -1),
        (6, "right cheek", 0, -1),
        (7, "right lower lid", 0, -1),
        (9, "left nose wing", -1, -1),
        (10, "upper lip top", 0, -1),
        (12, "left lip corner", -1, -1),
        (12, "right lip corner", 1, -1),
        (14, "right lip corner", 1, 0),
        (15, "left lip corner", 0, 1),
        (16, "lower lip bottom", 0, 1),
        (17, "chin", 0, -1),
        (18, "left lip corner", 1, 0),
        (20, "left lip corner", -1, 0),
        (22, "upper lip edge", 0, -1),
        (23, "right lip corner", -1, 0),
        (24, "lower lip bottom", 0, -1),
        (25, "lower lip edge", 0, 1),
        (26, "chin", 0, 1),
        (27, "chin", 0, 1),
        (28, "lower lip bottom", 0, -1),
        (43, "left upper lid", 0, 1),
        (43, "right lower lid", 0, -1),
    ],
)
def test_landmarks_move_as_the_muscles_pull(au, landmark, dx, dy):
    x, y = move({au: 1.0}, landmark)
    assert (dx == 0 or x * dx > 0.7) and (dy == 0 or y * dy > 0.7)


def test_a_stronger_au_moves_further_and_a_lateral_one_moves_one_side():
    both, left = move({12: 1.0}, "left lip corner"), move({12: 1.0}, "left lip corner", {12: -1.0})
    assert move({12: 0.4}, "left lip corner")[1] > both[1]
    np.testing.assert_allclose(move({12: 1.0}, "right lip corner", {12: -1.0}), 0, atol=1e-4)
    np.testing.assert_allclose(left, both, atol=1e-4)


def test_an_au_that_cannot_be_drawn_is_refused():
    with pytest.raises(SettingsError, match=r"AU \[8, 21\]"):
        Face(aus={21: 1.0, 8: 0.5, 12: 1.0})


def test_people_use_the_whole_vocabulary_and_stay_in_range():
    drawn = people(400)
    assert {p.hair for p in drawn} == set(HAIR) and {p.eyes for p in drawn} == set(EYES)
    assert {p.hairstyle for p in drawn} == set(HAIRSTYLES) and {p.glasses for p in drawn} == {True, False}
    for p in drawn:
        assert all(0 <= value <= 1 for value in (p.skin, p.age, p.beard))
        assert -1 <= p.mouth_width <= 1
    rng = np.random.default_rng(0)
    assert {random_scene(rng).background for _ in range(100)} == set(BACKGROUNDS)
