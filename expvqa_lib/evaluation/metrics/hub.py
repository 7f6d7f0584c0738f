"""The metrics as metrics of Hugging Face's `evaluate` that load from this package, without a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import evaluate
import pandas as pd

from ...errors import TableError
from ...facs import BP4D_AUS, au_column
from .au import ALL_METRICS, au_table, check_names
from .captions import METRICS as CAPTION_METRICS
from .captions import caption_table
from .emotion import emotion_table

_UNNAMED = {"model": "", "dataset": "", "split": "", "resamples": 0}
_TEXT = datasets.Value("string")
_NUMBERS = datasets.Sequence(datasets.Value("float64"))


def load(name: str, **options: Any) -> evaluate.Metric:
    """Return an `evaluate` metric (`compute`, `add`, `add_batch`, `evaluate.combine`), all values in percent.

    Args:
        name: `au_f1` (predictions: P(yes) of each AU; references: 0, 1, or NaN for unlabelled; both [N, A]),
            `captions` (predictions: texts; references: lists of texts) or `emotion_accuracy` (emotions'
            names; a prediction is None or NaN where none was read).
        options: of `au_f1`: `aus` (FACS numbers of the columns), `threshold` and `metrics` (of `ALL_METRICS`,
            or `support`, the number of positive labels); of `captions`: `metrics` and `encoder`, see
            `caption_scores`.

    Raises:
        SettingsError: the name is unknown.
    """
    check_names([name], tuple(_METRICS), "metric")
    score, predictions, references = _METRICS[name]
    features = datasets.Features({"predictions": predictions, "references": references})
    return _Metric(partial(score, **options), features, name)


class _Metric(evaluate.Metric):
    """A function of predictions and references as an `evaluate` metric."""

    def __init__(
        self, score: Callable[..., dict[str, float]], features: datasets.Features, name: str
    ) -> None:
        self._score, self._features_of_rows, self._title = score, features, name
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        about = {"description": self._title, "citation": "", "inputs_description": load.__doc__}
        return evaluate.MetricInfo(**about, features=self._features_of_rows)

    def add_batch(self, *, predictions: Sequence, references: Sequence, **kwargs: Any) -> None:
        """Add a batch; a missing text is stored as an empty one, since `evaluate` refuses it at the head."""
        predictions, references = (
            [_present(value) for value in values] for values in (predictions, references)
        )
        super().add_batch(predictions=predictions, references=references, **kwargs)

    def add(self, *, prediction: Any, reference: Any, **kwargs: Any) -> None:
        """Add one row; a missing text is stored as an empty one."""
        super().add(prediction=_present(prediction), reference=_present(reference), **kwargs)

    def _compute(self, *, predictions: Sequence, references: Sequence) -> dict[str, float]:
        return self._score(predictions, references)


def _present(value: Any) -> Any:
    return "" if value is None or (isinstance(value, float) and pd.isna(value)) else value


def _au_f1(
    predictions: Sequence[Sequence[float]],
    references: Sequence[Sequence[float]],
    aus: Sequence[int] = BP4D_AUS,
    threshold: float = 0.5,
    metrics: Sequence[str] = ("f1",),
) -> dict[str, float]:
    check_names(metrics, (*ALL_METRICS, "support"), "metric")
    columns = [au_column(number) for number in aus]
    if wrong := [len(row) for row in (*predictions, *references) if len(row) != len(columns)]:
        raise TableError(f"a row has {wrong[0]} values; expected {len(columns)}: {', '.join(columns)}")
    labels, scores = (
        pd.DataFrame(list(rows), columns=columns, dtype=float) for rows in (references, predictions)
    )
    wanted = [name for name in metrics if name != "support"] or ["f1"]
    table = au_table(labels, scores, threshold=threshold, metrics=wanted, **_UNNAMED)
    values = {f"{row.metric}_{row.target}": row.value for row in table.itertuples() if row.metric in metrics}
    if "support" in metrics:
        values |= {f"support_{row.target}": row.support for row in table.itertuples()}
    return values


def _captions(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    metrics: Sequence[str] = CAPTION_METRICS,
    encoder: str | Path | None = None,
) -> dict[str, float]:
    table = caption_table(predictions, references, metrics=metrics, encoder=encoder, **_UNNAMED)
    return dict(zip(table["metric"], table["value"], strict=True))


def _emotion_accuracy(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    table = emotion_table([name or None for name in references], predictions, **_UNNAMED)
    macro = table[table["target"] == "macro"].set_index("metric")["value"]
    return macro.rename({"f1": "macro_f1"}).to_dict()


_METRICS = {
    "au_f1": (_au_f1, _NUMBERS, _NUMBERS),
    "captions": (_captions, _TEXT, datasets.Sequence(_TEXT)),
    "emotion_accuracy": (_emotion_accuracy, _TEXT, _TEXT),
}
