"""Checkpoints in the authors' format: the golden ones, and toy ones of any size written down by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

GOLDEN = Path(__file__).parent / "golden"
HEADS = {"vision_heads": 4, "qformer_heads": 4}
OPTIONS = {"language_model": GOLDEN / "llm", "qformer_tokenizer": GOLDEN / "bert_tokenizer", **HEADS}


def other_sizes(**changes) -> dict:
    """Sizes of a toy checkpoint that differ from golden's in everything."""
    sizes = {
        "image": 32,
        "patch": 8,
        "width": 24,
        "layers": 2,
        "mlp": 40,
        "q": 48,
        "q_layers": 3,
        "every": 1,
        "q_mlp": 56,
        "queries": 3,
    }
    return sizes | {"language": 32, "words": 420, "positions": 50} | changes


def lavis_state(sizes: dict, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """A LAVIS-format state written down by hand from the reference's layout, with random values."""
    d, q, shapes = sizes["width"], sizes["q"], {}
    shapes |= {"query_tokens": (1, sizes["queries"], q), "visual_encoder.cls_token": (1, 1, d)}
    shapes["visual_encoder.pos_embed"] = (1, 1 + (sizes["image"] // sizes["patch"]) ** 2, d)
    shapes |= {
        "visual_encoder.patch_embed.proj.weight": (d, 3, sizes["patch"], sizes["patch"]),
        "visual_encoder.patch_embed.proj.bias": (d,),
    }
    for k in range(sizes["layers"]):
        at = f"visual_encoder.blocks.{k}."
        linear = {"attn.proj": (d, d), "mlp.fc1": (sizes["mlp"], d), "mlp.fc2": (d, sizes["mlp"])}
        shapes |= {f"{at}attn.qkv.weight": (3 * d, d), f"{at}attn.q_bias": (d,), f"{at}attn.v_bias": (d,)}
        shapes |= {
            f"{at}{n}.{p}": s if p == "weight" else s[:1]
            for n, s in linear.items()
            for p in ("weight", "bias")
        }
        shapes |= {f"{at}norm{n}.{p}": (d,) for n in (1, 2) for p in ("weight", "bias")}
    shapes |= {"ln_vision.weight": (d,), "ln_vision.bias": (d,)}
    at = "Qformer.bert.embeddings."
    shapes |= {
        f"{at}word_embeddings.weight": (321, q),
        f"{at}position_embeddings.weight": (sizes["positions"], q),
    }
    shapes |= {f"{at}LayerNorm.weight": (q,), f"{at}LayerNorm.bias": (q,)}
    for k in range(sizes["q_layers"]):
        at, crossed = f"Qformer.bert.encoder.layer.{k}.", k % sizes["every"] == 0
        linear = {}
        for name, seen in (("attention", q), *((("crossattention", d),) if crossed else ())):
            linear |= {
                f"{name}.self.query": (q, q),
                f"{name}.self.key": (q, seen),
                f"{name}.self.value": (q, seen),
            }
            linear |= {f"{name}.output.dense": (q, q), f"{name}.output.LayerNorm": (q,)}
        for end in ("", "_query"):
            linear |= {
                f"intermediate{end}.dense": (sizes["q_mlp"], q),
                f"output{end}.dense": (q, sizes["q_mlp"]),
            }
            linear |= {f"output{end}.LayerNorm": (q,)}
        shapes |= {
            f"{at}{n}.{p}": s if p == "weight" else s[:1]
            for n, s in linear.items()
            for p in ("weight", "bias")
        }
    shapes |= {"llm_proj.weight": (sizes["language"], q), "llm_proj.bias": (sizes["language"],)}
    random = torch.Generator().manual_seed(seed)
    state = {name: torch.randn(shape, generator=random).mul(0.2).to(dtype) for name, shape in shapes.items()}
    return state | {"Qformer.bert.embeddings.position_ids": torch.arange(sizes["positions"])[None]}


def language_folder(folder: Path, width: int, words: int = 420) -> Path:
    shutil.copytree(GOLDEN / "llm", folder)
    config = LlamaConfig(
        vocab_size=words, hidden_size=width, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
