"""States of a frozen vision encoder by image, computed once and read from disk afterwards.

A folder for each encoder holds safetensors files of some images each, known by path, size and time of change.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm.auto import trange
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from ..data import load_image
from ..files import atomic, file_state, fingerprint
from .loss import vision_states

CHUNK = 256  # images a file


class VisionStates:
    """A frozen vision encoder's states before its final norm, [1 + patches, D_vision] by image path.

    Files are written whole or not at all, so a killed run computes only what is missing.
    """

    def __init__(
        self,
        model: InstructBlipForConditionalGeneration,
        processor: InstructBlipProcessor,
        images: Iterable[str],
        folder: str | Path,
    ) -> None:
        """Compute the states that are not on disk; of several processes, the main one does.

        Raises:
            ImageError: an image cannot be read.
            ExpVQAError: the folder cannot be written to, or the disk is full.
        """
        state = PartialState()
        vision = model.vision_model.to(state.device)
        key = encoder_key([vision.embeddings, vision.encoder], processor.image_processor.to_dict())
        self._places: dict[str, tuple] = {}  # open file and row by state of the image
        with state.main_process_first():
            for path in sorted((Path(folder) / key).glob("[!.]*.safetensors")):
                self._open(path)
            missing = [image for image in dict.fromkeys(images) if _state(image) not in self._places]
            for k in trange(0, len(missing), CHUNK, desc="encoding images", disable=not missing):
                paths = missing[k : k + CHUNK]
                names = [_state(path) for path in paths]
                pixels = processor.image_processor(list(map(load_image, paths)), return_tensors="pt")
                with torch.no_grad():
                    parts = [
                        vision_states(model, part.to(state.device)).cpu()
                        for part in pixels["pixel_values"].split(64)
                    ]
                path = Path(folder) / key / f"{fingerprint(names)}.safetensors"
                with atomic(path) as temporary:
                    save_file({"states": torch.cat(parts)}, temporary, metadata={"images": json.dumps(names)})
                self._open(path)

    def _open(self, path: Path) -> None:
        file = safe_open(path, "pt")
        rows, names = file.get_slice("states"), json.loads(file.metadata()["images"])
        self._places |= {name: (rows, k) for k, name in enumerate(names)}

    def __getitem__(self, image: str) -> Tensor:
        rows, k = self._places[_state(image)]
        return rows[k]  # read from disk


def _state(image: str) -> str:
    return fingerprint(file_state(image))


def encoder_key(modules: Iterable[nn.Module], *settings: object) -> str:
    """16 hex digits that change with any weight of the modules, its precision, or a setting."""
    digest = hashlib.sha256()
    for module in modules:
        for name, value in module.state_dict().items():
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return fingerprint(digest.digest(), *settings)
