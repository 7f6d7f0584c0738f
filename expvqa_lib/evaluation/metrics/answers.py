"""Saved predictions, one row a question, as the tables that the metrics take; and answers that are neither yes nor no."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ...errors import TableError
from ...questions import read_yes_no
from .au import COLUMNS, au_table
from .bootstrap import bootstrap, group_codes, mean_of_defined, ratio
from .labels import label_array

ANSWER_METRICS = ("f1", "balanced_accuracy", "precision", "recall", "accuracy")


def wide(
    predictions: pd.DataFrame, images: Sequence[str], aus: Sequence[str], value: str = "score"
) -> pd.DataFrame:
    """Turn saved predictions into one row an image, in the order of `images`, and one column an AU of `aus` (`AU1` ...).

    Args:
        predictions: columns `image`, `au` (`AU12`) and `value`; one row a question.
        value: the column to take, a probability or an answer in words.

    Raises:
        TableError: a column or a prediction is missing, a question is answered twice, or an image or AU is not one of those asked for.
    """
    if missing := [c for c in ("image", "au", value) if c not in predictions]:
        raise TableError(
            f"predictions: no column {', '.join(missing)}; found {', '.join(map(str, predictions.columns))}"
        )
    for column, known in (("image", images), ("au", aus)):
        unknown = ~predictions[column].isin(list(known))
        _refuse(
            predictions[unknown],
            f"{column} not among the {len(known)} that were asked about",
            "leave these rows out, or add them there",
        )
    _refuse(
        predictions[predictions.duplicated(["image", "au"])],
        "answered more than once",
        "keep one row a question",
    )
    table = predictions.pivot(index="image", columns="au", values=value).reindex(
        index=list(images), columns=list(aus)
    )
    asked = pd.MultiIndex.from_frame(predictions[["image", "au"]])
    absent = pd.MultiIndex.from_product([images, aus], names=["image", "au"]).difference(asked, sort=False)
    _refuse(absent.to_frame(), "no prediction", "ask the model about them, too")
    return table.reset_index(drop=True).rename_axis(columns=None)


def _refuse(rows: pd.DataFrame, found: str, mend: str) -> None:
    if len(rows):
        raise TableError(
            f"predictions: {found}: {rows['au'].iat[0]} of {rows['image'].iat[0]} ({len(rows)} such rows in all); {mend}"
        )


def answer_table(
    labels: pd.DataFrame,
    answers: pd.DataFrame,
    *,
    groups: Iterable[object] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    **names: Any,
) -> pd.DataFrame:
    """Score answers in words to Q3: `au_table` of what they say, and how many say neither yes nor no.

    Args:
        labels, groups, resamples, seed: as for `au_table`, as are `names`: model, dataset and split.
        answers: the same index and AU columns as the labels; a missing answer (None, NaN) is neither yes nor no.

    Returns:
        Columns of `au_table`; an answer that is neither counts as the wrong one in f1, balanced accuracy, precision, recall and accuracy.
        Then each target's metric `unread`: percent of labelled questions with such an answer; its support is their number.

    Raises:
        TableError: as for `au_table`.
    """
    y, columns = label_array(labels, answers.columns)
    if missing := [c for c in columns if c not in answers]:
        raise TableError(
            f"answers: no column {', '.join(missing)}, which the labels have; ask the model about these AUs, too"
        )
    if not answers.index.equals(labels.index):
        raise TableError(
            f"answers and labels have different rows ({len(answers)} and {len(labels)}); use answers.reindex(labels.index)"
        )
    said = (
        answers[columns]
        .map(lambda text: read_yes_no(text) if isinstance(text, str) else None)
        .to_numpy(dtype=float)
    )  # 1, 0, NaN
    unread = np.isnan(said) & ~np.isnan(y)
    scores = pd.DataFrame(np.where(np.isnan(said), 1 - np.nan_to_num(y), said), answers.index, columns)
    told = au_table(
        labels[columns],
        scores,
        metrics=ANSWER_METRICS,
        groups=groups,
        resamples=resamples,
        seed=seed,
        **names,
    )

    fixed = {"groups": groups, "resamples": resamples, "seed": seed}
    shares = share_table(unread, ~np.isnan(y), [*columns, "macro"], "unread", **fixed, **names)
    return pd.concat([told, shares], ignore_index=True)


def share_table(
    flags: np.ndarray,
    counted: np.ndarray,
    targets: Sequence[str],
    metric: str,
    *,
    model: str,
    dataset: str,
    split: str,
    groups: Iterable[object] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Percent of the `counted` [N, A] that have a flag (bool [N, A], within counted), with intervals; columns of `au_table`.

    `targets` names the A columns, and where one more is named, their mean. Support is the number of flags.
    """
    average = len(targets) > flags.shape[1]

    def measure(weights: np.ndarray) -> np.ndarray:
        share = ratio(weights @ flags, weights @ counted, np.nan)  # [R, A]
        return np.concatenate([share, mean_of_defined(share)[:, None]], axis=1) if average else share

    value, low, high = bootstrap(measure, group_codes(groups, len(flags)), resamples, seed)
    support = [*flags.sum(axis=0), flags.sum()]
    rows = [
        (model, dataset, split, t, metric, value[k], low[k], high[k], int(support[k]))
        for k, t in enumerate(targets)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))
