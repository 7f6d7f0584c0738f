"""The look of every figure, and charts of results; labels are drawn by `data_figures`, pictures of faces by `overlays`.

Each function returns a `Figure` that no pyplot state holds: show it as the last line of a cell, or `save` it. Widths are 3.4 in
(a column) or 7 in (a page).
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

import matplotlib as mpl
import matplotlib.figure
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ..evaluation.tables import NAMES, metric_name, metric_rows, ordered_models, ordered_targets
from ..files import atomic

STYLE = Path(__file__).parents[1] / "assets" / "expvqa.mplstyle"
COLUMN, PAGE = 3.4, 7.0  # inches

# Okabe and Ito's colours, told apart by every kind of colour vision; the systems trained on faces are the blue ones.
COLOURS = {
    "prior": "#8C8C8C",
    "base": "#E69F00",
    "exp_vqa": "#0B5FA5",
    "exp_vqa_fz": "#56B4E9",
    "exp_vqa_shuffled_images": "#CC79A7",
    "exp_vqa_randomised": "#882255",
    "exp_vqa_fz_shuffled_images": "#E7A9CF",
    "exp_vqa_fz_named": "#117733",
    "exp_vqa_fz_named_shuffled_images": "#999933",
}
_OTHER_COLOURS = ("#009E73", "#D55E00", "#B8A000", "#444444")
INK, _FAINT = "#222222", "#F4F4F4"

P = ParamSpec("P")
R = TypeVar("R")


class Figure(matplotlib.figure.Figure):
    """A matplotlib figure that a notebook shows by itself, once, whatever its backend."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        _write(self, buffer, dpi=150, format="png")
        return buffer.getvalue()


def use_style() -> None:
    """Give the reader's own plots the look of these figures; the functions here carry it themselves."""
    mpl.style.use(STYLE)


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Run a drawing function under the style sheet, and leave the settings around it alone."""

    @functools.wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.style.context(STYLE, after_reset=True):
            return draw(*args, **kwargs)

    return inside


def save(fig: matplotlib.figure.Figure, path: str | Path) -> Path:
    """Write a figure (PNG at 200 dpi, or what the suffix says), whole or not at all; equal figures give equal bytes.

    Raises:
        ExpVQAError: the folder cannot be written to.
    """
    path = Path(path)
    with atomic(path) as temporary:
        _write(fig, temporary, metadata={"Software": None} if path.suffix.lower() == ".png" else None)
    return path


def _write(fig: matplotlib.figure.Figure, target: Path | io.BytesIO, **options: object) -> None:
    """Draw under the style, save its layout: matplotlib would give that for good to a figure that was laid out by hand."""
    with mpl.style.context([STYLE, {"figure.constrained_layout.use": False}], after_reset=True):
        fig.savefig(target, **options)


@styled
def au_bars(table: pd.DataFrame, metric: str = "f1", title: str | None = None) -> Figure:
    """Draw each model's value on each AU as a dot with its 95% interval, macro apart at the right; the prior is a dash to beat.

    Args:
        table: tidy results (see `metrics.au_table`) in percent, of one or several models; one data set and split.

    Raises:
        TableError: the table has no row of this metric.
    """
    rows = metric_rows(table, metric)
    targets = ordered_targets(rows.target)
    models = ordered_models(rows.model)
    at = {target: i + (0.6 if target == "macro" else 0.0) for i, target in enumerate(targets)}
    fig = Figure(figsize=(PAGE, 2.6))
    ax = fig.add_subplot()
    for target in targets[::2]:
        ax.axvspan(at[target] - 0.5, at[target] + 0.5, color=_FAINT, zorder=0)
    dots = [m for m in models if m != "prior"]
    offsets = dict(
        zip(
            dots,
            (np.arange(len(dots)) - (len(dots) - 1) / 2) * min(0.2, 0.7 / max(1, len(dots))),
            strict=True,
        )
    )
    for model in models:
        mine = rows[rows.model == model]
        x = mine.target.map(at) + offsets.get(model, 0.0)
        error = np.nan_to_num(np.stack([mine.value - mine.low, mine.high - mine.value]).clip(min=0))
        style = {"color": colour(model, models), "label": NAMES.get(model, model)}
        if model == "prior":
            ax.hlines(mine.value, x - 0.42, x + 0.42, linewidth=1.2, zorder=2, **style)
            continue
        first = model == "exp_vqa" or len(dots) == 1
        size, width = (5.2, 1.6) if first else (3.6, 1.0)
        ax.errorbar(
            x,
            mine.value,
            error,
            fmt="o",
            markersize=size,
            elinewidth=width,
            zorder=4 if first else 3,
            **style,
        )
    if "macro" in at:
        ax.axvline(at["macro"] - 0.8, color="#BBBBBB", linewidth=0.6)
    ax.set_xticks(list(at.values()), targets)
    ax.set_xlim(-0.6, max(at.values()) + 0.6)
    percent_axis(ax, f"{metric_name(metric)} (%)")
    ax.set_title(title or f"{metric_name(metric)} by action unit, with 95% intervals", pad=20)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(models), handletextpad=0.4, borderpad=0)
    return fig


@styled
def forest(table: pd.DataFrame, title: str, label: str) -> Figure:
    """Draw each target as a row and each model as a dot with its 95% interval, at column width; 0 is marked where values change sign.

    Args:
        table: columns target, model, value, low, high; any unit.
        label: of the values, with their unit.
    """
    targets, models = list(dict.fromkeys(table.target)), ordered_models(table.model)
    fig = Figure(figsize=(COLUMN, 0.95 + len(targets) * (0.12 + 0.13 * len(models))))
    ax = fig.add_subplot()
    for row in range(0, len(targets), 2):
        ax.axhspan(row - 0.5, row + 0.5, color=_FAINT, zorder=0)
    step = 0.8 / len(models)
    for k, model in enumerate(models):
        mine = table[table.model == model]
        y = mine.target.map(targets.index) + (k - (len(models) - 1) / 2) * step
        error = np.nan_to_num(np.stack([mine.value - mine.low, mine.high - mine.value]).clip(min=0))
        ax.errorbar(
            mine.value,
            y,
            xerr=error,
            fmt="o",
            markersize=3.6,
            elinewidth=1.2,
            color=colour(model, models),
            label=NAMES.get(model, model),
        )
    if table.low.min() < 0 < table.high.max():
        ax.axvline(0, color="#BBBBBB", linewidth=0.8, zorder=1)
    ax.set_yticks(range(len(targets)), targets)
    ax.set(ylim=(len(targets) - 0.5, -0.5), xlabel=label)
    ax.grid(axis="x")
    ax.set_title(title, loc="left", pad=6)
    fig.legend(loc="outside lower left", ncols=2, handletextpad=0.4)
    return fig


@styled
def training_curves(logs: Mapping[str, pd.DataFrame], smoothing: int = 11) -> Figure:
    """Draw the loss over steps, training smoothed and validation as dots, and validation AUC where it was logged.

    Args:
        logs: by model, columns step, loss and eval_loss (NaN where not logged), optionally eval_au_auc (percent or share).
        smoothing: how many logged training losses a centred mean covers; the raw ones stay faint behind it.
    """
    has_auc = any("eval_au_auc" in log and log["eval_au_auc"].notna().any() for log in logs.values())
    fig = Figure(figsize=(PAGE, 2.4) if has_auc else (COLUMN, 2.4))
    panels = fig.subplots(1, 2 if has_auc else 1, squeeze=False)[0]
    for model, log in logs.items():
        tint, name = colour(model, list(logs)), NAMES.get(model, model)
        train = log.dropna(subset=["loss"])
        panels[0].plot(train.step, train.loss, color=tint, alpha=0.18, linewidth=0.6)
        panels[0].plot(
            train.step,
            train.loss.rolling(smoothing, center=True, min_periods=1).mean(),
            color=tint,
            label=f"{name}, training",
        )
        if "eval_loss" in log:
            check = log.dropna(subset=["eval_loss"])
            style = {"markeredgecolor": "white", "markeredgewidth": 0.5, "linestyle": ":", "linewidth": 0.8}
            panels[0].plot(check.step, check.eval_loss, "o", color=tint, label=f"{name}, validation", **style)
        if has_auc and "eval_au_auc" in log:
            check = log.dropna(subset=["eval_au_auc"])
            auc = check.eval_au_auc * (1 if check.eval_au_auc.max() > 1 else 100)
            panels[1].plot(check.step, auc, "o-", color=tint, label=name)
    panels[0].set(title="Loss", xlabel="training step", ylabel="cross-entropy (nats per token)")
    if has_auc:
        panels[1].axhline(50, color=COLOURS["prior"], linewidth=0.8, linestyle="--")
        panels[1].annotate(
            "chance",
            (1, 50),
            (-2, 2),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
        )
        panels[1].set(title="Action units, validation", xlabel="training step", ylabel="macro AUC (%)")
    for ax in panels:
        ax.grid(axis="y")
        ax.margins(x=0.02)
        ax.legend()
    return fig


@styled
def pointing_bars(table: pd.DataFrame, title: str = "Does attention point at the moving part?") -> Figure:
    """Draw per-AU pointing accuracy with its interval, each with a tick where chance would be.

    Args:
        table: tidy results in percent with the metrics `pointing_accuracy` and `chance`, of one or several models.

    Raises:
        TableError: the table has no pointing accuracy.
    """
    rows = metric_rows(table, "pointing_accuracy")
    models, targets = ordered_models(rows.model), ordered_targets(rows.target)
    chance = table[table.metric == "chance"].groupby("target")["value"].mean()
    fig = Figure(figsize=(COLUMN if len(models) * len(targets) <= 14 else PAGE, 2.4))
    ax = fig.add_subplot()
    width = 0.72 / len(models)
    for i, model in enumerate(models):
        mine = rows[rows.model == model].set_index("target").reindex(targets)
        x = np.arange(len(targets)) + (i - (len(models) - 1) / 2) * width
        ax.bar(x, mine.value, width * 0.92, color=colour(model, models), label=NAMES.get(model, model))
        error = np.nan_to_num(np.stack([mine.value - mine.low, mine.high - mine.value]).clip(min=0))
        ax.errorbar(x, mine.value, error, fmt="none", ecolor=INK, elinewidth=0.7, zorder=5)
    x = np.arange(len(targets))
    ticks = chance.reindex(targets)
    ax.hlines(ticks, x - 0.44, x + 0.44, color="white", linewidth=2.6, zorder=3)
    ax.hlines(ticks, x - 0.44, x + 0.44, color="#D55E00", linewidth=1.2, zorder=4, label="chance")
    ax.set_xticks(x, [target.removeprefix("AU") for target in targets])
    ax.set_xlabel("action unit")
    ax.set_xlim(-0.6, len(targets) - 0.4)
    percent_axis(ax, "pointing accuracy (%)")
    ax.set_title(title, pad=20)
    ax.legend(
        loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(models) + 1, handletextpad=0.4, borderpad=0
    )
    return fig


@styled
def confusion(
    true: Iterable[str], predicted: Iterable[str | None], labels: Sequence[str], title: str = "Emotions"
) -> Figure:
    """Draw, for each true emotion, the percent of its faces that got each answer; answers not in `labels` share a last column.

    Faces whose true emotion is not in `labels` are left out; a row without faces stays empty.
    """
    labels = list(labels)
    pairs = pd.DataFrame({"true": list(true), "predicted": list(predicted)})
    pairs = pairs[pairs.true.isin(labels)]
    pairs["predicted"] = pairs.predicted.where(pairs.predicted.isin(labels), "none")
    columns = [*labels, "none"] if (pairs.predicted == "none").any() else labels
    counts = pd.crosstab(pairs.true, pairs.predicted).reindex(index=labels, columns=columns, fill_value=0)
    percent = 100 * counts / counts.sum(axis=1).replace(0, np.nan).to_numpy()[:, None]
    fig = Figure(figsize=(COLUMN, COLUMN * 0.78))
    ax = fig.add_subplot()
    heat(fig, ax, percent.to_numpy(dtype=float), "share of the true emotion (%)")
    ax.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(labels)), labels)
    ax.set(xlabel="answered", ylabel="true", title=title)
    return fig


@styled
def reliability(bins: pd.DataFrame, title: str = "Are the probabilities right?") -> Figure:
    """Draw how often yes was right against how probable it was said to be; a larger dot stands for more answers.

    Args:
        bins: of `metrics.reliability_table`, one target.
    """
    fig = Figure(figsize=(COLUMN, 3.4))
    ax = fig.add_subplot()
    rows = bins.dropna(subset=["positives"])
    ax.plot([0, 100], [0, 100], color="#BBBBBB", linewidth=0.8, zorder=1)
    ax.plot(rows["mean_score"], rows["positives"], color=COLOURS["exp_vqa"], linewidth=1.0, zorder=2)
    ax.scatter(
        rows["mean_score"],
        rows["positives"],
        s=8 + 90 * rows["faces"] / rows["faces"].max(),
        color=COLOURS["exp_vqa"],
        zorder=3,
    )
    ax.set_xlabel("P(yes), mean of the bin (%)")
    percent_axis(ax, "The AU is there (%)")
    ax.set(xlim=(-4, 104), ylim=(-4, 104), aspect="equal")
    ax.set_title(title, loc="left", pad=6)
    return fig


def colour(model: str, models: Sequence[str] = ()) -> str:
    """Return a model's colour: its own in `COLOURS`, else one by its place among the other `models`."""
    others = [m for m in models if m not in COLOURS]
    return (
        COLOURS.get(model)
        or _OTHER_COLOURS[others.index(model) % len(_OTHER_COLOURS) if model in others else 0]
    )


def heat(fig: Figure, ax: Axes, percent: np.ndarray, label: str, notes: bool = True) -> None:
    """Draw percentages as squares with their numbers, pale to dark blue from 0 to 100; NaN stays white."""
    image = ax.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    for (row, column), value in np.ndenumerate(percent):
        if notes and not np.isnan(value):
            ax.text(
                column,
                row,
                f"{value:.0f}",
                ha="center",
                va="center",
                fontsize=6,
                color="white" if value > 55 else INK,
            )
    ax.spines[:].set_visible(False)
    bar = fig.colorbar(image, ax=ax, fraction=0.045, pad=0.02, ticks=[0, 50, 100])
    bar.outline.set_visible(False)
    bar.set_label(label)


def percent_axis(ax: Axes, label: str) -> None:
    ax.set(ylim=(0, 100), ylabel=label, yticks=range(0, 101, 20))
    ax.grid(axis="y")
    ax.spines["left"].set_visible(False)
