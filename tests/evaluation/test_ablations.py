"""Ablations, and action units that Q3 never asked about: which model is asked what, what is measured."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from expvqa_lib.evaluation import ablations, zero_shot
from expvqa_lib.evaluation.ablations import ALL, MEASURES
from expvqa_lib.facs import ACTION_UNITS
from expvqa_lib.pipeline import profiles
from expvqa_lib.pipeline.profiles import Profile
from expvqa_lib.pipeline.run import Run
from expvqa_lib.synthfacs import CorpusSizes
from expvqa_lib.training.curriculum import ABLATIONS, Curriculum
from expvqa_lib.training.recipe import Recipe

SIZES, WILD = (
    CorpusSizes(lab=(2, 1, 3), wild=(8, 2, n), emotion=(12, 2, 8), videos=1, image=48) for n in (2, 120)
)
RECIPE = Recipe(steps=2, images=4, pairs_per_image=2, validate_every=1, augment=False)
TOY = Profile("toy-ablations", SIZES, RECIPE, RECIPE, left_out=(2, 25), probed=16, resamples=5)
ABLATED = ("q3_only", "cat_captioner")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(profiles.PROFILES, "toy-ablations", TOY)
        yield Run("toy-ablations", tmp_path_factory.mktemp("ablations"))


@pytest.fixture(scope="module")
def table(run) -> pd.DataFrame:
    return ablations.study(run, ABLATED)


def test_a_row_stands_for_each_model_question_and_metric(table):
    assert not table.duplicated(["model", "question", "metric"]).any() and set(table["target"]) == {"macro"}
    for model, rows in table.groupby("model"):
        is_probed = model not in ("prior", f"{ALL}_shuffled_images")
        assert len(rows) == (len(MEASURES) if is_probed else len(MEASURES) - 2), model
    assert set(table["model"]) == {"prior", "base", ALL, f"{ALL}_shuffled_images", *ABLATED}
    assert set(zip(table["question"], table["metric"], strict=True)) == set(MEASURES)
    assert table["value"].between(0, 100).all() and (table["low"] <= table["high"]).all()


def test_questions_that_a_model_was_not_trained_on_have_a_star(table):
    taught = table[table["taught"]].groupby("model")["question"].agg(set)
    assert taught[ALL] == {"Q3", "Q1 actions", "Q1 emotion"}
    assert taught["cat_captioner"] == {"Q1 actions", "Q1 emotion"}
    assert taught["q3_only"] == {"Q3"} and "base" not in taught
    wide = ablations.layout(table)
    assert wide.loc["Cat-captioner", "Q3 AUC"].endswith("]*") and wide.loc["Q3 only", "Q3 AUC"].endswith("]")
    assert wide.loc["Label prior", "Probe emotion, accuracy"] == "-"
    assert wide.loc["Label prior", "Q3 AUC"].startswith("50.0")


def test_ablations_start_from_the_base_by_the_recipe_of_the_frozen_variant(run, table):
    trained = sorted(path.name.split("-")[0] for path in (run.store / "models").iterdir())
    assert trained == sorted([ALL, "au_captioner", "emot_captioner", *ABLATED])
    assert run.recipe("cat_captioner") == run.recipe(ALL) == RECIPE
    assert len({run.model_dir(name) for name in (ALL, *ABLATIONS, "without_au2")}) == len(ABLATIONS) + 2
    assert run.curriculum("without_au2") == Curriculum(unseen=(*TOY.unseen, 2))


def test_captioners_learn_halves_that_others_fill_in_and_are_asked_what_they_were_trained_on(run, table):
    pairs = run.training_pairs("cat_captioner")["train"].to_pandas()
    faces = run.faces().query("split == 'train' and dataset != 'synth_wild'")
    assert set(pairs.loc[pairs["source"] == "rules", "dataset"]) == {"synth_wild"}
    assert set(pairs.loc[pairs["source"] == "pseudo", "image"]) <= set(faces["image"])
    files = list((run.store / "predictions").glob("q*-cat_captioner-*"))
    assert {path.name.split("-")[0] for path in files} == {"q1", "q3"}
    asked = pd.concat([pd.read_parquet(path) for path in files if path.name.startswith("q1-")])
    assert asked["question"].str.contains("emotion").all()
    assert "emotion" not in run.answers("q3_only", "Q1_actions")["question"].iat[0]


def test_one_action_unit_left_out_is_measured_beside_the_model_that_was_asked(run):
    table, differences = ablations.leave_one_out(run)
    assert set(table["model"]) == {"prior", "left_out", "left_out_shuffled_images", ALL}
    assert set(table["target"]) == {"AU2"} and (differences["low"] <= differences["high"]).all()
    value = table.pivot(index="metric", columns="model", values="value").loc[differences["metric"]]
    np.testing.assert_allclose(differences["value"], value["left_out"] - value[ALL])
    layout = ablations.left_out_layout(table, differences)
    assert layout["Metric"].tolist() == ["F1", "AUC"] and layout["Label prior"].iat[1] == "50.0 [50.0, 50.0]"


def test_without_labels_of_emotions_no_captioner_needs_them():
    faces = pd.DataFrame({"split": ["train", "test"], "emotion": [None, "anger"]})
    names = ablations.available(SimpleNamespace(faces=lambda: faces))
    assert names == ("q1_only", "q1_q2", "q3_only", "au_captioner")
    faces["emotion"] = "anger"
    assert ablations.available(SimpleNamespace(faces=lambda: faces)) == tuple(ABLATIONS)


SHUFFLED = "exp_vqa_fz_shuffled_images"


class Scripted(Run):
    """Exp-VQA sees each AU; (fz) sees half of it and says no to what is unseen; the base is blind."""

    def scores(self, name, faces, aus):
        sight = {"base": 0.0, "exp_vqa": 1.0, "exp_vqa_fz": 0.5}[name]
        noise = np.random.default_rng(0).random((len(faces), len(aus)))
        scores = sight * faces[[f"AU{au}" for au in aus]].astype(float) + (1 - sight) * noise
        return scores * [0.4 if au in self.profile.unseen and name != "exp_vqa" else 1.0 for au in aus]

    def answers(self, name, kind, faces):
        answer = faces["AU25"].map({1: "The person separates lips.", 0: "The face shows sadness."})
        return pd.DataFrame({"row": faces.index, "answer": answer})


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(profiles.PROFILES, "toy", Profile("toy", WILD, resamples=100))
        yield Scripted("toy", tmp_path_factory.mktemp("zero-shot"))


@pytest.fixture(scope="module")
def unseen(scripted):
    return zero_shot.zero_shot(scripted)


def test_unseen_action_units_are_asked_where_they_are_frequent_and_stand_beside_their_controls(
    scripted, unseen
):
    faces, left_out = scripted.faces_of("synth_wild"), {f"AU{au}" for au in scripted.profile.unseen}
    enough = {au.name for au in ACTION_UNITS.values() if faces[au.name].eq(1).sum() >= zero_shot.FEWEST}
    targets = list(unseen["target"].unique())  # each group's average follows its AUs
    first = targets.index("seen")
    groups = {"seen": targets[:first], "unseen": targets[first + 1 : -1]}
    assert zero_shot.corpus(scripted) == "synth_wild"
    assert set(groups["unseen"]) == enough & left_out and set(groups["seen"]) == enough - left_out

    assert set(unseen["model"]) == {"prior", "base", "exp_vqa", "exp_vqa_fz", SHUFFLED, "exp_vqa_fz_named"}
    value = unseen.set_index(["model", "target", "metric"])["value"]
    for group, aus in groups.items():
        of_each = [value["exp_vqa_fz", au, "auc"] for au in aus]
        assert value["exp_vqa_fz", group, "auc"] == pytest.approx(np.mean(of_each))
    assert value["exp_vqa", "unseen", "auc"] == 100 and value["prior", "unseen", "auc"] == 50
    assert value["exp_vqa_fz_named", "AU25", "f1"] == 100
    assert ("exp_vqa_fz_named", "AU25", "auc") not in value.index  # what is named has no rank
    in_chart = list(zero_shot.auc_rows(unseen)["target"].unique())
    assert in_chart == [*groups["unseen"], "unseen", "seen"]
    assert set(zero_shot.layout(unseen, ("seen", "unseen"))["AUs"]) == {"seen", "unseen"}


def test_differences_to_the_controls_are_paired_and_without_an_unseen_action_unit_empty(
    scripted, unseen, monkeypatch
):
    gains = zero_shot.differences(scripted).set_index(["group", "model", "metric", "minus"])
    assert gains.loc[("unseen", "exp_vqa_fz", "auc", SHUFFLED), "low"] > 0
    assert gains.loc[("unseen", "exp_vqa_fz", "f1", "prior"), "high"] < 0
    monkeypatch.setattr(scripted, "profile", replace(scripted.profile, unseen=()))
    table = zero_shot.zero_shot(scripted)
    assert zero_shot.corpus(scripted) is None and table.empty and zero_shot.differences(scripted).empty
    assert zero_shot.layout(table).empty and zero_shot.auc_rows(table).empty
