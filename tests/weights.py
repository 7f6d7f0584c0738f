"""What tests of models share: saving, transformers' own forward pass, and weights compared bit by bit."""

import copy
from pathlib import Path

import torch
from transformers import InstructBlipForConditionalGeneration, T5Config

from expvqa_lib.data import load_image


def save(model, processor, folder: Path) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def encoder_decoder(model, words: int, seed: int = 0):
    """The same kind of model with an untrained T5, as Salesforce/instructblip-flan-t5-xl has one."""
    sizes = {"vocab_size": words, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    ids = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 2, "tie_word_embeddings": False}
    config = copy.deepcopy(model.config)
    config.text_config = T5Config(**sizes, **ids)
    config.use_decoder_only_language_model, config.is_encoder_decoder = False, True
    torch.manual_seed(seed)
    other = type(model)(config).eval()
    other.query_tokens.data.normal_()
    return other


def pixels_of(processor, images) -> torch.Tensor:
    return processor.image_processor([load_image(i) for i in images], return_tensors="pt")["pixel_values"]


def full_logits(model, pixels: torch.Tensor, text: dict) -> torch.Tensor:
    """Logits [N, Q + T, V] by transformers' own forward pass, a placeholder token a query."""
    image = torch.full((len(pixels), model.config.num_query_tokens), model.config.image_token_index)
    return model(
        pixel_values=pixels,
        qformer_input_ids=text["qformer_input_ids"],
        qformer_attention_mask=text["qformer_attention_mask"],
        input_ids=torch.cat([image, text["input_ids"]], 1),
        attention_mask=torch.cat([torch.ones_like(image), text["attention_mask"]], 1),
    ).logits


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a model folder by name."""
    return InstructBlipForConditionalGeneration.from_pretrained(folder).state_dict()


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """The names of the weights that differ in any bit or in their precision."""
    assert before.keys() == after.keys()
    return {k for k, old in before.items() if not torch.equal(old, after[k]) or old.dtype != after[k].dtype}
