"""The study of ablations: who is asked what, what is measured, and how it is shown."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from expvqa_lib.errors import SettingsError
from expvqa_lib.evaluation import ablations
from expvqa_lib.evaluation.ablations import ALL, MEASURES
from expvqa_lib.pipeline import profiles
from expvqa_lib.pipeline.profiles import Profile
from expvqa_lib.pipeline.run import Run
from expvqa_lib.synthfacs import CorpusSizes
from expvqa_lib.training.curriculum import ABLATIONS, Curriculum
from expvqa_lib.training.recipe import Recipe

SIZES = CorpusSizes(
    lab_train=2,
    lab_validation=1,
    lab_test=3,
    videos=1,
    wild_train=8,
    wild_validation=2,
    wild_test=2,
    emotion_train=16,
    emotion_validation=8,
    emotion_test=8,
    image=48,
)
RECIPE = Recipe(steps=2, images=4, pairs_per_image=2, validate_every=1, augment=False)
TOY = Profile("toy-ablations", SIZES, RECIPE, RECIPE, left_out=(12,), probed=16, resamples=5)
ABLATED = ("q3_only", "cat_captioner")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablations")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(profiles.PROFILES, "toy-ablations", TOY)
        yield Run("toy-ablations", folder / "run", folder / "figures")


@pytest.fixture(scope="module")
def table(run) -> pd.DataFrame:
    return ablations.study(run, ABLATED)


def test_a_row_stands_for_each_model_question_and_metric(table):
    keys = list(zip(table["question"], table["metric"], strict=True))
    assert not table.duplicated(["model", "question", "metric"]).any() and set(table["target"]) == {"macro"}
    for model, rows in table.groupby("model"):
        probed = model not in ("prior", f"{ALL}_shuffled_images")
        assert len(rows) == (len(MEASURES) if probed else len(MEASURES) - 2), model
    assert set(table["model"]) == {"prior", "base", ALL, f"{ALL}_shuffled_images", *ABLATED} and set(
        keys
    ) == set(MEASURES)
    assert table["value"].between(0, 100).all() and (table["low"] <= table["high"]).all()


def test_what_was_not_taught_is_marked(table):
    marked = {tuple(row) for row in table.loc[table["taught"], ["model", "question"]].to_numpy()}
    assert {question for model, question in marked if model == ALL} == {"Q3", "Q1 actions", "Q1 emotion"}
    assert {question for model, question in marked if model == "cat_captioner"} == {
        "Q1 actions",
        "Q1 emotion",
    }
    assert {question for model, question in marked if model == "q3_only"} == {"Q3"} and "base" not in {
        model for model, _ in marked
    }
    wide = ablations.layout(table)
    assert wide.loc["Cat-captioner", "Q3 AUC"].endswith("]*") and wide.loc["Q3 only", "Q3 AUC"].endswith("]")
    assert wide.loc["Label prior", "Probe emotion, accuracy"] == "-" and wide.loc[
        "Label prior", "Q3 AUC"
    ].startswith("50.0")


def test_ablations_start_from_the_base_by_the_recipe_of_the_frozen_variant(run, table):
    assert sorted(path.name.split("-")[0] for path in (run.run_dir / "models").iterdir()) == sorted(
        [ALL, "au_captioner", "emot_captioner", *ABLATED]
    )
    assert run.recipe("cat_captioner") == run.recipe(ALL) == RECIPE
    assert len({run.model_dir(name) for name in (ALL, *ABLATIONS, "without_au12")}) == len(ABLATIONS) + 2
    assert run.curriculum("without_au12") == Curriculum(unseen=(*TOY.unseen, 12))


def test_the_cat_captioner_learns_halves_that_the_others_told(run, table):
    rows = run.training_pairs("cat_captioner")["train"].to_pandas()
    told = pd.concat(pd.read_parquet(path) for path in (run.run_dir / "captions").iterdir())
    faces = run.faces().query("split == 'train' and dataset != 'synth_wild'")
    assert sorted(told["image"]) == sorted(faces["image"])
    assert set(rows.loc[rows["source"] == "rules", "dataset"]) == {"synth_wild"}
    assert set(rows.loc[rows["source"] == "pseudo", "image"]) <= set(faces["image"])


def test_a_captioner_is_asked_the_one_question_that_it_knows(run, table):
    kinds = {
        path.name.split("-synth_lab-")[0]
        for path in (run.run_dir / "predictions").glob("*synth_lab-cat_captioner*")
    }
    assert kinds == {"q1_answers"}
    assert "emotion" not in run.answers("q3_only", "Q1_actions", "synth_lab")["question"].iat[0]


def test_one_action_unit_left_out_is_held_against_the_model_that_was_taught_it(run):
    table, differences = ablations.leave_one_out(run)
    assert set(table["model"]) == {"prior", "left_out", "left_out_shuffled_images", ALL} and set(
        table["target"]
    ) == {"AU12"}
    value = table.set_index(["model", "metric"])["value"]
    for row in differences.itertuples():
        assert (
            row.value == pytest.approx(value["left_out", row.metric] - value[ALL, row.metric])
            and row.low <= row.high
        )
    shown = ablations.left_out_layout(table, differences)
    assert shown["Metric"].tolist() == ["F1", "AUC"] and shown["Label prior"].iat[1] == "50.0 [50.0, 50.0]"
    assert "Never asked about AU12" in ablations.left_out_verdict(table, differences)
    with pytest.raises(
        SettingsError, match=r"AU 25 cannot be left out; synth_lab has, and exp_vqa_fz is taught, \[1, 2, 4"
    ):
        ablations.leave_one_out(run, [25])


def test_without_labels_of_emotions_no_captioner_tells_them():
    faces = pd.DataFrame({"split": ["train", "test"], "emotion": [None, "anger"]})
    assert ablations.available(SimpleNamespace(faces=lambda: faces)) == (
        "q1_only",
        "q1_q2",
        "q3_only",
        "au_captioner",
    )
    assert ablations.available(SimpleNamespace(faces=lambda: faces.assign(emotion="anger"))) == tuple(
        ABLATIONS
    )


def test_profiles_with_ablations_are_the_same_otherwise():
    for name, full in (("quick", "full"), ("paper", "paper-full")):
        assert replace(profiles.get(full), name=name, ablations=False, probe_epochs=0) == profiles.get(name)


def test_the_verdict_and_the_figure_tell_the_table():
    rng = np.random.default_rng(0)
    rows = [
        {
            "model": model,
            "question": question,
            "metric": metric,
            "value": value,
            "low": value - 2,
            "high": value + 3,
            "taught": True,
        }
        for model in ablations.TITLES
        for (question, metric), value in zip(MEASURES, rng.uniform(50, 90, len(MEASURES)), strict=True)
    ]
    table = pd.DataFrame(rows)
    table.loc[
        (table["model"] == "mix_captioner") & (table["question"] == "Q1 emotion"), ["value", "low", "high"]
    ] = 97.0, 96.0, 98.0
    assert "97.0 [96.0, 98.0] by the best captioner, the Mix-captioner." in ablations.verdict(table)
    panels = ablations.figure(table).axes
    assert [label.get_text() for label in panels[0].get_yticklabels()] == list(ablations.TITLES.values())[1:]
    value = table.query("model == 'mix_captioner' and question == 'Q3' and metric == 'auc'")["value"].iat[0]
    row = list(ablations.TITLES).index("mix_captioner") - 1
    dots = [line.get_xydata().tolist() for line in panels[0].lines]
    assert [[value, row]] in dots and len(panels) == 3
