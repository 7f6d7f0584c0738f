"""Metrics with intervals as tidy tables, and the same as `evaluate` metrics that load from the package, without a network."""

from __future__ import annotations

from typing import Any

import evaluate

from ..errors import SettingsError
from .au_f1 import COLUMNS, AuF1, au_table, paired_difference, prior_scores
from .emotion import EmotionAccuracy, emotion_table

__all__ = ["COLUMNS", "au_table", "emotion_table", "load", "paired_difference", "prior_scores"]

_METRICS: dict[str, type[evaluate.Metric]] = {"au_f1": AuF1, "emotion_accuracy": EmotionAccuracy}


def load(name: str, **kwargs: Any) -> evaluate.Metric:
    """Return an `evaluate` metric (`compute`, `add`, `add_batch`, `evaluate.combine`): `au_f1` or `emotion_accuracy`.

    Keyword arguments go to the metric: `au_f1` takes `aus` (FACS numbers of the columns) and `threshold`.

    Raises:
        SettingsError: the name or an argument is unknown.
    """
    if name not in _METRICS:
        raise SettingsError(f"metric {name!r} is unknown; known are {', '.join(_METRICS)}")
    return _METRICS[name](**kwargs)
