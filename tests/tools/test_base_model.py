"""Making the tiny base: each stage learns, and no AU or emotion label of an image reaches a target."""

import copy
import json
from collections import Counter
from dataclasses import replace
from functools import partial
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from expvqa_lib.expvqa import load
from expvqa_lib.facs import ACTION_UNITS, EMOTIONS
from expvqa_lib.model import encode_images
from expvqa_lib.pipeline.profiles import BASE
from expvqa_lib.questions import NO, YES, ask_q2, ask_q3, read_aus, read_emotion
from expvqa_lib.synthfacs import AUS, Face, render
from tools.base_model import places, pretrain
from tools.base_model import questions as wordings
from tools.base_model.build import Size, build
from tools.base_model.faces import draw_faces, geometry_targets, normalise, random_face
from tools.base_model.pretrain import Budget, make_base
from tools.base_model.stages import align, pretrain_language, pretrain_vision
from tools.base_model.tokenizers import train_tokenizers

TOY = Size(48, 12, 32, 1, 32, 1, 4, 32, 1, heads=2, vocabulary=400)


@pytest.fixture(scope="module")
def drawn() -> tuple[list[Face], np.ndarray, np.ndarray, np.ndarray]:
    return draw_faces(60, 48, seed=1)


@pytest.fixture(scope="module")
def asked(drawn) -> list[tuple]:
    """Faces with their landmarks, measures and questions."""
    spans = places.to_spans(places.measure(*map(places.named, drawn[2:])))
    faces = list(zip(drawn[0], places.named(drawn[2]), spans, strict=True))[:20]
    return [(*face, questions_about(*face)) for face in faces]


def test_the_size_decides_every_shape_and_the_shipped_base_is_small():
    model = build(replace(TOY, qformer_layers=3, patch=8, queries=5, qformer_vocabulary=77))
    assert model.query_tokens.shape == (1, 5, 32) and model.config.num_query_tokens == 5
    assert len(model.qformer.encoder.layer) == 3 and len(model.language_model.model.layers) == 1
    assert model.qformer.embeddings.word_embeddings.weight.shape == (77, 32)
    assert encode_images(model, torch.zeros(2, 3, 48, 48)).shape == (2, 1 + 36, 32)
    assert 1_500_000 < build().num_parameters() < 3_000_000
    assert sum(path.stat().st_size for path in BASE.rglob("*")) < 12_000_000


def test_tokenizers_are_the_same_for_the_same_texts_with_special_tokens_at_their_places():
    texts = pretrain.vocabulary_texts(n=100)
    language, qformer = train_tokenizers(texts, 400)
    for a, b in zip((language, qformer), train_tokenizers(texts, 400), strict=True):
        assert a.get_vocab() == b.get_vocab() and sorted(a.get_vocab().values()) == list(range(400))
    assert language.convert_ids_to_tokens(range(4)) == ["[PAD]", "<s>", "</s>", "<image>"]
    assert language.bos_token_id == language.eos_token_id == language.unk_token_id == 2
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    assert qformer.convert_ids_to_tokens(range(6)) == names
    assert qformer.unk_token_id not in qformer(" ".join(texts[:50]))["input_ids"]
    ids = language("Größe 顔 😀", add_special_tokens=False)["input_ids"]  # any text, but for its case
    assert language.decode(ids, clean_up_tokenization_spaces=False).strip() == "größe 顔 😀"


def test_each_stage_learns_and_changes_its_parts_alone(model, processor, drawn):
    targets = geometry_targets(drawn[0], *drawn[2:], 48)
    aligned = {"query_tokens", "qformer", "language_projection"}
    for train, parts in (
        (partial(pretrain_vision, model, drawn[1], *targets, steps=40, batch=16), {"vision_model"}),
        (partial(pretrain_language, model, processor, steps=60, batch=16), {"language_model"}),
        (partial(align, model, processor, *drawn, each=2, steps=30, batch=12), aligned),
    ):
        before = copy.deepcopy(model.state_dict())
        losses = train()
        assert np.mean(losses[-8:]) < 0.98 * np.mean(losses[:8])
        changed = {k.split(".")[0] for k, value in model.state_dict().items() if not value.equal(before[k])}
        assert changed == parts
    assert all(p.requires_grad for p in model.parameters())


def test_pixels_are_those_that_the_processor_makes(processor, drawn):
    pictures = [Image.fromarray(image) for image in drawn[1][:3]]
    expected = processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(normalise(drawn[1][:3]), expected, rtol=1e-4, atol=1e-4)


def other_actions(face: Face) -> Face:
    """The same person and scene; other AUs, in another order, on other sides."""
    aus = dict(reversed([(au, 0.5) for au in AUS if au not in face.aus][:5]))
    return replace(face, aus=aus, lateral=dict.fromkeys(aus, 1.0))


def questions_about(face: Face, landmarks: np.ndarray, spans: np.ndarray) -> list:
    return wordings.image_questions(face, landmarks, spans, 48, 300, np.random.default_rng(0))


def test_targets_come_from_landmarks_and_motion_and_not_from_the_actions(drawn):
    faces, _, landmarks, motion = drawn
    numbers, categories = geometry_targets(faces, landmarks, motion, 48)
    again = geometry_targets([other_actions(face) for face in faces], landmarks, motion, 48)
    assert np.array_equal(numbers, again[0]) and np.array_equal(categories, again[1])
    drift = np.arange(len(landmarks), dtype=np.float32)[:, None, None]
    assert not np.array_equal(numbers, geometry_targets(faces, landmarks + drift, motion, 48)[0])
    assert not np.array_equal(numbers, geometry_targets(faces, landmarks, motion + drift, 48)[0])


def test_motion_is_the_way_from_rest_and_faces_move_without_prototypes(drawn):
    faces, images, landmarks, motion = drawn
    for face, image, points, moved in list(zip(faces, images, landmarks, motion, strict=True))[:10]:
        rest = render(replace(face, aus={}, lateral={}), 48)
        np.testing.assert_allclose(moved[:, :2], points - rest.landmarks, atol=1e-5)
        assert np.array_equal(image, rest.image) == (not face.aus)
    rng = np.random.default_rng(0)
    counts = Counter(au for _ in range(1000) for au in random_face(rng).aus)
    assert min(counts[au] for au in AUS) > 110 and max(counts.values()) < 210


def test_answers_about_measures_and_places_are_the_true_ones(asked):
    names = [name for name, _ in places.MEASURES]
    numbers = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    for _, points, span, questions in asked:
        for q in questions:
            if q.text.startswith("Where is the ") and q.text[13:-1] in places.LANDMARKS:
                column, row = np.clip(points[places.LANDMARKS.index(q.text[13:-1])] / 6, 0, 7).astype(int)
                assert q.answer == f"row {numbers[row]} column {numbers[column]}"
            elif q.text.startswith("How large is the "):
                assert q.answer == places.SPANS[span[names.index(q.text[17:-1])]]
            elif q.text.startswith("Is the ") and " than " in q.text:
                words, limit = q.text[7:-1].split(" than ")
                name, _, more = words.rpartition(" ")
                difference = span[names.index(name)] - places.SPANS.index(limit)
                assert q.answer == (YES if (difference > 0 if more == "more" else difference < 0) else NO)
    answers = Counter(q.answer for *_, questions in asked for q in questions)
    assert min(answers[text] for text in (YES, NO, *places.SPANS)) > 100


def test_image_questions_are_answered_from_identity_scene_and_measures_alone(drawn, asked):
    for face, points, span, questions in asked[:10]:
        assert questions_about(other_actions(face), points, span) == questions
    face, points, span, questions = asked[0]
    identity = next(f.identity for f in drawn[0] if f.identity.eyes != face.identity.eyes)
    scene = next(f.scene for f in drawn[0] if f.scene.background != face.scene.background)
    for changed in (replace(face, identity=identity), replace(face, scene=scene)):
        others = questions_about(changed, points, span)
        assert [q.text for q in others] == [q.text for q in questions] and others != questions


def test_no_answer_about_an_image_names_an_action_or_an_emotion(asked):
    aus, unanswered = {ask_q3(au, k): au for au in places.AU_PLACES for k in range(3)}, 0
    for q in (q for *_, questions in asked for q in questions):
        answer = q.answer or ""
        assert read_aus(answer) == (set(), set()) and read_emotion(answer) is None, q
        words = next((text for text in aus if q.text.endswith(text)), None)
        if words:  # an AU's words ask for the place that they name, never whether it occurs
            assert q.places == places.AU_PLACES[aus[words]]
            assert q.answer is None if q.text == words else q.answer.startswith("row ")
            unanswered += q.answer is None
    assert unanswered > 100


def test_answers_of_passages_follow_from_their_facts():
    rng = np.random.default_rng(0)
    q3 = {ask_q3(au, k): au for au in ACTION_UNITS for k in range(3)}
    q2 = {ask_q2(area, k) for area in {unit.area for unit in ACTION_UNITS.values()} for k in range(3)}
    kinds = Counter()
    for _ in range(2000):
        facts, question, answer = wordings.passage(rng)
        actions = {au for au, unit in ACTION_UNITS.items() if unit.third_person in facts}
        if facts in ([YES], [NO]):
            kind, expected, found = "yes or no", facts[0], answer
        elif question in q3:
            kind, expected, found = answer, YES if q3[question] in actions else NO, answer
        elif question in q2:
            kind, expected, found = "Q2", read_aus(answer)[0] & actions, read_aus(answer)[0]
        elif answer not in facts:
            emotion = next((fact for fact in facts if fact in EMOTIONS), None)
            kind, expected, found = "Q1", (actions, set(), emotion), (*read_aus(answer), read_emotion(answer))
        else:
            kind, expected, found = "fact", True, bool(answer)
        assert found == expected
        kinds[kind] += 1
    assert min(kinds.values()) > 100 and len(kinds) == 6


def test_a_base_is_made_with_its_card_and_a_killed_one_resumes_after_its_last_stage(tmp_path, monkeypatch):
    budget = Budget(faces=30, vision_steps=2, language_steps=2, align_steps=2)
    texts = pretrain.vocabulary_texts
    monkeypatch.setattr(pretrain, "vocabulary_texts", lambda seed: texts(seed, 200))
    killed = Mock(side_effect=KeyboardInterrupt)
    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "align", killed)
        with pytest.raises(KeyboardInterrupt):
            make_base(tmp_path / "cut", budget, TOY)
    assert not (tmp_path / "cut").exists()
    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "pretrain_vision", killed)
        with pytest.raises(KeyboardInterrupt):  # another budget has no use for these stages
            make_base(tmp_path / "cut", replace(budget, language_steps=3), TOY)
        patch.setattr(pretrain, "pretrain_language", killed)
        make_base(tmp_path / "cut", budget, TOY)
    make_base(tmp_path / "whole", budget, TOY)
    cut, whole = (load_file(tmp_path / name / "model.safetensors") for name in ("cut", "whole"))
    assert cut.keys() == whole.keys() and all(torch.equal(cut[name], whole[name]) for name in cut)
    assert {value.dtype for value in whole.values()} == {torch.float16}
    model = load(tmp_path / "whole")
    assert isinstance(model.ask(render(Face()).image, "Why?"), str) and "rendered faces" in model.notice
    record = json.loads((tmp_path / "whole" / "pretraining.json").read_text())
    assert record["budget"] == vars(budget) and len(record["mean_loss_of_last_100_steps"]) == 3
    assert "30 rendered faces" in (tmp_path / "whole" / "README.md").read_text()
