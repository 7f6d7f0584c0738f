"""Metrics with intervals as tidy tables; `load` gives them as metrics of Hugging Face's `evaluate`."""

from .answers import answer_table, emotion_difference, emotion_table, load, share_table, wide
from .au import (
    ALL_METRICS,
    au_table,
    best_thresholds,
    paired_difference,
    prior_scores,
    reliability_table,
)
from .bootstrap import COLUMNS, bootstrap, bootstrap_table, group_codes, mean_of_defined
from .captions import caption_aus, caption_scores, caption_table

__all__ = [
    "ALL_METRICS",
    "COLUMNS",
    "answer_table",
    "au_table",
    "best_thresholds",
    "bootstrap",
    "bootstrap_table",
    "caption_aus",
    "caption_scores",
    "caption_table",
    "emotion_difference",
    "emotion_table",
    "group_codes",
    "load",
    "mean_of_defined",
    "paired_difference",
    "prior_scores",
    "reliability_table",
    "share_table",
    "wide",
]
