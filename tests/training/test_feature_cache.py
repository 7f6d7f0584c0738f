"""States of a frozen vision encoder on disk: computed once, exact, and safe against a killed run."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn
from weights import pixels_of

from expvqa_lib.data import load_image
from expvqa_lib.errors import ImageError
from expvqa_lib.training import cached_states, encoder_key, loss, vision_states


@pytest.fixture
def images(faces, tmp_path) -> list[str]:
    """Seven faces, which a test may change."""
    copies = [tmp_path / Path(image).name for image in faces["image"][:7]]
    for image, copy in zip(faces["image"], copies, strict=False):
        copy.write_bytes(Path(image).read_bytes())
    return list(map(str, copies))


@pytest.fixture
def encoded(model, processor, tmp_path, monkeypatch):
    """Open the cache for some images, two a file; return it and how many of them are encoded."""
    monkeypatch.setattr(loss, "CHUNK", 2)
    counts = []
    model.vision_model.encoder.register_forward_hook(lambda *call: counts.append(len(call[2][0])))

    def open_cache(images: list[str]) -> tuple[dict[str, torch.Tensor], int]:
        counts.clear()
        return cached_states(model, processor, images, tmp_path / "cache"), sum(counts)

    return open_cache


def test_each_image_is_encoded_once_until_it_changes_and_read_back_exactly(
    model, processor, images, encoded, tmp_path
):
    with pytest.raises(ImageError, match=r"nobody\.png"):
        encoded([*images, str(tmp_path / "nobody.png")])
    assert not (tmp_path / "cache").exists()
    assert encoded(images)[1] == 7
    states, count = encoded(images)
    assert count == 0
    for image in images:
        torch.testing.assert_close(states[image], vision_states(model, pixels_of(processor, [image]))[0])
    os.utime(images[1], (0, 0))
    assert encoded(images)[1] == 1


def test_a_killed_run_computes_only_what_is_missing(images, encoded, tmp_path, monkeypatch):
    read = []

    def cut(image: str):
        if len(read) == 4:
            raise KeyboardInterrupt
        read.append(image)
        return load_image(image)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loss, "load_image", cut)
        encoded(images)
    files = list((tmp_path / "cache").rglob("*.safetensors"))
    assert len(files) == 2  # whole ones; nothing half-written beside them
    files[0].with_name(".half-1234.safetensors").write_bytes(b"killed while writing")
    assert encoded(images)[1] == 3


def test_the_key_changes_with_weights_precision_and_settings():
    layer = nn.Linear(3, 2)
    key = encoder_key([layer], {"size": 96})
    assert key == encoder_key([layer], {"size": 96}) != encoder_key([layer], {"size": 224})
    assert encoder_key([nn.Linear(3, 2).bfloat16()], {"size": 96}) != key
    with torch.no_grad():
        layer.weight[1, 2] += 1e-6
    assert encoder_key([layer], {"size": 96}) != key
