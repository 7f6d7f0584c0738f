"""A fresh InstructBLIP of any size, with starting values from which a small one learns."""

from __future__ import annotations

import math
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

    transformers' own initialisation leaves all queries zero and the vision tower near zero, and does not
    train at this size; so linear layers start by fan-in, positions are 2-D sine-cosine waves and the queries
    are spread.
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
    """Give a fresh model starting values that carry a signal at small width, in place."""
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
    nn.init.normal_(
        model.language_model.get_input_embeddings().weight, std=model.config.text_config.hidden_size**-0.5
    )


def _sine_cosine(patches: int, width: int) -> Tensor:
    """2-D sine-cosine position embedding [1, 1 + patches, width]; zero for the class token."""
    side = math.isqrt(patches)
    bands = width // 4
    frequency = 1 / 100 ** (torch.arange(bands) / bands)
    angle = torch.arange(side)[:, None] * frequency  # [side, bands]
    wave = torch.cat([angle.sin(), angle.cos()], 1)  # [side, width / 2]
    grid = torch.cat([wave[:, None].expand(side, side, -1), wave[None].expand(side, side, -1)], 2)
    return torch.cat([torch.zeros(1, width), grid.reshape(patches, width)])[None]
