"""Where the model looked: relevance of image patches for an answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from . import questions
from .errors import SettingsError
from .forward import cross_attention_weights, language_inputs, next_logits, query_image
from .photos import load_image
from .text import encode

METHODS = ("gradient_cross_attention", "cross_attention", "gradient_embedding", "gradient_patch")


@dataclass(frozen=True)
class Explanation:
    """The image, the question, the answer's first word, P(yes) against no, and the relevance of the patches [g, g] (maximum 1)."""

    image: Image.Image
    question: str
    answer: str
    p_yes: float
    heat: np.ndarray

    def plot(self):
        """Draw the map over the face; returns a matplotlib Figure."""
        from .overlays import attention_gallery

        answer = f"{self.answer} (P(yes) = {self.p_yes:.2f})" if self.answer in (questions.YES, questions.NO) else self.answer
        return attention_gallery([{"image": self.image, "heat": self.heat, "title": self.question, "answer": answer}])


def relevance(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    images: Sequence,
    asked: Sequence[str],
    *,
    targets: Sequence[str] | None = None,
    method: str = METHODS[0],
    batch: int = 64,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Relevance of every patch for one word of the answer.

    Methods: `cross_attention`, the Q-Former's attention to patches, mean over layers, heads and queries; `gradient_cross_attention`, the
    same weighted by the positive gradient of the word's logit (after Chefer et al. 2021); `gradient_embedding` and `gradient_patch`,
    gradient times the encoder's output or the patch embedding, absolute, summed over channels.

    Args:
        images: anything `photos.load_image` takes, one a question.
        targets: answers whose first token's logit is explained; the word that the model would say first where None.

    Returns:
        Maps float32 [N, g, g] from 0 to 1 (the maximum of each), P(yes) [N] against no, and the word explained.

    Raises:
        SettingsError: the method is unknown.
    """
    if method not in METHODS:
        raise SettingsError(f"attention method {method!r} is unknown; known are {', '.join(METHODS)}")
    maps, chances, words = [], [], []
    for k in range(0, len(asked), batch):
        chunk = slice(k, k + batch)
        found = _batch_relevance(model, processor, images[chunk], asked[chunk], targets[chunk] if targets else None, method)
        maps.append(found[0])
        chances.append(found[1])
        words += found[2]
    return np.concatenate(maps), np.concatenate(chances), words


def _batch_relevance(model, processor, images, asked, targets, method) -> tuple[np.ndarray, np.ndarray, list[str]]:
    pixels = processor.image_processor([load_image(i) for i in images], return_tensors="pt")["pixel_values"]
    text = {k: v.to(model.device) for k, v in encode(processor, asked, left=model.config.use_decoder_only_language_model).items()}
    vision = model.vision_model
    with torch.enable_grad(), cross_attention_weights(model.qformer) as attentions:
        patches = vision.embeddings(pixels.to(model.device, model.dtype)).detach().requires_grad_()  # [N, P, D]
        embeds = vision.post_layernorm(vision.encoder(inputs_embeds=patches).last_hidden_state)
        output = query_image(model, embeds, text["qformer_input_ids"], text["qformer_attention_mask"])
        inputs = language_inputs(model, output, text["input_ids"], text["attention_mask"])
        logits = next_logits(model, inputs)  # [N, V]
        first = processor.tokenizer([questions.YES, questions.NO], add_special_tokens=False)["input_ids"]
        yes_no = [ids[0] for ids in first]
        if targets is None:
            aim = logits.argmax(1)
        else:
            aim = torch.tensor([processor.tokenizer(t, add_special_tokens=False)["input_ids"][0] for t in targets], device=logits.device)
        goal = logits.gather(1, aim[:, None])[:, 0]
        is_yes_no = torch.isin(aim, torch.tensor(yes_no, device=aim.device))
        other = torch.where(aim == yes_no[0], logits[:, yes_no[1]], logits[:, yes_no[0]])
        goal = goal - torch.where(is_yes_no, other, torch.zeros_like(other))  # a yes is explained against the no
        heat = _heat(goal.sum(), method, patches, embeds, attentions)
    side = math.isqrt(heat.shape[1])
    heat = heat / heat.amax(1, keepdim=True).clamp(min=1e-12)
    chance = logits[:, yes_no].softmax(1)[:, 0]
    words = [processor.tokenizer.decode([i]).strip() for i in aim.tolist()]
    return heat.view(-1, side, side).detach().float().cpu().numpy(), chance.detach().cpu().numpy(), words


def _heat(goal: Tensor, method: str, patches: Tensor, embeds: Tensor, attentions: Sequence[Tensor]) -> Tensor:
    """Non-negative relevance [N, patches], class token left out; attentions [N, heads, Q, 1 + patches] of each layer."""
    if method == "cross_attention":
        return sum(a.mean((1, 2)) for a in attentions)[:, 1:]
    if method == "gradient_cross_attention":
        slopes = torch.autograd.grad(goal, attentions)
        return sum((a * s).clamp(min=0).sum((1, 2)) for a, s in zip(attentions, slopes, strict=True))[:, 1:]
    at = embeds if method == "gradient_embedding" else patches
    return (at * torch.autograd.grad(goal, at)[0]).sum(2).abs()[:, 1:]


def explain(model: InstructBlipForConditionalGeneration, processor: InstructBlipProcessor, image, question: str) -> Explanation:
    """Explain the first word of the answer to one question about one image, by the default method."""
    picture = load_image(image)
    maps, chance, words = relevance(model, processor, [picture], [question])
    return Explanation(picture, question, words[0], float(chance[0]), maps[0])


def upsample(heat: np.ndarray, size: int) -> np.ndarray:
    """Maps [N, g, g] to the pixels of the image [N, size, size], bilinear."""
    return torch.nn.functional.interpolate(torch.from_numpy(heat)[:, None], size=(size, size), mode="bilinear").numpy()[:, 0]
