"""Numbers as published for Exp-VQA, its ancestor Exp-BLIP and other systems, each row with its source.

The body of the Exp-VQA article could not be obtained: its own result tables are absent here, not forgotten.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..facs import BP4D_AUS, au_column
from .tables import NAMES, ordered_models

FOLDER = Path(__file__).parents[1] / "assets" / "published"
BP4D = tuple(au_column(number) for number in BP4D_AUS)


def load(name: str) -> pd.DataFrame:
    """Return one published table, as printed, by its file name in `FOLDER` without `.csv`."""
    return pd.read_csv(FOLDER / f"{name}.csv")


def au_f1(dataset: str, targets: Sequence[str] = BP4D) -> pd.DataFrame:
    """Return every published F1 on `dataset` (percent), one row a model, one column an AU of `targets`.

    Returns:
        Columns source, protocol, model, evidence (own report, quoted or secondary), the AUs (NaN where not
        published) and `average` over those, NaN where one is missing. Compare rows of one protocol only.
    """
    own = load("visual_representation").assign(evidence="own report or comparison by Exp-BLIP")
    others = load("anchors_au_detection").rename(columns={"system": "model"})
    # rows of Exp-BLIP's own tables stand in both files
    repeated = others.model.str.startswith(("Exp-BLIP QFormer", "Exp-BLIP ViT"))
    rows = pd.concat([own, others[~repeated & ~others.evidence.str.endswith("by Exp-BLIP")]])
    rows = rows[(rows.dataset == dataset) & (rows.metric == "f1_percent") & rows.target.isin(targets)]
    keys = ["source", "protocol", "model", "evidence"]
    table = rows.pivot_table("value", keys, "target", sort=False).reset_index()
    table = table.reindex(columns=[*keys, *targets]).rename_axis(columns=None)
    return table.assign(average=sum(table[target] for target in targets) / len(targets))


def exp_blip_probes() -> pd.DataFrame:
    """Return Exp-BLIP's linear probes (percent): a row a model, columns data set, metric, source."""
    rows = load("visual_representation").query(
        "source in ['Exp-BLIP table 3', 'Exp-BLIP table 4'] and target in ['Avg', 'Emotion']"
        " and metric in ['f1_percent', 'accuracy_percent']"
    )
    return rows.pivot_table("value", "model", ["dataset", "metric", "source"], sort=False)


def recomputed_averages() -> pd.DataFrame:
    """Return each printed average of Exp-BLIP beside the mean of its printed cells.

    Returns:
        Columns source, dataset, metric, model, aus (how many cells), printed, recomputed; percent.
    """
    rows = load("visual_representation")
    keys = ["source", "dataset", "metric", "model"]
    cells = rows[rows.target.str.startswith("AU")].groupby(keys, sort=False)["value"]
    printed = rows[rows.target == "Avg"].set_index(keys)["value"].rename("printed")
    table = cells.agg(aus="size", recomputed="mean").join(printed, how="inner").reset_index()
    return table[[*keys, "aus", "printed", "recomputed"]]


def paper_table(run, detection: pd.DataFrame) -> pd.DataFrame:
    """Put the F1 of a run's models (percent) below every published one on BP4D: a row a model, columns AUs.

    Args:
        run: a `pipeline.Run`.
        detection: `evaluation.au_detection` of the run.
    """
    published = au_f1("BP4D").sort_values("average", ascending=False)
    f1 = detection.query("metric == 'f1'").replace({"target": {"macro": "average"}})
    f1 = f1.pivot(index="model", columns="target", values="value").reindex(columns=[*BP4D, "average"])
    ours = f1.reindex(ordered_models(f1.index)).rename(index=NAMES).reset_index()
    data = f"{_data(run)} (profile {run.profile.name})"
    ours = ours.assign(data=data, protocol="unseen people", source="this run", evidence="measured here")
    table = pd.concat([published.assign(data="BP4D, video of people"), ours], ignore_index=True)
    return table[["data", "model", "protocol", *BP4D, "average", "source", "evidence"]]


def _data(run) -> str:
    return run.au_corpus + (", rendered faces: not comparable" if run.is_rendered else "")


def probes_beside_published(run, layout: pd.DataFrame) -> pd.DataFrame:
    """Put a run's linear probes (F1 in percent) below Exp-BLIP's on BP4D: a row a model and its features.

    Args:
        run: a `pipeline.Run`.
        layout: the probes in the paper's layout: Model, Features, the AUs, Average.
    """
    rows = load("visual_representation").query("source == 'Exp-BLIP table 3' and dataset == 'BP4D'")
    rows = rows.rename(columns={"model": "Model", "source": "Source"}).replace({"target": {"Avg": "Average"}})
    rows = rows.pivot_table("value", ["Source", "Model"], "target", sort=False).reset_index()
    ours = layout.assign(
        Model=layout["Model"] + ", " + layout["Features"], Source="this run", Data=_data(run)
    )
    table = pd.concat([rows.assign(Data="BP4D, video of people"), ours], ignore_index=True)
    return table[["Data", "Model", *layout.filter(regex="^AU"), "Average", "Source"]]
