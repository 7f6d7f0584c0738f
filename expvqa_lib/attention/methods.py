"""Attention methods: maps of relevance from a model, pictures, questions and a score of the answer."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad
from transformers import InstructBlipForConditionalGeneration

from ..errors import SettingsError
from ..model.forward import (
    attention_weights,
    cross_attention_weights,
    encode_images,
    language_inputs,
    next_logits,
    query_image,
)

STEPS = 2  # between the blurred and the sharp picture: more changed nothing that was measured
BLUR = 3 / 96  # standard deviation, as a share of the picture's side
_SMOOTH = 1 / 96
_SHIFTS = (0, 1 / 3, -1 / 3)  # shares of a patch


@torch.enable_grad()
def integrated_gradients(model, pixels: Tensor, text: dict[str, Tensor], contrast: Tensor) -> Tensor:
    """What each pixel's difference to a blurred picture adds to the score (Sundararajan et al. 2017).

    The blur takes a face's lines, which an action unit moves.
    """
    fine = 0
    for by, shifted in _shifted(model, pixels):
        blurred, slopes = blur(shifted, BLUR * pixels.shape[-1]), 0
        for k in range(STEPS):
            at = (blurred + (shifted - blurred) * (k + 0.5) / STEPS).requires_grad_()
            logits = answer_logits(model, encode_images(model, at.to(model.dtype)), text)
            slopes = slopes + torch.autograd.grad((logits * contrast).sum(), at)[0]
        fine = fine + shift(((shifted - blurred) * slopes).sum(1, keepdim=True), -by, "constant")
    return blur(fine, _SMOOTH * pixels.shape[-1]).clamp(min=0)[:, 0]


def guided_gradients(model, pixels: Tensor, text: dict[str, Tensor], contrast: Tensor) -> Tensor:
    """`integrated_gradients` times `gradient_cross_attention` (guided Grad-CAM, Selvaraju et al. 2017)."""
    fine = integrated_gradients(model, pixels, text, contrast)
    coarse = torch.zeros_like(fine)
    for by, shifted in _shifted(model, pixels):
        heat = gradient_cross_attention(model, shifted, text, contrast)
        heat = interpolate(heat[:, None], size=pixels.shape[-2:], mode="bilinear")
        coarse += shift(heat, -by, "constant")[:, 0]
    return fine * coarse


@torch.enable_grad()
def gradient_cross_attention(model, pixels: Tensor, text: dict[str, Tensor], contrast: Tensor) -> Tensor:
    """The Q-Former's attention weighted by the score's positive gradient (after Chefer et al. 2021)."""
    embeds = _embed(model, pixels).requires_grad_()
    with cross_attention_weights(model.qformer) as weights:
        slopes = torch.autograd.grad((answer_logits(model, embeds, text) * contrast).sum(), weights)
    pairs = zip(weights, slopes, strict=True)
    return _square(sum((w.float() * slope.float()).clamp(min=0).sum((1, 2)) for w, slope in pairs))


@torch.no_grad()
def language_attention(model, pixels: Tensor, text: dict[str, Tensor], contrast: Tensor) -> Tensor:
    """The answer's attention to each query, times what that query attends to; means over layers and heads."""
    if not model.config.use_decoder_only_language_model:
        raise SettingsError(
            "language_attention needs a decoder-only language model, such as Vicuna; "
            "choose another method for T5"
        )
    language = model.language_model
    layers = [block.self_attn for block in language.model.layers]
    with cross_attention_weights(model.qformer) as crossed, attention_weights(language, layers) as weights:
        answer_logits(model, _embed(model, pixels), text)
    of_queries = sum(w[:, :, -1, : crossed[0].shape[2]].float().mean(1) for w in weights)  # [N, Q]
    of_patches = sum(w.float().mean(1) for w in crossed)  # [N, Q, 1 + P]
    return _square((of_queries[:, None] @ of_patches)[:, 0])


@torch.no_grad()
def cross_attention(model, pixels: Tensor, text: dict[str, Tensor], contrast: Tensor) -> Tensor:
    """The Q-Former's attention, mean over layers, heads and queries; it does not know the score."""
    with cross_attention_weights(model.qformer) as weights:
        query_image(model, _embed(model, pixels), text["qformer_input_ids"], text["qformer_attention_mask"])
    return _square(sum(weights).mean((1, 2)))


@torch.no_grad()
def rollout(model, pixels: Tensor, text: dict[str, Tensor], contrast: Tensor) -> Tensor:
    """Attention rollout of the vision encoder (Abnar & Zuidema 2020); it does not know the question."""
    vision = model.vision_model
    with attention_weights(vision, [block.self_attn for block in vision.encoder.layers]) as weights:
        _embed(model, pixels)
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
next token times the contrast. The best first, by how often the peak was in the region on drawn faces that no
model was trained or tested on (`truth`)."""

DEFAULT_METHOD = "guided_gradients"


def answer_logits(
    model: InstructBlipForConditionalGeneration, embeds: Tensor, text: dict[str, Tensor]
) -> Tensor:
    """Logits [N, V] of the answer's next token, of image embeddings [N, 1 + P, D] and questions from
    `model.encode`.
    """
    output = query_image(model, embeds, text["qformer_input_ids"], text["qformer_attention_mask"])
    return next_logits(model, language_inputs(model, output, text["input_ids"], text["attention_mask"]))


def shift(pictures: Tensor, by: int, border: str = "replicate") -> Tensor:
    """Pictures [N, C, S, S] shifted down and to the right; the border is repeated, or `constant` (zero)."""
    reach, side = abs(by), pictures.shape[-1]
    part = slice(reach - by, reach - by + side)
    return pad(pictures, [reach] * 4, mode=border)[:, :, part, part]


def blur(pixels: Tensor, deviation: float) -> Tensor:
    """Blur pictures [N, C, S, S] by a Gaussian of this standard deviation in pixels; borders repeat."""
    reach = math.ceil(3 * deviation)
    steps = torch.arange(-reach, reach + 1, device=pixels.device, dtype=pixels.dtype)
    bell = torch.exp(-(steps**2) / (2 * deviation**2))
    bell = bell / bell.sum()
    flat = pad(pixels.flatten(0, 1)[:, None], [reach] * 4, mode="replicate")  # [N * C, 1, S', S']
    return conv2d(conv2d(flat, bell[None, None, None]), bell[None, None, :, None]).view_as(pixels)


@torch.no_grad()
def _embed(model, pixels: Tensor) -> Tensor:
    return encode_images(model, pixels.to(model.dtype))


def _shifted(model, pixels: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The pictures and two shifts of them, since what falls on the border of a patch is an accident."""
    for share in _SHIFTS:
        by = round(share * model.config.vision_config.patch_size)
        yield by, shift(pixels.float(), by)


def _square(heat: Tensor) -> Tensor:
    """[N, 1 + P] to [N, g, g]: the class token, which has no place, is left out."""
    side = math.isqrt(heat.shape[1] - 1)
    return heat[:, 1:].reshape(-1, side, side).detach()
