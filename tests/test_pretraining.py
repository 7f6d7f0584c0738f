"""Making the tiny base: each stage learns, and no AU or emotion label of an image reaches a target."""

from __future__ import annotations

import copy
import json
import os
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from expvqa_lib import pretraining
from expvqa_lib.companion import load
from expvqa_lib.corpora.drawing import LANDMARKS, render
from expvqa_lib.corpora.faces import AUS, Face
from expvqa_lib.facs import ACTION_UNITS, EMOTIONS
from expvqa_lib.knowledge import AU_PLACES, DISTANCES, SPANS, describe, distance_bounds, image_questions, passage, random_face
from expvqa_lib.model import Size
from expvqa_lib.pretraining import (
    Budget,
    align,
    draw_faces,
    geometry_targets,
    make_base,
    normalise,
    pretrain_language,
    pretrain_vision,
    vocabulary_texts,
)
from expvqa_lib.questions import NO, YES, ask_q2, ask_q3, read_aus, read_emotion


@pytest.fixture(scope="module")
def drawn() -> tuple[list[Face], np.ndarray, np.ndarray]:
    return draw_faces(120, 48, seed=1)


def other_actions(face: Face) -> Face:
    """The same person and scene; other AUs, in another order, on other sides."""
    aus = dict(reversed([(au, 0.5) for au in AUS if au not in face.aus][:5]))
    return replace(face, aus=aus, lateral=dict.fromkeys(aus, 1.0))


def parts_changed(before: dict, after: dict) -> set[str]:
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


# ------------------------------------------------------------------------------------------------------- what is learned


def test_vision_learns_landmarks_identity_and_scene(model, drawn):
    before = copy.deepcopy(model.state_dict())
    losses = pretrain_vision(model, drawn[1], *geometry_targets(drawn[0], drawn[2], 48), steps=40, batch=16)
    assert len(losses) == 40 and np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])
    assert parts_changed(before, model.state_dict()) == {"vision_model"}


def test_language_learns_to_answer_from_facts_and_alignment_to_hand_over_what_is_seen(model, processor, drawn):
    before = copy.deepcopy(model.state_dict())
    losses = pretrain_language(model, processor, steps=120, batch=16)
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])
    assert parts_changed(before, model.state_dict()) == {"language_model"}

    before = copy.deepcopy(model.state_dict())
    losses = align(model, processor, *drawn, steps=60, each=3, batch=8)
    assert np.mean(losses[-8:]) < 0.98 * np.mean(losses[:8])
    assert parts_changed(before, model.state_dict()) == {"query_tokens", "qformer", "language_projection"}
    assert all(p.requires_grad for p in model.parameters())


def test_the_seed_decides_every_stage(model, processor, drawn):
    targets = geometry_targets(drawn[0], drawn[2], 48)
    stages = (
        lambda m, seed: pretrain_vision(m, drawn[1], *targets, steps=2, batch=8, seed=seed),
        lambda m, seed: pretrain_language(m, processor, steps=2, batch=8, seed=seed),
        lambda m, seed: align(m, processor, *drawn, steps=2, each=2, batch=4, seed=seed),
    )
    for stage in stages:
        first, again, other = (stage(copy.deepcopy(model), seed) for seed in (1, 1, 2))
        assert first == again != other


def test_pixels_are_those_that_the_processor_makes(processor, drawn):
    expected = processor.image_processor([Image.fromarray(i) for i in drawn[1][:3]], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(normalise(drawn[1][:3]), expected, rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------------------------------- no label reaches a target


def test_faces_move_at_random_without_emotion():
    rng = np.random.default_rng(0)
    counts = Counter(au for _ in range(3000) for au in random_face(rng).aus)
    shares = np.array([counts[au] for au in AUS]) / 3000
    assert shares.min() > 0.07 and shares.max() < 0.13  # each as often as any other: no prototype
    rng = np.random.default_rng(0)
    both = np.mean([{6, 12} <= set(random_face(rng).aus) for _ in range(3000)])
    assert both < 0.02


def test_geometry_targets_do_not_know_the_actions(drawn):
    faces, _, landmarks = drawn
    numbers, categories = geometry_targets(faces, landmarks, 48)
    assert np.isfinite(numbers).all() and numbers.dtype == np.float32 and len(categories) == len(faces)
    again = geometry_targets([other_actions(face) for face in faces], landmarks, 48)
    assert np.array_equal(numbers, again[0]) and np.array_equal(categories, again[1])
    moved = landmarks + np.float32([[[1, 0]]]) * np.arange(len(landmarks), dtype=np.float32)[:, None, None]
    assert not np.array_equal(numbers, geometry_targets(faces, moved, 48)[0])


def test_targets_are_finite_even_where_all_faces_agree(drawn):
    faces, _, landmarks = drawn
    assert np.isfinite(geometry_targets(faces[:2], landmarks[:2], 48)[0]).all()


def ask_all(face: Face, landmarks: np.ndarray, bounds: np.ndarray, seed: int = 0) -> list[tuple[str, str]]:
    return image_questions(face, landmarks, bounds, 48, 300, np.random.default_rng(seed))


def test_image_questions_are_answered_from_identity_scene_and_landmarks_only(drawn):
    faces, _, landmarks = drawn
    bounds = distance_bounds(landmarks)
    for face, points in list(zip(faces, landmarks, strict=True))[:10]:
        pairs = ask_all(face, points, bounds)
        assert ask_all(other_actions(face), points, bounds) == pairs
        assert ask_all(replace(face, aus={}, lateral={}), points, bounds) == pairs
    face, points = faces[0], landmarks[0]
    pairs = ask_all(face, points, bounds)
    another = next(f for f in faces if f.identity.eyes != face.identity.eyes and f.scene.background != face.scene.background)
    for changed in (
        ask_all(replace(face, identity=another.identity), points, bounds),
        ask_all(replace(face, scene=another.scene), points, bounds),
        ask_all(face, 48 - points, bounds),
    ):
        assert [q for q, _ in changed] == [q for q, _ in pairs] and changed != pairs


def test_no_answer_about_an_image_names_an_action_or_an_emotion(drawn):
    faces, _, landmarks = drawn
    bounds = distance_bounds(landmarks)
    for face, points in zip(faces[:12], landmarks[:12], strict=True):
        for question, answer in ask_all(face, points, bounds):
            assert read_aus(answer) == (set(), set()) and read_emotion(answer) is None, answer
            if any(read_aus(question)):  # an AU's words stand in a question only to ask for the place that they speak of
                assert question.startswith("Where would one look") and answer.startswith("row ")


def test_places_and_distances_are_the_true_ones(drawn):
    faces, _, landmarks = drawn
    bounds = distance_bounds(landmarks)
    index = {name: k for k, name in enumerate(LANDMARKS)}
    numbers = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    seen = Counter()
    for face, points in zip(faces[:40], landmarks[:40], strict=True):
        for question, answer in ask_all(face, points, bounds):
            seen[answer] += 1
            if question.startswith("Where is the ") and question[13:-1] in index:
                column, row = np.clip(points[index[question[13:-1]]] / 6, 0, 7).astype(int)
                assert answer == f"row {numbers[row]} column {numbers[column]}"
            elif question.startswith("How far is the "):
                a, b = question[15:-1].split(" from the ")
                k = DISTANCES.index((a, b))
                assert answer == SPANS[int((np.linalg.norm(points[index[a]] - points[index[b]]) > bounds[k]).sum())]
            elif question == "Describe this person.":
                assert answer == describe(face)
    assert min(seen[s] for s in SPANS) > 0.1 * sum(seen[s] for s in SPANS)  # five spans of like size
    assert 0.3 < seen["yes"] / (seen["yes"] + seen["no"]) < 0.7


def test_every_drawable_au_speaks_of_a_landmark():
    assert set(AUS) <= set(AU_PLACES)
    for place in AU_PLACES.values():
        assert any(name.endswith(place) for name in LANDMARKS)


def test_passages_follow_from_their_facts():
    rng = np.random.default_rng(0)
    q3 = {ask_q3(au, k): au for au in ACTION_UNITS for k in range(3)}
    q2 = {ask_q2(area, k) for area in {u.area for u in ACTION_UNITS.values()} for k in range(3)}
    kinds = Counter()
    for _ in range(3000):
        facts, question, answer = passage(rng)
        assert facts or answer
        if facts in ([YES], [NO]):
            assert answer == facts[0]
            kinds["told"] += 1
        elif question in q3:
            assert answer == (YES if ACTION_UNITS[q3[question]].third_person in facts else NO)
            kinds[answer] += 1
        elif question in q2:
            told = {ACTION_UNITS[n].third_person for n in read_aus(answer)[0]}
            assert told <= set(facts)
            kinds["Q2"] += 1
        elif answer not in facts:
            present = {n for n, u in ACTION_UNITS.items() if u.third_person in facts}
            assert read_aus(answer) == (present, set()) and read_emotion(answer) == next((f for f in facts if f in EMOTIONS), None)
            kinds["Q1"] += 1
        else:
            kinds["fact"] += 1
    assert min(kinds.values()) > 150 and len(kinds) == 6


# -------------------------------------------------------------------------------------------------------- the whole base


def test_drawn_faces_are_the_same_however_many_follow(drawn):
    faces, images, landmarks = draw_faces(120, 48, seed=1)
    assert faces == drawn[0] and np.array_equal(images, drawn[1]) and np.array_equal(landmarks, drawn[2])
    assert images.shape == (120, 48, 48, 3) and images.dtype == np.uint8 and landmarks.shape == (120, len(LANDMARKS), 2)
    assert np.array_equal(images[7], render(faces[7], 48).image)
    assert draw_faces(3, 32, seed=2)[0] != draw_faces(3, 32, seed=3)[0]


BUDGET = Budget(faces=30, vision_steps=2, language_steps=2, align_steps=2)
TOY = Size(
    image=48, vision_width=32, vision_layers=1, qformer_width=32, qformer_layers=1, queries=4, language_width=32,
    language_layers=1, heads=2, vocabulary=400,
)  # fmt: skip


@pytest.fixture
def few_texts(monkeypatch):
    monkeypatch.setattr(pretraining, "vocabulary_texts", lambda seed: vocabulary_texts(seed, 200))


def test_make_base_ships_a_model_with_its_card(few_texts, tmp_path):
    make_base(tmp_path / "base", BUDGET, TOY)
    assert os.listdir(tmp_path) == ["base"]
    model = load(tmp_path / "base")
    assert isinstance(model.ask(render(Face()).image, "Why?"), str)
    assert {str(v.dtype) for v in load_file(tmp_path / "base" / "model.safetensors").values()} == {"torch.float16"}
    record = json.loads((tmp_path / "base" / "pretraining.json").read_text())
    assert record["budget"] == vars(BUDGET) and record["size"]["queries"] == 4
    assert all(np.isfinite(v) and v > 0 for v in record["mean_loss_of_last_100_steps"].values())
    card = (tmp_path / "base" / "README.md").read_text()
    assert f"{model.model.num_parameters():,} parameters" in card and "{" not in card


def test_a_killed_base_goes_on_after_its_last_stage_but_not_with_another_budget(few_texts, tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "align", killed)
        with pytest.raises(KeyboardInterrupt):
            make_base(tmp_path / "cut", BUDGET, TOY)
    assert not (tmp_path / "cut").exists()

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "pretrain_language", killed)
        with pytest.raises(KeyboardInterrupt):  # what another budget made does not count
            make_base(tmp_path / "cut", replace(BUDGET, language_steps=3), TOY)
        with pytest.raises(KeyboardInterrupt):
            make_base(tmp_path / "cut", BUDGET, replace(TOY, heads=4))
        patch.setattr(pretraining, "pretrain_vision", killed)
        make_base(tmp_path / "cut", BUDGET, TOY)
    make_base(tmp_path / "whole", BUDGET, TOY)
    cut, whole = (load_file(tmp_path / name / "model.safetensors") for name in ("cut", "whole"))
    assert cut.keys() == whole.keys() and all(torch.equal(cut[k], whole[k]) for k in cut)
