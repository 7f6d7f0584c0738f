"""InstructBLIP at any size: build, initialise, load, save, and the three steps of its forward pass.

The classes are transformers' own. `encode_images`, `query_image` and `language_inputs` are the paper's figure as functions: vision
encoder, instruction-aware Q-Former, and the sequence that the frozen language model reads.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import (
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipQFormerConfig,
    InstructBlipVisionConfig,
    LlamaConfig,
)
from transformers.masking_utils import create_bidirectional_mask


@dataclass(frozen=True)
class Size:
    """Sizes of an InstructBLIP. The defaults are the quick profile's tiny model."""

    image: int = 96  # pixels
    patch: int = 12
    vision_width: int = 128
    vision_layers: int = 4
    qformer_width: int = 128
    qformer_layers: int = 2
    queries: int = 8
    language_width: int = 128
    language_layers: int = 2
    heads: int = 4
    vocabulary: int = 1024
    qformer_vocabulary: int = 1024
    image_token: int = 3


TINY = Size()
"""The quick profile's model."""


def build(size: Size = TINY, seed: int = 0) -> InstructBlipForConditionalGeneration:
    """Return a fresh InstructBLIP that can learn at small width.

    transformers' own initialisation leaves all queries zero and the vision tower near zero, and does not train at this size; so linear
    layers start by fan-in, positions are 2-D sine-cosine waves and the queries are spread.
    """
    torch.manual_seed(seed)
    vision = InstructBlipVisionConfig(
        hidden_size=size.vision_width,
        intermediate_size=4 * size.vision_width,
        num_hidden_layers=size.vision_layers,
        num_attention_heads=size.heads,
        image_size=size.image,
        patch_size=size.patch,
        layer_norm_eps=1e-5,
    )
    qformer = InstructBlipQFormerConfig(
        vocab_size=size.qformer_vocabulary,
        hidden_size=size.qformer_width,
        num_hidden_layers=size.qformer_layers,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.qformer_width,
        max_position_embeddings=128,
        cross_attention_frequency=1,
        encoder_hidden_size=size.vision_width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    language = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.language_width,
        intermediate_size=3 * size.language_width,
        num_hidden_layers=size.language_layers,
        num_attention_heads=size.heads,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=True,
    )
    config = InstructBlipConfig(
        vision_config=vision.to_dict(),
        qformer_config=qformer.to_dict(),
        text_config=language.to_dict(),
        num_query_tokens=size.queries,
        image_token_index=size.image_token,
    )
    model = InstructBlipForConditionalGeneration(config)
    initialise(model)
    return model.eval()


@torch.no_grad()
def initialise(model: InstructBlipForConditionalGeneration) -> None:
    """Give a fresh model starting values that carry a signal at small width (in place, from torch's global generator)."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            fan_in = module.weight[0].numel()
            nn.init.trunc_normal_(module.weight, std=fan_in**-0.5)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
    embeddings = model.vision_model.embeddings
    embeddings.position_embedding.copy_(_sine_cosine(embeddings.num_patches, embeddings.embed_dim))
    nn.init.normal_(embeddings.class_embedding, std=0.5)
    nn.init.normal_(model.query_tokens, std=1.0)
    nn.init.normal_(model.language_model.get_input_embeddings().weight, std=model.config.text_config.hidden_size**-0.5)


def _sine_cosine(patches: int, width: int) -> Tensor:
    """2-D sine-cosine position embedding [1, 1 + patches, width]; zero for the class token."""
    side = math.isqrt(patches)
    bands = width // 4
    frequency = 1 / 100 ** (torch.arange(bands) / bands)
    angle = torch.arange(side)[:, None] * frequency  # [side, bands]
    wave = torch.cat([angle.sin(), angle.cos()], 1)  # [side, width / 2]
    grid = torch.cat([wave[:, None].expand(side, side, -1), wave[None].expand(side, side, -1)], 2)
    return torch.cat([torch.zeros(1, width), grid.reshape(patches, width)])[None]


def encode_images(model: InstructBlipForConditionalGeneration, pixel_values: Tensor) -> Tensor:
    """Vision encoder and its final norm: pixels [I, 3, S, S] to image embeddings [I, 1 + patches, D_vision]."""
    return model.vision_model(pixel_values).last_hidden_state


def query_image(
    model: InstructBlipForConditionalGeneration,
    image_embeds: Tensor,
    qformer_ids: Tensor,
    qformer_mask: Tensor,
    image_index: Tensor | None = None,
) -> Tensor:
    """Q-Former reading each question, with what depends on the image alone computed once an image.

    The layers are transformers' own, and so is the result; but the cross-attention's keys and values are shared by all questions about an
    image, and the last layer's words, which nobody reads, are left out.

    Args:
        image_embeds: [I, P, D_vision], from `encode_images`.
        qformer_ids: questions [N, T]; `qformer_mask` alike, 1 at a word and 0 at padding.
        image_index: [N], which image each question is about; question k is about image k where None.

    Returns:
        Query outputs [N, Q, D_qformer].
    """
    n, q = len(qformer_ids), model.query_tokens.shape[1]
    index = torch.arange(n, device=qformer_ids.device) if image_index is None else image_index
    hidden = model.qformer.embeddings(input_ids=qformer_ids, query_embeds=model.query_tokens.expand(n, -1, -1))  # [N, Q + T, D]
    mask = torch.cat([qformer_mask.new_ones(n, q), qformer_mask], 1)
    mask = create_bidirectional_mask(config=model.qformer.config, inputs_embeds=hidden, attention_mask=mask)
    slot = _slots(index)
    layers = model.qformer.encoder.layer
    for layer in layers:
        attended = layer.attention(hidden, attention_mask=mask)
        queries = attended[:, :q]
        if layer.has_cross_attention:
            by_image = queries.new_zeros(len(image_embeds), int(slot.max()) + 1, *queries.shape[1:])
            by_image[index, slot] = queries  # [I, questions, Q, D]
            seen = layer.crossattention(by_image.flatten(1, 2), encoder_hidden_states=image_embeds)
            queries = seen.view_as(by_image)[index, slot]
        queries = layer.feed_forward_chunk_query(queries)
        if layer is not layers[-1]:
            hidden = torch.cat([queries, layer.feed_forward_chunk(attended[:, q:])], 1)
    return queries


@contextlib.contextmanager
def cross_attention_weights(qformer: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the weights of each cross-attention that runs inside: [I, heads, questions * Q, P] a layer, of `query_image`'s inputs."""
    weights: list[Tensor] = []
    before = qformer.config._attn_implementation
    qformer.set_attn_implementation("eager")  # the only implementation that gives weights
    layers = [layer.crossattention.attention for layer in qformer.encoder.layer if layer.has_cross_attention]
    hooks = [layer.register_forward_hook(lambda module, given, result: weights.append(result[1])) for layer in layers]
    try:
        yield weights
    finally:
        for hook in hooks:
            hook.remove()
        qformer.set_attn_implementation(before)


def _slots(index: Tensor) -> Tensor:
    """The running number of each question among those about its image: [0, 0, 1, 0] to [0, 1, 0, 0]."""
    order = index.argsort(stable=True)
    ranks = torch.arange(len(index), device=index.device)
    counts = torch.bincount(index)
    slots = torch.empty_like(index)
    slots[order] = ranks - (counts.cumsum(0) - counts)[index[order]]
    return slots


def language_inputs(model: InstructBlipForConditionalGeneration, query_output: Tensor, input_ids: Tensor, attention_mask: Tensor) -> dict:
    """What the language model reads: projected queries [N, Q, D], then the text's embeddings [N, T, D], with mask and positions.

    Padding may stand on either side of the text: positions are counted from the mask.
    """
    prefix = model.language_projection(query_output)  # [N, Q, D_language]
    words = model.language_model.get_input_embeddings()(input_ids).to(prefix.dtype)
    mask = torch.cat([attention_mask.new_ones(prefix.shape[:2]), attention_mask], 1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return {"inputs_embeds": torch.cat([prefix, words], 1), "attention_mask": mask, "position_ids": positions}


def answer_loss(model: InstructBlipForConditionalGeneration, inputs: dict, labels: Tensor, reduction: str = "mean") -> Tensor:
    """Cross entropy over the labelled tokens; only their logits are computed. `inputs` from `language_inputs`, labels [N, T]."""
    hidden = model.language_model.model(**inputs).last_hidden_state  # [N, Q + T, D]
    hidden = hidden[:, -labels.shape[1] - 1 : -1]  # the position before each token of the text
    told = labels != -100
    return nn.functional.cross_entropy(model.language_model.lm_head(hidden[told]).float(), labels[told], reduction=reduction)
