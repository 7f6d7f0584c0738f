"""Texts as tokens, and our passes of InstructBLIP against transformers' own forward pass."""

import copy

import pytest
import torch
from torch.nn import functional as F
from weights import full_logits

from expvqa_lib.model import answer_loss, cross_attention_weights, encode, encode_images
from expvqa_lib.model.forward import MAX_ANSWER, MAX_QUESTION, language_inputs, next_logits, query_image
from expvqa_lib.questions import ask_q3

QUESTIONS = ["Does this person pull lip corner?", "What is this person's face doing?", "Why?"]
ANSWERS = ["yes", "The person raises cheek, which suggests happiness.", "The face shows fear."]


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))


def qformer_text(text: dict) -> tuple[torch.Tensor, torch.Tensor]:
    return text["qformer_input_ids"], text["qformer_attention_mask"]


def our_inputs(model, pixels, text) -> dict:
    """Inputs of the language model by our passes."""
    output = query_image(model, encode_images(model, pixels), *qformer_text(text))
    return language_inputs(model, output, text["input_ids"], text["attention_mask"])


def full_qformer(model, embeds, text, **options):
    """transformers' own Q-Former."""
    ids, mask = qformer_text(text)
    queries = model.query_tokens.expand(len(ids), -1, -1)
    return model.qformer(
        input_ids=ids,
        attention_mask=torch.cat([torch.ones(queries.shape[:2], dtype=torch.long), mask], 1),
        query_embeds=queries,
        encoder_hidden_states=embeds,
        **options,
    )


def test_loss_and_gradients_are_transformers_own_without_the_placeholder(model, processor, pixels):
    other = copy.deepcopy(model)
    text = encode(processor, QUESTIONS, ANSWERS)
    loss = answer_loss(model, our_inputs(model, pixels, text), text["labels"])
    logits = full_logits(other, pixels, text)[:, other.config.num_query_tokens - 1 : -1]
    logits = logits.index_fill(2, torch.tensor(other.config.image_token_index), -torch.inf)
    expected = F.cross_entropy(logits.flatten(0, 1), text["labels"].flatten())
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    loss.backward()
    expected.backward()
    for (name, ours), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        if ours.grad is None:  # the last layer's words, which transformers computes and nothing reads
            assert theirs.grad is None or theirs.grad.abs().max() == 0, name
        else:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5, msg=name)
    assert model.query_tokens.grad.abs().max() > 0
    assert model.vision_model.embeddings.patch_embedding.weight.grad.abs().max() > 0


@torch.no_grad()
def test_questions_that_share_an_image_are_answered_as_by_transformers_own_qformer(model, processor, pixels):
    index = torch.tensor([1, 0, 1, 2, 1, 0])  # in any order, of unequal number
    text = encode(processor, [*QUESTIONS, *QUESTIONS[::-1]])
    embeds = encode_images(model, pixels)
    theirs = full_qformer(model, embeds[index], text).last_hidden_state[:, : model.query_tokens.shape[1]]
    ours = query_image(model, embeds, *qformer_text(text), index)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_cross_attention_weights_are_transformers_own_and_leave_no_trace(model, processor, pixels):
    text, embeds = encode(processor, QUESTIONS), encode_images(model, pixels)
    before = query_image(model, embeds, *qformer_text(text))
    with cross_attention_weights(model.qformer) as weights:
        query_image(model, embeds, *qformer_text(text))
        count = len(weights)
        theirs = full_qformer(model, embeds, text, output_attentions=True).cross_attentions
    assert len(theirs) == count == len(model.qformer.encoder.layer)
    for ours, other in zip(weights[:count], theirs, strict=True):
        torch.testing.assert_close(ours, other)
    count = len(weights)
    torch.testing.assert_close(query_image(model, embeds, *qformer_text(text)), before)
    assert len(weights) == count and model.qformer.config._attn_implementation == "sdpa"


@torch.no_grad()
def test_padding_on_either_side_gives_the_next_token_of_the_full_forward_pass(model, processor, pixels):
    left = encode(processor, QUESTIONS)
    shift = (left["attention_mask"] == 0).sum(1).tolist()
    assert max(shift) > 0
    right = left | {
        name: torch.stack([row.roll(-s) for row, s in zip(left[name], shift, strict=True)])
        for name in ("input_ids", "attention_mask")
    }
    from_left = next_logits(model, our_inputs(model, pixels, left))
    logits = model.language_model(**our_inputs(model, pixels, right)).logits
    from_right = torch.stack([logits[k, -1 - shift[k]] for k in range(len(QUESTIONS))])
    torch.testing.assert_close(from_left, from_right, rtol=1e-4, atol=1e-4)
    for k, question in enumerate(QUESTIONS):  # nothing is padded
        alone = full_logits(model, pixels[[k]], encode(processor, [question]))[0, -1]
        torch.testing.assert_close(from_left[k], alone, rtol=1e-4, atol=1e-4)


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


@pytest.mark.parametrize(
    "text", ["", " ", "顔の表情 😀🤷🏽‍♀️", "\u202eright to left\u200f", "</s> <image> [PAD]", "\x00\x01"]
)
def test_odd_text_encodes(processor, text):
    ids = encode(processor, [text, "Why?"], ["yes", text])
    assert ids["input_ids"].max() < len(processor.tokenizer)
    assert ids["qformer_input_ids"].max() < len(processor.qformer_tokenizer)
    assert (ids["labels"] == 2).sum() >= 2
