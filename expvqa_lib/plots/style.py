"""The look of every figure: style sheet, colours, and the parts that several charts share.

Charts return a `Figure` that belongs to no pyplot state: show it as the last line of a cell, or `save` it.
"""

import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib import figure, style
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
INK, QUIET, FAINT = "#222222", "#8C8C8C", "#F4F4F4"


class Figure(figure.Figure):
    """A matplotlib figure that a notebook shows by itself, once, whatever its backend."""

    @style.context(STYLE, after_reset=True)
    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, dpi=150, format="png")
        return buffer.getvalue()


def styled(draw: Callable) -> Callable:
    """Run a drawing function under the style sheet, and leave the settings around it alone.

    Of an empty table or list of pictures the figure says that nothing was measured.
    """

    @functools.wraps(draw)
    @style.context(STYLE, after_reset=True)
    def inside(first, *args, **kwargs):
        if not isinstance(first, pd.DataFrame | list) or len(first):
            return draw(first, *args, **kwargs)
        fig, centred = Figure(figsize=(COLUMN, 0.6)), {"ha": "center", "va": "center"}
        fig.text(0.5, 0.5, "nothing was measured here: nothing to show", color=QUIET, **centred)
        return fig

    return inside


def one_panel(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of this size in inches with a single chart."""
    fig = Figure(figsize=(width, height))
    return fig, fig.add_subplot()


@styled
def save(fig: figure.Figure, path: str | Path) -> figure.Figure:
    """Write a figure (PNG at 200 dpi, or what the suffix says), whole or not at all, and return it.

    Raises:
        ExpVQAError: the folder cannot be written to.
    """
    with atomic(Path(path)) as temporary:
        fig.savefig(temporary, metadata={"Software": None} if Path(path).suffix.lower() == ".png" else None)
    return fig


def colour(model: str, models: Sequence[str]) -> str:
    """Return a model's colour: its own in `COLOURS`, else one by its place among the other `models`."""
    others = [m for m in models if m not in COLOURS]
    return COLOURS.get(model) or _OTHER_COLOURS[others.index(model) % len(_OTHER_COLOURS)]


def heat_map(ax: Axes, percent: pd.DataFrame, label: str, notes: bool = True) -> None:
    """Draw percentages as cells with their numbers, pale to dark blue from 0 to 100; NaN stays white."""
    sns.heatmap(
        percent.astype(float).rename_axis(index=None, columns=None),
        ax=ax,
        vmin=0,
        vmax=100,
        cmap="Blues",
        annot=notes,
        fmt=".0f",
        annot_kws={"fontsize": 6},
        cbar_kws={"label": label, "ticks": [0, 50, 100], "fraction": 0.045, "pad": 0.02},
        linewidths=0.5,
    )
    ax.tick_params(axis="y", rotation=0)


def percent_axis(ax: Axes, label: str) -> None:
    """From 0 to 100 upwards, with lines to read from."""
    ax.set(ylim=(0, 100), ylabel=label, yticks=range(0, 101, 20))
    ax.grid(axis="y")
    ax.spines["left"].set_visible(False)
