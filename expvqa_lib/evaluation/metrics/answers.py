"""Tables of answers in words, yes, no or neither, and emotions; the metrics as those of `evaluate`."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import datasets
import evaluate
import numpy as np
import pandas as pd

from ...errors import SettingsError, TableError
from ...facs import BP4D_AUS, EMOTIONS, au_column
from ...questions import read_yes_no
from .au import au_table
from .bootstrap import bootstrap_table, difference, group_codes, mean_of_defined, ratio
from .captions import caption_table

ANSWER_METRICS = ("f1", "balanced_accuracy", "precision", "recall", "accuracy")


def wide(predictions: pd.DataFrame, images: Sequence[str], aus: Sequence[str], value: str) -> pd.DataFrame:
    """Turn saved predictions into one row an image, in the order of `images`, and one column an AU of `aus`.

    Args:
        predictions: columns `image`, `au` (`AU12`) and `value`; one row a question.
        value: the column to take, a probability or an answer in words.

    Raises:
        TableError: a prediction is missing, a question is answered twice, or is none about these images and
            AUs.
    """
    questions = pd.MultiIndex.from_product([images, aus], names=["image", "au"])
    answered = pd.MultiIndex.from_frame(predictions[["image", "au"]])
    for rows, problem, mend in (
        (answered[~answered.isin(questions)], "not among the images and AUs", "leave these rows out"),
        (answered[answered.duplicated()], "answered more than once", "keep one row a question"),
        (questions.difference(answered, sort=False), "no prediction", "ask the model about them, too"),
    ):
        if len(rows):
            image, au = rows[0]
            raise TableError(
                f"predictions: {problem}: {au} of {image} ({len(rows)} such rows in all); {mend}"
            )
    values = pd.Series(predictions[value].to_numpy(), answered).reindex(questions)
    return pd.DataFrame(values.to_numpy().reshape(len(images), len(aus)), columns=list(aus))


def answer_table(labels: pd.DataFrame, answers: pd.DataFrame, **settings: Any) -> pd.DataFrame:
    """Score answers in words to Q3: `au_table` of what they say, and how many say neither yes nor no.

    Args:
        labels, settings: as for `au_table`.
        answers: the same index and columns as the labels; a missing answer (None, NaN) is neither yes nor no.

    Returns:
        Columns of `au_table`; an answer that is neither counts as the wrong one in f1, balanced accuracy,
        precision, recall and accuracy. Then each target's metric `unread`: percent of labelled questions with
        such an answer; its support is their number.
    """
    read = answers.fillna("").map(read_yes_no).astype(float)  # 1, 0, NaN
    scores = read.fillna(1 - labels.astype("Float64").fillna(0))
    labelled = labels.notna().to_numpy()
    unread = share_table(
        read.isna().to_numpy() & labelled, labelled, [*labels, "macro"], "unread", **settings
    )
    return pd.concat(
        [au_table(labels, scores, metrics=ANSWER_METRICS, **settings), unread], ignore_index=True
    )


def share_table(
    flags: np.ndarray,
    counted: np.ndarray,
    targets: Sequence[str],
    metric: str,
    *,
    groups: Iterable[object] | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Percent of the `counted` [N, A] that have a flag (bool [N, A], within counted); columns of `au_table`.

    `targets` names the A columns, and where one more is named, their mean. Support is the number of flags.
    """

    def measure(weights: np.ndarray) -> np.ndarray:
        share = ratio(weights @ flags, weights @ counted, np.nan)  # [R, A]
        return np.concatenate([share, mean_of_defined(share)[:, None]], axis=1)[:, : len(targets)]

    rows = zip(targets, [metric] * len(targets), [*flags.sum(axis=0), flags.sum()], strict=False)
    return bootstrap_table(measure, rows, group_codes(groups, len(flags)), **settings)


def emotion_table(
    true: Iterable[str | None],
    predicted: Iterable[str | None],
    *,
    groups: Iterable[object] | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Score one emotion a face.

    Args:
        true: an emotion a row; rows without one (None, NaN) are left out.
        predicted: as many; None or NaN where no emotion could be read from the answer, which counts as wrong.
        groups: the subject of each row, see `group_codes`.
        settings: model, dataset, split, resamples and seed, see `bootstrap_table`.

    Returns:
        Tidy table with the columns of `au_table`, in percent: targets are the emotions that occur (recall,
        precision, F1; support: their rows), then `macro` (accuracy, F1 and balanced accuracy over those
        emotions; support: labelled rows). 0/0 is 0 in recall, precision and F1; balanced accuracy averages
        over the emotions that a resample holds.
    """
    true, predicted = _names(true, predicted)
    labelled = true != ""
    emotions = sorted(set(true[labelled]), key=lambda name: ([*EMOTIONS, name].index(name), name))
    is_true = true[:, None] == np.array(emotions, object)  # [N, C]
    is_predicted = labelled[:, None] & (predicted[:, None] == np.array(emotions, object))
    cells = np.stack([is_true & is_predicted, is_true, is_predicted]).astype(float)  # [3, N, C]

    def measure(weights: np.ndarray) -> np.ndarray:
        hits, positives, answers = weights @ cells  # [R, C] each
        recall, f1 = ratio(hits, positives), ratio(2 * hits, positives + answers)
        per_emotion = np.stack([recall, ratio(hits, answers), f1], axis=-1)  # [R, C, 3]
        accuracy = ratio(hits.sum(axis=1), positives.sum(axis=1))
        balanced = mean_of_defined(ratio(hits, positives, np.nan))
        overall = np.stack([accuracy, f1.mean(axis=1), balanced], axis=-1)
        return np.concatenate([per_emotion, overall[:, None]], axis=1)

    counts = zip(emotions, is_true.sum(axis=0).tolist(), strict=True)
    rows = [(name, metric, n) for name, n in counts for metric in ("recall", "precision", "f1")]
    rows += [("macro", metric, int(labelled.sum())) for metric in ("accuracy", "f1", "balanced_accuracy")]
    return bootstrap_table(measure, rows, group_codes(groups, len(true)), **settings)


def emotion_difference(
    true: Iterable[str | None],
    predicted_a: Iterable[str | None],
    predicted_b: Iterable[str | None],
    groups: Iterable[object] | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.Series:
    """Return the accuracy of a minus that of b on the same resamples: value, low, high, p, support.

    In percentage points. Arguments and errors as for `emotion_table`, the result as of `paired_difference`.
    """
    true, a, b = _names(true, predicted_a, predicted_b)
    labelled = (true != "").astype(float)
    gain, codes = labelled * (a == true) - labelled * (b == true), group_codes(groups, len(true))
    return difference(lambda w: ratio(w @ gain, w @ labelled), codes, int(labelled.sum()), resamples, seed)


def _names(*columns: Iterable[str | None]) -> list[np.ndarray]:
    """Emotions, "" where there is none."""
    return [pd.Series(list(values), dtype=object).fillna("").to_numpy() for values in columns]


# ------------------------------------------------------------ as metrics of Hugging Face's `evaluate`

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
    if name not in _METRICS:
        raise SettingsError(f"metric {name!r} is unknown; expected one of {', '.join(_METRICS)}")
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


def _au_f1(predictions, references, aus: Sequence[int] = BP4D_AUS, metrics=("f1",), **options: Any) -> dict:
    columns = [au_column(number) for number in aus]
    labels, scores = (pd.DataFrame(rows, columns=columns, dtype=float) for rows in (references, predictions))
    table = au_table(labels, scores, metrics=metrics, **options, **_UNNAMED)
    return {f"{row.metric}_{row.target}": row.value for row in table.itertuples()}


def _captions(predictions, references, **options: Any) -> dict[str, float]:
    table = caption_table(predictions, references, **options, **_UNNAMED)
    return table.set_index("metric")["value"].to_dict()


def _emotion_accuracy(predictions, references) -> dict[str, float]:
    table = emotion_table(references, predictions, **_UNNAMED).set_index(["target", "metric"])
    return table["value"]["macro"].rename({"f1": "macro_f1"}).to_dict()


_METRICS = {
    "au_f1": (_au_f1, _NUMBERS, _NUMBERS),
    "captions": (_captions, _TEXT, datasets.Sequence(_TEXT)),
    "emotion_accuracy": (_emotion_accuracy, _TEXT, _TEXT),
}
