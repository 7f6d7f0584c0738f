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

from expvqa_lib.expvqa import load
from expvqa_lib.facs import ACTION_UNITS, EMOTIONS
from expvqa_lib.model.forward import cross_attention_weights, encode_images, query_image
from expvqa_lib.model.tokenize import encode
from expvqa_lib.questions import NO, YES, ask_q2, ask_q3, read_aus, read_emotion
from expvqa_lib.synthfacs import AUS, LANDMARKS, Face, render
from tools.base_model import pretrain as pretraining
from tools.base_model.build import Size
from tools.base_model.pretrain import (
    Budget,
    align,
    draw_faces,
    geometry_targets,
    make_base,
    near_points,
    normalise,
    pretrain_language,
    pretrain_vision,
    vocabulary_texts,
)
from tools.base_model.questions import (
    AU_PLACES,
    MEASURES,
    PARTS,
    SPANS,
    ImageQuestion,
    describe,
    image_questions,
    measure,
    passage,
    random_face,
    to_spans,
)


@pytest.fixture(scope="module")
def drawn() -> tuple[list[Face], np.ndarray, np.ndarray, np.ndarray]:
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
    losses = pretrain_vision(model, drawn[1], *geometry_targets(drawn[0], *drawn[2:], 48), steps=40, batch=16)
    assert len(losses) == 40 and np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])
    assert parts_changed(before, model.state_dict()) == {"vision_model"}


def test_language_learns_to_answer_from_facts_and_alignment_to_hand_over_what_is_seen(
    model, processor, drawn
):
    before = copy.deepcopy(model.state_dict())
    losses = pretrain_language(model, processor, steps=120, batch=16)
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])
    assert parts_changed(before, model.state_dict()) == {"language_model"}

    before = copy.deepcopy(model.state_dict())
    losses = align(model, processor, *drawn, steps=60, each=2, batch=12)
    assert np.mean(losses[-8:]) < 0.98 * np.mean(losses[:8])
    assert parts_changed(before, model.state_dict()) == {"query_tokens", "qformer", "language_projection"}
    assert all(p.requires_grad for p in model.parameters())


def test_the_seed_decides_every_stage(model, processor, drawn):
    targets = geometry_targets(drawn[0], *drawn[2:], 48)
    stages = (
        lambda m, seed: pretrain_vision(m, drawn[1], *targets, steps=2, batch=8, seed=seed),
        lambda m, seed: pretrain_language(m, processor, steps=2, batch=8, seed=seed),
        lambda m, seed: align(m, processor, *drawn, steps=2, each=2, batch=4, seed=seed),
    )
    for stage in stages:
        first, again, other = (stage(copy.deepcopy(model), seed) for seed in (1, 1, 2))
        assert first == again != other


def test_pixels_are_those_that_the_processor_makes(processor, drawn):
    expected = processor.image_processor([Image.fromarray(i) for i in drawn[1][:3]], return_tensors="pt")[
        "pixel_values"
    ]
    torch.testing.assert_close(normalise(drawn[1][:3]), expected, rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------------------------------- no label reaches a target


def test_faces_move_at_random_without_emotion():
    rng = np.random.default_rng(0)
    counts = Counter(au for _ in range(3000) for au in random_face(rng).aus)
    shares = np.array([counts[au] for au in AUS]) / 3000
    assert shares.min() > 0.12 and shares.max() < 0.20  # each as often as any other: no prototype
    rng = np.random.default_rng(0)
    both = np.mean([{6, 12} <= set(random_face(rng).aus) for _ in range(3000)])
    assert both < 0.05


def test_targets_come_from_what_is_seen_and_not_from_the_actions(drawn):
    faces, _, landmarks, motion = drawn
    numbers, categories = geometry_targets(faces, landmarks, motion, 48)
    assert np.isfinite(numbers).all() and numbers.dtype == np.float32 and len(categories) == len(faces)
    again = geometry_targets([other_actions(face) for face in faces], landmarks, motion, 48)
    assert np.array_equal(numbers, again[0]) and np.array_equal(categories, again[1])
    drift = np.arange(len(landmarks), dtype=np.float32)[:, None, None]
    assert not np.array_equal(numbers, geometry_targets(faces, landmarks + drift, motion, 48)[0])
    assert not np.array_equal(numbers, geometry_targets(faces, landmarks, motion + drift, 48)[0])


def test_targets_are_finite_even_where_all_faces_agree(drawn):
    faces, _, landmarks, motion = drawn
    assert np.isfinite(geometry_targets(faces[:2], landmarks[:2], motion[:2], 48)[0]).all()


def test_motion_is_the_way_from_rest(drawn):
    faces, images, landmarks, motion = drawn
    for face, image, points, moved in list(zip(faces, images, landmarks, motion, strict=True))[:20]:
        rest = render(replace(face, aus={}, lateral={}), 48)
        np.testing.assert_allclose(moved[:, :2], points - rest.landmarks, atol=1e-5)
        if not face.aus:
            assert np.array_equal(image, rest.image) and not moved.any()
    still = [not face.aus for face in faces]
    assert any(still) and (motion[~np.array(still)][..., 2].max(1) > 1).all()


def ask_all(face: Face, landmarks: np.ndarray, spans: np.ndarray, seed: int = 0) -> list[ImageQuestion]:
    return image_questions(face, landmarks, spans, 48, 300, np.random.default_rng(seed))


def test_image_questions_are_answered_from_identity_scene_and_measures_only(drawn):
    faces, _, landmarks, motion = drawn
    spans = to_spans(measure(landmarks, motion))
    for face, points, span in list(zip(faces, landmarks, spans, strict=True))[:10]:
        asked = ask_all(face, points, span)
        assert ask_all(other_actions(face), points, span) == asked
        assert ask_all(replace(face, aus={}, lateral={}), points, span) == asked
    face, points, span = faces[0], landmarks[0], spans[0]
    asked = ask_all(face, points, span)
    another = next(
        f
        for f in faces
        if f.identity.eyes != face.identity.eyes and f.scene.background != face.scene.background
    )
    for changed in (
        ask_all(replace(face, identity=another.identity), points, span),
        ask_all(replace(face, scene=another.scene), points, span),
        ask_all(face, 48 - points, span),
        ask_all(face, points, 4 - span),
    ):
        assert [q.text for q in changed] == [q.text for q in asked] and changed != asked


def test_no_answer_about_an_image_names_an_action_or_an_emotion(drawn):
    faces, _, landmarks, motion = drawn
    spans = to_spans(measure(landmarks, motion))
    q3 = {ask_q3(au, k): au for au in AU_PLACES for k in range(3)}
    untold = 0
    for face, points, span in zip(faces[:12], landmarks[:12], spans[:12], strict=True):
        for q in ask_all(face, points, span):
            assert q.answer is None or (
                read_aus(q.answer) == (set(), set()) and read_emotion(q.answer) is None
            ), q
            words = next((text for text in q3 if q.text.endswith(text)), None)
            if words:  # an AU's words are asked for the place that they speak of, never for whether it occurs
                assert q.places == AU_PLACES[q3[words]]
                assert q.answer is None if q.text == words else q.answer.startswith("row ")
                untold += q.answer is None
    assert untold > 100


def test_places_and_measures_are_the_true_ones(drawn):
    faces, _, landmarks, motion = drawn
    values = measure(landmarks, motion)
    spans = to_spans(values)
    index = {name: k for k, name in enumerate(LANDMARKS)}
    names = {name: k for k, (name, _) in enumerate(MEASURES)}
    assert values.shape == (len(faces), len(names)) and len(names) == len(MEASURES)
    left, right = index["left lip corner"], index["right lip corner"]
    apart = np.linalg.norm(landmarks[:, left] - landmarks[:, right], axis=1)
    np.testing.assert_allclose(
        values[:, names["distance from left lip corner to right lip corner"]], apart, rtol=1e-5
    )
    np.testing.assert_allclose(values[:, names["rise of left lip corner"]], -motion[:, left, 1])
    above = landmarks[:, index["upper lip edge"], 1] - landmarks[:, left, 1]
    np.testing.assert_allclose(
        values[:, names["height of left lip corner over upper lip edge"]], above, atol=1e-5
    )
    assert (
        np.abs(np.bincount(spans[:, 0], minlength=5) - len(faces) / 5) <= 1
    ).all()  # five spans of like size

    numbers = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    seen = Counter()
    for face, points, span in zip(faces[:40], landmarks[:40], spans[:40], strict=True):
        for q in ask_all(face, points, span):
            seen[q.answer] += 1
            if q.text.startswith("Where is the ") and q.text[13:-1] in index:
                k = index[q.text[13:-1]]
                column, row = np.clip(points[k] / 6, 0, 7).astype(int)
                assert q.answer == f"row {numbers[row]} column {numbers[column]}" and q.places == (k,)
            elif q.text.startswith("How large is the "):
                k = names[q.text[17:-1]]
                assert q.answer == SPANS[span[k]] and {LANDMARKS[p] for p in q.places} == set(MEASURES[k][1])
            elif q.text.startswith("Is the ") and " than " in q.text:
                words, limit = q.text[7:-1].split(" than ")
                name, _, more = words.rpartition(" ")
                difference = span[names[name]] - SPANS.index(limit)
                assert q.answer == ("yes" if (difference > 0 if more == "more" else difference < 0) else "no")
            elif q.text == "Describe this person.":
                assert q.answer == describe(face)
    assert min(seen[s] for s in SPANS) > 0.05 * sum(seen[s] for s in SPANS)
    assert 0.25 < seen["yes"] / (seen["yes"] + seen["no"]) < 0.75


def test_every_drawable_au_speaks_of_landmarks_and_every_part_has_some():
    assert set(AUS) <= set(AU_PLACES) <= set(ACTION_UNITS)
    for places in (*AU_PLACES.values(), *PARTS):
        assert places and set(places) <= set(range(len(LANDMARKS)))


def test_alignment_teaches_where_to_look(model, processor, drawn):
    def looked_at_chin() -> float:
        where = [LANDMARKS.index("chin")]
        text = encode(processor, ["Where is the chin?"] * 20)
        with cross_attention_weights(model.qformer) as looks, torch.no_grad():
            embeds = encode_images(model, normalise(drawn[1][:20]))
            query_image(model, embeds, text["qformer_input_ids"], text["qformer_attention_mask"])
        near = near_points(drawn[2][:20] / 48, embeds.shape[1])[:, where].mean(1)  # [20, P]
        half = looks[0].shape[1] // 2
        return float((looks[0][:, :half].mean((1, 2)) * (near > 0.05)).sum(1).mean())

    before = looked_at_chin()
    align(model, processor, *drawn, steps=300, batch=12)
    assert looked_at_chin() > 1.5 * before


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
            assert read_aus(answer) == (present, set()) and read_emotion(answer) == next(
                (f for f in facts if f in EMOTIONS), None
            )
            kinds["Q1"] += 1
        else:
            kinds["fact"] += 1
    assert min(kinds.values()) > 150 and len(kinds) == 6


# -------------------------------------------------------------------------------------------------------- the whole base


def test_drawn_faces_are_the_same_however_many_follow(drawn):
    faces, images, landmarks, motion = draw_faces(120, 48, seed=1)
    assert faces == drawn[0] and all(
        np.array_equal(a, b) for a, b in zip((images, landmarks, motion), drawn[1:], strict=True)
    )
    assert (
        images.shape == (120, 48, 48, 3)
        and images.dtype == np.uint8
        and landmarks.shape == (120, len(LANDMARKS), 2)
    )
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
    assert {str(v.dtype) for v in load_file(tmp_path / "base" / "model.safetensors").values()} == {
        "torch.float16"
    }
    record = json.loads((tmp_path / "base" / "pretraining.json").read_text())
    assert record["budget"] == vars(BUDGET) and record["size"]["queries"] == 4
    assert all(np.isfinite(v) and v > 0 for v in record["mean_loss_of_last_100_steps"].values())
    card = (tmp_path / "base" / "README.md").read_text()
    assert f"{model.model.num_parameters():,} parameters" in card and "{" not in card


def test_a_killed_base_goes_on_after_its_last_stage_but_not_with_another_budget(
    few_texts, tmp_path, monkeypatch
):
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
