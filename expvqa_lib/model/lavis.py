"""The authors' LAVIS-format checkpoints: their names and sizes in transformers' terms, and back.

A complete file holds the vision encoder, its final norm, the Q-Former with its queries, and the projection;
the file of Exp-VQA(fz) leaves the vision encoder out, which then comes from a base: InstructBLIP's file, or
the EVA ViT's own. The language model is in none of them.
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipQFormerConfig,
    InstructBlipVisionConfig,
    PreTrainedConfig,
)

from ..errors import ModelError
from .damage import damage

State = dict[str, Tensor]

VISION_HEADS, QFORMER_HEADS = 16, 12  # of the full-size model; no tensor tells

_NAMES = (  # parts of names in LAVIS, and in transformers
    ("visual_encoder.cls_token", "vision_model.embeddings.class_embedding"),
    ("visual_encoder.pos_embed", "vision_model.embeddings.position_embedding"),
    ("visual_encoder.patch_embed.proj.", "vision_model.embeddings.patch_embedding."),
    ("visual_encoder.blocks.", "vision_model.encoder.layers."),
    (".attn.qkv.", ".self_attn.qkv."),
    (".attn.proj.", ".self_attn.projection."),
    (".norm", ".layer_norm"),
    ("ln_vision.", "vision_model.post_layernorm."),
    ("Qformer.bert.embeddings.LayerNorm.", "qformer.embeddings.layernorm."),
    ("Qformer.bert.", "qformer."),
    (".attention.self.", ".attention.attention."),
    (".crossattention.self.", ".crossattention.attention."),
    ("llm_proj.", "language_projection."),
)
DROPPED = re.compile(r"\.(position_ids|rotary_emb\.inv_freq)$|^Qformer\.cls\.")
"""Counters, and a head that the reference removes."""

_SIZES = {  # tensors that give the sizes, and their dimensions
    "visual_encoder.pos_embed": 3,
    "visual_encoder.patch_embed.proj.weight": 4,
    "visual_encoder.blocks.0.mlp.fc1.weight": 2,
    "query_tokens": 3,
    "Qformer.bert.embeddings.word_embeddings.weight": 2,
    "Qformer.bert.embeddings.position_embeddings.weight": 2,
    "Qformer.bert.encoder.layer.0.intermediate_query.dense.weight": 2,
}


def read_checkpoint(path: str | Path) -> State:
    """Read a LAVIS-format file, `{"model": tensors}`, or EVA's flat file with the prefix `visual_encoder.`

    Nothing but tensors and plain values is unpickled, so a file cannot execute code.

    Raises:
        ModelError: it is missing, cut short, holds anything else, or no tensors.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # pickle, zip and torch each have their own
        found = re.search(r"(GLOBAL|Unsupported \w+) ?[^\n]{0,80}", str(error))
        said = f"beside tensors it holds {found[0]}" if found else str(error).partition("\n")[0]
        raise ModelError(
            f"{path}: not a whole checkpoint of tensors alone, nothing was executed "
            f"({damage(path) or said}); copy it again, or ask for a clean file"
        ) from None
    state = content.get("model", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not state or not all(torch.is_tensor(v) for v in state.values()):
        found = (
            f"keys {', '.join(map(str, content))}" if isinstance(content, Mapping) else type(content).__name__
        )
        raise ModelError(f"{path}: found {found:.200}; expected tensors by name, under 'model' or at the top")
    weights = {name: value for name, value in state.items() if not DROPPED.search(name)}
    if "patch_embed.proj.weight" not in weights:
        return weights
    # of EVA's file the reference leaves out the head, the last norm, and of ViT-g the 40th block
    is_full_size = weights["patch_embed.proj.weight"].shape[0] == 1408
    surplus = ("norm.", "fc_norm.", "head.", *(["blocks.39."] if is_full_size else []))
    return {
        f"visual_encoder.{name}": value for name, value in weights.items() if not name.startswith(surplus)
    }


def to_transformers(state: Mapping[str, Tensor]) -> State:
    """Rename a complete LAVIS state; the biases of query and value, with zeros for the key, become one."""
    renamed: State = {}
    for name, value in state.items():
        if name.endswith(".attn.q_bias"):
            value = torch.cat([value, torch.zeros_like(value), state[name.replace("q_bias", "v_bias")]])
            name = name.replace("q_bias", "qkv.bias")
        if not DROPPED.search(name) and not name.endswith(".attn.v_bias"):
            renamed[_rename(name, 0, 1)] = value
    return renamed


def to_lavis(state: Mapping[str, Tensor]) -> State:
    """Rename transformers' names to LAVIS's, without the language model; the inverse of `to_transformers`.

    The reference has no bias of the key, so it is left out: it adds the same number to all scores of a query,
    which softmax takes away again.
    """
    renamed: State = {}
    for name, value in state.items():
        lavis = _rename(name, 1, 0)
        if lavis.endswith(".attn.qkv.bias"):
            q, _, v = value.chunk(3)
            renamed |= {
                lavis.replace("qkv.bias", "q_bias"): q.clone(),
                lavis.replace("qkv.bias", "v_bias"): v.clone(),
            }
        elif not name.startswith("language_model."):
            renamed[lavis] = value
    positions = renamed.get("Qformer.bert.embeddings.position_embeddings.weight", ())
    return renamed | {"Qformer.bert.embeddings.position_ids": torch.arange(len(positions))[None]}


def _rename(name: str, old: int, new: int) -> str:
    """One name from the `old` column of the table above to the `new` one."""
    for names in _NAMES:
        name = name.replace(names[old], names[new], 1)
    return name


def configure(
    state: State, language: PreTrainedConfig, vision_heads: int, qformer_heads: int, where: str | Path
) -> InstructBlipConfig:
    """Configuration for a complete LAVIS state: sizes from its tensors, the rest from the reference.

    Raises:
        ModelError: a tensor that gives a size is missing or has other dimensions, or heads do not divide a
            width.
    """
    if wrong := [name for name, n in _SIZES.items() if name not in state or state[name].dim() != n]:
        raise ModelError(
            f"{where}: {len(wrong)} tensors that give the sizes are missing or wrongly shaped: "
            f"{', '.join(wrong)}"
        )
    positions, patches, mlp, queries, words, text_positions, inner = (state[name].shape for name in _SIZES)
    width, patch, qformer_width = patches[0], patches[-1], queries[2]
    if width % vision_heads or qformer_width % qformer_heads:
        raise ModelError(
            f"{where}: {vision_heads} and {qformer_heads} heads of vision encoder and Q-Former do not divide "
            f"their widths, {width} and {qformer_width}"
        )
    cross = sorted(_numbers(state, r"Qformer\.bert\.encoder\.layer\.(\d+)\.crossattention\."))
    qformer_layers = _numbers(state, r"Qformer\.bert\.encoder\.layer\.(\d+)\.")
    return InstructBlipConfig(
        vision_config=InstructBlipVisionConfig(
            hidden_size=width,
            intermediate_size=mlp[0],
            num_hidden_layers=len(_numbers(state, r"visual_encoder\.blocks\.(\d+)\.")),
            num_attention_heads=vision_heads,
            image_size=round((positions[1] - 1) ** 0.5) * patch,
            patch_size=patch,
            layer_norm_eps=1e-6,
            post_layernorm_eps=1e-5,
        ).to_dict(),
        qformer_config=InstructBlipQFormerConfig(
            vocab_size=words[0],
            hidden_size=qformer_width,
            num_hidden_layers=len(qformer_layers),
            num_attention_heads=qformer_heads,
            intermediate_size=inner[0],
            max_position_embeddings=text_positions[0],
            cross_attention_frequency=cross[1] - cross[0] if len(cross) > 1 else len(qformer_layers),
            encoder_hidden_size=width,
        ).to_dict(),
        text_config=language.to_dict(),
        num_query_tokens=queries[1],
    )


def _numbers(state: State, pattern: str) -> set[int]:
    """Numbers of the layers whose names match."""
    return {int(match[1]) for match in map(re.compile(pattern).match, state) if match}


def check(state: State, config: InstructBlipConfig, where: str | Path) -> None:
    """Compare a complete LAVIS state with the model of `config`.

    Raises:
        ModelError: tensors are missing, surplus or of another shape; it names them all.
    """
    with torch.device("meta"):
        expected = to_lavis(InstructBlipForConditionalGeneration(config).state_dict())
    shapes, expected = (
        {name: list(value.shape) for name, value in tensors.items() if not DROPPED.search(name)}
        for tensors in (state, expected)
    )
    faults = {
        "missing": sorted(expected.keys() - shapes),
        "not known": sorted(shapes.keys() - expected),
        "of another shape": [
            f"{name} {shapes[name]}, expected {expected[name]}"
            for name in sorted(shapes.keys() & expected)
            if shapes[name] != expected[name]
        ],
    }
    if report := [f"{len(names)} {fault}: {', '.join(names)}" for fault, names in faults.items() if names]:
        raise ModelError(
            f"{where}: not the tensors of one model with this language model (width "
            f"{config.text_config.hidden_size}); " + "; ".join(report)
        )
