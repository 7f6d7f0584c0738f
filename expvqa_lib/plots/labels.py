"""Charts of the labels: how often actions and emotions occur in each corpus, and which come together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from ..data.images import ImageSource
from ..evaluation.tables import ordered_targets
from ..facs import EMOTIONS
from .faces import draw_faces, grid_height
from .style import PAGE, Figure, heat_map, one_panel, styled


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


def _au_floats(labels: pd.DataFrame) -> pd.DataFrame:
    """The AU columns by their number as floats, NaN where unlabelled."""
    names = ordered_targets(name for name in labels if name[:2] == "AU" and name[2:].isdigit())
    return labels[names].rename(columns=lambda name: name[2:]).astype("Float64").astype(float)
