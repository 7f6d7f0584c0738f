"""One look at one face: what was asked and answered, as HTML for the explorer and as a picture to keep. All text in the HTML is escaped."""

from __future__ import annotations

import base64
import io
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

import numpy as np
import pandas as pd
from PIL import Image

from ..attention.explain import Word
from ..facs import ACTION_UNITS
from ..plots import COLOURS, Figure, attention_overlay, styled
from ..questions import NO, YES

ROW = 22  # px: a row of the AU table, bar and slider alike
SIDE = 224  # px: a picture

STYLE = f"""<style>
.expvqa {{ font-family: var(--jp-ui-font-family, sans-serif); font-size: 13px; line-height: 1.4; color: var(--jp-ui-font-color1, #222); }}
.expvqa-title {{ font-size: 12px; font-weight: 600; color: var(--jp-ui-font-color2, #666); }}
.expvqa-answer {{ font-size: 16px; font-weight: 600; overflow-wrap: anywhere; }}
.expvqa-quiet {{ color: var(--jp-ui-font-color2, #666); overflow-wrap: anywhere; }}
.expvqa-error {{ border-left: 4px solid #C62828; background: #FDECEA; color: #611A15; padding: 6px 10px; overflow-wrap: anywhere; }}
.expvqa-notice {{ border-left: 4px solid #B8A000; background: #FFF8E1; color: #5C4A00; padding: 6px 10px; overflow-wrap: anywhere; }}
a.expvqa {{ color: var(--jp-content-link-color, #0B5FA5); text-decoration: underline; }}
.expvqa-row {{ display: flex; align-items: center; height: {ROW}px; gap: 6px; white-space: nowrap; padding: 0 4px; border-radius: 3px; }}
.expvqa-asked {{ background: #E3F0FB; color: #123; font-weight: 600; }}
.expvqa-row .au {{ width: 40px; }}
.expvqa-row .noun {{ width: 136px; overflow: hidden; text-overflow: ellipsis; }}
.expvqa-row .track {{ width: 82px; height: 11px; background: var(--jp-layout-color2, #eee); border-radius: 2px; position: relative; }}
.expvqa-row .bar {{ height: 100%; border-radius: 2px; }}
.expvqa-row .whisker {{ position: absolute; top: 2px; height: 7px; box-sizing: border-box; min-width: 2px;
  border: solid #222; border-width: 0 1.5px; background: linear-gradient(#222, #222) center / 100% 1.5px no-repeat;
  filter: drop-shadow(0 0 0.8px #fff) drop-shadow(0 0 0.8px #fff); }}
.expvqa-row .value {{ width: 32px; text-align: right; font-variant-numeric: tabular-nums; }}
.expvqa-history {{ max-height: 172px; overflow-y: auto; }}
.expvqa-past {{ display: flex; gap: 8px; padding: 4px 0; border-top: 1px solid var(--jp-border-color2, #ddd); align-items: center; }}
.expvqa-past img {{ width: 40px; height: 40px; border-radius: 3px; flex: none; }}
.expvqa-past div {{ overflow-wrap: anywhere; min-width: 0; }}
</style>"""


@dataclass(frozen=True)
class View:
    """A face, a question, its answer and, as far as is known yet, the map [g, g] for one of its words, P(yes) of the AUs, and samples.

    `seen` is what the model got. The map is by `method` (`attention.METHODS`); `words` are those that may be explained, where there are
    several; `spread` has the lowest and highest P(yes) (low, high) of each AU.
    """

    image: Image.Image
    source: str
    question: str
    answer: str
    seen: Image.Image | None = None
    method: str = ""
    heat: np.ndarray | None = None
    word: str = ""
    p_yes: float = float("nan")
    aus: pd.Series | None = None
    samples: tuple[str, ...] = ()
    words: tuple[Word, ...] = ()
    spread: pd.DataFrame | None = None

    def explaining(self, word: Word) -> View:
        """The same with the map for another word of the answer."""
        return replace(self, heat=word.heat, word=word.text)

    @property
    def told(self) -> str:
        """The answer, with the probability of yes where that is what was asked."""
        return (
            f"{self.answer}  (P(yes) = {self.p_yes:.2f})"
            if self.word in (YES, NO) and not np.isnan(self.p_yes)
            else self.answer
        )


def png(image: Image.Image, side: int = SIDE) -> bytes:
    """A picture, squeezed to a square as the model sees it, as the bytes of a PNG."""
    buffer = io.BytesIO()
    image.resize((side, side), Image.Resampling.LANCZOS, reducing_gap=3).save(buffer, "PNG")
    return buffer.getvalue()


def data_url(content: bytes) -> str:
    """A PNG as an address that carries it."""
    return "data:image/png;base64," + base64.b64encode(content).decode()


def overlay_png(view: View, side: int = SIDE) -> bytes:
    """The map over the face as the bytes of a PNG."""
    fig = Figure(figsize=(side / 100, side / 100), layout="none")
    attention_overlay(view.image, view.heat, fig.add_axes((0, 0, 1, 1)))
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=200)
    return buffer.getvalue()


def box(kind: str, text: str) -> str:
    """Text in a box of a kind of `STYLE`: error, notice, quiet, title."""
    return f'<div class="expvqa expvqa-{kind}">{escape(text)}</div>' if text else ""


def answer_html(view: View | None) -> str:
    """The answer, and below it what was sampled, the most frequent first; nothing where there is none."""
    if view is None:
        return ""
    several = "".join(f"<div>{n} × {escape(text)}</div>" for text, n in Counter(view.samples).most_common())
    sampled = (
        f'<div class="expvqa-quiet" style="margin-top:4px">{len(view.samples)} sampled: {several}</div>'
        if several
        else ""
    )
    return f'<div class="expvqa"><div class="expvqa-answer">{escape(view.told)}</div>{sampled}</div>'


WHISKERS = (
    "Bars: mean P(yes) over the three wordings of the question; whiskers: from the lowest to the highest."
)


def bars_html(
    aus: Sequence[int], chances: pd.Series | None, asked: int | None, spread: pd.DataFrame | None = None
) -> str:
    """A row an AU, `ROW` px high: number, noun, and P(yes) as a bar, dark from one half up, with a whisker where its `spread` is known."""
    rows = []
    for au in aus:
        unit = ACTION_UNITS[au]
        value = None if chances is None else float(chances[unit.name])
        colour = COLOURS["exp_vqa" if value is not None and value >= 0.5 else "exp_vqa_fz"]
        bar = (
            ""
            if value is None
            else f'<div class="bar" style="width:{100 * value:.0f}%;background:{colour}"></div>'
        )
        if value is not None and spread is not None:
            low, high = spread.loc[unit.name, ["low", "high"]]
            bar += f'<div class="whisker" style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%" title="{low:.2f} to {high:.2f}"></div>'
        rows.append(
            f'<div class="expvqa-row{" expvqa-asked" if au == asked else ""}" title="{unit.name} {unit.noun}">'
            f'<span class="au">{unit.name}</span><span class="noun">{unit.noun}</span>'
            f'<div class="track">{bar}</div><span class="value">{"" if value is None else f"{value:.2f}"}</span></div>'
        )
    note = (
        f'<div class="expvqa-quiet" style="width:308px;font-size:11px">{WHISKERS}</div>'
        if spread is not None
        else ""
    )
    return f'<div class="expvqa">{"".join(rows)}{note}</div>'


def history_html(past: Sequence[View]) -> str:
    """What was asked, the newest first."""
    rows = [
        f'<div class="expvqa-past"><img src="{data_url(png(view.image, 40))}"><div><b>{escape(view.told)}</b><br>'
        f'<span class="expvqa-quiet">{escape(view.question)} · {escape(view.source)}</span></div></div>'
        for view in reversed(past)
    ]
    return f'<div class="expvqa expvqa-history">{"".join(rows) or "<span class=expvqa-quiet>Nothing yet.</span>"}</div>'


@styled
def figure(view: View) -> Figure:
    """The view as a figure of a page's width: face, map, question, answer, samples, and P(yes) of the AUs."""
    fig = Figure(figsize=(7, 4.2), layout="none")
    plain = {"parse_math": False, "va": "top"}  # a dollar sign is a dollar sign
    for left, title in (
        (0.02, view.source),
        (0.29, f"Where it looked for “{view.word}”" if view.heat is not None else ""),
    ):
        ax = fig.add_axes((left, 0.5, 0.25, 0.25 * 7 / 4.2))
        ax.axis("off")
        fig.text(left, 0.97, textwrap.shorten(title, 34, placeholder=" …"), fontsize=7, **plain)
        if left < 0.1:
            ax.imshow(view.image.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
        elif view.heat is not None:
            attention_overlay(view.image, view.heat, ax)
            fig.text(left, 0.94, view.method.replace("_", " "), fontsize=6, color="#666666", **plain)
    lines = [(line, "bold") for line in textwrap.wrap(view.question, 62)[:4]] + [
        (line, "normal") for line in textwrap.wrap(view.told, 62)[:6]
    ]
    sampled = [f"{n} × {text}" for text, n in Counter(view.samples).most_common(4)]
    lines += [(textwrap.shorten(text, 66, placeholder=" …"), "light") for text in sampled]
    for n, (text, weight) in enumerate(lines):
        fig.text(
            0.02,
            0.47 - 0.036 * n,
            text,
            fontsize=7.5,
            color="#666666" if weight == "light" else "#222222",
            fontweight=weight,
            **plain,
        )
    if view.aus is not None:
        ax = fig.add_axes((0.79, 0.1, 0.19, 0.86))
        names = [f"{name} {ACTION_UNITS[int(name[2:])].noun}" for name in view.aus.index]
        ax.barh(
            names,
            view.aus,
            color=[COLOURS["exp_vqa" if value >= 0.5 else "exp_vqa_fz"] for value in view.aus],
        )
        if view.spread is not None:
            error = np.stack([view.aus - view.spread["low"], view.spread["high"] - view.aus]).clip(min=0)
            ax.errorbar(
                view.aus,
                names,
                xerr=error,
                fmt="none",
                ecolor="#222222",
                elinewidth=0.8,
                capsize=1.5,
                capthick=0.8,
            )
        ax.set(
            xlim=(0, 1),
            xlabel="P(yes)" if view.spread is None else "P(yes), and its range\nover three wordings",
        )
        ax.invert_yaxis()
        ax.tick_params(labelsize=6)
        ax.margins(y=0.01)
    return fig


def figure_png(view: View) -> bytes:
    """`figure` as the bytes of a PNG."""
    return figure(view)._repr_png_()
