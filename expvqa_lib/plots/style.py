"""The look of every figure: style sheet, colours, and the parts that several charts share.

Charts return a `Figure` that belongs to no pyplot state: show it as the last line of a cell, or `save` it.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.figure
import matplotlib.style
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from ..files import atomic

STYLE = Path(__file__).parents[1] / "assets" / "expvqa.mplstyle"
COLUMN, PAGE = 3.4, 7.0  # inches

# Okabe and Ito's colours, told apart by every kind of colour vision; the systems trained on faces are blue.
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
INK, QUIET, FAINT, ORANGE = "#222222", "#8C8C8C", "#F4F4F4", "#D55E00"


class Figure(matplotlib.figure.Figure):
    """A matplotlib figure that a notebook shows by itself, once, whatever its backend."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        _write(self, buffer, dpi=150, format="png")
        return buffer.getvalue()


def styled(draw: Callable) -> Callable:
    """Run a drawing function under the style sheet, and leave the settings around it alone."""

    @functools.wraps(draw)
    def inside(*args, **kwargs):
        with mpl.style.context(STYLE, after_reset=True):
            return draw(*args, **kwargs)

    return inside


def save(fig: matplotlib.figure.Figure, path: str | Path) -> Path:
    """Write a figure (PNG at 200 dpi, or what the suffix says), whole or not at all.

    Raises:
        ExpVQAError: the folder cannot be written to.
    """
    path = Path(path)
    with atomic(path) as temporary:
        _write(fig, temporary, metadata={"Software": None} if path.suffix.lower() == ".png" else None)
    return path


@styled
def _write(fig: matplotlib.figure.Figure, target: Path | io.BytesIO, **options: object) -> None:
    fig.savefig(target, **options)


def colour(model: str, models: Sequence[str] = ()) -> str:
    """Return a model's colour: its own in `COLOURS`, else one by its place among the other `models`."""
    others = [m for m in models if m not in COLOURS]
    place = others.index(model) if model in others else 0
    return COLOURS.get(model) or _OTHER_COLOURS[place % len(_OTHER_COLOURS)]


def error_bars(ax: Axes, rows: pd.DataFrame, at, *, horizontal: bool = False, **style) -> None:
    """Draw each row's value as a dot with a line from low to high, at places along the other axis."""
    error = np.nan_to_num(np.stack([rows["value"] - rows["low"], rows["high"] - rows["value"]]).clip(min=0))
    style = {"fmt": "o", "markersize": 3.6, "elinewidth": 1.2, "clip_on": False} | style
    if horizontal:
        ax.errorbar(rows["value"], at, xerr=error, **style)
    else:
        ax.errorbar(at, rows["value"], yerr=error, **style)


def heat_map(ax: Axes, percent: pd.DataFrame, label: str, notes: bool = True) -> None:
    """Draw percentages as cells with their numbers, pale to dark blue from 0 to 100; NaN stays white."""
    bar = {"label": label, "ticks": [0, 50, 100], "fraction": 0.045, "pad": 0.02}
    sns.heatmap(
        percent.astype(float),
        ax=ax,
        vmin=0,
        vmax=100,
        cmap="Blues",
        annot=notes,
        fmt=".0f",
        annot_kws={"fontsize": 6},
        cbar_kws=bar,
        linewidths=0.5,
    )
    ax.set(xlabel="", ylabel="")
    ax.tick_params(axis="y", rotation=0)


def percent_axis(ax: Axes, label: str) -> None:
    """From 0 to 100 upwards, with lines to read from."""
    ax.set(ylim=(0, 100), ylabel=label, yticks=range(0, 101, 20))
    ax.grid(axis="y")
    ax.spines["left"].set_visible(False)


def nothing_to_show() -> Figure:
    """What takes a chart's place where nothing was measured."""
    fig = Figure(figsize=(COLUMN, 0.6))
    fig.text(0.5, 0.5, "nothing was measured here: nothing to show", ha="center", va="center", color=QUIET)
    return fig
