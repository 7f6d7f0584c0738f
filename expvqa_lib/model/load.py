"""Loading an InstructBLIP of any size; the classes are transformers' own."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import psutil
import torch
from torch import nn
from transformers import (
    AutoConfig,
    BitsAndBytesConfig,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
)
from transformers.utils import logging

from ..errors import ModelError, SettingsError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    source: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    bits: int | None = None,
    language_dtype: str | None = None,
    quiet: bool = False,
) -> tuple[InstructBlipForConditionalGeneration, InstructBlipProcessor]:
    """Load any InstructBLIP that transformers knows, and its processor; first say on stderr how much memory it takes.

    Args:
        source: a folder of `save_pretrained` or `expvqa convert`, or a name on the Hugging Face hub.
        device: `cpu`, `cuda`, `mps`, ...; where None, an accelerator for models of a billion parameters and more, if any, else the CPU.
        dtype: `float32`, `bfloat16`, `float16`; where None, float32 on the CPU and for small models, else bfloat16 (float16 on MPS).
        bits: 8 or 4 hold the language model's linear layers in so many bits (bitsandbytes, the extra `quantization`).
        language_dtype: of the language model, which in training is half of the rest's float32; `dtype` is left out then.
        quiet: no line on stderr.

    Raises:
        ModelError: there is no InstructBLIP model, it cannot be read or is incomplete, it does not fit in memory, the extra is missing.
        SettingsError: the device, dtype or bits are unknown.
    """
    config = read_config(source)
    with torch.device("meta"):
        skeleton = InstructBlipForConditionalGeneration(config)
    place, kind = _choose(device, dtype, skeleton.num_parameters())
    half = DTYPES[language_dtype] if language_dtype else kind
    options = {"dtype": half}
    if place.type != "cpu":
        options["device_map"] = {"": place}  # straight there, not by way of a whole copy in main memory
    if bits is not None:
        options |= {"quantization_config": _quantization(source, bits, kind), "device_map": {"": place}}
    _check_memory(source, skeleton, place, kind, half, bits, quiet)
    bars = logging.is_progress_bar_enabled()
    if skeleton.num_parameters() < LARGE:
        logging.disable_progress_bar()
    try:
        model, found = (
            _HalfLanguage if language_dtype else InstructBlipForConditionalGeneration
        ).from_pretrained(
            source, config=config, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
        processor = InstructBlipProcessor.from_pretrained(source, backend="pil")
    except Exception as error:
        raise ModelError(
            f"{source}: no InstructBLIP model could be loaded ({error}); expected a folder of save_pretrained or a hub name"
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()
    for name in ("tokenizer", "qformer_tokenizer"):  # transformers would make one that knows nothing
        tokenizer = getattr(processor, name)
        if len(tokenizer) <= len(tokenizer.all_special_tokens) or tokenizer.pad_token_id is None:
            raise ModelError(
                f"{source}: no {name} is there that knows words and padding; copy its files there, or save the model again"
            )
    wrong = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    if wrong:  # transformers would fill them with random numbers and answer anyway
        raise ModelError(
            f"{source}: {len(wrong)} weights are missing or of another shape: {', '.join(wrong)}; copy, convert or save the model again"
        )
    # transformers has one epsilon for all norms of the vision encoder; the reference's final norm has its own
    model.vision_model.post_layernorm.eps = getattr(
        config.vision_config, "post_layernorm_eps", config.vision_config.layer_norm_eps
    )
    model.__class__ = InstructBlipForConditionalGeneration
    if not bits:
        model.query_tokens.data = model.query_tokens.data.to(kind)  # transformers holds them in float32
    return model.eval(), processor


class _HalfLanguage(InstructBlipForConditionalGeneration):
    """Read with the language model in half precision and all that trains in float32, without a whole copy in float32 between."""

    _keep_in_fp32_modules_strict = ["query_tokens", "vision_model", "qformer", "language_projection"]


LARGE = 10**9  # parameters from which on a model goes to an accelerator by itself


def read_config(source: str | Path) -> InstructBlipConfig:
    """Read the configuration of a folder or hub name. Raises ModelError where it is no InstructBLIP's."""
    try:
        config = AutoConfig.from_pretrained(source)
    except Exception as error:
        raise ModelError(
            f"{source}: no InstructBLIP model could be loaded ({error}); expected a folder of save_pretrained or a hub name"
        ) from error
    if not isinstance(config, InstructBlipConfig):
        raise ModelError(
            f"{source}: no InstructBLIP model could be loaded: found model type {config.model_type!r}, expected 'instructblip'"
        )
    return config


def _choose(
    device: str | torch.device | None, dtype: str | torch.dtype | None, parameters: int
) -> tuple[torch.device, torch.dtype]:
    """The device and dtype asked for, or those that suit a model of so many parameters."""
    if device is None:
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        place = found if found is not None and parameters >= LARGE else torch.device("cpu")
    else:
        try:
            place = torch.device(device)
            torch.empty(0, device=place)
        except (
            RuntimeError,
            AssertionError,
            ValueError,
        ) as error:  # torch built without it, no driver, a word that is no device
            reason = str(error).splitlines()[0]
            raise SettingsError(
                f"device {str(device)!r} cannot be used here ({reason}); try 'cpu', 'cuda' or 'mps'"
            ) from error
    if dtype is None:
        half = torch.float16 if place.type == "mps" else torch.bfloat16
        return place, torch.float32 if place.type == "cpu" or parameters < LARGE else half
    kind = DTYPES.get(str(dtype).removeprefix("torch."))
    if kind is None:
        raise SettingsError(f"dtype {dtype!r} is unknown; known are {', '.join(DTYPES)}")
    return place, kind


def _quantization(source: str | Path, bits: int, kind: torch.dtype) -> BitsAndBytesConfig:
    if bits not in (8, 4):
        raise SettingsError(f"bits={bits!r}: expected 8 or 4 (or None for full precision)")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f"{source}: {bits} bits need bitsandbytes, which is not installed: pip install 'expvqa[quantization]'"
        )
    whole = ["vision_model", "qformer", "language_projection", "lm_head"]  # stay in full precision
    return BitsAndBytesConfig(
        load_in_8bit=bits == 8,
        load_in_4bit=bits == 4,
        llm_int8_skip_modules=whole,
        bnb_4bit_compute_dtype=kind,
        bnb_4bit_quant_type="nf4",
    )


def memory_needed(
    model: InstructBlipForConditionalGeneration,
    dtype: torch.dtype,
    language: torch.dtype | None = None,
    bits: int | None = None,
) -> int:
    """Bytes of a model's weights (it may be on the meta device) in `dtype`, the language model's in `language` or, if linear, in `bits`."""
    words = sum(p.numel() for p in model.language_model.parameters())
    total = (sum(p.numel() for p in model.parameters()) - words) * dtype.itemsize + words * (
        language or dtype
    ).itemsize
    if bits:
        layers = [
            m
            for name, m in model.language_model.named_modules()
            if isinstance(m, nn.Linear) and "lm_head" not in name
        ]
        total -= sum(m.weight.numel() for m in layers) * (8 * dtype.itemsize - bits) // 8
    return total


def _check_memory(
    source,
    model: InstructBlipForConditionalGeneration,
    place: torch.device,
    kind: torch.dtype,
    half,
    bits,
    quiet: bool,
) -> None:
    """Say how much memory the weights take, and stop where it is not there."""
    needed = memory_needed(model, kind, half, bits)
    if place.type == "cuda":
        free = torch.cuda.mem_get_info(place)[0]
    elif place.type == "mps":
        free = torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    else:
        free = psutil.virtual_memory().available
    how = str(kind).removeprefix("torch.")
    if bits or half != kind:
        how += f", the language model in {f'{bits} bits' if bits else str(half).removeprefix('torch.')},"
    size = f"{model.num_parameters() / 1e6:,.1f} million parameters"
    line = f"{size} take {needed / 1e9:.3f} GB in {how} on {place} ({free / 1e9:.1f} GB free)"
    if needed > free:
        smaller = [
            f"dtype={name!r}"
            for name, other in DTYPES.items()
            if memory_needed(model, other, bits=bits) < needed
        ]
        smaller += [f"bits={n}" for n in (8, 4) if n < (bits or 16)]
        raise ModelError(
            f"{source}: does not fit: {line}; try {' or '.join(smaller[:3] or ['another device'])}, or free some memory"
        )
    if not quiet:
        print(f"expvqa: {source}: {line}", file=sys.stderr)
