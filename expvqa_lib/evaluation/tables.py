"""The tables of a run from saved predictions, each with its baselines: label prior, untuned base, shuffled images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from .. import questions
from ..data.table import labelled_aus
from ..errors import TableError
from ..facs import ACTION_UNITS
from .metrics.au import ALL_METRICS, au_table, prior_scores
from .metrics.captions import caption_aus
from .metrics.emotion import emotion_table

MAIN = "exp_vqa"
NAMES = {
    "prior": "Label prior",
    "base": "Base, untuned",
    "exp_vqa": "Exp-VQA",
    "exp_vqa_fz": "Exp-VQA(fz)",
    "exp_vqa_shuffled_images": "Exp-VQA, shuffled images",
    "exp_vqa_randomised": "Exp-VQA, permuted weights",
    "exp_vqa_fz_shuffled_images": "Exp-VQA(fz), shuffled images",
    "exp_vqa_fz_named": "Exp-VQA(fz), named in Q1",
    "exp_vqa_fz_named_shuffled_images": "Exp-VQA(fz), named in Q1 of shuffled images",
}


def au_columns(faces: pd.DataFrame) -> list[str]:
    """Columns of the AUs that are labelled in a face table."""
    return [ACTION_UNITS[n].name for n in labelled_aus(faces)]


def with_controls(
    predictions: Mapping[str, pd.DataFrame], faces: pd.DataFrame, seed: int, main: str | None = MAIN
) -> dict[str, pd.DataFrame]:
    """Add the shuffled-image control: every face keeps its labels and gets the `main` model's prediction for a face of somebody else.

    The question is the same for all faces, so this equals asking the model about the exchanged image. None for `main` adds no control.
    TableError as for `derange`.
    """
    if main is None:
        return dict(predictions)
    other = derange(faces["subject"], seed)
    return dict(predictions) | {
        f"{main}_shuffled_images": predictions[main].iloc[other].reset_index(drop=True)
    }


def derange(groups: pd.Series, seed: int) -> np.ndarray:
    """Row numbers that give every row another group's row, as near to a random permutation as that allows.

    Raises:
        TableError: one group has more than half of the rows, so that nobody else's are left for all of them.
    """
    rng = np.random.default_rng(seed)
    values = groups.to_numpy()
    largest = groups.value_counts()
    if len(groups) and 2 * largest.iat[0] > len(groups):
        raise TableError(
            f"subject {largest.index[0]!r} has more than half of the {len(groups)} rows; images of others are needed to exchange"
        )
    order = rng.permutation(len(values))
    for k in range(len(values)):
        if values[order[k]] == values[k]:
            other = next(
                j
                for j in rng.permutation(len(values))
                if values[order[j]] != values[k] and values[order[k]] != values[j]
            )
            order[k], order[other] = order[other], order[k]
    return order


def au_detection(
    faces: pd.DataFrame,
    train: pd.DataFrame,
    scores: Mapping[str, pd.DataFrame],
    resamples: int = 1000,
    seed: int = 0,
    main: str | None = MAIN,
    averages: Sequence[str] = ("macro",),
) -> pd.DataFrame:
    """Per-AU detection (Q3) of every model, of the label prior, and of the `main` model on shuffled images.

    Args:
        faces: test faces with labels and subjects (intervals come from drawing subjects).
        train: training faces, for the prior.
        scores: P(yes) [faces, AUs] by model.
        averages: as for `au_table`.

    Returns:
        Tidy table: model, dataset, split, target, metric, value, low, high, support; values in percent.
    """
    columns = au_columns(faces)
    labels = faces[columns]
    rows = {"prior": prior_scores(train[columns], labels.index), **with_controls(scores, faces, seed, main)}
    common = {
        "dataset": faces["dataset"].iat[0],
        "split": "test",
        "groups": faces["subject"],
        "resamples": resamples,
        "seed": seed,
        "metrics": ALL_METRICS,
        "averages": averages,
    }
    return pd.concat(
        [au_table(labels, table, model=name, **common) for name, table in rows.items()], ignore_index=True
    )


def told_emotions(
    faces: pd.DataFrame,
    train: pd.DataFrame,
    q1: Mapping[str, pd.DataFrame],
    resamples: int = 1000,
    seed: int = 0,
    main: str | None = MAIN,
) -> pd.DataFrame:
    """Emotions read out of Q1 answers, of every model and control; columns as `au_detection`, and `question`.

    The prior says the most frequent one of `train`; there is none where no emotion is known there.
    """
    told = {model: answers["answer"].map(questions.read_emotion).to_frame() for model, answers in q1.items()}
    told = with_controls(told, faces, seed, main)
    if train["emotion"].notna().any():
        told["prior"] = pd.DataFrame({"answer": [train["emotion"].mode().iat[0]] * len(faces)})
    common = {
        "dataset": faces["dataset"].iat[0],
        "split": "test",
        "groups": faces["subject"],
        "resamples": resamples,
        "seed": seed,
    }
    tables = [
        emotion_table(faces["emotion"], table["answer"], model=model, **common)
        for model, table in told.items()
    ]
    return pd.concat(tables, ignore_index=True).assign(question="Q1")


def told_aus(
    faces: pd.DataFrame,
    q2: Mapping[str, pd.DataFrame],
    resamples: int = 1000,
    seed: int = 0,
    main: str | None = MAIN,
) -> pd.DataFrame:
    """AUs read out of Q2 answers, of every model and control; columns as `au_detection`, and `question`. The prior names all.

    An AU counts as told where any of the face's answers says it is present.
    """
    columns = au_columns(faces)
    read = {model: told_in(answers, len(faces), columns) for model, answers in q2.items()}
    read = with_controls(read, faces, seed, main)
    read["prior"] = pd.DataFrame(1.0, index=faces.index, columns=columns)
    common = {
        "dataset": faces["dataset"].iat[0],
        "split": "test",
        "groups": faces["subject"],
        "resamples": resamples,
        "seed": seed,
    }
    table = pd.concat(
        [au_table(faces[columns], told, model=model, **common) for model, told in read.items()],
        ignore_index=True,
    )
    return table[table["metric"] != "auc"].assign(
        question="Q2"
    )  # a caption says a thing or not: there is no score to rank by


def told_in(answers: pd.DataFrame, n: int, columns: list[str]) -> pd.DataFrame:
    """AUs that any of a face's answers says are present, 1 or 0: [n, columns]; `answers` has `row` (the face's number) and `answer`."""
    return (
        caption_aus(answers["answer"], columns)
        .groupby(answers["row"].to_numpy())
        .max()
        .reindex(range(n), fill_value=0.0)
    )


def summary(au: pd.DataFrame, told: pd.DataFrame) -> str:
    """The README's table in Markdown: macro figures with 95% intervals, a row a model, from `au_detection` and `captions`."""
    heads = ("model", "Q3 macro F1", "Q3 AUC", "Q3 balanced accuracy", "Q1 emotion accuracy", "Q2 macro F1")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    both = pd.concat([au.assign(question="Q3"), told])
    both = both[both["target"] == "macro"].set_index(["model", "question", "metric"])
    for model in au["model"].unique():
        cells = [("Q3", "f1"), ("Q3", "auc"), ("Q3", "balanced_accuracy"), ("Q1", "accuracy"), ("Q2", "f1")]
        texts = interval_texts(both.loc[[(model, *cell) for cell in cells]])
        lines.append(f"| {NAMES[model]} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def verdict(au: pd.DataFrame, pointed: pd.DataFrame) -> str:
    """The README's sentences on Exp-VQA's best and weakest AU and on its relevance maps, from `au_detection` and `pointing`."""
    f1 = au[(au["model"] == MAIN) & (au["metric"] == "f1") & (au["target"] != "macro")].set_index("target")[
        "value"
    ]
    mine = pointed[pointed["model"] == MAIN]
    points = mine[mine["target"] != "macro"].pivot(index="target", columns="metric", values="value")
    macro = mine[mine["target"] == "macro"].set_index("metric")
    peak, above = interval_texts(macro), int((points["pointing_accuracy"] > points["chance"]).sum())
    return (
        f"Exp-VQA's best action unit is {f1.idxmax()} (F1 {f1.max():.0f}), its weakest {f1.idxmin()} (F1 {f1.min():.0f}); "
        f"{int((f1 < 65).sum())} of {len(f1)} are below 65. The peak of its relevance map lies on pixels that the action unit moved more "
        f"often than chance for {above} of {len(points)}. Where it detects the action unit "
        f"({macro['support']['pointing_detected']} faces), the peak is there in {peak['pointing_detected']} % and in the region that they "
        f"enclose in {peak['pointing_detected_region']} % (mean over the action units)."
    )


def with_intervals(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return a table to read: one row a target, one column a model, `71.3 [66.0, 75.2]` the value and its 95% interval.

    Args:
        table: tidy results (see `metrics.au_table`) of one data set and split.

    Raises:
        TableError: the table has no row of this metric.
    """
    rows = metric_rows(table, metric)
    wide = rows.assign(text=interval_texts(rows)).pivot(index="target", columns="model", values="text")
    wide = wide.reindex(index=list(dict.fromkeys(rows.target)), columns=ordered_models(rows.model))
    return wide.rename(columns=NAMES).rename_axis(index=None, columns=None)


def interval_texts(rows: pd.DataFrame) -> pd.Series:
    """`71.3 [66.0, 75.2]` of each row's value, low and high; the value alone where there is no interval."""
    cells = zip(rows["value"], rows["low"], rows["high"], strict=True)
    return pd.Series(
        [
            f"{value:.1f}" if np.isnan(low) else f"{value:.1f} [{low:.1f}, {high:.1f}]"
            for value, low, high in cells
        ],
        rows.index,
    )


def metric_rows(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    rows = table[table.metric == metric]
    if rows.empty:
        raise TableError(
            f"the table has no metric {metric!r}; it has {', '.join(sorted(table.metric.unique()))}"
        )
    return rows


def ordered_targets(targets: Iterable[str]) -> list[str]:
    """Return AUs by number, then anything else."""
    return sorted(set(targets), key=lambda t: (0, int(t[2:])) if t[2:].isdigit() else (1, 0))


def ordered_models(models: Iterable[str]) -> list[str]:
    found = list(dict.fromkeys(models))
    return [m for m in NAMES if m in found] + [m for m in found if m not in NAMES]
