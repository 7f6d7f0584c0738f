"""Captions against their references and by themselves: METEOR, ROUGE-L, BLEU-4, CIDEr-D, similarity, flaws.

Everything is in percent (CIDEr-D times 100). Words are lower case, letters and digits alone, for all metrics.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from nltk.translate.meteor_score import meteor_score
from rouge_score.rouge_scorer import RougeScorer

from ...errors import SettingsError, TableError
from ...facs import ACTION_UNITS
from ...questions import read_aus
from .au import check_names
from .bootstrap import bootstrap_table, group_codes
from .similarity import (
    ORDER,
    Tokens,
    bleu,
    bleu_counts,
    cider_d,
    embedding_similarity,
    ngrams,
    tfidf_similarity,
    tokens,
)

METRICS = (
    *("meteor_exact_stem", "rouge_l", "bleu4", "cider_d", "tfidf_similarity"),
    *("repetition", "empty", "no_letter", "one_word", "unfinished"),
)
ALL_METRICS = (*METRICS, "embedding_similarity")
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


_FLAWS: dict[str, Callable[[str], float]] = {
    "repetition": repetition,
    "empty": lambda text: 100.0 * (not text.strip()),
    "no_letter": lambda text: 100.0 * (bool(text.strip()) and not any(map(str.isalpha, text))),
    "one_word": lambda text: 100.0 * (len(words := tokens(text)) > 2 and len(set(words)) == 1),
    "unfinished": lambda text: 100.0 * (re.search(r"[.!?][\"')\]]*\s*$", text) is None),
}


def caption_scores(
    captions: Iterable[str],
    references: Iterable[Sequence[str]],
    *,
    metrics: Sequence[str] = METRICS,
    encoder: str | Path | None = None,
) -> pd.DataFrame:
    """Score each caption by itself: one row a caption, one column a metric, in percent.

    Args:
        captions: one text a row; an empty one has 0 wherever it is compared.
        references: one list of texts a row; of several, the best counts for METEOR, ROUGE-L and similarity
            (Exp-BLIP, table 2), while BLEU and CIDEr-D have ways of their own. A row without a reference is
            NaN for all metrics that need one, with a warning.
        metrics: of `ALL_METRICS`. `bleu4` is smoothed here (see `similarity.bleu`).
        encoder: of `similarity.embedding_similarity`; where given, that metric is added.

    Raises:
        TableError: the lengths differ, a caption is missing (None, NaN) or no text, references are a text
            instead of a list, or no row has one.
        SettingsError: a metric is unknown, or lacks its encoder.
        ModelError: the encoder cannot be loaded.
    """
    metrics = list(dict.fromkeys([*metrics, *(["embedding_similarity"] if encoder else [])]))
    check_names(metrics, ALL_METRICS, "metric")
    if "embedding_similarity" in metrics and encoder is None:
        raise SettingsError(
            "embedding_similarity needs an encoder: name a folder; tfidf_similarity needs none"
        )
    captions, references = _checked(captions, references)
    rows = [k for k, texts in enumerate(references) if texts]
    if len(rows) < len(captions) and not set(metrics) <= set(_FLAWS):
        if not rows:
            raise TableError(
                "references: no row has any; the metrics that need none are " + ", ".join(_FLAWS)
            )
        left_out = len(captions) - len(rows)
        warnings.warn(
            f"{left_out} of {len(captions)} captions have no reference and are left out", stacklevel=2
        )
    table = pd.DataFrame(np.nan, index=range(len(captions)), columns=metrics)
    compared = [captions[k] for k in rows], [references[k] for k in rows]
    for metric in metrics:
        if metric in _FLAWS:
            table[metric] = [_FLAWS[metric](text) for text in captions]
        elif metric == "embedding_similarity":
            table.loc[rows, metric] = embedding_similarity(*compared, encoder)
        else:
            table.loc[rows, metric] = _COMPARISONS[metric](*compared)
    return table


def caption_table(
    captions: Iterable[str],
    references: Iterable[Sequence[str]],
    *,
    target: str = "captions",
    groups: Iterable[object] | None = None,
    metrics: Sequence[str] = METRICS,
    encoder: str | Path | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Score all captions together: means of `caption_scores`, and the BLEU-4 of the corpus, unsmoothed.

    Args:
        captions, references, metrics, encoder: as for `caption_scores`.
        target: what the rows of the table are called (`Q1`, say).
        groups, settings: as for `au_table`. CIDEr-D keeps the word weights of all images in each resample.

    Returns:
        Tidy table with the columns of `au_table`. Support is the number of captions that the metric is over.

    Raises:
        As `caption_scores`.
    """
    captions, references = _checked(captions, references)
    table = caption_scores(captions, references, metrics=metrics, encoder=encoder)
    values, defined = np.nan_to_num(table.to_numpy(dtype=float)), table.notna().to_numpy()
    counts = np.zeros((len(table), 2 * ORDER + 2))
    if "bleu4" in table:
        rows = [k for k, texts in enumerate(references) if texts]
        counts[rows] = _once(bleu_counts)([captions[k] for k in rows], [references[k] for k in rows])

    def measure(weights: np.ndarray) -> np.ndarray:
        total = (weights @ defined).astype(float)  # [R, metric]
        undefined = np.full(total.shape, np.nan)
        mean = np.divide(weights @ values, total, out=undefined, where=total > 0)
        return np.where(table.columns == "bleu4", bleu(weights @ counts)[:, None], mean)

    support = defined.sum(axis=0).tolist()
    rows = [(target, metric, count) for metric, count in zip(table, support, strict=True)]
    return bootstrap_table(measure, rows, group_codes(groups, len(table)), **settings)


def caption_aus(captions: Iterable[str], columns: Sequence[str]) -> pd.DataFrame:
    """Read which AUs captions say are present: a row a caption, 1.0 or 0.0 in each of `columns` (`AU1` ...).

    As scores for `au_table` they give the captions' precision and recall; there is nothing to rank by.
    """
    present = [{ACTION_UNITS[au].name for au in read_aus(text)[0]} for text in captions]
    return pd.DataFrame([[float(name in aus) for name in columns] for aus in present], columns=list(columns))


def _once(score: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Let a score of tokenised captions compare equal captions with equal references once."""

    def scores(captions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        pairs = pd.Series(list(zip(captions, map(tuple, references), strict=True)), dtype=object)
        codes, cases = pd.factorize(pairs.to_numpy())
        words = [tokens(caption) for caption, _ in cases], [[tokens(t) for t in texts] for _, texts in cases]
        times = {"times": np.bincount(codes)} if score is cider_d else {}
        return score(*words, **times)[codes]

    return scores


_COMPARISONS = {
    "meteor_exact_stem": _once(meteor_exact_stem),
    "rouge_l": _once(rouge_l),
    "bleu4": _once(lambda captions, references: bleu(bleu_counts(captions, references), smooth=True)),
    "cider_d": _once(cider_d),
    "tfidf_similarity": tfidf_similarity,
}


def _checked(
    captions: Iterable[str], references: Iterable[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """Both as lists; references without a word are dropped."""
    captions, references = list(captions), list(references)
    if not captions or len(captions) != len(references):
        count = f"{len(captions)} captions and {len(references)} lists of references"
        raise TableError(f"{count}; expected one caption or more, with one list each")
    for row, (caption, texts) in enumerate(zip(captions, references, strict=True)):
        if not isinstance(caption, str):
            raise TableError(
                f'caption {row}: found {caption!r}, expected a text; write "" where the model said nothing'
            )
        if isinstance(texts, str):
            raise TableError(
                f"references of caption {row}: found the text {texts[:40]!r}, expected a list of texts"
            )
    lists = [[] if texts is None or isinstance(texts, float) else texts for texts in references]
    return captions, [[text for text in texts if isinstance(text, str) and tokens(text)] for texts in lists]
