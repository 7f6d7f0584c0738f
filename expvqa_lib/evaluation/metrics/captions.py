"""Captions against their references and by themselves: METEOR, ROUGE-L, BLEU-4, CIDEr-D, similarity, repetition, degenerate output.

Everything is in percent (CIDEr-D times 100). Words are lower case, letters and digits alone, for all metrics.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import datasets
import evaluate
import numpy as np
import pandas as pd

from ...errors import SettingsError, TableError
from ...facs import ACTION_UNITS
from ...questions import read_aus
from . import ngrams
from .au import COLUMNS
from .bootstrap import bootstrap, group_codes
from .meteor import meteor_1_5, meteor_exact_stem
from .ngrams import tokens
from .similarity import embedding_similarity, tfidf_similarity

METRICS = (
    *("meteor_exact_stem", "rouge_l", "bleu4", "cider_d", "tfidf_similarity"),
    *("repetition", "empty", "no_letter", "one_word", "unfinished"),
)
REPEATED = 3  # words: a repetition is a group of so many that the caption has had before


def rouge_l(captions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return ROUGE-L's F1 [N] in percent by rouge_score, best over references (Lin 2004, without stems)."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=_Tokenizer())
    values = [
        scorer.score_multi(those, caption)["rougeL"].fmeasure
        for caption, those in zip(captions, references, strict=True)
    ]
    return 100 * np.array(values)


class _Tokenizer:
    tokenize = staticmethod(tokens)


def repetition(text: str) -> float:
    """Return the percent of a caption's groups of 3 words that it has had before (seq-rep-n of Welleck et al. 2020, with n = 3)."""
    counts = ngrams.ngrams(tokens(text), REPEATED)
    return 100 * (1 - len(counts) / counts.total()) if counts else 0.0


_FLAWS: dict[str, Callable[[str], float]] = {
    "repetition": repetition,
    "empty": lambda text: 100.0 * (not text.strip()),
    "no_letter": lambda text: 100.0 * (bool(text.strip()) and not any(map(str.isalpha, text))),
    "one_word": lambda text: 100.0 * (len(words := tokens(text)) > 2 and len(set(words)) == 1),
    "unfinished": lambda text: 100.0 * (re.search(r"[.!?][\"')\]]*\s*$", text) is None),
}
_OF_WORDS = {"meteor_exact_stem": meteor_exact_stem, "meteor_1_5": meteor_1_5}
ALL_METRICS = (*METRICS, "meteor_1_5", "embedding_similarity")


def caption_scores(
    captions: Iterable[str],
    references: Iterable[Sequence[str]],
    *,
    metrics: Sequence[str] = METRICS,
    encoder: str | Path | None = None,
) -> pd.DataFrame:
    """Score each caption by itself: one row a caption, one column a metric, in percent.

    Args:
        captions: one text a row; an empty one is an answer, too, and has 0 wherever it is compared.
        references: one list of texts a row; of several, the best counts for METEOR, ROUGE-L and similarity (Exp-BLIP, table 2), while
            BLEU and CIDEr-D have ways of their own. A row with none, or with empty ones alone, is NaN for all that need them.
        metrics: of `ALL_METRICS`. `bleu4` is smoothed here (see `ngrams.bleu`).
        encoder: of `similarity.embedding_similarity`; where given, that metric is added.

    Raises:
        TableError: the lengths differ, a caption is missing (None, NaN) or no text, or references are a text instead of a list.
        SettingsError: a metric is unknown, or lacks its encoder or program.
        ModelError: the encoder cannot be loaded.
    """
    table, counts = _scored(captions, references, metrics, encoder)
    return (
        table
        if counts is None
        else table.assign(bleu4=np.where(table["bleu4"].notna(), ngrams.bleu(counts, smooth=True), np.nan))
    )


def caption_table(
    captions: Iterable[str],
    references: Iterable[Sequence[str]],
    *,
    model: str,
    dataset: str,
    split: str,
    target: str = "captions",
    groups: Iterable[object] | None = None,
    metrics: Sequence[str] = METRICS,
    encoder: str | Path | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Score all captions together: the mean of `caption_scores`, but for BLEU-4, which is the corpus's own, unsmoothed.

    Args:
        captions, references, metrics, encoder: as for `caption_scores`.
        target: what the rows of the table are called (`Q1`, say).
        groups, resamples, seed: as for `au_table`. CIDEr-D keeps the word weights of all images in each resample.

    Returns:
        Tidy table with the columns of `au_table`. Support is the number of captions that the metric is over; rows without references are
        left out of those that need them, with a warning.

    Raises:
        As `caption_scores`; TableError also where no row has a reference.
    """
    table, counts = _scored(captions, references, metrics, encoder)
    values = table.to_numpy(dtype=float)
    defined = ~np.isnan(values)
    corpus = table.columns.get_loc("bleu4") if counts is not None else None

    def measure(weights: np.ndarray) -> np.ndarray:
        total = (weights @ defined).astype(float)  # [R, metric]
        mean = np.divide(
            weights @ np.nan_to_num(values), total, out=np.full(total.shape, np.nan), where=total > 0
        )
        if counts is not None:
            mean[:, corpus] = ngrams.bleu(weights @ np.nan_to_num(counts))
        return mean

    value, low, high = bootstrap(measure, group_codes(groups, len(table)), resamples, seed)
    rows = zip(table.columns, value, low, high, defined.sum(axis=0), strict=True)
    return pd.DataFrame(
        [(model, dataset, split, target, m, v, lo, hi, int(n)) for m, v, lo, hi, n in rows],
        columns=list(COLUMNS),
    )


def _scored(
    captions, references, metrics: Sequence[str], encoder: str | Path | None
) -> tuple[pd.DataFrame, np.ndarray | None]:
    """The table of `caption_scores` with what BLEU counts [N, ...] beside it, where it is asked for (its column then says where)."""
    metrics = (
        (*metrics, "embedding_similarity")
        if encoder and "embedding_similarity" not in metrics
        else tuple(metrics)
    )
    if unknown := [m for m in metrics if m not in ALL_METRICS]:
        raise SettingsError(f"metric {unknown[0]!r} is unknown; known are {', '.join(ALL_METRICS)}")
    if "embedding_similarity" in metrics and encoder is None:
        raise SettingsError(
            "embedding_similarity needs an encoder: name a folder; tfidf_similarity needs none"
        )
    captions, references = _checked(captions, references)
    rows = np.flatnonzero([bool(those) for those in references])
    texts, others = [captions[k] for k in rows], [references[k] for k in rows]
    place: dict[tuple, int] = {}  # captions that say the same of the same references are compared once
    same = np.array(
        [place.setdefault((text, *those), len(place)) for text, those in zip(texts, others, strict=True)],
        dtype=int,
    )
    words, other_words = (
        [tokens(text) for text, *_ in place],
        [[tokens(r) for r in those] for _, *those in place],
    )
    table, counts = pd.DataFrame(np.nan, index=range(len(captions)), columns=list(metrics)), None
    compared = [m for m in metrics if m not in _FLAWS]
    if compared and len(rows) < len(captions):
        if not len(rows):
            raise TableError(
                "references: no row has any; the metrics that need none are " + ", ".join(_FLAWS)
            )
        warnings.warn(
            f"{len(captions) - len(rows)} of {len(captions)} captions have no reference and are left out",
            stacklevel=4,
        )
    for metric in metrics:
        if metric in _FLAWS:
            table[metric] = [_FLAWS[metric](text) for text in captions]
        elif metric == "cider_d":
            table.loc[rows, metric] = ngrams.cider_d(
                words, other_words, np.bincount(same, minlength=len(place))
            )[same]
        elif metric in _OF_WORDS:
            table.loc[rows, metric] = _OF_WORDS[metric](words, other_words)[same]
        elif metric == "rouge_l":
            table.loc[rows, metric] = rouge_l([text for text, *_ in place], [those for _, *those in place])[
                same
            ]
        elif metric == "tfidf_similarity":
            table.loc[rows, metric] = tfidf_similarity(texts, others)
        elif metric == "embedding_similarity":
            table.loc[rows, metric] = embedding_similarity(texts, others, encoder)
        else:
            counts = np.full((len(captions), 2 * ngrams.ORDER + 2), np.nan)
            counts[rows] = np.array(
                [
                    ngrams.bleu_counts(caption, those)
                    for caption, those in zip(words, other_words, strict=True)
                ]
            )[same]
            table.loc[rows, metric] = 0.0
    return table, counts


def _checked(
    captions: Iterable[str], references: Iterable[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """Both as lists; references without a word are dropped."""
    captions, references = list(captions), list(references)
    if len(captions) != len(references):
        raise TableError(
            f"{len(captions)} captions and {len(references)} lists of references; give one list a caption"
        )
    if not captions:
        raise TableError("no captions; give one or more")
    for row, text in enumerate(captions):
        if not isinstance(text, str):
            raise TableError(
                f'caption {row}: found {text!r}, expected a text; write "" where the model said nothing'
            )
    kept = []
    for row, those in enumerate(references):
        if isinstance(those, str):
            raise TableError(
                f"references of caption {row}: found the text {those[:40]!r}, expected a list of texts; put it in brackets"
            )
        those = [] if those is None or isinstance(those, float) else list(those)
        kept.append([text for text in those if isinstance(text, str) and tokens(text)])
    return captions, kept


def caption_aus(captions: Iterable[str], columns: Sequence[str]) -> pd.DataFrame:
    """Read which AUs captions say are present: one row a caption, 1.0 or 0.0 in each of `columns` (`AU1` ...).

    As scores for `au_table` they give the captions' precision and recall; there is nothing to rank by, so leave AUC out.
    """
    said = [{ACTION_UNITS[au].name for au in read_aus(text)[0]} for text in captions]
    return pd.DataFrame([[float(name in aus) for name in columns] for aus in said], columns=list(columns))


class CaptionScores(evaluate.Metric):
    """`caption_table`'s values as an `evaluate` metric; predictions are texts, references lists of texts.

    Args:
        metrics, encoder: as for `caption_table`.
    """

    def __init__(
        self,
        metrics: Sequence[str] = METRICS,
        encoder: str | Path | None = None,
        keep_in_memory: bool = True,
        **kwargs: Any,
    ) -> None:
        self.metrics, self.encoder = metrics, encoder
        super().__init__(keep_in_memory=keep_in_memory, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description="Captions against references: METEOR, ROUGE-L, BLEU-4, CIDEr-D, similarity; repetition, degenerate output.",
            citation="",
            inputs_description="predictions: a caption; references: a list of captions.",
            features=datasets.Features({"predictions": text, "references": datasets.Sequence(text)}),
        )

    def _compute(
        self, *, predictions: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, float]:
        options = {"metrics": self.metrics, "encoder": self.encoder, "resamples": 0}
        table = caption_table(predictions, references, model="", dataset="", split="", **options)
        return {metric: float(value) for metric, value in zip(table["metric"], table["value"], strict=True)}
