"""Pictures of faces in a grid: labelled samples, answers, and maps of where a model looks laid over them."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import FigureBase
from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea, VPacker
from matplotlib.patheffects import withStroke
from PIL import Image, ImageFilter

from ..data.images import ImageSource, load_image
from ..evaluation.tables import NAMES
from ..facs import EMOTIONS
from .charts import au_floats
from .style import COLOURS, INK, PAGE, Figure, heat_map, styled

HEAT = "inferno"  # perceptually uniform, and far from the colours of a face
_LARGE = 336  # pixels: maps are smoothed to this size
_CELLS = 24
_LINE = 0.115  # inches, of small text


@styled
def face_grid(
    images: Sequence[ImageSource],
    captions: Sequence[str],
    columns: int = 6,
    rates: Mapping[str, pd.DataFrame] | None = None,
) -> Figure:
    """Draw faces in a grid, each with its caption below, and then a heat map of each table that is not empty.

    Args:
        rates: tables of percentages by their titles, a column a row of the heat map.
    """
    texts = [textwrap.wrap(str(caption), max(8, 126 // columns)) for caption in captions]
    height = PAGE / columns + _LINE * max(map(len, texts)) + 0.02  # of a row of faces
    rates = {title: table.T for title, table in (rates or {}).items() if not table.empty}
    heights = [-(-len(texts) // columns) * height, *(0.65 + 0.2 * len(table) for table in rates.values())]
    fig = Figure(figsize=(PAGE, sum(heights)))
    top, *below = np.ravel(fig.subfigures(len(heights), 1, height_ratios=heights))
    for ax, image, text in zip(picture_axes(top, len(images), columns), images, texts, strict=True):
        show(ax, image)
        ax.set_xlabel("\n".join(text), fontsize=6.5, labelpad=2, linespacing=1.1)
    for part, (title, table) in zip(below, rates.items(), strict=True):
        ax = part.subplots()
        heat_map(ax, table, "of labelled\nfaces (%)")
        ax.set_title(title)
    return fig


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
    aus = {name: 100 * au_floats(labels).mean() for name, labels in labels_by_dataset.items()}
    emotions = {
        name: 100 * pd.Series(list(some), dtype=object).value_counts(normalize=True)
        for name, some in emotions_by_dataset.items()
    }
    emotions = pd.DataFrame(emotions, dtype=float).fillna(0.0)
    rates = {
        "How often each action unit is present": pd.DataFrame(aus).dropna(how="all"),
        "Emotions": emotions.reindex(sorted(emotions.index, key=[*EMOTIONS, *sorted(emotions.index)].index)),
    }
    return face_grid(images, captions, 8, rates)


def picture_axes(
    fig: FigureBase, count: int, columns: int, width_ratios: Sequence[float] | None = None
) -> list[Axes]:
    """Axes for pictures in rows, without ticks and frames."""
    axes = fig.subplots(-(-count // columns), columns, squeeze=False, width_ratios=width_ratios).ravel()
    for ax in axes:
        ax.set(xticks=[], yticks=[], anchor="N")
        ax.spines[:].set_visible(False)
    return list(axes[:count])


def show(ax: Axes, image: ImageSource, extent: tuple | None = None) -> None:
    """Draw a picture into an extent, by default from 0 to 1 along its longer side."""
    picture = np.asarray(thumbnail(image, 512))
    height, width = np.array(picture.shape[:2]) / max(picture.shape)
    ax.imshow(picture, interpolation="lanczos", extent=extent or (0, width, 1 - height, 1))


def attention_overlay(
    image: ImageSource,
    heat: np.ndarray,
    ax: Axes,
    *,
    region: np.ndarray | None = None,
    strength: float = 1.0,
    line: float = 0.8,
    left: float = 0.0,
) -> None:
    """Draw a grey face under a smooth map of relevance, clear where it is low, as a unit square from `left`.

    Args:
        heat: [h, w], any size, not negative; drawn as a share of its maximum.
        region: [H, W] mask of the moving part, any size, to be outlined.
        strength: what the map's maximum is drawn as, from 0 to 1.
        line: width of the outline, in points.
    """
    share, place = strength * smooth(heat), (left, left + 1, 0, 1)
    ax.imshow(grey(image), cmap="gray", vmin=0, vmax=255, extent=place)
    ax.imshow(share, cmap=HEAT, vmin=0, vmax=1, alpha=0.75 * share**0.8, extent=place)
    if region is not None and np.any(region):
        mask = _mask(region).resize((_LARGE, _LARGE), Image.Resampling.BICUBIC)
        outline = {"colors": "white", "linewidths": line, "extent": place, "origin": "upper"}
        ax.contour(mask, [127.5], **outline).set_path_effects(
            [withStroke(linewidth=2 * line, foreground="black")]
        )
    ax.set(xticks=[], yticks=[])


@styled
def answer_grid(images: Sequence[ImageSource], answers: pd.DataFrame) -> Figure:
    """Draw faces, and under each the questions and every model's answer.

    Args:
        answers: columns face (position in `images`), question, model (a key of `NAMES`, or any name) and
            answer, in reading order.
    """
    texts, bold, wide = [[] for _ in images], {"fontweight": "bold"}, 46  # characters
    for (face, question), rows in answers.groupby(["face", "question"], sort=False):
        texts[face] += [[(" ", {})], *([(part, bold)] for part in textwrap.wrap(question, wide - 4))]
        for row in rows.itertuples():
            name = f"{NAMES.get(row.model, row.model)}: "
            text = textwrap.shorten(str(row.answer) or "–", 6 * wide, placeholder=" …")
            first, *rest = textwrap.wrap(name + text, wide)
            start = (name, bold | {"color": COLOURS.get(row.model, INK)})
            texts[face] += [[start, (first[len(name) :], {})], *([(part, {})] for part in rest)]
    fig = Figure(figsize=(PAGE, -(-len(images) // 3) * (1.5 + 0.1 * max(map(len, texts)))))
    for ax, image, lines in zip(picture_axes(fig, len(images), 3), images, texts, strict=True):
        show(ax, image)
        ax.set_xlim(0, PAGE / 3 / 1.5)
        write_lines(ax, lines, (0, 0))
    return fig


def write_lines(
    ax: Axes, lines: Sequence[Sequence[tuple[str, dict]]], at: tuple[float, float], sep: float = 0
) -> None:
    """Write lines of differently styled parts, the upper left corner at a place in shares of the axes."""
    rows = [
        HPacker(
            children=[TextArea(text, textprops={"fontsize": 6.5} | style) for text, style in line],
            pad=0,
            sep=0,
            align="baseline",
        )
        for line in lines
    ]
    ax.add_artist(
        AnchoredOffsetbox(
            "upper left",
            child=VPacker(children=rows, pad=0, sep=sep),
            bbox_to_anchor=at,
            bbox_transform=ax.transAxes,
            frameon=False,
            pad=0,
            borderpad=0,
        )
    )


@styled
def attention_gallery(rows: pd.DataFrame | Sequence[Mapping]) -> Figure:
    """Draw faces beside where the model looked, question above and answer below, with one colour bar.

    Args:
        rows: columns image, heat [h, w], title (the question), answer, and optionally region (a mask).
    """
    rows = rows.to_dict("records") if isinstance(rows, pd.DataFrame) else rows
    columns, cell = min(3, len(rows)), PAGE / 3
    texts = [[textwrap.wrap(str(row[name]), 40) for name in ("title", "answer")] for row in rows]
    lengths = [len(title) + len(answer) for title, answer in texts]
    lines = [max(lengths[k : k + columns]) for k in range(0, len(rows), columns)]
    fig = Figure(figsize=(cell * columns, (cell / 2 + 0.08) * len(lines) + _LINE * sum(lines) + 0.38))
    axes = picture_axes(fig, len(rows), columns)
    for ax, row, (title, answer) in zip(axes, rows, texts, strict=True):
        show(ax, row["image"])
        attention_overlay(row["image"], row["heat"], ax, region=row.get("region"), left=1.04)
        ax.set_xlim(0, 2.04)
        ax.set_title("\n".join(title), fontsize=7, pad=3, linespacing=1.1)
        ax.set_xlabel("\n".join(answer), loc="left", fontsize=7, labelpad=3, linespacing=1.1)
    heat_bar(fig, axes)
    return fig


def heat_bar(fig: FigureBase, axes: Sequence[Axes], label: str = "relevance, share of its maximum") -> None:
    """Draw the colours of `attention_overlay` below axes."""
    bar = fig.colorbar(
        ScalarMappable(cmap=HEAT),
        ax=axes,
        location="bottom",
        ticks=[0, 0.5, 1],
        shrink=0.4,
        aspect=30,
        pad=0.01,
    )
    bar.outline.set_visible(False)
    bar.set_label(label, labelpad=1)


def outlined(image: ImageSource, region: np.ndarray) -> np.ndarray:
    """Return the pixels of a picture with a blue line around a region, 8 pixels away from it.

    Args:
        region: mask [H, W] of the picture's size.
    """
    mask = _mask(region).filter(ImageFilter.MaxFilter(17)).filter(ImageFilter.GaussianBlur(4))
    mask = mask.point(lambda level: 255 * (level > 127))  # round corners
    line = np.asarray(mask.filter(ImageFilter.MaxFilter(5))) > np.asarray(mask)
    return np.where(line[..., None], np.uint8([0, 90, 200]), np.asarray(thumbnail(image, 512)))


def _mask(region: np.ndarray) -> Image.Image:
    return Image.fromarray((np.asarray(region) > 0).astype(np.uint8) * 255)


def smooth(heat: np.ndarray) -> np.ndarray:
    """Return a map [S, S] in [0, 1]: a share of its maximum, bicubic between the patches.

    A map of pixels is first averaged over `_CELLS` a side: single pixels, however relevant, are not visible.
    """
    heat = np.nan_to_num(np.asarray(heat, dtype=np.float32)).clip(min=0)
    if max(heat.shape) > _CELLS:
        heat = np.asarray(Image.fromarray(heat).resize((_CELLS, _CELLS), Image.Resampling.BOX))
    heat = heat / heat.max() if heat.max() > 0 else heat
    return np.asarray(Image.fromarray(heat).resize((_LARGE, _LARGE), Image.Resampling.BICUBIC)).clip(0, 1)


def thumbnail(image: ImageSource, side: int = 256) -> Image.Image:
    """Return any picture as RGB, made smaller where a side is longer than `side` pixels."""
    small = load_image(image)
    small.thumbnail((side, side))
    return small


def grey(image: ImageSource, size: int = _LARGE) -> np.ndarray:
    """Return a picture as grey levels uint8 [size, size], to lay colours over."""
    return np.asarray(load_image(image).convert("L").resize((size, size), Image.Resampling.LANCZOS))
