"""Features of a frozen encoder on disk: computed once, exact, and safe against a killed run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from expvqa_lib.errors import ImageError
from expvqa_lib.training import FeatureCache, encoder_key, feature_cache


@pytest.fixture
def images(tmp_path) -> list[str]:
    paths = [tmp_path / f"{k}.png" for k in range(7)]
    for k, path in enumerate(paths):
        path.write_bytes(bytes([k]) * 9)
    return [str(path) for path in paths]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Open the cache anew, which holds two images a file."""
    monkeypatch.setattr(feature_cache, "CHUNK", 2)
    return lambda: FeatureCache(tmp_path / "cache", "key")


class Encoder:
    """Features [3, 2] of an image: its first byte; `calls` are the images that it was called for."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, paths: Sequence[str]) -> torch.Tensor:
        self.calls += paths
        numbers = torch.tensor([Path(path).read_bytes()[0] for path in paths]).float()
        return numbers[:, None, None].expand(-1, 3, 2) / 7


def assert_right(cache: FeatureCache, images: list[str]) -> None:
    for k, image in enumerate(images):
        assert torch.equal(cache[image], torch.full((3, 2), k) / 7)


def test_each_image_is_encoded_once_and_read_back_exactly(images, cache):
    first, again = Encoder(), Encoder()
    for encode in (first, again):
        filled = cache()
        filled.fill(images, encode)
        assert_right(filled, images)
    assert first.calls == images and again.calls == []
    assert len(list(filled.folder.iterdir())) == 4


def test_a_changed_image_is_encoded_again(images, cache):
    encode = Encoder()
    cache().fill(images, encode)
    Path(images[1]).write_bytes(bytes([40]))
    filled = cache()
    filled.fill(images, encode)
    assert encode.calls == [*images, images[1]] and filled[images[1]][0, 0] == 40 / 7


def test_a_killed_run_computes_only_what_is_missing(images, cache):
    encode = Encoder()

    def cut(paths):
        if len(encode.calls) >= 4:
            raise KeyboardInterrupt
        return encode(paths)

    filled = cache()
    with pytest.raises(KeyboardInterrupt):
        filled.fill(images, cut)
    assert len(list(filled.folder.iterdir())) == 2  # whole ones; nothing half-written beside them
    (filled.folder / ".half-1234.safetensors").write_bytes(b"killed while writing")
    filled = cache()
    filled.fill(images, encode)
    assert encode.calls == images
    assert_right(filled, images)


def test_the_key_changes_with_weights_precision_and_settings():
    layer = nn.Linear(3, 2)
    key = encoder_key([layer], {"size": 96})
    assert key == encoder_key([layer], {"size": 96}) != encoder_key([layer], {"size": 224})
    assert encoder_key([nn.Linear(3, 2).bfloat16()], {"size": 96}) != key
    with torch.no_grad():
        layer.weight[1, 2] += 1e-6
    assert encoder_key([layer], {"size": 96}) != key


def test_a_missing_image_is_named(images, cache, tmp_path):
    with pytest.raises(ImageError, match=r"nobody\.png"):
        cache().fill([*images, str(tmp_path / "nobody.png")], Encoder())
    assert not (tmp_path / "cache").exists()
