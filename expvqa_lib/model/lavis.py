"""The authors' checkpoints: reading LAVIS-format `.pth` files, their names and sizes in transformers' terms, and back.

A complete file holds the vision encoder, its final norm, the Q-Former with its queries, and the projection; the file of Exp-VQA(fz) leaves
the vision encoder out, which then comes from a base: InstructBLIP's file, or the EVA ViT's own. The language model is in none of them.
"""

from __future__ import annotations

import re
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

State = dict[str, Tensor]

VISION_HEADS, QFORMER_HEADS = 16, 12  # of the full-size model; the tensors do not tell
EVA_LAYERS = (
    39  # the reference builds 39 of the 40 blocks that the EVA file holds, and nothing of what follows them
)

_RENAMED = (  # LAVIS, transformers; in this order
    ("visual_encoder.cls_token", "vision_model.embeddings.class_embedding"),
    ("visual_encoder.pos_embed", "vision_model.embeddings.position_embedding"),
    ("visual_encoder.patch_embed.proj.", "vision_model.embeddings.patch_embedding."),
    ("visual_encoder.blocks.", "vision_model.encoder.layers."),
    ("ln_vision.", "vision_model.post_layernorm."),
    ("Qformer.bert.embeddings.LayerNorm.", "qformer.embeddings.layernorm."),
    ("Qformer.bert.", "qformer."),
    ("llm_proj.", "language_projection."),
)
_IN_BLOCK = (
    (".attn.qkv.", ".self_attn.qkv."),
    (".attn.proj.", ".self_attn.projection."),
    (".norm", ".layer_norm"),
)
_IN_QFORMER = (
    (".attention.self.", ".attention.attention."),
    (".crossattention.self.", ".crossattention.attention."),
)
DROPPED = re.compile(
    r"\.(position_ids|rotary_emb\.inv_freq)$|^Qformer\.cls\."
)  # counters, and a head that the reference removes


def read_checkpoint(path: str | Path) -> State:
    """Read a LAVIS-format file (`{"model": tensors}`) or the flat EVA ViT file, whose names get the prefix `visual_encoder.`.

    Nothing but tensors and plain values is unpickled, so a file cannot execute code.

    Raises:
        ModelError: it is missing, cut short, holds anything else, or no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path}: no such checkpoint file; expected a LAVIS-format .pth")
    try:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            content = torch.load(path, map_location="cpu", weights_only=True)  # the format before torch 1.6
    except Exception as error:  # pickle, zip and torch each have their own
        if "weights_only" in str(error) or "Weights only" in str(error):
            found = re.search(r"(GLOBAL|Unsupported \w+) ?[^\n]{0,80}", str(error))
            raise ModelError(
                f"{path}: refused, nothing was executed: beside tensors it holds {found[0] if found else 'Python objects'}; "
                "expected tensors only, ask for a clean file"
            ) from None
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"{path}: not a whole checkpoint ({reason}); download or copy it again") from error
    state = content.get("model", content) if isinstance(content, Mapping) else content
    if (
        not isinstance(state, Mapping)
        or not state
        or not all(isinstance(k, str) and torch.is_tensor(v) for k, v in state.items())
    ):
        kind = (
            f"keys {', '.join(map(str, list(content)[:5]))}"
            if isinstance(content, Mapping)
            else f"a {type(content).__name__}"
        )
        raise ModelError(f"{path}: found {kind}; expected tensors by name, under 'model' or at the top")
    if odd := [
        name for name, value in state.items() if not value.is_floating_point() and not DROPPED.search(name)
    ]:
        raise ModelError(f"{path}: {len(odd)} tensors do not hold floating-point numbers: {', '.join(odd)}")
    if "patch_embed.proj.weight" in state:
        state = {
            f"visual_encoder.{name}": value
            for name, value in state.items()
            if not _surplus_of_eva(name, state)
        }
    return dict(state)


def _surplus_of_eva(name: str, state: Mapping[str, Tensor]) -> bool:
    """Does the reference leave this tensor of the flat EVA file out? Its head and last norm, and of ViT-g the 40th block."""
    full_size = state["patch_embed.proj.weight"].shape[0] == 1408
    return name.startswith(("norm.", "fc_norm.", "head.")) or (
        full_size and name.startswith(f"blocks.{EVA_LAYERS}.")
    )


def join(
    checkpoint: State, base: State | None, where: str | Path = "checkpoint", base_where: str | Path = "base"
) -> State:
    """Return the complete state: the checkpoint's own, or with the vision encoder of `base` where it has none (Exp-VQA(fz)).

    Raises:
        ModelError: the base is needed and missing, not needed, or has no vision encoder itself.
    """
    own = any(name.startswith("visual_encoder.") for name in checkpoint)
    if own and base is not None:
        raise ModelError(f"{where}: holds a vision encoder itself; leave --base out")
    if own:
        return checkpoint
    if base is None:
        raise ModelError(
            f"{where}: holds no vision encoder, as Exp-VQA(fz) leaves it out; give the file it was trained from with --base"
        )
    vision = {name: value for name, value in base.items() if name.startswith("visual_encoder.")}
    if not vision:
        raise ModelError(
            f"{base_where}: holds no vision encoder; expected a complete LAVIS-format file or the EVA ViT file"
        )
    return vision | checkpoint


def to_transformers(state: Mapping[str, Tensor]) -> State:
    """Rename a complete LAVIS state to transformers' names; the biases of query and value, around zeros for the key, become one."""
    found: State = {}
    for name, value in state.items():
        if DROPPED.search(name) or name.endswith(".attn.v_bias"):
            continue
        if name.endswith(".attn.q_bias"):
            value = torch.cat([value, torch.zeros_like(value), state[name.replace("q_bias", "v_bias")]])
            name = name.replace("q_bias", "qkv.bias")
        found[_rename(name, 0, 1)] = value
    return found


def to_lavis(state: Mapping[str, Tensor]) -> State:
    """Rename transformers' names to LAVIS's, without the language model; the inverse of `to_transformers`.

    A bias of the key, which the reference does not have, is left out: it adds the same number to all scores of a query, and softmax takes
    it away again.
    """
    found: State = {}
    for name, value in state.items():
        if name.startswith("language_model."):
            continue
        name = _rename(name, 1, 0)
        if name.endswith(".attn.qkv.bias"):
            q, _, v = value.chunk(3)
            found[name.replace("qkv.bias", "q_bias")], found[name.replace("qkv.bias", "v_bias")] = (
                q.clone(),
                v.clone(),
            )
        else:
            found[name] = value
    if (positions := found.get("Qformer.bert.embeddings.position_embeddings.weight")) is not None:
        found["Qformer.bert.embeddings.position_ids"] = torch.arange(len(positions))[None]
    return found


def _rename(name: str, old: int, new: int) -> str:
    """One name from the `old` column of the tables above to the `new` one."""
    inner = (
        _IN_BLOCK
        if name.startswith(_RENAMED[3][old])
        else _IN_QFORMER
        if name.startswith(_RENAMED[6][old])
        else ()
    )
    for pair in inner:
        name = name.replace(pair[old], pair[new], 1)
    for pair in _RENAMED:
        if name.startswith(pair[old]):
            return pair[new] + name[len(pair[old]) :]
    return name


def configure(
    state: State,
    language: PreTrainedConfig,
    *,
    vision_heads: int = VISION_HEADS,
    qformer_heads: int = QFORMER_HEADS,
    patch_size: int | None = None,
    where: str | Path = "checkpoint",
) -> InstructBlipConfig:
    """Read the sizes of a complete LAVIS state off its tensors. Norm epsilons and dropout are those of the reference.

    Args:
        language: the language model's configuration.
        vision_heads, qformer_heads: the tensors do not tell them.
        patch_size: must agree with the tensors where it is given.

    Raises:
        ModelError: a tensor that gives a size is missing, the sizes contradict each other, or heads do not divide a width.
    """
    names = {
        "class": "visual_encoder.pos_embed",
        "patch": "visual_encoder.patch_embed.proj.weight",
        "mlp": "visual_encoder.blocks.0.mlp.fc1.weight",
        "queries": "query_tokens",
        "words": "Qformer.bert.embeddings.word_embeddings.weight",
        "positions": "Qformer.bert.embeddings.position_embeddings.weight",
        "inner": "Qformer.bert.encoder.layer.0.intermediate_query.dense.weight",
        "projection": "llm_proj.weight",
    }
    if missing := [name for name in names.values() if name not in state]:
        raise ModelError(
            f"{where}: {len(missing)} tensors that give the sizes are missing: {', '.join(missing)}"
        )
    ranks = {"class": 3, "patch": 4, "queries": 3}
    if odd := [name for key, name in names.items() if state[name].dim() != ranks.get(key, 2)]:
        raise ModelError(
            f"{where}: wrongly shaped: {', '.join(f'{name} {list(state[name].shape)}' for name in odd)}"
        )
    shape = {key: state[name].shape for key, name in names.items()}
    width, patch, qwidth = shape["patch"][0], shape["patch"][-1], shape["queries"][2]
    if patch_size not in (None, patch):
        raise ModelError(
            f"{where}: --patch-size {patch_size}, but {names['patch']} is of shape {list(shape['patch'])}: patches of {patch}"
        )
    side = round((shape["class"][1] - 1) ** 0.5)
    if side**2 != shape["class"][1] - 1:
        raise ModelError(
            f"{where}: {names['class']} has {shape['class'][1]} positions; expected a class token and a square of patches"
        )
    for option, heads, of in (
        ("--vision-heads", vision_heads, width),
        ("--qformer-heads", qformer_heads, qwidth),
    ):
        if heads < 1 or of % heads:
            raise ModelError(
                f"{where}: {option} {heads} do not divide the width {of}; say how many heads this model has"
            )
    if shape["projection"][0] != language.hidden_size:
        raise ModelError(
            f"{where}: llm_proj gives {shape['projection'][0]} values, but the language model is {language.hidden_size} wide; "
            "give the one that it was trained with"
        )
    vision_layers = _layers(state, "visual_encoder.blocks.", where)
    qformer_layers = _layers(state, "Qformer.bert.encoder.layer.", where)
    cross = [
        k
        for k in range(qformer_layers)
        if f"Qformer.bert.encoder.layer.{k}.crossattention.self.query.weight" in state
    ]
    return InstructBlipConfig(
        vision_config=InstructBlipVisionConfig(
            hidden_size=width,
            intermediate_size=shape["mlp"][0],
            num_hidden_layers=vision_layers,
            num_attention_heads=vision_heads,
            image_size=side * patch,
            patch_size=patch,
            layer_norm_eps=1e-6,
            post_layernorm_eps=1e-5,
        ).to_dict(),
        qformer_config=InstructBlipQFormerConfig(
            vocab_size=shape["words"][0],
            hidden_size=qwidth,
            num_hidden_layers=qformer_layers,
            num_attention_heads=qformer_heads,
            intermediate_size=shape["inner"][0],
            max_position_embeddings=shape["positions"][0],
            cross_attention_frequency=cross[1] - cross[0] if len(cross) > 1 else qformer_layers,
            encoder_hidden_size=width,
        ).to_dict(),
        text_config=language.to_dict(),
        num_query_tokens=shape["queries"][1],
    )


def _layers(state: State, prefix: str, where: str | Path) -> int:
    """How many layers there are, numbered from 0 without a gap."""
    numbers = {int(found[1]) for name in state if (found := re.match(re.escape(prefix) + r"(\d+)\.", name))}
    if missing := sorted(set(range(min(len(numbers), max(numbers, default=0) + 1))) - numbers):
        raise ModelError(
            f"{where}: layers are missing: {', '.join(f'{prefix}{k}' for k in missing)} (found {len(numbers)})"
        )
    return len(numbers)


def check(state: State, config: InstructBlipConfig, where: str | Path = "checkpoint") -> None:
    """Hold a complete LAVIS state to the model of `config`.

    Raises:
        ModelError: tensors are missing, surplus or of another shape; it names them all.
    """
    with torch.device("meta"):
        expected = to_lavis(InstructBlipForConditionalGeneration(config).state_dict())
    given = {name: value for name, value in state.items() if not DROPPED.search(name)}
    expected = {name: value for name, value in expected.items() if not DROPPED.search(name)}
    wrong = [
        f"{name} {list(given[name].shape)}, expected {list(expected[name].shape)}"
        for name in sorted(given.keys() & expected.keys())
        if given[name].shape != expected[name].shape
    ]
    faults = (
        ("missing", sorted(expected.keys() - given)),
        ("not known", sorted(given.keys() - expected)),
        ("of another shape", wrong),
    )
    if told := [f"{len(names)} {fault}: {', '.join(names)}" for fault, names in faults if names]:
        raise ModelError(f"{where}: not the tensors of one model; {'; '.join(told)}")
