"""A run of the tiny model on the miniature corpora, and a model whose answer depends on one patch."""

from types import SimpleNamespace

import pytest
import torch

from expvqa_lib.expvqa import ExpVQA


@pytest.fixture
def run(model, processor, faces_of):
    """What `attention` uses of a `pipeline.Run`."""
    return SimpleNamespace(
        is_rendered=True,
        au_corpus="synth_lab",
        caption_corpus="synth_wild",
        faces_of=faces_of,
        model=lambda name: ExpVQA(model, processor),
        profile=SimpleNamespace(explained=4, seed=0, resamples=5, corpora=SimpleNamespace(image=48)),
    )


@torch.no_grad()
def look_only_at(model, patch: int) -> None:
    """Make the answer depend on one patch: its neighbours stay apart, everything attends to its position."""
    vision = model.vision_model
    width = vision.config.hidden_size
    mark = torch.randn(width, generator=torch.Generator().manual_seed(0))
    mark = (mark - mark.mean()) / mark.std()
    for layer in vision.encoder.layers:
        layer.self_attn.qkv.weight[:width] = 0
        layer.self_attn.qkv.bias[:width] = 1
        layer.self_attn.qkv.weight[width : 2 * width] = 5 * mark / width
        for part in (layer.self_attn.projection, layer.mlp.fc2):
            part.weight.zero_()
            part.bias.zero_()
    vision.embeddings.position_embedding[:] = -3 * mark
    vision.embeddings.position_embedding[0, 1 + patch] = 3 * mark
    for layer in model.qformer.encoder.layer:
        attention = layer.crossattention.attention
        attention.query.weight.zero_()
        attention.query.bias.fill_(1.0)
        attention.key.weight[:] = 5 * mark / width
        attention.key.bias.zero_()
