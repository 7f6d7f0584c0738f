"""A film strip above curves of what each action unit does."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..data.images import ImageSource
from ..errors import TableError
from ..facs import action_unit
from .faces import show
from .style import COLOURS, PAGE, QUIET, Figure, styled

_TRUTH = "#C9CDD2"


@styled
def video_curves(
    film: Mapping[float, ImageSource],
    truth: pd.DataFrame,
    p_yes: pd.DataFrame | None = None,
    present: float | None = None,
    truth_name: str = "intensity",
) -> Figure:
    """Draw frames of a video and, below each, the true intensity of each action unit and P(yes).

    Args:
        film: the pictures to show, by frame number, in the order of time, at equal distances.
        truth: index the frame number, one column an AU (`AU12`), values in [0, 1], NaN where not labelled.
        p_yes: alike.
        present: intensity from which an AU is labelled present; a line is drawn there.
        truth_name: what `truth` holds, for the legend.

    Raises:
        TableError: there is no picture, or a picture is of no frame of the tables.
    """
    if not film or not set(film) <= set(truth.index):
        raise TableError(f"pictures of frames {list(film)}; expected one or more of {list(truth.index)}")
    panel = 0.2 if p_yes is None else 0.45  # inches
    strip = (PAGE - 0.6) / max(5, len(film))
    fig = Figure(figsize=(PAGE, 0.6 + strip + (panel + 0.08) * truth.shape[1]))
    axes = fig.subplots(
        1 + truth.shape[1], 1, height_ratios=[strip, *[panel] * truth.shape[1]], squeeze=False
    )[:, 0]
    times = list(film)
    step = times[1] - times[0] if len(times) > 1 else 1
    limits = times[0] - step / 2, times[-1] + step / 2
    _film(axes[0], film, step, limits)
    for ax, name in zip(axes[1:], truth, strict=True):
        _curve(ax, truth[name], None if p_yes is None else p_yes[name], present)
        ax.set(xlim=limits, ylim=(0, 1.02))
        for time in times:
            ax.axvline(time, color="#DDDDDD", linewidth=0.5, zorder=0)
    axes[-1].set_xticks(times, times)
    axes[-1].set_xlabel("frame of the video")
    handles = [Patch(color=_TRUTH, label=f"true {truth_name}")]
    if p_yes is not None:
        handles.append(Line2D([], [], color=COLOURS["exp_vqa"], label="P(yes)"))
    if present is not None:
        line = {"color": QUIET, "linewidth": 0.8, "linestyle": ":"}
        handles.append(Line2D([], [], label=f"labelled present from {present:g}", **line))
    if truth.shape[1]:
        fig.legend(handles=handles, loc="outside lower center", ncols=3)
    return fig


def _film(ax: Axes, film: Mapping[float, ImageSource], step: float, limits: tuple[float, float]) -> None:
    """The pictures side by side, each over its time."""
    ax.set(xticks=[], yticks=[], box_aspect=1 / max(5, len(film)))
    ax.spines[:].set_visible(False)
    for time, image in film.items():
        show(ax, image)
        ax.images[-1].set_extent((time - 0.48 * step, time + 0.48 * step, 0, 1))
    ax.set(xlim=limits, ylim=(0, 1), aspect="auto")


def _curve(ax: Axes, truth: pd.Series, p_yes: pd.Series | None, present: float | None) -> None:
    """The truth of one AU as an area, and P(yes) as a line."""
    is_label = set(truth.dropna().unique()) <= {0, 1}
    ax.fill_between(
        truth.index, truth.astype(float), color=_TRUTH, linewidth=0, step="mid" if is_label else None
    )
    if p_yes is not None:
        ax.plot(p_yes.index, p_yes, color=COLOURS["exp_vqa"], linewidth=1.5, clip_on=False)
    if present is not None:
        ax.axhline(present, color=QUIET, linewidth=0.6, linestyle=":")
    ax.set(xticks=[], yticks=[0, 1] if p_yes is not None else [])
    ax.tick_params(labelsize=6)
    ax.spines["left"].set_visible(False)
    label = f"{truth.name}\n{action_unit(int(truth.name[2:])).noun}" if p_yes is not None else truth.name
    ax.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=6.5)
