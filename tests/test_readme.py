"""The README's numbers are those of the committed tables."""

from pathlib import Path

import pandas as pd

from expvqa_lib.attention import DEFAULT_METHOD
from expvqa_lib.evaluation import ablations, zero_shot
from expvqa_lib.evaluation.tables import summary, verdict

ROOT = Path(__file__).parent.parent


def test_the_results_table_is_the_one_computed_from_the_committed_figures():
    au, told = (pd.read_csv(ROOT / "figures" / f"{name}.csv") for name in ("au_detection", "captions"))
    assert summary(au, told) in (ROOT / "README.md").read_text()


def test_the_best_and_the_weakest_action_unit_are_those_of_the_committed_figures():
    au, pointed = (pd.read_csv(ROOT / "figures" / f"{name}.csv") for name in ("au_detection", "attention"))
    assert verdict(au, pointed) in " ".join((ROOT / "README.md").read_text().split())


def test_what_is_said_of_unseen_action_units_is_what_was_measured():
    table, gains = (
        pd.read_csv(ROOT / "figures" / f"{name}.csv") for name in ("zero_shot", "zero_shot_differences")
    )
    assert zero_shot.verdict(table, gains) in (ROOT / "README.md").read_text()


def test_the_table_of_ablations_is_the_committed_one():
    text, printed = ((ROOT / name).read_text() for name in ("README.md", "figures/ablation_table.md"))
    assert printed.split("\n\n")[0] in text
    assert ablations.verdict(pd.read_csv(ROOT / "figures" / "ablation.csv")) in " ".join(text.split())


def test_the_quick_models_card_tells_the_committed_figures():
    au = pd.read_csv(ROOT / "figures" / "au_detection.csv").set_index(["model", "target", "metric"])["value"]
    card = (ROOT / "expvqa_lib" / "assets" / "quick" / "README.md").read_text()
    assert (
        f"macro F1 {au['exp_vqa', 'macro', 'f1']:.1f}, AUC {au['exp_vqa', 'macro', 'auc']:.1f}"
        in " ".join(card.split())
    )


def test_every_figure_and_notebook_that_the_readme_shows_is_there():
    text = (ROOT / "README.md").read_text()
    places = [part.split(")")[0] for part in text.split("](")[1:]]
    local = [p for p in places if not p.startswith("http")]
    assert len(local) >= 8
    assert [p for p in local if not (ROOT / p).exists()] == []


def test_the_maps_that_are_shipped_point_into_the_action_units_regions():
    """At least 80 % of the peaks where the AU is detected, far above the controls; and the default is the method that does it best."""
    pointed, table = (pd.read_csv(ROOT / "figures" / f"{name}.csv") for name in ("attention", "faithfulness"))
    macro = pointed[(pointed["model"] == "exp_vqa") & (pointed["target"] == "macro")].set_index("metric")
    for detected, chance in (("pointing_detected", "chance"), ("pointing_detected_region", "chance_region")):
        assert macro["value"][detected] >= 80 and macro["low"][detected] > 10 * macro["high"][chance]
    scores = table[table["target"] == "macro"].set_index(["model", "method", "metric"])["value"]
    for metric in ("pointing_region", "energy"):
        assert scores["exp_vqa"].xs(metric, level="metric").idxmax() == DEFAULT_METHOD
        assert scores["exp_vqa_randomised", DEFAULT_METHOD, metric] < 20
