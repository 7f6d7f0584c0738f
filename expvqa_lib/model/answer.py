"""Questions to the model: answers in words, and the probability of yes for many action units at once."""

import warnings
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor, set_seed

from ..data.images import load_image
from ..questions import ask_q3
from .forward import encode_images, language_inputs, query_image
from .tokenize import encode
from .yes_no import beginnings, p_yes


def embed_images(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    images: Sequence,
    batch: int = 128,
    progress: bool = False,
) -> Tensor:
    """Vision encoder's output [I, 1 + patches, D_vision] for images, in any form that `load_image` takes."""
    vision = model.vision_model.embeddings
    parts = [torch.empty(0, 1 + vision.num_patches, vision.embed_dim, dtype=model.dtype, device=model.device)]
    for k in tqdm(range(0, len(images), batch), desc="encoding images", disable=not progress):
        pictures = [load_image(image) for image in images[k : k + batch]]
        pixels = processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            parts.append(encode_images(model, pixels.to(model.device, model.dtype)))
    return torch.cat(parts)


def prompt(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    embeds: Tensor,
    questions: Sequence[str],
) -> dict[str, Tensor]:
    """Language model's inputs for N questions, as many about each image, image by image."""
    text = encode(processor, questions, left=model.config.use_decoder_only_language_model)
    text = {name: value.to(model.device) for name, value in text.items()}
    index = torch.arange(len(embeds), device=model.device).repeat_interleave(len(questions) // len(embeds))
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
    """Probability of yes rather than no to Q3, "does this AU occur?", without generation (`yes_no.p_yes`).

    Args:
        aus: AU numbers to ask about.
        wordings: which of the Q3 wordings; of several, the mean probability.
        batch: questions a forward pass.
        embeds: of `embed_images`, in place of the images.

    Returns:
        One row an image, one column an AU (`AU12`), values in [0, 1].

    Raises:
        ModelError: the tokenizer cannot tell yes from no.
        SettingsError: an AU is unknown.
        ImageError: an image is missing or unreadable.
    """
    questions = [ask_q3(au, wording) for wording in wordings for au in aus]
    if embeds is None:
        embeds = embed_images(model, processor, images, progress=progress)
    scores = score_questions(model, processor, embeds, questions, batch=batch, progress=progress)
    scores = scores.view(len(embeds), len(wordings), len(aus)).mean(1).numpy()
    return pd.DataFrame(scores, columns=[f"AU{au}" for au in aus])


@torch.inference_mode()
def score_questions(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    embeds: Tensor,
    questions: Sequence[str],
    *,
    batch: int = 256,
    progress: bool = False,
) -> Tensor:
    """P(yes) [I, questions] of the same yes/no questions about each image of `embed_images`.

    Raises:
        ModelError: the tokenizer cannot tell yes from no.
    """
    begin, step = beginnings(processor.tokenizer), max(1, batch // max(1, len(questions)))
    scores = torch.empty(len(embeds), len(questions))
    for k in tqdm(range(0, len(embeds) if questions else 0, step), desc="scoring AUs", disable=not progress):
        some = embeds[k : k + step]
        inputs = prompt(model, processor, some, list(questions) * len(some))
        scores[k : k + step] = p_yes(model, inputs, begin).view(len(some), -1)
    return scores


@torch.inference_mode()
def generate(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    images: Sequence,
    questions: Sequence[str],
    *,
    samples: int = 1,
    seed: int = 0,
    batch: int = 64,
    embeds: Tensor | None = None,
    progress: bool = False,
    **options,
) -> list[list[str]]:
    """Answer one question an image, by beams or greedily; with `samples` > 1 by nucleus sampling from `seed`.

    A converted checkpoint answers as the reference does: its `generation_config` has 5 beams (also when it
    samples), repetition penalty 1.5 and 255 new tokens. A model without settings of its own answers
    greedily, with 80. The repetition penalty covers the answer alone, as in the reference, since the
    language model is given embeddings.

    Args:
        batch: sequences a forward pass (each beam and each sample is one).
        embeds: of `embed_images`, in place of the images.
        options: of transformers' `generate`, such as `num_beams`, over the model's own.

    Returns:
        For each image a list of `samples` answers.
    """
    options = _generation_options(model, processor.tokenizer, samples, options)
    if embeds is None:
        embeds = embed_images(model, processor, images, progress=progress)
    if samples > 1:
        set_seed(seed)
    answers, batch = [], max(1, batch // max(options["num_beams"], samples))
    for k in tqdm(range(0, len(questions), batch), desc="answering", disable=not progress):
        inputs = prompt(model, processor, embeds[k : k + batch], questions[k : k + batch])
        inputs.pop("position_ids", None)  # `generate` counts them from the mask itself
        with warnings.catch_warnings():
            # it warns that the penalty covers the answer alone, as is wanted here
            warnings.filterwarnings("ignore", "Passing `repetition_penalty` with")
            ids = model.language_model.generate(**inputs, **options)
        texts = [text.strip() for text in processor.tokenizer.batch_decode(ids, skip_special_tokens=True)]
        answers += [texts[n : n + samples] for n in range(0, len(texts), samples)]
    return answers


def _generation_options(model, tokenizer, samples: int, options: dict) -> dict:
    """The given options of transformers' `generate`, or else the model's own, with what sampling needs."""
    own = model.generation_config
    options = {
        "do_sample": samples > 1,
        "num_beams": own.num_beams or 1,
        # the reference counts the start token that it prepends
        "max_new_tokens": own.max_length - 1 if own.max_length and own.num_beams else 80,
        "repetition_penalty": own.repetition_penalty or 1.0,
        "length_penalty": own.length_penalty or 1.0,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "suppress_tokens": sorted({tokenizer.pad_token_id, model.config.image_token_index} - {None}),
    } | options
    if samples > 1:
        beams = max(options["num_beams"], samples) if options["num_beams"] > 1 else 1
        options = {"top_p": 0.9} | options | {"num_return_sequences": samples, "num_beams": beams}
    return options
