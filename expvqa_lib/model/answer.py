"""Questions to the model: answers in words, and P(yes): the probability of yes by the next tokens' logits."""

import warnings
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import (
    DynamicCache,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    PreTrainedTokenizerBase,
    set_seed,
)

from ..data import load_image
from ..errors import ModelError
from ..questions import NO, YES, ask_q3
from .forward import encode, encode_images, language_inputs, next_logits, query_image

Beginnings = tuple[list[tuple[int, ...]], list[tuple[int, ...]]]
"""How answers of yes and of no begin, up to the first token that the other class does not share."""


@torch.inference_mode()
def embed_images(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    images: Sequence | Tensor,
    batch: int = 128,
    progress: bool = False,
) -> Tensor:
    """Vision encoder's output [I, 1 + patches, D_vision] for images, in any form that `load_image` takes.

    A tensor is taken for such an output and returned: other functions take images or their embeddings.
    """
    if torch.is_tensor(images):
        return images
    vision, options = model.vision_model.embeddings, {"dtype": model.dtype, "device": model.device}
    embeds = torch.empty(len(images), 1 + vision.num_patches, vision.embed_dim, **options)
    for k in tqdm(range(0, len(images), batch), desc="encoding images", disable=not progress):
        pictures = [load_image(image) for image in images[k : k + batch]]
        pixels = processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
        embeds[k : k + batch] = encode_images(model, pixels.to(**options))
    return embeds


def prompt(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    embeds: Tensor,
    questions: Sequence[str],
) -> dict[str, Tensor]:
    """Language model's inputs for N questions, as many about each image, image by image."""
    text = encode(processor, questions, left=model.config.use_decoder_only_language_model).to(model.device)
    index = torch.arange(len(embeds), device=model.device).repeat_interleave(len(questions) // len(embeds))
    return language_inputs(model, query_image(model, embeds, text, index), text)


@torch.inference_mode()
def score_yes_no(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    images: Sequence | Tensor,
    aus: Sequence[int],
    *,
    wordings: Sequence[int] = (0,),
    batch: int = 256,
) -> pd.DataFrame:
    """Probability of yes rather than no to Q3, "does this AU occur?", without generation (`p_yes`).

    Args:
        images: as of `embed_images`, or its output.
        aus: AU numbers to ask about.
        wordings: which of the Q3 wordings; of several, the mean probability.
        batch: questions a forward pass.

    Returns:
        One row an image, one column an AU (`AU12`), values in [0, 1].

    Raises:
        ModelError: the tokenizer cannot tell yes from no.
        SettingsError: an AU is unknown.
        ImageError: an image is missing or unreadable.
    """
    questions = [ask_q3(au, wording) for wording in wordings for au in aus]
    embeds = embed_images(model, processor, images)
    scores = score_questions(model, processor, embeds, questions, batch=batch)
    means = scores.view(len(embeds), len(wordings), len(aus)).mean(1)
    return pd.DataFrame(means.numpy(), columns=[f"AU{au}" for au in aus])


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
    images: Sequence | Tensor,
    questions: Sequence[str],
    *,
    samples: int = 1,
    seed: int = 0,
    batch: int = 64,
    progress: bool = False,
    **options,
) -> list[list[str]]:
    """Answer one question an image, by beams or greedily; with `samples` > 1 by nucleus sampling from `seed`.

    A converted checkpoint answers as the reference does: its `generation_config` has 5 beams (also when it
    samples), repetition penalty 1.5 and 255 new tokens. A model without settings of its own answers
    greedily, with 80. The repetition penalty covers the answer alone, as in the reference, since the
    language model is given embeddings.

    Args:
        images: as of `embed_images`, or its output.
        batch: sequences a forward pass (each beam and each sample is one).
        options: of transformers' `generate`, such as `num_beams`, over the model's own.

    Returns:
        For each image a list of `samples` answers.
    """
    options = _generation_options(model, processor.tokenizer, samples, options)
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
            ids = model.language_model.generate(**_read_once(model, inputs, options), **options)
        texts = [text.strip() for text in processor.tokenizer.batch_decode(ids, skip_special_tokens=True)]
        answers += [texts[n : n + samples] for n in range(0, len(texts), samples)]
    return answers


def _read_once(model, inputs: dict[str, Tensor], options: Mapping) -> dict[str, Tensor]:
    """Let the language model read all but the prompts' last token once, not once a beam or sample.

    `generate` goes on from these keys and values, repeated for each.
    """
    copies = max(options["num_beams"], options["num_return_sequences"])
    if copies == 1 or not model.config.use_decoder_only_language_model:
        return inputs
    mask, cache = inputs["attention_mask"], DynamicCache(config=model.language_model.config)
    model.language_model.model(
        inputs_embeds=inputs["inputs_embeds"][:, :-1],
        attention_mask=mask[:, :-1],
        position_ids=(mask.cumsum(1) - 1).clamp(min=0)[:, :-1],
        past_key_values=cache,
        use_cache=True,
    )
    cache.batch_repeat_interleave(copies)
    return inputs | {"past_key_values": cache}


def _generation_options(model, tokenizer, samples: int, options: dict) -> dict:
    """The given options of transformers' `generate`, or else the model's own, with what sampling needs."""
    own = model.generation_config
    beams = options.pop("num_beams", own.num_beams) or 1
    return {
        "do_sample": samples > 1,
        "num_beams": max(beams, samples) if beams > 1 else 1,
        "num_return_sequences": samples,
        # the reference counts the start token that it prepends
        "max_new_tokens": own.max_length - 1 if own.max_length and own.num_beams else 80,
        "repetition_penalty": own.repetition_penalty or 1.0,
        "length_penalty": own.length_penalty or 1.0,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "suppress_tokens": sorted({tokenizer.pad_token_id, model.config.image_token_index} - {None}),
        **({"top_p": 0.9} if samples > 1 else {}),
    } | options


def beginnings(tokenizer: PreTrainedTokenizerBase) -> Beginnings:
    """How a yes and a no may begin: small, capitalised or in capitals, with or without a space.

    As for `questions.read_yes_no`, "not" is a no. A beginning is usually one token; it has more where the
    other class shares the first one, such as a space of its own.

    Raises:
        ModelError: the tokenizer has no token that tells one class from the other.
    """
    yes, no = _spellings(tokenizer, (YES,)), _spellings(tokenizer, (NO, "not"))
    return _apart(yes, no), _apart(no, yes)


def _apart(spellings: set[tuple[int, ...]], others: set[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The spellings up to the first token that they do not share with the others."""
    shared = {tokens[:k] for tokens in others for k in range(len(tokens) + 1)}
    heads = {tokens[: k + 1] for tokens in spellings for k in range(len(tokens)) if tokens[:k] in shared}
    if not heads - shared:
        raise ModelError(f"the tokenizer cannot tell {YES!r} from {NO!r}: no token is of one of them alone")
    return sorted(heads - shared)


def _spellings(tokenizer: PreTrainedTokenizerBase, words: Iterable[str]) -> set[tuple[int, ...]]:
    """Token ids of the words in all ways of writing, without special tokens such as unknown."""
    result = set()
    for text in (form for word in words for form in (word, word.capitalize(), word.upper())):
        forms = tokenizer([text, f" {text}", f"?{text}", "?"], add_special_tokens=False)
        plain, spaced, after, mark = map(tuple, forms["input_ids"])
        result.add(plain)
        if after[: len(mark)] == mark:
            result.add(after[len(mark) :])  # without the space that some tokenizers write before every text
        begins_with_space = plain and tokenizer.convert_ids_to_tokens(plain[0])[0] in "▁Ġ"
        if not (begins_with_space and spaced[-len(plain) :] == plain):  # else it is that with a second space
            result.add(spaced)
    special = set(tokenizer.all_special_ids)
    return {tokens for tokens in result if tokens and not special & set(tokens)}


def first_p_yes(logits: Tensor, begin: Beginnings) -> Tensor:
    """Probability of yes [N] by the first token's logits [N, V]: of each class its likeliest."""
    best = [logits[:, [tokens[0] for tokens in spellings]].amax(1) for spellings in begin]
    return torch.stack(best, 1).softmax(1)[:, 0]


def p_yes(
    model: InstructBlipForConditionalGeneration, inputs: dict[str, Tensor], begin: Beginnings
) -> Tensor:
    """Probability of yes rather than no [N] after prompts of `forward.language_inputs`.

    A class has the probability of its likeliest beginning, so yes is at least as probable as no wherever
    greedy generation would begin with a yes of `begin`, and the reverse. Where it would begin with tokens
    that both classes share, what counts is the token after those: each different shared beginning takes one
    more pass.
    """
    shared = {tokens[:k] for spellings in begin for tokens in spellings for k in range(len(tokens))}
    logits = {node: next_logits(model, inputs, node) for node in sorted(shared, key=len, reverse=True)}
    if len(logits) == 1:
        return first_p_yes(logits[()], begin)
    # tokens of several positions are compared
    log_p = {node: values.log_softmax(1) for node, values in logits.items()}
    total = {s: sum(log_p[s[:k]][:, s[k]] for k in range(len(s))) for spellings in begin for s in spellings}
    p_after = {}  # the longest node first
    for node in log_p:
        below = [[s for s in spellings if s[: len(node)] == node] for spellings in begin]
        best = [torch.stack([total[s] for s in spellings]).amax(0) for spellings in below]
        p_after[node] = torch.stack(best, 1).softmax(1)[:, 0]
        following = sorted({s[len(node)] for spellings in below for s in spellings})
        likeliest = log_p[node][:, following].argmax(1)
        for k, token in enumerate(following):
            if (*node, token) in p_after:
                p_after[node] = torch.where(likeliest == k, p_after[*node, token], p_after[node])
    return p_after[()]
