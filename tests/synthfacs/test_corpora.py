"""SynthFACS corpora: labels are what is drawn, splits share nobody, a folder is drawn once and wholly."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from expvqa_lib.data.table import SPLITS, au_labels, check_table, labelled_aus
from expvqa_lib.errors import SettingsError
from expvqa_lib.facs import BP4D_AUS, EMOTIONS
from expvqa_lib.synthfacs import Face, random_identity, render
from expvqa_lib.synthfacs.corpora import PRESENT, VARIANTS, CorpusSizes, make, random_expression, sequence

SMALL = CorpusSizes(lab=(1, 0, 0), wild=(3, 0, 2), emotion=(2, 0, 0), videos=1, image=32)
OPPOSITE = [{18, 20}, {22, 23}, {26, 27}, {43, 5}, {43, 7}, {12, 15}, {24, 25}, {28, 25}, {24, 26}, {28, 19}]


def test_opposite_aus_are_never_drawn_together_and_what_parts_the_lips_is_au25_too(faces):
    rng = np.random.default_rng(0)
    drawn = [set(random_expression(rng, mixed=0.7, extra=0.3)[1]) for _ in range(600)]
    assert all(25 in aus for aus in drawn if {10, 16, 19, 22, 26, 27} & aus)
    drawn += [set(Face.from_json(text).aus) for text in faces["face"]]
    assert not [aus for aus in drawn if any(pair <= aus for pair in OPPOSITE)]


def test_expressions_follow_their_emotion_with_aus_dropped_and_added():
    exact, rng = 0, np.random.default_rng(0)
    drawn = [random_expression(rng) for _ in range(800)]
    for emotion, aus, lateral in drawn:
        prototype = EMOTIONS[emotion].prototype
        wanted = max(([*VARIANTS.get(emotion, ()), prototype]), key=lambda core: len(set(core) & set(aus)))
        assert len(set(wanted) & set(aus)) >= min(2, len(wanted)), f"{sorted(aus)} is no {emotion}"
        assert set(aus) == set(lateral) and all(0.45 <= v <= 1 for v in aus.values())
        exact += set(aus) in map(set, [prototype, *VARIANTS.get(emotion, ())])
        if emotion == "contempt":
            assert all(abs(lateral[au]) > 0.5 for au in {12, 14} & set(aus))  # one-sided
    assert {emotion for emotion, _, _ in drawn} == set(EMOTIONS)
    assert 0.1 < exact / len(drawn) < 0.7


def test_the_corpora_have_the_shapes_of_the_real_ones_and_share_no_subject_and_no_identity(faces):
    assert (faces.groupby(["dataset", "subject"])["split"].nunique() == 1).all()
    identity = faces["face"].map(lambda text: json.dumps(json.loads(text)["identity"], sort_keys=True))
    assert (faces.groupby(identity)[["split", "dataset"]].nunique() == 1).all(axis=None)
    assert set(faces["split"]) == set(SPLITS)
    lab, wild, emotion = (faces[faces["dataset"] == f"synth_{name}"] for name in ("lab", "wild", "emotion"))
    assert labelled_aus(lab) == list(BP4D_AUS) and lab["emotion"].isna().all()
    assert lab[[f"AU{n}" for n in BP4D_AUS]].notna().all(axis=None)
    assert (lab.groupby("subject")["frame"].nunique() == 12).all()
    assert len(labelled_aus(wild)) >= 21 and wild["emotion"].notna().all() and wild["subject"].is_unique
    assert labelled_aus(emotion) == [] and emotion["emotion"].notna().all() and emotion["subject"].is_unique
    pd.testing.assert_frame_equal(check_table(faces), faces)


def test_a_row_is_its_face_with_intensities_labels_from_present_on_picture_and_landmarks(faces):
    traces = 0
    for k, row in enumerate(faces.sample(frac=1, random_state=0).to_dict("records")):
        face = Face.from_json(row["face"])
        for au, label in au_labels(row).items():
            intensity = face.aus.get(au, 0.0)
            assert row[f"AU{au}_intensity"] == pytest.approx(intensity) and label == int(intensity >= PRESENT)
            traces += 0 < intensity < PRESENT
        if k < 6:
            drawn = render(face, 48)
            assert np.array_equal(np.asarray(Image.open(row["image"])), drawn.image)
            np.testing.assert_allclose(np.reshape(row["landmarks"], (-1, 2)), drawn.landmarks, rtol=1e-6)
    assert traces  # a video passes through them


def test_make_draws_once_and_again_for_other_settings_but_never_over_other_files(tmp_path):
    folder = tmp_path / "data"
    first = make(folder, SMALL)
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    pd.testing.assert_frame_equal(make(folder, SMALL), first)
    assert stamps == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    more = make(tmp_path / "data", replace(SMALL, wild=(5, 0, 2)))
    assert set(first["face"]) < set(more["face"])  # more do not change the ones before them
    other = make(folder, replace(SMALL, seed=1))
    assert len(other) == len(first) and list(other["face"]) != list(first["face"])
    assert len(list(folder.glob("*.json"))) == 1 and len(list(folder.rglob("*.png"))) == len(other)
    assert os.listdir(tmp_path) == ["data"]
    (tmp_path / "holiday.jpg").write_bytes(b"precious")
    with pytest.raises(SettingsError, match=str(tmp_path)):  # a folder of something else is never replaced
        make(tmp_path, SMALL)
    assert sorted(os.listdir(tmp_path)) == ["data", "holiday.jpg"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_drawing_leaves_no_half_written_folder(tmp_path, how):
    folder = tmp_path / "data"
    code = f"from expvqa_lib.synthfacs import make; make({str(folder)!r})"
    # tests that run in the background start with Ctrl-C ignored
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, preexec_fn=listen)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.rglob("*.png")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, how)  # with its workers, as a terminal's Ctrl-C or a machine's end do
        assert process.wait(60) != 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert not folder.exists()
    assert how == signal.SIGKILL or os.listdir(tmp_path) == []
    assert len(make(folder, SMALL)) == 12 + 5 + 2


def test_a_sequence_is_one_person_whose_units_rise_and_fall():
    person = random_identity(np.random.default_rng(3))
    frames = sequence(person, {1: (2, 10, 0.8), 12: (5, 25, 1.0)}, 31, seed=1)
    assert len(frames) == 31 and {face.identity for face in frames} == {person}
    inner, corners = (np.array([face.aus.get(au, 0.0) for face in frames]) for au in (1, 12))
    assert inner.argmax() == 6 and inner[6] == 0.8 and not inner[:3].any() and not inner[10:].any()
    assert corners.argmax() == 15 and corners[15] == 1
    assert (np.diff(corners[5:16]) > 0).all() and (np.diff(corners[15:26]) < 0).all()
    assert frames[0].scene.pose != frames[-1].scene.pose
