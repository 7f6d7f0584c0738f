"""Yes and no in any wording: against what generation itself would say, with tokenizers that spell them in many ways."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config

from expvqa_lib.errors import ModelError
from expvqa_lib.model.answer import embed_images, generate, prompt, score_yes_no
from expvqa_lib.model.tokenize import make_processor
from expvqa_lib.model.yes_no import beginnings
from expvqa_lib.questions import ask_q3, read_yes_no
from tools.base_model.build import Size, build

AUS = (1, 4, 12, 25)
SPECIAL = ["[PAD]", "<s>", "</s>", "<image>"]


def spelling(words: list[str], pre_tokenizer) -> PreTrainedTokenizerFast:
    """A tokenizer with these tokens, its letters and a space (▁), longest first; any text of small and capital letters encodes."""
    letters = [chr(c) for c in (*range(65, 91), *range(97, 123))] + [*"▁?,'-0123456789"]
    names = [*SPECIAL, *dict.fromkeys([*words, *letters])]
    merges, known = [], set(letters)
    for word in words:  # merge letter by letter, each half on its way a token
        for k in range(2, len(word) + 1):
            if word[:k] not in known and word[:k] in names:
                merges.append((word[: k - 1], word[k - 1]))
                known.add(word[:k])
    bpe = Tokenizer(models.BPE({name: k for k, name in enumerate(names)}, merges, unk_token="</s>"))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizer, decoders.Metaspace()
    bpe.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="</s>",
        eos_token="</s>",
        unk_token="</s>",
        pad_token="[PAD]",
        additional_special_tokens=["<image>"],
    )


JOINED, APART, NEVER = (
    pre_tokenizers.Metaspace(),
    pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Split("▁", "isolated")]),
    pre_tokenizers.Metaspace(prepend_scheme="never"),
)
TOKENIZERS = {
    "one token": spelling(["▁y", "▁ye", "▁yes", "▁n", "▁no", "▁Y", "▁Ye", "▁Yes", "▁N", "▁No"], JOINED),
    "several tokens": spelling(["▁y", "▁n"], JOINED),
    "a space of its own": spelling(["ye", "yes", "no", "Ye", "Yes", "No"], APART),
    "letters alone": spelling([], JOINED),
    "with a space and without": spelling(["▁y", "▁ye", "▁yes", "▁n", "▁no", "ye", "yes", "no", "not"], NEVER),
}


def tiny(tokenizer, qformer, seed: int = 0, t5: bool = False):
    """An untrained model of this tokenizer whose words lie far apart, so that it says something with confidence."""
    size = Size(48, 12, 32, 2, 32, 2, 4, 32, 2, 2, vocabulary=len(tokenizer), qformer_vocabulary=len(qformer))
    model = build(size, seed)
    if t5:
        sizes = {
            "vocab_size": len(tokenizer),
            "d_model": 32,
            "d_kv": 16,
            "d_ff": 64,
            "num_layers": 2,
            "num_heads": 2,
        }
        text = T5Config(
            **sizes, decoder_start_token_id=0, pad_token_id=0, eos_token_id=2, tie_word_embeddings=False
        )
        config = copy.deepcopy(model.config)
        config.text_config, config.use_decoder_only_language_model = text, False
        config.is_encoder_decoder = True
        torch.manual_seed(seed)
        model = type(model)(config).eval()
        model.query_tokens.data.normal_()
    torch.manual_seed(seed)
    head = model.language_model.lm_head
    head.weight = torch.nn.Parameter(torch.randn_like(head.weight) * (0.2 if t5 else 0.4))
    return model, make_processor(tokenizer, qformer, size.image, size.queries)


@torch.no_grad()
def teach_to_spell(model, processor) -> None:
    """Make the first tokens of yes and no likelier than others, and after each token of a spelling the next one, then the end."""
    tokenizer, head = processor.tokenizer, model.language_model.lm_head
    words = model.language_model.get_input_embeddings().weight
    spelled = [
        s
        for word in ("yes", "no", "Yes", "No")
        for s in tokenizer([word, f" {word}"], add_special_tokens=False)["input_ids"]
    ]
    bias = torch.zeros(head.out_features)
    bias[[s[0] for s in spelled]] = 6.0
    for name, weight in model.language_model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight", ".o.weight", ".wo.weight")):
            weight *= 0.4  # what was said last tells more of what comes next
    head.bias = torch.nn.Parameter(bias)
    for before, after in {
        pair for s in spelled for pair in zip(s, [*s[1:], tokenizer.eos_token_id], strict=True)
    }:
        head.weight[after] += 20 * words[before] / words[before].norm()


@pytest.fixture(scope="module")
def images(faces) -> list[str]:
    return faces["image"].iloc[[0, 20, 70, 100]].tolist()


@pytest.fixture
def qformer(processor):
    return processor.qformer_tokenizer


def test_beginnings_end_where_yes_and_no_part():
    def told(name: str) -> list[set[str]]:
        tokenizer = TOKENIZERS[name]
        return [
            {"|".join(tokenizer.convert_ids_to_tokens(list(s))) for s in spellings}
            for spellings in beginnings(tokenizer)
        ]

    assert told("one token") == [{"▁yes", "▁Yes", "▁Y", "y", "Y"}, {"▁no", "▁No", "▁N", "n", "N"}]
    assert told("a space of its own") == [
        {"▁|yes", "▁|Yes", "▁|Y", "yes", "Yes", "Y"},
        {"▁|no", "▁|No", "▁|N", "no", "No", "N"},
    ]
    assert told("letters alone") == [{"▁|y", "▁|Y", "y", "Y"}, {"▁|n", "▁|N", "n", "N"}]
    assert told("with a space and without")[0] == {"▁yes", "yes", "Y", "▁|Y"}


def test_the_quick_models_are_one_token_each(processor):
    words = processor.tokenizer(["yes", "no", "not"], add_special_tokens=False)["input_ids"]
    yes, no = beginnings(processor.tokenizer)
    assert (words[0][0],) in yes and (words[1][0],) in no and all(len(s) == 1 for s in yes + no)


def test_a_tokenizer_that_cannot_tell_them_apart_is_refused(images, qformer):
    whole = Tokenizer(
        models.WordLevel({name: k for k, name in enumerate([*SPECIAL, "yes", "does"])}, unk_token="</s>")
    )
    whole.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=whole, eos_token="</s>", unk_token="</s>", pad_token="[PAD]"
    )
    model, processor = tiny(tokenizer, qformer)
    with pytest.raises(ModelError, match="cannot tell 'yes' from 'no': it has no tokens of its own for 'no'"):
        score_yes_no(model, processor, images, AUS)


@torch.inference_mode()
def generated(model, processor, images, question: str, begin: tuple[int, ...] = ()):
    """Distribution [N, V] of the answer's next token by `generate`, after it was made to begin so."""
    inputs = prompt(model, processor, embed_images(model, processor, images), [question] * len(images))
    inputs.pop("position_ids", None)
    if begin:
        words = torch.tensor([begin] * len(images))
        if model.config.use_decoder_only_language_model:
            inputs["inputs_embeds"] = torch.cat(
                [inputs["inputs_embeds"], model.language_model.get_input_embeddings()(words)], 1
            )
            inputs["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(words)], 1)
        else:
            inputs["decoder_input_ids"] = torch.cat([torch.zeros_like(words[:, :1]), words], 1)
    told = model.language_model.generate(
        **inputs,
        max_new_tokens=1,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
        eos_token_id=2,
        pad_token_id=0,
    )
    return told.scores[0].float().softmax(1)


@pytest.mark.parametrize("t5", [False, True], ids=["decoder", "T5"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_p_yes_is_what_generation_would_assign(images, qformer, name, t5):
    model, processor = tiny(TOKENIZERS[name], qformer, t5=t5)
    scores = score_yes_no(model, processor, images, AUS)
    ids = beginnings(processor.tokenizer)
    shared = {s[:-1] for spellings in ids for s in spellings if len(s) == 2}
    assert len(shared) <= 1 and all(len(s) <= 2 for spellings in ids for s in spellings)
    for au in AUS:
        first = generated(model, processor, images, ask_q3(au))
        after = generated(model, processor, images, ask_q3(au), *shared)
        for row in range(len(images)):

            def probability(s: tuple[int, ...], row: int = row, first=first, after=after) -> float:
                return float(first[row, s[0]] * (after[row, s[1]] if len(s) == 2 else 1))

            candidates = ids
            if shared:
                (begin,) = shared
                heads = {s[0] for spellings in ids for s in spellings}
                if max(heads, key=lambda token, row=row, first=first: first[row, token]) == begin[0]:
                    candidates = [[s for s in spellings if s[0] == begin[0]] for spellings in ids]
            yes, no = (max(map(probability, spellings)) for spellings in candidates)
            assert scores.at[row, f"AU{au}"] == pytest.approx(yes / (yes + no), abs=1e-5)
    assert scores.to_numpy().std() > 1e-3


@pytest.mark.parametrize("t5", [False, True], ids=["decoder", "T5"])
def test_the_decision_is_greedy_generations_wherever_that_says_yes_or_no(images, qformer, t5):
    read: list[bool] = []
    for name, tokenizer in TOKENIZERS.items():
        for seed in range(4):
            model, processor = tiny(tokenizer, qformer, seed, t5)
            teach_to_spell(model, processor)
            scores = score_yes_no(model, processor, images, AUS).to_numpy().ravel()
            asked, seen = [ask_q3(au) for au in AUS] * len(images), [image for image in images for _ in AUS]
            told = generate(
                model, processor, seen, asked, num_beams=1, max_new_tokens=5, repetition_penalty=1.0
            )
            for (answer,), score in zip(told, scores, strict=True):
                said = read_yes_no(answer)
                if said is not None and answer[0].isalpha():  # no wording begins with a comma
                    assert (score >= 0.5) == said, (name, seed, answer, score)
                    read.append(said)
    assert len(read) > 40 and 10 < sum(read) < len(read) - 10, (len(read), sum(read))


def test_scores_do_not_hang_on_the_batch_with_shared_beginnings(images, qformer):
    model, processor = tiny(TOKENIZERS["a space of its own"], qformer)
    whole = score_yes_no(model, processor, images, AUS)
    for batch in (1, 5):
        np.testing.assert_allclose(score_yes_no(model, processor, images, AUS, batch=batch), whole, atol=1e-6)
    assert score_yes_no(model, processor, images, []).shape == (len(images), 0)
