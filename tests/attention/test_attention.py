"""Where the model looked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from expvqa_lib.attention.explain import METHODS, explain_words, first_tokens, relevance, upsample
from expvqa_lib.attention.methods import BLUR, ON_PIXELS, blur, shift
from expvqa_lib.errors import SettingsError
from expvqa_lib.model.answer import score_yes_no
from expvqa_lib.model.forward import cross_attention_weights, encode_images, language_inputs, query_image
from expvqa_lib.model.load import load_model
from expvqa_lib.model.tokenize import encode
from expvqa_lib.questions import ask_q1, ask_q3

ANSWER = "The person raises inner eyebrow and pulls lip corner, which suggests happiness."
ASKED = [ask_q3(12), ask_q1(), ask_q3(1, 2)]


@pytest.fixture(scope="module")
def images(faces) -> list[str]:
    return faces["image"].iloc[[0, 20, 100]].tolist()


@torch.no_grad()
def look_only_at(model, patch: int) -> None:
    """Rebuild the model so that the answer depends on one patch: its neighbours stay apart, and everything attends to its position."""
    vision = model.vision_model
    width = vision.config.hidden_size
    mark = torch.randn(width, generator=torch.Generator().manual_seed(0))
    mark = (mark - mark.mean()) / mark.std()
    for layer in vision.encoder.layers:
        layer.self_attn.qkv.weight[:width] = 0
        layer.self_attn.qkv.bias[:width] = 1
        layer.self_attn.qkv.weight[width : 2 * width] = 5 * mark / width
        for part in (layer.self_attn.projection, layer.mlp.fc2):
            part.weight.zero_()
            part.bias.zero_()
    vision.embeddings.position_embedding[:] = -3 * mark
    vision.embeddings.position_embedding[0, 1 + patch] = 3 * mark
    for layer in model.qformer.encoder.layer:
        attention = layer.crossattention.attention
        attention.query.weight.zero_()
        attention.query.bias.fill_(1.0)
        attention.key.weight[:] = 5 * mark / width
        attention.key.bias.zero_()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_map_from_0_to_1_whose_maximum_is_1(model, processor, images, method):
    maps, chance, words = relevance(model, processor, images, ASKED, method=method)
    side = 48 if method in ON_PIXELS else 4
    assert maps.shape == (3, side, side) and maps.dtype == np.float32
    assert maps.min() >= 0 and np.allclose(maps.max((1, 2)), 1)
    assert chance.shape == (3,) and ((chance > 0) & (chance < 1)).all()
    assert len(words) == 3 and all(isinstance(w, str) for w in words)
    assert np.ptp(maps, axis=(1, 2)).min() > 0.01  # not flat
    assert not np.allclose(maps[0], maps[1], atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("patch", [0, 6, 15])
def test_a_map_points_to_the_patch_that_decides(model, processor, images, method, patch):
    look_only_at(model, patch)
    picture = np.asarray(Image.open(images[0]).convert("RGB"))
    row, column = divmod(patch, 4)
    here = picture.copy()
    here[12 * row : 12 * row + 12, 12 * column : 12 * column + 12] //= 3
    elsewhere = 255 - picture
    elsewhere[12 * row : 12 * row + 12, 12 * column : 12 * column + 12] = picture[
        12 * row : 12 * row + 12, 12 * column : 12 * column + 12
    ]
    scores = score_yes_no(model, processor, [picture, here, elsewhere], [12])["AU12"]
    assert (
        abs(scores[1] - scores[0]) > 1e-3 and abs(scores[2] - scores[0]) < 1e-4
    )  # the toy is what it is meant to be

    heat = relevance(model, processor, [picture], [ask_q3(12)], targets=["yes"], method=method)[0]
    large = np.kron(heat[0], np.ones((48 // heat.shape[1],) * 2))
    top, reach = large.max(), 4 if method in ON_PIXELS else 0  # these shift the picture by a third of a patch
    large[
        max(0, 12 * row - reach) : 12 * row + 12 + reach,
        max(0, 12 * column - reach) : 12 * column + 12 + reach,
    ] = 0
    assert large.max() < 0.2 * top


def test_gradient_maps_follow_the_image(model, processor, images):
    maps = relevance(model, processor, images, [ask_q3(12)] * 3, targets=["yes"] * 3)[0]
    assert np.abs(maps[0] - maps[1]).max() > 0.02


def test_p_yes_is_that_of_scoring_and_words_are_the_likeliest(model, processor, images):
    _, chance, words = relevance(model, processor, images, [ask_q3(12)] * 3)
    np.testing.assert_allclose(chance, score_yes_no(model, processor, images, [12])["AU12"], atol=1e-4)
    _, _, told = relevance(model, processor, images, [ask_q3(12)] * 3, targets=["no", "yes", "The person"])
    assert told == [
        "no",
        "yes",
        processor.tokenizer.decode(
            processor.tokenizer("The", add_special_tokens=False)["input_ids"][0]
        ).strip(),
    ]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["bfloat16", "float16", "converted"])
def test_every_method_works_in_half_precision_and_on_a_converted_checkpoint(
    model, processor, images, folder, kind, method
):
    if kind == "converted":
        model, processor = load_model(folder, device="cpu", quiet=True)
    else:
        model = model.to(getattr(torch, kind))
    vision = model.config.vision_config
    parts = (model.vision_model, model.qformer, model.language_model)
    before = [part.config._attn_implementation for part in parts]
    maps, chance, _ = relevance(model, processor, images, ASKED, targets=["yes"] * 3, method=method)
    side = vision.image_size if method in ON_PIXELS else vision.image_size // vision.patch_size
    assert maps.shape == (3, side, side) and np.isfinite(maps).all() and np.isfinite(chance).all()
    assert maps.min() >= 0 and np.allclose(maps.max((1, 2)), 1)
    assert [part.config._attn_implementation for part in parts] == before and "sdpa" in before


@torch.no_grad()
def test_one_layer_and_one_query_are_what_the_qformer_attends_to(model, processor, images):
    pixels = processor.image_processor([Image.open(images[0])], return_tensors="pt")["pixel_values"]
    text = encode(processor, ASKED[:1], left=True)
    with cross_attention_weights(model.qformer) as weights:
        query_image(
            model, encode_images(model, pixels), text["qformer_input_ids"], text["qformer_attention_mask"]
        )
    for layer, query in ((0, 2), (1, 3)):
        wanted = weights[layer][0, :, query, 1:].mean(0).view(4, 4)
        found = relevance(
            model, processor, images[:1], ASKED[:1], method="cross_attention", layer=layer, query=query
        )[0][0]
        np.testing.assert_allclose(found, wanted / wanted.max(), atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 2, "method": "cross_attention"}, "layer=2: the Q-Former has 2; expected 0 to 1"),
        (
            {"query": -1, "method": "gradient_cross_attention"},
            "query=-1: the Q-Former has 4; expected 0 to 3",
        ),
        ({"layer": 0, "method": "rollout"}, "'rollout' has no single layer or query"),
    ],
)
def test_a_layer_or_query_that_is_not_there_is_refused(model, processor, images, options, message):
    with pytest.raises(SettingsError, match=message):
        relevance(model, processor, images, ASKED, **options)


def test_a_blur_keeps_what_is_even_and_the_mean():
    flat = torch.full((2, 3, 16, 16), 0.7)
    torch.testing.assert_close(blur(flat, 2.0), flat)
    dot = torch.zeros(1, 1, 33, 33)
    dot[0, 0, 16, 16] = 1
    soft = blur(dot, 2.0)
    assert soft.sum() == pytest.approx(1, abs=1e-5) and soft[0, 0, 16, 16] == pytest.approx(
        1 / (8 * np.pi), rel=0.02
    )


def test_a_shift_goes_down_and_right_and_back():
    dot = torch.zeros(1, 1, 9, 9)
    dot[0, 0, 4, 5] = 1
    assert shift(dot, 2)[0, 0, 6, 7] == 1 and shift(dot, -3)[0, 0, 1, 2] == 1
    torch.testing.assert_close(shift(shift(dot, 2), -2), dot)
    edge = torch.arange(9.0).expand(1, 1, 9, 9)
    assert shift(edge, -2)[0, 0, 0].tolist() == [2, 3, 4, 5, 6, 7, 8, 8, 8]
    assert shift(edge, -2, "constant")[0, 0, 0].tolist() == [2, 3, 4, 5, 6, 7, 8, 0, 0]


def test_a_yes_and_a_no_have_opposite_gradients(model, processor, images):
    """A yes is explained against the no, so the signed maps differ in sign and the absolute ones agree."""
    yes, no = (
        relevance(model, processor, images, ASKED, targets=[w] * 3, method="gradient_patch")[0]
        for w in ("yes", "no")
    )
    np.testing.assert_allclose(yes, no, atol=1e-3)
    yes, no = (relevance(model, processor, images, ASKED, targets=[w] * 3)[0] for w in ("yes", "no"))
    assert np.abs(yes - no).max() > 0.05


def test_the_batch_changes_nothing(model, processor, images):
    whole = relevance(model, processor, images, ASKED, targets=["yes", "the", "no"])
    parts = relevance(model, processor, images, ASKED, targets=["yes", "the", "no"], batch=2)
    np.testing.assert_allclose(whole[0], parts[0], atol=1e-3)
    np.testing.assert_allclose(whole[1], parts[1], atol=1e-5)
    assert whole[2] == parts[2]


def test_explaining_leaves_the_model_as_it_was(model, processor, images):
    implementation = model.qformer.config._attn_implementation
    before = score_yes_no(model, processor, images, [12])
    relevance(model, processor, images, ASKED)
    assert model.qformer.config._attn_implementation == implementation
    assert all(p.grad is None for p in model.parameters())
    np.testing.assert_array_equal(score_yes_no(model, processor, images, [12]), before)


def test_an_unknown_method_is_refused(model, processor, images):
    with pytest.raises(
        SettingsError,
        match="attention method 'gradcam' is unknown; known are guided_gradients, integrated_gradients",
    ):
        relevance(model, processor, images, ASKED, method="gradcam")


def test_upsampling_keeps_the_range_and_the_place():
    heat = np.zeros((2, 4, 4), np.float32)
    heat[0, 1, 2] = heat[1, 3, 0] = 1
    large = upsample(heat, 48)
    assert large.shape == (2, 48, 48) and large.min() >= 0 and large.max() <= 1
    for k, (row, column) in enumerate([(1, 2), (3, 0)]):
        y, x = np.unravel_index(large[k].argmax(), (48, 48))
        assert (y // 12, x // 12) == (row, column)


@torch.no_grad()
def log_probabilities(model, processor, pixels, answer: str) -> torch.Tensor:
    """Of each token of an answer to Q1 given those before it, by the path of training: one pass over question and answer."""
    text = encode(processor, [ask_q1()], [answer])
    output = query_image(
        model, encode_images(model, pixels), text["qformer_input_ids"], text["qformer_attention_mask"]
    )
    inputs = language_inputs(model, output, text["input_ids"], text["attention_mask"])
    logits = model.language_model(**inputs).logits[0].log_softmax(1)
    told = text["labels"][0] != -100
    before = torch.nn.functional.pad(told, (output.shape[1] - 1, 1))
    return logits[before].gather(1, text["labels"][0][told][:, None])[:, 0]


def test_every_word_is_explained_given_those_before_it(model, processor, images):
    words = explain_words(model, processor, images[0], ask_q1(), ANSWER)
    assert [word.text for word in words] == ANSWER.replace(",", "").rstrip(".").split()
    assert all(ANSWER[word.start :].startswith(word.text) for word in words)
    pixels = processor.image_processor([Image.open(images[0])], return_tensors="pt")["pixel_values"]
    sharp, blurred = (
        log_probabilities(model, processor, p, ANSWER)
        for p in (pixels, blur(pixels, BLUR * pixels.shape[-1]))
    )
    starts = [
        len(processor.tokenizer(ANSWER[: word.start].rstrip(), add_special_tokens=False)["input_ids"])
        for word in words
    ]
    np.testing.assert_allclose([word.gain for word in words], (sharp - blurred)[starts], atol=1e-4)
    assert all(word.heat.shape == (48, 48) and word.heat.max() == 1 for word in words)
    raises, pulls = words[2].heat, words[6].heat
    assert np.abs(raises - pulls).max() > 0.02


def test_a_word_given_nothing_before_it_is_the_first_and_what_was_said_changes_it(model, processor, images):
    plain = relevance(model, processor, images, ASKED, targets=["happiness"] * 3)
    empty = relevance(model, processor, images, ASKED, targets=["happiness"] * 3, said=["", "", ""])
    np.testing.assert_array_equal(plain[0], empty[0])
    mixed = relevance(
        model, processor, images, ASKED, targets=["happiness"] * 3, said=["", "The face shows", "The"]
    )
    np.testing.assert_allclose(
        mixed[0][0], plain[0][0], atol=1e-3
    )  # that of others in the batch changes nothing
    assert np.abs(mixed[0][1] - plain[0][1]).max() > 0.01
    _, _, told = relevance(model, processor, images[:1], [ask_q1()], said=["The face shows"])
    pixels = processor.image_processor([Image.open(images[0])], return_tensors="pt")["pixel_values"]
    best = {
        word: log_probabilities(model, processor, pixels, f"The face shows {word}")[-1]
        for word in (told[0], "fear")
    }
    assert len(first_tokens(processor, told)) == 1 and best[told[0]] >= best["fear"]


@pytest.mark.parametrize("patch", [0, 6, 15])
def test_every_word_points_to_the_patch_that_decides(model, processor, images, patch):
    look_only_at(model, patch)
    for word in explain_words(model, processor, images[0], ask_q1(), "The face shows anger."):
        x, y = word.place
        assert int(4 * y) * 4 + int(4 * x) == patch


def test_what_has_no_word_to_explain_is_said(model, processor, images):
    with pytest.raises(SettingsError, match=r"the answer '\.\.\.' has no word to explain"):
        explain_words(model, processor, images[0], ask_q1(), "...")
    with pytest.raises(
        SettingsError, match="2 beginnings of answers in `said` for 3 images; give one an image"
    ):
        relevance(model, processor, images, ASKED, said=["a", "b"])
    with pytest.raises(SettingsError, match="2 questions for 3 images"):
        relevance(model, processor, images, ASKED[:2])
    model.config.use_decoder_only_language_model = False
    with pytest.raises(SettingsError, match="a later word needs a decoder-only language model"):
        explain_words(model, processor, images[0], ask_q1(), ANSWER)
