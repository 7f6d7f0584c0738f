"""SynthFACS: what is drawn is what the labels say."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from expvqa_lib.data.table import SPLITS, au_labels, labelled_aus
from expvqa_lib.errors import SettingsError
from expvqa_lib.facs import ACTION_UNITS, BP4D_AUS, EMOTIONS
from expvqa_lib.synthfacs import corpora as synthetic
from expvqa_lib.synthfacs.corpora import CorpusSizes, drawn_aus, make, random_expression
from expvqa_lib.synthfacs.face import (
    AUS,
    BACKGROUNDS,
    EYES,
    HAIR,
    HAIRSTYLES,
    Face,
    Identity,
    Scene,
    random_identity,
    random_scene,
)
from expvqa_lib.synthfacs.render import LANDMARKS, au_mask, closed, render

SEEN = Scene()  # frontal, evenly lit, without noise
PLACES = {  # rows and columns of a frontal face at 96 px in which an area's actions show, with their folds
    "brows": (8, 42, 12, 84),
    "eyes and cheeks": (28, 62, 12, 84),
    "nose": (22, 72, 26, 70),
    "lip corners": (52, 82, 16, 80),
    "lips": (50, 84, 26, 70),
    "chin and jaw": (60, 96, 10, 86),
}


def people(n: int) -> list[Identity]:
    rng = np.random.default_rng(3)
    return [random_identity(rng) for _ in range(n)]


def random_faces(n: int, **options) -> list[Face]:
    rng = np.random.default_rng(5)
    found = []
    for _ in range(n):
        _, aus, lateral = random_expression(rng, **options)
        found.append(Face(random_identity(rng), random_scene(rng, 1.2), aus, lateral))
    return found


def move(aus: dict[int, float], name: str, lateral: dict[int, float] | None = None) -> np.ndarray:
    """How far the AUs move a landmark of the average face, in pixels: x to the right, y down."""
    k = LANDMARKS.index(name)
    return render(Face(aus=aus, lateral=lateral or {})).landmarks[k] - render(Face()).landmarks[k]


# ---------------------------------------------------------------------------------------------------------- the renderer


def test_the_same_face_gives_the_same_pixels_and_another_seed_another_noise():
    face = random_faces(1)[0]
    noisy = replace(face, scene=replace(face.scene, noise=4.0, seed=1))
    first, again, other = (
        render(noisy),
        render(noisy),
        render(replace(noisy, scene=replace(noisy.scene, seed=2))),
    )
    assert np.array_equal(first.image, again.image) and np.array_equal(first.landmarks, again.landmarks)
    assert not np.array_equal(first.image, other.image)
    assert np.abs(first.image.astype(int) - other.image).mean() < 10  # the noise only


@pytest.mark.parametrize("size", [48, 96, 112])
def test_any_size_is_the_same_face(size):
    face = random_faces(1)[0]
    drawn, reference = render(face, size), render(face, 96)
    assert drawn.image.shape == (size, size, 3) and drawn.image.dtype == np.uint8
    assert drawn.landmarks.shape == (len(LANDMARKS), 2) and drawn.landmarks.dtype == np.float32
    np.testing.assert_allclose(drawn.landmarks / size, reference.landmarks / 96, atol=1e-4)


def test_the_json_of_a_face_draws_it_again():
    for face in random_faces(5):
        again = Face.from_json(face.to_json())
        assert again == face
        assert np.array_equal(render(again).image, render(face).image)


@pytest.mark.parametrize("au", AUS)
def test_each_au_alone_changes_its_area(au):
    top, bottom, left, right = PLACES[ACTION_UNITS[au].area]
    for who in people(6):
        strong = au_mask(Face(who, SEEN, {au: 1.0}), au)
        weak = au_mask(Face(who, SEEN, {au: 0.45}), au)
        assert strong.sum() >= 60 and weak.sum() >= 10, f"{strong.sum()} and {weak.sum()} pixels changed"
        assert strong[top:bottom, left:right].sum() >= 0.9 * strong.sum()


def test_every_au_that_the_labels_call_present_can_be_seen():
    for face in random_faces(40, mixed=0.5, extra=0.2):
        for au, intensity in face.aus.items():
            if intensity >= synthetic.PRESENT:
                assert au_mask(face, au).sum() >= 15, f"AU{au} changes nothing in {face.to_json()}"


def test_the_mask_of_an_absent_au_is_empty():
    face = Face(people(1)[0], random_scene(np.random.default_rng(0)), {12: 0.8, 25: 0.5})
    assert not any(au_mask(face, au).any() for au in AUS if au not in face.aus)
    assert au_mask(face, 12).dtype == bool and au_mask(face, 12, size=48).shape == (48, 48)


def test_a_region_has_the_gaps_that_its_pixels_enclose_and_nothing_beyond():
    mask = np.zeros((48, 48), bool)
    mask[10, 5:20] = mask[13, 5:20] = True  # two lines with a gap of two pixels, as of lids
    mask[30, 5:20] = True
    region = closed(mask)
    assert region[10:14, 5:20].all() and region.sum() == 4 * 15 + 15


@pytest.mark.parametrize(
    ("au", "landmark", "dx", "dy"),
    [
        (1, "left inner eyebrow", 0, -1),
        (1, "right inner eyebrow", 0, -1),
        (2, "left outer eyebrow", 0, -1),
        (4, "left inner eyebrow", 1, 1),
        (4, "right inner eyebrow", -1, 1),
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
    assert dx == 0 or x * dx > 0.7
    assert dy == 0 or y * dy > 0.7


def test_au43_closes_the_lids():
    landmarks = {name: render(Face(aus={43: 1.0})).landmarks[k] for k, name in enumerate(LANDMARKS)}
    for side in ("left", "right"):
        assert abs(landmarks[f"{side} upper lid"] - landmarks[f"{side} lower lid"]).max() < 1.0


def test_a_stronger_au_moves_further_and_a_lateral_one_moves_one_side():
    assert move({12: 0.4}, "left lip corner")[1] > move({12: 0.9}, "left lip corner")[1]
    np.testing.assert_allclose(move({12: 1.0}, "right lip corner", {12: -1.0}), 0, atol=1e-4)
    np.testing.assert_allclose(
        move({12: 1.0}, "left lip corner", {12: -1.0}), move({12: 1.0}, "left lip corner"), atol=1e-4
    )


def test_landmarks_lie_inside_the_image():
    rng = np.random.default_rng(1)
    for who in people(60):
        landmarks = render(Face(who, random_scene(rng, 1.2))).landmarks
        assert (landmarks >= 0).all() and (landmarks <= 96).all(), (
            f"{LANDMARKS[int(np.argmax(landmarks.max(1)))]}: {landmarks.max()}"
        )


def test_an_au_that_cannot_be_drawn_is_refused():
    with pytest.raises(SettingsError, match=r"AU \[8, 21\] cannot be drawn; SynthFACS draws"):
        Face(aus={21: 1.0, 8: 0.5, 12: 1.0})


def test_without_takes_one_au_away():
    face = Face(aus={12: 0.8, 6: 0.5})
    assert face.without(12).aus == {6: 0.5} and face.aus == {12: 0.8, 6: 0.5}
    assert face.without(4) == face


def test_people_use_the_whole_vocabulary_and_stay_in_range():
    found = people(400)
    assert {p.hair for p in found} == set(HAIR) and {p.eyes for p in found} == set(EYES)
    assert {p.hairstyle for p in found} == set(HAIRSTYLES) and {p.glasses for p in found} == {True, False}
    assert all(
        0 <= p.skin <= 1 and 0 <= p.age <= 1 and 0 <= p.beard <= 1 and -1 <= p.mouth_width <= 1 for p in found
    )
    rng = np.random.default_rng(0)
    assert {random_scene(rng).background for _ in range(100)} == set(BACKGROUNDS)


# ----------------------------------------------------------------------------------------------------------- expressions


def test_conflicting_aus_are_never_drawn_together(faces):
    opposite = [
        {18, 20},
        {22, 23},
        {26, 27},
        {43, 5},
        {43, 7},
        {12, 15},
        {24, 25},
        {28, 25},
        {24, 26},
        {28, 19},
        {24, 27},
    ]
    drawn = [set(face.aus) for face in random_faces(600, mixed=0.7, extra=0.3)] + [
        set(drawn_aus(row)) for row in faces.to_dict("records")
    ]
    assert not [aus for aus in drawn if any(pair <= aus for pair in opposite)]
    assert not [
        aus for aus in drawn if any(frozenset((a, b)) in synthetic._CONFLICTS for a in aus for b in aus)
    ]


def test_expressions_follow_their_emotion_with_aus_dropped_and_added():
    rng = np.random.default_rng(0)
    found = [random_expression(rng) for _ in range(800)]
    assert {emotion for emotion, _, _ in found} == set(EMOTIONS)
    assert all(0.45 <= v <= 1 for _, aus, _ in found for v in aus.values())
    assert all(
        set(aus) == set(lateral) and all(-1 <= side <= 1 for side in lateral.values())
        for _, aus, lateral in found
    )
    exact = 0
    for emotion, aus, lateral in found:
        prototype = set(EMOTIONS[emotion].prototype)
        assert len(prototype & set(aus)) >= min(2, len(prototype)), f"{sorted(aus)} is no {emotion}"
        exact += set(aus) == prototype
        if emotion == "contempt":
            assert all(abs(lateral[au]) > 0.5 for au in prototype & set(aus))  # one-sided
    assert 0.1 < exact / len(found) < 0.7


def test_a_dropped_jaw_parts_the_lips():
    drawn = [face.aus for face in random_faces(400, extra=0.3) if {26, 27} & set(face.aus)]
    assert drawn and all(25 in aus for aus in drawn)


# --------------------------------------------------------------------------------------------------------------- corpora


def test_no_subject_and_no_identity_stands_in_two_splits(faces):
    assert (faces.groupby(["dataset", "subject"])["split"].nunique() == 1).all()
    identity = faces["face"].map(lambda text: json.dumps(json.loads(text)["identity"], sort_keys=True))
    assert (faces.groupby(identity)["split"].nunique() == 1).all()
    assert faces.groupby(identity)["dataset"].nunique().eq(1).all()
    assert set(faces["split"]) == set(SPLITS)


def test_the_corpora_have_the_shapes_of_the_real_ones(faces):
    lab, wild, emotion = (faces[faces["dataset"] == f"synth_{name}"] for name in ("lab", "wild", "emotion"))
    assert labelled_aus(lab) == list(BP4D_AUS) and lab["emotion"].isna().all()
    assert lab[[f"AU{n}" for n in BP4D_AUS]].notna().all(axis=None)
    assert (lab.groupby("subject")["frame"].nunique() == 12).all()
    assert len(labelled_aus(wild)) >= 21 and wild["emotion"].notna().all() and wild["subject"].is_unique
    assert labelled_aus(emotion) == [] and emotion["emotion"].notna().all() and emotion["subject"].is_unique
    assert faces["split"].value_counts().to_dict() == {
        "train": 3 * 12 + 24,
        "validation": 12 + 6,
        "test": 3 * 12 + 24,
    }


def test_labels_are_the_drawn_intensities_from_present_on(faces):
    traces = 0
    for row in faces.to_dict("records"):
        aus = Face.from_json(row["face"]).aus
        for au, label in au_labels(row).items():
            assert row[f"AU{au}_intensity"] == pytest.approx(aus.get(au, 0.0))
            assert label == int(aus.get(au, 0.0) >= synthetic.PRESENT)
            traces += 0 < aus.get(au, 0.0) < synthetic.PRESENT
    assert traces  # a video passes through them


def test_a_row_draws_its_own_picture_and_landmarks(faces):
    for row in faces.sample(6, random_state=0).to_dict("records"):
        drawn = render(Face.from_json(row["face"]), 48)
        assert np.array_equal(np.asarray(Image.open(row["image"])), drawn.image)
        np.testing.assert_allclose(np.reshape(row["landmarks"], (-1, 2)), drawn.landmarks, rtol=1e-6)


SMALL = CorpusSizes(
    lab_train=1,
    lab_validation=0,
    lab_test=0,
    videos=1,
    wild_train=3,
    wild_validation=0,
    wild_test=2,
    emotion_train=2,
    emotion_validation=0,
    emotion_test=0,
    image=32,
)


def test_make_draws_once_and_again_for_other_settings(tmp_path):
    folder = tmp_path / "data"
    first = make(folder, SMALL)
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    pd.testing.assert_frame_equal(make(folder, SMALL), first)
    assert stamps == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    other = make(folder, replace(SMALL, seed=1))
    assert len(other) == len(first) and list(other["face"]) != list(first["face"])
    assert len(list(folder.glob("*.json"))) == 1 and len(list(folder.rglob("*.png"))) == len(other)
    assert os.listdir(tmp_path) == ["data"]


def test_the_same_settings_give_the_same_pictures_anywhere(tmp_path):
    first, again = make(tmp_path / "a", SMALL), make(tmp_path / "b", SMALL)
    pd.testing.assert_frame_equal(first.drop(columns="image"), again.drop(columns="image"))
    for a, b in zip(first["image"], again["image"], strict=True):
        assert Path(a).read_bytes() == Path(b).read_bytes()


def test_more_pictures_do_not_change_the_ones_before_them(tmp_path):
    few, more = make(tmp_path / "few", SMALL), make(tmp_path / "more", replace(SMALL, wild_train=5))
    both = more.merge(few, on=["dataset", "split", "subject", "frame"], suffixes=("", "_few"))
    assert len(both) == len(few) and (both["face"] == both["face_few"]).all()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_drawing_leaves_no_half_written_folder(tmp_path, how):
    folder = tmp_path / "data"
    code = f"from expvqa_lib.corpora.synthetic import *\nmake({str(folder)!r}, CorpusSizes(lab_train=99, wild_train=0, emotion_train=0))"
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    heard = partial(
        signal.signal, signal.SIGINT, signal.SIG_DFL
    )  # tests that run in the background were born deaf to Ctrl-C
    process = subprocess.Popen(
        [sys.executable, "-c", code], start_new_session=True, preexec_fn=heard, **silent
    )
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.rglob("*.png")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, how)  # it and its workers, as a terminal's Ctrl-C or a machine's end do
        assert process.wait(60) != 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert not folder.exists()
    if how == signal.SIGINT:
        assert os.listdir(tmp_path) == []
    assert len(make(folder, SMALL)) == 12 + 5 + 2


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"precious")
    with pytest.raises(SettingsError, match=f"{tmp_path}: not a SynthFACS folder"):
        make(tmp_path, SMALL)
    assert (tmp_path / "holiday.jpg").read_bytes() == b"precious"


def test_a_sequence_is_one_person_whose_units_rise_and_fall():
    person = people(1)[0]
    found = synthetic.sequence(person, {1: (2, 10, 0.8), 12: (5, 25, 1.0)}, 31, seed=1)
    assert len(found) == 31 and {face.identity for face in found} == {person}
    inner, corners = (np.array([face.aus.get(au, 0.0) for face in found]) for au in (1, 12))
    assert inner.argmax() == 6 and inner[6] == 0.8 and not inner[:3].any() and not inner[10:].any()
    assert (
        corners.argmax() == 15
        and corners[15] == 1
        and (np.diff(corners[5:16]) > 0).all()
        and (np.diff(corners[15:26]) < 0).all()
    )
    assert (
        found[0].scene.yaw != found[-1].scene.yaw and found[0].scene.background == found[-1].scene.background
    )
    assert found == synthetic.sequence(person, {1: (2, 10, 0.8), 12: (5, 25, 1.0)}, 31, seed=1)
    for frames, programme in ((0, {}), (5, {1: (4, 4, 1.0)}), (5, {21: (0, 4, 1.0)})):
        with pytest.raises(SettingsError):
            synthetic.sequence(person, programme, frames)
