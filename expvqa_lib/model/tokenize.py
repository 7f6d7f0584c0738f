"""How a question and its answer become one sequence of tokens, as in the reference."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import InstructBlipProcessor, PreTrainedTokenizerBase
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

MAX_QUESTION, MAX_ANSWER = 128, 256  # tokens, as in the released code


def make_processor(
    language: PreTrainedTokenizerBase, qformer: PreTrainedTokenizerBase, image: int, queries: int
) -> InstructBlipProcessor:
    """Processor of images (resized to `image` pixels a side, CLIP's mean and deviation) and of text."""
    return InstructBlipProcessor(
        image_processor=BlipImageProcessorPil(size={"height": image, "width": image}),
        tokenizer=language,
        qformer_tokenizer=qformer,
        num_query_tokens=queries,
    )


def reference_text(text: str, max_words: int = 50) -> str:
    """A training question or answer as the reference prepares it (released `blip_processors.py`).

    Lower case, each of ! " ( ) * # : ; ~ a space, white space collapsed, cut to its first `max_words` words.
    The reference does not prepare a user's questions.
    """
    return " ".join(re.sub(r"[!\"()*#:;~]", " ", text.lower()).split()[:max_words])


def encode(
    processor: InstructBlipProcessor,
    questions: Sequence[str],
    answers: Sequence[str] | None = None,
    *,
    left: bool = True,
) -> dict[str, Tensor]:
    """Tokens of questions, with answers for training or without for generation.

    Training pads on the right: `</s>` question, answer, `</s>`; labels cover the answer and its end (-100
    elsewhere). Generation pads on the left, or with `left` false on the right, for encoders. Long questions
    are cut to 128 tokens (the language model keeps their end, the Q-Former their start), answers to 256.

    Returns:
        `input_ids`, `attention_mask` [N, T], `qformer_input_ids`, `qformer_attention_mask` [N, U], and with
        answers `labels` [N, T].
    """
    tokenizer, qformer = processor.tokenizer, processor.qformer_tokenizer
    rows = [ids[:1] + ids[1:][-(MAX_QUESTION - 1) :] for ids in _ids(tokenizer, questions)]
    qformer_rows = [
        ids if len(ids) <= MAX_QUESTION else ids[: MAX_QUESTION - 1] + ids[-1:]
        for ids in _ids(qformer, questions)
    ]
    text = {}
    if answers is not None:
        end, left = [tokenizer.eos_token_id], False
        answer_rows = [ids[: MAX_ANSWER - 1] + end for ids in _ids(tokenizer, answers, special=False)]
        both = list(zip(rows, answer_rows, strict=True))
        text["labels"] = _pad([[-100] * len(question) + answer for question, answer in both], -100, left)
        rows = [question + answer for question, answer in both]
    return {
        "input_ids": _pad(rows, tokenizer.pad_token_id, left),
        "attention_mask": _pad([[1] * len(row) for row in rows], 0, left),
        "qformer_input_ids": _pad(qformer_rows, qformer.pad_token_id, False),
        "qformer_attention_mask": _pad([[1] * len(row) for row in qformer_rows], 0, False),
    } | text


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], special: bool = True) -> list[list[int]]:
    """Token ids of each text; the same few questions of a batch are tokenised once."""
    different = list(dict.fromkeys(texts))
    ids = tokenizer(different, add_special_tokens=special)["input_ids"] if different else []
    by_text = dict(zip(different, ids, strict=True))
    return [by_text[text] for text in texts]


def _pad(rows: Sequence[Sequence[int]], value: int, left: bool) -> Tensor:
    rows = [torch.tensor(row) for row in rows]
    return pad_sequence(rows, True, value, padding_side="left" if left else "right")
