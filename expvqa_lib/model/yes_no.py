"""Yes and no as a tokenizer spells them, and the probability of yes that a language model's own words would follow."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from transformers import InstructBlipForConditionalGeneration, PreTrainedTokenizerBase

from ..errors import ModelError
from ..questions import NO, YES
from .forward import next_logits

Tokens = tuple[int, ...]
Beginnings = tuple[list[Tokens], list[Tokens]]
"""How answers of yes and of no begin, each up to the first token that tells it from all of the other."""


def beginnings(tokenizer: PreTrainedTokenizerBase) -> Beginnings:
    """How a yes and a no may begin: in small letters, with a capital or in capitals, with a space before or without.

    As `questions.read_yes_no` reads it, "not" is a no. Usually each beginning is one token; it is more where a word is spelled in tokens
    that the other class has, too, as a space of its own.

    Raises:
        ModelError: the tokenizer has no token that tells one of them from the other.
    """
    both = [_spelled(tokenizer, words) for words in ((YES,), (NO, "not"))]
    found = []
    for word, mine, other in ((YES, *both), (NO, *both[::-1])):
        shared = {spelling[:k] for spelling in other for k in range(len(spelling) + 1)}
        own = [spelling for spelling in mine if spelling not in shared]
        if not own:
            raise ModelError(
                f"the tokenizer cannot tell {YES!r} from {NO!r}: it has no tokens of its own for {word!r}; use the model's"
            )
        found.append(sorted({next(s[:k] for k in range(1, len(s) + 1) if s[:k] not in shared) for s in own}))
    return found[0], found[1]


def _spelled(tokenizer: PreTrainedTokenizerBase, words: Iterable[str]) -> set[Tokens]:
    found = set()
    for spelling in (form for word in words for form in (word, word.capitalize(), word.upper())):
        texts = [spelling, f" {spelling}", f"?{spelling}", "?"]
        plain, spaced, after, mark = (
            tuple(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]
        )
        found.add(plain)
        if after[: len(mark)] == mark:
            found.add(after[len(mark) :])  # without the space that some tokenizers write before every text
        if not (
            plain and tokenizer.convert_ids_to_tokens(plain[0])[0] in "▁Ġ" and spaced[-len(plain) :] == plain
        ):  # not before that
            found.add(spaced)
    unusable = set(tokenizer.all_special_ids)  # such as the token for what is unknown
    return {spelling for spelling in found if spelling and not unusable & set(spelling)}


def first_p_yes(logits: Tensor, begin: Beginnings) -> Tensor:
    """Probability of yes rather than no [N] by the logits [N, V] of an answer's first token: that of each one's likeliest beginning."""
    return torch.stack(
        [logits[:, [spelling[0] for spelling in spellings]].amax(1) for spellings in begin], 1
    ).softmax(1)[:, 0]


def p_yes(model: InstructBlipForConditionalGeneration, inputs: dict, begin: Beginnings) -> Tensor:
    """Probability of yes rather than no [N] after prompts of `forward.language_inputs`, read from the last position's logits.

    A class has the probability of its likeliest beginning, so that yes is at least as probable as no wherever greedy generation begins
    with a yes of `begin`, and the reverse. Where it would begin with a token that both classes share, what counts is what it would say
    after that: each different shared beginning takes one more pass.
    """
    nodes = sorted(
        {spelling[:k] for spellings in begin for spelling in spellings for k in range(len(spelling))}, key=len
    )
    logits = {node: next_logits(model, inputs, node) for node in nodes}
    if len(nodes) == 1:
        return first_p_yes(logits[()], begin)
    logits = {
        node: values.log_softmax(1) for node, values in logits.items()
    }  # tokens of several positions are compared

    def at(node: Tokens) -> Tensor:
        below = [[s for s in spellings if s[: len(node)] == node] for spellings in begin]
        best = [torch.stack([_sum(logits, s, len(node)) for s in spellings]).amax(0) for spellings in below]
        value = torch.stack(best, 1).softmax(1)[:, 0]
        tokens = {s[len(node)] for spellings in below for s in spellings}
        likeliest = logits[node][:, sorted(tokens)].amax(1)
        for token in tokens:
            if (*node, token) in logits:
                value = torch.where(logits[node][:, token] == likeliest, at((*node, token)), value)
        return value

    return at(())


def _sum(logits: dict[Tokens, Tensor], spelling: Tokens, start: int) -> Tensor:
    """Log probability [N] of a spelling's tokens from `start` on."""
    first, *later = (logits[spelling[:k]][:, spelling[k]] for k in range(start, len(spelling)))
    return sum(later, first)
