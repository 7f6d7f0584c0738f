"""Figures of labels: how often they occur in each corpus, which come together, and those of a video."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from ..data.images import ImageSource
from ..evaluation.tables import ordered_targets
from ..facs import EMOTIONS, action_unit
from .faces import draw_faces, grid_height, show
from .style import COLOURS, PAGE, QUIET, Figure, heat_map, one_panel, styled


@styled
def data_overview(
    images: Sequence[ImageSource],
    captions: Sequence[str],
    labels_by_dataset: Mapping[str, pd.DataFrame],
    emotions_by_dataset: Mapping[str, Iterable[str | None]],
) -> Figure:
    """Draw the data at one glance: faces with their labels, below them AUs and emotions of each corpus.

    What no corpus is labelled with has no panel.
    """
    au_rates = {name: 100 * _au_floats(labels).mean() for name, labels in labels_by_dataset.items()}
    emotions = {
        name: 100 * pd.Series(list(some), dtype=object).value_counts(normalize=True)
        for name, some in emotions_by_dataset.items()
    }
    emotions = pd.DataFrame(emotions, dtype=float).fillna(0.0)
    order = [*EMOTIONS, *emotions.index.difference(list(EMOTIONS))]
    tables = {
        "How often each action unit is present": pd.DataFrame(au_rates).dropna(how="all"),
        "Emotions": emotions.reindex([name for name in order if name in emotions.index]),
    }
    tables = {title: table for title, table in tables.items() if not table.empty}
    heights = [grid_height(captions, 8), *(0.65 + 0.2 * table.shape[1] for table in tables.values())]
    fig = Figure(figsize=(PAGE, sum(heights)))
    top, *below = fig.subfigures(len(heights), 1, height_ratios=heights)
    draw_faces(top, images, captions, 8)
    for part, (title, table) in zip(below, tables.items(), strict=True):
        ax = part.subplots()
        heat_map(ax, table.T, "of labelled\nfaces (%)")
        ax.set_title(title)
    return fig


@styled
def au_cooccurrence(labels: pd.DataFrame, title: str = "Which actions come together") -> Figure:
    """Draw P(column AU | row AU) in percent, over the faces where both are labelled; columns `AU1` ..."""
    y = _au_floats(labels).dropna(axis=1, how="all")
    present = np.nan_to_num(y.to_numpy())
    given = present.T @ y.notna().to_numpy(dtype=float)
    percent = 100 * present.T @ present / np.where(given > 0, given, np.nan)
    np.fill_diagonal(percent, np.nan)
    side = float(np.clip(0.9 + 0.23 * y.shape[1], 2.6, PAGE))
    fig, ax = one_panel(side * 1.12, side)
    heat_map(ax, pd.DataFrame(percent, y.columns, y.columns), "P(column | row) (%)", notes=len(percent) <= 13)
    ax.set(xlabel="also present (AU)", ylabel="given (AU)", title=title)
    return fig


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
    heights = [(PAGE - 0.3) / max(5, len(film)), *[panel] * truth.shape[1]]
    fig = Figure(figsize=(PAGE, 0.6 + sum(heights)))
    top, *axes = fig.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for ax in (top, *axes):
        ax.set(xticks=[], yticks=[], ylim=(0, 1.02), xlim=(times[0] - step / 2, times[-1] + step / 2))
        ax.spines["left"].set_visible(False)
    for time, image in film.items():
        show(top, image, (time - 0.48 * step, time + 0.48 * step, 0, 1))
    top.spines["bottom"].set_visible(False)
    top.set(box_aspect=1 / max(5, len(film)), aspect="auto")
    area = {"color": "#C9CDD2", "linewidth": 0, "step": "mid", "label": f"true {truth_name}"}
    line = {"color": COLOURS["exp_vqa"], "linewidth": 1.5, "label": "P(yes)"}
    dots = {"color": QUIET, "linewidth": 0.8, "linestyle": ":"}
    for ax, name in zip(axes, truth, strict=True):
        ax.fill_between(truth.index, truth[name].astype(float), **area)
        ax.vlines(times, 0, 1, color="#DDDDDD", linewidth=0.5, zorder=0)
        noun = "" if p_yes is None else f"\n{action_unit(int(name[2:])).noun}"
        ax.set_ylabel(f"{name}{noun}", rotation=0, ha="right", va="center", fontsize=6.5)
        if p_yes is not None:
            ax.plot(p_yes.index, p_yes[name], clip_on=False, **line)
        if present is not None:
            ax.axhline(present, label=f"labelled present from {present:g}", **dots)
    if axes:
        axes[-1].set_xticks(times, times)
        axes[-1].set_xlabel("frame of the video")
        fig.legend(*axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def _au_floats(labels: pd.DataFrame) -> pd.DataFrame:
    """The AU columns by their number as floats, NaN where unlabelled."""
    names = ordered_targets(name for name in labels if name[:2] == "AU" and name[2:].isdigit())
    return labels[names].rename(columns=lambda name: name[2:]).astype("Float64").astype(float)
