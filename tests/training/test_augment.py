"""The reference's augmentation with Pillow."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from expvqa_lib.training import augment as augmentation
from expvqa_lib.training.augment import GREY, OPERATIONS, apply, augment, random_crop


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(40, 200, (60, 80, 3), dtype=np.uint8))


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def test_at_magnitude_5_brightness_and_sharpness_do_nothing_and_others_act(picture):
    acting = [
        name for name in OPERATIONS if not np.array_equal(array(apply(name, picture, 5)), array(picture))
    ]
    assert acting == ["Equalize", "ShearX", "ShearY", "TranslateX", "TranslateY"]
    assert array(apply("Brightness", picture, 10)).mean() > 1.5 * array(picture).mean()
    assert array(apply("Sharpness", picture, 0)).std() < array(picture).std()


@pytest.mark.parametrize(("name", "axis"), [("TranslateX", 1), ("TranslateY", 0)])
@pytest.mark.parametrize("sign", [1, -1])
def test_shifts_are_of_5_pixels_and_uncover_grey(picture, name, axis, sign):
    shifted = array(apply(name, picture, 5, sign))
    expected = np.roll(array(picture), -5 * sign, axis)
    edge = [slice(None)] * 3
    edge[axis] = slice(-5, None) if sign > 0 else slice(0, 5)
    expected[tuple(edge)] = GREY
    assert np.array_equal(shifted, expected)


@pytest.mark.parametrize("sign", [1, -1])
def test_shears_move_each_row_or_column_by_015_of_its_number(sign):
    """As the reference's warpAffine: about the centre of the corner pixel, bilinear. On a ramp, bilinear
    reading is exact."""
    y, x = np.mgrid[0:40, 0:60]
    for name, moved, along in (("ShearX", x - 0.15 * sign * y, x), ("ShearY", y - 0.15 * sign * x, y)):
        ramp = np.repeat((3 * along[..., None]).astype(np.uint8), 3, 2)
        found = array(apply(name, Image.fromarray(ramp), 5, sign))[..., 0]
        limit = along.max()
        inside = (moved >= 1) & (moved <= limit - 1)
        outside = (moved < -1) | (moved > limit + 1)
        assert inside.sum() > 1000 and np.abs(found - 3 * moved)[inside].max() <= 1
        assert outside.sum() > 50 and (found[outside] == GREY[0]).all()


def test_equalize_spreads_each_channel(picture):
    flat = array(apply("Equalize", picture, 5))
    assert (
        flat.min() == 0
        and flat.max() == 255
        and np.argsort(array(picture)[0, :9, 0]).tolist() == np.argsort(flat[0, :9, 0]).tolist()
    )


def test_crops_have_the_area_and_aspect_asked_for(monkeypatch):
    boxes = []
    original = Image.Image.resize

    def resize(self, size, resample, box=None):
        boxes.append(box)
        return original(self, size, resample, box=box)

    monkeypatch.setattr(Image.Image, "resize", resize)
    image, rng = Image.new("RGB", (100, 100)), np.random.default_rng(0)
    assert {random_crop(image, rng, 32, (0.8, 1.0)).size for _ in range(300)} == {(32, 32)}
    wide, high = (np.array([b[k + 2] - b[k] for b in boxes]) for k in (0, 1))
    assert (wide * high >= 0.79 * 10_000).all() and (wide <= 100).all() and (high <= 100).all()
    assert (wide / high > 0.74).all() and (wide / high < 1.35).all() and np.std(wide / high) > 0.05
    assert len({b[0] for b in boxes}) > 5 and len({b[1] for b in boxes}) > 5
    boxes.clear()
    random_crop(
        Image.new("RGB", (300, 20)), rng, 32, (0.8, 1.0)
    )  # nothing of that aspect fits: the largest central rectangle
    assert boxes[0] == (136, 0, 163, 20)


def test_operations_are_drawn_twice_each_applied_half_of_the_time_and_half_are_flipped(monkeypatch, picture):
    seen = Counter()
    monkeypatch.setattr(
        augmentation, "apply", lambda name, image, magnitude, sign: seen.update([name, sign]) or image
    )
    rng = np.random.default_rng(0)
    ramp = Image.fromarray(np.repeat(np.arange(64, dtype=np.uint8)[None, :, None].repeat(64, 0), 3, 2))
    flipped = sum(
        a[:, -1].mean() < a[:, 0].mean()
        for a in (array(augment(ramp, rng, size=64, crop=(0.8, 1.0), randaugment=(2, 5))) for _ in range(800))
    )
    assert 330 < flipped < 470
    drawn = sum(seen[name] for name in OPERATIONS)
    assert 730 < drawn < 870  # 1600 draws, each applied with p 0.5
    assert all(60 < seen[name] < 140 for name in OPERATIONS) and 330 < seen[1] < 470
    seen.clear()
    augment(picture, rng, size=48, crop=(0.8, 1.0), randaugment=(0, 5))
    assert not seen


def test_the_generator_decides(picture):
    first, again, other = (
        array(augment(picture, np.random.default_rng(seed), size=48, crop=(0.8, 1.0), randaugment=(2, 5)))
        for seed in (1, 1, 2)
    )
    assert first.shape == (48, 48, 3) and np.array_equal(first, again) and not np.array_equal(first, other)
