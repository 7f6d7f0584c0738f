"""BLEU and CIDEr-D of tokenised captions, as counts that a bootstrap can weigh; the libraries give whole-corpus values only."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

ORDER = 4  # n-grams of 1 to 4 words
SIGMA = 6.0  # words, of CIDEr-D's penalty on another length

Tokens = Sequence[str]


def tokens(text: str) -> list[str]:
    """Return the words that all caption metrics compare: letters and digits in lower case."""
    return re.findall(r"[^\W_]+", text.lower())


def ngrams(words: Tokens, n: int) -> Counter[tuple[str, ...]]:
    """Count the n-grams of one caption."""
    return Counter(tuple(words[k : k + n]) for k in range(len(words) - n + 1))


def bleu_counts(caption: Tokens, references: Sequence[Tokens]) -> np.ndarray:
    """Return [2 ORDER + 2]: n-grams that a reference has too, n-grams, words, and words of the reference nearest in length."""
    hits, total = [], []
    for n in range(1, ORDER + 1):
        mine = ngrams(caption, n)
        most: Counter = Counter()
        for reference in references:
            most |= ngrams(reference, n)
        hits.append(sum((mine & most).values()))
        total.append(sum(mine.values()))
    nearest = min((len(r) for r in references), key=lambda length: (abs(length - len(caption)), length))
    return np.array([*hits, *total, len(caption), nearest], dtype=float)


def bleu(counts: np.ndarray, smooth: bool = False) -> np.ndarray:
    """Return BLEU-4 [...] in percent of summed `bleu_counts` [..., 2 ORDER + 2]: of a corpus, or of one caption with `smooth`.

    Papineni et al. 2002; `smooth` adds 1 to the counts of two words and more (Lin and Och 2004), without which most captions have 0.
    """
    hits, total = counts[..., :ORDER], counts[..., ORDER : 2 * ORDER]
    if smooth:
        more = np.arange(ORDER) > 0
        hits, total = hits + more, total + more
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.divide(hits, total, out=np.zeros(hits.shape), where=total > 0)).mean(axis=-1)
        brevity = np.minimum(0.0, 1 - counts[..., -1] / counts[..., -2])
        return np.where(hits.min(axis=-1) > 0, 100 * np.exp(logs + brevity), 0.0)


def cider_d(
    captions: Sequence[Tokens], references: Sequence[Sequence[Tokens]], times: Sequence[int] | None = None
) -> np.ndarray:
    """Return CIDEr-D [N] of each caption, times 100 as papers print it (Vedantam et al. 2015); its mean is the corpus's.

    How rare an n-gram is comes from these references: a value holds for this set of images. One image alone has none (NaN).

    Args:
        times: how many images share the caption and its references; one where None.
    """
    times = np.ones(len(captions), int) if times is None else np.asarray(times)
    total = int(times.sum())
    if total < 2:
        return np.full(len(captions), np.nan)
    cooked = [[_all_ngrams(r) for r in those] for those in references]
    images: Counter = Counter()
    for those, count in zip(cooked, times.tolist(), strict=True):
        for gram in set().union(*those):
            images[gram] += count
    weigh = {gram: math.log(total / count) for gram, count in images.items()}
    unseen = math.log(total)
    return np.array(
        [_similarity(_all_ngrams(c), those, weigh, unseen) for c, those in zip(captions, cooked, strict=True)]
    )


def _all_ngrams(words: Tokens) -> Counter[tuple[str, ...]]:
    return Counter(gram for n in range(1, ORDER + 1) for gram in ngrams(words, n).elements())


def _similarity(caption: Counter, references: Iterable[Counter], weigh: dict, unseen: float) -> float:
    """Mean over references and n of the clipped cosine similarity, times 1000: 10 of the definition, and percent."""
    mine, norms, length = _vector(caption, weigh, unseen)
    found = []
    for reference in references:
        other, other_norms, other_length = _vector(reference, weigh, unseen)
        shared = np.zeros(ORDER)
        for gram, value in mine.items():
            if gram in other:
                shared[len(gram) - 1] += min(value, other[gram]) * other[gram]
        both = norms * other_norms
        cosine = np.divide(shared, both, out=np.zeros(ORDER), where=both > 0)
        found.append(cosine.mean() * math.exp(-((length - other_length) ** 2) / (2 * SIGMA**2)))
    return 1000 * float(np.mean(found))


def _vector(counts: Counter, weigh: dict, unseen: float) -> tuple[dict, np.ndarray, int]:
    """TF-IDF of each n-gram, the norm [ORDER] of each n, and the length in pairs of words, as the authors' code counts it."""
    vector = {gram: count * weigh.get(gram, unseen) for gram, count in counts.items()}
    squares = np.zeros(ORDER)
    for gram, value in vector.items():
        squares[len(gram) - 1] += value**2
    return vector, np.sqrt(squares), sum(count for gram, count in counts.items() if len(gram) == 2)
