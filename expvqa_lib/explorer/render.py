"""A question about a face with its answer, as one figure: for the page and for the picture to keep."""

import textwrap
from collections import Counter
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes

from ..attention import Word
from ..facs import ACTION_UNITS
from ..plots import COLOURS, Figure, attention_overlay
from .face import FaceImage


@dataclass(frozen=True)
class Exchange:
    """A question about a face with its answer, P(yes) where it is one, and sampled answers.

    The map is for `word`, one of the answer's `words`, by `method`; `aus` has P(yes) of each AU over the
    wordings of Q3: mean, low and high.
    """

    face: FaceImage
    question: str
    answer: str
    method: str
    words: tuple[Word, ...]
    word: Word
    aus: pd.DataFrame
    samples: tuple[str, ...] = ()


def figure(exchange: Exchange) -> Figure:
    """Draw the face, the map, question and answers, and P(yes) of the AUs.

    The style sheet is left alone: all threads share it, and this runs beside the notebook's own.
    """
    fig = Figure(figsize=(7, 4.6), layout="none")
    plain = {"parse_math": False, "va": "top", "fontsize": 8}  # a dollar sign is a dollar sign
    where = f"Where it looked for “{exchange.word.text}”, by {exchange.method.replace('_', ' ')}"
    for left, title in ((0.01, exchange.face.name), (0.29, where)):
        fig.text(left, 0.895, "\n".join(textwrap.wrap(title, 32)[:3]), **plain | {"va": "bottom"})
    face, overlay = (fig.add_axes((left, 0.49, 0.26, 0.26 * 7 / 4.6)) for left in (0.01, 0.29))
    face.axis("off")
    face.imshow(exchange.face.shown.resize((448, 448)))
    attention_overlay(exchange.face.shown, exchange.word.heat, overlay)
    sampled = [f"{count} × {text}" for text, count in Counter(exchange.samples).most_common(4)]
    lines = [(line, "bold", "black") for line in textwrap.wrap(exchange.question, 56)[:3]]
    lines += [(line, "normal", "black") for line in textwrap.wrap(exchange.answer, 60)[:5]]
    lines += [(textwrap.shorten(text, 62, placeholder=" …"), "normal", "#666666") for text in sampled]
    for row, (text, weight, colour) in enumerate(lines):
        fig.text(0.01, 0.45 - 0.037 * row, text, weight=weight, color=colour, **plain)
    _draw_bars(fig.add_axes((0.8, 0.1, 0.185, 0.89)), exchange.aus)
    return fig


def _draw_bars(ax: Axes, aus: pd.DataFrame) -> None:
    """P(yes) of each AU, dark from one half up, with its range over the wordings."""
    names = [f"{name} {ACTION_UNITS[int(name[2:])].noun}" for name in aus.index]
    colours = [COLOURS["exp_vqa" if value >= 0.5 else "exp_vqa_fz"] for value in aus["mean"]]
    error = [(aus["mean"] - aus["low"]).clip(0), (aus["high"] - aus["mean"]).clip(0)]
    ax.barh(names, aus["mean"], color=colours, xerr=error, error_kw={"elinewidth": 0.8, "capsize": 1.5})
    ax.set(xlim=(0, 1), ylim=(len(names) - 0.4, -0.6))
    ax.set_xlabel("P(yes), and its range\nover the wordings", fontsize=7)
    ax.tick_params(labelsize=7, length=0)
    ax.spines[["top", "right"]].set_visible(False)
