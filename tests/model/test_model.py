"""Building, initialising and running InstructBLIP: our three steps against transformers' own forward pass."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from transformers import InstructBlipForConditionalGeneration

from expvqa_lib.model.forward import (
    answer_loss,
    cross_attention_weights,
    encode_images,
    language_inputs,
    query_image,
)
from expvqa_lib.model.tokenize import encode
from tools.base_model.build import Size, build

QUESTIONS = ["Does this person pull lip corner?", "What is this person's face doing?", "Why?"]
ANSWERS = [
    "yes",
    "The person raises cheek and pulls lip corner, which suggests happiness.",
    "The face shows fear.",
]
TOY = Size(
    image=48,
    vision_width=32,
    vision_layers=2,
    qformer_width=32,
    queries=4,
    language_width=32,
    heads=2,
    vocabulary=300,
)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))


def run(model, pixels, text) -> dict:
    """Our three steps: what the language model reads."""
    output = query_image(
        model, encode_images(model, pixels), text["qformer_input_ids"], text["qformer_attention_mask"]
    )
    return language_inputs(model, output, text["input_ids"], text["attention_mask"])


def full_logits(model, pixels, text) -> torch.Tensor:
    """Logits [N, Q + T, V] by transformers' own forward pass, with a placeholder token a query before the text."""
    queries = model.config.num_query_tokens
    image = torch.full((len(pixels), queries), model.config.image_token_index)
    return model(
        pixel_values=pixels,
        qformer_input_ids=text["qformer_input_ids"],
        qformer_attention_mask=text["qformer_attention_mask"],
        input_ids=torch.cat([image, text["input_ids"]], 1),
        attention_mask=torch.cat([torch.ones_like(image), text["attention_mask"]], 1),
    ).logits


def test_the_size_decides_every_shape():
    size = replace(TOY, qformer_layers=3, language_layers=1, patch=8, queries=5, qformer_vocabulary=77)
    model = build(size)
    assert model.query_tokens.shape == (1, 5, 32) and model.config.num_query_tokens == 5
    assert len(model.vision_model.encoder.layers) == 2 and len(model.qformer.encoder.layer) == 3
    assert len(model.language_model.model.layers) == 1
    assert model.language_model.lm_head.weight.shape == (300, 32)
    assert model.qformer.embeddings.word_embeddings.weight.shape == (77, 32)
    assert encode_images(model, torch.zeros(2, 3, 48, 48)).shape == (2, 1 + 36, 32)
    assert all(layer.has_cross_attention for layer in model.qformer.encoder.layer)
    assert not model.training


def test_the_default_is_the_quick_profiles_model_within_its_budget():
    assert 1_500_000 < build().num_parameters() < 3_000_000


@torch.no_grad()
def test_a_fresh_model_can_tell_queries_positions_images_and_questions_apart(model, processor, pixels):
    queries = model.query_tokens[0]
    assert torch.cdist(queries, queries).add(torch.eye(len(queries)) * 9).min() > 1
    positions = model.vision_model.embeddings.position_embedding[0]
    assert torch.cdist(positions[1:], positions[1:]).add(torch.eye(16) * 9).min() > 0.3
    assert positions[0].abs().max() == 0  # the class token has no place
    grid = positions[1:].view(4, 4, -1)
    assert (grid[0, 0] - grid[0, 1]).norm() < (grid[0, 0] - grid[0, 3]).norm()  # neighbours are alike
    torch.testing.assert_close(
        grid[0, 1] - grid[0, 0], grid[2, 1] - grid[2, 0]
    )  # a step to the right is the same in each row
    text = encode(processor, [QUESTIONS[0]] * 2 + [QUESTIONS[2]])
    seen = encode_images(model, pixels[[0, 1, 0]])
    output = query_image(model, seen, text["qformer_input_ids"], text["qformer_attention_mask"])
    assert seen.std() > 0.3 and output.std() > 0.3  # the signal neither dies nor explodes
    assert seen.std() < 3 and output.std() < 3
    other_image, other_question = (output[0] - output[1]).abs().mean(), (output[0] - output[2]).abs().mean()
    assert other_image > 0.05 and other_question > 0.05


def test_the_seed_decides_the_weights():
    first, again, other = (build(TOY, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["query_tokens"], other["query_tokens"])


def test_no_parameter_is_left_at_zero_but_biases_and_the_class_position(model):
    for name, value in model.named_parameters():
        if not name.endswith("bias"):
            assert value.abs().max() > 0 and torch.isfinite(value).all(), name


@torch.no_grad()
def test_the_loss_is_that_of_transformers_own_logits(model, processor, pixels):
    text = encode(processor, QUESTIONS, ANSWERS)
    loss = answer_loss(model, run(model, pixels, text), text["labels"])
    logits = full_logits(model, pixels, text)[
        :, model.config.num_query_tokens - 1 : -1
    ]  # each predicts the next token of the text
    logits[..., model.config.image_token_index] = -torch.inf  # no word: it takes no part
    told = text["labels"] != -100
    expected = torch.nn.functional.cross_entropy(logits[told], text["labels"][told])
    assert told.sum() > 20
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


def test_the_losss_gradients_are_those_of_transformers_own_loss(model, processor, pixels):
    other = copy.deepcopy(model)
    text = encode(processor, QUESTIONS, ANSWERS)
    answer_loss(model, run(model, pixels, text), text["labels"]).backward()
    logits = full_logits(other, pixels, text)[:, other.config.num_query_tokens - 1 : -1]
    logits = logits.index_fill(2, torch.tensor(other.config.image_token_index), -torch.inf)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), text["labels"].flatten()).backward()
    for (name, mine), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        if mine.grad is None:  # the last layer's words, which transformers computes and nobody reads
            assert theirs.grad is None or theirs.grad.abs().max() == 0, name
        else:
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-5, msg=name)
    assert (
        model.query_tokens.grad.abs().max() > 0
        and model.vision_model.embeddings.patch_embedding.weight.grad.abs().max() > 0
    )


@torch.no_grad()
def test_questions_that_share_an_image_are_answered_as_by_transformers_own_qformer(model, processor, pixels):
    index = torch.tensor([1, 0, 1, 2, 1, 0])  # in any order, of unequal number
    text = encode(processor, [*QUESTIONS, *QUESTIONS[::-1]])
    seen = encode_images(model, pixels)
    queries = model.query_tokens.expand(len(index), -1, -1)
    theirs = model.qformer(
        input_ids=text["qformer_input_ids"],
        attention_mask=torch.cat(
            [torch.ones(queries.shape[:2], dtype=torch.long), text["qformer_attention_mask"]], 1
        ),
        query_embeds=queries,
        encoder_hidden_states=seen[index],
    ).last_hidden_state[:, : queries.shape[1]]
    mine = query_image(model, seen, text["qformer_input_ids"], text["qformer_attention_mask"], index)
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_cross_attention_weights_are_those_that_transformers_tells_and_leave_no_trace(
    model, processor, pixels
):
    text = encode(processor, QUESTIONS)
    seen = encode_images(model, pixels)
    before = query_image(model, seen, text["qformer_input_ids"], text["qformer_attention_mask"])
    with cross_attention_weights(model.qformer) as weights:
        query_image(model, seen, text["qformer_input_ids"], text["qformer_attention_mask"])
        queries = model.query_tokens.expand(3, -1, -1)
        mask = torch.cat([torch.ones(queries.shape[:2], dtype=torch.long), text["qformer_attention_mask"]], 1)
        theirs = model.qformer(
            input_ids=text["qformer_input_ids"],
            attention_mask=mask,
            query_embeds=queries,
            encoder_hidden_states=seen,
            output_attentions=True,
        ).cross_attentions
    assert len(theirs) == len(model.qformer.encoder.layer)
    for mine, other in zip(weights[: len(theirs)], theirs, strict=True):
        torch.testing.assert_close(mine, other)
    n = len(weights)
    torch.testing.assert_close(
        query_image(model, seen, text["qformer_input_ids"], text["qformer_attention_mask"]), before
    )
    assert len(weights) == n and model.qformer.config._attn_implementation == "sdpa"


@torch.no_grad()
def test_padding_on_either_side_gives_the_same_next_token(model, processor, pixels):
    left = encode(processor, QUESTIONS)
    width = left["input_ids"].shape[1]
    assert (left["attention_mask"] == 0).any()
    shift = [int((row == 0).sum()) for row in left["attention_mask"]]
    right = left | {
        key: torch.stack([row.roll(-s) for row, s in zip(left[key], shift, strict=True)])
        for key in ("input_ids", "attention_mask")
    }
    from_left = model.language_model(**run(model, pixels, left)).logits[:, -1]
    logits = model.language_model(**run(model, pixels, right)).logits
    from_right = torch.stack([logits[k, -1 - shift[k]] for k in range(len(QUESTIONS))])
    torch.testing.assert_close(from_left, from_right, rtol=1e-4, atol=1e-4)
    alone = [
        full_logits(model, pixels[[k]], encode(processor, [q]))[0, -1] for k, q in enumerate(QUESTIONS)
    ]  # nothing padded
    torch.testing.assert_close(from_left, torch.stack(alone), rtol=1e-4, atol=1e-4)
    assert width > min(width - s for s in shift)


@torch.no_grad()
def test_a_batch_gives_what_its_rows_give_alone(model, processor, pixels):
    text = encode(processor, QUESTIONS, ANSWERS)
    seen = encode_images(model, pixels)
    output = query_image(model, seen, text["qformer_input_ids"], text["qformer_attention_mask"])
    for k in range(3):
        alone = encode(processor, QUESTIONS[k : k + 1], ANSWERS[k : k + 1])
        one = encode_images(model, pixels[[k]])
        torch.testing.assert_close(one[0], seen[k], rtol=1e-4, atol=1e-5)
        out = query_image(model, one, alone["qformer_input_ids"], alone["qformer_attention_mask"])
        torch.testing.assert_close(out[0], output[k], rtol=1e-4, atol=1e-5)
    losses = [
        answer_loss(
            model,
            run(model, pixels[[k]], t := encode(processor, QUESTIONS[k : k + 1], ANSWERS[k : k + 1])),
            t["labels"],
        )
        for k in range(3)
    ]
    counts = (text["labels"] != -100).sum(1)
    together = answer_loss(model, run(model, pixels, text), text["labels"])
    torch.testing.assert_close(
        together, (torch.stack(losses) * counts).sum() / counts.sum(), rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def test_language_inputs_are_the_projected_queries_then_the_text(model, processor, pixels):
    text = encode(processor, QUESTIONS)
    output = query_image(
        model, encode_images(model, pixels), text["qformer_input_ids"], text["qformer_attention_mask"]
    )
    inputs = language_inputs(model, output, text["input_ids"], text["attention_mask"])
    torch.testing.assert_close(inputs["inputs_embeds"][:, :4], model.language_projection(output))
    table = model.language_model.get_input_embeddings().weight
    torch.testing.assert_close(inputs["inputs_embeds"][:, 4:], table[text["input_ids"]])
    for row, mask in zip(inputs["position_ids"], inputs["attention_mask"], strict=True):
        assert row[mask.bool()].tolist() == list(range(int(mask.sum())))


@torch.no_grad()
def test_a_saved_model_loads_exactly(model, processor, pixels, tmp_path):
    model.save_pretrained(tmp_path)
    again = InstructBlipForConditionalGeneration.from_pretrained(tmp_path).eval()
    mine, theirs = model.state_dict(), again.state_dict()
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)
    assert again.vision_model.post_layernorm.eps == model.vision_model.post_layernorm.eps == 1e-5
    text = encode(processor, QUESTIONS)
    assert torch.equal(full_logits(model, pixels, text), full_logits(again, pixels, text))
