"""Charts of the labels: how often actions and emotions occur in each corpus, and which come together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from ..data.images import ImageSource
from ..evaluation.tables import ordered_targets
from ..facs import EMOTIONS
from .faces import draw_faces, grid_height
from .style import PAGE, Figure, heat_map, styled

_CORPUS_COLOURS = ("#0072B2", "#E69F00", "#009E73")
_BARS = len(_CORPUS_COLOURS)  # corpora that bars can tell apart


@styled
def data_overview(
    images: Sequence[ImageSource],
    captions: Sequence[str],
    labels_by_dataset: Mapping[str, pd.DataFrame],
    emotions_by_dataset: Mapping[str, Iterable[str | None]],
    columns: int = 8,
) -> Figure:
    """Draw the data at one glance: faces with their labels, below them AUs and emotions of each corpus.

    What no corpus is labelled with has no panel. More corpora than bars can tell apart are rows of heat maps.
    """
    rates = {
        "How often each action unit is present": _au_rates(labels_by_dataset),
        "Emotions": _emotion_rates(emotions_by_dataset),
    }
    rates = {title: table for title, table in rates.items() if not table.empty}
    corpora = list(dict.fromkeys([*labels_by_dataset, *emotions_by_dataset]))
    as_bars = len(corpora) <= _BARS
    heights = [2.4] if as_bars else [0.75 + 0.2 * table.shape[1] for table in rates.values()]
    above = grid_height(captions, columns)
    fig = Figure(figsize=(PAGE, above + sum(heights)))
    top, *below = fig.subfigures(1 + len(heights), 1, height_ratios=[above, *heights])
    draw_faces(top, images, captions, columns)
    if as_bars:
        axes = below[0].subplots(1, len(rates), width_ratios=[max(6, len(table)) for table in rates.values()])
    else:
        axes = [part.subplots() for part in below]
    for ax, (title, table) in zip(np.ravel(axes), rates.items(), strict=True):
        if as_bars:
            _bars(ax, table, corpora)
        else:
            heat_map(ax, table.T.rename(columns=_short), "of labelled\nfaces (%)")
        ax.set_title(title)
        ax.set_xlabel("action unit" if table.index[0].startswith("AU") else "")
    if as_bars:
        handles = [Patch(label=name, color=_CORPUS_COLOURS[k]) for k, name in enumerate(corpora)]
        below[0].legend(handles=handles, loc="outside lower center", ncols=len(corpora))
    return fig


@styled
def au_cooccurrence(labels: pd.DataFrame, title: str = "Which actions come together") -> Figure:
    """Draw P(column AU | row AU) in percent, over the faces where both are labelled; columns `AU1` ..."""
    y = _au_floats(labels).dropna(axis=1, how="all")
    present, labelled = np.nan_to_num(y.to_numpy()), y.notna().to_numpy(dtype=float)
    both, given = present.T @ present, present.T @ labelled
    percent = np.divide(100 * both, given, out=np.full_like(both, np.nan), where=given > 0)
    np.fill_diagonal(percent, np.nan)
    names = [name[2:] for name in y.columns]
    side = float(np.clip(0.9 + 0.23 * len(names), 2.6, PAGE))
    fig = Figure(figsize=(side * 1.12, side))
    ax = fig.add_subplot()
    percent = pd.DataFrame(percent, names, names)
    heat_map(ax, percent, "P(column | row) (%)", notes=len(names) <= 13)
    ax.set(xlabel="also present (AU)", ylabel="given (AU)", title=title)
    return fig


def _au_rates(labels_by_dataset: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Percent of the labelled faces: a row an AU, a column a corpus."""
    means = {name: 100 * _au_floats(labels).mean() for name, labels in labels_by_dataset.items()}
    rates = pd.DataFrame(means).dropna(how="all")
    return rates.reindex(ordered_targets(rates.index))


def _emotion_rates(emotions_by_dataset: Mapping[str, Iterable[str | None]]) -> pd.DataFrame:
    """Percent of the labelled faces: a row an emotion, a column a corpus."""
    series = {name: pd.Series(list(values), dtype=object) for name, values in emotions_by_dataset.items()}
    shares = {name: 100 * values.value_counts(normalize=True) for name, values in series.items()}
    rates = pd.DataFrame(shares, dtype=float).fillna(0.0)
    order = [*EMOTIONS, *rates.index.difference(list(EMOTIONS))]
    return rates.reindex([name for name in order if name in rates.index])


def _bars(ax: Axes, rates: pd.DataFrame, corpora: Sequence[str]) -> None:
    """A group of bars a row of the table, in the corpus's colour."""
    long = rates.rename_axis("label").reset_index().melt("label", var_name="corpus")
    palette = dict(zip(corpora, _CORPUS_COLOURS, strict=False))
    hues = {"hue": "corpus", "hue_order": list(rates), "palette": palette, "saturation": 1}
    sns.barplot(
        long, x="label", y="value", order=list(rates.index), errorbar=None, legend=False, ax=ax, **hues
    )
    ax.set(xlabel="", ylabel="of labelled faces (%)")
    ax.grid(axis="y")
    if rates.index[0].startswith("AU"):
        ax.set_xticks(ax.get_xticks(), [_short(name) for name in rates.index])
    else:
        ax.set_xticks(ax.get_xticks(), rates.index, rotation=35, ha="right", rotation_mode="anchor")


def _short(name: str) -> str:
    return name.removeprefix("AU")


def _au_floats(labels: pd.DataFrame) -> pd.DataFrame:
    """The AU columns by number as floats, NaN where unlabelled."""
    names = ordered_targets(name for name in labels if name[:2] == "AU" and name[2:].isdigit())
    return labels[names].astype("Float64").astype(float)
