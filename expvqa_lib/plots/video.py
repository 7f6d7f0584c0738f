"""A film strip above curves of each action unit."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..data.images import ImageSource
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
        film: one or more pictures by frame number, in the order of time, at equal distances.
        truth: index the frame number, one column an AU (`AU12`), values in [0, 1], NaN where not labelled.
        p_yes: alike.
        present: intensity from which an AU is labelled present; a line is drawn there.
        truth_name: what `truth` holds, for the legend.
    """
    times, panel = list(film), 0.28 if p_yes is None else 0.53  # inches
    step = times[1] - times[0] if len(times) > 1 else 1
    strip = (PAGE - 0.3) / max(5, len(film))
    heights = [strip, *[panel] * truth.shape[1]]
    fig = Figure(figsize=(PAGE, 0.6 + sum(heights)))
    top, *axes = fig.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for ax in (top, *axes):
        ax.set(xticks=[], yticks=[], ylim=(0, 1.02), xlim=(times[0] - step / 2, times[-1] + step / 2))
        ax.spines["left"].set_visible(False)
    for time, image in film.items():
        show(top, image, (time - 0.48 * step, time + 0.48 * step, 0, 1))
    top.spines["bottom"].set_visible(False)
    top.set(box_aspect=1 / max(5, len(film)), aspect="auto")
    handles = [Patch(color=_TRUTH, label=f"true {truth_name}")]
    line = {"color": COLOURS["exp_vqa"], "linewidth": 1.5}
    dots = {"color": QUIET, "linewidth": 0.8, "linestyle": ":"}
    if p_yes is not None:
        handles.append(Line2D([], [], label="P(yes)", **line))
    if present is not None:
        handles.append(Line2D([], [], label=f"labelled present from {present:g}", **dots))
    for ax, name in zip(axes, truth, strict=True):
        ax.fill_between(truth.index, truth[name].astype(float), color=_TRUTH, linewidth=0, step="mid")
        ax.vlines(times, 0, 1, color="#DDDDDD", linewidth=0.5, zorder=0)
        if p_yes is not None:
            ax.plot(p_yes.index, p_yes[name], clip_on=False, **line)
        if present is not None:
            ax.axhline(present, **dots)
        noun = "" if p_yes is None else f"\n{action_unit(int(name[2:])).noun}"
        ax.set_ylabel(f"{name}{noun}", rotation=0, ha="right", va="center", fontsize=6.5)
    if axes:
        axes[-1].set_xticks(times, times)
        axes[-1].set_xlabel("frame of the video")
        fig.legend(handles=handles, loc="outside lower center", ncols=3)
    return fig
