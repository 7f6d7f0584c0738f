"""Zero-shot detection: action units (AUs) that Q3 did not ask Exp-VQA(fz) about in training.

Only Q3 leaves them out: the answers to Q1 and Q2 name their actions. Exp-VQA, which was asked about all,
stands beside it; it also trains the vision encoder, so what asking alone is worth is measured by
`ablations.leave_one_out`.
"""

from collections.abc import Sequence

import pandas as pd

from ..data import labelled_aus
from ..facs import au_column
from .detection import answered_aus, bootstrap_settings, metric_tables, paired_differences, with_controls
from .metrics import COLUMNS, au_table, prior_scores
from .tables import MODELS, metric_name, with_intervals

MODEL, SHUFFLED, NAMED = "exp_vqa_fz", "exp_vqa_fz_shuffled_images", "exp_vqa_fz_named"
FEWEST = 10
"""Test faces with an AU below which it is left out."""
METRICS = ("auc", "balanced_accuracy", "f1", "recall")


def corpus(run) -> str | None:
    """The corpus of a `pipeline.Run` whose test faces show most of the unseen AUs, if any does."""
    names = run.faces().query("split == 'test'")["dataset"].unique()
    counts = {name: len(_frequent(run.faces_of(name), run.profile.unseen)) for name in names}
    return max(counts, key=counts.get) if any(counts.values()) else None


def _frequent(faces: pd.DataFrame, aus: Sequence[int]) -> list[int]:
    return [au for au in aus if faces[au_column(au)].eq(1).sum() >= FEWEST]


def _groups(run) -> tuple[pd.DataFrame, dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """Test faces, labels by group (`seen`, `unseen`), and P(yes) [faces, AUs] by model or control."""
    faces, train = run.faces_of(corpus(run)), run.faces().query("split == 'train'")
    frequent, unseen = _frequent(faces, labelled_aus(faces)), set(run.profile.unseen)
    groups = {"seen": set(labelled_aus(train)) - unseen, "unseen": unseen}
    groups = {group: [au for au in frequent if au in aus] for group, aus in groups.items()}
    labels = {group: faces[[au_column(au) for au in aus]] for group, aus in groups.items() if aus}
    scores = {model: run.scores(model, faces, groups["seen"] + groups["unseen"]) for model in MODELS}
    scores = with_controls(scores, faces, run.profile.seed, MODEL)
    columns = list(scores[MODEL])
    named = answered_aus(run.answers(MODEL, "Q1", faces), len(faces), columns)
    return faces, labels, scores | {"prior": prior_scores(faces[columns]), NAMED: named}


def zero_shot(run) -> pd.DataFrame:
    """Measure each model and control on every AU, and the averages `seen` and `unseen`, in percent.

    Models: those of the run (a `pipeline.Run`), the prior (always yes), Exp-VQA(fz) on shuffled images, and
    the AUs that its Q1 answer names, which are yes or no and so have no AUC. Columns as `au_table`; no rows
    where no test split has an unseen AU labelled.
    """
    if corpus(run) is None:
        return pd.DataFrame(columns=list(COLUMNS))
    faces, groups, scores = _groups(run)
    tables, settings = [], {"metrics": METRICS, **bootstrap_settings(run)}
    for group, labels in groups.items():
        asked = {model: table[labels.columns] for model, table in scores.items()}
        table = metric_tables(au_table, faces, labels, asked, **settings)
        tables.append(table.replace({"target": {"macro": group}}))
    table = pd.concat(tables, ignore_index=True)
    return table[(table["metric"] != "auc") | (table["model"] != NAMED)].reset_index(drop=True)


def differences(run) -> pd.DataFrame:
    """Exp-VQA(fz) asked Q3, and its Q1 answers, minus their controls, on the averages `seen` and `unseen`.

    Columns: group, model, metric, minus, value, low, high (percentage points), p.
    """
    columns = ["group", "model", "metric", "minus", "value", "low", "high", "p"]
    if corpus(run) is None:
        return pd.DataFrame(columns=columns)
    faces, groups, scores = _groups(run)
    scores = with_controls(scores, faces, run.profile.seed, NAMED)
    pairs = [(MODEL, metric, other) for metric in METRICS for other in ("prior", "base", SHUFFLED)]
    pairs += [
        (NAMED, metric, other) for metric in METRICS[1:] for other in ("prior", f"{NAMED}_shuffled_images")
    ]
    tables = {
        group: paired_differences(run, faces, labels, scores, pairs) for group, labels in groups.items()
    }
    return pd.concat(tables, names=["group"]).reset_index("group")[columns].reset_index(drop=True)


def layout(table: pd.DataFrame, targets: Sequence[str] = ()) -> pd.DataFrame:
    """AUC, balanced accuracy and F1 of a `zero_shot` table: a row a metric and target, a column a model."""
    rows = table[table["target"].isin(targets)] if targets else table
    if rows.empty:
        return rows
    parts = {metric_name(metric): with_intervals(rows, metric) for metric in METRICS[:3]}
    return pd.concat(parts, names=["Metric", "AUs"]).reset_index()


def auc_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The AUC of every model but the prior for a chart: unseen AUs, then the averages `unseen` and `seen`."""
    rows = table[(table["metric"] == "auc") & (table["model"] != "prior")]
    targets = list(dict.fromkeys(rows["target"]))
    first = targets.index("seen") + 1 if "seen" in targets else 0  # the group of seen AUs stands first
    return rows.set_index("target", drop=False).loc[targets[first:] + targets[max(0, first - 1) : first]]
