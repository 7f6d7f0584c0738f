"""Numbers, settings and data sets as published for Exp-VQA, its ancestor Exp-BLIP and other systems, each row with its source.

The body of the Exp-VQA article could not be obtained: its own result tables are absent here, not forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..errors import SettingsError, TableError
from ..facs import BP4D_AUS, au_column
from .tables import NAMES as MODEL_NAMES

FOLDER = Path(__file__).parents[1] / "assets" / "published"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.csv")))
_AVERAGES = ("Avg", "AU", "12 AUs")  # how tables call the mean over their AUs


def load(name: str) -> pd.DataFrame:
    """Return one published table by its file name without `.csv`, as printed; `published.NAMES` lists them.

    Raises:
        SettingsError: there is no such table.
    """
    if name not in NAMES:
        raise SettingsError(f"published table {name!r} is unknown; known are {', '.join(NAMES)}")
    return pd.read_csv(FOLDER / f"{name}.csv")


def au_f1(dataset: str, targets: Sequence[str] | None = None) -> pd.DataFrame:
    """Return every published F1 on `dataset` (percent), one row a model, one column an AU.

    Args:
        dataset: a data set's name as printed: `BP4D`, `DISFA`, `RAF-AU` ...
        targets: AU columns to show, `AU12`; by default those that any row has.

    Returns:
        Columns source, protocol, model, evidence (own report, quoted or secondary), the AUs (NaN where not published) and
        `average`: as printed, over the AUs of the row's own table; or, with `targets`, recomputed over exactly those, NaN where
        one is missing. Protocols differ: compare rows only with a look at that column.

    Raises:
        TableError: no table has F1 on this data set.
    """
    own = load("visual_representation").assign(evidence="own report or comparison by Exp-BLIP")
    others = load("anchors_au_detection").rename(columns={"system": "model"})
    # Exp-BLIP's own tables, once more: leave those rows out
    repeated = others.model.str.startswith(
        ("Exp-BLIP QFormer", "Exp-BLIP ViT")
    ) | others.evidence.str.endswith("by Exp-BLIP")
    rows = pd.concat([own, others[~repeated]])
    rows = rows[(rows.dataset == dataset) & (rows.metric == "f1_percent")]
    table = _wide(rows, ["source", "protocol", "model", "evidence"], dataset)
    if targets is None:
        return table
    table = table.reindex(columns=["source", "protocol", "model", "evidence", *targets])
    table = table[table[list(targets)].notna().any(axis=1)].reset_index(drop=True)
    return table.assign(average=table[list(targets)].mean(axis=1, skipna=False))


def representation_table(dataset: str) -> pd.DataFrame:
    """Return Exp-BLIP's tests of visual features on BP4D, RAF-AU (per AU) or AffectNet (emotion), in percent, as printed.

    Returns:
        Columns source, protocol, metric, model, then the AUs and `average`, or `Emotion` (Exp-BLIP tables 3, 4, supplement 2-8).

    Raises:
        TableError: the tables have no such data set.
    """
    rows = load("visual_representation")
    return _wide(rows[rows.dataset == dataset], ["source", "protocol", "metric", "model"], dataset)


def recomputed_averages() -> pd.DataFrame:
    """Return each printed average of Exp-BLIP beside the mean of its printed cells.

    Returns:
        Columns source, dataset, metric, model, aus (how many cells), printed, recomputed; percent.
    """
    rows = load("visual_representation")
    keys = ["source", "dataset", "metric", "model"]
    cells = (
        rows[rows.target.str.startswith("AU")]
        .groupby(keys, sort=False)["value"]
        .agg(aus="size", recomputed="mean")
    )
    printed = rows[rows.target == "Avg"].set_index(keys)["value"].rename("printed")
    table = cells.join(printed, how="inner").reset_index()
    return table[[*keys, "aus", "printed", "recomputed"]]


def _wide(rows: pd.DataFrame, keys: list[str], dataset: str) -> pd.DataFrame:
    if rows.empty:
        raise TableError(
            f"nothing is published for the data set {dataset!r} here; see published.load('datasets') for the names"
        )
    rows = rows.assign(target=rows.target.where(~rows.target.isin(_AVERAGES), "average"))
    table = rows.pivot_table(index=keys, columns="target", values="value", sort=False).reset_index()
    aus = sorted((c for c in table if c.startswith("AU")), key=lambda name: int(name[2:]))
    rest = [c for c in table if c not in keys and c not in aus]
    return table[[*keys, *aus, *rest]].rename_axis(columns=None)


def exp_blip_probes() -> pd.DataFrame:
    """Return Exp-BLIP's linear probes (tables 3 and 4) in percent: a row a model, columns data set, metric, source."""
    averages = {"BP4D": "average", "RAF-AU": "average", "AffectNet": "Emotion"}
    tables = []
    for dataset, column in averages.items():
        rows = representation_table(dataset).rename(columns={column: "value"}).assign(dataset=dataset)
        tables.append(rows[rows["source"].isin(["Exp-BLIP table 3", "Exp-BLIP table 4"])])
    rows = pd.concat(tables)
    rows = rows[rows["metric"].isin(["f1_percent", "accuracy_percent"])].dropna(subset="value")
    return rows.pivot_table("value", "model", ["dataset", "metric", "source"], sort=False)


def paper_table(run, detection: pd.DataFrame) -> pd.DataFrame:
    """Put the F1 of a run's models (percent) below every published one on BP4D: a row a model, a column an AU.

    Args:
        run: a `pipeline.Run`.
        detection: `evaluation.au_detection` of the run.
    """
    aus = [au_column(number) for number in BP4D_AUS]
    published = au_f1("BP4D", aus).sort_values("average", ascending=False)
    f1 = detection[detection["metric"] == "f1"].pivot(index="model", columns="target", values="value")
    ours = f1.reindex([name for name in MODEL_NAMES if name in f1.index]).rename(columns={"macro": "average"})
    ours = (
        ours.reindex(columns=[*aus, "average"]).rename(index=MODEL_NAMES).rename_axis("model").reset_index()
    )
    rendered = ", rendered faces: not comparable" if run.is_drawn else ""
    ours["data"] = f"{run.au_corpus}{rendered} (profile {run.profile.name})"
    ours = ours.assign(protocol="unseen people", source="this run", evidence="measured here")
    table = pd.concat([published.assign(data="BP4D, video of people"), ours], ignore_index=True)
    return table[["data", "model", "protocol", *aus, "average", "source", "evidence"]]


def probes_beside_published(run, layout: pd.DataFrame) -> pd.DataFrame:
    """Put a run's linear probes (F1 in percent) below Exp-BLIP's on BP4D: a row a model and its features.

    Args:
        run: a `pipeline.Run`.
        layout: the probes in the paper's layout: Model, Features, the AUs, Average.
    """
    rows = representation_table("BP4D")
    rows = rows[(rows["source"] == "Exp-BLIP table 3") & (rows["metric"] == "f1_percent")]
    rows = rows.rename(columns={"model": "Model", "average": "Average", "source": "Source"})
    ours = layout.assign(Model=layout["Model"] + ", " + layout["Features"], Source="this run")
    ours["Data"] = run.au_corpus + (", rendered faces: not comparable" if run.is_drawn else "")
    table = pd.concat([rows.assign(Data="BP4D, video of people"), ours], ignore_index=True)
    aus = [name for name in layout if name.startswith("AU")]
    return table.reindex(columns=["Data", "Model", *aus, "Average", "Source"])
