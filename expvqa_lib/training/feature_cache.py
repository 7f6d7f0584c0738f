"""What a frozen vision encoder makes of each image, computed once and kept on disk.

A folder holds safetensors files of some images each, read memory-mapped. They are named for the encoder and the images' content, each is
written whole or not at all, and a run that was killed goes on with those that are missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..errors import ImageError
from ..files import atomic, fingerprint

CHUNK = 256  # images a file


class Features:
    """Features by image path, as a mapping; `fill` computes what is missing."""

    def __init__(self, folder: str | Path, key: str) -> None:
        """Open the cache of one encoder; `key` is from `encoder_key`."""
        self.folder = Path(folder) / key
        self._digests: dict[str, str] = {}  # path to content
        self._places: dict[str, tuple[str, int]] = {}  # content to file and row
        self._open: dict[str, object] = {}

    def fill(
        self,
        images: Iterable[str],
        encode: Callable[[Sequence[str]], Tensor],
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        """Compute and keep what is missing: `encode` gives [n, ...] for n paths.

        Each of several `processes` does its own share; when all have, each calls `scan`.

        Raises:
            ImageError: an image cannot be read.
            ExpVQAError: the folder cannot be written to, or the disk is full.
        """
        for image in images:
            if image not in self._digests:
                self._digests[image] = _digest(image)
        self.scan()
        different = {digest: image for image, digest in self._digests.items()}
        share = list(different.items())[
            rank::processes
        ]  # before looking what is there, which others may be changing
        todo = [(digest, image) for digest, image in share if digest not in self._places]
        chunks = [todo[k : k + CHUNK] for k in range(0, len(todo), CHUNK)]
        for chunk in tqdm(chunks, desc="looking", unit=f"x{CHUNK}", disable=not chunks):
            digests = [digest for digest, _ in chunk]
            states = encode([image for _, image in chunk]).detach().cpu().contiguous()
            with atomic(self.folder / f"{fingerprint(digests)}.safetensors") as temporary:
                save_file({"states": states}, temporary, metadata={"images": json.dumps(digests)})
        self.scan()

    def scan(self) -> None:
        """Take up what is on disk by now; a file that is not whole is passed over and its images are computed again."""
        for path in sorted(self.folder.glob("[!.]*.safetensors")):
            if path.name in self._open:
                continue
            try:
                file = safe_open(path, "pt")
                digests = json.loads(file.metadata()["images"])
                self._open[path.name] = file.get_slice("states")
            except (SafetensorError, KeyError, TypeError, ValueError):  # damaged by whatever befell the disk
                path.unlink(missing_ok=True)
                continue
            self._places |= {digest: (path.name, row) for row, digest in enumerate(digests)}

    def __getitem__(self, image: str) -> Tensor:
        """Features [...] of one image that `fill` was given."""
        name, row = self._places[self._digests[image]]
        return self._open[name][row]

    def __getstate__(self) -> dict:
        """Without the open files: a worker process opens its own."""
        return self.__dict__ | {"_open": {}, "_places": {}}

    def __setstate__(self, state: dict) -> None:
        self.__dict__ |= state
        self.scan()


def encoder_key(modules: Iterable[nn.Module], *settings: object) -> str:
    """16 hex digits that change with any weight of the modules, its precision, or the settings (the image processor's, say)."""
    digest = hashlib.sha256()
    for module in modules:
        for name, value in module.state_dict().items():
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return fingerprint(digest.digest(), *settings)


def _digest(image: str) -> str:
    try:
        return hashlib.sha256(Path(image).read_bytes()).hexdigest()[:32]
    except OSError as error:
        raise ImageError(
            f"{image}: cannot be read ({error.strerror}); check the path in the pairs"
        ) from error
