"""Captions against their references and by themselves: METEOR, ROUGE-L, BLEU-4, CIDEr-D, similarity, flaws.

Everything is in percent (CIDEr-D times 100). Words are lower case, letters and digits alone, for all metrics.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from nltk.translate.meteor_score import meteor_score
from rouge_score.rouge_scorer import RougeScorer

from ...errors import TableError
from ...facs import ACTION_UNITS
from ...questions import read_aus
from .au import check_names
from .bootstrap import bootstrap_table, group_codes
from .similarity import (
    Tokens,
    bleu,
    bleu_counts,
    cider_d,
    ngrams,
    tfidf_similarity,
    tokens,
)

REPEATED = 3  # words: a repetition is a group of so many that the caption has had before
_NO_WORDNET = SimpleNamespace(synsets=lambda word: [])  # the real one would have to be downloaded
_WORDS = SimpleNamespace(tokenize=lambda words: words)  # of captions that are tokenised already


def meteor_exact_stem(captions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> np.ndarray:
    """Return nltk's METEOR [N] in percent, best over references, of equal words and Porter stems.

    No synonyms. Parameters of Banerjee and Lavie 2005: alpha 0.9, beta 3, gamma 0.5. With WordNet's synonyms
    most values are higher, and METEOR 1.5 differs by several points: they must not stand in one column.
    """
    pairs = zip(captions, references, strict=True)
    return 100 * np.array([meteor_score(texts, caption, wordnet=_NO_WORDNET) for caption, texts in pairs])


def rouge_l(captions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> np.ndarray:
    """Return ROUGE-L's F1 [N] in percent by rouge_score, best over references (Lin 2004, without stems)."""
    scorer, pairs = RougeScorer(["rougeL"], tokenizer=_WORDS), zip(captions, references, strict=True)
    return 100 * np.array([scorer.score_multi(texts, caption)["rougeL"].fmeasure for caption, texts in pairs])


def repetition(text: str) -> float:
    """Return the percent of a caption's groups of 3 words that it has had before (Welleck et al. 2020)."""
    counts = ngrams(tokens(text), REPEATED)
    return 100 * (1 - len(counts) / counts.total()) if counts else 0.0


def _of_each(flaw: Callable[[str], float]) -> Callable[..., list[float]]:
    return lambda captions, references: [flaw(text) for text in captions]


def _once(score: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Let a score of tokenised captions compare equal captions with equal references once."""

    def scores(captions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        pairs = pd.Series(list(zip(captions, map(tuple, references), strict=True)), dtype=object)
        codes, cases = pd.factorize(pairs.to_numpy())
        words = [tokens(caption) for caption, _ in cases], [[tokens(t) for t in texts] for _, texts in cases]
        times = {"times": np.bincount(codes)} if score is cider_d else {}
        return score(*words, **times)[codes]

    return scores


_SCORES = {
    "meteor_exact_stem": _once(meteor_exact_stem),
    "rouge_l": _once(rouge_l),
    "bleu4": _once(lambda captions, references: bleu(bleu_counts(captions, references), smooth=True)),
    "cider_d": _once(cider_d),
    "tfidf_similarity": tfidf_similarity,
    "repetition": _of_each(repetition),
    "empty": _of_each(lambda text: 100.0 * (not text.strip())),
    "no_letter": _of_each(lambda text: 100.0 * (bool(text.strip()) and not any(map(str.isalpha, text)))),
    "one_word": _of_each(lambda text: 100.0 * (len(words := tokens(text)) > 2 and len(set(words)) == 1)),
    "unfinished": _of_each(lambda text: 100.0 * (re.search(r"[.!?][\"')\]]*\s*$", text) is None)),
}
METRICS = tuple(_SCORES)


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
        metrics: of `METRICS`. `bleu4` is smoothed here (see `similarity.bleu`).

    Raises:
        TableError: a caption is no text, or lacks a list of references with a word.
        SettingsError: a metric is unknown.
    """
    check_names(metrics, METRICS, "metric")
    captions, references = _checked(captions, references)
    return pd.DataFrame({metric: _SCORES[metric](captions, references) for metric in metrics})


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
    captions, references = _checked(captions, references)
    table = caption_scores(captions, references, metrics=metrics)
    values, counts = table.to_numpy(dtype=float), _once(bleu_counts)(captions, references)

    def measure(weights: np.ndarray) -> np.ndarray:
        mean = weights @ values / weights.sum(axis=1, keepdims=True)  # [R, metric]
        return np.where(table.columns == "bleu4", bleu(weights @ counts)[:, None], mean)

    rows = [(target, metric, len(table)) for metric in table]
    return bootstrap_table(measure, rows, group_codes(groups, len(table)), **settings)


def _checked(
    captions: Iterable[str], references: Iterable[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """Both as lists; references without a word are dropped."""
    pairs = list(zip(captions, references, strict=True))
    for row, (caption, texts) in enumerate(pairs):
        if not isinstance(caption, str) or isinstance(texts, str) or not any(map(tokens, texts)):
            wanted = "expected a text, and a list of texts of which one has a word"
            raise TableError(f"caption {row}: found {caption!r} and the references {texts!r}; {wanted}")
    return [caption for caption, _ in pairs], [[text for text in texts if tokens(text)] for _, texts in pairs]


def caption_aus(captions: Iterable[str], columns: Sequence[str]) -> pd.DataFrame:
    """Read which AUs captions say are present: a row a caption, 1.0 or 0.0 in each of `columns` (`AU1` ...).

    As scores for `au_table` they give the captions' precision and recall; there is nothing to rank by.
    """
    present = [{ACTION_UNITS[au].name for au in read_aus(text)[0]} for text in captions]
    return pd.DataFrame([[float(name in aus) for name in columns] for aus in present], columns=list(columns))
