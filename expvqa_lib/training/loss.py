"""The states of the vision encoder and the loss of a batch.

Each image passes the vision encoder once for all questions about it, and a frozen encoder once for all times.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import trange
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from ..data import load_image
from ..files import atomic, file_state, fingerprint
from ..model import answer_loss, language_inputs, query_image

CHUNK = 256  # images a file


def vision_states(model: InstructBlipForConditionalGeneration, pixel_values: Tensor) -> Tensor:
    """The vision encoder's states before its final norm [I, 1 + patches, D_vision]."""
    vision = model.vision_model
    patches = vision.embeddings(pixel_values.to(vision.embeddings.patch_embedding.weight.dtype))
    return vision.encoder(inputs_embeds=patches).last_hidden_state


@torch.no_grad()
def cached_states(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    images: Iterable[str],
    folder: str | Path,
) -> dict[str, Tensor]:
    """A frozen vision encoder's states before its final norm, [1 + patches, D_vision] by image path.

    A folder for each encoder holds safetensors files of some images each, known by path, size and time of
    change. They are written whole or not at all, by the main process, so a killed run computes only what is
    missing; and they are mapped into memory, so a state is read from disk when it is used.

    Raises:
        ImageError: an image cannot be read.
        ExpVQAError: the folder cannot be written to, or the disk is full.
    """
    state, names = PartialState(), {image: fingerprint(file_state(image)) for image in images}
    vision = model.vision_model.to(state.device)
    key = encoder_key([vision.embeddings, vision.encoder], processor.image_processor.to_dict())
    cached: dict[str, Tensor] = {}
    with state.main_process_first():
        for path in sorted((Path(folder) / key).glob("[!.]*.safetensors")):
            cached |= load_file(path)
        missing = [image for image, name in names.items() if name not in cached]
        for k in trange(0, len(missing), CHUNK, desc="encoding images", disable=not missing):
            chunk = missing[k : k + CHUNK]
            pixels = processor.image_processor(list(map(load_image, chunk)), return_tensors="pt")
            parts = pixels["pixel_values"].to(state.device).split(64)
            states = torch.cat([vision_states(model, part).cpu() for part in parts])
            new = dict(zip(map(names.get, chunk), states, strict=True))
            path = Path(folder) / key / f"{fingerprint(*new)}.safetensors"
            with atomic(path) as temporary:
                save_file(new, temporary)
            cached |= load_file(path)
    return {image: cached[name] for image, name in names.items()}


def encoder_key(modules: Iterable[nn.Module], *settings: object) -> str:
    """16 hex digits that change with any weight of the modules, its precision, or a setting."""
    digest = hashlib.sha256()
    for module in modules:
        for name, value in module.state_dict().items():
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return fingerprint(digest.digest(), *settings)


def batch_loss(model: InstructBlipForConditionalGeneration, batch: dict, tokens: int | None = None) -> Tensor:
    """Cross entropy of the answers in a batch of `dataset.Collator`: their sum over `tokens`, or the mean.

    The language model runs on groups of pairs of similar length: short answers are not padded to the longest.
    """
    states = (
        batch["vision_states"] if "vision_states" in batch else vision_states(model, batch["pixel_values"])
    )
    norm = model.vision_model.post_layernorm
    embeds = norm(states.to(norm.weight.dtype))  # [I, 1 + patches, D_vision]
    queries = query_image(model, embeds, batch, batch["image_index"])  # [N, Q, D]
    ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
    total = queries.new_zeros((), dtype=torch.float32)
    for rows in mask.sum(1).argsort(stable=True).tensor_split(batch["groups"]):
        width = int(mask[rows].sum(1).max())
        text = {"input_ids": ids[rows, :width], "attention_mask": mask[rows, :width]}
        inputs = language_inputs(model, queries[rows], text)
        total = total + answer_loss(model, inputs, labels[rows, :width], reduction="sum")
    return total / (tokens or (labels != -100).sum())


class LossModel(InstructBlipForConditionalGeneration):
    """A view of a model, with the same modules and weights, whose `forward` takes a batch and returns its
    loss.

    Autocast, DDP and FSDP wrap `forward`: so all of the loss is computed under them.
    """

    def __init__(self, model: InstructBlipForConditionalGeneration) -> None:
        nn.Module.__init__(self)
        vars(self).update(vars(model))

    def forward(self, num_items_in_batch: int | None = None, **batch) -> dict[str, Tensor]:
        """The loss over `num_items_in_batch`, the answer tokens in the batches of all processes."""
        return {"loss": batch_loss(self, batch, num_items_in_batch)}
