"""A question about a face with its answer, as one figure: for the page and for the picture to keep."""

import textwrap
from collections import Counter, namedtuple

from ..facs import ACTION_UNITS
from ..plots import COLOURS, Figure, attention_overlay

Exchange = namedtuple("Exchange", "face question answer method words chosen aus samples")
"""A question about a face (`FaceImage`) with its answer, P(yes) where it is one, and sampled answers.

The map is by `method`, for the `chosen` of the answer's `words` (each an `attention.Word`), a number from 0.
`aus` has P(yes) of each AU over the wordings of Q3: mean, min and max.
"""


def figure(exchange: Exchange) -> Figure:
    """Draw the face, the map, question and answers, and P(yes) of the AUs.

    The style sheet is left alone: all threads share it, and this runs beside the notebook's own.
    """
    fig, word = Figure(figsize=(7, 4.6), layout="none"), exchange.words[exchange.chosen]
    plain = {"parse_math": False, "va": "top", "fontsize": 8}  # a dollar sign is a dollar sign
    where = f"Where it looked for “{word.text}”, by {exchange.method.replace('_', ' ')}"
    for left, title in ((0.01, exchange.face.name), (0.29, where)):
        fig.text(left, 0.895, "\n".join(textwrap.wrap(title, 32)[:3]), **plain | {"va": "bottom"})
    face, overlay = (fig.add_axes((left, 0.49, 0.26, 0.26 * 7 / 4.6)) for left in (0.01, 0.29))
    face.axis("off")
    face.imshow(exchange.face.shown.resize((448, 448)))
    attention_overlay(exchange.face.shown, word.heat, overlay)
    sampled = [f"{count} × {text}" for text, count in Counter(exchange.samples).most_common(4)]
    lines = [
        *((line, "bold", "black") for line in textwrap.wrap(exchange.question, 56)[:3]),
        *((line, "normal", "black") for line in textwrap.wrap(exchange.answer, 60)[:5]),
        *((textwrap.shorten(text, 62, placeholder=" …"), "normal", "#666666") for text in sampled),
    ]
    for row, (text, weight, colour) in enumerate(lines):
        fig.text(0.01, 0.45 - 0.037 * row, text, weight=weight, color=colour, **plain)
    aus, bars = exchange.aus, fig.add_axes((0.8, 0.1, 0.185, 0.89))
    names = [f"{name} {ACTION_UNITS[int(name[2:])].noun}" for name in aus.index]
    colours = [COLOURS["exp_vqa" if value >= 0.5 else "exp_vqa_fz"] for value in aus["mean"]]
    error = [(aus["mean"] - aus["min"]).clip(0), (aus["max"] - aus["mean"]).clip(0)]
    bars.barh(names, aus["mean"], color=colours, xerr=error, error_kw={"elinewidth": 0.8, "capsize": 1.5})
    bars.set(xlim=(0, 1), ylim=(len(names) - 0.4, -0.6))
    bars.set_xlabel("P(yes), and its range\nover the wordings", fontsize=7)
    bars.tick_params(labelsize=7, length=0)
    bars.spines[["top", "right"]].set_visible(False)
    return fig
