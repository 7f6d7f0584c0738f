"""Emotion classification: recall, precision and F1 of each emotion, accuracy and macro averages, in percent with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
import pandas as pd

from ...errors import TableError
from ...facs import EMOTIONS
from .au import COLUMNS
from .bootstrap import bootstrap, difference, group_codes, mean_of_defined, ratio

PER_EMOTION = ("recall", "precision", "f1")
OVERALL = ("accuracy", "f1", "balanced_accuracy")


def emotion_table(
    true: Iterable[str | None],
    predicted: Iterable[str | None],
    *,
    model: str,
    dataset: str,
    split: str,
    groups: Iterable[object] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Score one emotion a face.

    Args:
        true: an emotion a row; rows without one (None, NaN) are left out.
        predicted: as many; None or NaN where no emotion could be read from the answer, which counts as wrong.
        groups, resamples, seed: as for `au_table`.

    Returns:
        Tidy table with the columns of `au_table`: targets are the emotions that occur (recall, precision, F1; support: its
        rows), then `macro` (accuracy, F1 and balanced accuracy over those emotions; support: labelled rows). Percent, with
        95% intervals. 0/0 is 0 in recall, precision and F1; balanced accuracy averages over the emotions that a resample holds.

    Raises:
        TableError: the lengths differ or no row has an emotion.
    """
    true, predicted = (pd.Series(list(values), dtype=object) for values in (true, predicted))
    if len(true) != len(predicted):
        raise TableError(
            f"{len(predicted)} predicted emotions for {len(true)} true ones; give one a row, None where none was read"
        )
    codes = group_codes(groups, len(true))
    labelled = true.notna().to_numpy()
    if not labelled.any():
        raise TableError("no row has a true emotion; expected names such as " + ", ".join(EMOTIONS))
    true, predicted = true[labelled].to_numpy(), predicted[labelled].to_numpy()
    codes = np.unique(codes[labelled], return_inverse=True)[1]

    found = set(true)
    emotions = [name for name in EMOTIONS if name in found] + sorted(found - set(EMOTIONS))
    is_true = np.stack([true == name for name in emotions], axis=1)  # [N, C]
    is_said = np.stack([[said == name for said in predicted] for name in emotions], axis=1)  # [N, C]
    cells = np.stack([is_true & is_said, is_true, is_said]).astype(float)  # [3, N, C]

    def measure(weights: np.ndarray) -> np.ndarray:
        hits, present, said = weights @ cells  # [R, C] each
        f1 = ratio(2 * hits, present + said)
        per_emotion = np.stack([ratio(hits, present), ratio(hits, said), f1], axis=-1)  # [R, C, 3]
        accuracy = ratio(hits.sum(axis=1), present.sum(axis=1))
        balanced = mean_of_defined(ratio(hits, present, np.nan))
        return np.concatenate(
            [per_emotion, np.stack([accuracy, f1.mean(axis=1), balanced], axis=-1)[:, None]], axis=1
        )

    value, low, high = bootstrap(measure, codes, resamples, seed)  # [C + 1, 3] each
    support = [*is_true.sum(axis=0), len(true)]
    return pd.DataFrame(
        [
            (model, dataset, split, target, metric, value[t, m], low[t, m], high[t, m], int(support[t]))
            for t, target in enumerate([*emotions, "macro"])
            for m, metric in enumerate(OVERALL if target == "macro" else PER_EMOTION)
        ],
        columns=list(COLUMNS),
    )


def emotion_difference(
    true: Iterable[str | None],
    predicted_a: Iterable[str | None],
    predicted_b: Iterable[str | None],
    groups: Iterable[object] | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.Series:
    """Return the accuracy of a minus that of b on the same resamples: value, low, high (percentage points), p, support.

    Arguments and errors as for `emotion_table`, the result as of `paired_difference`.
    """
    true, *both = (pd.Series(list(values), dtype=object) for values in (true, predicted_a, predicted_b))
    if {len(said) for said in both} != {len(true)}:
        raise TableError(
            f"{len(both[0])} and {len(both[1])} predicted emotions for {len(true)} true ones; give one a row"
        )
    labelled = true.notna().to_numpy()
    if not labelled.any():
        raise TableError("no row has a true emotion; expected names such as " + ", ".join(EMOTIONS))
    gain = ((both[0] == true).astype(float) - (both[1] == true)).to_numpy()[labelled]
    codes = np.unique(group_codes(groups, len(true))[labelled], return_inverse=True)[1]
    found = difference(lambda weights: ratio(weights @ gain, weights.sum(axis=1)), codes, resamples, seed)
    return pd.Series(found | {"support": int(labelled.sum())}, name="accuracy difference")


class EmotionAccuracy(evaluate.Metric):
    """Accuracy, macro F1 and balanced accuracy of emotion names in percent, as an `evaluate` metric."""

    def __init__(self, keep_in_memory: bool = True, **kwargs: Any) -> None:
        super().__init__(keep_in_memory=keep_in_memory, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Share of faces with the right emotion, with macro F1 and balanced accuracy, in percent.",
            citation="",
            inputs_description="predictions: an emotion's name, or None where none was read; references: an emotion's name.",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def add_batch(
        self, *, predictions: Sequence[str | None], references: Sequence[str], **kwargs: Any
    ) -> None:
        """Add a batch; a prediction may be None or NaN."""
        super().add_batch(
            predictions=[_text(name) for name in predictions],
            references=[_text(n) for n in references],
            **kwargs,
        )

    def add(self, *, prediction: str | None, reference: str, **kwargs: Any) -> None:
        """Add one face; the prediction may be None or NaN."""
        super().add(prediction=_text(prediction), reference=_text(reference), **kwargs)

    def _compute(self, *, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        true, predicted = ([name or None for name in names] for names in (references, predictions))
        table = emotion_table(true, predicted, model="", dataset="", split="", resamples=0)
        macro = table[table.target == "macro"].set_index("metric")["value"]
        return {
            "accuracy": float(macro["accuracy"]),
            "macro_f1": float(macro["f1"]),
            "balanced_accuracy": float(macro["balanced_accuracy"]),
        }


def _text(name: object) -> str:
    """Return the name, or an empty text for None and NaN: `evaluate` refuses a missing text at the head of a batch."""
    return "" if pd.isna(name) else str(name)
