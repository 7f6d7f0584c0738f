"""How near captions are to their references: BLEU and CIDEr-D, a caption at a time, and cosines; percent."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from transformers import pipeline

from ...errors import ModelError

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
        hits, total = [], []
        for n in range(1, ORDER + 1):
            counts, most = ngrams(caption, n), Counter()
            for reference in texts:
                most |= ngrams(reference, n)
            hits.append(sum((counts & most).values()))
            total.append(sum(counts.values()))
        nearest = min(map(len, texts), key=lambda length: (abs(length - len(caption)), length))
        rows.append([*hits, *total, len(caption), nearest])
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
    captions: Sequence[Tokens], references: Sequence[Sequence[Tokens]], times: Sequence[int] | None = None
) -> np.ndarray:
    """Return CIDEr-D [N] of each caption, times 100 as papers print it (Vedantam et al. 2015).

    The mean is the corpus's. How rare an n-gram is comes from these references: a value holds for this set of
    images. One image alone has none (NaN).

    Args:
        times: how many images share the caption and its references; one where None.
    """
    times = np.ones(len(captions), int) if times is None else np.asarray(times)
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
    shared = np.zeros(ORDER)
    for gram in (gram for gram in vector if gram in other):  # in one order
        shared[len(gram) - 1] += min(vector[gram], other[gram]) * other[gram]
    both = norms * other_norms
    cosine = np.divide(shared, both, out=np.zeros(ORDER), where=both > 0)
    return cosine.mean() * math.exp(-((length - other_length) ** 2) / (2 * SIGMA**2))


def tfidf_similarity(captions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the best cosine [N] over a caption's references of TF-IDF vectors of words and pairs of words.

    It knows no meaning: another word for the same action counts as a miss. How rare a word is comes from
        these
    references.
    """
    texts, rows = _flat(references)
    vectorizer = TfidfVectorizer(tokenizer=tokens, token_pattern=None, ngram_range=(1, 2)).fit(texts)
    product = vectorizer.transform(captions)[rows].multiply(vectorizer.transform(texts))
    return _best(np.asarray(product.sum(axis=1)).ravel(), rows)


def embedding_similarity(
    captions: Sequence[str], references: Sequence[Sequence[str]], encoder: str | Path
) -> np.ndarray:
    """Return the best cosine [N] over a caption's references of sentence embeddings; 0 for no word.

    Args:
        encoder: a folder or hub name of a text encoder of transformers (BERT and its kin). A sentence's
            embedding is the mean of its last hidden states.

    Raises:
        ModelError: no encoder and tokenizer could be loaded.
    """
    try:
        extract = pipeline("feature-extraction", str(encoder), tokenize_kwargs={"truncation": True})
    except Exception as error:
        message = f"{encoder}: no sentence encoder could be loaded ({error})"
        raise ModelError(f"{message}; expected a folder or hub name of a BERT and its tokenizer") from error
    texts, rows = _flat(references)
    means = {text: np.mean(extract(text)[0], axis=0) for text in {*captions, *texts}}
    unit = {text: mean / np.linalg.norm(mean) for text, mean in means.items()}
    cosines = [unit[captions[row]] @ unit[text] for row, text in zip(rows, texts, strict=True)]
    return np.where([bool(tokens(text)) for text in captions], _best(np.array(cosines), rows), 0.0)


def _flat(references: Sequence[Sequence[str]]) -> tuple[list[str], np.ndarray]:
    """All references one after the other, and the row of each."""
    rows = np.repeat(np.arange(len(references)), [len(texts) for texts in references])
    return [text for texts in references for text in texts], rows


def _best(cosines: np.ndarray, rows: np.ndarray) -> np.ndarray:
    best = np.full(rows.max() + 1, -np.inf)
    np.maximum.at(best, rows, 100 * cosines)
    return best
