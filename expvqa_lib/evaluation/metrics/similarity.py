"""How near captions are to their references: BLEU, CIDEr-D and the cosine of TF-IDF; percent."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import reduce
from operator import or_

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

ORDER = 4  # n-grams of 1 to 4 words
SIGMA = 6.0  # words, of CIDEr-D's penalty on another length

Tokens = Sequence[str]


def tokens(text: str) -> list[str]:
    """Return the words that all caption metrics compare: letters and digits in lower case."""
    return re.findall(r"[^\W_]+", text.lower())


def ngrams(words: Tokens, n: int) -> Counter[tuple[str, ...]]:
    """Count the n-grams of one caption."""
    return Counter(tuple(words[k : k + n]) for k in range(len(words) - n + 1))


def bleu_counts(captions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> np.ndarray:
    """Return [N, 2 ORDER + 2]: n-grams shared with a reference, all n-grams, words, the reference's words.

    The reference is the one nearest in length.
    """
    rows = []
    for caption, texts in zip(captions, references, strict=True):
        counts = [ngrams(caption, n) for n in range(1, ORDER + 1)]
        most = [reduce(or_, (ngrams(text, n) for text in texts)) for n in range(1, ORDER + 1)]
        hits = [(own & other).total() for own, other in zip(counts, most, strict=True)]
        nearest = min(map(len, texts), key=lambda length: (abs(length - len(caption)), length))
        rows.append([*hits, *(own.total() for own in counts), len(caption), nearest])
    return np.array(rows, dtype=float)


def bleu(counts: np.ndarray, smooth: bool = False) -> np.ndarray:
    """Return BLEU-4 [...] in percent of summed `bleu_counts` [..., 2 ORDER + 2].

    Papineni et al. 2002; `smooth` adds 1 to the counts of two words and more (Lin and Och 2004), without
    which most captions have 0.
    """
    more = (np.arange(ORDER) > 0) * float(smooth)
    hits, total = counts[..., :ORDER] + more, counts[..., ORDER : 2 * ORDER] + more
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.divide(hits, total, out=np.zeros(hits.shape), where=total > 0)).mean(axis=-1)
        brevity = np.minimum(0.0, 1 - counts[..., -1] / counts[..., -2])
        return np.where(hits.min(axis=-1) > 0, 100 * np.exp(logs + brevity), 0.0)


def cider_d(
    captions: Sequence[Tokens], references: Sequence[Sequence[Tokens]], times: np.ndarray
) -> np.ndarray:
    """Return CIDEr-D [N] of each caption, times 100 as papers print it (Vedantam et al. 2015).

    The mean is the corpus's. How rare an n-gram is comes from these references: a value holds for this set of
    images. One image alone has none (NaN).

    Args:
        times: how many images [N] share the caption and its references.
    """
    total = int(times.sum())
    if total < 2:
        return np.full(len(captions), np.nan)
    counts = [[_all_ngrams(reference) for reference in texts] for texts in references]
    images: Counter = Counter()
    for texts, count in zip(counts, times.tolist(), strict=True):
        images.update(dict.fromkeys(set().union(*texts), count))
    rarity = {gram: math.log(total / count) for gram, count in images.items()}
    values = []
    for caption, texts in zip(captions, counts, strict=True):
        vector = _vector(_all_ngrams(caption), rarity, total)
        values.append(np.mean([_similarity(vector, _vector(text, rarity, total)) for text in texts]))
    return 1000 * np.array(values)  # 10 of the definition, and percent


def _all_ngrams(words: Tokens) -> Counter[tuple[str, ...]]:
    return Counter(gram for n in range(1, ORDER + 1) for gram in ngrams(words, n).elements())


def _vector(counts: Counter, rarity: dict, total: int) -> tuple[dict, np.ndarray, int]:
    """TF-IDF of each n-gram, the norm [ORDER] of each n, and the length in pairs of words."""
    vector = {gram: count * rarity.get(gram, math.log(total)) for gram, count in counts.items()}
    squares = np.zeros(ORDER)
    for gram, value in vector.items():
        squares[len(gram) - 1] += value**2
    return vector, np.sqrt(squares), sum(count for gram, count in counts.items() if len(gram) == 2)


def _similarity(caption: tuple[dict, np.ndarray, int], reference: tuple[dict, np.ndarray, int]) -> float:
    """Mean over n of the clipped cosine, less for another length."""
    (vector, norms, length), (other, other_norms, other_length) = caption, reference
    shared, both = np.zeros(ORDER), norms * other_norms
    for gram in (gram for gram in vector if gram in other):  # in one order
        shared[len(gram) - 1] += min(vector[gram], other[gram]) * other[gram]
    cosine = np.divide(shared, both, out=np.zeros(ORDER), where=both > 0)
    return cosine.mean() * math.exp(-((length - other_length) ** 2) / (2 * SIGMA**2))


def tfidf_similarity(captions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the best cosine [N] over a caption's references of TF-IDF vectors of words and pairs of words.

    It knows no meaning: another word for the same action counts as a miss. How rare a word is comes from
    these references.
    """
    texts = [text for several in references for text in several]
    rows = np.repeat(np.arange(len(references)), [len(several) for several in references])
    vectorizer = TfidfVectorizer(tokenizer=tokens, token_pattern=None, ngram_range=(1, 2)).fit(texts)
    product = vectorizer.transform(captions)[rows].multiply(vectorizer.transform(texts))
    best = np.full(len(references), -np.inf)
    np.maximum.at(best, rows, 100 * np.asarray(product.sum(axis=1)).ravel())
    return best
