"""Where the model looked: relevance of image patches for an answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from .. import questions
from ..data.images import load_image
from ..errors import SettingsError
from ..model.forward import encode_images
from ..model.tokenize import encode
from ..model.yes_no import beginnings, first_p_yes
from .methods import BLUR, BY_QUERY, METHODS, answer_logits, blur, make_maps

_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")


def relevance(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    images: Sequence,
    asked: Sequence[str],
    *,
    targets: Sequence[str] | None = None,
    said: Sequence[str] | None = None,
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
        Both add up what the picture and two shifts of it by a third of a patch show: seven and ten passes, where the others take one.

    Args:
        images: anything `photos.load_image` takes, one a question.
        targets: answers whose first token's logit is explained; the word that the model would say first where None. The logit of a yes
            or no is explained against that of the other.
        said: what each answer has said before the word that is explained; nothing where None. For decoder-only language models.
        layer, query: of the Q-Former, counted from 0 among the layers with cross-attention: only its part, of `cross_attention` or
            `gradient_cross_attention`.

    Returns:
        Maps float32 [N, h, h] over the model's square picture, from 0 to 1 (the maximum of each, unless nothing is relevant), with h the
        patches a side or, of the methods that see pixels, the picture's side; P(yes) [N] against no, by the first token alone; and the word
        explained.

    Raises:
        SettingsError: the method is unknown, cannot be had of this model, or has no such layer or query; or there is not one question,
            target and `said` an image.
    """
    for name, given in (
        ("questions", asked),
        ("targets", targets),
        ("beginnings of answers in `said`", said),
    ):
        if given is not None and len(given) != len(images):
            raise SettingsError(f"{len(given)} {name} for {len(images)} images; give one an image")
    if method not in METHODS:
        raise SettingsError(f"attention method {method!r} is unknown; known are {', '.join(METHODS)}")
    if (layer is not None or query is not None) and method not in BY_QUERY:
        raise SettingsError(
            f"attention method {method!r} has no single layer or query; those that have are {', '.join(BY_QUERY)}"
        )
    maps, chances, words = [], [], []
    for k in range(0, len(asked), batch):
        chunk = slice(k, k + batch)
        aims = targets[chunk] if targets else None
        before = said[chunk] if said else None
        found = _batch_relevance(
            model,
            processor,
            images[chunk],
            asked[chunk],
            aims,
            before,
            method=method,
            layer=layer,
            query=query,
        )
        maps.append(found[0])
        chances.append(found[1])
        words += found[2]
    return np.concatenate(maps), np.concatenate(chances), words


def _batch_relevance(
    model, processor, images, asked, targets, said, **of_method
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    pixels = _pixels(model, processor, images)
    text = _prompts(model, processor, asked, said)
    yes, no = first_tokens(processor, [questions.YES, questions.NO])
    aim = None if targets is None else torch.tensor(first_tokens(processor, targets), device=model.device)

    def choose(logits: Tensor) -> Callable[[Tensor], Tensor]:
        nonlocal aim
        aim = logits.argmax(1) if aim is None else aim
        return lambda logits: (
            logits.gather(1, aim[:, None])[:, 0]
            - torch.where(aim == yes, logits[:, no], torch.where(aim == no, logits[:, yes], 0.0))
        )

    heat, logits = make_maps(model, pixels, text, choose, **of_method)
    heat = heat.float()
    heat = heat / heat.amax((1, 2), keepdim=True).clamp(min=1e-30)
    chance = first_p_yes(logits, beginnings(processor.tokenizer))
    return (
        heat.cpu().numpy(),
        chance.cpu().numpy(),
        [processor.tokenizer.decode([i]).strip() for i in aim.tolist()],
    )


def _pixels(model, processor, images: Sequence) -> Tensor:
    return processor.image_processor([load_image(i) for i in images], return_tensors="pt")["pixel_values"].to(
        model.device
    )


def _prompts(model, processor, asked: Sequence[str], said: Sequence[str] | None) -> dict[str, Tensor]:
    """Questions as the language model reads them, each followed by what the answer has said already.

    Raises:
        SettingsError: something was said, and the language model is an encoder and a decoder, which do not read it as one text.
    """
    decoder_only = model.config.use_decoder_only_language_model
    text = encode(processor, asked, left=decoder_only)
    if said and any(said):
        if not decoder_only:
            raise SettingsError(
                "a later word needs a decoder-only language model, such as Vicuna; of T5 the first word can be explained"
            )
        heard = [
            ids[mask > 0].tolist()
            for ids, mask in zip(text["input_ids"], text["attention_mask"], strict=True)
        ]
        told = processor.tokenizer(list(said), add_special_tokens=False)["input_ids"]
        rows = [question + answer for question, answer in zip(heard, told, strict=True)]
        padded = processor.tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt")
        text |= {name: padded[name] for name in ("input_ids", "attention_mask")}
    return {name: value.to(model.device) for name, value in text.items()}


def first_tokens(processor: InstructBlipProcessor, answers: Sequence[str]) -> list[int]:
    """The language model's token that each answer begins with."""
    return [ids[0] for ids in processor.tokenizer(list(answers), add_special_tokens=False)["input_ids"]]


@dataclass(frozen=True)
class Word:
    """A word of an answer: where it starts, how much likelier the picture made it, and the map [h, h] of `relevance` (maximum 1).

    `gain` is the logarithm (in nats) of the probability of the word's first token, less that with the picture blurred: about 0 where the
    words before it say what must follow.
    """

    text: str
    start: int
    gain: float
    heat: np.ndarray

    @property
    def place(self) -> tuple[float, float]:
        """The middle of the map's peak, x and y as shares of the picture's side."""
        row, column = np.unravel_index(self.heat.argmax(), self.heat.shape)
        return (column + 0.5) / self.heat.shape[1], (row + 0.5) / self.heat.shape[0]


def explain_words(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    image,
    question: str,
    answer: str,
    **how,
) -> list[Word]:
    """Explain every word of an answer, given the question and the words before it; of a word of several tokens the first.

    Args:
        answer: the model's own (see `answering.generate`), or any other.
        how: `method` and what else `relevance` takes.

    Raises:
        SettingsError: the answer has no word; or it has several, and the language model is not decoder-only.
    """
    found = list(_WORD.finditer(answer))
    if not found:
        raise SettingsError(f"the answer {answer!r} has no word to explain")
    words, said = [match.group() for match in found], [answer[: match.start()].rstrip() for match in found]
    picture = load_image(image)
    maps = relevance(
        model, processor, [picture] * len(words), [question] * len(words), targets=words, said=said, **how
    )[0]
    pixels = _pixels(model, processor, [picture])
    text = _prompts(model, processor, [question] * len(words), said)
    aim = torch.tensor(first_tokens(processor, words), device=model.device)[:, None]
    with torch.inference_mode():
        both = torch.cat([pixels, blur(pixels, BLUR * pixels.shape[-1])]).to(model.dtype)
        embeds = encode_images(model, both)[:, None].expand(-1, len(words), -1, -1)
        sharp, blurred = (
            answer_logits(model, seen, text).log_softmax(1).gather(1, aim)[:, 0] for seen in embeds
        )
    gains = (sharp - blurred).tolist()
    return [
        Word(match.group(), match.start(), gain, heat)
        for match, gain, heat in zip(found, gains, maps, strict=True)
    ]


def upsample(heat: np.ndarray, size: int) -> np.ndarray:
    """Maps [N, h, h] to pixels of the image [N, size, size], bilinear."""
    return torch.nn.functional.interpolate(
        torch.from_numpy(heat)[:, None], size=(size, size), mode="bilinear"
    ).numpy()[:, 0]
