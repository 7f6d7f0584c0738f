"""P(yes) and generated words against the model's own full forward pass."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from weights import full_logits, pixels_of

from expvqa_lib.model import beginnings, embed_images, encode, generate, score_yes_no
from expvqa_lib.questions import ask_q1, ask_q2, ask_q3

AUS = (1, 12, 25)
QUESTIONS = [ask_q1(), ask_q3(12), ask_q2("brows"), "Why?"]


@torch.no_grad()
def next_logits(model, processor, image, question: str, answer: list[int] = ()) -> torch.Tensor:
    """Logits [V] of the next token by transformers' own full forward pass: nothing padded, nothing cached."""
    text = encode(processor, [question])
    text["input_ids"] = torch.tensor([text["input_ids"][0].tolist() + list(answer)])
    text["attention_mask"] = torch.ones_like(text["input_ids"])
    logits = full_logits(model, pixels_of(processor, [image]), text)[0, -1]
    logits[model.config.image_token_index] = -torch.inf  # it is no word
    return logits


def greedy(model, processor, image, question: str, steps: int) -> str:
    """The plain loop: the likeliest token, again and again, until the end token."""
    answer: list[int] = []
    while len(answer) < steps:
        token = int(next_logits(model, processor, image, question, answer).argmax())
        if token == processor.tokenizer.eos_token_id:
            break
        answer.append(token)
    return processor.tokenizer.decode(answer, skip_special_tokens=True).strip()


@pytest.mark.parametrize("wording", [0, 2])
def test_p_yes_is_the_softmax_over_the_likeliest_yes_and_no(model, processor, images, wording):
    scores = score_yes_no(model, processor, images, AUS, wordings=[wording])
    assert list(scores.columns) == ["AU1", "AU12", "AU25"] and len(scores) == len(images)
    words = [[token for (token,) in spellings] for spellings in beginnings(processor.tokenizer)]
    for row, image in enumerate(images):
        for au in AUS:
            logits = next_logits(model, processor, image, ask_q3(au, wording))
            expected = torch.stack([logits[tokens].max() for tokens in words]).softmax(0)[0]
            assert scores.at[row, f"AU{au}"] == pytest.approx(float(expected), abs=1e-5)
    assert scores.to_numpy().std() > 1e-4  # a test on equal numbers would show nothing


def test_several_wordings_are_averaged(model, processor, images):
    alone = [score_yes_no(model, processor, images, AUS, wordings=[wording]) for wording in range(3)]
    together = score_yes_no(model, processor, images, AUS, wordings=range(3), batch=7)
    np.testing.assert_allclose(together, sum(alone) / 3, atol=1e-5)
    assert np.abs(alone[0] - alone[1]).to_numpy().max() > 1e-4


def test_scores_do_not_depend_on_batch_order_or_form_of_the_images(model, processor, images):
    whole = score_yes_no(model, processor, images, AUS)
    first, second = Image.open(images[0]), np.asarray(Image.open(images[1]))
    mixed = [first, second, images[2], io.BytesIO(Path(images[3]).read_bytes())]
    for batch, pictures in ((1, images), (5, images), (256, mixed)):
        scores = score_yes_no(model, processor, pictures, AUS, batch=batch)
        np.testing.assert_allclose(scores, whole, atol=1e-5)
    order = [2, 0, 3, 1]
    shuffled = score_yes_no(model, processor, [images[k] for k in order], AUS[::-1])
    np.testing.assert_allclose(shuffled[whole.columns], whole.iloc[order], atol=1e-5)


def test_embeddings_save_a_second_encoding(model, processor, images):
    whole = score_yes_no(model, processor, images, AUS)
    embeds = embed_images(model, processor, images, batch=3)
    assert embeds.shape == (4, 17, 32)
    model.vision_model.forward = None  # it must not be needed again
    np.testing.assert_allclose(score_yes_no(model, processor, [], AUS, embeds=embeds), whole, atol=1e-5)
    assert len(generate(model, processor, [], QUESTIONS, embeds=embeds, max_new_tokens=2)) == 4


def test_greedy_words_are_those_of_the_plain_loop_in_any_batch(model, processor, images):
    answers = generate(model, processor, images, QUESTIONS, max_new_tokens=10)
    expected = [[greedy(model, processor, i, q, 10)] for i, q in zip(images, QUESTIONS, strict=True)]
    assert answers == expected and len({answer for (answer,) in answers}) > 1
    assert generate(model, processor, images, QUESTIONS, max_new_tokens=10, batch=1) == answers
    assert generate(model, processor, images[::-1], QUESTIONS[::-1], max_new_tokens=10) == answers[::-1]
    one = generate(model, processor, images[:1], ["Why?"], max_new_tokens=1)
    assert one == [[greedy(model, processor, images[0], "Why?", 1)]]


def test_samples_are_as_many_as_wanted_seeded_and_not_all_the_same(model, processor, images):
    def sample(seed: int) -> list[list[str]]:
        return generate(model, processor, images, QUESTIONS, samples=3, max_new_tokens=8, seed=seed)

    first = sample(1)
    assert [len(answers) for answers in first] == [3] * 4
    assert sample(1) == first != sample(2)
    assert all(len(set(answers)) > 1 for answers in first)


def test_no_images_and_no_aus_give_empty_results(model, processor, images):
    assert generate(model, processor, [], []) == []
    table = score_yes_no(model, processor, [], AUS)
    assert table.shape == (0, 3) and list(table.columns) == ["AU1", "AU12", "AU25"]
    assert score_yes_no(model, processor, images, []).shape == (4, 0)
