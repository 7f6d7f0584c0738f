"""SynthFACS draws what a face says: each action unit in its area, landmarks where the muscles pull."""

import numpy as np
import pytest

from expvqa_lib.errors import SettingsError
from expvqa_lib.facs import ACTION_UNITS
from expvqa_lib.synthfacs import AUS, PRESENT, Face, Scene, random_expression, random_identity, random_scene
from expvqa_lib.synthfacs.render import LANDMARKS, au_mask, close_gaps, render

PLACES = {  # rows and columns of a frontal face at 96 px in which an area's actions show, with their folds
    "brows": (8, 42, 12, 84),
    "eyes and cheeks": (28, 62, 12, 84),
    "nose": (22, 72, 26, 70),
    "lip corners": (52, 82, 16, 80),
    "lips": (50, 84, 26, 70),
    "chin and jaw": (60, 96, 10, 86),
}


def move(aus, name, lateral=None):
    """How far the AUs move a landmark of the average face, in pixels: x to the right, y down."""
    k = LANDMARKS.index(name)
    return render(Face(aus=aus, lateral=lateral or {})).landmarks[k] - render(Face()).landmarks[k]


@pytest.mark.parametrize("au", AUS)
def test_each_au_alone_changes_its_area(au):
    top, bottom, left, right = PLACES[ACTION_UNITS[au].area]
    rng = np.random.default_rng(3)
    for who in (random_identity(rng) for _ in range(6)):
        strong, weak = (au_mask(Face(who, Scene(), {au: intensity}), au) for intensity in (1.0, 0.45))
        assert strong.sum() >= 60 and weak.sum() >= 10, f"{strong.sum()} and {weak.sum()} pixels changed"
        assert strong[top:bottom, left:right].sum() >= 0.9 * strong.sum()


def test_every_au_that_the_labels_call_present_can_be_seen():
    rng = np.random.default_rng(5)
    for _ in range(40):
        _, aus, lateral = random_expression(rng, mixed=0.5, extra=0.2)
        face = Face(random_identity(rng), random_scene(rng, 1.2), aus, lateral)
        for au in (au for au, intensity in aus.items() if intensity >= PRESENT):
            assert au_mask(face, au).sum() >= 15, f"AU{au} changes nothing in {face.to_json()}"


def test_any_size_is_the_same_face_and_the_mask_of_an_absent_au_is_empty():
    rng = np.random.default_rng(3)
    face = Face(random_identity(rng), random_scene(rng), {12: 0.8, 25: 0.5})
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


PULLS = {  # AU and landmark by the direction of the movement: x to the right, y down
    (0, -1): "1 left inner eyebrow, 1 right inner eyebrow, 2 left outer eyebrow, 5 left upper lid,"
    "6 right cheek, 7 right lower lid, 10 upper lip top, 17 chin, 22 upper lip edge, 24 lower lip bottom,"
    "28 lower lip bottom, 43 right lower lid",
    (0, 1): "15 left lip corner, 16 lower lip bottom, 25 lower lip edge, 26 chin, 27 chin, 43 left upper lid",
    (1, 1): "4 left inner eyebrow",
    (-1, -1): "9 left nose wing, 12 left lip corner",
    (1, -1): "12 right lip corner",
    (1, 0): "14 right lip corner, 18 left lip corner",
    (-1, 0): "20 left lip corner, 23 right lip corner",
}


@pytest.mark.parametrize("direction", PULLS)
def test_landmarks_move_as_the_muscles_pull(direction):
    dx, dy = direction
    for pull in PULLS[direction].split(","):
        au, _, landmark = pull.strip().partition(" ")
        x, y = move({int(au): 1.0}, landmark)
        assert (dx == 0 or x * dx > 0.7) and (dy == 0 or y * dy > 0.7), pull


def test_a_stronger_au_moves_further_and_a_lateral_one_moves_one_side():
    both, left = move({12: 1.0}, "left lip corner"), move({12: 1.0}, "left lip corner", {12: -1.0})
    assert move({12: 0.4}, "left lip corner")[1] > both[1]
    np.testing.assert_allclose(move({12: 1.0}, "right lip corner", {12: -1.0}), 0, atol=1e-4)
    np.testing.assert_allclose(left, both, atol=1e-4)


def test_an_au_that_cannot_be_drawn_is_refused():
    with pytest.raises(SettingsError, match=r"AU \[8, 21\]"):
        Face(aus={21: 1.0, 8: 0.5, 12: 1.0})
