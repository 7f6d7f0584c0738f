"""The published tables hold together, and the package's vocabulary is theirs."""

import numpy as np
import pandas as pd
import pytest

from expvqa_lib import facs
from expvqa_lib.errors import SettingsError, TableError
from expvqa_lib.evaluation import published

TABLES = {
    "main T3": "table 3",
    "main T4": "table 4",
    **{f"suppl T{n}": f"suppl. table {n}" for n in range(2, 9)},
}


@pytest.mark.parametrize("name", published.NAMES)
def test_every_published_table_loads_without_wholly_empty_rows(name):
    table = published.load(name)
    assert len(table) and not table.isna().all(axis=1).any()


def test_an_unknown_table_names_the_known_ones():
    with pytest.raises(SettingsError, match="'table9' is unknown.*au_captioning.*visual_representation"):
        published.load("table9")


def test_printed_averages_are_the_means_of_their_printed_cells():
    ours = published.recomputed_averages()
    assert len(ours) == 112
    assert (ours.printed - ours.recomputed).abs().max() < 0.065


def test_recomputed_averages_agree_with_the_check_table():
    check = published.load("exp_blip_average_check")
    check = check.assign(
        source="Exp-BLIP " + check.table.map(TABLES), model=check.model.str.replace("fine-tuned", "fine-tune")
    )
    keys = ["source", "dataset", "metric", "model"]
    both = published.recomputed_averages().merge(
        check, on=keys, suffixes=("", "_check"), validate="one_to_one"
    )
    assert len(both) == len(check) == 112
    assert (both.aus == both.aus_check).all() and np.allclose(both.printed, both.printed_avg)
    assert np.allclose(both.recomputed, both.recomputed_avg, atol=0.0051)


def test_the_vocabulary_is_the_published_one():
    published_phrases = published.load("au_descriptions").itertuples(index=False)
    ours = {unit.number: (unit.noun, unit.verb) for unit in facs.ACTION_UNITS.values()}
    assert ours == {row.au: (row.noun_form, row.verb_form) for row in published_phrases}


def test_bp4d_aus_are_those_of_the_data_set_table():
    label_set = published.load("datasets").set_index("dataset").label_set["BP4D"]
    assert label_set.split() == [facs.au_column(number) for number in facs.BP4D_AUS]


def test_au_f1_lists_every_system_once_with_its_source():
    table = published.au_f1("BP4D")
    assert (
        list(table.columns[:4]) == ["source", "protocol", "model", "evidence"]
        and table.columns[-1] == "average"
    )
    assert not table.duplicated(["source", "protocol", "model"]).any() and table.source.notna().all()
    anchors = published.load("anchors_au_detection").query("dataset == 'BP4D' and metric == 'f1_percent'")
    others = set(anchors.system[~anchors.system.str.startswith(("Exp-BLIP", "FaRL"))])
    assert others <= set(table.model)
    best = table.set_index(["source", "model"]).loc[("Exp-BLIP table 3", "QFormer(AU)")]
    assert best["AU12"] == 90.8 and best["average"] == 66.6


def test_au_f1_of_chosen_targets_averages_exactly_those():
    table = published.au_f1("RAF-AU", targets=["AU1", "AU12"])
    assert list(table.columns[4:]) == ["AU1", "AU12", "average"]
    pd.testing.assert_series_equal(table.average, (table.AU1 + table.AU12) / 2, check_names=False)


def test_representation_tables_keep_every_row():
    for dataset, rows in (
        ("BP4D", 14 + 12 + 12 + 11),
        ("AffectNet", 14 + 12 + 12 + 11),
        ("RAF-AU", 14 + 12 + 12 + 11 + 14 + 13),
    ):
        assert len(published.representation_table(dataset)) == rows
    with pytest.raises(TableError, match="'CK\\+'"):
        published.representation_table("CK+")


class Quick:
    """What the tables need of a run."""

    is_drawn, au_corpus = True, "synth_lab"

    class profile:
        name = "quick"


def test_a_runs_rows_stand_below_the_published_ones_and_say_what_they_are():
    rows = [("exp_vqa", "AU1", "f1", 80.0), ("exp_vqa", "macro", "f1", 75.0), ("exp_vqa", "AU1", "auc", 90.0)]
    table = published.paper_table(Quick, pd.DataFrame(rows, columns=["model", "target", "metric", "value"]))
    ours = table[table["source"] == "this run"]
    assert ours.index.tolist() == [len(table) - 1] and ours[["AU1", "average"]].iloc[0].tolist() == [
        80.0,
        75.0,
    ]
    assert "not comparable" in ours["data"].iat[0] and table["source"].notna().all()


def test_a_runs_probes_stand_below_exp_blips():
    layout = pd.DataFrame({"Model": ["Base"], "Features": ["Q-Former"], "AU1": [60.0], "Average": [60.0]})
    table = published.probes_beside_published(Quick, layout)
    assert table["Model"].iat[-1] == "Base, Q-Former" and (table["Source"] == "Exp-BLIP table 3").sum() > 3
    assert published.exp_blip_probes().notna().any().all()
