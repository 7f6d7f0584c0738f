"""Charts of labels and results, from tidy tables; of an empty one they say that nothing was measured."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from ..evaluation.ablations import TITLES
from ..evaluation.tables import MAIN, NAMES, metric_rows, ordered_models, ordered_targets
from .style import (
    COLOURS,
    COLUMN,
    FAINT,
    INK,
    PAGE,
    Figure,
    colour,
    heat_map,
    one_panel,
    percent_axis,
    styled,
)

_MEASURES = {
    "Q3 auc": "Q3, AUC",
    "Q1 actions f1": "Q1 actions, F1",
    "Q1 emotion accuracy": "Q1 emotion, accuracy",
}
_CURVES = {
    "deletion": "most relevant patches, blurred (%)",
    "insertion": "most relevant patches, alone sharp (%)",
}


@styled
def au_bars(table: pd.DataFrame) -> Figure:
    """Draw each model's F1 on each AU as a dot with its 95% interval; the label prior is a dash to beat.

    Raises:
        TableError: the table has no F1.
    """
    return _by_au(metric_rows(table, "f1"), "F1 by action unit, with 95% intervals", "F1 (%)")


@styled
def pointing_bars(table: pd.DataFrame) -> Figure:
    """Draw pointing accuracy by AU (`attention.pointing`) as `au_bars`; chance is a dash."""
    chance = table[(table["metric"] == "chance") & (table["model"] == MAIN)].assign(model="chance")
    rows = pd.concat([chance, metric_rows(table, "pointing_accuracy")])
    return _by_au(rows, "Does attention point at the moving part?", "pointing accuracy, 95% intervals (%)")


def _by_au(rows: pd.DataFrame, title: str, label: str) -> Figure:
    targets = ordered_targets(rows["target"])
    fig, ax = one_panel(PAGE, 2.6)
    _dots(ax, rows, targets)
    ax.set(xticks=range(len(targets)), xticklabels=targets, xlim=(-0.5, len(targets) - 0.5), title=title)
    percent_axis(ax, label)
    fig.legend(loc="outside lower center", ncols=5)
    return fig


@styled
def forest(table: pd.DataFrame, title: str, label: str) -> Figure:
    """Draw each target as a row and each model as a dot with its 95% interval, at column width.

    Args:
        table: columns target, model, value, low, high; any unit. 0 is marked where values change sign.
        label: of the values, with their unit.
    """
    targets = list(dict.fromkeys(table["target"]))
    fig, ax = one_panel(COLUMN, 0.95 + len(targets) * (0.1 + 0.1 * table["model"].nunique()))
    _dots(ax, table, targets, horizontal=True)
    if table["low"].min() < 0 < table["high"].max():
        ax.axvline(0, color="#BBBBBB", linewidth=0.8, zorder=1)
    ax.set(yticks=range(len(targets)), yticklabels=targets, ylim=(len(targets) - 0.5, -0.5), xlabel=label)
    ax.grid(axis="x")
    fig.suptitle(title, x=0.01, ha="left")
    fig.legend(loc="outside lower center", ncols=2)
    return fig


def _dots(ax: Axes, table: pd.DataFrame, targets: Sequence[str], horizontal: bool = False) -> None:
    """A striped row or column a target, and in it a dot a model; upright, what is to be beaten is a dash."""
    models, span = ordered_models(table["model"]), ax.axhspan if horizontal else ax.axvspan
    for k in range(0, len(targets), 2):
        span(k - 0.5, k + 0.5, color=FAINT, zorder=0)
    for k, model in enumerate(models):
        rows = table[table["model"] == model]
        at, value = rows["target"].map(targets.index), rows["value"]
        style = {"color": colour(model, models), "label": NAMES.get(model, model)}
        error = np.nan_to_num(np.stack([value - rows["low"], rows["high"] - value]).clip(min=0))
        places = at + (k - (len(models) - 1) / 2) * 0.8 / len(models)
        dots = {"fmt": "o", "markersize": 3.6, "elinewidth": 1.2, "clip_on": False} | style
        if horizontal:
            ax.errorbar(value, places, xerr=error, **dots)
        elif model in ("prior", "chance"):
            ax.hlines(value, at - 0.42, at + 0.42, linewidth=1.2, zorder=2, **style)
        else:
            ax.errorbar(places, value, yerr=error, **dots)


def ablation_chart(table: pd.DataFrame) -> Figure:
    """Draw `evaluation.ablations.study` as `forest`: a row a model, a dot a measure."""
    measures = (table["question"] + " " + table["metric"]).map(_MEASURES)
    rows = table.assign(target=table["model"].map(TITLES), model=measures).dropna(subset=["model"])
    return forest(rows, "What each question is worth", "percent, with 95% intervals")


@styled
def training_curves(logs: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw the loss over steps by model: of training faint, and smoothed (a mean of 11), and of validation.

    Args:
        logs: columns step, loss and eval_loss (NaN where not logged).
    """
    fig, ax = one_panel(COLUMN, 2.6)
    for model, log in logs.items():
        tint, name = colour(model, list(logs)), NAMES.get(model, model)
        losses = log.set_index("step").reindex(columns=["loss", "eval_loss"])
        train, check = losses["loss"].dropna(), losses["eval_loss"].dropna()
        smooth = train.rolling(11, center=True, min_periods=1).mean()
        ax.plot(train, color=tint, alpha=0.18, linewidth=0.6)
        ax.plot(smooth, color=tint, label=f"{name}, training")
        ax.plot(check, "o:", color=tint, linewidth=0.8, label=f"{name}, validation")
    ax.set(title="Loss", xlabel="training step", ylabel="cross-entropy (nats per token)")
    ax.grid(axis="y")
    ax.legend()
    return fig


@styled
def confusion(true: Iterable[str], predicted: Iterable[str | None], labels: Sequence[str]) -> Figure:
    """Draw, for each true emotion, the percent of its faces that got each answer.

    Answers not in `labels` share a last column. Faces whose true emotion is not in `labels` are left out.
    """
    answers = pd.Series([answer if answer in labels else "none" for answer in predicted], dtype=object)
    shares = 100 * pd.crosstab(pd.Series(list(true), dtype=object), answers, normalize="index")
    columns = [*labels, *shares.columns.intersection(["none"])]
    fig, ax = one_panel(COLUMN, COLUMN * 0.78)
    heat_map(
        ax, shares.reindex(columns=columns, fill_value=0).reindex(labels), "share of the true emotion (%)"
    )
    ax.set_xticks(ax.get_xticks(), columns, rotation=40, ha="right", rotation_mode="anchor")
    ax.set(xlabel="answer", ylabel="true", title="Emotions in answers")
    return fig


@styled
def au_cooccurrence(labels: pd.DataFrame, title: str) -> Figure:
    """Draw P(column AU | row AU) in percent, over the faces where both are labelled; columns `AU1` ..."""
    y = au_floats(labels).dropna(axis=1, how="all")
    present = y.fillna(0)
    percent = 100 * (present.T @ present) / (present.T @ y.notna().astype(float))
    side = float(np.clip(0.9 + 0.23 * y.shape[1], 2.6, PAGE))
    fig, ax = one_panel(side * 1.12, side)
    heat_map(ax, percent.mask(np.eye(len(percent)) > 0), "P(column | row) (%)", notes=len(percent) <= 13)
    ax.set(xlabel="also present (AU)", ylabel="given (AU)", title=title)
    return fig


def au_floats(labels: pd.DataFrame) -> pd.DataFrame:
    """The AU columns by their number as floats, NaN where unlabelled."""
    names = ordered_targets(labels.filter(regex=r"^AU\d+$"))
    return labels[names].astype("Float64").astype(float).rename(columns=lambda name: name[2:])


@styled
def reliability(bins: pd.DataFrame) -> Figure:
    """Draw how often yes was right against how probable it was; a larger dot stands for more answers.

    Args:
        bins: of `evaluation.reliability`, one target.
    """
    fig, ax = one_panel(COLUMN, 3.4)
    rows, tint = bins.dropna(subset=["positives"]), COLOURS[MAIN]
    ax.plot([0, 100], [0, 100], color="#BBBBBB", linewidth=0.8, zorder=1)
    ax.plot(rows["mean_score"], rows["positives"], color=tint, linewidth=1.0, zorder=2)
    ax.scatter(
        rows["mean_score"],
        rows["positives"],
        s=8 + 90 * rows["faces"] / rows["faces"].max(),
        color=tint,
        zorder=3,
    )
    percent_axis(ax, "the AU is present (%)")
    title, label = "Are the probabilities right?", "P(yes), mean of the bin (%)"
    ax.set(xlim=(-4, 104), ylim=(-4, 104), aspect="equal", xlabel=label, title=title)
    return fig


@styled
def method_heat(table: pd.DataFrame, metric: str, label: str) -> Figure:
    """Draw a metric of `attention.faithfulness`: a row a method or control, a column an AU or the mean."""
    rows = metric_rows(_compared(table), metric)
    wide = rows.pivot(index="name", columns="target", values="value").reindex(
        index=rows["name"].unique(), columns=ordered_targets(rows["target"])
    )
    fig, ax = one_panel(PAGE, 0.6 + 0.3 * len(wide))
    heat_map(ax, wide.rename(columns=lambda name: name.removeprefix("AU")), label)
    ax.set(xlabel="action unit")
    return fig


@styled
def method_curves(table: pd.DataFrame) -> Figure:
    """Draw the mean P(yes) over the share of patches blurred and shown, a line a method or control."""
    rows = _compared(table[table["target"] == "macro"])
    rows[["kind", "share"]] = rows["metric"].str.extract(r"^(deletion|insertion)_(.*)")
    rows = rows.dropna(subset=["share"])
    shares, names = rows["share"].astype(float).map("{:.0f}".format), list(rows["name"].unique())
    fig = Figure(figsize=(PAGE, 2.9))
    for ax, (kind, label) in zip(fig.subplots(1, 2, sharey=True), _CURVES.items(), strict=True):
        sns.lineplot(
            rows[rows["kind"] == kind].assign(share=shares),
            ax=ax,
            x="share",
            y="value",
            hue="name",
            style="name",
            size="name",
            palette=dict(zip(names, [INK, *sns.color_palette("tab10")[1:]], strict=False)),
            dashes={name: (2, 1) if name in names[-3:] else "" for name in names},
            sizes={name: 2.2 if name == names[0] else 1 for name in names},
            legend=kind == "insertion",
        )
        percent_axis(ax, "P(yes) (%)")
        ax.set_xlabel(label)
    ax.get_legend().remove()
    fig.legend(*ax.get_legend_handles_labels(), loc="outside right center")
    return fig


def method_forest(table: pd.DataFrame, metric: str, title: str, label: str) -> Figure:
    """Draw a metric of `attention.faithfulness`, mean over AUs, as `forest`: a row a method."""
    rows = table[(table["target"] == "macro") & (table["metric"] == metric)]
    return forest(rows.assign(target=rows["method"].str.replace("_", " ")), title, label)


def _compared(table: pd.DataFrame) -> pd.DataFrame:
    """Every method of the model, and at last what must fail: permuted weights and controls."""
    rows = table[(table["model"] == MAIN) | (table["method"] == table["method"].iat[0])]
    permuted = np.where(rows["model"] == MAIN, "", ", permuted weights")
    return rows.assign(name=rows["method"].str.replace("_", " ") + permuted)
