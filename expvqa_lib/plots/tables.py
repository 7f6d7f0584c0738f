"""A result table as CSV to compute with, Markdown to read and LaTeX (booktabs) to print."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..files import atomic, markdown

_WITH_INTERVAL = re.compile(r"(-?\d+(?:\.\d+)?) \[.*\]")
_FLOAT = float | np.floating
_WIDE = 8  # columns that fit a printed page


def export(
    table: pd.DataFrame,
    path_stem: str | Path,
    *,
    best: str | None = "column",
    lower: Sequence[str] = (),
    within: str | None = None,
    note: str | None = None,
) -> None:
    """Write `<path_stem>.csv`, `.md` and `.tex`; the LaTeX needs the packages booktabs and graphicx.

    Args:
        table: an index that is not just numbers becomes the first column. Floats and texts such as
            `71.3 [66.0, 75.2]` compete, whole numbers (counts) do not.
        best: what is bold: the best of each `column` (a row a model), the highest of each `row` (a column a
            model), or nothing where None. Values that print alike are all best.
        lower: columns in which less is better.
        within: a column; only rows that share its value compete (data sets that differ, say).
        note: below the table in Markdown, a comment in LaTeX: what differs, where it comes from.

    Raises:
        ExpVQAError: the folder cannot be written to.
    """
    if not isinstance(table.index, pd.RangeIndex):
        table = table.reset_index(names=[name or "" for name in table.index.names])
    table = table.rename(columns=str)
    texts = table.map(lambda cell: f"{cell:.1f}" if isinstance(cell, _FLOAT) else str(cell))
    texts, bold = texts.astype(object).where(table.notna(), "-"), _best(table, best, lower, within)
    content = {
        ".csv": table.to_csv(index=False, float_format="%.4f"),
        ".md": _markdown(texts, bold, note),
        ".tex": _latex(texts, bold, note),
    }
    for suffix, text in content.items():
        with atomic(Path(f"{path_stem}{suffix}")) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _number(value: object) -> float:
    """The number that competes, as printed; NaN where there is none."""
    if isinstance(value, str) and (found := _WITH_INTERVAL.fullmatch(value)):
        return float(found[1])
    return round(float(value), 1) if isinstance(value, _FLOAT) else np.nan


def _best(table: pd.DataFrame, best: str | None, lower: Sequence[str], within: str | None) -> pd.DataFrame:
    numbers = table.map(_number if best else lambda _: np.nan).astype(float)
    if best == "row":
        return numbers.eq(numbers.max(axis=1), axis=0)
    signed = numbers.mul([-1 if column in lower else 1 for column in numbers])
    groups = table[within] if within else np.zeros(len(table))
    return signed.eq(signed.groupby(groups, dropna=False).transform("max"))


def _markdown(texts: pd.DataFrame, bold: pd.DataFrame, note: str | None) -> str:
    return markdown(texts.mask(bold, "**" + texts + "**")) + (f"\n\n{note}\n" if note else "\n")


def _latex(texts: pd.DataFrame, bold: pd.DataFrame, note: str | None) -> str:
    """A tabular, scaled to the line where it is wide."""
    style = texts.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
    style.apply(lambda _: bold.map({True: "textbf:--rwrap", False: ""}.get), axis=None)
    text = style.to_latex(hrules=True, column_format="l" + "r" * (texts.shape[1] - 1))
    if texts.shape[1] > _WIDE:
        text = f"\\resizebox{{\\linewidth}}{{!}}{{%\n{text}}}\n"
    return f"% {note}\n{text}" if note else text
