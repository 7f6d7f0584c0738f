"""Where the model looked."""

from __future__ import annotations

import matplotlib.figure
import numpy as np
import pytest
import torch
from PIL import Image

from expvqa_lib.answering import score_yes_no
from expvqa_lib.attention import METHODS, explain, relevance, upsample
from expvqa_lib.errors import SettingsError
from expvqa_lib.questions import ask_q1, ask_q3

ASKED = [ask_q3(12), ask_q1(), ask_q3(1, 2)]


@pytest.fixture(scope="module")
def images(faces) -> list[str]:
    return faces["image"].iloc[[0, 20, 100]].tolist()


@torch.no_grad()
def look_only_at(model, patch: int) -> None:
    """Rebuild the model so that the answer depends on one patch: its neighbours stay apart, and every query attends to its position."""
    vision = model.vision_model
    for layer in vision.encoder.layers:
        for part in (layer.self_attn.projection, layer.mlp.fc2):
            part.weight.zero_()
            part.bias.zero_()
    width = vision.config.hidden_size
    mark = torch.randn(width, generator=torch.Generator().manual_seed(0))
    mark = (mark - mark.mean()) / mark.std()
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
    assert maps.shape == (3, 4, 4) and maps.dtype == np.float32
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
    elsewhere[12 * row : 12 * row + 12, 12 * column : 12 * column + 12] = picture[12 * row : 12 * row + 12, 12 * column : 12 * column + 12]
    scores = score_yes_no(model, processor, [picture, here, elsewhere], [12])["AU12"]
    assert abs(scores[1] - scores[0]) > 1e-3 and abs(scores[2] - scores[0]) < 1e-4  # the toy is what it is meant to be

    heat = relevance(model, processor, [picture], [ask_q3(12)], targets=["yes"], method=method)[0][0]
    assert int(heat.argmax()) == patch
    assert np.sort(heat.ravel())[-2] < 0.2


def test_gradient_maps_follow_the_image(model, processor, images):
    maps = relevance(model, processor, images, [ask_q3(12)] * 3, targets=["yes"] * 3)[0]
    assert np.abs(maps[0] - maps[1]).max() > 0.02


def test_p_yes_is_that_of_scoring_and_words_are_the_likeliest(model, processor, images):
    _, chance, words = relevance(model, processor, images, [ask_q3(12)] * 3)
    np.testing.assert_allclose(chance, score_yes_no(model, processor, images, [12])["AU12"], atol=1e-4)
    _, _, told = relevance(model, processor, images, [ask_q3(12)] * 3, targets=["no", "yes", "The person"])
    assert told == ["no", "yes", processor.tokenizer.decode(processor.tokenizer("The", add_special_tokens=False)["input_ids"][0]).strip()]


def test_a_yes_and_a_no_have_opposite_gradients(model, processor, images):
    """A yes is explained against the no, so the signed maps differ in sign and the absolute ones agree."""
    yes, no = (relevance(model, processor, images, ASKED, targets=[w] * 3, method="gradient_patch")[0] for w in ("yes", "no"))
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


def test_explain_gathers_everything_and_draws_it(model, processor, images):
    found = explain(model, processor, images[0], ask_q3(12))
    maps, chance, words = relevance(model, processor, images[:1], [ask_q3(12)])
    np.testing.assert_allclose(found.heat, maps[0], atol=1e-6)
    assert (found.question, found.answer) == (ask_q3(12), words[0]) and found.p_yes == pytest.approx(float(chance[0]))
    assert found.image.size == (48, 48)
    figure = found.plot()
    assert isinstance(figure, matplotlib.figure.Figure)
    figure.canvas.draw()


def test_an_unknown_method_is_refused(model, processor, images):
    with pytest.raises(SettingsError, match="attention method 'gradcam' is unknown; known are gradient_cross_attention, cross_attention"):
        relevance(model, processor, images, ASKED, method="gradcam")


def test_upsampling_keeps_the_range_and_the_place():
    heat = np.zeros((2, 4, 4), np.float32)
    heat[0, 1, 2] = heat[1, 3, 0] = 1
    large = upsample(heat, 48)
    assert large.shape == (2, 48, 48) and large.min() >= 0 and large.max() <= 1
    for k, (row, column) in enumerate([(1, 2), (3, 0)]):
        y, x = np.unravel_index(large[k].argmax(), (48, 48))
        assert (y // 12, x // 12) == (row, column)
