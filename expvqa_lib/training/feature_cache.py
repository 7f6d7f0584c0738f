"""Features of a frozen encoder by image, computed once and read from disk afterwards.

A folder for each encoder holds safetensors files of some images each. Images are known by their content,
files are written whole or not at all, and a killed run computes only what is still missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from ..data.images import load_image
from ..errors import ImageError
from ..files import atomic, fingerprint
from .loss import vision_states

CHUNK = 256  # images a file


class FeatureCache:
    """Features by image path; `fill` computes those that are not on disk."""

    def __init__(self, folder: str | Path, key: str) -> None:
        """Open the cache of one encoder, whose `key` is from `encoder_key`."""
        self.folder = Path(folder) / key
        self._contents: dict[str, str] = {}  # hash of the file, by image path
        self._places: dict[str, tuple[str, int]] = {}  # file and row, by hash
        self._files: dict[str, object] = {}  # open files by name

    def fill(
        self,
        images: Iterable[str],
        encode: Callable[[Sequence[str]], Tensor],
        process: int = 0,
        processes: int = 1,
    ) -> None:
        """Compute missing features: `encode` gives [n, ...] for n paths. Each of several processes computes
        its share.

        Processes that share the work call `scan` when all are done.

        Raises:
            ImageError: an image cannot be read.
            ExpVQAError: the folder cannot be written to, or the disk is full.
        """
        for image in images:
            if image not in self._contents:
                self._contents[image] = _content(image)
        self.scan()
        unique = list({content: image for image, content in self._contents.items()}.items())
        # shares are cut before looking at what is on disk, which other processes may be changing
        missing = [(c, image) for c, image in unique[process::processes] if c not in self._places]
        chunks = [missing[k : k + CHUNK] for k in range(0, len(missing), CHUNK)]
        for chunk in tqdm(chunks, desc="encoding images", unit=f"x{CHUNK}", disable=not chunks):
            contents = [content for content, _ in chunk]
            features = encode([image for _, image in chunk]).detach().cpu().contiguous()
            with atomic(self.folder / f"{fingerprint(contents)}.safetensors") as temporary:
                save_file({"states": features}, temporary, metadata={"images": json.dumps(contents)})
        self.scan()

    def scan(self) -> None:
        """Open files that are new on disk; a damaged file is deleted, so that its images are computed
        again."""
        for path in sorted(self.folder.glob("[!.]*.safetensors")):
            if path.name in self._files:
                continue
            try:
                file = safe_open(path, "pt")
                contents = json.loads(file.metadata()["images"])
                self._files[path.name] = file.get_slice("states")
            except (SafetensorError, KeyError, TypeError, ValueError):
                path.unlink(missing_ok=True)
                continue
            self._places |= {content: (path.name, row) for row, content in enumerate(contents)}

    def __getitem__(self, image: str) -> Tensor:
        """Features [...] of one image that `fill` was given."""
        name, row = self._places[self._contents[image]]
        return self._files[name][row]

    def __getstate__(self) -> dict:
        """Without the open files: a worker process opens its own."""
        return self.__dict__ | {"_files": {}, "_places": {}}

    def __setstate__(self, state: dict) -> None:
        self.__dict__ |= state
        self.scan()


def cached_vision_states(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    images: Sequence[str],
    folder: str | Path,
) -> FeatureCache:
    """`loss.vision_states` of images by path, each process of this training computing its share."""
    state = PartialState()
    vision = model.vision_model.to(state.device)
    key = encoder_key([vision.embeddings, vision.encoder], processor.image_processor.to_dict())
    cache = FeatureCache(folder, key)

    @torch.no_grad()
    def encode(paths: Sequence[str]) -> Tensor:
        pictures = [load_image(path) for path in paths]
        pixels = processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
        return torch.cat([vision_states(model, part.to(state.device)).cpu() for part in pixels.split(64)])

    cache.fill(images, encode, state.process_index, state.num_processes)
    state.wait_for_everyone()
    cache.scan()
    return cache


def encoder_key(modules: Iterable[nn.Module], *settings: object) -> str:
    """16 hex digits that change with any weight of the modules, its precision, or a setting (say, of the
    image processor)."""
    digest = hashlib.sha256()
    for module in modules:
        for name, value in module.state_dict().items():
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return fingerprint(digest.digest(), *settings)


def _content(image: str) -> str:
    try:
        return hashlib.sha256(Path(image).read_bytes()).hexdigest()[:32]
    except OSError as error:
        raise ImageError(
            f"{image}: cannot be read ({error.strerror}); check the path in the pairs"
        ) from error
