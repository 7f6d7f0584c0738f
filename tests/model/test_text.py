"""Tokenizers, and how a question and its answer become one sequence."""

from __future__ import annotations

import random
import sys
import unicodedata

import numpy as np
import pytest
import torch

from expvqa_lib.model.tokenize import MAX_ANSWER, MAX_QUESTION, encode
from expvqa_lib.questions import ask_q1, ask_q3
from tools.base_model.pretrain import vocabulary_texts
from tools.base_model.questions import passage
from tools.base_model.tokenizers import train_tokenizers

QUESTIONS = ["Does this person pull lip corner?", ask_q1(), "Describe all facial actions of this face."]
ANSWERS = [
    "yes",
    "The person raises cheek and pulls lip corner, which suggests happiness.",
    "The face shows fear.",
]
END = 2


def real(row: torch.Tensor, mask: torch.Tensor) -> list[int]:
    return row[mask.bool()].tolist()


def test_generation_pads_on_the_left(processor):
    text = encode(processor, QUESTIONS)
    assert set(text) == {"input_ids", "attention_mask", "qformer_input_ids", "qformer_attention_mask"}
    assert all(mask.tolist() == sorted(mask.tolist()) for mask in text["attention_mask"])  # 0 ... 0 1 ... 1
    assert (text["attention_mask"].sum(1) < text["attention_mask"].shape[1]).any()
    for question, row, mask in zip(QUESTIONS, text["input_ids"], text["attention_mask"], strict=True):
        assert real(row, mask) == [END, *processor.tokenizer(question, add_special_tokens=False)["input_ids"]]
        assert (row[mask == 0] == processor.tokenizer.pad_token_id).all()


def test_training_pads_on_the_right_and_learns_the_answer_and_its_end_only(processor):
    text = encode(processor, QUESTIONS, ANSWERS)
    tokenizer = processor.tokenizer
    assert all(mask.tolist() == sorted(mask.tolist(), reverse=True) for mask in text["attention_mask"])
    for k, (question, answer) in enumerate(zip(QUESTIONS, ANSWERS, strict=True)):
        asked = [END, *tokenizer(question, add_special_tokens=False)["input_ids"]]
        told = [*tokenizer(answer, add_special_tokens=False)["input_ids"], END]
        row, labels, mask = text["input_ids"][k], text["labels"][k], text["attention_mask"][k]
        assert real(row, mask) == asked + told
        assert labels.tolist() == [-100] * len(asked) + told + [-100] * (len(labels) - len(asked) - len(told))
        assert END not in told[:-1]  # the answer's own start token is dropped
        assert (row[mask == 0] == tokenizer.pad_token_id).all()


def test_the_qformer_reads_the_question_between_its_own_marks(processor):
    text = encode(processor, QUESTIONS)
    heard = [
        real(r, m) for r, m in zip(text["qformer_input_ids"], text["qformer_attention_mask"], strict=True)
    ]
    assert all(ids[0] == 2 and ids[-1] == 3 for ids in heard)
    assert processor.qformer_tokenizer.decode(heard[0][1:-1]) == "does this person pull lip corner?"
    trained = encode(processor, QUESTIONS, ANSWERS)
    assert torch.equal(
        trained["qformer_input_ids"], text["qformer_input_ids"]
    )  # the answer is not shown to it


def test_long_questions_and_answers_are_cut(processor):
    words = [ask_q3(au) for au in (1, 2, 4, 5, 6, 7, 9, 10, 12)] * 40
    question, answer = " ".join(["FIRST", *words, "LAST"]), " ".join(["BEGIN", *words, "FINISH"])
    whole = processor.tokenizer(question)["input_ids"]
    assert len(whole) > 2 * MAX_QUESTION
    text = encode(processor, [question])
    assert text["input_ids"][0].tolist() == [
        END,
        *whole[-(MAX_QUESTION - 1) :],
    ]  # the end of the question is kept
    assert text["input_ids"].shape[1] == text["qformer_input_ids"].shape[1] == MAX_QUESTION == 128
    heard = text["qformer_input_ids"][0].tolist()
    assert heard[0] == 2 and heard[-1] == 3
    assert (
        heard[:-1] == processor.qformer_tokenizer(question, truncation=False)["input_ids"][: MAX_QUESTION - 1]
    )  # its start
    text = encode(processor, ["Why?", question], [answer, "no"])
    told = text["labels"][0][text["labels"][0] != -100].tolist()
    assert len(told) == MAX_ANSWER == 256 and told[-1] == END
    assert told[:-1] == processor.tokenizer(answer, add_special_tokens=False)["input_ids"][: MAX_ANSWER - 1]


def test_a_batch_encodes_as_its_rows_alone(processor):
    for answers in (None, ANSWERS):
        batch = encode(processor, QUESTIONS, answers)
        for k in range(len(QUESTIONS)):
            alone = encode(processor, QUESTIONS[k : k + 1], answers and answers[k : k + 1])
            for ids, mask in (
                ("input_ids", "attention_mask"),
                ("qformer_input_ids", "qformer_attention_mask"),
            ):
                assert real(batch[ids][k], batch[mask][k]) == real(alone[ids][0], alone[mask][0])


def any_text(seed: int) -> str:
    """Random characters of all of Unicode, surrogates (which no file holds) aside."""
    rng = random.Random(seed)
    letters = (
        chr(rng.choice((rng.randrange(1, 256), rng.randrange(1, sys.maxunicode + 1)))) for _ in range(60)
    )
    return "".join(c for c in letters if not "\ud800" <= c <= "\udfff")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "顔の表情 😀🤷🏽‍♀️",
        "Wie fühlt sich diese Person?",
        "\u202eright to left\u200f",
        "</s> <image> [PAD]",
        "\x00\x01",
    ],
)
def test_odd_text_encodes(processor, text):
    found = encode(processor, [text, "Why?"], ["yes", text])
    assert found["input_ids"].max() < len(processor.tokenizer) and found["qformer_input_ids"].max() < len(
        processor.qformer_tokenizer
    )
    assert (found["labels"][:, -1:] == END).any()


def test_any_text_encodes_and_decodes_but_for_its_case(processor):
    tokenizer = processor.tokenizer
    for seed in range(100):
        text = any_text(seed)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert (
            tokenizer.decode(ids, clean_up_tokenization_spaces=False).strip()
            == unicodedata.normalize("NFKC", text).lower().strip()
        )
        assert max(processor.qformer_tokenizer(text)["input_ids"]) < len(processor.qformer_tokenizer)


def test_what_the_tokenizers_saw_needs_no_unknown_token(processor):
    unknown = processor.qformer_tokenizer.unk_token_id
    rng = np.random.default_rng(9)
    for _ in range(50):
        facts, question, answer = passage(rng)
        assert unknown not in processor.qformer_tokenizer(" ".join([*facts, question, answer]))["input_ids"]
        assert (
            processor.tokenizer.decode(
                processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
            ).strip()
            == answer.lower()
        )


def test_yes_and_no_are_one_token_each_and_differ(processor):
    yes, no = (processor.tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("yes", "no"))
    assert len(yes) == len(no) == 1 and yes != no


def test_special_tokens_stand_where_the_model_expects_them():
    language, qformer = train_tokenizers(["a face"] * 3, 300)
    assert language.convert_tokens_to_ids(["[PAD]", "<s>", "</s>", "<image>"]) == [0, 1, 2, 3]
    assert (
        language.bos_token_id == language.eos_token_id == language.unk_token_id == END
        and language.pad_token_id == 0
    )
    assert qformer.convert_tokens_to_ids(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]) == [
        0,
        1,
        2,
        3,
        4,
        5,
    ]


def test_the_same_texts_give_the_same_tokenizers():
    texts = vocabulary_texts(n=100)
    first, again = train_tokenizers(texts, 400), train_tokenizers(texts, 400)
    for a, b in zip(first, again, strict=True):
        assert a.get_vocab() == b.get_vocab()
        assert sorted(a.get_vocab().values()) == list(range(len(a)))
    assert len(first[0]) == len(first[1]) == 400


def test_the_processor_survives_the_disk(processor, tmp_path):
    from transformers import InstructBlipProcessor

    processor.save_pretrained(tmp_path)
    again = InstructBlipProcessor.from_pretrained(tmp_path, backend="pil")
    first, second = encode(processor, QUESTIONS, ANSWERS), encode(again, QUESTIONS, ANSWERS)
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert (
        again.num_query_tokens == processor.num_query_tokens
        and again.image_processor.size == processor.image_processor.size
    )
