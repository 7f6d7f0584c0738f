"""A question about a face with its answer, as one figure: for the page and for the picture to keep."""

import textwrap
from collections import Counter, namedtuple

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from ..facs import ACTION_UNITS
from ..plots import COLOURS, Figure, attention_overlay

SIZE = 8  # points: of the letters
LINE, TITLE = 290, 130  # points: of a line of text, which ends before the names of the AUs, and of a title

Exchange = namedtuple("Exchange", "face question answer method words chosen aus samples model notice")
"""A question about a face (`FaceImage`) with its answer, P(yes) where it is one, and sampled answers.

The map is by `method`, for the `chosen` of the answer's `words` (each an `attention.Word`), a number from 0.
`aus` has P(yes) of each AU over the wordings of Q3: mean, min and max. `model` is a name, `notice` what one
should know of model or face.
"""


def figure(exchange: Exchange) -> Figure:
    """Draw the face, the map, question and answers, and P(yes) of the AUs.

    The style sheet is left alone: all threads share it, and this runs beside the notebook's own.
    """
    word, sampled = exchange.words[exchange.chosen], Counter(exchange.samples).most_common()
    about = f"Exp-VQA {exchange.model}. {exchange.notice or ''}"
    texts = [(exchange.question, "bold", "black"), (exchange.answer, "normal", "black")]
    texts += [(f"{count} × {text}", "normal", "#666666") for text, count in sampled]
    texts += [(about, "normal", "#666666")]
    lines = [(line, *look) for text, *look in texts for line in _wrap(text, LINE, look[0])]
    titles = exchange.face.name, f"Where it looked for “{word.text}”, by {exchange.method.replace('_', ' ')}"
    titles = [_wrap(title, TITLE) for title in titles]
    above = 0.12 + 0.14 * max(map(len, titles))  # inches, all of them
    height = max(4.6, above + 2.1 + 0.17 * len(lines))
    fig = Figure(figsize=(7, height), layout="none")
    plain = {"parse_math": False, "va": "top", "fontsize": SIZE}  # a dollar sign is a dollar sign
    for left, title in zip((0.01, 0.29), titles, strict=True):
        fig.text(left, 1 - (above - 0.05) / height, "\n".join(title), **plain | {"va": "bottom"})
    face, overlay = (
        fig.add_axes((left, 1 - (above + 1.82) / height, 0.26, 1.82 / height)) for left in (0.01, 0.29)
    )
    face.axis("off")
    face.imshow(exchange.face.shown.resize((448, 448)))
    attention_overlay(exchange.face.shown, word.heat, overlay)
    for row, (text, weight, colour) in enumerate(lines):
        place = 1 - (above + 2.0 + 0.17 * row) / height
        fig.text(0.01, place, text, weight=weight, color=colour, **plain)
    aus, bars = exchange.aus, fig.add_axes((0.8, 1 - 4.15 / height, 0.175, 4.1 / height))
    names = [f"{name} {ACTION_UNITS[int(name[2:])].noun}" for name in aus.index]
    colours = [COLOURS["exp_vqa" if value >= 0.5 else "exp_vqa_fz"] for value in aus["mean"]]
    error = [(aus["mean"] - aus["min"]).clip(0), (aus["max"] - aus["mean"]).clip(0)]
    bars.barh(names, aus["mean"], color=colours, xerr=error, error_kw={"elinewidth": 0.8, "capsize": 1.5})
    bars.set(xlim=(0, 1), ylim=(len(names) - 0.4, -0.6))
    bars.set_xlabel("P(yes), and its range\nover the wordings", fontsize=7)
    bars.tick_params(labelsize=7, length=0)
    bars.spines[["top", "right"]].set_visible(False)
    return fig


def _wrap(text: str, width: float, weight: str = "normal") -> list[str]:
    """Break a text into lines of at most so many points, by the widths of its letters."""
    font, lines = FontProperties(size=SIZE, weight=weight), []
    for characters in range(64, 1, -1):
        lines = textwrap.wrap(text, characters)
        widths = [text_to_path.get_text_width_height_descent(line, font, False)[0] for line in lines]
        if max(widths, default=0) <= width:
            break
    return lines
