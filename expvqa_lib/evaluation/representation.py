"""The paper's table of representations: base, Exp-VQA and Exp-VQA(fz), the encoder's and the Q-Former's features, AUs and emotion."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from ..data.table import SPLITS
from ..errors import SettingsError, TableError
from .finetuned_probe import ProbeRecipe, finetuned_probe
from .metrics import COLUMNS, au_table, emotion_difference, emotion_table, paired_difference
from .probes import QUESTION, linear_probe, represent
from .tables import NAMES, au_columns

TARGETS = ("aus", "emotion")
PART_NAMES = {"encoder": "Vision encoder", "qformer": "Q-Former"}

Scores = Mapping[tuple[str, str], pd.DataFrame]  # by model and part: probabilities of the test faces


def probe(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    faces: pd.DataFrame,
    target: str,
    part: str,
    folder: str | Path,
    *,
    question: str = QUESTION,
    finetune: ProbeRecipe | None = None,
) -> pd.DataFrame:
    """Probe one part of one model on one data set, and return the probabilities for its test faces (see `probing.linear_probe`).

    Args:
        faces: face table of one data set with all three splits.
        target: `aus`, those that are labelled, or `emotion`.
        folder: keeps the features of linear probes.
        finetune: train the part, too, instead of a linear probe.

    Raises:
        SettingsError: the target or part is unknown.
        TableError: a split has no faces, or no labels of the target.
    """
    rows = {split: faces[faces["split"] == split] for split in SPLITS}
    if empty := [split for split in SPLITS if rows[split].empty]:
        raise TableError(f"no faces in the split {' and '.join(empty)}; a probe needs {', '.join(SPLITS)}")
    labels = {split: _labels(rows[split], faces, target) for split in SPLITS}
    images = {split: rows[split]["image"].tolist() for split in SPLITS}
    if finetune:
        return finetuned_probe(model, processor, images, labels, part, question=question, recipe=finetune)[0]
    seen = {
        split: represent(model, processor, images[split], part, folder, question=question) for split in SPLITS
    }
    return linear_probe(
        seen["train"], labels["train"], seen["validation"], labels["validation"], seen["test"]
    )


def _labels(rows: pd.DataFrame, faces: pd.DataFrame, target: str) -> pd.DataFrame | pd.Series:
    if target not in TARGETS:
        raise SettingsError(f"target {target!r} is unknown; known are {', '.join(TARGETS)}")
    columns = "emotion" if target == "emotion" else au_columns(faces)
    return rows[columns].reset_index(drop=True)


def representation_table(
    faces: pd.DataFrame, scores: Scores, target: str, *, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Score probes: F1 and AUC of each AU and macro, or emotion accuracy, with intervals from drawing subjects.

    Args:
        faces: the face table that was probed.
        scores: from `probe`, by model and part.

    Returns:
        The columns of `au_table` and, after the model, `part`; percent.
    """
    test = faces[faces["split"] == "test"].reset_index(drop=True)
    labels, common = (
        _labels(test, faces, target),
        {"dataset": test["dataset"].iat[0], "split": "test", "groups": test["subject"]},
    )
    common |= {"resamples": resamples, "seed": seed}
    tables = []
    for (model, part), told in scores.items():
        if target == "emotion":
            table = emotion_table(labels, told.idxmax(axis=1), model=model, **common)
            table = table[(table["target"] == "macro") & (table["metric"] == "accuracy")].assign(
                target="emotion"
            )
        else:
            table = au_table(labels, told, model=model, metrics=("f1", "auc"), **common)
        tables.append(table.assign(part=part))
    return pd.concat(tables, ignore_index=True)[["model", "part", *COLUMNS[1:]]]


def representation_differences(
    faces: pd.DataFrame,
    scores: Scores,
    target: str,
    against: str = "base",
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return each model's macro F1 (or emotion accuracy) minus that of `against`, part by part, on the same resamples of subjects.

    Returns:
        Columns model, part, metric, value, low, high (percentage points), p, support; see `metrics.paired_difference`.
    """
    test = faces[faces["split"] == "test"].reset_index(drop=True)
    labels, common = (
        _labels(test, faces, target),
        {"groups": test["subject"], "resamples": resamples, "seed": seed},
    )
    rows = []
    for (model, part), told in scores.items():
        if model != against:
            other = scores[against, part]
            if target == "emotion":
                found = emotion_difference(labels, told.idxmax(axis=1), other.idxmax(axis=1), **common)
            else:
                found = paired_difference(labels, told, other, **common)
            rows.append(
                {"model": model, "part": part, "metric": "accuracy" if target == "emotion" else "f1", **found}
            )
    return pd.DataFrame(rows)


def paper_layout(aus: pd.DataFrame, emotion: pd.DataFrame | None = None) -> pd.DataFrame:
    """Lay `representation_table`s out as the paper does: a row a model and part; AUs' F1, average, emotion accuracy; percent."""
    f1 = aus[aus["metric"] == "f1"]
    wide = f1.pivot(index=["model", "part"], columns="target", values="value")
    wide = wide[list(dict.fromkeys(f1["target"]))].rename(columns={"macro": "Average"})
    if emotion is not None:
        wide["Emotion accuracy"] = emotion.set_index(["model", "part"])["value"]
    order = [(m, p) for p in PART_NAMES for m in dict.fromkeys(f1["model"]) if (m, p) in wide.index]
    wide = wide.loc[order].reset_index().rename_axis(columns=None)
    return wide.assign(model=wide["model"].replace(NAMES), part=wide["part"].replace(PART_NAMES)).rename(
        columns={"model": "Model", "part": "Features"}
    )
