"""The published tables hold together, and the package's vocabulary is theirs."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from expvqa_lib import facs
from expvqa_lib.evaluation import published

TABLES = {f"suppl T{n}": f"suppl. table {n}" for n in range(2, 9)}
TABLES |= {"main T3": "table 3", "main T4": "table 4"}
TABLES |= {"main T3": "table 3", "main T4": "table 4"}
QUICK = SimpleNamespace(is_rendered=True, au_corpus="synth_lab", profile=SimpleNamespace(name="quick"))


def test_recomputed_averages_are_the_printed_ones_and_agree_with_the_check_table():
    check = published.load("exp_blip_average_check")
    models = check["model"].str.replace("fine-tuned", "fine-tune")
    check = check.assign(source="Exp-BLIP " + check["table"].map(TABLES), model=models)
    keys, ours = ["source", "dataset", "metric", "model"], published.recomputed_averages()
    both = ours.merge(check, on=keys, suffixes=("", "_check"), validate="one_to_one")
    assert len(both) == len(check) == len(ours) == 112
    assert (both["aus"] == both["aus_check"]).all() and np.allclose(both["printed"], both["printed_avg"])
    assert np.allclose(both["recomputed"], both["recomputed_avg"], atol=0.0051)
    assert (ours["printed"] - ours["recomputed"]).abs().max() < 0.065


def test_the_vocabulary_is_the_published_one():
    phrases = published.load("au_descriptions").itertuples(index=False)
    ours = {unit.number: (unit.noun, unit.verb) for unit in facs.ACTION_UNITS.values()}
    assert ours == {row.au: (row.noun_form, row.verb_form) for row in phrases}
    label_set = published.load("datasets").set_index("dataset")["label_set"]["BP4D"]
    assert label_set.split() == [facs.au_column(number) for number in facs.BP4D_AUS]


def test_au_f1_lists_every_system_once_with_its_source():
    targets = [facs.au_column(number) for number in facs.BP4D_AUS]
    table = published.au_f1("BP4D", targets)
    assert list(table) == ["source", "protocol", "model", "evidence", *targets, "average"]
    assert not table.duplicated(["source", "protocol", "model"]).any() and table["source"].notna().all()
    anchors = published.load("anchors_au_detection").query("dataset == 'BP4D' and metric == 'f1_percent'")
    systems = anchors["system"][anchors["target"].isin(targets)]
    assert set(systems[~systems.str.startswith(("Exp-BLIP", "FaRL"))]) <= set(table["model"])
    best = table.set_index(["source", "model"]).loc[("Exp-BLIP table 3", "QFormer(AU)")]
    assert best["AU12"] == 90.8 and round(best["average"], 1) == 66.6


def test_a_runs_rows_stand_below_the_published_ones_and_say_what_they_are():
    rows = [("exp_vqa", "AU1", "f1", 80.0), ("exp_vqa", "macro", "f1", 75.0), ("exp_vqa", "AU1", "auc", 90.0)]
    table = published.paper_table(QUICK, pd.DataFrame(rows, columns=["model", "target", "metric", "value"]))
    ours = table.iloc[-1]
    assert ours[["source", "AU1", "average"]].tolist() == ["this run", 80.0, 75.0]
    assert "not comparable" in ours["data"] and table["source"].notna().all()
    layout = pd.DataFrame({"Model": ["Base"], "Features": ["Q-Former"], "AU1": [60.0], "Average": [60.0]})
    probes = published.probes_beside_published(QUICK, layout)
    assert (
        probes["Model"].iat[-1] == "Base, Q-Former" and (probes["Source"] == "Exp-BLIP table 3").sum() == 14
    )
