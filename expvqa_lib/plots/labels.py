"""Charts of the labels: how often actions and emotions occur in each corpus, and which come together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..evaluation.tables import ordered_targets
from ..facs import EMOTIONS
from .charts import COLUMN, PAGE, Figure, heat, styled
from .faces import Picture, draw_faces, faces_height

_CORPUS_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C8C8C", "#B8A000")
_BARS = 3  # corpora that bars can tell apart


@styled
def data_overview(
    images: Sequence[Picture],
    captions: Sequence[str],
    labels_by_dataset: Mapping[str, pd.DataFrame],
    emotions_by_dataset: Mapping[str, Iterable[str | None]],
    columns: int = 8,
) -> Figure:
    """Draw the data at one glance: faces with their labels, below them AU prevalence and emotions of each corpus."""
    corpora = list(dict.fromkeys([*labels_by_dataset, *emotions_by_dataset]))
    tables = (
        [_au_rates(labels_by_dataset), _emotion_rates(emotions_by_dataset)] if len(corpora) > _BARS else []
    )
    heights = [0.75 + 0.2 * rates.shape[1] for rates in tables] or [2.5]  # inches
    above = faces_height(len(images), captions, columns)
    fig = Figure(figsize=(PAGE, above + sum(heights)))
    top, *below = fig.subfigures(1 + len(heights), 1, height_ratios=[above, *heights])
    draw_faces(top, images, captions, columns)
    for part, rates, title in zip(
        below, tables, ("How often each action unit is present", "Emotions"), strict=False
    ):
        ax = part.subplots()
        heat(part, ax, rates.T.to_numpy(dtype=float), "of labelled\nfaces (%)")
        ax.set_xticks(range(len(rates)), rates.index, rotation=35, ha="right", rotation_mode="anchor")
        ax.set_yticks(range(rates.shape[1]), rates.columns)
        ax.set(title=title, aspect="auto")
    if not tables:
        left, right = below[0].subplots(1, 2, width_ratios=[2.1, 1])
        draw_au_counts(left, labels_by_dataset, corpora)
        draw_emotion_counts(right, emotions_by_dataset, corpora)
    return fig


@styled
def au_cooccurrence(labels: pd.DataFrame, title: str = "Which actions come together") -> Figure:
    """Draw P(column AU | row AU) in percent, over the faces where both are labelled; `labels` has columns `AU1` ..."""
    y = _au_floats(labels)
    present, labelled = np.nan_to_num(y.to_numpy()), y.notna().to_numpy(dtype=float)
    both, given = (
        present.T @ present,
        present.T @ labelled,
    )  # [A, A] each: row and column present; row present, column labelled
    percent = np.divide(100 * both, given, out=np.full_like(both, np.nan), where=given > 0)
    np.fill_diagonal(percent, np.nan)
    names = [c[2:] for c in y.columns]
    side = float(np.clip(0.9 + 0.23 * len(names), 2.6, PAGE))
    fig = Figure(figsize=(side * 1.12, side))
    ax = fig.add_subplot()
    heat(fig, ax, percent, "P(column | row) (%)", notes=len(names) <= 13)
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="also present (AU)", ylabel="given (AU)", title=title)
    return fig


@styled
def au_counts(labels_by_dataset: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw how often each AU is present in each corpus, in percent of the faces where it is labelled."""
    fig = Figure(figsize=(PAGE, 2.2))
    draw_au_counts(fig.add_subplot(), labels_by_dataset)
    return fig


@styled
def emotion_counts(emotions_by_dataset: Mapping[str, Iterable[str | None]]) -> Figure:
    """Draw each emotion's share of the labelled faces of each corpus, in percent."""
    fig = Figure(figsize=(COLUMN, 2.4))
    draw_emotion_counts(fig.add_subplot(), emotions_by_dataset)
    return fig


@styled
def video_strip(
    images: Sequence[Picture], intensities: pd.DataFrame, present: float, title: str = ""
) -> Figure:
    """Draw the frames of a video and, below each, how strongly every action unit acts.

    Args:
        images: one a frame.
        intensities: index the frame's number, one column an AU, values in [0, 1].
        present: intensity from which an AU is labelled present; the area above it is filled.
    """
    above, below = (
        faces_height(len(images), [""] * len(images), len(images)) - 0.05,
        0.55 + 0.2 * len(intensities.columns),
    )  # inches
    fig = Figure(figsize=(PAGE, above + below), layout="none")
    draw_faces(fig.subfigures(2, 1, height_ratios=[above, below])[0], images, [""] * len(images), len(images))
    half = 0.5 / len(
        images
    )  # of the width: curves run from the middle of the first picture to the middle of the last
    ax = fig.add_axes((half, 0.42 / (above + below), 1 - 2 * half, (below - 0.5) / (above + below)))
    x = intensities.index.to_numpy()
    for n, (name, curve) in enumerate(intensities.items()):
        base = -float(n)
        strength = 0.9 * curve.to_numpy(dtype=float)
        ax.plot(x, base + strength, color=_CORPUS_COLOURS[0], linewidth=1)
        ax.fill_between(
            x,
            base,
            base + strength,
            where=curve.to_numpy() >= present,
            color=_CORPUS_COLOURS[0],
            alpha=0.35,
            linewidth=0,
        )
        ax.axhline(base, color="#BBBBBB", linewidth=0.5, zorder=0)
        ax.annotate(
            name,
            (0, base),
            (-2, 1),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            fontsize=6.5,
        )
    ax.set(
        xlim=(x[0], x[-1]),
        ylim=(0.9 - len(intensities.columns), 1),
        xlabel="frame of the video",
        yticks=[],
        title=title,
    )
    ax.set_xticks(x, x)
    ax.spines[:].set_visible(False)
    return fig


def draw_au_counts(
    ax: Axes, labels_by_dataset: Mapping[str, pd.DataFrame], corpora: Sequence[str] = ()
) -> None:
    """Draw `au_counts` on given axes; a corpus's colour is its place in `corpora`."""
    rates = _au_rates(labels_by_dataset)
    _grouped_bars(
        ax,
        rates,
        {name: f"{name} ({len(labels):,} faces)" for name, labels in labels_by_dataset.items()},
        corpora,
    )
    ax.set_xticks(range(len(rates)), [c[2:] for c in rates.index])
    ax.set(xlabel="action unit", ylabel="of labelled faces (%)")
    ax.set_title("How often each action unit is present", pad=18)


def draw_emotion_counts(
    ax: Axes, emotions_by_dataset: Mapping[str, Iterable[str | None]], corpora: Sequence[str] = ()
) -> None:
    """Draw `emotion_counts` on given axes; a corpus's colour is its place in `corpora`."""
    rates = _emotion_rates(emotions_by_dataset)
    counts = {
        name: pd.Series(list(emotions), dtype=object).count()
        for name, emotions in emotions_by_dataset.items()
    }
    _grouped_bars(ax, rates, {name: f"{name} ({count:,})" for name, count in counts.items()}, corpora)
    ax.set_xticks(range(len(rates)), rates.index, rotation=35, ha="right", rotation_mode="anchor")
    ax.set(ylabel="of labelled faces (%)")
    ax.set_title("Emotions", pad=18)


def _au_rates(labels_by_dataset: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Percent of the labelled faces: a row an AU, a column a corpus."""
    rates = pd.DataFrame(
        {name: 100 * _au_floats(labels).mean() for name, labels in labels_by_dataset.items()}
    ).dropna(how="all")
    return rates.reindex(ordered_targets(rates.index))


def _emotion_rates(emotions_by_dataset: Mapping[str, Iterable[str | None]]) -> pd.DataFrame:
    """Percent of the labelled faces: a row an emotion, those of `facs.EMOTIONS` and the 8 most frequent others, a column a corpus."""
    series = {
        name: pd.Series(list(emotions), dtype=object).dropna()
        for name, emotions in emotions_by_dataset.items()
    }
    rates = pd.DataFrame(
        {name: 100 * values.value_counts(normalize=True) for name, values in series.items()}
    ).fillna(0.0)
    known = [name for name in EMOTIONS if name in rates.index]
    return rates.reindex([*known, *sorted(rates.drop(known).max(axis=1).nlargest(8).index)])


def _grouped_bars(ax: Axes, rates: pd.DataFrame, names: Mapping[str, str], corpora: Sequence[str]) -> None:
    order = list(corpora or rates.columns)
    width = 0.78 / len(rates.columns)
    shown = rates.notna().to_numpy()
    place = (
        shown.cumsum(axis=1) - (shown.sum(axis=1, keepdims=True) + 1) / 2
    )  # [category, corpus]: bars that exist, centred
    for i, corpus in enumerate(rates.columns):
        x = np.arange(len(rates)) + place[:, i] * width
        ax.bar(
            x,
            rates[corpus],
            width * 0.9,
            color=_CORPUS_COLOURS[order.index(corpus) % len(_CORPUS_COLOURS)],
            label=names[corpus],
        )
    ax.grid(axis="y")
    ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_xlim(-0.6, len(rates) - 0.4)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(names), handletextpad=0.4, borderpad=0)


def _au_floats(labels: pd.DataFrame) -> pd.DataFrame:
    """Return the AU columns by number as floats, NaN where unlabelled."""
    return (
        labels[ordered_targets(c for c in labels if c[:2] == "AU" and c[2:].isdigit())]
        .astype("Float64")
        .astype(float)
    )
