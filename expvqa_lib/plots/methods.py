"""Charts of attention methods and their controls side by side, from the table of `attention.faithfulness`."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd

from ..evaluation.tables import MAIN, metric_rows, ordered_targets
from .charts import forest
from .style import INK, PAGE, Figure, heat_map, nothing_to_show, percent_axis, styled

_CURVES = {
    "deletion": "most relevant patches, blurred (%)",
    "insertion": "most relevant patches, alone sharp (%)",
}


@styled
def method_heat(table: pd.DataFrame, metric: str, label: str) -> Figure:
    """Draw a metric of `attention.faithfulness` as squares: a row a method or control, a column an AU or the
    mean.

    Of the model with permuted weights only the first method is drawn.
    """
    if table.empty:
        return nothing_to_show()
    rows = metric_rows(_compared(table), metric)
    wide = rows.pivot(index="name", columns="target", values="value")
    wide = wide.reindex(index=rows["name"].unique(), columns=ordered_targets(rows["target"]))
    fig = Figure(figsize=(PAGE, 0.6 + 0.3 * len(wide)))
    ax = fig.add_subplot()
    heat_map(ax, wide.rename(columns=lambda name: name.removeprefix("AU")), label)
    ax.set_xlabel("action unit")
    return fig


@styled
def method_curves(table: pd.DataFrame) -> Figure:
    """Draw the mean P(yes) over the share of patches blurred (left) and shown (right), a line a method or
    control.

    The first method of the table stands out; of the model with permuted weights only it is drawn.
    """
    if table.empty:
        return nothing_to_show()
    rows = _compared(table)
    rows, names = rows[rows["target"] == "macro"], rows["name"].unique()
    colours = mpl.colormaps["tab10"].colors
    fig = Figure(figsize=(PAGE, 2.9))
    for ax, (kind, label) in zip(fig.subplots(1, 2, sharey=True), _CURVES.items(), strict=True):
        of_kind = rows[rows["metric"].str.startswith(f"{kind}_")]
        shares = [metric.removeprefix(f"{kind}_") for metric in of_kind["metric"].unique()]
        for k, name in enumerate(names):
            style = (
                {"color": INK, "linewidth": 2.2, "zorder": 3}
                if k == 0
                else {"color": colours[k], "linewidth": 1}
            )
            style["linestyle"] = (
                "--" if name.endswith("permuted weights") or name in ("uniform", "centre") else "-"
            )
            ax.plot(of_kind.loc[of_kind["name"] == name, "value"].to_numpy(), label=name, **style)
        ax.set_xticks(range(len(shares)), [f"{float(share):.0f}" for share in shares])
        percent_axis(ax, "P(yes) (%)" if kind == "deletion" else "")
        ax.set_xlabel(label)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside right center")
    return fig


def method_forest(table: pd.DataFrame, metric: str, title: str, label: str) -> Figure:
    """Draw a metric of `attention.faithfulness`, mean over AUs: a row a method, a dot a model."""
    if table.empty:
        return nothing_to_show()
    rows = metric_rows(table[table["target"] == "macro"], metric)
    return forest(rows.assign(target=rows["method"].str.replace("_", " ")), title, label)


def _compared(table: pd.DataFrame) -> pd.DataFrame:
    """Every method and control of the model and the first with permuted weights, with their `name`."""
    rows = table[(table["model"] == MAIN) | (table["method"] == table["method"].iat[0])]
    permuted = np.where(rows["model"] == MAIN, "", ", permuted weights")
    return rows.assign(name=rows["method"].str.replace("_", " ") + permuted)
