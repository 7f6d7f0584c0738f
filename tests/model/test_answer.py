"""P(yes) and generated words against the model's own passes, with many spellings of yes and no."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from weights import encoder_decoder, full_logits, pixels_of

from expvqa_lib.errors import ModelError
from expvqa_lib.model import beginnings, embed_images, encode, generate, make_processor, score_yes_no
from expvqa_lib.model.answer import prompt
from expvqa_lib.questions import ask_q1, ask_q2, ask_q3
from tools.base_model.build import Size, build

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


def test_p_yes_is_the_softmax_over_the_likeliest_yes_and_no_averaged_over_wordings(model, processor, images):
    scores = score_yes_no(model, processor, images, AUS, wordings=[0, 2], batch=7)
    assert list(scores.columns) == ["AU1", "AU12", "AU25"] and len(scores) == len(images)
    words = [[token for (token,) in spellings] for spellings in beginnings(processor.tokenizer)]
    for row, image in enumerate(images):
        for au in AUS:
            logits = [next_logits(model, processor, image, ask_q3(au, wording)) for wording in (0, 2)]
            best = torch.stack([torch.stack([each[tokens].max() for tokens in words]) for each in logits])
            expected = best.softmax(1)[:, 0]
            assert scores.at[row, f"AU{au}"] == pytest.approx(float(expected.mean()), abs=1e-5)
            assert (expected[0] - expected[1]).abs() > 1e-6
    assert scores.to_numpy().std() > 1e-4  # a test on equal numbers would show nothing


def test_scores_do_not_depend_on_batch_or_order_of_the_images(model, processor, images):
    whole = score_yes_no(model, processor, images, AUS)
    for batch in (1, 5):
        np.testing.assert_allclose(score_yes_no(model, processor, images, AUS, batch=batch), whole, atol=1e-5)
    order = [2, 0, 3, 1]
    shuffled = score_yes_no(model, processor, [images[k] for k in order], AUS[::-1])
    np.testing.assert_allclose(shuffled[whole.columns], whole.iloc[order], atol=1e-5)


def test_embeddings_save_a_second_encoding(model, processor, images):
    whole = score_yes_no(model, processor, images, AUS)
    embeds = embed_images(model, processor, images, batch=3)
    assert embeds.shape == (4, 17, 32)
    model.vision_model.forward = None  # it must not be needed again
    np.testing.assert_allclose(score_yes_no(model, processor, embeds, AUS), whole, atol=1e-5)
    assert len(generate(model, processor, embeds, QUESTIONS, max_new_tokens=2)) == 4


def test_greedy_words_are_those_of_the_plain_loop_in_any_batch(model, processor, images):
    answers = generate(model, processor, images, QUESTIONS, max_new_tokens=10)
    expected = [[greedy(model, processor, i, q, 10)] for i, q in zip(images, QUESTIONS, strict=True)]
    assert answers == expected and len({answer for (answer,) in answers}) > 1
    assert generate(model, processor, images, QUESTIONS, max_new_tokens=10, batch=1) == answers
    assert generate(model, processor, images[::-1], QUESTIONS[::-1], max_new_tokens=10) == answers[::-1]


@pytest.mark.parametrize("options", [{"num_beams": 5}, {"num_beams": 3, "repetition_penalty": 1.5}])
def test_beams_read_the_prompt_once_and_find_what_each_reading_it_would(
    model, processor, images, monkeypatch, options
):
    read = []

    def note(_, __, given: dict) -> None:
        if (embeds := given.get("inputs_embeds")) is not None:
            read.append(embeds.shape[:2])

    model.language_model.model.register_forward_pre_hook(note, with_kwargs=True)
    found = generate(model, processor, images, QUESTIONS, max_new_tokens=8, **options)
    sizes = [n for n, length in read if length > 1]
    assert sizes == [len(images)]
    monkeypatch.setattr("expvqa_lib.model.answer._read_once", lambda model, inputs, options: inputs)
    assert generate(model, processor, images, QUESTIONS, max_new_tokens=8, **options) == found


def test_samples_are_as_many_as_wanted_seeded_and_not_all_the_same(model, processor, images):
    options = {"samples": 3, "max_new_tokens": 8}
    first, again, other = (
        generate(model, processor, images, QUESTIONS, **options, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other and [len(answers) for answers in first] == [3] * 4
    assert all(len(set(answers)) > 1 for answers in first)


SPECIAL = ["[PAD]", "<s>", "</s>", "<image>"]


def wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    names = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "[PAD]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, additional_special_tokens=["<image>"])


def spelling(words: list[str], pre_tokenizer) -> PreTrainedTokenizerFast:
    """A tokenizer with these tokens, letters and a space (▁), longest first."""
    letters = [chr(c) for c in (*range(65, 91), *range(97, 123))] + [*"▁?,'-0123456789"]
    names = [*SPECIAL, *dict.fromkeys([*words, *letters])]
    merges, tokens = [], set(letters)
    for word in words:  # merge letter by letter, each half on its way a token
        for k in range(2, len(word) + 1):
            if word[:k] not in tokens and word[:k] in names:
                merges.append((word[: k - 1], word[k - 1]))
                tokens.add(word[:k])
    bpe = Tokenizer(models.BPE({name: k for k, name in enumerate(names)}, merges, unk_token="</s>"))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizer, decoders.Metaspace()
    bpe.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
    return wrap(bpe)


JOINED, NEVER = pre_tokenizers.Metaspace(), pre_tokenizers.Metaspace(prepend_scheme="never")
APART = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Split("▁", "isolated")])
YES_NO = ["▁y", "▁ye", "▁yes", "▁n", "▁no"]
TOKENIZERS = {
    "one token": spelling([*YES_NO, "▁Y", "▁Ye", "▁Yes", "▁N", "▁No"], JOINED),
    "several tokens": spelling(["▁y", "▁n"], JOINED),
    "a space of its own": spelling(["ye", "yes", "no", "Ye", "Yes", "No"], APART),
    "letters alone": spelling([], JOINED),
    "with a space and without": spelling([*YES_NO, "ye", "yes", "no", "not"], NEVER),
}


def tiny(tokenizer, qformer, seed: int = 0, t5: bool = False):
    """An untrained model of this tokenizer whose words lie far apart, so that it answers with confidence."""
    size = Size(48, 12, 32, 2, 32, 2, 4, 32, 2, 2, vocabulary=len(tokenizer), qformer_vocabulary=len(qformer))
    model = build(size, seed)
    if t5:
        model = encoder_decoder(model, len(tokenizer), seed)
    torch.manual_seed(seed)
    head = model.language_model.lm_head
    head.weight = torch.nn.Parameter(torch.randn_like(head.weight) * (0.2 if t5 else 0.4))
    return model, make_processor(tokenizer, qformer, size.image, size.queries)


@pytest.fixture
def qformer(processor):
    return processor.qformer_tokenizer


def test_beginnings_end_where_yes_and_no_part():
    def texts(name: str) -> list[set[str]]:
        tokens = TOKENIZERS[name].convert_ids_to_tokens
        return [{"|".join(tokens(list(s))) for s in spellings} for spellings in beginnings(TOKENIZERS[name])]

    assert texts("one token") == [{"▁yes", "▁Yes", "▁Y", "y", "Y"}, {"▁no", "▁No", "▁N", "n", "N"}]
    apart = [{"▁|yes", "▁|Yes", "▁|Y", "yes", "Yes", "Y"}, {"▁|no", "▁|No", "▁|N", "no", "No", "N"}]
    assert texts("a space of its own") == apart
    assert texts("letters alone") == [{"▁|y", "▁|Y", "y", "Y"}, {"▁|n", "▁|N", "n", "N"}]
    assert texts("with a space and without")[0] == {"▁yes", "yes", "Y", "▁|Y"}


def test_a_tokenizer_that_cannot_tell_yes_from_no_is_refused(images, qformer):
    names = [*SPECIAL, "yes", "does"]
    words = Tokenizer(models.WordLevel({name: k for k, name in enumerate(names)}, unk_token="</s>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    model, processor = tiny(wrap(words), qformer)
    with pytest.raises(ModelError, match="cannot tell 'yes' from 'no'"):
        score_yes_no(model, processor, images, AUS)


@torch.inference_mode()
def next_word(model, processor, images, question: str, begin: tuple[int, ...] = ()) -> torch.Tensor:
    """Distribution [N, V] of the answer's next token by `generate`, after the tokens `begin`."""
    inputs = prompt(model, processor, embed_images(model, processor, images), [question] * len(images))
    inputs.pop("position_ids", None)
    if begin:
        words = torch.tensor([begin] * len(images))
        if model.config.use_decoder_only_language_model:
            embeds = model.language_model.get_input_embeddings()(words)
            inputs["inputs_embeds"] = torch.cat([inputs["inputs_embeds"], embeds], 1)
            inputs["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(words)], 1)
        else:
            inputs["decoder_input_ids"] = torch.cat([torch.zeros_like(words[:, :1]), words], 1)
    options = {"max_new_tokens": 1, "do_sample": False, "eos_token_id": 2, "pad_token_id": 0}
    options |= {"output_scores": True, "return_dict_in_generate": True}
    return model.language_model.generate(**inputs, **options).scores[0].float().softmax(1)


@pytest.mark.parametrize("t5", [False, True], ids=["decoder", "T5"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_p_yes_is_what_generation_would_assign(images, qformer, name, t5):
    model, processor = tiny(TOKENIZERS[name], qformer, t5=t5)
    scores = score_yes_no(model, processor, images, AUS)
    yes_no = beginnings(processor.tokenizer)
    shared = {tokens[:-1] for spellings in yes_no for tokens in spellings if len(tokens) == 2}
    assert len(shared) <= 1 and all(len(tokens) <= 2 for spellings in yes_no for tokens in spellings)
    heads = sorted({tokens[0] for spellings in yes_no for tokens in spellings})
    for au in AUS:
        first = next_word(model, processor, images, ask_q3(au))
        second = next_word(model, processor, images, ask_q3(au), *shared)
        for row in range(len(images)):
            best = []
            for spellings in yes_no:
                if shared and heads[int(first[row, heads].argmax())] == min(shared)[0]:
                    spellings = [tokens for tokens in spellings if tokens[0] == min(shared)[0]]
                p = [first[row, s[0]] * (second[row, s[1]] if len(s) == 2 else 1) for s in spellings]
                best.append(float(max(p)))
            assert scores.at[row, f"AU{au}"] == pytest.approx(best[0] / sum(best), abs=1e-5)
    assert scores.to_numpy().std() > 1e-3
