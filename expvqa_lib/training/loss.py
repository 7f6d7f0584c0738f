"""The loss of a batch; each image passes the vision encoder once for all questions about it."""

import torch
from torch import Tensor, nn
from transformers import InstructBlipForConditionalGeneration

from ..model.forward import answer_loss, language_inputs, query_image


def vision_states(model: InstructBlipForConditionalGeneration, pixel_values: Tensor) -> Tensor:
    """The vision encoder's states before its final norm [I, 1 + patches, D_vision]; no gradients if
    frozen."""
    vision = model.vision_model
    weight = vision.embeddings.patch_embedding.weight
    with torch.set_grad_enabled(weight.requires_grad and torch.is_grad_enabled()):
        patches = vision.embeddings(pixel_values.to(weight.dtype))
        return vision.encoder(inputs_embeds=patches).last_hidden_state


def batch_loss(model: InstructBlipForConditionalGeneration, batch: dict, tokens: int | None = None) -> Tensor:
    """Cross entropy of the answers in a batch of `dataset.Collator`: their sum over `tokens`, or the mean.

    The language model runs on groups of pairs of similar length: short answers are not padded to the longest.
    """
    states = (
        batch["vision_states"] if "vision_states" in batch else vision_states(model, batch["pixel_values"])
    )
    norm = model.vision_model.post_layernorm
    embeds = norm(states.to(norm.weight.dtype))  # [I, 1 + patches, D_vision]
    question = (batch["qformer_input_ids"], batch["qformer_attention_mask"])
    queries = query_image(model, embeds, *question, batch["image_index"])  # [N, Q, D]
    ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
    total = queries.new_zeros((), dtype=torch.float32)
    for rows in mask.sum(1).argsort(stable=True).tensor_split(batch["groups"]):
        width = int(mask[rows].sum(1).max())
        inputs = language_inputs(model, queries[rows], ids[rows, :width], mask[rows, :width])
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
