"""How a tokenizer spells yes and no, and the probability of yes by the next tokens' logits."""

from collections.abc import Iterable

import torch
from torch import Tensor
from transformers import InstructBlipForConditionalGeneration, PreTrainedTokenizerBase

from ..errors import ModelError
from ..questions import NO, YES
from .forward import next_logits

Beginnings = tuple[list[tuple[int, ...]], list[tuple[int, ...]]]
"""How answers of yes and of no begin, up to the first token that the other class does not share."""


def beginnings(tokenizer: PreTrainedTokenizerBase) -> Beginnings:
    """How a yes and a no may begin: small, capitalised or in capitals, with or without a space.

    As for `questions.read_yes_no`, "not" is a no. A beginning is usually one token; it has more where the
    other class shares the first one, such as a space of its own.

    Raises:
        ModelError: the tokenizer has no token that tells one class from the other.
    """
    spellings = {YES: _spellings(tokenizer, (YES,)), NO: _spellings(tokenizer, (NO, "not"))}
    result = []
    for word, other in ((YES, NO), (NO, YES)):
        shared = {tokens[:k] for tokens in spellings[other] for k in range(len(tokens) + 1)}
        own = [tokens for tokens in spellings[word] if tokens not in shared]
        if not own:
            raise ModelError(f"the tokenizer cannot tell {YES!r} from {NO!r}: no token is of {word!r} alone")
        lengths = [next(k for k in range(1, len(tokens) + 1) if tokens[:k] not in shared) for tokens in own]
        result.append(sorted({tokens[:k] for tokens, k in zip(own, lengths, strict=True)}))
    return result[0], result[1]


def _spellings(tokenizer: PreTrainedTokenizerBase, words: Iterable[str]) -> set[tuple[int, ...]]:
    """Token ids of the words in all ways of writing, without special tokens such as unknown."""
    result = set()
    for text in (form for word in words for form in (word, word.capitalize(), word.upper())):
        texts = [text, f" {text}", f"?{text}", "?"]
        ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
        plain, spaced, after, mark = (tuple(tokens) for tokens in ids)
        result.add(plain)
        if after[: len(mark)] == mark:
            result.add(after[len(mark) :])  # without the space that some tokenizers write before every text
        begins_with_space = plain and tokenizer.convert_ids_to_tokens(plain[0])[0] in "▁Ġ"
        if not (begins_with_space and spaced[-len(plain) :] == plain):  # else it is that with a second space
            result.add(spaced)
    special = set(tokenizer.all_special_ids)
    return {tokens for tokens in result if tokens and not special & set(tokens)}


def first_p_yes(logits: Tensor, begin: Beginnings) -> Tensor:
    """Probability of yes [N] by the first token's logits [N, V]: of each class its likeliest."""
    best = [logits[:, [tokens[0] for tokens in spellings]].amax(1) for spellings in begin]
    return torch.stack(best, 1).softmax(1)[:, 0]


def p_yes(
    model: InstructBlipForConditionalGeneration, inputs: dict[str, Tensor], begin: Beginnings
) -> Tensor:
    """Probability of yes rather than no [N] after prompts of `forward.language_inputs`.

    A class has the probability of its likeliest beginning, so yes is at least as probable as no wherever
    greedy generation would begin with a yes of `begin`, and the reverse. Where it would begin with tokens
    that both classes share, what counts is the token after those: each different shared beginning takes one
    more pass.
    """
    shared = {tokens[:k] for spellings in begin for tokens in spellings for k in range(len(tokens))}
    logits = {node: next_logits(model, inputs, node) for node in sorted(shared, key=len, reverse=True)}
    if len(logits) == 1:
        return first_p_yes(logits[()], begin)
    log_p = {
        node: values.log_softmax(1) for node, values in logits.items()
    }  # tokens of several positions are compared
    p_after = {}  # the longest node first
    for node in log_p:
        below = [[tokens for tokens in spellings if tokens[: len(node)] == node] for spellings in begin]
        best = []
        for spellings in below:
            sums = [sum(log_p[s[:k]][:, s[k]] for k in range(len(node), len(s))) for s in spellings]
            best.append(torch.stack(sums).amax(0))
        p_after[node] = torch.stack(best, 1).softmax(1)[:, 0]
        following = sorted({tokens[len(node)] for spellings in below for tokens in spellings})
        likeliest = log_p[node][:, following].amax(1)
        for token in following:
            if (*node, token) in p_after:
                is_likeliest = log_p[node][:, token] == likeliest
                p_after[node] = torch.where(is_likeliest, p_after[*node, token], p_after[node])
    return p_after[()]
