"""Charts of attention methods and their controls side by side, from the table of `faithfulness`."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd

from ..evaluation.tables import metric_rows, ordered_targets
from .charts import INK, PAGE, Figure, heat, percent_axis, styled

_CURVES = {
    "deletion": "most relevant patches, blurred (%)",
    "insertion": "most relevant patches, alone sharp (%)",
}


@styled
def method_heat(table: pd.DataFrame, metric: str, label: str) -> Figure:
    """Draw a metric of `faithfulness` as squares: a row each method and control, a column each AU and their mean.

    Args:
        table: columns model, method, target, metric, value (percent).
        label: of the values, with their unit.
    """
    rows = metric_rows(table, metric)
    wide = rows.assign(row=_method_names(rows)).pivot(index="row", columns="target", values="value")
    wide = wide.reindex(index=dict.fromkeys(_method_names(rows)), columns=ordered_targets(rows["target"]))
    fig = Figure(figsize=(PAGE, 0.6 + 0.3 * len(wide)))
    ax = fig.add_subplot()
    heat(fig, ax, wide.to_numpy(float), label)
    ax.set_xticks(range(len(wide.columns)), [name.removeprefix("AU") for name in wide.columns])
    ax.set_yticks(range(len(wide)), wide.index)
    ax.set_xlabel("action unit")
    return fig


@styled
def method_curves(table: pd.DataFrame, first: str) -> Figure:
    """Draw the mean P(yes) over the share of patches blurred (left) and shown (right), a line each method and control.

    Args:
        table: columns model, method, target, metric (`deletion_25` is P(yes) with 25 % blurred), value (percent).
        first: the method to stand out.
    """
    fig = Figure(figsize=(PAGE, 2.9))
    macro = table[table["target"] == "macro"]
    names, colours = dict.fromkeys(_method_names(macro)), mpl.colormaps["tab20"].colors
    palette = dict(zip(names, colours[::2] + colours[1::2], strict=False))
    for ax, (kind, label) in zip(fig.subplots(1, 2, sharey=True), _CURVES.items(), strict=True):
        of_kind = macro[macro["metric"].str.startswith(f"{kind}_")]
        shares = [metric.removeprefix(f"{kind}_") for metric in dict.fromkeys(of_kind["metric"])]
        for name, rows in of_kind.groupby(_method_names(of_kind), sort=False):
            look = (
                {"color": INK, "linewidth": 2.2, "zorder": 3}
                if name == _spaced(first)
                else {"color": palette[name], "linewidth": 1}
            )
            control = name.endswith("permuted weights") or name in ("uniform", "centre")
            ax.plot(rows["value"].to_numpy(), label=name, linestyle="--" if control else "-", **look)
        ax.set_xticks(range(len(shares)), [f"{float(share):.0f}" for share in shares])
        percent_axis(ax, "P(yes) (%)" if kind == "deletion" else "")
        ax.set_xlabel(label)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside right center")
    return fig


def _method_names(table: pd.DataFrame) -> pd.Series:
    """A method's name, and that the model's weights are permuted where they are."""
    return (
        table["method"] + np.where(table["model"].str.endswith("_randomised"), ", permuted weights", "")
    ).map(_spaced)


def _spaced(name: str) -> str:
    return name.replace("_", " ")
