"""Loading an InstructBLIP of any size; the classes are transformers' own."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate.utils import get_max_memory
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
LARGE = 10**9  # parameters from which on a model goes to an accelerator by itself


class _HalfLanguageModel(InstructBlipForConditionalGeneration):
    """Reads the language model in half precision and everything that trains in float32."""

    _keep_in_fp32_modules_strict = ["query_tokens", "vision_model", "qformer", "language_projection"]


# `save_pretrained` writes the name of the class into config.json
_HalfLanguageModel.__name__ = InstructBlipForConditionalGeneration.__name__


def load_model(
    source: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    bits: int | None = None,
    language_dtype: str | None = None,
    quiet: bool = False,
) -> tuple[InstructBlipForConditionalGeneration, InstructBlipProcessor]:
    """Load any InstructBLIP and its processor, after a line on stderr about the memory that it takes.

    Args:
        source: a folder of `save_pretrained` or `expvqa convert`, or a name on the Hugging Face hub.
        device: `cpu`, `cuda`, ...; by default an accelerator for a billion parameters or more, else the CPU.
        dtype: by default float32 on the CPU and for small models, else bfloat16 (float16 on MPS).
        bits: 8 or 4 hold the language model's linear layers in that many bits (needs bitsandbytes).
        language_dtype: of the language model alone, for training: everything else is float32 then.

    Raises:
        ModelError: the model is missing, unreadable, incomplete or too large, or needs bitsandbytes.
        SettingsError: the device, dtype or bits are unknown.
    """
    config = read_config(source)
    with torch.device("meta"):
        skeleton = InstructBlipForConditionalGeneration(config)
    is_large = skeleton.num_parameters() >= LARGE
    place = _device(device, is_large)
    read_dtype = main_dtype = _dtype(dtype, place, is_large)
    model_class = InstructBlipForConditionalGeneration
    if language_dtype:
        model_class, main_dtype, read_dtype = _HalfLanguageModel, torch.float32, DTYPES[language_dtype]
    options = {"output_loading_info": True, "ignore_mismatched_sizes": True}
    if bits is not None:
        options["quantization_config"] = _quantization(source, bits, main_dtype)
    if bits is not None or place.type != "cpu":
        options["device_map"] = {"": place}
    _check_memory(source, skeleton, place, main_dtype, read_dtype, bits, quiet)
    try:
        with contextlib.nullcontext() if is_large else no_progress_bars():
            model, report = model_class.from_pretrained(source, config=config, dtype=read_dtype, **options)
            processor = InstructBlipProcessor.from_pretrained(source, backend="pil")
    except Exception as error:
        raise ModelError(f"{source}: cannot be read ({error}); copy or download it again") from error
    _check_complete(source, processor, report)
    # the final norm of the reference's vision encoder has an epsilon of its own; transformers has one
    vision = config.vision_config
    model.vision_model.post_layernorm.eps = getattr(vision, "post_layernorm_eps", vision.layer_norm_eps)
    if not bits:
        model.query_tokens.data = model.query_tokens.data.to(main_dtype)  # transformers holds them in float32
    return model.eval(), processor


def read_config(source: str | Path) -> InstructBlipConfig:
    """Configuration of a folder or hub name; raises ModelError where it is not InstructBLIP's."""
    try:
        config = AutoConfig.from_pretrained(source)
    except Exception as error:
        raise ModelError(
            f"{source}: no InstructBLIP model here ({error}); expected a folder of its files or a hub name"
        ) from error
    if not isinstance(config, InstructBlipConfig):
        raise ModelError(f"{source}: a model of type {config.model_type!r}; expected 'instructblip'")
    return config


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Switch transformers' progress bars off inside."""
    is_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if is_on:
            logging.enable_progress_bar()


def memory_needed(
    model: InstructBlipForConditionalGeneration,
    dtype: torch.dtype,
    language_dtype: torch.dtype | None = None,
    bits: int | None = None,
) -> int:
    """Bytes of a model's weights in `dtype`; the language model's in its own dtype, its linear layers in
    `bits`.

    The model may be on the meta device.
    """
    language_dtype = language_dtype or dtype
    language = sum(p.numel() for p in model.language_model.parameters())
    linear = 0
    if bits:
        layers = model.language_model.base_model.modules()  # without the head
        linear = sum(layer.weight.numel() for layer in layers if isinstance(layer, nn.Linear))
    rest = sum(p.numel() for p in model.parameters()) - language
    return rest * dtype.itemsize + (language - linear) * language_dtype.itemsize + linear * (bits or 0) // 8


def _check_memory(source, model, place: torch.device, dtype, language_dtype, bits, quiet: bool) -> None:
    """Print how much memory the weights take; raise ModelError where it is not free."""
    needed = memory_needed(model, dtype, language_dtype, bits)
    free = get_max_memory()[place.type if place.type in ("cpu", "mps") else place.index or 0]
    precision = str(dtype).removeprefix("torch.")
    if bits or language_dtype != dtype:
        language = f"{bits} bits" if bits else str(language_dtype).removeprefix("torch.")
        precision += f", its language model in {language},"
    line = (
        f"{source}: {model.num_parameters() / 1e6:,.1f} million parameters take {needed / 1e9:.3f} GB in "
        f"{precision} on {place} ({free / 1e9:.1f} GB free)"
    )
    if needed > free:
        raise ModelError(f"{line}: they do not fit; free some memory, or try dtype='float16' or bits=4")
    if not quiet:
        print(f"expvqa: {line}", file=sys.stderr)


def _check_complete(source, processor: InstructBlipProcessor, report: dict) -> None:
    """Raise ModelError where transformers filled in something that it did not find in the files."""
    for name in ("tokenizer", "qformer_tokenizer"):
        tokenizer = getattr(processor, name)
        if len(tokenizer) <= len(tokenizer.all_special_tokens) or tokenizer.pad_token_id is None:
            raise ModelError(f"{source}: the {name} has no words or no padding; copy its files there again")
    if wrong := sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}):
        raise ModelError(
            f"{source}: {len(wrong)} weights are missing or of another shape: {', '.join(wrong)}; copy "
            "or convert the model again"
        )


def _device(device: str | torch.device | None, is_large: bool) -> torch.device:
    if device is None:
        place = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return place if place is not None and is_large else torch.device("cpu")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, ValueError) as error:  # unknown, no driver, torch built without it
        raise SettingsError(
            f"device {str(device)!r} cannot be used here ({str(error).splitlines()[0]}); try 'cpu' or 'cuda'"
        ) from error
    return place


def _dtype(dtype: str | torch.dtype | None, place: torch.device, is_large: bool) -> torch.dtype:
    if dtype is None:
        half = torch.float16 if place.type == "mps" else torch.bfloat16
        return half if is_large and place.type != "cpu" else torch.float32
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise SettingsError(f"dtype {dtype!r} is unknown; known are {', '.join(DTYPES)}")
    return DTYPES[name]


def _quantization(source, bits: int, dtype: torch.dtype) -> BitsAndBytesConfig:
    if bits not in (8, 4):
        raise SettingsError(f"bits={bits!r}: expected 8 or 4 (or None for full precision)")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f"{source}: {bits} bits need bitsandbytes; in the checkout: pip install -e '.[quantization]'"
        )
    return BitsAndBytesConfig(
        load_in_8bit=bits == 8,
        load_in_4bit=bits == 4,
        llm_int8_skip_modules=["vision_model", "qformer", "language_projection", "lm_head"],
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_type="nf4",
    )
