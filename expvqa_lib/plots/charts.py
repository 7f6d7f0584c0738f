"""Charts of results, from tidy tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.patches import Patch

from ..evaluation.ablations import TITLES
from ..evaluation.tables import NAMES, metric_name, metric_rows, ordered_models, ordered_targets
from .style import (
    COLOURS,
    COLUMN,
    FAINT,
    INK,
    ORANGE,
    PAGE,
    Figure,
    colour,
    error_bars,
    heat_map,
    nothing_to_show,
    percent_axis,
    styled,
)


@styled
def au_bars(table: pd.DataFrame, metric: str = "f1", title: str | None = None) -> Figure:
    """Draw each model's value on each AU as a dot with its 95% interval; the prior is a dash to beat.

    Args:
        table: tidy results (see `evaluation.metrics`) in percent, of one or several models; one data set and
            split.

    Raises:
        TableError: the table has no row of this metric.
    """
    rows = metric_rows(table, metric)
    targets, models = ordered_targets(rows["target"]), ordered_models(rows["model"])
    at = {target: k + 0.6 * (target == "macro") for k, target in enumerate(targets)}
    fig = Figure(figsize=(PAGE, 2.6))
    ax = fig.add_subplot()
    for target in targets[::2]:
        ax.axvspan(at[target] - 0.5, at[target] + 0.5, color=FAINT, zorder=0)
    dots = [model for model in models if model != "prior"]
    for model in models:
        of_model = rows[rows["model"] == model]
        x = of_model["target"].map(at)
        style = {"color": colour(model, models), "label": NAMES.get(model, model)}
        if model == "prior":
            ax.hlines(of_model["value"], x - 0.42, x + 0.42, linewidth=1.2, zorder=2, **style)
            continue
        if model == "exp_vqa" or len(dots) == 1:
            style |= {"markersize": 5.2, "elinewidth": 1.6, "zorder": 4}
        offset = (dots.index(model) - (len(dots) - 1) / 2) * min(0.2, 0.7 / len(dots))
        error_bars(ax, of_model, x + offset, **style)
    ax.set_xticks(list(at.values()), targets)
    ax.set_xlim(-0.6, max(at.values()) + 0.6)
    percent_axis(ax, f"{metric_name(metric)} (%)")
    ax.set_title(title or f"{metric_name(metric)} by action unit, with 95% intervals")
    fig.legend(loc="outside lower center", ncols=len(models))
    return fig


@styled
def forest(table: pd.DataFrame, title: str, label: str) -> Figure:
    """Draw each target as a row and each model as a dot with its 95% interval, at column width.

    Args:
        table: columns target, model, value, low, high; any unit. 0 is marked where values change sign.
        label: of the values, with their unit.
    """
    targets, models = list(dict.fromkeys(table["target"])), ordered_models(table["model"])
    fig = Figure(figsize=(COLUMN, 0.95 + len(targets) * (0.12 + 0.13 * len(models))))
    ax = fig.add_subplot()
    for row in range(0, len(targets), 2):
        ax.axhspan(row - 0.5, row + 0.5, color=FAINT, zorder=0)
    for k, model in enumerate(models):
        rows = table[table["model"] == model]
        y = rows["target"].map(targets.index) + (k - (len(models) - 1) / 2) * 0.8 / len(models)
        style = {"color": colour(model, models), "label": NAMES.get(model, model)}
        error_bars(ax, rows, y, horizontal=True, **style)
    if table["low"].min() < 0 < table["high"].max():
        ax.axvline(0, color="#BBBBBB", linewidth=0.8, zorder=1)
    ax.set_yticks(range(len(targets)), targets)
    ax.set(ylim=(len(targets) - 0.5, -0.5), xlabel=label)
    ax.grid(axis="x")
    fig.suptitle(title, x=0.01, ha="left")
    fig.legend(loc="outside lower center", ncols=2)
    return fig


@styled
def ablation_chart(table: pd.DataFrame) -> Figure:
    """Draw `evaluation.ablations.study`: a row a model, a panel a measure, hollow what was not taught."""
    panels = {("Q3", "auc"): "Q3\nAUC", ("Q1 actions", "f1"): "Q1 actions\nF1"}
    panels[("Q1 emotion", "accuracy")] = "Q1 emotion\naccuracy"
    rows = table.set_index(["question", "metric", "model"]).sort_index()
    models = [model for model in TITLES if model != "prior" and model in set(table["model"])]
    measures = [measure for measure in panels if measure in rows.index]
    fig = Figure(figsize=(COLUMN, 1.1 + 0.19 * len(models)))
    axes = fig.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for ax, measure in zip(axes, measures, strict=True):
        for y, model in enumerate(models):
            row, tint = rows.loc[[(*measure, model)]], _ablation_colour(model)
            fill = tint if row["taught"].all() else "white"
            error_bars(ax, row, [y], horizontal=True, color=tint, markerfacecolor=fill)
            if y % 2 == 0:
                ax.axhspan(y - 0.5, y + 0.5, color=FAINT, zorder=0)
        prior = rows.loc[(*measure, "prior"), "value"]
        ax.axvline(prior, color=COLOURS["prior"], linewidth=0.9, linestyle="--", zorder=1)
        ax.set(xlim=(-4, 104), xticks=(0, 50, 100), ylim=(len(models) - 0.5, -0.5))
        ax.set_title(panels[measure], fontsize=7, fontweight="normal", loc="center")
        ax.grid(axis="x")
    axes[0].set_yticks(range(len(models)), [TITLES[model] for model in models])
    fig.suptitle("What each question is worth", x=0.01, ha="left")
    fig.supxlabel("percent, 95% intervals; hollow: not taught; dashed: label prior", fontsize=7)
    return fig


def _ablation_colour(model: str) -> str:
    """Captioners in green, parts of the questions in grey, the others as everywhere."""
    if model in COLOURS:
        return COLOURS[model]
    return "#009E73" if model.endswith("captioner") else "#444444"


@styled
def training_curves(logs: Mapping[str, pd.DataFrame], smoothing: int = 11) -> Figure:
    """Draw the loss over steps, and validation AUC where it was logged.

    Args:
        logs: by model, columns step, loss and eval_loss (NaN where not logged), optionally eval_au_auc
            (percent or share).
        smoothing: how many logged training losses a centred mean covers; the raw ones stay faint behind it.
    """
    has_auc = any("eval_au_auc" in log for log in logs.values())
    fig = Figure(figsize=(PAGE if has_auc else COLUMN, 2.4))
    axes = fig.subplots(1, 1 + has_auc, squeeze=False)[0]
    dots = {"marker": "o", "markeredgecolor": "white", "markeredgewidth": 0.5}
    for model, log in logs.items():
        tint, name = colour(model, list(logs)), NAMES.get(model, model)
        train = log.dropna(subset=["loss"])
        smooth = train["loss"].rolling(smoothing, center=True, min_periods=1).mean()
        axes[0].plot(train["step"], train["loss"], color=tint, alpha=0.18, linewidth=0.6)
        axes[0].plot(train["step"], smooth, color=tint, label=f"{name}, training")
        if "eval_loss" in log:
            check = log.dropna(subset=["eval_loss"])
            label = f"{name}, validation"
            axes[0].plot(
                check["step"], check["eval_loss"], ":", color=tint, linewidth=0.8, label=label, **dots
            )
        if "eval_au_auc" in log:
            check = log.dropna(subset=["eval_au_auc"])
            auc = check["eval_au_auc"] * (1 if check["eval_au_auc"].max() > 1 else 100)
            axes[1].plot(check["step"], auc, "o-", color=tint, label=name)
    axes[0].set(title="Loss", xlabel="training step", ylabel="cross-entropy (nats per token)")
    if has_auc:
        axes[1].axhline(50, color=COLOURS["prior"], linewidth=0.8, linestyle="--", label="chance")
        axes[1].set(title="Action units, validation", xlabel="training step", ylabel="macro AUC (%)")
    for ax in axes:
        ax.grid(axis="y")
        ax.margins(x=0.02)
        ax.legend()
    return fig


@styled
def pointing_bars(table: pd.DataFrame, title: str = "Does attention point at the moving part?") -> Figure:
    """Draw pointing accuracy by AU with its 95% interval, each with a tick where chance is.

    Args:
        table: of `attention.pointing`, in percent, of one or several models.

    Raises:
        TableError: the table has rows, but no pointing accuracy.
    """
    if table.empty:
        return nothing_to_show()
    rows = metric_rows(table, "pointing_accuracy")
    models, targets = ordered_models(rows["model"]), ordered_targets(rows["target"])
    chance = table[table["metric"] == "chance"].groupby("target")["value"].mean().reindex(targets)
    fig = Figure(figsize=(COLUMN if len(models) * len(targets) <= 14 else PAGE, 2.4))
    ax = fig.add_subplot()
    names = rows["model"].map(lambda model: NAMES.get(model, model))
    palette = {NAMES.get(model, model): colour(model, models) for model in models}
    bars = {"order": targets, "hue_order": list(palette), "palette": palette, "saturation": 1, "width": 0.76}
    sns.barplot(rows, x="target", y="value", hue=names, errorbar=None, legend=False, ax=ax, **bars)
    for k, model in enumerate(models):
        of_model = rows[rows["model"] == model]
        x = of_model["target"].map(targets.index) + ((k + 0.5) / len(models) - 0.5) * 0.76
        error_bars(ax, of_model, x, fmt="none", ecolor=INK, elinewidth=0.7, zorder=5)
    x = np.arange(len(targets))
    ax.hlines(chance, x - 0.44, x + 0.44, color="white", linewidth=2.6, zorder=3)
    ax.hlines(chance, x - 0.44, x + 0.44, color=ORANGE, linewidth=1.2, zorder=4, label="chance")
    ax.set_xticks(x, [target.removeprefix("AU") for target in targets])
    percent_axis(ax, "pointing accuracy (%)")
    ax.set(xlabel="action unit", title=title)
    handles = [*(Patch(label=name, color=tint) for name, tint in palette.items()), ax.collections[-1]]
    fig.legend(handles=handles, loc="outside lower center", ncols=len(models) + 1)
    return fig


@styled
def confusion(
    true: Iterable[str], predicted: Iterable[str | None], labels: Sequence[str], title: str = "Emotions"
) -> Figure:
    """Draw, for each true emotion, the percent of its faces that got each answer.

    Answers not in `labels` share a last column. Faces whose true emotion is not in `labels` are left out.
    """
    pairs = pd.DataFrame({"true": list(true), "predicted": list(predicted)})
    pairs = pairs[pairs["true"].isin(labels)]
    pairs["predicted"] = pairs["predicted"].where(pairs["predicted"].isin(labels), "none")
    columns = [*labels, "none"] if (pairs["predicted"] == "none").any() else list(labels)
    shares = pd.crosstab(pairs["true"], pairs["predicted"], normalize="index")
    fig = Figure(figsize=(COLUMN, COLUMN * 0.78))
    ax = fig.add_subplot()
    percent = 100 * shares.reindex(index=labels).reindex(columns=columns, fill_value=0)
    heat_map(
        ax, percent.where(shares.sum(axis=1).reindex(labels).notna(), axis=0), "share of the true emotion (%)"
    )
    ax.set_xticks(ax.get_xticks(), columns, rotation=40, ha="right", rotation_mode="anchor")
    ax.set(xlabel="answer", ylabel="true", title=title)
    return fig


@styled
def reliability(bins: pd.DataFrame, title: str = "Are the probabilities right?") -> Figure:
    """Draw how often yes was right against how probable it was; a larger dot stands for more answers.

    Args:
        bins: of `evaluation.metrics.reliability_table`, one target.
    """
    fig = Figure(figsize=(COLUMN, 3.4))
    ax = fig.add_subplot()
    rows, tint = bins.dropna(subset=["positives"]), COLOURS["exp_vqa"]
    sizes = 8 + 90 * rows["faces"] / rows["faces"].max()
    ax.plot([0, 100], [0, 100], color="#BBBBBB", linewidth=0.8, zorder=1)
    ax.plot(rows["mean_score"], rows["positives"], color=tint, linewidth=1.0, zorder=2)
    ax.scatter(rows["mean_score"], rows["positives"], s=sizes, color=tint, zorder=3)
    percent_axis(ax, "the AU is present (%)")
    ax.set(xlim=(-4, 104), ylim=(-4, 104), aspect="equal", xlabel="P(yes), mean of the bin (%)", title=title)
    return fig
