"""Converting the authors' LAVIS-format checkpoints to a transformers folder, and back."""

from pathlib import Path

import torch
from safetensors import safe_open
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertTokenizer,
    GenerationConfig,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
)

from ..errors import ModelError
from ..files import atomic
from .damage import damage, refuse
from .forward import make_processor
from .lavis import (
    QFORMER_HEADS,
    VISION_HEADS,
    State,
    check,
    configure,
    read_checkpoint,
    to_lavis,
    to_transformers,
)
from .load import mismatches, read_config

GENERATION = {  # of the reference
    "num_beams": 5,
    "max_length": 256,
    "min_length": 1,
    "repetition_penalty": 1.5,
    "length_penalty": 1.0,
    "do_sample": False,
    "bos_token_id": 2,
    "eos_token_id": 2,
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
) -> Path:
    """Convert a LAVIS-format checkpoint to a transformers folder that `load_model` reads.

    Every tensor keeps its bits and its precision. The language model's two new rows (`[PAD]`, random in the
    original and in no file, and transformers' placeholder `<image>`) are the mean of the others.

    Args:
        checkpoint: Exp-VQA, InstructBLIP or, with a `base`, Exp-VQA(fz).
        language_model: folder of the language model with its tokenizer, as its makers published it.
        qformer_tokenizer: folder of the Q-Former's BERT tokenizer, with or without `[DEC]`.

    Raises:
        ModelError: anything does not fit; nothing is written then.
    """
    if Path(output).exists():
        raise ModelError(f"{output}: exists already; remove it, or give another folder")
    state = read_checkpoint(checkpoint)
    if not any(name.startswith("visual_encoder.") for name in state):
        if base is None:
            raise ModelError(f"{checkpoint}: no vision encoder, as in Exp-VQA(fz); give its base with --base")
        vision = read_checkpoint(base).items()
        state |= {name: value for name, value in vision if name.startswith("visual_encoder.")}
    language = read_config(language_model, "llama")  # as Vicuna's
    config = configure(state, language, vision_heads, qformer_heads, checkpoint)
    check(state, config, checkpoint)
    processor = _processor(language_model, qformer_tokenizer, config, checkpoint)
    tokenizer, rows = processor.tokenizer, config.text_config.vocab_size
    config.text_config.vocab_size = min(max(len(tokenizer), rows), rows + 2)  # with [PAD] and <image>
    config.image_token_index = tokenizer.convert_tokens_to_ids("<image>")
    if faults := mismatches(config, processor):
        raise ModelError(f"{language_model}: {'; '.join(faults)}; give the folder as its makers published it")
    weights = to_transformers(state) | _language_weights(language_model, config.text_config.vocab_size)
    with torch.device("meta"):
        model = InstructBlipForConditionalGeneration(config)
    model.load_state_dict(weights, assign=True)
    model.tie_weights()
    model.generation_config = GenerationConfig(**GENERATION, pad_token_id=tokenizer.pad_token_id)
    with atomic(output) as temporary:
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)
    return Path(output)


def _language_weights(folder: str | Path, vocabulary: int) -> State:
    """The language model's weights, with rows for as many tokens as the vocabulary has."""
    with refuse(folder, "cannot be read"):
        language = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True)
    n = language.config.vocab_size
    language.resize_token_embeddings(vocabulary, mean_resizing=False)
    for table in (language.get_input_embeddings(), language.get_output_embeddings()):
        table.weight.data[n:] = table.weight.data[:n].float().mean(0)
    return {f"language_model.{name}": value for name, value in language.state_dict().items()}


def _processor(
    language_model, qformer_tokenizer, config: InstructBlipConfig, checkpoint
) -> InstructBlipProcessor:
    """Image processor and both tokenizers with the reference's special tokens (`</s>`, `[PAD]`, `[DEC]`)."""
    with refuse(
        f"{language_model}, {qformer_tokenizer}",
        "a tokenizer cannot be read",
        language_model,
        qformer_tokenizer,
    ):
        tokenizer = AutoTokenizer.from_pretrained(
            language_model,
            local_files_only=True,
            bos_token="</s>",
            eos_token="</s>",
            unk_token="</s>",
            pad_token="[PAD]",
            additional_special_tokens=["<image>"],
        )
        qformer = BertTokenizer.from_pretrained(qformer_tokenizer, local_files_only=True, bos_token="[DEC]")
    if len(qformer) != config.qformer_config.vocab_size:
        raise ModelError(
            f"{qformer_tokenizer}: "
            + (
                damage(qformer_tokenizer)
                or f"{len(qformer)} tokens with [DEC], but the Q-Former of {checkpoint} has "
                f"{config.qformer_config.vocab_size}; give the tokenizer of its training (bert-base-uncased)"
            )
        )
    return make_processor(tokenizer, qformer, config.vision_config.image_size, config.num_query_tokens)


def export_checkpoint(folder: str | Path, output: str | Path) -> Path:
    """Write the trained part of a transformers folder as a LAVIS-format `.pth` that the authors' code loads.

    Raises:
        ModelError: the folder holds no InstructBLIP or not all of its tensors, or `output` exists.
    """
    folder, output = Path(folder), Path(output)
    if output.exists():
        raise ModelError(f"{output}: exists already; remove it, or give another file")
    config, state = read_config(folder), {}
    # by their names, not by an index file, which could name a file outside of the folder
    for path in list(folder.glob("model.safetensors")) or sorted(folder.glob("model-*-of-*.safetensors")):
        with refuse(path, "cannot be read"), safe_open(path, "pt") as file:
            names = [name for name in list(file.keys()) if not name.startswith("language_model.")]
            state |= {name: file.get_tensor(name) for name in names}
    state = to_lavis(state)
    check(state, config, folder)
    with atomic(output) as temporary:
        torch.save({"model": state}, temporary)
    return output
