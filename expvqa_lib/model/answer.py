"""Asking: answers in words, and the probability of yes for many action units at once."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor, set_seed

from .. import questions
from ..data.images import load_image
from ..errors import SettingsError
from .forward import encode_images, language_inputs, query_image
from .processes import by_share, state
from .tokenize import encode
from .yes_no import beginnings, p_yes


def embed_images(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    images: Sequence,
    batch: int = 128,
    progress: bool = False,
) -> Tensor:
    """Load images (anything `photos.load_image` takes) and run the vision encoder once on each: [I, 1 + patches, D_vision]."""
    parts = []
    for k in tqdm(range(0, len(images), batch), desc="looking", disable=not progress):
        pictures = [load_image(i) for i in images[k : k + batch]]
        pixels = processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            parts.append(encode_images(model, pixels.to(model.device, model.dtype)))
    if not parts:
        embeddings = model.vision_model.embeddings
        return torch.empty(0, 1 + embeddings.num_patches, embeddings.embed_dim)
    return torch.cat(parts)


def _prompt(model, processor, embeds: Tensor, asked: Sequence[str]) -> dict:
    """Language model inputs of questions about images; as many about each, one image's after the other's."""
    text = {
        k: v.to(model.device)
        for k, v in encode(processor, asked, left=model.config.use_decoder_only_language_model).items()
    }
    index = torch.arange(len(embeds), device=model.device).repeat_interleave(len(asked) // len(embeds))
    output = query_image(model, embeds, text["qformer_input_ids"], text["qformer_attention_mask"], index)
    return language_inputs(model, output, text["input_ids"], text["attention_mask"])


@torch.inference_mode()
def score_yes_no(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    images: Sequence,
    aus: Sequence[int],
    *,
    wordings: Sequence[int] = (0,),
    batch: int = 256,
    embeds: Tensor | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Probability that the answer to "does this AU occur?" is yes rather than no, in any wording (see `wordings.p_yes`).

    The vision encoder runs once an image, each question once through Q-Former and language model, without generation: P(yes) is the share
    of the likeliest "yes" in the next token's probability of that and the likeliest "no".

    Several processes of `accelerate launch` or `torchrun` score a share of the images each; all call this and all get the whole table.

    Args:
        aus: AU numbers to ask about.
        wordings: which of the Q3 wordings; of several, the mean probability.
        batch: questions a forward pass.
        embeds: from `embed_images`, to save a second look; these are then scored by this process alone.

    Returns:
        One row an image, one column an AU (`AU12`), values in [0, 1].

    Raises:
        ModelError: the tokenizer cannot tell yes from no.
        SettingsError: an AU or wording is unknown.
        ImageError: an image is missing or unreadable.
    """
    asked = [questions.ask_q3(au, wording) for wording in wordings for au in aus]

    def score(embeds: Tensor) -> np.ndarray:
        scores = score_questions(model, processor, embeds, asked, batch=batch, progress=progress)
        return scores.view(len(embeds), len(wordings), len(aus)).mean(1).numpy()

    if embeds is None:
        progress &= state().is_main_process
        shares = by_share(
            len(images), lambda mine: [score(embed_images(model, processor, images[mine], progress=progress))]
        )
    else:
        shares = [score(embeds)]
    return pd.DataFrame(np.concatenate(shares), columns=[f"AU{au}" for au in aus])


@torch.inference_mode()
def score_questions(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    embeds: Tensor,
    asked: Sequence[str],
    *,
    batch: int = 256,
    progress: bool = False,
) -> Tensor:
    """P(yes) of the same yes/no questions about each image of `embed_images`: [I, questions], `batch` questions a pass.

    Raises:
        ModelError: the tokenizer cannot tell yes from no.
    """
    begin, each = beginnings(processor.tokenizer), max(1, batch // max(1, len(asked)))  # images a pass
    scores = [torch.empty(0, len(asked))]
    for k in tqdm(range(0, len(embeds) if asked else 0, each), desc="scoring AUs", disable=not progress):
        some = embeds[k : k + each]
        values = p_yes(model, _prompt(model, processor, some, list(asked) * len(some)), begin)
        scores.append(values.cpu().view(len(some), len(asked)))
    return torch.cat(scores) if asked else torch.empty(len(embeds), 0)


@torch.inference_mode()
def generate(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    images: Sequence,
    asked: Sequence[str],
    *,
    samples: int = 1,
    beams: int | None = None,
    max_new_tokens: int | None = None,
    repetition_penalty: float | None = None,
    length_penalty: float | None = None,
    top_p: float = 0.9,
    seed: int = 0,
    batch: int = 64,
    embeds: Tensor | None = None,
    progress: bool = False,
) -> list[list[str]]:
    """Answer one question an image in words: by beams (greedy with 1), or `samples` > 1 answers by nucleus sampling with `top_p`.

    What is None comes from the model's own `generation_config`: a converted checkpoint answers as the reference does, with 5 beams (also
    when it samples), repetition penalty 1.5 and 255 new tokens; without settings of its own a model answers greedily, with 80.
    The penalty covers the answer alone, since the language model is given embeddings, as in the reference. Several processes share the
    images as in `score_yes_no`, except with `embeds` and where they sample.

    Returns:
        For each image a list of `samples` answers.
    """
    if len(images if embeds is None else embeds) != len(asked):
        raise SettingsError(f"{len(asked)} questions for {len(images)} images; give one question an image")
    if embeds is None and samples == 1:
        progress &= state().is_main_process
        how = {
            "beams": beams,
            "max_new_tokens": max_new_tokens,
            "repetition_penalty": repetition_penalty,
            "length_penalty": length_penalty,
        }

        def answer(mine: slice) -> list[list[str]]:
            seen = embed_images(model, processor, images[mine], progress=progress)
            return generate(
                model,
                processor,
                images[mine],
                asked[mine],
                **how,
                batch=batch,
                embeds=seen,
                progress=progress,
            )

        return by_share(len(asked), answer)
    embeds = embed_images(model, processor, images, progress=progress) if embeds is None else embeds
    own, tokenizer = model.generation_config, processor.tokenizer
    beams = beams or own.num_beams or 1
    if max_new_tokens is None:  # the reference counts the start token that it prepends
        max_new_tokens = own.max_length - 1 if own.max_length and own.num_beams else 80
    how = {"do_sample": False, "num_beams": beams}
    if samples > 1:
        set_seed(seed)
        beams = max(beams, samples) if beams > 1 else 1
        how = {"do_sample": True, "top_p": top_p, "num_return_sequences": samples, "num_beams": beams}
    how |= {
        "max_new_tokens": max_new_tokens,
        "repetition_penalty": repetition_penalty or own.repetition_penalty or 1.0,
        "length_penalty": (own.length_penalty or 1.0) if length_penalty is None else length_penalty,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "suppress_tokens": _no_words(model, tokenizer),
    }
    answers: list[list[str]] = []
    batch = max(1, batch // max(beams, samples))  # each beam and each sample is a sequence of its own
    for k in tqdm(range(0, len(asked), batch), desc="answering", disable=not progress):
        inputs = _prompt(model, processor, embeds[k : k + batch], asked[k : k + batch])
        inputs.pop("position_ids", None)  # generate counts them from the mask itself
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Passing `repetition_penalty` with"
            )  # that it covers the answer alone is what is wanted
            ids = model.language_model.generate(**inputs, **how)
        told = [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
        answers += [told[n : n + samples] for n in range(0, len(told), samples)]
    return answers


def _no_words(model: InstructBlipForConditionalGeneration, tokenizer) -> list[int]:
    """Tokens that stand for something else and must never be said: padding and the place of the image."""
    return sorted(
        {token for token in (tokenizer.pad_token_id, model.config.image_token_index) if token is not None}
    )
