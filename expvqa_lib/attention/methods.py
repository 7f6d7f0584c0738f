"""Where the model looks for a word of an answer: maps of relevance, by one of several methods."""

import math
import re
from collections import namedtuple
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from ..data import ImageSource, load_image
from ..errors import SettingsError
from ..model import (
    attention_weights,
    beginnings,
    cross_attention_weights,
    encode,
    encode_images,
    first_p_yes,
    language_inputs,
    next_logits,
    query_image,
)
from ..questions import NO, YES

BLUR = 3 / 96  # standard deviation, as a share of the picture's side

Relevance = namedtuple("Relevance", "maps p_yes words")
"""Maps float32 [N, h, h] (maximum 1), P(yes) [N] by the first token alone, and the explained words."""

Word = namedtuple("Word", "text start gain heat")
"""A word of an answer: its text, its first character's place in the answer, its gain, and its map [h, h] of
`relevance`.

The gain is the logarithm (in nats) of the probability of the word's first token, less that with the picture
blurred: about 0 where the words before it decide what follows.
"""


@torch.enable_grad()
def integrated_gradients(model, pixels: Tensor, text: dict[str, Tensor], contrast: Tensor) -> Tensor:
    """What each pixel's difference to a blurred picture adds to the score (Sundararajan et al. 2017).

    The blur takes a face's lines, which an action unit moves.
    """
    fine = 0
    for by, shifted in _shifted(model, pixels):
        blurred, slopes = blur(shifted, BLUR * pixels.shape[-1]), 0
        for way in (0.25, 0.75):  # from the blurred to the sharp picture: more steps measured no better
            at = (blurred + (shifted - blurred) * way).requires_grad_()
            score = (answer_logits(model, at, text) * contrast).sum()
            slopes = slopes + torch.autograd.grad(score, at)[0]
        fine = fine + shift(((shifted - blurred) * slopes).sum(1, keepdim=True), -by, "constant")
    return blur(fine, pixels.shape[-1] / 96).clamp(min=0)[:, 0]


def guided_gradients(model, pixels: Tensor, text: dict[str, Tensor], contrast: Tensor) -> Tensor:
    """`integrated_gradients` times `gradient_cross_attention` (guided Grad-CAM, Selvaraju et al. 2017)."""
    fine = integrated_gradients(model, pixels, text, contrast)
    coarse = torch.zeros_like(fine)
    for by, shifted in _shifted(model, pixels):
        heat = gradient_cross_attention(model, shifted, text, contrast)[:, None]
        coarse += shift(interpolate(heat, size=pixels.shape[-2:], mode="bilinear"), -by, "constant")[:, 0]
    return fine * coarse


@torch.enable_grad()
def gradient_cross_attention(model, pixels: Tensor, text: dict[str, Tensor], contrast: Tensor) -> Tensor:
    """The Q-Former's attention weighted by the score's positive gradient (after Chefer et al. 2021)."""
    with torch.no_grad():  # the graph begins behind the vision encoder, whose states would fill the memory
        embeds = encode_images(model, pixels.to(model.dtype))
    with cross_attention_weights(model.qformer) as weights:
        score = (_next_logits(model, embeds.requires_grad_(), text) * contrast).sum()
    pairs = zip(weights, torch.autograd.grad(score, weights), strict=True)
    return _square(sum((w.float() * slope.float()).clamp(min=0).sum((1, 2)) for w, slope in pairs))


def language_attention(model, pixels: Tensor, text: dict[str, Tensor], contrast: Tensor) -> Tensor:
    """The answer's attention to each query, times what that query attends to; means over layers and heads."""
    language, layers = model.language_model, [block.self_attn for block in model.language_model.model.layers]
    with cross_attention_weights(model.qformer) as crossed, attention_weights(language, layers) as weights:
        answer_logits(model, pixels, text)
    of_queries = sum(w[:, :, -1, : crossed[0].shape[2]].float().mean(1) for w in weights)  # [N, Q]
    of_patches = sum(w.float().mean(1) for w in crossed)  # [N, Q, 1 + P]
    return _square((of_queries[:, None] @ of_patches)[:, 0])


def cross_attention(model, pixels: Tensor, text: dict[str, Tensor], contrast: Tensor) -> Tensor:
    """The Q-Former's attention, mean over layers, heads and queries; it does not know the score."""
    with cross_attention_weights(model.qformer) as weights:
        query_image(model, encode_images(model, pixels.to(model.dtype)), text)
    return _square(sum(weights).mean((1, 2)))


def rollout(model, pixels: Tensor, text: dict[str, Tensor], contrast: Tensor) -> Tensor:
    """Attention rollout of the vision encoder (Abnar & Zuidema 2020); it does not know the question."""
    vision = model.vision_model
    with attention_weights(vision, [block.self_attn for block in vision.encoder.layers]) as weights:
        encode_images(model, pixels.to(model.dtype))
    rolled = stay = torch.eye(weights[0].shape[-1], device=weights[0].device)
    for w in weights:
        rolled = (w.float().mean(1) + stay) / 2 @ rolled
    return _square(rolled[:, 0])


METHODS = {
    method.__name__: method
    for method in (
        guided_gradients,
        integrated_gradients,
        gradient_cross_attention,
        language_attention,
        cross_attention,
        rollout,
    )
}
"""Functions of a model, pixels [N, 3, S, S], questions from `model.encode` and a contrast [N, V] to
maps [N, h, h], not negative and not normalised. They explain the score: the logits [N, V] of the answer's
next token times the contrast. First the default: more of its relevance lies on
pixels that an AU moved than of any other's (`truth`)."""

DEFAULT_METHOD, FAST_METHOD = "guided_gradients", "gradient_cross_attention"


@torch.no_grad()  # the methods that need gradients ask for them
def relevance(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    images: Sequence[ImageSource],
    questions: Sequence[str],
    *,
    targets: Sequence[str] | None = None,
    prefixes: Sequence[str] | None = None,
    method: str = DEFAULT_METHOD,
    batch: int = 64,
) -> Relevance:
    """Map which parts of a picture one word of the answer comes from.

    Args:
        images: anything `data.load_image` takes, one a question; at least one.
        targets: answers whose first token's logit is explained; by default the word that the model would
            answer first. The logit of a yes or no is explained against that of the other.
        prefixes: the answer before the explained word, nothing by default. For decoder-only language models.
        method: of `METHODS`, where each is described.

    Returns:
        Maps over the model's square picture, with h the patches a side or, of guided and integrated
        gradients, the picture's side.

    Raises:
        SettingsError: the method is unknown or does not fit the model.
    """
    if method not in METHODS:
        raise SettingsError(f"attention method {method!r} is unknown; known are {', '.join(METHODS)}")
    if not model.config.use_decoder_only_language_model and (
        method == "language_attention" or any(prefixes or ())
    ):
        raise SettingsError(
            "language_attention, and any word after the first, need a decoder-only language model, such as "
            "Vicuna; of T5 explain the first word, by another method"
        )
    yes, no = first_tokens(processor, [YES, NO])
    maps, p_yes, words = [], [], []
    for k in range(0, len(images), batch):
        chunk = slice(k, k + batch)
        pixels, text = inputs(model, processor, images[chunk], questions[chunk], (prefixes or [])[chunk])
        logits = answer_logits(model, pixels, text)
        target = first_tokens(processor, targets[chunk]).to(model.device) if targets else logits.argmax(1)
        contrast = torch.zeros_like(logits).scatter_(1, target[:, None], 1)
        contrast[target == yes, no] = contrast[target == no, yes] = -1
        heat = METHODS[method](model, pixels, text, contrast).float()
        maps.append((heat / heat.amax((1, 2), keepdim=True).clamp(min=1e-30)).cpu().numpy())
        p_yes.append(first_p_yes(logits, beginnings(processor.tokenizer)).cpu().numpy())
        words += [processor.tokenizer.decode([token]).strip() for token in target.tolist()]
    return Relevance(np.concatenate(maps), np.concatenate(p_yes), words)


@torch.no_grad()
def explain_words(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    image: ImageSource,
    question: str,
    answer: str,
    *,
    method: str = DEFAULT_METHOD,
) -> list[Word]:
    """Explain every word of an answer, the model's own or any other, given the question and the words before.

    Of a word of several tokens the first is explained.

    Raises:
        SettingsError: the answer has no word; or it has several, and the language model is not decoder-only.
    """
    matches = list(re.finditer(r"\w+(?:['\u2019-]\w+)*", answer))
    if not matches:
        raise SettingsError(f"the answer {answer!r} has no word to explain")
    words, starts = [match.group() for match in matches], [match.start() for match in matches]
    prefixes = [answer[:start].rstrip() for start in starts]
    pairs = model, processor, [image] * len(words), [question] * len(words)
    maps = relevance(*pairs, targets=words, prefixes=prefixes, method=method).maps
    pixels, text = inputs(*pairs, prefixes)
    tokens = first_tokens(processor, words)[:, None].to(model.device)
    sharp, blurred = (
        answer_logits(model, pictures, text).log_softmax(1).gather(1, tokens)[:, 0]
        for pictures in (pixels, blur(pixels, BLUR * pixels.shape[-1]))
    )
    return list(map(Word, words, starts, (sharp - blurred).tolist(), maps))


def inputs(
    model, processor, images: Sequence[ImageSource], questions: Sequence[str], prefixes: Sequence[str] = ()
) -> tuple[Tensor, dict[str, Tensor]]:
    """Pixels [N, 3, S, S], and the questions as the language model reads them, each with its prefix."""
    pixels = processor.image_processor([load_image(image) for image in images], return_tensors="pt")
    text = encode(processor, questions, left=model.config.use_decoder_only_language_model)
    if any(prefixes):
        answers = processor.tokenizer(list(prefixes), add_special_tokens=False)["input_ids"]
        prompts = zip(text["input_ids"], text["attention_mask"], answers, strict=True)
        rows = [ids[mask > 0].tolist() + answer for ids, mask, answer in prompts]
        text |= processor.tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt")
    return pixels["pixel_values"].to(model.device), text.to(model.device)


def first_tokens(processor, answers: Sequence[str]) -> Tensor:
    """The language model's token [N] that each answer begins with."""
    tokens = processor.tokenizer(list(answers), add_special_tokens=False)["input_ids"]
    return torch.tensor([ids[0] for ids in tokens])


def answer_logits(model, pixels: Tensor, text: dict[str, Tensor]) -> Tensor:
    """Logits [N, V] of the answer's next token, of pixels [N, 3, S, S] and questions of `inputs`."""
    return _next_logits(model, encode_images(model, pixels.to(model.dtype)), text)


def _next_logits(model, embeds: Tensor, text: dict[str, Tensor]) -> Tensor:
    return next_logits(model, language_inputs(model, query_image(model, embeds, text), text))


def upsample(maps: np.ndarray, size: int) -> np.ndarray:
    """Maps [N, h, h] to pixels of the picture [N, size, size], bilinear."""
    return interpolate(torch.from_numpy(maps)[:, None], size=(size, size), mode="bilinear").numpy()[:, 0]


def shift(pictures: Tensor, by: int, border: str = "replicate") -> Tensor:
    """Pictures [N, C, S, S] shifted down and to the right; the border is repeated, or `constant` (zero)."""
    return pad(pictures, [by, -by, by, -by], mode=border)


def blur(pixels: Tensor, deviation: float) -> Tensor:
    """Blur pictures [N, C, S, S] by a Gaussian of this standard deviation in pixels; borders repeat."""
    reach = math.ceil(3 * deviation)
    steps = torch.arange(-reach, reach + 1, device=pixels.device, dtype=pixels.dtype)
    bell = torch.exp(-(steps**2) / (2 * deviation**2))
    bell = bell / bell.sum()
    flat = pad(pixels.flatten(0, 1)[:, None], [reach] * 4, mode="replicate")  # [N * C, 1, S', S']
    return conv2d(conv2d(flat, bell[None, None, None]), bell[None, None, :, None]).view_as(pixels)


def _shifted(model, pixels: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The pictures and two shifts of them, since what falls on the border of a patch is an accident."""
    for share in (0, 1 / 3, -1 / 3):
        by = round(share * model.config.vision_config.patch_size)
        yield by, shift(pixels.float(), by)


def _square(heat: Tensor) -> Tensor:
    """[N, 1 + P] to [N, g, g]: the class token, which has no place, is left out."""
    return heat[:, 1:].unflatten(1, [math.isqrt(heat.shape[1] - 1)] * 2).detach()
