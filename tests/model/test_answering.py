"""Asking: P(yes) and generated words against the model's own full forward pass."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from expvqa_lib.errors import ImageError, SettingsError
from expvqa_lib.model.answer import embed_images, generate, score_yes_no
from expvqa_lib.model.tokenize import encode
from expvqa_lib.model.yes_no import beginnings
from expvqa_lib.questions import ask_q1, ask_q2, ask_q3

AUS = (1, 12, 25)
QUESTIONS = [ask_q1(), ask_q3(12), ask_q2("brows"), "Why?"]


@pytest.fixture(scope="module")
def images(faces) -> list[str]:
    return faces["image"].iloc[[0, 20, 70, 100]].tolist()


def pixels(processor, image) -> torch.Tensor:
    return processor.image_processor(Image.open(image).convert("RGB"), return_tensors="pt")["pixel_values"]


@torch.no_grad()
def next_logits(model, processor, image, question: str, said: list[int] = ()) -> torch.Tensor:
    """Logits [V] of the next token by transformers' own full forward pass: nothing padded, nothing cached, `<image>` never said."""
    text = encode(processor, [question])
    ids = (
        [model.config.image_token_index] * model.config.num_query_tokens
        + text["input_ids"][0].tolist()
        + list(said)
    )
    logits = model(
        pixel_values=pixels(processor, image),
        qformer_input_ids=text["qformer_input_ids"],
        qformer_attention_mask=text["qformer_attention_mask"],
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
    ).logits[0, -1]
    logits[model.config.image_token_index] = -torch.inf
    return logits


def greedy(model, processor, image, question: str, steps: int) -> str:
    """The plain loop: the most likely token, again and again, until the end token."""
    said: list[int] = []
    while len(said) < steps:
        token = int(next_logits(model, processor, image, question, said).argmax())
        if token == processor.tokenizer.eos_token_id:
            break
        said.append(token)
    return processor.tokenizer.decode(said, skip_special_tokens=True).strip()


@pytest.mark.parametrize("wording", [0, 1, 2])
def test_p_yes_is_the_softmax_over_the_likeliest_yes_and_no_of_the_full_forward_pass(
    model, processor, images, wording
):
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
    np.testing.assert_allclose(
        score_yes_no(model, processor, images, AUS, wordings=range(3), batch=7), sum(alone) / 3, atol=1e-5
    )
    assert np.abs(alone[0] - alone[1]).to_numpy().max() > 1e-4


def test_scores_do_not_depend_on_the_batch(model, processor, images):
    whole = score_yes_no(model, processor, images, AUS)
    for batch in (1, 5):
        np.testing.assert_allclose(score_yes_no(model, processor, images, AUS, batch=batch), whole, atol=1e-5)
    order = [2, 0, 3, 1]
    shuffled = score_yes_no(model, processor, [images[k] for k in order], AUS[::-1])
    np.testing.assert_allclose(shuffled[whole.columns], whole.iloc[order], atol=1e-5)


def test_images_come_as_paths_pictures_or_arrays_and_embeddings_save_the_second_look(
    model, processor, images
):
    whole = score_yes_no(model, processor, images, AUS)
    opened = [
        Image.open(images[0]),
        np.asarray(Image.open(images[1])),
        images[2],
        io.BytesIO(Path(images[3]).read_bytes()),
    ]
    np.testing.assert_allclose(score_yes_no(model, processor, opened, AUS), whole, atol=1e-6)
    embeds = embed_images(model, processor, images, batch=3)
    assert embeds.shape == (4, 17, 32)
    model.vision_model = None  # it must not be needed again
    np.testing.assert_allclose(score_yes_no(model, processor, [], AUS, embeds=embeds), whole, atol=1e-5)
    assert len(generate(model, processor, [], QUESTIONS, embeds=embeds, max_new_tokens=2)) == 4


def test_greedy_words_are_those_of_the_plain_loop(model, processor, images):
    told = generate(model, processor, images, QUESTIONS, max_new_tokens=10)
    assert told == [[greedy(model, processor, i, q, 10)] for i, q in zip(images, QUESTIONS, strict=True)]
    assert len({t[0] for t in told}) > 1 and all(t[0] for t in told)


def test_an_answer_stops_at_its_end_token(model, processor, images):
    said: list[int] = []
    while len(set(said)) < 2:
        said.append(int(next_logits(model, processor, images[0], QUESTIONS[0], said).argmax()))
    head = model.language_model.lm_head
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    with (
        torch.no_grad()
    ):  # from now on the end is a little likelier than the second word, which is said no more
        head.weight[processor.tokenizer.eos_token_id] = 1.01 * head.weight[said[-1]]
    whole = processor.tokenizer.decode(said[:-1]).strip()
    assert greedy(model, processor, images[0], QUESTIONS[0], 10) == whole
    told = generate(model, processor, images, QUESTIONS, max_new_tokens=10)  # beside others that go on
    assert told[0] == [whole]
    assert told == [[greedy(model, processor, i, q, 10)] for i, q in zip(images, QUESTIONS, strict=True)]


def test_words_do_not_depend_on_the_batch(model, processor, images):
    whole = generate(model, processor, images, QUESTIONS, max_new_tokens=10)
    assert generate(model, processor, images, QUESTIONS, max_new_tokens=10, batch=1) == whole
    assert generate(model, processor, images[::-1], QUESTIONS[::-1], max_new_tokens=10) == whole[::-1]


def test_beams_find_an_answer_at_least_as_likely(model, processor, images):
    def log_probability(question: str, image: str, answer: str) -> float:
        ids, total = processor.tokenizer(answer, add_special_tokens=False)["input_ids"], 0.0
        for k, token in enumerate(ids):
            total += float(next_logits(model, processor, image, question, ids[:k]).log_softmax(0)[token])
        return total

    for image, question in zip(images[:2], QUESTIONS[:2], strict=True):
        plain, beamed = (
            generate(model, processor, [image], [question], max_new_tokens=3, num_beams=b)[0][0]
            for b in (1, 5)
        )
        if len(processor.tokenizer(beamed)["input_ids"]) == len(processor.tokenizer(plain)["input_ids"]):
            assert log_probability(question, image, beamed) >= log_probability(question, image, plain) - 1e-4


def test_samples_are_as_many_as_asked_seeded_and_not_all_the_same(model, processor, images):
    def ask(seed: int) -> list[list[str]]:
        return generate(model, processor, images, QUESTIONS, samples=3, max_new_tokens=8, seed=seed)

    first = ask(1)
    assert [len(told) for told in first] == [3] * 4
    assert ask(1) == first != ask(2)
    assert all(len(set(told)) > 1 for told in first)


def test_max_new_tokens_bounds_the_answer(model, processor, images):
    for n in (1, 4):
        told = generate(model, processor, images[:1], ["Why?"], max_new_tokens=n)[0][0]
        assert told == greedy(model, processor, images[0], "Why?", n)


def test_no_images_give_an_empty_answer(model, processor):
    assert generate(model, processor, [], []) == []
    table = score_yes_no(model, processor, [], AUS)
    assert table.shape == (0, 3) and list(table.columns) == ["AU1", "AU12", "AU25"]


def test_wrong_requests_are_refused(model, processor, images):
    with pytest.raises(SettingsError, match="2 questions for 1 images; give one question an image"):
        generate(model, processor, images[:1], ["Why?", "How?"])
    with pytest.raises(SettingsError, match="AU 3 is unknown"):
        score_yes_no(model, processor, images, [12, 3])
    with pytest.raises(SettingsError, match="wording 7 is unknown"):
        score_yes_no(model, processor, images, [12], wordings=[7])
    with pytest.raises(ImageError, match=r"nobody\.png: no such file"):
        score_yes_no(model, processor, [images[0], "nobody.png"], AUS)


def test_asking_leaves_the_model_and_its_gradients_alone(model, processor, images):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    score_yes_no(model, processor, images, AUS)
    generate(model, processor, images, QUESTIONS, max_new_tokens=2)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
