"""Metrics with intervals as tidy tables, and the same as `evaluate` metrics that load from the package, without a network."""

from __future__ import annotations

from typing import Any

import evaluate

from ...errors import SettingsError
from .answers import answer_table, wide
from .au import ALL_METRICS, COLUMNS, AuF1, au_table, best_thresholds, paired_difference, prior_scores
from .calibration import reliability_table
from .captions import CaptionScores, caption_aus, caption_scores, caption_table
from .emotion import EmotionAccuracy, emotion_difference, emotion_table

__all__ = [
    "ALL_METRICS",
    "COLUMNS",
    "answer_table",
    "au_table",
    "best_thresholds",
    "caption_scores",
    "caption_table",
    "emotion_difference",
    "emotion_table",
    "load",
    "paired_difference",
    "prior_scores",
    "reliability_table",
    "caption_aus",
    "wide",
]

_METRICS: dict[str, type[evaluate.Metric]] = {
    "au_f1": AuF1,
    "captions": CaptionScores,
    "emotion_accuracy": EmotionAccuracy,
}


def load(name: str, **kwargs: Any) -> evaluate.Metric:
    """Return an `evaluate` metric (`compute`, `add`, `add_batch`, `evaluate.combine`): `au_f1`, `captions` or `emotion_accuracy`.

    Keyword arguments go to the metric: `au_f1` takes `aus` (FACS numbers of the columns), `threshold` and `metrics`, `captions` takes
    `metrics` and `encoder`.

    Raises:
        SettingsError: the name or an argument is unknown.
    """
    if name not in _METRICS:
        raise SettingsError(f"metric {name!r} is unknown; known are {', '.join(_METRICS)}")
    return _METRICS[name](**kwargs)
