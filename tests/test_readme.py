"""The README and the quick model's card state the figures of the committed tables; links exist."""

import re
from pathlib import Path

import pandas as pd

from expvqa_lib.attention.methods import METHODS
from expvqa_lib.evaluation import results_table

ROOT = Path(__file__).parent.parent


def committed(name: str) -> pd.DataFrame:
    return pd.read_csv(ROOT / "figures" / f"{name}.csv")


def test_the_results_table_is_the_one_of_the_committed_figures():
    text = (ROOT / "README.md").read_text()
    for model, cells in results_table(committed("au_detection"), committed("captions")).iterrows():
        assert f"| {' | '.join([model, *cells])} |" in text


def test_the_quick_models_card_states_what_a_run_measures():
    """The card is about the shipped weights; training on another machine moves its figures a little."""
    au = committed("au_detection").set_index(["model", "target", "metric"])["value"]
    card = (ROOT / "expvqa_lib" / "assets" / "quick" / "README.md").read_text()
    f1, auc = re.search(r"macro F1 ([\d.]+), AUC\s+([\d.]+)", card).groups()
    assert abs(float(f1) - au["exp_vqa", "macro", "f1"]) < 2 > abs(float(auc) - au["exp_vqa", "macro", "auc"])


def test_every_local_link_of_the_readme_and_the_docs_exists():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        links = [part.split(")")[0].split("#")[0] for part in page.read_text().split("](")[1:]]
        local = [link for link in links if link and not link.startswith("http")]
        assert [link for link in local if not (page.parent / link).exists()] == [], page


def test_the_committed_maps_point_into_the_action_units_regions():
    """Where the AU is detected: three of four peaks on moved pixels, nearly all in the region."""
    pointed, table = committed("attention"), committed("faithfulness")
    macro = pointed[(pointed["model"] == "exp_vqa") & (pointed["target"] == "macro")].set_index("metric")
    pixels, region = macro.loc["pointing_detected"], macro.loc["pointing_detected_region"]
    assert pixels["value"] >= 75 and pixels["low"] > 10 * macro["high"]["chance"]
    assert region["value"] >= 90 and region["low"] > 10 * macro["high"]["chance_region"]
    scores = table[table["target"] == "macro"].set_index(["model", "method", "metric"])["value"]
    for metric in ("pointing_region", "energy"):
        assert scores["exp_vqa"].xs(metric, level="metric").idxmax() == list(METHODS)[0]
        assert scores["exp_vqa_randomised", list(METHODS)[0], metric] < 20
