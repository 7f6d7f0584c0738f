"""How a question and its answer become one sequence."""

from __future__ import annotations

import pytest
import torch

from expvqa_lib.model import encode
from expvqa_lib.model.tokenize import MAX_ANSWER, MAX_QUESTION
from expvqa_lib.questions import ask_q1, ask_q3

QUESTIONS = ["Does this person pull lip corner?", ask_q1(), "Describe all facial actions of this face."]
ANSWERS = ["yes", "The person raises cheek, which suggests happiness.", "The face shows fear."]
END = 2


def words(row: torch.Tensor, mask: torch.Tensor) -> list[int]:
    """The ids that are not padding."""
    return row[mask.bool()].tolist()


def test_generation_pads_on_the_left(processor):
    text, tokenizer = encode(processor, QUESTIONS), processor.tokenizer
    assert set(text) == {"input_ids", "attention_mask", "qformer_input_ids", "qformer_attention_mask"}
    assert all(mask.tolist() == sorted(mask.tolist()) for mask in text["attention_mask"])  # 0 ... 0 1 ... 1
    assert (text["attention_mask"] == 0).any()
    for question, row, mask in zip(QUESTIONS, text["input_ids"], text["attention_mask"], strict=True):
        assert words(row, mask) == [END, *tokenizer(question, add_special_tokens=False)["input_ids"]]
        assert (row[mask == 0] == tokenizer.pad_token_id).all()


def test_training_pads_on_the_right_and_labels_the_answer_and_its_end_alone(processor):
    text, tokenizer = encode(processor, QUESTIONS, ANSWERS), processor.tokenizer
    assert all(mask.tolist() == sorted(mask.tolist(), reverse=True) for mask in text["attention_mask"])
    for k in range(len(QUESTIONS)):
        question = [END, *tokenizer(QUESTIONS[k], add_special_tokens=False)["input_ids"]]
        answer = [*tokenizer(ANSWERS[k], add_special_tokens=False)["input_ids"], END]
        labels = text["labels"][k].tolist()
        assert words(text["input_ids"][k], text["attention_mask"][k]) == question + answer
        padding = len(labels) - len(question) - len(answer)
        assert labels == [-100] * len(question) + answer + [-100] * padding


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
