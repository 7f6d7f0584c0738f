"""Figures of answers: attention by faces and AUs, words in the colours of their places, curves of a video."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from PIL import Image

from ..data import ImageSource, views
from ..facs import action_unit
from .faces import attention_overlay, grey, heat_bar, picture_axes, show, write_lines
from .style import COLOURS, INK, PAGE, QUIET, Figure, styled

_PRESENT, _WRONG = COLOURS["exp_vqa"], "#FFB000"
_STROKE = [withStroke(linewidth=1.6, foreground=INK)]  # around text on pictures

# From brow to chin, at the sides of the picture and in its middle: dark enough to be read as text on white;
# kinds of colour vision that confuse two neighbours still see one darker.
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
_SIDE = 336
_PLACES = np.asarray(  # a colour for every place of a picture; a face fills its middle
    Image.fromarray(np.concatenate([_KEY[:1], _KEY, _KEY[-1:]])).resize(
        (_SIDE, _SIDE), Image.Resampling.BICUBIC
    )
)
_MAPS = 6  # of words
_NOTE = (
    "A word has the colour of the place where its map is highest.",
    "Grey: the picture makes it no likelier than a blurred one does.",
)


@styled
def attention_grid(
    images: Sequence[ImageSource],
    aus: Sequence[int],
    heat: np.ndarray,
    p_yes: np.ndarray,
    labels: np.ndarray,
    regions: Sequence[Sequence[np.ndarray | None]],
) -> Figure:
    """Draw faces as rows and action units as columns: where the model looks for a yes, and P(yes).

    A map is as strong as its P(yes). A blue frame is an AU that is labelled present; orange is a P(yes) on
    the wrong side of one half.

    Args:
        heat: maps [F, A, h, h] of `attention.relevance` for yes.
        p_yes: [F, A].
        labels: [F, A], 1 present, 0 absent, NaN unlabelled.
        regions: [F][A] masks of what each AU moved, or None where that is not known.
    """
    cell = PAGE / (len(aus) + 1) - 0.05
    fig = Figure(figsize=(PAGE, 0.42 + (cell + 0.05) * len(images) + 0.62))
    axes = np.reshape(picture_axes(fig, len(images) * (len(aus) + 1), len(aus) + 1), (len(images), -1))
    for ax, au in zip(axes[0, 1:], aus, strict=True):
        ax.xaxis.set_label_position("top")
        ax.set_xlabel(
            textwrap.fill(action_unit(au).noun, max(8, int(cell / 0.065))), fontsize=6.5, labelpad=2
        )
        ax.set_title(f"AU{au}", loc="center", fontsize=7.5, pad=2)
    for ax, image in zip(axes[:, 0], images, strict=True):
        show(ax, image)
    for (row, column), ax in np.ndenumerate(axes[:, 1:]):
        region, score, label = regions[row][column], p_yes[row, column], labels[row, column]
        attention_overlay(images[row], heat[row, column], ax, region=region, strength=score, line=0.5)
        ax.spines[:].set(visible=label == 1, color=_PRESENT, linewidth=1.8)
        tint, place = _WRONG if label == (score < 0.5) else "white", ax.transAxes
        ax.text(0.05, 0.05, f"{score:.2f}", color=tint, fontsize=6.5, path_effects=_STROKE, transform=place)
    heat_bar(fig, axes.ravel(), "relevance for “yes”: share of its maximum, times P(yes)")
    number = {"linestyle": "", "markersize": 15, "markeredgewidth": 0.3, "markeredgecolor": INK}
    handles = [
        Patch(facecolor="none", edgecolor=_PRESENT, linewidth=1.8, label="the action unit is present"),
        Line2D([], [], marker="$0.97$", color="white", label="P(yes)", **number),
        Line2D([], [], marker="$0.61$", color=_WRONG, label="on the wrong side of one half", **number),
    ]
    if any(region is not None for row in regions for region in row):
        handles += [Line2D([], [], color="white", lw=0.6, path_effects=_STROKE, label="what it moved")]
    fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), handlelength=2)
    return fig


@styled
def attention_words(image: ImageSource, question: str, answer: str, words: Sequence[tuple]) -> Figure:
    """Draw an answer whose words have the colour of the place that each looks at.

    Below are the maps of the words that the picture made likelier by most.

    Args:
        words: each an `attention.Word` of the answer, from `attention.explain_words`.
    """
    best = sorted(sorted(range(len(words)), key=lambda k: -words[k].gain)[:_MAPS])
    bold, note = {"fontsize": 7.5, "fontweight": "bold"}, {"fontsize": 6.5, "color": "#666666"}
    lines, gap = [[(part, bold)] for part in textwrap.wrap(question, 50)], [[(" ", {"fontsize": 3})]]
    lines += gap + _coloured(answer, words, best) + gap + [[(part, note)] for part in _NOTE]
    top = max(1.9, 0.3 + sum(0.06 + line[0][1]["fontsize"] / 80 for line in lines))  # a long answer is taller
    heights = [top, PAGE / _MAPS + 0.6] if best else [top]
    fig = Figure(figsize=(PAGE, sum(heights)))
    parts = np.ravel(fig.subfigures(len(heights), 1, height_ratios=heights))
    face, key, text = picture_axes(parts[0], 3, 3, width_ratios=[1, 1, 2.1])
    for ax, title in ((face, "The face"), (key, "The colour of each place"), (text, "")):
        ax.set_title(title, fontsize=7.5)
    show(face, image)
    shade = 0.5 + 0.75 * grey(image, _SIDE)[..., None] / 255
    key.imshow(np.clip(_PLACES * shade, 0, 255).astype(np.uint8), extent=(0, 1, 1, 0))
    write_lines(text, lines, (0, 1 + 0.19 / top), sep=3)
    if best:
        axes = picture_axes(parts[1], len(best), _MAPS)
        for n, (ax, word) in enumerate(zip(axes, [words[k] for k in best], strict=True), 1):
            attention_overlay(image, word.heat, ax)
            likelier = np.exp(word.gain)
            ax.set_title(f"{n}  {word.text}", color=word_colour(word), fontsize=8, pad=3)
            digits = 0 if likelier >= 10 else 1
            ax.set_xlabel(f"{likelier:,.{digits}f} × as likely", loc="left", fontsize=6.5, labelpad=2)
        heat_bar(parts[1], axes)
    return fig


def _coloured(answer: str, words: Sequence[tuple], best: Sequence[int]) -> list[list[tuple[str, dict]]]:
    """An answer in lines of words in their colours; those of `best` are bold and numbered."""
    lines, end = [], 0
    for line in textwrap.wrap(answer, 34):
        lines.append([])
        for part in line.split():
            start = answer.index(part, end)
            end = start + len(part)
            k = next((k for k, word in enumerate(words) if start <= word.start < end), None)
            number = "¹²³⁴⁵⁶"[best.index(k)] if k in best else ""
            tint, weight = QUIET if k is None else word_colour(words[k]), "bold" if number else "normal"
            style = {"fontsize": 11, "fontweight": weight, "color": tint}
            lines[-1].append((f"{part}{number} ", style))
    return lines


@styled
def video_curves(
    film: Mapping[float, ImageSource],
    truth: pd.DataFrame,
    p_yes: pd.DataFrame | None = None,
    present: float | None = None,
    truth_name: str = "true intensity",
    axis: str = "frame of the video",
) -> Figure:
    """Draw frames of a video and, below each, the true intensity of each action unit and P(yes).

    Args:
        film: one or more pictures by frame number (or what `axis` says), in its order, at equal distances.
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
    area = {"color": "#C9CDD2", "linewidth": 0, "step": "mid", "label": truth_name}
    for ax, name in zip(axes, truth, strict=True):
        ax.fill_between(truth.index, truth[name].astype(float), **area)
        ax.vlines(times, 0, 1, color="#DDDDDD", linewidth=0.5, zorder=0)
        noun = "" if p_yes is None else f"\n{action_unit(int(name[2:])).noun}"
        ax.set_ylabel(f"{name}{noun}", rotation=0, ha="right", va="center", fontsize=6.5)
        if p_yes is not None:
            ax.plot(p_yes[name], clip_on=False, color=COLOURS["exp_vqa"], linewidth=1.5, label="P(yes)")
        if present is not None:
            ax.axhline(present, 0, 1, color=QUIET, lw=0.8, ls=":", label=f"labelled present from {present:g}")
    if axes:
        axes[-1].set(xticks=times, xticklabels=times, xlabel=axis)
        fig.legend(*axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def clip_curves(faces: pd.DataFrame, pictures: int = 8) -> Figure:
    """Draw P(yes) of each action unit over the time of one person in a video, below the face at equal times.

    Args:
        faces: rows of `evaluation.score` about one `subject`; the video is read again for the pictures.
    """
    faces = faces.drop_duplicates("time").set_index("time")
    times = np.linspace(faces.index[0], faces.index[-1], min(pictures, len(faces))).round(2)
    shown = faces.iloc[faces.index.get_indexer(times, method="nearest")].set_axis(times)
    frames = {}
    for view in views([faces["file"].iat[0]], wanted=lambda _, frame: frame in set(shown["frame"])):
        frames[view.frame] = view.image
    film = {}
    for time, row in shown.iterrows():
        image = frames[row["frame"]]
        middle = np.array([row["left"] + row["width"] / 2, row["top"] + row["height"] / 2])
        side = min(0.65 * row["height"], *image.size / np.array(2))
        middle = np.clip(middle, side, np.subtract(image.size, side))
        film[time] = image.crop([*(middle - side).round(), *(middle + side).round()])
    aus = faces.filter(regex=r"^AU\d+$")
    return video_curves(film, aus * np.nan, aus, truth_name="_", axis="time (s)")


def word_colour(word: tuple) -> np.ndarray:
    """Return the colour [3] in [0, 1] of an `attention.Word`: of its peak, the greyer the less it gained."""
    peak = np.array(np.unravel_index(word.heat.argmax(), word.heat.shape))
    row, column = ((peak + 0.5) / word.heat.shape * _SIDE).astype(int)
    share = float(np.clip(word.gain / 0.5, 0, 1))  # half a nat gives a word its full colour
    return share * _PLACES[row, column] / 255 + (1 - share) * 0x8C / 255
