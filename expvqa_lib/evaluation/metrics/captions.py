"""Captions against their references and by themselves: METEOR, ROUGE-L, BLEU-4, CIDEr-D, similarity, flaws.

Everything is in percent (CIDEr-D times 100). Words are lower case, letters and digits alone, for all metrics.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache, reduce
from operator import or_
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from nltk.translate.meteor_score import meteor_score
from rouge_score.rouge_scorer import RougeScorer
from sklearn.feature_extraction.text import TfidfVectorizer

from ...errors import TableError
from ...facs import ACTION_UNITS
from ...questions import read_aus
from .bootstrap import bootstrap_table, group_codes

ORDER = 4
ORDERS = range(1, ORDER + 1)  # words of an n-gram
_NO_WORDNET = SimpleNamespace(synsets=lambda word: [])  # the real one would have to be downloaded


def tokens(text: str) -> list[str]:
    """Return the words that all caption metrics compare: letters and digits in lower case."""
    return re.findall(r"[^\W_]+", text.lower())


_ROUGE = RougeScorer(["rougeL"], tokenizer=SimpleNamespace(tokenize=tokens))


@cache
def ngrams(text: str, *orders: int) -> Counter[tuple[str, ...]]:
    """Count the n-grams of one caption, of each n of `orders`."""
    words = tokens(text)
    return Counter(tuple(words[k : k + n]) for n in orders for k in range(len(words) - n + 1))


@cache
def bleu_counts(caption: str, references: tuple[str, ...]) -> list[int]:
    """Return 2 ORDER + 2 counts: n-grams shared with a reference, all n-grams, words, the reference's words.

    The reference is the one nearest in length.
    """
    counts = [ngrams(caption, n) for n in ORDERS]
    most = [reduce(or_, (ngrams(text, n) for text in references)) for n in ORDERS]
    hits = [(own & other).total() for own, other in zip(counts, most, strict=True)]
    words, lengths = len(tokens(caption)), (len(tokens(text)) for text in references)
    nearest = min(lengths, key=lambda length: (abs(length - words), length))
    return [*hits, *(own.total() for own in counts), words, nearest]


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


def cider_d(captions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return CIDEr-D [N] of each caption, times 100 as papers print it (Vedantam et al. 2015).

    The mean is the corpus's. How rare an n-gram is comes from these references: a value holds for this set of
    images. One image alone has none (NaN).
    """
    if (total := len(captions)) < 2:
        return np.full(total, np.nan)
    images = Counter(
        gram for texts in references for gram in set().union(*(ngrams(t, *ORDERS) for t in texts))
    )
    rarity = {gram: math.log(total / count) for gram, count in images.items()}

    @cache
    def vector(text: str) -> tuple[dict, np.ndarray, int]:
        """TF-IDF of each n-gram, the norm [ORDER] of each n, and the length in pairs of words."""
        counts = ngrams(text, *ORDERS)
        tfidf = {gram: count * rarity.get(gram, math.log(total)) for gram, count in counts.items()}
        norms = [math.sqrt(sum(tfidf[gram] ** 2 for gram in tfidf if len(gram) == n)) for n in ORDERS]
        return tfidf, np.array(norms), ngrams(text, 2).total()

    pairs = zip(captions, references, strict=True)
    scores = [np.mean([_similarity(vector(text), vector(other)) for other in texts]) for text, texts in pairs]
    return 1000 * np.array(scores)  # 10 of the definition, and percent


def _similarity(caption: tuple[dict, np.ndarray, int], reference: tuple[dict, np.ndarray, int]) -> float:
    """Mean over n of the clipped cosine, less for another length."""
    (vector, norms, length), (other, other_norms, other_length) = caption, reference
    terms = [(len(gram), min(vector[gram], other[gram]) * other[gram]) for gram in vector if gram in other]
    shared, both = [sum(value for n, value in terms if n == order) for order in ORDERS], norms * other_norms
    cosine = np.divide(shared, both, out=np.zeros(ORDER), where=both > 0)
    return cosine.mean() * math.exp(-((length - other_length) ** 2) / (2 * 6.0**2))  # sigma: 6 words


def tfidf_similarity(captions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the best cosine [N] over a caption's references of TF-IDF vectors of words and pairs of words.

    It knows no meaning: another word for the same action counts as a miss. How rare a word is comes from
    these references.
    """
    texts = pd.Series(list(map(list, references))).explode()
    vectorizer = TfidfVectorizer(tokenizer=tokens, token_pattern=None, ngram_range=(1, 2)).fit(texts)
    product = vectorizer.transform(captions)[texts.index].multiply(vectorizer.transform(texts))
    cosines = pd.Series(100 * np.asarray(product.sum(axis=1)).ravel(), texts.index)
    return cosines.groupby(level=0).max().to_numpy()


@cache
def meteor_exact_stem(caption: str, references: tuple[str, ...]) -> float:
    """Return nltk's METEOR in percent, best over references, of equal words and Porter stems.

    No synonyms. Parameters of Banerjee and Lavie 2005: alpha 0.9, beta 3, gamma 0.5. With WordNet's synonyms
    most values are higher, and METEOR 1.5 differs by several points: they must not stand in one column.
    """
    return 100 * meteor_score(list(map(tokens, references)), tokens(caption), wordnet=_NO_WORDNET)


@cache
def rouge_l(caption: str, references: tuple[str, ...]) -> float:
    """Return ROUGE-L's F1 in percent by rouge_score, best over references (Lin 2004, without stems)."""
    return 100 * _ROUGE.score_multi(references, caption)["rougeL"].fmeasure


def repetition(text: str, _: Sequence[str] = ()) -> float:
    """Return the percent of a caption's groups of 3 words that it has had before (Welleck et al. 2020)."""
    counts = ngrams(text, 3)
    return 100 * (1 - len(counts) / counts.total()) if counts else 0.0


_OF_ALL = {"cider_d": cider_d, "tfidf_similarity": tfidf_similarity}
"""Scores of all captions with all references, since these say how rare a word is."""
_OF_EACH = {
    "meteor_exact_stem": meteor_exact_stem,
    "rouge_l": rouge_l,
    "bleu4": lambda text, references: float(bleu(np.array(bleu_counts(text, references)), smooth=True)),
    "repetition": repetition,
    "empty": lambda text, _: 100.0 * (not text.strip()),
    "no_letter": lambda text, _: 100.0 * (bool(text.strip()) and not any(map(str.isalpha, text))),
    "one_word": lambda text, _: 100.0 * (len(words := tokens(text)) > 2 and len(set(words)) == 1),
    "unfinished": lambda text, _: 100.0 * (re.search(r"[.!?][\"')\]]*\s*$", text) is None),
}
METRICS = (*list(_OF_EACH)[:3], *_OF_ALL, *list(_OF_EACH)[3:])


def caption_scores(
    captions: Iterable[str],
    references: Iterable[Sequence[str]],
    *,
    metrics: Sequence[str] = METRICS,
) -> pd.DataFrame:
    """Score each caption by itself: one row a caption, one column a metric, in percent.

    Args:
        captions: one text a row; an empty one has 0 wherever it is compared.
        references: one list of texts a row; of several, the best counts for METEOR, ROUGE-L and similarity
            (Exp-BLIP, table 2), while BLEU and CIDEr-D have ways of their own.
        metrics: of `METRICS`. `bleu4` is smoothed here (see `bleu`).

    Raises:
        TableError: a caption is no text, or lacks a list of references with a word.
    """
    pairs = _checked(captions, references)
    alone = {name: [_OF_EACH[name](*pair) for pair in pairs] for name in metrics if name in _OF_EACH}
    together = {name: _OF_ALL[name](*zip(*pairs, strict=True)) for name in metrics if name in _OF_ALL}
    return pd.DataFrame(alone | together)[list(metrics)]


def caption_table(
    captions: Iterable[str],
    references: Iterable[Sequence[str]],
    *,
    target: str = "captions",
    groups: Iterable[object] | None = None,
    metrics: Sequence[str] = METRICS,
    **settings: Any,
) -> pd.DataFrame:
    """Score all captions together: means of `caption_scores`, and the BLEU-4 of the corpus, unsmoothed.

    Args:
        captions, references, metrics: as for `caption_scores`, as are the errors.
        target: what the rows of the table are called (`Q1`, say).
        groups, settings: as for `au_table`. CIDEr-D keeps the word weights of all images in each resample.

    Returns:
        Tidy table with the columns of `au_table`. Support is the number of captions.
    """
    pairs = _checked(captions, references)
    table = caption_scores(*zip(*pairs, strict=True), metrics=metrics)
    values, counts = table.to_numpy(float), np.array([bleu_counts(*pair) for pair in pairs], float)

    def measure(weights: np.ndarray) -> np.ndarray:
        mean = weights @ values / weights.sum(axis=1, keepdims=True)  # [R, metric]
        return np.where(table.columns == "bleu4", bleu(weights @ counts)[:, None], mean)

    rows = [(target, metric, len(table)) for metric in table]
    return bootstrap_table(measure, rows, group_codes(groups, len(table)), **settings)


def _checked(
    captions: Iterable[str], references: Iterable[Sequence[str]]
) -> list[tuple[str, tuple[str, ...]]]:
    """Each caption with its references that have a word."""
    pairs = list(zip(captions, references, strict=True))
    for row, (caption, texts) in enumerate(pairs):
        if not isinstance(caption, str) or isinstance(texts, str) or not any(map(tokens, texts)):
            wanted = "expected a text, and a list of texts of which one has a word"
            raise TableError(f"caption {row}: found {caption!r} and the references {texts!r}; {wanted}")
    return [(caption, tuple(filter(tokens, texts))) for caption, texts in pairs]


def caption_aus(captions: Iterable[str], columns: Sequence[str]) -> pd.DataFrame:
    """Read which AUs captions say are present: a row a caption, 1.0 or 0.0 in each of `columns` (`AU1` ...).

    As scores for `au_table` they give the captions' precision and recall; there is nothing to rank by.
    """
    present = [dict.fromkeys((ACTION_UNITS[au].name for au in read_aus(text)[0]), 1.0) for text in captions]
    return pd.DataFrame(present, columns=list(columns), dtype=float).fillna(0.0)
