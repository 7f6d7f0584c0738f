"""A result table for a paper: CSV to compute with, Markdown to read, LaTeX (booktabs) to print, the best values bold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import SettingsError
from ..files import atomic

SUFFIXES = (".csv", ".md", ".tex")
_WITH_INTERVAL = re.compile(r"(-?\d+(?:\.\d+)?) \[.*\]")


def export(
    table: pd.DataFrame,
    path_stem: str | Path,
    *,
    best: str | None = "column",
    lower: Sequence[str] = (),
    within: str | None = None,
    digits: int = 1,
    note: str | None = None,
) -> list[Path]:
    """Write `<path_stem>.csv`, `.md` and `.tex`; the LaTeX needs `\\usepackage{booktabs}` and stands in a table environment of your own.

    Args:
        table: to be read; an index that is not just numbers becomes the first column. Floats and texts like `71.3 [66.0, 75.2]`
            compete, whole numbers (counts) do not.
        best: what is bold: the best of each `column` (a row a model), of each `row` (a column a model), or nothing where None. Values
            that print alike are all best.
        lower: columns in which less is better; with `row`, the rows so named in the first column.
        within: a column; only rows that share its value compete (data sets that differ, say).
        digits: of numbers in Markdown and LaTeX; CSV has four.
        note: stands below the table in Markdown and LaTeX: what differs, where it comes from.

    Raises:
        SettingsError: `best` is another word, or a column of `within` is not there.
        ExpVQAError: the folder cannot be written to.
    """
    if best not in ("column", "row", None):
        raise SettingsError(f"best={best!r}: expected 'column', 'row' or None")
    if within is not None and within not in table:
        raise SettingsError(
            f"within={within!r}: no such column; the table has {', '.join(map(str, table.columns))}"
        )
    if not isinstance(table.index, pd.RangeIndex):
        table = table.rename_axis(index=table.index.name or "").reset_index()
    table = table.rename(columns=str)
    texts = table.map(lambda value: _text(value, digits)).astype(object)  # of an empty table, too
    bold = pd.DataFrame(False, table.index, table.columns)
    if best:
        bold = _best(table.map(lambda value: _number(value, digits)), table, best, lower, within)
    content = {
        ".csv": table.to_csv(index=False, float_format="%.4f"),
        ".md": _markdown(texts, bold, note),
        ".tex": _latex(texts, bold, note),
    }
    paths = [Path(f"{path_stem}{suffix}") for suffix in SUFFIXES]
    for path in paths:
        with atomic(path) as temporary:
            temporary.write_text(content[path.suffix], encoding="utf-8")
    return paths


def _text(value: object, digits: int) -> str:
    if pd.isna(value):
        return "-"
    return f"{value:.{digits}f}" if isinstance(value, float | np.floating) else str(value)


def _number(value: object, digits: int) -> float:
    """The number that competes, as printed; NaN where there is none."""
    if isinstance(value, str):
        found = _WITH_INTERVAL.fullmatch(value)
        return float(found[1]) if found else np.nan
    return round(float(value), digits) if isinstance(value, float | np.floating) else np.nan


def _best(
    numbers: pd.DataFrame, table: pd.DataFrame, best: str, lower: Sequence[str], within: str | None
) -> pd.DataFrame:
    if best == "row":
        sign = np.where(table.iloc[:, 0].isin(list(lower)), -1.0, 1.0)
        signed = numbers.mul(sign, axis=0)
        return signed.eq(signed.max(axis=1), axis=0)
    signed = numbers.mul([-1.0 if column in lower else 1.0 for column in numbers])
    groups = table[within] if within is not None else pd.Series(0, table.index)
    return signed.eq(signed.groupby(groups, dropna=False).transform("max"))


def _markdown(texts: pd.DataFrame, bold: pd.DataFrame, note: str | None) -> str:
    shown = texts.map(lambda text: text.replace("|", "\\|").replace("\n", " "))
    shown = shown.mask(bold, "**" + shown + "**")
    rows = [list(shown.columns), ["---"] * shown.shape[1], *shown.to_numpy().tolist()]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines + (["", note] if note else [])) + "\n"


def _latex(texts: pd.DataFrame, bold: pd.DataFrame, note: str | None) -> str:
    style = texts.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
    style = style.apply(lambda _: bold.map({True: "textbf:--rwrap", False: ""}.get), axis=None)
    text = style.to_latex(hrules=True, column_format="l" + "r" * (texts.shape[1] - 1))
    if note:
        text += f"\n\\par\\smallskip{{\\footnotesize {_escaped(note)}}}\n"
    return text


def _escaped(text: str) -> str:
    """As pandas escapes cells."""
    return re.sub(r"[&%$#_{}]", r"\\\g<0>", text.replace("\\", r"\textbackslash ")).replace(
        "~", r"\textasciitilde "
    )
