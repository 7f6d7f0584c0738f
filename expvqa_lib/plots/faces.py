"""Pictures of faces: labelled samples, and maps of where a model looked laid over them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import matplotlib as mpl
import matplotlib.figure
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from PIL import Image, ImageFilter

from ..data.images import ImageSource, load_image
from ..errors import TableError
from ..evaluation.tables import NAMES
from .charts import PAGE, Figure, colour, styled

Picture: TypeAlias = "Image.Image | np.ndarray"
HEAT = "inferno"  # perceptually uniform, and far from the colours of a face
_DRAWN = 336  # pixels: maps are smoothed to this size
_CELLS = 24
_OPAQUE = 0.75  # of the hottest place
_GAP, _LINE = 0.05, 0.12  # inches: between pictures, and a line of text


@styled
def face_grid(images: Sequence[Picture], captions: Sequence[str], columns: int = 6) -> Figure:
    """Draw faces in a grid, each with its caption below; images are PIL or [H, W, 3] arrays (uint8, or floats in [0, 1])."""
    fig = Figure(figsize=(PAGE, faces_height(len(images), captions, columns)), layout="none")
    draw_faces(fig, images, captions, columns)
    return fig


def faces_height(count: int, captions: Sequence[str], columns: int) -> float:
    """Return the height in inches that `draw_faces` needs on a page's width.

    Raises:
        TableError: there is no face, or not one caption a face.
    """
    if count == 0 or count != len(captions):
        raise TableError(
            f"{count} faces and {len(captions)} captions to draw; expected as many of each, and at least one"
        )
    lines = max((len(_wrapped(caption, columns)) for caption in captions), default=1)
    return -(-count // columns) * (PAGE / columns + _LINE * lines + 2 * _GAP)


def draw_faces(
    fig: matplotlib.figure.FigureBase, images: Sequence[Picture], captions: Sequence[str], columns: int
) -> None:
    """Draw `face_grid` on a figure, or a part of one, of a page's width and `faces_height`."""
    height = faces_height(len(images), captions, columns)
    row_height, cell = height / -(-len(images) // columns), PAGE / columns
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(i, columns)
        left, top = column * cell + _GAP, height - row * row_height - _GAP
        side = cell - 2 * _GAP
        ax = axes_at(fig, left, top - side, side, side, PAGE, height)
        ax.imshow(pixels(image), interpolation="lanczos")
        text = "\n".join(_wrapped(caption, columns))
        ax.text(
            0.5, -0.04, text, transform=ax.transAxes, ha="center", va="top", fontsize=6.5, linespacing=1.15
        )


def attention_overlay(
    image: Picture,
    heat_map: np.ndarray,
    ax: Axes,
    *,
    region: np.ndarray | None = None,
    strength: float = 1.0,
    line: float = 0.8,
) -> None:
    """Draw a grey face under a smooth map of relevance, clear where it is low, with the outline of the part that truly moved.

    Args:
        image: the face.
        heat_map: [h, w], any size, not negative; drawn as a share of its maximum.
        region: [H, W] mask of the moving part, any size.
        strength: what the map's maximum is drawn as, from 0 to 1.
        line: width of the outline, in points.
    """
    share = strength * smooth(heat_map)
    colours = mpl.colormaps[HEAT](share)  # [_DRAWN, _DRAWN, 4]
    colours[..., 3] = _OPAQUE * share**0.8
    ax.imshow(grey(image), cmap="gray", vmin=0, vmax=255)
    ax.imshow(colours)
    if region is not None and np.any(region):
        mask = Image.fromarray((np.asarray(region) > 0).astype(np.uint8) * 255)
        mask = np.asarray(mask.resize((_DRAWN, _DRAWN), Image.Resampling.BICUBIC)) / 255
        ax.contour(mask, levels=[0.5], colors="black", linewidths=2 * line)
        ax.contour(mask, levels=[0.5], colors="white", linewidths=line)
    ax.axis("off")


@styled
def answer_grid(images: Sequence[Picture], told: pd.DataFrame, columns: int = 3) -> Figure:
    """Draw faces, and under each what was asked and what everybody answered.

    Args:
        images: the faces.
        told: columns face (position in `images`), question, model (a key of `figures.NAMES`, or any name) and answer, in reading order.
        columns: faces side by side.
    """
    side, cell, name_width = (
        1.5,
        PAGE / columns,
        0.8,
    )  # inches; an answer stands to the right of its model's name
    wide = int((cell - name_width - 3 * _GAP) / 0.048)  # characters of this size that fit
    columns_of_text = []
    for k in range(len(images)):
        lines: list[tuple[str, str, str]] = []  # question, model, text
        for question, answers in told[told["face"] == k].groupby("question", sort=False):
            lines += [("", "", "")] + [(text, "", "") for text in textwrap.wrap(question, int(cell / 0.058))]
            for row in answers.itertuples():
                text = textwrap.wrap(textwrap.shorten(str(row.answer), 7 * wide, placeholder=" …"), wide) or [
                    "–"
                ]
                lines += [("", row.model if n == 0 else "", part) for n, part in enumerate(text)]
        columns_of_text.append(lines)
    row_height = side + _GAP + _LINE * (max(map(len, columns_of_text)) + 1)
    height = row_height * -(-len(images) // columns)
    fig = Figure(figsize=(PAGE, height), layout="none")
    for k, (image, lines) in enumerate(zip(images, columns_of_text, strict=True)):
        left, top = k % columns * cell + _GAP, height - k // columns * row_height - _GAP
        axes_at(fig, left, top - side, side, side, PAGE, height).imshow(
            pixels(image), interpolation="lanczos"
        )
        for n, (question, model, text) in enumerate(lines):
            at = {"y": (top - side - _LINE * (n + 0.8)) / height, "fontsize": 6.5}
            fig.text(
                left / PAGE,
                s=question or NAMES.get(model, model),
                fontweight="bold",
                color=_name_colour(model),
                **at,
            )
            fig.text((left + name_width) / PAGE, s=text, **at)
    return fig


def outlined(image: Picture, region: np.ndarray, margin: int = 8, width: int = 2) -> np.ndarray:
    """Return the pixels of a picture with a blue line around a region.

    Args:
        image: the picture.
        region: mask [H, W] of the picture's size.
        margin: pixels between the region and the line, so that what moved stays to be seen.
        width: of the line, in pixels.
    """
    mask = Image.fromarray((np.asarray(region) > 0).astype(np.uint8) * 255).filter(
        ImageFilter.MaxFilter(2 * margin + 1)
    )
    mask = mask.filter(ImageFilter.GaussianBlur(margin / 2)).point(
        lambda grey: 255 * (grey > 127)
    )  # round corners
    line = np.asarray(mask.filter(ImageFilter.MaxFilter(2 * width + 1))) > np.asarray(mask)
    drawn = pixels(image).copy()
    drawn[line] = (0, 90, 200)
    return drawn


@styled
def attention_gallery(rows: Sequence[Mapping[str, Any]], columns: int = 3) -> Figure:
    """Draw faces beside where the model looked, question above and answer below, with one colour bar.

    Args:
        rows: a mapping each: image, heat [h, w], title (the question), answer, and optionally region (a mask).
        columns: pairs of pictures side by side.

    Raises:
        TableError: there is no row.
    """
    if not rows:
        raise TableError("no faces to draw; expected at least one row with image, heat, title and answer")
    columns = min(columns, len(rows))
    lines = -(-len(rows) // columns)
    titles = [textwrap.wrap(str(row["title"]), 36) for row in rows]
    answers = [textwrap.wrap(str(row["answer"]), 42) for row in rows]
    above, below = (
        _LINE * max((len(text) for text in texts), default=1) + _GAP for texts in (titles, answers)
    )
    cell = PAGE / 3
    side = (cell - 5 * _GAP) / 2
    row_height = above + side + below + 2 * _GAP
    width, height = cell * columns, row_height * lines + _GAP + 0.45
    fig = Figure(figsize=(width, height), layout="none")
    for i, row in enumerate(rows):
        line, column = divmod(i, columns)
        left, bottom = column * cell + 2 * _GAP, height - _GAP - line * row_height - above - side
        face = axes_at(fig, left, bottom, side, side, width, height)
        face.imshow(pixels(row["image"]), interpolation="lanczos")
        looked = axes_at(fig, left + side + _GAP / 2, bottom, side, side, width, height)
        attention_overlay(row["image"], row["heat"], looked, region=row.get("region"))
        text = {"transform": face.transAxes, "fontsize": 7, "linespacing": 1.15}
        face.text(0, 1.05, "\n".join(titles[i]), va="bottom", fontweight="bold", **text)
        face.text(0, -0.05, "\n".join(answers[i]), va="top", **text)
    heat_bar(axes_at(fig, width / 2 - 0.8, 0.33, 1.6, 0.06, width, height))
    return fig


def heat_bar(ax: Axes, label: str = "relevance, share of maximum") -> None:
    """Draw the colours of `attention_overlay` from 0 to 1 on axes of their own."""
    bar = ax.figure.colorbar(ScalarMappable(cmap=HEAT), cax=ax, orientation="horizontal", ticks=[0, 0.5, 1])
    bar.ax.axis("on")
    bar.outline.set_visible(False)
    bar.set_label(label, labelpad=1)


def smooth(heat_map: np.ndarray, size: int = _DRAWN) -> np.ndarray:
    """Return a map [size, size] in [0, 1]: a share of its maximum, bicubic between the patches; zeros stay zeros.

    A map of pixels is first averaged over `_CELLS` a side: single pixels, however relevant, would not be seen.
    """
    heat = np.nan_to_num(np.asarray(heat_map, dtype=np.float32)).clip(min=0)
    if max(heat.shape) > _CELLS:
        heat = np.asarray(Image.fromarray(heat).resize((_CELLS, _CELLS), Image.Resampling.BOX))
    heat = heat / heat.max() if heat.max() > 0 else heat
    large = Image.fromarray(heat).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(large).clip(0, 1)


def thumbnail(image: ImageSource, side: int = 256) -> Image.Image:
    """Return any picture as RGB, made smaller where a side is longer than `side` pixels."""
    small = load_image(image)
    small.thumbnail((side, side))
    return small


def grey(image: Picture, size: int = _DRAWN) -> np.ndarray:
    """Return a picture as grey levels uint8 [size, size], to lay colours over."""
    return np.asarray(
        Image.fromarray(pixels(image)).convert("L").resize((size, size), Image.Resampling.LANCZOS)
    )


def pixels(image: Picture) -> np.ndarray:
    """Return uint8 RGB pixels [H, W, 3] of a PIL image or of an array [H, W] or [H, W, 3] (uint8, or floats in [0, 1])."""
    if not isinstance(image, Image.Image):
        array = np.asarray(image)
        image = Image.fromarray(
            array if array.dtype == np.uint8 else (array.clip(0, 1) * 255).round().astype(np.uint8)
        )
    return np.asarray(image.convert("RGB"))


def axes_at(
    fig: matplotlib.figure.FigureBase,
    left: float,
    bottom: float,
    width: float,
    height: float,
    page: float,
    full: float,
) -> Axes:
    """Return axes without a frame at a place given in inches, on a figure of `page` x `full` inches."""
    ax = fig.add_axes((left / page, bottom / full, width / page, height / full))
    ax.axis("off")
    return ax


def _name_colour(model: str) -> str:
    return colour(model) if model in NAMES else mpl.rcParams["text.color"]


def _wrapped(caption: str, columns: int) -> list[str]:
    return textwrap.wrap(str(caption), max(8, 126 // columns))
