"""Converting the authors' checkpoints: a LAVIS-format `.pth` to a transformers folder with all that goes with it, and back."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BertTokenizer,
    GenerationConfig,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    PreTrainedModel,
)
from transformers.utils import logging

from ..errors import ModelError, SettingsError
from ..files import atomic
from .lavis import (
    DROPPED,
    QFORMER_HEADS,
    VISION_HEADS,
    State,
    check,
    configure,
    join,
    read_checkpoint,
    to_lavis,
    to_transformers,
)
from .load import read_config
from .tokenize import make_processor

GENERATION = {
    "num_beams": 5,
    "max_length": 256,
    "min_length": 1,
    "repetition_penalty": 1.5,
    "length_penalty": 1.0,
    "do_sample": False,
}


def convert_checkpoint(
    checkpoint: str | Path,
    output: str | Path,
    *,
    language_model: str | Path,
    qformer_tokenizer: str | Path,
    base: str | Path | None = None,
    vision_heads: int = VISION_HEADS,
    qformer_heads: int = QFORMER_HEADS,
    patch_size: int | None = None,
) -> Path:
    """Convert a LAVIS-format checkpoint to a transformers folder with processor, both tokenizers and generation settings.

    Every tensor keeps its bits and its precision. The language model's two new rows (`[PAD]`, random in the original and in no file, and
    transformers' placeholder `<image>`) are the mean of the others.

    Args:
        checkpoint: Exp-VQA, InstructBLIP or, with a `base`, Exp-VQA(fz).
        output: a new folder.
        language_model: folder of the language model with its tokenizer, as its makers published it.
        qformer_tokenizer: folder of the Q-Former's BERT tokenizer, with or without `[DEC]`.

    Raises:
        ModelError: anything does not fit; nothing is written then.
    """
    output = Path(output)
    if output.exists():
        raise ModelError(f"{output}: exists already; remove it, or give another folder")
    state = join(read_checkpoint(checkpoint), read_checkpoint(base) if base else None, checkpoint, base or "")
    config, language = _read_language(
        language_model, checkpoint, state, vision_heads, qformer_heads, patch_size
    )
    own = {name: state.pop(name) for name in list(state) if name.startswith("llm_model.")}
    check(state, config, checkpoint)
    processor = _processor(language_model, qformer_tokenizer, config, checkpoint)
    words = language.state_dict()
    _check_language(own, words, checkpoint, language_model)
    vocabulary = max(len(processor.tokenizer), config.text_config.vocab_size)
    for table in (language.get_input_embeddings(), language.get_output_embeddings()):
        name = next(name for name, value in words.items() if value.data_ptr() == table.weight.data_ptr())
        mean = table.weight.detach().float().mean(0, keepdim=True).to(table.weight.dtype)
        words[name] = torch.cat([table.weight.detach(), mean.expand(vocabulary - len(table.weight), -1)])
    whole = copy.deepcopy(config)
    whole.text_config.vocab_size = vocabulary
    whole.image_token_index = processor.tokenizer.convert_tokens_to_ids("<image>")
    with torch.device("meta"):
        model = InstructBlipForConditionalGeneration(whole)
    tensors = to_transformers(state) | {f"language_model.{name}": value for name, value in words.items()}
    model.load_state_dict(tensors, assign=True)
    model.tie_weights()
    ids = {"bos_token_id": 2, "eos_token_id": 2, "pad_token_id": processor.tokenizer.pad_token_id}
    model.generation_config = GenerationConfig(**GENERATION, **ids)
    _check_space(output, sum(value.nbytes for value in tensors.values()))
    with atomic(output) as temporary:
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)
    return output


def _read_language(
    where, checkpoint, state, vision_heads, qformer_heads, patch_size
) -> tuple[InstructBlipConfig, PreTrainedModel]:
    """The configuration of the whole, checked before the language model's gigabytes are read, and the language model."""
    if not (Path(where) / "config.json").is_file():
        raise ModelError(
            f"{where}: no language model here (config.json is missing); give the folder that holds it"
        )
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        text = AutoConfig.from_pretrained(where)
        if text.model_type != "llama":
            raise ModelError(
                f"{where}: a language model of type {text.model_type!r}; the authors' checkpoints go with Vicuna ('llama')"
            )
        config = configure(
            state,
            text,
            vision_heads=vision_heads,
            qformer_heads=qformer_heads,
            patch_size=patch_size,
            where=checkpoint,
        )
        return config, AutoModelForCausalLM.from_pretrained(where, dtype="auto", local_files_only=True)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{where}: the language model cannot be read ({error}); copy or download it again"
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()


def _processor(
    language_model, qformer_tokenizer, config: InstructBlipConfig, checkpoint
) -> InstructBlipProcessor:
    """Image processor and both tokenizers with the reference's special tokens: bos, eos and unk are `</s>`, `[PAD]` pads; `[DEC]`."""
    try:
        special = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "[PAD]"}
        words = AutoTokenizer.from_pretrained(
            language_model, local_files_only=True, **special, additional_special_tokens=["<image>"]
        )
        heard = BertTokenizer.from_pretrained(qformer_tokenizer, local_files_only=True, bos_token="[DEC]")
    except Exception as error:
        raise ModelError(
            f"{language_model}, {qformer_tokenizer}: a tokenizer cannot be read ({error})"
        ) from error
    if len(heard) != config.qformer_config.vocab_size:
        raise ModelError(
            f"{qformer_tokenizer}: {len(heard)} tokens with [DEC], but the Q-Former of {checkpoint} knows "
            f"{config.qformer_config.vocab_size}; give the tokenizer that it was trained with (bert-base-uncased for the authors')"
        )
    return make_processor(words, heard, config.vision_config.image_size, config.num_query_tokens)


def _check_language(own: State, words: State, checkpoint, language_model) -> None:
    """A checkpoint that carries the frozen language model along must carry the one that is given."""
    differ = []
    for name, value in own.items():
        if DROPPED.search(name):
            continue
        given = words.get(name.removeprefix("llm_model."))
        if (
            given is None
            or value.shape[1:] != given.shape[1:]
            or len(value) < len(given)
            or not torch.equal(value[: len(given)], given)
        ):
            differ.append(name)
    if differ:
        raise ModelError(
            f"{language_model}: not the language model that {checkpoint} carries; {len(differ)} differ: {', '.join(differ)}"
        )


def export_checkpoint(folder: str | Path, output: str | Path) -> Path:
    """Write the trained part of a transformers folder as a LAVIS-format `.pth` that the authors' code loads.

    Raises:
        ModelError: the folder holds no InstructBLIP or not all of its tensors, or `output` exists.
        SettingsError: `output` does not end in `.pth`.
    """
    folder, output = Path(folder), Path(output)
    if output.suffix != ".pth":
        raise SettingsError(f"{output}: expected a file name that ends in .pth")
    if output.exists():
        raise ModelError(f"{output}: exists already; remove it, or give another file")
    config = read_config(folder)
    state = to_lavis(_read_folder(folder))
    check(state, config, folder)
    _check_space(output, sum(value.nbytes for value in state.values()))
    with atomic(output) as temporary:
        torch.save({"model": state}, temporary)
    return output


def _read_folder(folder: Path) -> State:
    """The tensors of a transformers folder but for the language model's, in the precision in which they are stored."""
    index = folder / "model.safetensors.index.json"
    try:
        names = (
            set(json.loads(index.read_text())["weight_map"].values())
            if index.exists()
            else {"model.safetensors"}
        )
        if strange := [name for name in names if Path(name).name != name]:
            raise ModelError(f"{index}: names a file outside of its folder: {strange[0]}")
        state: State = {}
        for name in sorted(names):
            with safe_open(folder / name, "pt") as file:
                names = [key for key in file.keys() if not key.startswith("language_model.")]  # noqa: SIM118
                state |= {key: file.get_tensor(key) for key in names}
        return state
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{folder}: its weights cannot be read ({error}); expected safetensors, save the model again"
        ) from error


def _check_space(output: Path, needed: int) -> None:
    place = next(p for p in output.absolute().parents if p.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise ModelError(
            f"{output}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free on this disk; make room"
        )
