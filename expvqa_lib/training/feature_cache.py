"""Features of a frozen encoder by image, computed once and read from disk afterwards.

A folder for each encoder holds safetensors files of some images each, known by path, size and time of change.
Files are written whole or not at all, so a killed run computes only what is missing.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from ..data import load_image
from ..files import atomic, file_state, fingerprint
from .loss import vision_states

CHUNK = 256  # images a file


class FeatureCache:
    """Features by image path; `fill` computes those that are not on disk."""

    def __init__(self, folder: str | Path, key: str) -> None:
        """Open the cache of one encoder, whose `key` is from `encoder_key`."""
        self.folder = Path(folder) / key
        self._places: dict[str, tuple] = {}  # open file and row by state of the image

    def fill(self, images: Iterable[str], encode: Callable[[Sequence[str]], Tensor]) -> None:
        """Compute missing features: `encode` gives [n, ...] for n paths.

        Raises:
            ImageError: an image cannot be read.
            ExpVQAError: the folder cannot be written to, or the disk is full.
        """
        for path in sorted(self.folder.glob("[!.]*.safetensors")):
            self._open(path)
        missing = [image for image in dict.fromkeys(images) if _state(image) not in self._places]
        chunks = [missing[k : k + CHUNK] for k in range(0, len(missing), CHUNK)]
        for paths in tqdm(chunks, desc="encoding images", unit=f"x{CHUNK}", disable=not chunks):
            states = [_state(path) for path in paths]
            path = self.folder / f"{fingerprint(states)}.safetensors"
            features = encode(paths).detach().cpu().contiguous()
            with atomic(path) as temporary:
                save_file({"features": features}, temporary, metadata={"images": json.dumps(states)})
            self._open(path)

    def _open(self, path: Path) -> None:
        file = safe_open(path, "pt")
        rows = file.get_slice("features")  # read from disk by row
        states = json.loads(file.metadata()["images"])
        self._places |= {state: (rows, k) for k, state in enumerate(states)}

    def __getitem__(self, image: str) -> Tensor:
        """Features [...] of one image that `fill` was given."""
        rows, k = self._places[_state(image)]
        return rows[k]


def _state(image: str) -> str:
    return fingerprint(file_state(image))


def cached_vision_states(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    images: Sequence[str],
    folder: str | Path,
) -> FeatureCache:
    """`loss.vision_states` of images by path; of several processes, the main one computes them."""
    state = PartialState()
    vision = model.vision_model.to(state.device)
    key = encoder_key([vision.embeddings, vision.encoder], processor.image_processor.to_dict())
    cache = FeatureCache(folder, key)

    @torch.no_grad()
    def encode(paths: Sequence[str]) -> Tensor:
        pictures = [load_image(path) for path in paths]
        pixels = processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
        return torch.cat([vision_states(model, part.to(state.device)).cpu() for part in pixels.split(64)])

    with state.main_process_first():
        cache.fill(images, encode)
    return cache


def encoder_key(modules: Iterable[nn.Module], *settings: object) -> str:
    """16 hex digits that change with any weight of the modules, its precision, or a setting."""
    digest = hashlib.sha256()
    for module in modules:
        for name, value in module.state_dict().items():
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return fingerprint(digest.digest(), *settings)
