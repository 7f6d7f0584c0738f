"""How a question and its answer become one sequence of tokens, as in the reference."""

from __future__ import annotations

import re
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import InstructBlipProcessor, PreTrainedTokenizerBase
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

MAX_QUESTION, MAX_ANSWER = 128, 256  # tokens, as in the released code


def make_processor(
    language: PreTrainedTokenizerBase, qformer: PreTrainedTokenizerBase, image: int, queries: int
) -> InstructBlipProcessor:
    """Put an image processor (squash to `image` pixels, CLIP's mean and deviation) and both tokenizers together."""
    pixels = BlipImageProcessorPil(size={"height": image, "width": image})
    return InstructBlipProcessor(
        image_processor=pixels, tokenizer=language, qformer_tokenizer=qformer, num_query_tokens=queries
    )


def reference_text(text: str, max_words: int = 50) -> str:
    """A training text as the reference prepares it, questions and answers alike: lower case, each of ! " ( ) * # : ; ~ a space, white space
    collapsed, cut to its first `max_words` words. Questions of users are not prepared (released `blip_processors.py`).
    """
    return " ".join(re.sub(r"[!\"()*#:;~]", " ", text.lower()).split()[:max_words])


def encode(
    processor: InstructBlipProcessor,
    questions: Sequence[str],
    answers: Sequence[str] | None = None,
    *,
    left: bool = True,
) -> dict[str, Tensor]:
    """Tokenise questions, with answers for training or without for generation.

    Training pads on the right: `</s>` question, answer, `</s>`; labels cover the answer and its end (-100 elsewhere). Generation pads on
    the left, or with `left` false on the right, for encoders. Long questions are cut to 128 tokens (the language model keeps their end, the
    Q-Former their start), answers to 256.

    Returns:
        `input_ids`, `attention_mask` [N, T], `qformer_input_ids`, `qformer_attention_mask` [N, U], and with answers `labels` [N, T].
    """
    tokenizer = processor.tokenizer
    asked = [ids[:1] + ids[1:][-(MAX_QUESTION - 1) :] for ids in _ids(tokenizer, questions)]
    heard = [
        ids if len(ids) <= MAX_QUESTION else ids[: MAX_QUESTION - 1] + ids[-1:]
        for ids in _ids(processor.qformer_tokenizer, questions)
    ]
    if answers is None:
        rows, marks = asked, asked
    else:
        told = [
            ids[: MAX_ANSWER - 1] + [tokenizer.eos_token_id]
            for ids in _ids(tokenizer, answers, special=False)
        ]
        rows = [q + a for q, a in zip(asked, told, strict=True)]
        marks = [[-100] * len(q) + a for q, a in zip(asked, told, strict=True)]
        left = False
    text = {
        "input_ids": _pad(rows, tokenizer.pad_token_id, left),
        "attention_mask": _pad([[1] * len(r) for r in rows], 0, left),
        "qformer_input_ids": _pad(heard, processor.qformer_tokenizer.pad_token_id, False),
        "qformer_attention_mask": _pad([[1] * len(r) for r in heard], 0, False),
    }
    return text | ({} if answers is None else {"labels": _pad(marks, -100, left)})


_KNOWN: WeakKeyDictionary[PreTrainedTokenizerBase, dict[tuple[str, bool], list[int]]] = WeakKeyDictionary()


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], special: bool = True) -> list[list[int]]:
    """Token ids of each text; the same few questions come back in every batch, and are tokenised once."""
    known = _KNOWN.setdefault(tokenizer, {})
    if len(known) > 200_000:
        known.clear()
    if new := [text for text in dict.fromkeys(texts) if (text, special) not in known]:
        known |= zip(
            ((text, special) for text in new),
            tokenizer(new, add_special_tokens=special)["input_ids"],
            strict=True,
        )
    return [known[text, special] for text in texts]


def _pad(rows: Sequence[Sequence[int]], value: int, left: bool) -> Tensor:
    width = max(map(len, rows))
    fill = [[value] * (width - len(r)) for r in rows]
    return torch.tensor([f + list(r) if left else list(r) + f for f, r in zip(fill, rows, strict=True)])
