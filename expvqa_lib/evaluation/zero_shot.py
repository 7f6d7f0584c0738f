"""Zero-shot detection: action units (AUs) that Q3 never asked Exp-VQA(fz) about in training, beside those that it did.

Only Q3 leaves them out: the answers to Q1 and Q2 name their actions. Exp-VQA, which was asked about all, stands beside
it; it also trains the vision encoder, so what asking alone is worth is measured by `ablations.leave_one_out`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ..data import labelled_aus
from ..errors import SettingsError
from ..facs import au_column
from .detection import answered_aus, bootstrap_settings, with_controls
from .metrics.au import au_table, paired_difference, prior_scores
from .tables import MODELS, metric_name, with_intervals

MODEL, SHUFFLED, NAMED = "exp_vqa_fz", "exp_vqa_fz_shuffled_images", "exp_vqa_fz_named"
FEWEST = 10
"""Test faces with an AU below which it is left out."""
METRICS = ("auc", "balanced_accuracy", "f1", "recall")


def corpus(run) -> str | None:
    """The corpus of a `pipeline.Run` whose test faces have most of the unseen AUs labelled; None where none has any."""
    faces = run.faces()
    counts = {}
    for name in faces.loc[faces["split"] == "test", "dataset"].unique():
        counts[name] = len(_frequent(run.faces_of(name), run.profile.unseen))
    best = max(counts, key=counts.get, default=None)
    return best if counts.get(best) else None


def _frequent(faces: pd.DataFrame, aus: Sequence[int]) -> list[int]:
    return [au for au in aus if faces[au_column(au)].eq(1).sum() >= FEWEST]


def aus(run) -> dict[str, list[int]]:
    """AUs with enough test faces: `seen`, which Q3 asked Exp-VQA(fz) about in training, and `unseen`.

    Raises:
        SettingsError: no test split has an unseen AU labelled.
    """
    unseen = run.profile.unseen
    if (name := corpus(run)) is None:
        names = ", ".join(map(au_column, unseen)) or "none"
        raise SettingsError(
            f"no test split has {FEWEST} faces or more with an unseen action unit (they are: {names})"
        )
    faces, test = run.faces(), run.faces_of(name)
    frequent = _frequent(test, labelled_aus(test))
    trained = set(labelled_aus(faces[faces["split"] == "train"])) - set(unseen)
    return {
        "seen": [au for au in frequent if au in trained],
        "unseen": [au for au in frequent if au in unseen],
    }


def _predictions(run) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """The test faces, and P(yes) [faces, AUs] of each model and control."""
    groups = aus(run)
    faces = run.faces_of(corpus(run))
    scores = {model: run.scores(model, faces, groups["seen"] + groups["unseen"]) for model in MODELS}
    scores = with_controls(scores, faces, run.profile.seed, MODEL)
    columns = list(scores[MODEL])
    scores["prior"] = prior_scores(faces[columns], faces.index)
    scores[NAMED] = answered_aus(run.answers(MODEL, "Q1", faces), len(faces), columns)
    return faces, scores


def zero_shot(run) -> pd.DataFrame:
    """Measure each model and control on every AU, and the averages `seen` and `unseen`; columns as `au_table`, in percent.

    Models: those of the run (a `pipeline.Run`), the prior (always yes), Exp-VQA(fz) on shuffled images, and the AUs
    that its Q1 answer names, which are yes or no and so have no AUC.

    Raises:
        SettingsError: no test split has an unseen AU labelled.
    """
    faces, scores = _predictions(run)
    settings = {"dataset": faces["dataset"].iat[0], "split": "test", "groups": faces["subject"]}
    settings |= {"metrics": METRICS} | bootstrap_settings(run)
    tables = []
    for group, numbers in aus(run).items():
        labels = faces[[au_column(au) for au in numbers]]
        for model, table in scores.items() if numbers else ():
            rows = au_table(labels, table[labels.columns], model=model, **settings)
            rows = rows[(rows["metric"] != "auc") | (model != NAMED)]
            tables.append(rows.replace({"target": {"macro": group}}))
    return pd.concat(tables, ignore_index=True)


def differences(run) -> pd.DataFrame:
    """Exp-VQA(fz) asked Q3, and its Q1 answers, minus their controls, on the averages `seen` and `unseen`.

    Returns:
        One row a group, model, metric and control: group, model, metric, minus, value, low, high (percentage points), p.
    """
    faces, scores = _predictions(run)
    scores = with_controls(scores, faces, run.profile.seed, NAMED)
    comparisons = [(MODEL, metric, other) for metric in METRICS for other in ("prior", "base", SHUFFLED)]
    others = ("prior", f"{NAMED}_shuffled_images")
    comparisons += [(NAMED, metric, other) for metric in METRICS[1:] for other in others]
    rows = []
    for group, numbers in aus(run).items():
        labels = faces[[au_column(au) for au in numbers]]
        for model, metric, other in comparisons if numbers else ():
            pair = [scores[name][labels.columns] for name in (model, other)]
            gain = paired_difference(
                labels, *pair, faces["subject"], metric=metric, **bootstrap_settings(run)
            )
            names = {"group": group, "model": model, "metric": metric, "minus": other}
            rows.append(names | gain.drop("support").to_dict())
    return pd.DataFrame(rows)


def layout(table: pd.DataFrame, targets: Sequence[str] = ("seen", "unseen")) -> pd.DataFrame:
    """AUC, balanced accuracy and F1 of a `zero_shot` table: a row a metric and target, a column a model."""
    rows = table[table["target"].isin(targets)]
    parts = {metric_name(metric): with_intervals(rows, metric) for metric in METRICS[:3]}
    return pd.concat(parts, names=["Metric", "AUs"]).reset_index()


def auc_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The AUC of every model but the prior for a chart: unseen AUs, then the averages `unseen` and `seen`."""
    rows = table[(table["metric"] == "auc") & (table["model"] != "prior")]
    targets = list(dict.fromkeys(rows["target"]))
    first = targets.index("seen") + 1 if "seen" in targets else 0  # the group of seen AUs stands first
    return rows.set_index("target", drop=False).loc[targets[first:] + targets[max(0, first - 1) : first]]
