"""What a frozen encoder sees, kept on disk: computed once, exact, and safe against a killed run."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from expvqa_lib.errors import ImageError
from expvqa_lib.training import feature_cache as features
from expvqa_lib.training.feature_cache import Features, encoder_key


@pytest.fixture
def images(tmp_path) -> list[str]:
    paths = [tmp_path / f"{k}.png" for k in range(7)]
    for k, path in enumerate(paths):
        path.write_bytes(bytes([k]) * 9)
    return [str(path) for path in paths]


class Encoder:
    """Gives an image the numbers of its first byte, and counts what it looked at."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, paths: Sequence[str]) -> torch.Tensor:
        self.seen += paths
        return (
            torch.tensor([Path(p).read_bytes()[0] for p in paths]).float()[:, None, None].expand(-1, 3, 2) / 7
        )


def test_each_image_is_looked_at_once_and_given_back_exactly(images, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "CHUNK", 3)
    first, again = Encoder(), Encoder()
    for encode in (first, again):
        kept = Features(tmp_path / "kept", "key")
        kept.fill(images, encode)
        for k, image in enumerate(images):
            assert torch.equal(kept[image], torch.full((3, 2), k) / 7)
    assert first.seen == images and again.seen == []
    assert len(list((tmp_path / "kept" / "key").iterdir())) == 3


def test_images_of_the_same_content_share_and_a_changed_image_is_looked_at_again(images, tmp_path):
    encode = Encoder()
    Path(images[1]).write_bytes(Path(images[0]).read_bytes())
    Features(tmp_path / "kept", "key").fill(images, encode)
    assert len(encode.seen) == 6
    Path(images[1]).write_bytes(bytes([40]))
    kept = Features(tmp_path / "kept", "key")
    kept.fill(images, encode)
    assert encode.seen[6:] == [images[1]] and kept[images[1]][0, 0] == 40 / 7


def test_a_killed_run_goes_on_and_a_damaged_file_is_made_again(images, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "CHUNK", 2)
    encode = Encoder()

    def cut(paths):
        if len(encode.seen) >= 4:
            raise KeyboardInterrupt
        return encode(paths)

    with pytest.raises(KeyboardInterrupt):
        Features(tmp_path / "kept", "key").fill(images, cut)
    files = sorted((tmp_path / "kept" / "key").iterdir())
    assert len(files) == 2  # whole ones; nothing half-written beside them
    files[0].write_bytes(files[0].read_bytes()[:-5])
    (tmp_path / "kept" / "key" / ".half-1234.safetensors").write_bytes(b"killed while writing")
    kept = Features(tmp_path / "kept", "key")
    kept.fill(images, encode)
    assert len(encode.seen) == 4 + 5
    assert all(kept[image][0, 0] == k / 7 for k, image in enumerate(images))


def test_processes_share_the_work(images, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "CHUNK", 2)
    both = [Features(tmp_path / "kept", "key") for _ in range(2)]
    encoders = [Encoder(), Encoder()]
    both[1].fill(images, encoders[1], 1, 2)
    both[0].fill(images, encoders[0], 0, 2)  # sees what the other has written; its share is the same
    assert sorted(encoders[0].seen + encoders[1].seen) == images and encoders[0].seen and encoders[1].seen
    for kept in both:
        kept.scan()
        assert all(kept[image][0, 0] == k / 7 for k, image in enumerate(images))


def test_a_worker_process_opens_its_own_files(images, tmp_path):
    kept = Features(tmp_path / "kept", "key")
    kept.fill(images, Encoder())
    assert torch.equal(pickle.loads(pickle.dumps(kept))[images[3]], kept[images[3]])


def test_the_key_changes_with_weights_precision_and_settings():
    layer = nn.Linear(3, 2)
    key = encoder_key([layer], {"size": 96})
    assert key == encoder_key([layer], {"size": 96}) != encoder_key([layer], {"size": 224})
    assert encoder_key([nn.Linear(3, 2).bfloat16()], {"size": 96}) != key
    with torch.no_grad():
        layer.weight[1, 2] += 1e-6
    assert encoder_key([layer], {"size": 96}) != key


def test_a_missing_image_is_named(images, tmp_path):
    with pytest.raises(ImageError, match=r"nobody\.png: cannot be read"):
        Features(tmp_path / "kept", "key").fill([*images, str(tmp_path / "nobody.png")], Encoder())
    assert not (tmp_path / "kept").exists()
