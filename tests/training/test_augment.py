"""The reference's augmentation with Pillow."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from expvqa_lib.training import dataset
from expvqa_lib.training.dataset import GREY, OPERATIONS, apply, augment, random_crop

PICTURE = Image.fromarray(np.random.default_rng(0).integers(40, 200, (60, 80, 3), dtype=np.uint8))


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def test_brightness_and_sharpness_change_nothing_and_other_operations_do():
    acting = [name for name in OPERATIONS if not np.array_equal(array(apply(name, PICTURE)), array(PICTURE))]
    assert acting == ["Equalize", "ShearX", "ShearY", "TranslateX", "TranslateY"]


@pytest.mark.parametrize(("name", "axis"), [("TranslateX", 1), ("TranslateY", 0)])
@pytest.mark.parametrize("sign", [1, -1])
def test_shifts_are_of_5_pixels_and_uncover_grey(name, axis, sign):
    expected = np.roll(array(PICTURE), -5 * sign, axis)
    edge = [slice(None)] * 3
    edge[axis] = slice(-5, None) if sign > 0 else slice(0, 5)
    expected[tuple(edge)] = GREY
    assert np.array_equal(array(apply(name, PICTURE, sign)), expected)


@pytest.mark.parametrize("sign", [1, -1])
def test_shears_move_each_row_or_column_by_015_of_its_number(sign):
    """As the reference's warpAffine: about the corner pixel's centre, bilinear, which is exact on a ramp."""
    y, x = np.mgrid[0:40, 0:60]
    for name, moved, along in (("ShearX", x - 0.15 * sign * y, x), ("ShearY", y - 0.15 * sign * x, y)):
        ramp = np.repeat((3 * along[..., None]).astype(np.uint8), 3, 2)
        sheared = array(apply(name, Image.fromarray(ramp), sign))[..., 0]
        inside = (moved >= 1) & (moved <= along.max() - 1)
        outside = (moved < -1) | (moved > along.max() + 1)
        assert inside.sum() > 1000 and np.abs(sheared - 3 * moved)[inside].max() <= 1
        assert outside.sum() > 50 and (sheared[outside] == GREY[0]).all()


def test_crops_have_the_area_and_aspect_of_the_recipe(monkeypatch):
    boxes, resize = [], Image.Image.resize

    def record(self, size, resample, box=None):
        boxes.append(box)
        return resize(self, size, resample, box=box)

    monkeypatch.setattr(Image.Image, "resize", record)
    image, rng = Image.new("RGB", (100, 100)), np.random.default_rng(0)
    assert {random_crop(image, rng, 32, (0.8, 1.0)).size for _ in range(300)} == {(32, 32)}
    left, top, right, bottom = np.array(boxes).T
    wide, high = right - left, bottom - top
    assert (wide * high >= 0.79 * 10_000).all() and (wide <= 100).all() and (high <= 100).all()
    assert (wide / high > 0.74).all() and (wide / high < 1.35).all() and np.std(wide / high) > 0.05
    assert len(set(left)) > 5 and len(set(top)) > 5
    random_crop(Image.new("RGB", (300, 20)), rng, 32, (0.8, 1.0))  # no such rectangle fits
    assert boxes[-1] == (136, 0, 163, 20)  # the largest central one


def test_operations_are_applied_half_of_the_time_and_half_of_the_images_flipped(monkeypatch):
    applied, rng = Counter(), np.random.default_rng(0)
    monkeypatch.setattr(dataset, "apply", lambda name, image, sign: applied.update([name, sign]) or image)
    ramp = Image.fromarray(np.repeat(np.arange(64, dtype=np.uint8)[None, :, None].repeat(64, 0), 3, 2))
    looks = [array(augment(ramp, rng, size=64, crop=(0.8, 1.0), draws=2)) for _ in range(800)]
    assert 330 < sum(look[:, -1].mean() < look[:, 0].mean() for look in looks) < 470
    assert 730 < sum(applied[name] for name in OPERATIONS) < 870  # of 1600 draws
    assert all(60 < applied[name] < 140 for name in OPERATIONS) and 330 < applied[1] < 470
