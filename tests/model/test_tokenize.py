"""How a question and its answer become one sequence."""

from __future__ import annotations

import pytest

from expvqa_lib.model import encode
from expvqa_lib.model.forward import MAX_ANSWER, MAX_QUESTION
from expvqa_lib.questions import ask_q3

END = 2


def test_long_questions_and_answers_are_cut(processor):
    tokenizer, qformer = processor.tokenizer, processor.qformer_tokenizer
    middle = [ask_q3(au) for au in (1, 2, 4, 5, 6, 7, 9, 10, 12)] * 40
    question, answer = " ".join(["FIRST", *middle, "LAST"]), " ".join(["BEGIN", *middle, "FINISH"])
    text = encode(processor, [question])
    assert text["input_ids"][0].tolist() == [END, *tokenizer(question)["input_ids"][-(MAX_QUESTION - 1) :]]
    ids = text["qformer_input_ids"][0].tolist()
    assert len(ids) == MAX_QUESTION == 128 and ids[-1] == 3
    assert ids[:-1] == qformer(question, truncation=False)["input_ids"][: MAX_QUESTION - 1]
    labels = encode(processor, ["Why?", question], [answer, "no"])["labels"][0]
    ids = labels[labels != -100].tolist()
    assert len(ids) == MAX_ANSWER == 256 and ids[-1] == END
    assert ids[:-1] == tokenizer(answer, add_special_tokens=False)["input_ids"][: MAX_ANSWER - 1]


@pytest.mark.parametrize(
    "text", ["", " ", "顔の表情 😀🤷🏽‍♀️", "\u202eright to left\u200f", "</s> <image> [PAD]", "\x00\x01"]
)
def test_odd_text_encodes(processor, text):
    ids = encode(processor, [text, "Why?"], ["yes", text])
    assert ids["input_ids"].max() < len(processor.tokenizer)
    assert ids["qformer_input_ids"].max() < len(processor.qformer_tokenizer)
    assert (ids["labels"] == END).sum() >= 2
