"""The README and the quick model's card state the figures of the committed tables; links exist."""

import re
from pathlib import Path

import pandas as pd
from huggingface_hub import ModelCard

from expvqa_lib.attention.methods import DEFAULT_METHOD
from expvqa_lib.evaluation import results_table
from expvqa_lib.training.card import TAGS

ROOT = Path(__file__).parent.parent


def committed(name: str) -> pd.DataFrame:
    return pd.read_csv(ROOT / "figures" / f"{name}.csv")


def test_the_results_table_is_the_one_of_the_committed_figures():
    text = (ROOT / "README.md").read_text()
    for model, cells in results_table(
        pd.concat([committed("au_detection").assign(question="Q3"), committed("captions")])
    ).iterrows():
        assert f"| {' | '.join([model, *cells])} |" in text


def test_the_quick_models_card_states_what_a_run_measures():
    """The card is about the shipped weights; training on another machine moves its figures a little."""
    au = committed("au_detection").set_index(["model", "target", "metric"])["value"]
    card = (ROOT / "expvqa_lib" / "assets" / "quick" / "README.md").read_text()
    f1, auc = re.search(r"macro F1 ([\d.]+), AUC\s+([\d.]+)", card).groups()
    assert abs(float(f1) - au["exp_vqa", "macro", "f1"]) < 2 > abs(float(auc) - au["exp_vqa", "macro", "auc"])


def test_the_shipped_models_have_the_front_matter_of_a_fine_tuned_one():
    card = ROOT / "expvqa_lib" / "assets"
    quick, base = (ModelCard.load(card / name / "README.md").data for name in ("quick", "base"))
    assert quick.tags == base.tags == TAGS and quick.license == base.license == "bsd-3-clause"
    assert quick.datasets == ["synth_lab", "synth_wild", "synth_emotion"] and base.datasets is None


def test_the_page_of_results_states_the_figures_of_the_committed_tables():
    text = " ".join((ROOT / "docs" / "results.md").read_text().split())
    zero = committed("zero_shot").query("target == 'unseen'").set_index(["model", "metric"])["value"]
    found = committed("attention").query("model == 'exp_vqa' and target == 'macro'").set_index("metric")
    maps = committed("faithfulness").query("target == 'macro' and method == @DEFAULT_METHOD")
    maps = maps.set_index(["model", "metric"])["value"]
    pixels, region = (
        "{value:.0f} [{low:.0f}, {high:.0f}] %".format(**found.loc[name])
        for name in ("pointing_detected", "pointing_detected_region")
    )
    for sentence in (
        f"it reaches an AUC of {zero['exp_vqa_fz', 'auc']:.1f} on these",
        f"Exp-VQA, which was asked about them, has {zero['exp_vqa', 'auc']:.1f}",
        f"it finds only {zero['exp_vqa_fz', 'recall']:.0f} % of the positives",
        f"names these actions with an F1 of {zero['exp_vqa_fz_named', 'f1']:.1f}",
        f"On the {found.loc['pointing_detected', 'support']:.0f} faces",
        f"a pixel that moved in {pixels} of cases, and inside the region around those pixels in {region}",
        f"{maps['exp_vqa', 'energy']:.0f} % lies on pixels that moved",
        f"which are {maps['exp_vqa', 'area']:.1f} % of the picture",
        f"With permuted weights {maps['exp_vqa_randomised', 'energy']:.0f} % lies there",
    ):
        assert sentence in text


def test_the_card_and_the_page_of_photos_have_the_same_table_of_photographs():
    pages = (ROOT / "docs" / "photos.md", ROOT / "expvqa_lib" / "assets" / "quick" / "README.md")
    tables = [re.findall(r"^\| .*\[[\d., ]+\] \|$", page.read_text(), re.MULTILINE) for page in pages]
    assert tables[0] == tables[1] and len(tables[0]) == 12
    values = [float(re.search(r"([\d.]+) \[", row)[1]) for row in tables[0]]
    assert abs(sum(values[:-1]) / 11 - values[-1]) < 0.1


def test_every_local_link_of_the_readme_and_the_docs_exists():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        links = [part.split(")")[0].split("#")[0] for part in page.read_text().split("](")[1:]]
        local = [link for link in links if link and not link.startswith("http")]
        assert [link for link in local if not (page.parent / link).exists()] == [], page


def test_the_committed_maps_point_into_the_action_units_regions():
    """Where the AU is detected: a third of the peaks on moved pixels, half in the region."""
    pointed, table = committed("attention"), committed("faithfulness")
    macro = pointed[(pointed["model"] == "exp_vqa") & (pointed["target"] == "macro")].set_index("metric")
    pixels, region = macro.loc["pointing_detected"], macro.loc["pointing_detected_region"]
    assert pixels["value"] >= 33 and pixels["low"] > 5 * macro["high"]["chance"]
    assert region["value"] >= 50 and region["low"] > 5 * macro["high"]["chance_region"]
    scores = table[table["target"] == "macro"].set_index(["model", "method", "metric"])["value"]
    assert scores["exp_vqa"].xs("energy", level="metric").idxmax() == DEFAULT_METHOD
    for metric in ("pointing_region", "energy"):
        assert scores["exp_vqa_randomised", DEFAULT_METHOD, metric] < 20
