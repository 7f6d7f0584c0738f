"""Texts as tokens, and our Q-Former against transformers' own."""

import torch

from expvqa_lib.model import cross_attention_weights, encode, encode_images
from expvqa_lib.model.forward import MAX_ANSWER, MAX_QUESTION, query_image
from expvqa_lib.questions import ask_q3

QUESTIONS = ["Does this person pull lip corner?", "What is this person's face doing?", "Why?"]


@torch.no_grad()
def test_queries_and_cross_attention_weights_are_transformers_own_and_leave_no_trace(model, processor):
    text = encode(processor, QUESTIONS)
    embeds = encode_images(model, torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(0)))
    ids, mask, queries = text["qformer_input_ids"], text["qformer_attention_mask"], model.query_tokens
    whole = torch.cat([torch.ones(3, queries.shape[1], dtype=torch.long), mask], 1)
    inputs = {"input_ids": ids, "attention_mask": whole, "query_embeds": queries.expand(3, -1, -1)}

    index = torch.tensor([2, 0, 2])  # questions that share an image
    theirs = model.qformer(**inputs, encoder_hidden_states=embeds[index]).last_hidden_state
    before = query_image(model, embeds, text, index)
    torch.testing.assert_close(before, theirs[:, : queries.shape[1]], rtol=1e-5, atol=1e-5)

    with cross_attention_weights(model.qformer) as weights:
        query_image(model, embeds, text)
        count = len(weights)
        options = {"encoder_hidden_states": embeds, "output_attentions": True}
        theirs = model.qformer(**inputs, **options).cross_attentions
    assert len(theirs) == count == len(model.qformer.encoder.layer)
    for ours, other in zip(weights[:count], theirs, strict=True):
        torch.testing.assert_close(ours, other)
    count = len(weights)
    torch.testing.assert_close(query_image(model, embeds, text, index), before)
    assert len(weights) == count and model.qformer.config._attn_implementation == "sdpa"


def test_long_questions_and_answers_are_cut(processor):
    tokenizer, qformer = processor.tokenizer, processor.qformer_tokenizer
    middle = [ask_q3(au) for au in (1, 2, 4, 5, 6, 7, 9, 10, 12)] * 40
    question, answer = " ".join(["FIRST", *middle, "LAST"]), " ".join(["BEGIN", *middle, "FINISH"])
    text = encode(processor, [question])
    assert text["input_ids"][0].tolist() == [2, *tokenizer(question)["input_ids"][-(MAX_QUESTION - 1) :]]
    ids = text["qformer_input_ids"][0].tolist()
    assert len(ids) == MAX_QUESTION == 128 and ids[-1] == 3
    assert ids[:-1] == qformer(question, truncation=False)["input_ids"][: MAX_QUESTION - 1]
    labels = encode(processor, ["Why?", question], [answer, "no"])["labels"][0]
    ids = labels[labels != -100].tolist()
    assert len(ids) == MAX_ANSWER == 256 and ids[-1] == 2
    assert ids[:-1] == tokenizer(answer, add_special_tokens=False)["input_ids"][: MAX_ANSWER - 1]


def test_odd_text_encodes(processor):
    for text in ("", " ", "顔の表情 😀🤷🏽‍♀️", "\u202eright to left\u200f", "</s> <image> [PAD]", "\x00\x01"):
        ids = encode(processor, [text, "Why?"], ["yes", text])
        assert ids["input_ids"].max() < len(processor.tokenizer)
        assert ids["qformer_input_ids"].max() < len(processor.qformer_tokenizer)
        assert (ids["labels"] == 2).sum() >= 2
