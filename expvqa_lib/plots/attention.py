"""Figures of attention for a paper: faces by action units, an answer whose words have the colours of what they look at, and a video."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.textpath import text_to_path
from PIL import Image

from ..attention.explain import Word
from ..errors import TableError
from ..facs import action_unit
from .charts import COLOURS, PAGE, Figure, styled
from .faces import Picture, attention_overlay, axes_at, grey, heat_bar, pixels

_PRESENT, _WRONG, _QUIET = COLOURS["exp_vqa"], "#FFB000", "#8C8C8C"

# From brow to chin, at the sides of the picture and in its middle: all dark enough to be read as text on white; kinds of colour vision
# that confuse two neighbours still see one darker than the other.
_KEY = np.array(
    [
        [(49, 28, 110), (72, 61, 180), (49, 28, 110)],
        [(8, 60, 120), (11, 110, 200), (8, 60, 120)],
        [(0, 80, 92), (0, 140, 150), (0, 80, 92)],
        [(60, 90, 0), (120, 140, 0), (60, 90, 0)],
        [(150, 80, 0), (215, 120, 0), (150, 80, 0)],
        [(140, 25, 20), (215, 60, 30), (140, 25, 20)],
        [(110, 0, 70), (190, 30, 120), (110, 0, 70)],
    ],
    np.uint8,
)
_KEY_SIDE = 336


def position_colours(size: int = _KEY_SIDE) -> np.ndarray:
    """Return a colour for every place of a picture, uint8 [size, size, 3]: hue by height, darker to the sides, both halves alike."""
    rows = np.concatenate(
        [_KEY[:1], _KEY, _KEY[-1:]]
    )  # a face fills the middle of its picture: nothing changes above and below it
    return np.asarray(Image.fromarray(rows).resize((size, size), Image.Resampling.BICUBIC))


def word_colour(word: Word, sure: float = 0.5) -> np.ndarray:
    """Return the colour [3] in [0, 1] of a word: that of its map's peak, the greyer the less than `sure` nats the picture gave it."""
    x, y = word.place
    key = position_colours()
    colour = key[min(int(y * len(key)), len(key) - 1), min(int(x * len(key)), len(key) - 1)] / 255
    share = float(np.clip(word.gain / sure, 0, 1))
    return share * colour + (1 - share) * 0x8C / 255


@styled
def attention_grid(
    images: Sequence[Picture],
    aus: Sequence[int],
    heat: np.ndarray,
    chances: np.ndarray,
    labels: np.ndarray,
    regions: Sequence[Sequence[np.ndarray | None]] | None = None,
) -> Figure:
    """Draw faces as rows and action units as columns: where the model looked for a yes, and P(yes) in the corner, on a page's width.

    A map is as strong as its P(yes). A blue frame is an AU that is labelled present; orange is a P(yes) on the wrong side of one half.

    Args:
        images: one a row.
        aus: FACS numbers, one a column.
        heat: maps [F, A, h, h] of `attention.relevance` for yes.
        chances: P(yes) [F, A].
        labels: [F, A], 1 present, 0 absent, NaN unlabelled.
        regions: [F][A] masks of what each AU moved, or None where that is not known.

    Raises:
        TableError: there is no face or AU, or the shapes do not fit.
    """
    shape = (len(images), len(aus))
    found = {"maps": np.shape(heat)[:2], "probabilities": np.shape(chances), "labels": np.shape(labels)}
    if 0 in shape or any(given != shape for given in found.values()):
        raise TableError(
            f"{shape[0]} faces and {shape[1]} action units, but {found}; expected one of each a face and action unit"
        )
    gap, head, foot = 0.04, 0.46, 0.66  # inches
    cell = PAGE / (len(aus) + 1)
    height = head + cell * len(images) + foot
    side = cell - gap
    fig = Figure(figsize=(PAGE, height), layout="none")
    for column, au in enumerate(aus):
        unit, x = action_unit(au), (cell * (column + 1) + side / 2) / PAGE
        fig.text(x, 1 - 0.06 / height, unit.name, ha="center", va="top", fontweight="bold", fontsize=7.5)
        noun = "\n".join(textwrap.wrap(unit.noun, max(8, int(cell / 0.062))))
        fig.text(x, 1 - 0.2 / height, noun, ha="center", va="top", fontsize=6.5, linespacing=1.05)
    for row, image in enumerate(images):
        bottom = height - head - cell * row - side
        axes_at(fig, gap / 2, bottom, side, side, PAGE, height).imshow(pixels(image), interpolation="lanczos")
        for column in range(len(aus)):
            ax = axes_at(fig, cell * (column + 1), bottom, side, side, PAGE, height)
            region = regions[row][column] if regions is not None else None
            chance, label = float(chances[row][column]), labels[row][column]
            attention_overlay(image, heat[row][column], ax, region=region, strength=chance, line=0.5)
            wrong = pd.notna(label) and (chance >= 0.5) != (label == 1)
            if pd.notna(label) and label == 1:
                frame = Rectangle(
                    (0, 0),
                    1,
                    1,
                    transform=ax.transAxes,
                    fill=False,
                    edgecolor=_PRESENT,
                    linewidth=1.8,
                    clip_on=False,
                )
                ax.add_patch(frame)
            note = ax.text(
                0.05,
                0.05,
                f"{chance:.2f}",
                transform=ax.transAxes,
                fontsize=6.5,
                color=_WRONG if wrong else "white",
            )
            note.set_path_effects([withStroke(linewidth=1.6, foreground="#222222")])
    heat_bar(
        axes_at(fig, cell, 0.38, 1.9, 0.06, PAGE, height),
        "relevance for “yes”: share of its maximum, times P(yes)",
    )
    _grid_key(axes_at(fig, cell + 2.9, 0.08, PAGE - cell - 2.9, 0.44, PAGE, height), regions is not None)
    return fig


def _grid_key(ax: Axes, outlined: bool) -> None:
    """Say in words what frame, number and outline mean."""
    ax.set(xlim=(0, 100), ylim=(0, 3))
    ax.add_patch(Rectangle((0.6, 2.1), 2.4, 0.8, fill=False, edgecolor=_PRESENT, linewidth=1.8))
    ax.text(5, 2.5, "the action unit is there", va="center", fontsize=6.5)
    for x, text, colour, meaning in (
        (0, "0.97", "white", "P(yes)"),
        (22, "0.61", _WRONG, "on the wrong side of one half"),
    ):
        note = ax.text(x, 1.3, text, va="center", fontsize=6.5, color=colour)
        note.set_path_effects([withStroke(linewidth=1.6, foreground="#222222")])
        ax.text(x + 9, 1.3, meaning, va="center", fontsize=6.5)
    if outlined:
        ax.plot([0.6, 3], [0.1, 0.1], color="black", linewidth=1.6)
        ax.plot([0.6, 3], [0.1, 0.1], color="white", linewidth=0.6)
        ax.text(5, 0.1, "what it moved, known of drawn faces", va="center", fontsize=6.5)


@styled
def attention_words(
    image: Picture, question: str, answer: str, words: Sequence[Word], shown: int = 6
) -> Figure:
    """Draw an answer whose words have the colour of the place that each looks at, with the key of colours on the face; page's width.

    Args:
        image: the face.
        question: that was asked.
        answer: that was given.
        words: of the answer, from `attention.explain_words`.
        shown: how many words have their map drawn below: those that the picture made likelier by most.

    Raises:
        TableError: there is no word, or one that is not in the answer.
    """
    if not words or any(answer[word.start : word.start + len(word.text)] != word.text for word in words):
        raise TableError(
            f"the words do not fit the answer {answer!r}; expected those of explain_words for it"
        )
    best = sorted(sorted(range(len(words)), key=lambda k: -words[k].gain)[:shown])
    gap, side, bar = 0.08, 1.62, 0.5  # inches
    left, cell = 2 * side + 4.5 * gap, PAGE / max(4, shown)
    asked, lines = textwrap.wrap(question, 46), _lines(answer, words, best, PAGE - left - gap)
    first = 0.14 * len(asked) + 0.13  # below the top: the answer's first line, and what follows its last
    told = first + _LINE * (len(lines) - 1) + 0.12
    small, upper = cell - gap, max(side, told + 0.26)
    height = 0.24 + upper + 0.28 + small + 0.3 + bar
    top = height - 0.24
    fig = Figure(figsize=(PAGE, height), layout="none")
    face = axes_at(fig, gap / 2, top - side, side, side, PAGE, height)
    face.imshow(pixels(image), interpolation="lanczos")
    key = axes_at(fig, side + 1.5 * gap, top - side, side, side, PAGE, height)
    key.imshow(
        np.clip(position_colours() * (0.5 + 0.75 * grey(image, _KEY_SIDE)[..., None] / 255), 0, 255).astype(
            np.uint8
        )
    )
    for at, title in ((gap / 2, "The face"), (side + 1.5 * gap, "The colour of each place")):
        fig.text(at / PAGE, (top + 0.06) / height, title, fontsize=7.5, fontweight="bold")
    for (x, y), label in _numbered([words[k].place for k in best]).items():
        note = key.text(
            x * _KEY_SIDE,
            y * _KEY_SIDE,
            label,
            ha="center",
            va="center",
            fontsize=7,
            color="white",
            fontweight="bold",
        )
        note.set_path_effects([withStroke(linewidth=1.8, foreground="#222222")])
    fig.text(
        left / PAGE,
        (top + 0.15) / height,
        "\n".join(asked),
        fontsize=7.5,
        fontweight="bold",
        va="top",
        linespacing=1.2,
    )
    for n, line in enumerate(lines):
        y = (top - first - _LINE * n) / height
        for x, k, text, style in line:
            fig.text(
                (left + x) / PAGE, y + (0.06 / height if k is None else 0), text, parse_math=False, **style
            )
    fig.text(
        left / PAGE, (top - told) / height, _NOTE, fontsize=6.5, color="#666666", va="top", linespacing=1.25
    )
    for n, k in enumerate(best):
        ax = axes_at(fig, n * cell + gap / 2, bar + 0.16, small, small, PAGE, height)
        attention_overlay(image, words[k].heat, ax)
        likelier = np.exp(words[k].gain)
        at = {"transform": ax.transAxes, "parse_math": False}
        ax.text(
            0,
            1.05,
            f"{n + 1}  {words[k].text}",
            color=word_colour(words[k]),
            fontsize=8,
            fontweight="bold",
            va="bottom",
            **at,
        )
        ax.text(
            0,
            -0.04,
            f"{likelier:,.{0 if likelier >= 10 else 1}f} × as likely",
            fontsize=6.5,
            color="#666666",
            va="top",
            **at,
        )
    heat_bar(axes_at(fig, PAGE / 2 - 0.8, 0.33, 1.6, 0.06, PAGE, height))
    return fig


_LINE = 0.25  # inches, of an answer
_NOTE = """A word has the colour of the place where its map is highest.
Grey: the picture makes it no likelier than a blurred one does."""


def _lines(
    answer: str, words: Sequence[Word], numbered: Sequence[int], width: float
) -> list[list[tuple[float, int | None, str, dict]]]:
    """Set an answer in lines of `width` inches: of each part of a line where it begins, the word (None for its number), text and style."""
    size, lines, x, start = 11.5, [[]], 0.0, 0
    for part in answer.split():
        start = answer.index(part, start)
        k = next((k for k, word in enumerate(words) if start <= word.start < start + len(part)), -1)
        start += len(part)
        style = {
            "color": _QUIET if k < 0 else word_colour(words[k]),
            "fontweight": "bold" if k in numbered else "normal",
        }
        wide = (
            text_to_path.get_text_width_height_descent(
                part, FontProperties(size=size, weight=style["fontweight"]), False
            )[0]
            / 72
        )
        mark = 0.09 if k in numbered else 0.0
        if x and x + wide + mark > width:
            lines.append([])
            x = 0.0
        lines[-1].append((x, k, part, style | {"fontsize": size}))
        if mark:
            lines[-1].append((x + wide + 0.01, None, str(numbered.index(k) + 1), style | {"fontsize": 6.5}))
        x += wide + mark + 0.055
    return lines


def _numbered(places: Sequence[tuple[float, float]], apart: float = 0.12) -> dict[tuple[float, float], str]:
    """Numbers from 1 at places; those nearer than `apart` (a share of the side) stand together at the first."""
    found: dict[tuple[float, float], list[str]] = {}
    for n, place in enumerate(places, 1):
        near = next(
            (other for other in found if np.hypot(other[0] - place[0], other[1] - place[1]) < apart), place
        )
        found.setdefault(near, []).append(str(n))
    return {place: " ".join(numbers) for place, numbers in found.items()}


@styled
def video_curves(
    film: Mapping[float, Picture],
    chances: pd.DataFrame,
    truth: pd.DataFrame,
    present: float | None = None,
    truth_name: str = "intensity",
) -> Figure:
    """Draw frames of a video above, and below, aligned in time, P(yes) of each action unit before its true intensity; page's width.

    Args:
        film: the pictures to show, by frame number, in the order of time.
        chances: index the frame number, one column an AU (`AU12`), values P(yes).
        truth: alike, values in [0, 1], NaN where not labelled.
        present: intensity from which an AU is labelled present; a line is drawn there.
        truth_name: what `truth` holds, for the key.

    Raises:
        TableError: there are fewer than two pictures or no AU, a picture is of no frame, or the two tables have other rows or columns.
    """
    if len(film) < 2 or chances.empty or not set(film) <= set(chances.index):
        raise TableError(
            f"{len(film)} pictures of frames {list(film)}, {chances.shape[1]} action units; expected two pictures or more"
        )
    if not chances.index.equals(truth.index) or list(chances) != list(truth):
        raise TableError(
            f"P(yes) of {list(chances)}, truth of {list(truth)}; expected the same frames and action units in both"
        )
    gap, panel, between, foot = 0.04, 0.38, 0.12, 0.52  # inches
    margin = 1.12  # for the names of the AUs
    cell = (PAGE - margin) / len(film)
    strip, ties = cell, 0.16
    height = strip + ties + len(chances.columns) * (panel + between) + foot
    fig = Figure(figsize=(PAGE, height), layout="none")
    times, low, high = list(film), chances.index.min(), chances.index.max()
    left, width = (
        margin + cell / 2,
        PAGE - margin - cell,
    )  # from the middle of the first picture to that of the last
    for n, image in enumerate(film.values()):
        ax = axes_at(fig, margin + n * cell + gap / 2, height - strip, cell - gap, cell - gap, PAGE, height)
        ax.imshow(pixels(image), interpolation="lanczos")
    tie = axes_at(fig, left, height - strip - ties, width, ties, PAGE, height)
    tie.set(xlim=(low, high), ylim=(0, 1))
    for n, time in enumerate(times):
        middle = low + (high - low) * n / (len(times) - 1)
        tie.plot([middle, time], [0.95, 0.05], color="#BBBBBB", linewidth=0.6, clip_on=False)
    for k, name in enumerate(chances):
        bottom = height - strip - ties - (k + 1) * (panel + between) + between
        ax = axes_at(fig, left, bottom, width, panel, PAGE, height)
        is_label = set(truth[name].dropna().unique()) <= {0, 1}
        ax.fill_between(
            truth.index,
            truth[name].astype(float),
            color="#C9CDD2",
            linewidth=0,
            step="mid" if is_label else None,
        )
        if present is not None:
            ax.axhline(present, color="#8C8C8C", linewidth=0.6, linestyle=(0, (1, 2)))
        for time in times:
            ax.axvline(time, color="#DDDDDD", linewidth=0.5, zorder=0)
        ax.plot(chances.index, chances[name], color=_PRESENT, linewidth=1.5, clip_on=False)
        ax.axis("on")
        ax.spines["left"].set_visible(False)
        ax.set(xlim=(low, high), ylim=(0, 1), yticks=[])
        ax.set_xticks(times, times if k == len(chances.columns) - 1 else [])
        unit = action_unit(int(name[2:]))
        fig.text(gap / PAGE, (bottom + 0.23) / height, name, fontsize=7.5, fontweight="bold")
        fig.text(gap / PAGE, (bottom + 0.1) / height, unit.noun, fontsize=6.5)
        for value in (0, 1):
            ax.text(1.006, value, f"{value}", transform=ax.transAxes, va="center", fontsize=6)
    ax.set_xlabel("frame of the video")
    _video_key(axes_at(fig, left, 0.02, width, 0.16, PAGE, height), present, truth_name)
    return fig


def _video_key(ax: Axes, present: float | None, truth_name: str) -> None:
    ax.set(xlim=(0, 100), ylim=(0, 1))
    ax.plot([0, 4], [0.5, 0.5], color=_PRESENT, linewidth=1.5)
    ax.text(5, 0.5, "P(yes)", va="center", fontsize=6.5)
    ax.fill_between([16, 20], 0.2, 0.8, color="#C9CDD2", linewidth=0)
    ax.text(21, 0.5, f"true {truth_name}", va="center", fontsize=6.5)
    if present is not None:
        ax.plot([40, 44], [0.5, 0.5], color="#8C8C8C", linewidth=0.6, linestyle=(0, (1, 2)))
        ax.text(45, 0.5, f"labelled present from {present:g}", va="center", fontsize=6.5)
