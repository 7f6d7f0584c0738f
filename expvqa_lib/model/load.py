"""Loading an InstructBLIP of any size; the classes are transformers' own."""

import contextlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    BitsAndBytesConfig,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    PreTrainedConfig,
)
from transformers.utils import logging

from ..errors import ModelError, SettingsError
from .damage import damage, refuse

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LARGE = 10**9  # parameters from which on a model goes to an accelerator, and to half precision, by itself

_HalfLanguageModel = type(
    InstructBlipForConditionalGeneration.__name__,  # which `save_pretrained` writes into config.json
    (InstructBlipForConditionalGeneration,),
    {"_keep_in_fp32_modules_strict": ["query_tokens", "vision_model", "qformer", "language_projection"]},
)
"""Reads the language model in half precision and everything that trains in float32."""


def load_model(
    source: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | None = None,
    bits: int | None = None,
    language_dtype: str | None = None,
    quiet: bool = False,
) -> tuple[InstructBlipForConditionalGeneration, InstructBlipProcessor]:
    """Load any InstructBLIP, a folder or a name on the hub, after a line on stderr about the memory it takes.

    Args:
        device: `cpu`, `cuda`, ...; by default an accelerator for a billion parameters or more, else the CPU.
        dtype: by default float32, for a billion parameters or more bfloat16 (float16 on MPS).
        bits: 8 or 4 hold the language model's linear layers in that many bits (needs bitsandbytes).
        language_dtype: of the language model alone, for training: everything else is float32 then.

    Raises:
        ModelError: the model is missing, unreadable, incomplete or too large, its parts are of different
            models, or it needs bitsandbytes.
        SettingsError: the device, dtype or bits are unknown.
    """
    config = read_config(source)
    with refuse(source, "config.json has the sizes of no model"), torch.device("meta"):
        skeleton = InstructBlipForConditionalGeneration(config)
    is_large = skeleton.num_parameters() >= LARGE
    place, main_dtype = placement(device, dtype or ("float32" if language_dtype else None), is_large)
    model_class = _HalfLanguageModel if language_dtype else InstructBlipForConditionalGeneration
    read_dtype = DTYPES.get(language_dtype, main_dtype)
    options = {
        "quantization_config": None if bits is None else _quantization(bits, main_dtype),
        "device_map": None if bits is None and place.type == "cpu" else {"": place},
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,
    }
    _check_memory(source, skeleton, place, main_dtype, bits or 8 * read_dtype.itemsize, quiet)
    with contextlib.ExitStack() as bars:
        if logging.is_progress_bar_enabled() and not is_large:
            logging.disable_progress_bar()
            bars.callback(logging.enable_progress_bar)
        model, processor = _read(source, model_class, config=config, dtype=read_dtype, **options)
    # the final norm of the reference's vision encoder has an epsilon of its own; transformers has one
    norm = model.vision_model.post_layernorm
    norm.eps = getattr(config.vision_config, "post_layernorm_eps", norm.eps)
    model.query_tokens.data = model.query_tokens.data.to(model.qformer.dtype)  # not always float32
    return model.eval(), processor


def read_config(source: str | Path, model_type: str = "instructblip") -> PreTrainedConfig:
    """Configuration of a folder or hub name; raises ModelError where there is none of this type."""
    with refuse(source, f"no {model_type} model here; give its folder or hub name"):
        config = AutoConfig.from_pretrained(source)
    if config.model_type != model_type:
        raise ModelError(f"{source}: a model of type {config.model_type!r}; expected {model_type!r}")
    return config


def _check_memory(source, model, place: torch.device, dtype: torch.dtype, bits: int, quiet: bool) -> None:
    """Print how much memory the weights take; raise ModelError where it is not free."""
    total, language = model.num_parameters(), model.language_model.num_parameters()
    needed = (total - language) * dtype.itemsize + language * bits // 8
    free = torch.cuda.mem_get_info(place)[0] if place.type == "cuda" else psutil.virtual_memory().available
    line = (
        f"{source}: {total / 1e6:,.1f} million parameters take {needed / 1e9:.3f} GB on {place} ({dtype}, "
        f"the language model in {bits} bits); {free / 1e9:.1f} GB are free"
    )
    if needed > free:
        raise ModelError(f"{line}: free some memory, or try dtype='float16' or bits=4")
    if not quiet:
        print(f"expvqa: {line}", file=sys.stderr)


def _read(source, model_class, config: InstructBlipConfig, **options):
    """Model and processor; ModelError where transformers would fill in what the files lack."""
    with refuse(source, "cannot be used"):
        processor = InstructBlipProcessor.from_pretrained(source, backend="pil")
        faults = mismatches(config, processor)
        if faults or damage(Path(source) / "generation_config.json"):  # which transformers would pass over
            raise ValueError("; ".join(faults))  # before the weights are read, which may take minutes
        model, report = model_class.from_pretrained(source, config=config, **options)
    check_complete(source, report)
    return model, processor


def check_complete(source: str | Path, report: Mapping) -> None:
    """Raise ModelError where transformers' loading report names weights that it drew at random."""
    if wrong := sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}):
        raise ModelError(
            f"{source}: {len(wrong)} weights are missing or of another shape: {', '.join(wrong)}; copy "
            "or convert the model again"
        )


def mismatches(config: InstructBlipConfig, processor: InstructBlipProcessor) -> list[str]:
    """What tokenizers and image processor have that no model of this configuration can have."""
    image, side, faults = str(processor.image_token), config.vision_config.image_size, {}
    language, qformer = (
        {token: number for token, number in tokenizer.get_vocab().items() if token != image}
        for tokenizer in (processor.tokenizer, processor.qformer_tokenizer)
    )
    words, known = config.text_config.vocab_size, config.qformer_config.vocab_size
    for name, ids, rows, spare in (
        ("tokenizer", language, words, max(127, words // 10)),  # rows without a token, as padding
        ("qformer_tokenizer", qformer, known, 63),
    ):
        tokenizer, highest = getattr(processor, name), max(ids.values(), default=-1)
        faults |= {
            f"the {name} has no words or no padding: not all of its files are there": (
                len(ids) <= len(tokenizer.all_special_tokens) or tokenizer.pad_token_id is None
            ),
            f"the {name} is another model's: it has {len(ids)} tokens with numbers up to {highest}, but the "
            f"embedding has {rows} rows": len(ids) < rows - spare or highest >= rows,
        }
    index, found = config.image_token_index, processor.tokenizer.convert_tokens_to_ids(image)
    queries, given = config.num_query_tokens, processor.num_query_tokens
    pixels = processor.image_processor(Image.new("RGB", (24, 16)), return_tensors="pt")["pixel_values"]
    faults |= {
        "the folder 'qformer_tokenizer' is missing, or holds the language model's": language == qformer,
        f"image_token_index of config.json is {index}, but {image} has the number {found} in the tokenizer "
        f"and the language model has {words} tokens": index is not None and not index == found < words,
        f"num_query_tokens is {given} in the processor, but {queries} in config.json": given
        not in (None, queries),
        "the image processor makes {} x {} pixels, but the vision encoder takes ".format(*pixels.shape[-2:])
        + f"{side} x {side}": pixels.shape[-2:] != (side, side),
    }
    return [fault for fault, is_found in faults.items() if is_found]


def placement(device, dtype, is_large: bool) -> tuple[torch.device, torch.dtype]:
    """The device and dtype that were given, or those that suit a model of this size.

    Raises:
        SettingsError: the device cannot be used here, or the dtype is unknown.
    """
    if device is None and is_large and torch.accelerator.is_available():
        place = torch.accelerator.current_accelerator()
    else:
        try:
            place = torch.empty(0, device=device or "cpu").device
        # unknown, no driver, torch built without it
        except (RuntimeError, AssertionError, ValueError) as error:
            raise SettingsError(f"device {str(device)!r} cannot be used here ({error}); try 'cpu'") from error
    if dtype not in (None, *DTYPES):
        raise SettingsError(f"dtype {dtype!r} is unknown; known are {', '.join(DTYPES)}")
    half = torch.float16 if place.type == "mps" else torch.bfloat16
    return place, DTYPES.get(dtype, half if is_large else torch.float32)


def _quantization(bits: int, dtype: torch.dtype) -> BitsAndBytesConfig:
    if bits not in (8, 4):
        raise SettingsError(f"bits={bits!r}: expected 8 or 4 (or None for full precision)")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(f"{bits} bits need bitsandbytes; in the checkout: pip install -e '.[quantization]'")
    return BitsAndBytesConfig(
        load_in_8bit=bits == 8,
        load_in_4bit=bits == 4,
        llm_int8_skip_modules=["vision_model", "qformer", "language_projection", "lm_head"],
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_type="nf4",
    )
