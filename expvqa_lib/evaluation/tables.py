"""Results laid out to be read: names of models, values with their intervals."""

from collections.abc import Iterable

import pandas as pd

from ..data import labelled_aus
from ..errors import TableError
from ..facs import ACTION_UNITS
from ..training.recipe import VARIANTS
from .metrics import ALL_METRICS

MAIN = "exp_vqa"
MODELS = ("base", *VARIANTS)
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
_RESULTS = {
    "Q3 f1": "Q3 macro F1",
    "Q3 auc": "Q3 AUC",
    "Q1 accuracy": "Q1 emotion accuracy",
    "Q1 names_actions": "Q1 names actions, too",
    "Q2 f1": "Q2 macro F1",
}


def with_intervals(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A row a target, a column a model, and cells such as `71.3 [66.0, 75.2]`: the value and its 95%
    interval.

    Args:
        table: results in the columns of `au_table`, of one data set and split.

    Raises:
        TableError: the table has no row of this metric.
    """
    rows = metric_rows(table, metric)
    wide = text_table(rows, "target", "model")
    wide = wide.reindex(index=rows["target"].unique(), columns=ordered_models(rows["model"]))
    return wide.rename(index={"macro": "Average"}, columns=NAMES).rename_axis(metric_name(metric))


def paper_tables(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The tables that a paper prints, by name (`Q3 F1`): F1, AUC, and the accuracy of emotions.

    Args:
        table: results of `measure`, or of `au_detection` with a column `question`.

    Returns:
        `with_intervals` of each data set and split, one below the other.
    """
    of_emotions, tables = (table["metric"] == "accuracy") & (table["target"] == "emotion"), {}
    printed = table[table["metric"].isin(["f1", "auc"]) | of_emotions]
    for (question, metric), rows in printed.groupby(["question", "metric"]):
        parts = {keys: with_intervals(part, metric) for keys, part in rows.groupby(["dataset", "split"])}
        tables[f"{question} {metric_name(metric)}"] = pd.concat(parts, names=["data set", "split"])
    return tables


def text_table(
    rows: pd.DataFrame, index: str | list[str], columns: str, marks: pd.Series | str = ""
) -> pd.DataFrame:
    """`interval_texts` and marks in wide format: a row each of `index`, a column each of `columns`."""
    rows = rows.assign(text=interval_texts(rows) + marks)
    return rows.pivot(index=index, columns=columns, values="text").rename_axis(columns=None)


def interval_texts(rows: pd.DataFrame) -> pd.Series:
    """`71.3 [66.0, 75.2]` of each row's value, low and high; the value alone where there is no interval."""
    value, low, high = (rows[column].map("{:.1f}".format) for column in ("value", "low", "high"))
    return (value + " [" + low + ", " + high + "]").where(rows["low"].notna(), value)


def macro_averages(table: pd.DataFrame, metrics: Iterable[str] = ALL_METRICS) -> pd.DataFrame:
    """The averages over all AUs: a row a model, a column a metric, values with their intervals."""
    macro = table[table["target"] == "macro"]
    return pd.DataFrame(
        {metric_name(metric): with_intervals(macro, metric).loc["Average"] for metric in metrics}
    )


def tuned_layout(table: pd.DataFrame, tuned: pd.DataFrame) -> pd.DataFrame:
    """F1 and balanced accuracy (macro) with a threshold of 0.5 beside those of `tuned_thresholds`."""
    both = pd.concat([table[table["model"].isin(tuned["model"])], tuned], ignore_index=True)
    return macro_averages(both, ("f1", "f1_tuned", "balanced_accuracy", "balanced_accuracy_tuned"))


def emotion_layout(labels: pd.DataFrame) -> pd.DataFrame:
    """Emotions of `sentence_labels`: accuracy, F1 of each, macro F1; a column a model."""
    rows = labels[labels["question"] == "Q1"]
    if rows.empty:
        return rows
    names = {"accuracy": "accuracy", "f1": "macro F1"}
    parts = [with_intervals(rows, metric).rename({"Average": name}) for metric, name in names.items()]
    return pd.concat(parts).rename_axis("Emotion")


def results_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The README's table, a row a model, from `au_detection` (question Q3) and `sentence_labels`."""
    rows = rows[rows["target"] == "macro"].reset_index(drop=True)
    rows["column"] = (rows["question"] + " " + rows["metric"]).map(_RESULTS)
    wide = text_table(rows.dropna(subset="column"), "model", "column")
    models = ["prior", "base", "exp_vqa_fz", "exp_vqa"]
    wide = wide.reindex(index=models, columns=list(_RESULTS.values())).astype(object)
    return wide.fillna("").rename(index=NAMES)


def metric_rows(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows of one metric.

    Raises:
        TableError: there are none.
    """
    rows = table[table["metric"] == metric]
    if rows.empty:
        raise TableError(
            f"the table has no metric {metric!r}; it has {', '.join(sorted(table['metric'].unique()))}"
        )
    return rows


def metric_name(metric: str) -> str:
    """How a metric is written: `F1`, `AUC`, `Balanced accuracy`."""
    return {"f1": "F1", "auc": "AUC"}.get(metric, metric.replace("_", " ").capitalize())


def ordered_targets(targets: Iterable[str]) -> list[str]:
    """AUs by number, then anything else."""
    return sorted(set(targets), key=lambda t: (0, int(t[2:])) if t[2:].isdigit() else (1, 0))


def ordered_models(models: Iterable[str]) -> list[str]:
    """Models in the order of `NAMES`, then any others as they come."""
    return sorted(set(models), key=[*NAMES, *models].index)


def au_columns(faces: pd.DataFrame) -> list[str]:
    """Columns of the AUs that are labelled in a face table."""
    return [ACTION_UNITS[n].name for n in labelled_aus(faces)]
