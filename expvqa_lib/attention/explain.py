"""Where the model looks: relevance of the picture's parts for a word of an answer."""

import re
from collections import namedtuple
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from ..data.images import ImageSource, load_image
from ..errors import SettingsError
from ..model import beginnings, encode, encode_images, first_p_yes
from ..questions import NO, YES
from .methods import BLUR, DEFAULT_METHOD, METHODS, answer_logits, blur

_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")


Relevance = namedtuple("Relevance", "maps p_yes words")
"""Maps float32 [N, h, h] (maximum 1), P(yes) [N] by the first token alone, and the explained words."""

Word = namedtuple("Word", "text start gain heat")
"""A word of an answer: its text, its first character's place in the answer, its gain, and its map [h, h] of
`relevance`.

The gain is the logarithm (in nats) of the probability of the word's first token, less that with the picture
blurred: about 0 where the words before it decide what follows.
"""


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
        Maps over the model's square picture, from 0 to 1, with h the patches a side or, of guided and
        integrated gradients, the picture's side.

    Raises:
        SettingsError: the method is unknown or does not fit the model.
    """
    if method not in METHODS:
        raise SettingsError(f"attention method {method!r} is unknown; known are {', '.join(METHODS)}")
    yes, no = first_tokens(processor, [YES, NO])
    maps, p_yes, words = [], [], []
    for k in range(0, len(images), batch):
        chunk = slice(k, k + batch)
        pixels, text = inputs(model, processor, images[chunk], questions[chunk], (prefixes or [])[chunk])
        with torch.no_grad():
            logits = answer_logits(model, encode_images(model, pixels.to(model.dtype)), text)
        tokens = first_tokens(processor, targets[chunk]) if targets else logits.argmax(1).tolist()
        target = torch.tensor(tokens, device=model.device)
        contrast = torch.zeros_like(logits).scatter_(1, target[:, None], 1)
        contrast[target == yes, no] = contrast[target == no, yes] = -1
        heat = METHODS[method](model, pixels, text, contrast).float()
        maps.append((heat / heat.amax((1, 2), keepdim=True).clamp(min=1e-30)).cpu().numpy())
        p_yes.append(first_p_yes(logits, beginnings(processor.tokenizer)).cpu().numpy())
        words += [processor.tokenizer.decode([token]).strip() for token in tokens]
    return Relevance(np.concatenate(maps), np.concatenate(p_yes), words)


def inputs(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    images: Sequence[ImageSource],
    questions: Sequence[str],
    prefixes: Sequence[str] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Pixels [N, 3, S, S], and the questions as the language model reads them, each with its prefix.

    Raises:
        SettingsError: there is a prefix, and the language model is an encoder and a decoder, which do not
            read it as one text.
    """
    pixels = processor.image_processor([load_image(image) for image in images], return_tensors="pt")
    text = encode(processor, questions, left=model.config.use_decoder_only_language_model)
    if prefixes and any(prefixes):
        if not model.config.use_decoder_only_language_model:
            raise SettingsError(
                "a later word needs a decoder-only language model, such as Vicuna; "
                "of T5 the first word can be explained"
            )
        answers = processor.tokenizer(list(prefixes), add_special_tokens=False)["input_ids"]
        prompts = zip(text["input_ids"], text["attention_mask"], answers, strict=True)
        rows = {"input_ids": [ids[mask > 0].tolist() + answer for ids, mask, answer in prompts]}
        text |= processor.tokenizer.pad(rows, padding_side="left", return_tensors="pt")
    text = {name: value.to(model.device) for name, value in text.items()}
    return pixels["pixel_values"].to(model.device), text


def first_tokens(processor: InstructBlipProcessor, answers: Sequence[str]) -> list[int]:
    """The language model's token that each answer begins with."""
    return [ids[0] for ids in processor.tokenizer(list(answers), add_special_tokens=False)["input_ids"]]


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
    matches = list(_WORD.finditer(answer))
    if not matches:
        raise SettingsError(f"the answer {answer!r} has no word to explain")
    words = [match.group() for match in matches]
    prefixes = [answer[: match.start()].rstrip() for match in matches]
    images, questions = [load_image(image)] * len(words), [question] * len(words)
    maps = relevance(
        model, processor, images, questions, targets=words, prefixes=prefixes, method=method
    ).maps
    pixels, text = inputs(model, processor, images[:1], questions, prefixes)
    tokens = torch.tensor(first_tokens(processor, words), device=model.device)[:, None]
    with torch.inference_mode():
        both = torch.cat([pixels, blur(pixels, BLUR * pixels.shape[-1])]).to(model.dtype)
        embeds = encode_images(model, both)[:, None].expand(-1, len(words), -1, -1)
        sharp, blurred = (
            answer_logits(model, e, text).log_softmax(1).gather(1, tokens)[:, 0] for e in embeds
        )
    return list(map(Word, words, [match.start() for match in matches], (sharp - blurred).tolist(), maps))


def upsample(maps: np.ndarray, size: int) -> np.ndarray:
    """Maps [N, h, h] to pixels of the picture [N, size, size], bilinear."""
    return interpolate(torch.from_numpy(maps)[:, None], size=(size, size), mode="bilinear").numpy()[:, 0]
