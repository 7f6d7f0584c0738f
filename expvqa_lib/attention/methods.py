"""How relevance maps are made: attention weights, gradients, and gradients along the way from a blurred picture."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence

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

METHODS = (
    "guided_gradients",
    "integrated_gradients",
    "gradient_cross_attention",
    "language_attention",
    "cross_attention",
    "gradient_embedding",
    "gradient_patch",
    "rollout",
)
"""The best first, by how often the peak was in the region on drawn faces that no model was trained or tested on (`faithfulness`)."""

ON_PIXELS = METHODS[:2]
BY_QUERY = ("gradient_cross_attention", "cross_attention")
_WITHOUT_GRADIENT = ("cross_attention", "language_attention", "rollout")

STEPS = 2  # on the way from the blurred picture: more changed nothing that was measured
BLUR = 3 / 96  # standard deviation, as a share of the picture's side
_SMOOTH = 1 / 96
_SHIFTS = (0, 1 / 3, -1 / 3)  # shares of a patch

Choose = Callable[[Tensor], Callable[[Tensor], Tensor]]


def make_maps(
    model: InstructBlipForConditionalGeneration,
    pixels: Tensor,
    text: dict[str, Tensor],
    choose: Choose,
    method: str,
    layer: int | None = None,
    query: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Relevance [N, h, h], not negative and not normalised, and the logits [N, V] of the answer's first token.

    Args:
        pixels: [N, 3, S, S], one picture a question, on the model's device.
        text: the questions, from `text.encode`.
        choose: is given the logits [N, V] and returns what is explained: a function of logits [N, V] to values [N].
        method: of `METHODS`; h is S for those `ON_PIXELS`, else the patches a side.
        layer, query: of the methods `BY_QUERY`, only this cross-attention layer or query.
    """
    if method in ON_PIXELS:
        with torch.no_grad():
            logits = answer_logits(model, encode_images(model, pixels.to(model.dtype)), text)
        return _on_pixels(model, pixels.float(), text, choose(logits), method), logits
    vision = model.vision_model
    with torch.set_grad_enabled(method not in _WITHOUT_GRADIENT), contextlib.ExitStack() as stack:
        crossed = stack.enter_context(cross_attention_weights(model.qformer))
        if method == "rollout":
            mixed = stack.enter_context(
                attention_weights(vision, [block.self_attn for block in vision.encoder.layers])
            )
        if method == "language_attention":
            read = stack.enter_context(attention_weights(model.language_model, _language_attention(model)))
        patches = (
            vision.embeddings(pixels.to(model.dtype)).detach().requires_grad_(torch.is_grad_enabled())
        )  # [N, 1 + P, D]
        embeds = vision.post_layernorm(vision.encoder(inputs_embeds=patches).last_hidden_state)
        logits = answer_logits(model, embeds, text)
        explained = choose(logits)
        if method == "rollout":
            heat = _rolled_out(mixed)
        elif method == "language_attention":
            heat = _through_queries(read, crossed)
        elif method in ("gradient_embedding", "gradient_patch"):
            at = embeds if method == "gradient_embedding" else patches
            heat = (at * torch.autograd.grad(explained(logits).sum(), at)[0]).sum(2).abs()
        elif method == "cross_attention":
            heat = sum(_selected(crossed, layer, query)).mean((1, 2))
        else:
            slopes = torch.autograd.grad(explained(logits).sum(), crossed)
            weighted = _selected(
                [a.float() * s.float() for a, s in zip(crossed, slopes, strict=True)], layer, query
            )
            heat = sum(w.clamp(min=0).sum((1, 2)) for w in weighted)
    return _square(heat), logits.detach()


def _on_pixels(
    model, pixels: Tensor, text: dict[str, Tensor], explained: Callable[[Tensor], Tensor], method: str
) -> Tensor:
    """Sums over the picture and two shifts of it along the diagonal, since what falls on the borders of patches is an accident."""
    side, patch = pixels.shape[-1], model.config.vision_config.patch_size
    shifts = [(by, shift(pixels, by)) for by in (round(share * patch) for share in _SHIFTS)]
    fine = sum(shift(_integrated(model, shifted, text, explained), -by, "constant") for by, shifted in shifts)
    fine = blur(fine, _SMOOTH * side).clamp(min=0)[:, 0]
    if method == "integrated_gradients":
        return fine
    coarse = torch.zeros_like(fine)
    for by, shifted in shifts:
        heat, _ = make_maps(model, shifted, text, lambda _: explained, "gradient_cross_attention")
        coarse += shift(interpolate(heat[:, None], size=(side, side), mode="bilinear"), -by, "constant")[:, 0]
    return fine * coarse


def shift(pictures: Tensor, by: int, border: str = "replicate") -> Tensor:
    """Pictures [N, C, S, S] shifted by so many pixels down and to the right; the border is repeated, or `constant` (zero)."""
    reach, side = abs(by), pictures.shape[-1]
    return pad(pictures, [reach] * 4, mode=border)[
        :, :, reach - by : reach - by + side, reach - by : reach - by + side
    ]


def answer_logits(
    model: InstructBlipForConditionalGeneration, embeds: Tensor, text: dict[str, Tensor]
) -> Tensor:
    """Logits [N, V] of the answer's first token, of image embeddings [N, 1 + P, D] and questions from `text.encode`."""
    output = query_image(model, embeds, text["qformer_input_ids"], text["qformer_attention_mask"])
    return next_logits(model, language_inputs(model, output, text["input_ids"], text["attention_mask"]))


def _square(heat: Tensor) -> Tensor:
    """[N, 1 + P] to [N, g, g]: the class token, which has no place, is left out."""
    side = math.isqrt(heat.shape[1] - 1)
    return heat[:, 1:].reshape(-1, side, side).detach()


def _selected(weights: Sequence[Tensor], layer: int | None, query: int | None) -> list[Tensor]:
    """Weights [N, heads, Q, 1 + P] of each layer, of one layer or query where asked.

    Raises:
        SettingsError: there is no such layer or query.
    """
    for name, index, count in (("layer", layer, len(weights)), ("query", query, weights[0].shape[2])):
        if index is not None and not 0 <= index < count:
            raise SettingsError(
                f"{name}={index}: the Q-Former has {count}; expected 0 to {count - 1}, or None for all"
            )
    kept = weights if layer is None else [weights[layer]]
    return [w if query is None else w[:, :, query : query + 1] for w in kept]


def _rolled_out(weights: Sequence[Tensor]) -> Tensor:
    """Attention rollout of the class token (Abnar & Zuidema 2020): the blocks' mean attention, half of it staying in place, multiplied."""
    stay = torch.eye(weights[0].shape[-1], device=weights[0].device)
    rolled = stay
    for w in weights:
        rolled = (w.float().mean(1) + stay) / 2 @ rolled
    return rolled[:, 0]


def _language_attention(model: InstructBlipForConditionalGeneration) -> list:
    if not model.config.use_decoder_only_language_model:
        raise SettingsError(
            "language_attention needs a decoder-only language model, such as Vicuna; choose another method for T5"
        )
    return [block.self_attn for block in model.language_model.model.layers]


def _through_queries(read: Sequence[Tensor], crossed: Sequence[Tensor]) -> Tensor:
    """What the answer's position reads of each query, times what that query saw of each patch; means over layers and heads."""
    queries = crossed[0].shape[2]
    of_queries = sum(w[:, :, -1, :queries].float().mean(1) for w in read)  # [N, Q]
    of_patches = sum(w.float().mean(1) for w in crossed)  # [N, Q, 1 + P]
    return (of_queries[:, None] @ of_patches)[:, 0]


def _integrated(
    model, pixels: Tensor, text: dict[str, Tensor], explained: Callable[[Tensor], Tensor]
) -> Tensor:
    """What each pixel's difference to a blurred picture adds [N, 1, S, S] (integrated gradients, Sundararajan et al. 2017).

    The blur leaves the face and takes its lines, which is what an action unit moves.
    """
    blurred = blur(pixels, BLUR * pixels.shape[-1])
    total = torch.zeros_like(pixels)
    with torch.enable_grad():
        for k in range(STEPS):
            at = (blurred + (pixels - blurred) * (k + 0.5) / STEPS).requires_grad_()
            logits = answer_logits(model, encode_images(model, at.to(model.dtype)), text)
            total += torch.autograd.grad(explained(logits).sum(), at)[0]
    return ((pixels - blurred) * total).sum(1, keepdim=True)


def blur(pixels: Tensor, deviation: float) -> Tensor:
    """Blur pictures [N, C, S, S] by a Gaussian of this standard deviation in pixels; the border is repeated outwards."""
    reach = math.ceil(3 * deviation)
    bell = torch.exp(
        -(torch.arange(-reach, reach + 1, device=pixels.device, dtype=pixels.dtype) ** 2) / (2 * deviation**2)
    )
    bell = bell / bell.sum()
    flat = pad(
        pixels.flatten(0, 1)[:, None], [reach] * 4, mode="replicate"
    )  # [N * C, 1, S + 2 reach, S + 2 reach]
    return conv2d(conv2d(flat, bell[None, None, None]), bell[None, None, :, None]).view_as(pixels)
