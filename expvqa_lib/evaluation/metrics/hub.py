"""The metrics as metrics of Hugging Face's `evaluate` that load from this package, without a network."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import datasets
import evaluate
import pandas as pd

from ...facs import BP4D_AUS, au_column
from .answers import emotion_table
from .au import au_table, check_names
from .captions import caption_table

_UNNAMED = {"model": "", "dataset": "", "split": "", "resamples": 0}
_TEXT = datasets.Value("string")
_NUMBERS = datasets.Sequence(datasets.Value("float64"))


def load(name: str, **options: Any) -> evaluate.Metric:
    """Return an `evaluate` metric (`compute`, `add`, `add_batch`, `evaluate.combine`), all values in percent.

    Args:
        name: `au_f1` (predictions: P(yes) of each AU; references: 0, 1, or NaN for unlabelled; both [N, A]),
            `captions` (predictions: texts; references: lists of texts) or `emotion_accuracy` (emotions'
            names; a prediction is empty where none was read).
        options: of `au_f1`: `aus` (FACS numbers of the columns), `threshold` and `metrics` (of
            `ALL_METRICS`); of `captions`: `metrics`, see `caption_scores`.

    Raises:
        SettingsError: the name is unknown.
    """
    check_names([name], tuple(_METRICS), "metric")
    score, predictions, references = _METRICS[name]
    features = datasets.Features(predictions=predictions, references=references)
    return _Metric(partial(score, **options), features)


class _Metric(evaluate.Metric):
    """A function of predictions and references as an `evaluate` metric."""

    def __init__(self, score: Callable[..., dict[str, float]], features: datasets.Features) -> None:
        self._compute, self._rows = score, features
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=self._rows)


def _au_f1(
    predictions: Sequence[Sequence[float]],
    references: Sequence[Sequence[float]],
    aus: Sequence[int] = BP4D_AUS,
    metrics: Sequence[str] = ("f1",),
    threshold: float = 0.5,
) -> dict[str, float]:
    columns = [au_column(number) for number in aus]
    labels, scores = (pd.DataFrame(rows, columns=columns, dtype=float) for rows in (references, predictions))
    table = au_table(labels, scores, threshold=threshold, metrics=metrics, **_UNNAMED)
    return {f"{row.metric}_{row.target}": row.value for row in table.itertuples()}


def _captions(
    predictions: Sequence[str], references: Sequence[Sequence[str]], **options: Any
) -> dict[str, float]:
    return (
        caption_table(predictions, references, **options, **_UNNAMED).set_index("metric")["value"].to_dict()
    )


def _emotion_accuracy(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    table = emotion_table([name or None for name in references], predictions, **_UNNAMED)
    return table.set_index(["target", "metric"])["value"]["macro"].rename({"f1": "macro_f1"}).to_dict()


_METRICS = {
    "au_f1": (_au_f1, _NUMBERS, _NUMBERS),
    "captions": (_captions, _TEXT, datasets.Sequence(_TEXT)),
    "emotion_accuracy": (_emotion_accuracy, _TEXT, _TEXT),
}
