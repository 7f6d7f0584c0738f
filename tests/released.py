"""Checkpoints in the authors' format: the golden ones, and toy ones of any size written down by hand."""

import shutil
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

GOLDEN = Path(__file__).parent / "golden"
HEADS = {"vision_heads": 4, "qformer_heads": 4}
OPTIONS = {"language_model": GOLDEN / "llm", "qformer_tokenizer": GOLDEN / "bert_tokenizer", **HEADS}


def lavis_state(sizes: dict, seed: int = 0) -> dict[str, torch.Tensor]:
    """A LAVIS-format state written down by hand from the reference's layout, with random values."""
    d, q, mlp, inner, patch = (sizes[name] for name in ("width", "q", "mlp", "q_mlp", "patch"))
    shapes = {"query_tokens": (1, sizes["queries"], q)}  # of other tensors than weights with a bias
    linear = {"ln_vision": (d,), "visual_encoder.patch_embed.proj": (d, 3, patch, patch)}
    linear |= {"llm_proj": (sizes["language"], q), "Qformer.bert.embeddings.LayerNorm": (q,)}
    shapes["visual_encoder.cls_token"] = (1, 1, d)
    shapes["visual_encoder.pos_embed"] = (1, 1 + (sizes["image"] // patch) ** 2, d)
    shapes["Qformer.bert.embeddings.word_embeddings.weight"] = (321, q)
    shapes["Qformer.bert.embeddings.position_embeddings.weight"] = (sizes["positions"], q)
    for k in range(sizes["layers"]):
        at = f"visual_encoder.blocks.{k}."
        shapes |= {f"{at}attn.qkv.weight": (3 * d, d), f"{at}attn.q_bias": (d,), f"{at}attn.v_bias": (d,)}
        linear |= {f"{at}attn.proj": (d, d), f"{at}mlp.fc1": (mlp, d), f"{at}mlp.fc2": (d, mlp)}
        linear |= {f"{at}norm1": (d,), f"{at}norm2": (d,)}
    for k in range(sizes["q_layers"]):
        at = f"Qformer.bert.encoder.layer.{k}."
        for name, seen in (("attention", q), ("crossattention", d))[: 1 + (k % sizes["every"] == 0)]:
            linear |= {f"{at}{name}.self.query": (q, q), f"{at}{name}.output.dense": (q, q)}
            linear |= {f"{at}{name}.self.key": (q, seen), f"{at}{name}.self.value": (q, seen)}
            linear |= {f"{at}{name}.output.LayerNorm": (q,)}
        for end in ("", "_query"):
            linear |= {f"{at}intermediate{end}.dense": (inner, q), f"{at}output{end}.dense": (q, inner)}
            linear |= {f"{at}output{end}.LayerNorm": (q,)}
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    random = torch.Generator().manual_seed(seed)
    state = {name: torch.randn(shape, generator=random).mul(0.2) for name, shape in shapes.items()}
    return state | {"Qformer.bert.embeddings.position_ids": torch.arange(sizes["positions"])[None]}


def language_folder(folder: Path, width: int) -> Path:
    shutil.copytree(GOLDEN / "llm", folder)
    sizes = {"hidden_size": width, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=420, **sizes)).save_pretrained(folder)
    return folder
