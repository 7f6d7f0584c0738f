"""Where the model looks."""

import numpy as np
import pytest
import torch
from conftest import look_only_at
from PIL import Image
from weights import pixels_of

from expvqa_lib.attention import METHODS, explain_words, relevance
from expvqa_lib.attention.methods import BLUR, blur, first_tokens
from expvqa_lib.errors import SettingsError
from expvqa_lib.model import (
    cross_attention_weights,
    encode,
    encode_images,
    language_inputs,
    load_model,
    query_image,
    score_yes_no,
)
from expvqa_lib.questions import ask_q1, ask_q3

ANSWER = "The person raises inner eyebrow and pulls lip corner, which suggests happiness."
ON_PIXELS = ("guided_gradients", "integrated_gradients")
QUESTIONS = [ask_q3(12), ask_q1(), ask_q3(1, 2)]


@pytest.fixture(scope="module")
def images(faces) -> list[str]:
    return faces["image"].iloc[[0, 20, 100]].tolist()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_map_that_follows_the_picture(model, processor, images, method):
    maps = relevance(model, processor, images, [ask_q3(12)] * 3, targets=["yes"] * 3, method=method).maps
    assert np.ptp(maps, axis=(1, 2)).min() > 0.01  # not flat
    assert maps.dtype == np.float32 and not np.allclose(maps[0], maps[1], atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("patch", [0, 6, 15])
def test_a_map_points_to_the_patch_that_decides(model, processor, images, method, patch):
    look_only_at(model, patch)
    picture = np.asarray(Image.open(images[0]).convert("RGB"))
    row, column = (12 * place for place in divmod(patch, 4))
    deciding = slice(row, row + 12), slice(column, column + 12)
    here, elsewhere = picture.copy(), 255 - picture
    here[deciding] //= 3
    elsewhere[deciding] = picture[deciding]
    scores = score_yes_no(model, processor, [picture, here, elsewhere], [12])["AU12"]
    assert abs(scores[1] - scores[0]) > 1e-3 and abs(scores[2] - scores[0]) < 1e-4  # of the toy

    heat = relevance(model, processor, [picture], [ask_q3(12)], targets=["yes"], method=method).maps
    large = np.kron(heat[0], np.ones((48 // heat.shape[1],) * 2))
    top, reach = large.max(), 4 if method in ON_PIXELS else 0  # these shift the picture by a third of a patch
    large[max(0, row - reach) : row + 12 + reach, max(0, column - reach) : column + 12 + reach] = 0
    assert large.max() < 0.2 * top


def test_p_yes_is_that_of_scoring_and_words_are_the_likeliest(model, processor, images):
    _, p_yes, _ = relevance(model, processor, images, [ask_q3(12)] * 3)
    np.testing.assert_allclose(p_yes, score_yes_no(model, processor, images, [12])["AU12"], atol=1e-4)
    targets = ["no", "yes", "The person"]
    _, _, words = relevance(model, processor, images, [ask_q3(12)] * 3, targets=targets)
    the = processor.tokenizer("The", add_special_tokens=False)["input_ids"][0]
    assert words == ["no", "yes", processor.tokenizer.decode(the).strip()]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float16", "converted"])
def test_every_map_is_from_0_to_1_in_any_precision_and_of_a_converted_checkpoint(
    model, processor, images, folder, kind, method
):
    if kind == "converted":
        model, processor = load_model(folder, device="cpu", quiet=True)
    else:
        model = model.to(getattr(torch, kind))
    vision, parts = model.config.vision_config, (model.vision_model, model.qformer, model.language_model)
    before = [part.config._attn_implementation for part in parts]
    maps, p_yes, _ = relevance(model, processor, images, QUESTIONS, targets=["yes"] * 3, method=method)
    side = vision.image_size if method in ON_PIXELS else vision.image_size // vision.patch_size
    assert maps.shape == (3, side, side) and np.isfinite(maps).all()
    assert maps.min() >= 0 and np.allclose(maps.max((1, 2)), 1)
    assert p_yes.shape == (3,) and ((p_yes > 0) & (p_yes < 1)).all()
    assert [part.config._attn_implementation for part in parts] == before and "sdpa" in before
    assert all(weight.grad is None for weight in model.parameters())


@torch.no_grad()
def test_cross_attention_is_what_the_queries_attend_to(model, processor, images):
    text = encode(processor, QUESTIONS[:1], left=True)
    embeds = encode_images(model, pixels_of(processor, images[:1]))
    with cross_attention_weights(model.qformer) as weights:
        query_image(model, embeds, text)
    expected = sum(weights)[0, :, :, 1:].mean((0, 1)).view(4, 4)
    heat = relevance(model, processor, images[:1], QUESTIONS[:1], method="cross_attention").maps[0]
    np.testing.assert_allclose(heat, expected / expected.max(), atol=1e-4)


def test_a_blur_is_a_gaussian_of_its_width():
    dot = torch.zeros(1, 1, 33, 33)
    dot[0, 0, 16, 16] = 1
    soft = blur(dot, 2.0)
    assert soft.sum() == pytest.approx(1, abs=1e-5)
    assert soft[0, 0, 16, 16] == pytest.approx(1 / (8 * np.pi), rel=0.02)


def test_the_batch_changes_nothing(model, processor, images):
    given = {"images": images, "questions": QUESTIONS, "targets": ["yes", "the", "no"]}
    whole, parts = (relevance(model, processor, **given, batch=batch) for batch in (64, 2))
    np.testing.assert_allclose(whole.maps, parts.maps, atol=1e-3)
    np.testing.assert_allclose(whole.p_yes, parts.p_yes, atol=1e-5)
    assert whole.words == parts.words


@torch.no_grad()
def log_probabilities(model, processor, pixels, answer: str) -> torch.Tensor:
    """Of each token of an answer to Q1 given the tokens before it, in one pass as in training."""
    text = encode(processor, [ask_q1()], [answer])
    embeds = encode_images(model, pixels)
    output = query_image(model, embeds, text)
    inputs = language_inputs(model, output, text)
    logits = model.language_model(**inputs).logits[0].log_softmax(1)
    in_answer = text["labels"][0] != -100
    before = torch.nn.functional.pad(in_answer, (output.shape[1] - 1, 1))
    return logits[before].gather(1, text["labels"][0][in_answer][:, None])[:, 0]


def test_every_word_is_explained_given_the_words_before_it(model, processor, images):
    words = explain_words(model, processor, images[0], ask_q1(), ANSWER)
    assert [word.text for word in words] == ANSWER.replace(",", "").rstrip(".").split()
    assert all(ANSWER[word.start :].startswith(word.text) for word in words)
    pixels = pixels_of(processor, images[:1])
    pictures = pixels, blur(pixels, BLUR * pixels.shape[-1])
    sharp, blurred = (log_probabilities(model, processor, p, ANSWER) for p in pictures)
    prefixes = [ANSWER[: word.start].rstrip() for word in words]
    starts = [len(processor.tokenizer(p, add_special_tokens=False)["input_ids"]) for p in prefixes]
    np.testing.assert_allclose([word.gain for word in words], (sharp - blurred)[starts], atol=1e-4)
    assert all(word.heat.shape == (48, 48) and word.heat.max() == 1 for word in words)
    assert np.abs(words[2].heat - words[6].heat).max() > 0.02


def test_a_prefix_changes_the_map_and_an_empty_one_does_not(model, processor, images):
    targets = ["happiness"] * 3
    plain = relevance(model, processor, images, QUESTIONS, targets=targets)
    empty = relevance(model, processor, images, QUESTIONS, targets=targets, prefixes=["", "", ""])
    np.testing.assert_array_equal(plain.maps, empty.maps)
    prefixes = ["", "The face shows", "The"]
    mixed = relevance(model, processor, images, QUESTIONS, targets=targets, prefixes=prefixes)
    np.testing.assert_allclose(mixed.maps[0], plain.maps[0], atol=1e-3)  # others in the batch change nothing
    assert np.abs(mixed.maps[1] - plain.maps[1]).max() > 0.01
    words = relevance(model, processor, images[:1], [ask_q1()], prefixes=["The face shows"]).words
    pixels = pixels_of(processor, images[:1])
    answers = {word: f"The face shows {word}" for word in (words[0], "fear")}
    best = {w: log_probabilities(model, processor, pixels, answer)[-1] for w, answer in answers.items()}
    assert len(first_tokens(processor, words)) == 1 and best[words[0]] >= best["fear"]


@pytest.mark.parametrize("patch", [0, 6, 15])
def test_every_word_points_to_the_patch_that_decides(model, processor, patch):
    look_only_at(model, patch)
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)  # something in every patch
    for word in explain_words(model, processor, noise, ask_q1(), "The face shows anger."):
        row, column = np.unravel_index(word.heat.argmax(), word.heat.shape)
        assert row // 12 * 4 + column // 12 == patch


def test_what_cannot_be_explained_is_refused(model, processor, images):
    with pytest.raises(SettingsError, match="'gradcam'"):
        relevance(model, processor, images, QUESTIONS, method="gradcam")
    with pytest.raises(SettingsError, match=r"'\.\.\.'"):
        explain_words(model, processor, images[0], ask_q1(), "...")
    model.config.use_decoder_only_language_model = False
    for options in ({"method": "language_attention"}, {"prefixes": ["The", "", ""]}):
        with pytest.raises(SettingsError, match="decoder-only"):
            relevance(model, processor, images, QUESTIONS, **options)
