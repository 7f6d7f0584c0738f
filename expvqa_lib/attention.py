"""Where the model looked: relevance of image patches for an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from . import questions
from .errors import SettingsError
from .photos import load_image
from .relevance import BY_QUERY, METHODS, make_maps
from .text import encode
from .wordings import beginnings, first_p_yes


@dataclass(frozen=True)
class Explanation:
    """The image, the question, the answer's first word, P(yes) against no, and the map [h, h] of `relevance` (maximum 1)."""

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
    layer: int | None = None,
    query: int | None = None,
    batch: int = 64,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Where one word of the answer comes from in the picture.

    Methods that see patches:
        `cross_attention`: the Q-Former's attention to a patch, mean over layers, heads and queries.
        `gradient_cross_attention`: the same weighted by the positive gradient of the word's logit (after Chefer et al. 2021).
        `language_attention`: what the answer's position reads of each query, times what that query attends to; means over layers and
            heads. For decoder-only language models.
        `rollout`: attention rollout of the vision encoder from its class token (Abnar & Zuidema 2020); it knows no question.
        `gradient_embedding`, `gradient_patch`: gradient times the encoder's output or the patch's embedding, absolute.

    Methods that see pixels:
        `integrated_gradients`: what each pixel's difference to a blurred picture adds to the logit (Sundararajan et al. 2017).
        `guided_gradients`: the same times `gradient_cross_attention` (in the manner of guided Grad-CAM, Selvaraju et al. 2017).

    Args:
        images: anything `photos.load_image` takes, one a question.
        targets: answers whose first token's logit is explained; the word that the model would say first where None. The logit of a yes
            or no is explained against that of the other.
        layer, query: of the Q-Former, counted from 0 among the layers with cross-attention: only its part, of `cross_attention` or
            `gradient_cross_attention`.

    Returns:
        Maps float32 [N, h, h] over the model's square picture, from 0 to 1 (the maximum of each, unless nothing is relevant), with h the
        patches a side or, of the methods that see pixels, the picture's side; P(yes) [N] against no; and the word explained.

    Raises:
        SettingsError: the method is unknown, cannot be had of this model, or has no such layer or query.
    """
    if method not in METHODS:
        raise SettingsError(f"attention method {method!r} is unknown; known are {', '.join(METHODS)}")
    if (layer is not None or query is not None) and method not in BY_QUERY:
        raise SettingsError(f"attention method {method!r} has no single layer or query; those that have are {', '.join(BY_QUERY)}")
    maps, chances, words = [], [], []
    for k in range(0, len(asked), batch):
        chunk = slice(k, k + batch)
        aims = targets[chunk] if targets else None
        found = _batch_relevance(model, processor, images[chunk], asked[chunk], aims, method=method, layer=layer, query=query)
        maps.append(found[0])
        chances.append(found[1])
        words += found[2]
    return np.concatenate(maps), np.concatenate(chances), words


def _batch_relevance(model, processor, images, asked, targets, **of_method) -> tuple[np.ndarray, np.ndarray, list[str]]:
    pixels = processor.image_processor([load_image(i) for i in images], return_tensors="pt")["pixel_values"].to(model.device)
    text = {k: v.to(model.device) for k, v in encode(processor, asked, left=model.config.use_decoder_only_language_model).items()}
    yes, no = first_tokens(processor, [questions.YES, questions.NO])
    aim = None if targets is None else torch.tensor(first_tokens(processor, targets), device=model.device)

    def choose(logits: Tensor) -> Callable[[Tensor], Tensor]:
        nonlocal aim
        aim = logits.argmax(1) if aim is None else aim
        return lambda logits: (
            logits.gather(1, aim[:, None])[:, 0] - torch.where(aim == yes, logits[:, no], torch.where(aim == no, logits[:, yes], 0.0))
        )

    heat, logits = make_maps(model, pixels, text, choose, **of_method)
    heat = heat.float()
    heat = heat / heat.amax((1, 2), keepdim=True).clamp(min=1e-30)
    chance = first_p_yes(logits, beginnings(processor.tokenizer))
    return heat.cpu().numpy(), chance.cpu().numpy(), [processor.tokenizer.decode([i]).strip() for i in aim.tolist()]


def first_tokens(processor: InstructBlipProcessor, answers: Sequence[str]) -> list[int]:
    """The language model's token that each answer begins with."""
    return [ids[0] for ids in processor.tokenizer(list(answers), add_special_tokens=False)["input_ids"]]


def explain(model: InstructBlipForConditionalGeneration, processor: InstructBlipProcessor, image, question: str) -> Explanation:
    """Explain the first word of the answer to one question about one image, by the default method."""
    picture = load_image(image)
    maps, chance, words = relevance(model, processor, [picture], [question])
    return Explanation(picture, question, words[0], float(chance[0]), maps[0])


def upsample(heat: np.ndarray, size: int) -> np.ndarray:
    """Maps [N, h, h] to pixels of the image [N, size, size], bilinear."""
    return torch.nn.functional.interpolate(torch.from_numpy(heat)[:, None], size=(size, size), mode="bilinear").numpy()[:, 0]
