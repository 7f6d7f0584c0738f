"""SynthFACS renders what a face says: each action unit in its area, landmarks where the muscles pull."""

from dataclasses import replace

import numpy as np
import pytest

from expvqa_lib.errors import SettingsError
from expvqa_lib.facs import ACTION_UNITS
from expvqa_lib.synthfacs import AUS, PRESENT, Face, Scene, random_expression, random_identity, random_scene
from expvqa_lib.synthfacs.render import au_mask, render

PLACES = {  # rows and columns of a frontal face at 96 px in which an area's actions show, with their folds
    "brows": (4, 44, 14, 82),
    "eyes and cheeks": (26, 72, 12, 84),
    "nose": (8, 76, 20, 76),
    "lip corners": (42, 90, 18, 78),
    "lips": (24, 94, 22, 74),
    "chin and jaw": (44, 96, 20, 78),
}


def move(aus, landmark, lateral=None):
    """How far the AUs move a landmark of the average face, in pixels: x to the right, y down."""
    acting, rest = (render(face).landmarks for face in (Face(aus=aus, lateral=lateral or {}), Face()))
    return acting[landmark] - rest[landmark]


@pytest.mark.parametrize("au", AUS)
def test_each_au_alone_changes_its_area(au):
    top, bottom, left, right = PLACES[ACTION_UNITS[au].area]
    rng = np.random.default_rng(3)
    for who in (random_identity(rng) for _ in range(6)):
        strong, weak = (au_mask(Face(who, Scene(), {au: intensity}), au) for intensity in (1.0, 0.45))
        assert strong.sum() >= 40 and weak.sum() >= 10, f"{strong.sum()} and {weak.sum()} pixels changed"
        assert strong[top:bottom, left:right].sum() >= 0.85 * strong.sum()


def test_nearly_every_au_that_the_labels_call_present_can_be_seen():
    rng, changed = np.random.default_rng(5), []
    for _ in range(40):
        _, aus, lateral = random_expression(rng, mixed=0.5, extra=0.2)
        face = Face(random_identity(rng), random_scene(rng, 1.2), aus, lateral)
        for au in (au for au, intensity in aus.items() if intensity >= PRESENT):
            changed.append(au_mask(face, au).sum())
    assert len(changed) > 100 and np.mean(np.array(changed) >= 15) > 0.93  # others: in the dark, blurred


def test_any_size_is_the_same_face_and_the_mask_of_an_absent_au_is_empty():
    rng = np.random.default_rng(3)
    face = Face(random_identity(rng), random_scene(rng), {12: 0.8, 25: 0.5})
    assert not any(au_mask(face, au).any() for au in AUS if au not in face.aus)
    small, large = render(face, 48), render(face, 96)
    assert small.image.shape == (48, 48, 3) and au_mask(face, 12, size=48).shape == (48, 48)
    np.testing.assert_allclose(2 * small.landmarks, large.landmarks, atol=1e-2)


PULLS = {  # (AU, row of iBUG's landmarks, then cheeks) by the direction of the movement: x right, y down
    (0, -1): [(1, 21), (1, 22), (2, 17), (5, 37), (6, 69), (7, 47), (10, 51), (17, 57), (24, 54)],
    (0, 1): [(4, 19), (15, 48), (16, 57), (25, 66), (26, 8), (27, 8), (43, 37), (20, 54)],
    (1, 1): [(4, 21), (9, 21)],
    (-1, -1): [(12, 48), (14, 48)],
    (1, -1): [(12, 54), (14, 54)],
    (1, 0): [(18, 48), (20, 54)],
    (-1, 0): [(20, 48), (18, 54)],
}


@pytest.mark.parametrize("direction", PULLS)
def test_landmarks_move_as_the_muscles_pull(direction):
    dx, dy = direction
    for au, landmark in PULLS[direction]:
        x, y = move({au: 1.0}, landmark)
        assert (dx == 0 or x * dx > 0.7) and (dy == 0 or y * dy > 0.7), f"AU{au} moves {landmark} by {x}, {y}"


def test_a_stronger_au_moves_further_and_a_lateral_one_moves_one_side():
    both, left = move({12: 1.0}, 48), move({12: 1.0}, 48, {12: -1.0})
    assert move({12: 0.4}, 48)[1] > both[1]
    np.testing.assert_allclose(move({12: 1.0}, 54, {12: -1.0}), 0, atol=0.3)
    np.testing.assert_allclose(left, both, atol=0.3)


def test_faces_are_framed_as_photographs_are_cut_out():
    rng = np.random.default_rng(1)
    for who in (random_identity(rng) for _ in range(8)):
        x, y = render(Face(who)).landmarks.T / 96  # iBUG's: the eyes are 36 to 47, the image's left one first
        assert 0.36 < y[36:48].mean() < 0.44 and 0.88 < y[8] < 1
        assert x[36:42].mean() < 0.45 < 0.55 < x[42:48].mean()


def test_light_pose_and_person_change_the_picture_and_the_same_face_never_does():
    rng = np.random.default_rng(2)
    face = Face(random_identity(rng), random_scene(rng), {12: 0.7, 6: 0.5}, {12: 0.3}, (0.2, -0.1))
    again = Face.from_json(face.to_json())
    assert again == face and np.array_equal(render(again).image, render(face).image)
    lit = [replace(face.scene, lamp=(side, -0.8, 0.3), grey=False) for side in (-0.9, 0.9)]
    one, other = (render(replace(face, scene=scene)).image.mean(2)[30:80] for scene in lit)
    assert one[:, 25:48].mean() - other[:, 25:48].mean() > 5 > one[:, 48:71].mean() - other[:, 48:71].mean()
    left, right = (render(Face(scene=Scene(pose=(yaw, 0, 0)))).landmarks for yaw in (-25, 25))
    assert right[30, 0] - right[[0, 16], 0].mean() > 5 > -5 > left[30, 0] - left[[0, 16], 0].mean()


def test_an_au_that_cannot_be_rendered_is_refused():
    with pytest.raises(SettingsError, match=r"AU \[8, 21\]"):
        Face(aus={21: 1.0, 8: 0.5, 12: 1.0})
