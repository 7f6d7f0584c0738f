"""Action units that Q3 never asked Exp-VQA(fz) about in training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from expvqa_lib.evaluation import zero_shot
from expvqa_lib.facs import ACTION_UNITS
from expvqa_lib.pipeline import profiles
from expvqa_lib.pipeline.profiles import Profile
from expvqa_lib.pipeline.run import Run
from expvqa_lib.synthfacs import CorpusSizes

TRAIN = {"lab_train": 2, "wild_train": 12, "emotion_train": 2}
OTHERS = {"lab_validation": 1, "videos": 1, "wild_validation": 2, "emotion_validation": 2, "emotion_test": 2}
SIZES = CorpusSizes(lab_test=2, wild_test=120, image=48, **TRAIN, **OTHERS)
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
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(profiles.PROFILES, "toy", Profile("toy", SIZES, resamples=100))
        yield Scripted("toy", tmp_path_factory.mktemp("zero-shot"))


@pytest.fixture(scope="module")
def table(run):
    return zero_shot.zero_shot(run)


def groups_of(table: pd.DataFrame) -> dict[str, list[str]]:
    """AUs of the table by group: each group's average follows its AUs."""
    targets = list(table["target"].unique())
    first = targets.index("seen")
    return {"seen": targets[:first], "unseen": targets[first + 1 : -1]}


def test_unseen_action_units_are_asked_where_they_are_labelled_and_frequent_enough(run, table):
    faces, unseen = run.faces_of("synth_wild"), {f"AU{au}" for au in run.profile.unseen}
    assert zero_shot.corpus(run) == "synth_wild"
    enough = {au.name for au in ACTION_UNITS.values() if faces[au.name].eq(1).sum() >= zero_shot.FEWEST}
    groups = groups_of(table)
    assert set(groups["unseen"]) == enough & unseen and set(groups["seen"]) == enough - unseen


def test_averages_are_those_of_their_action_units(table):
    rows = table[(table["model"] == "exp_vqa_fz") & (table["metric"] == "auc")].set_index("target")["value"]
    for group, aus in groups_of(table).items():
        assert rows[group] == pytest.approx(rows[aus].mean())


def test_models_and_controls_stand_beside_each_other_and_what_is_named_has_no_rank(table):
    assert set(table["model"]) == {"prior", "base", "exp_vqa", "exp_vqa_fz", SHUFFLED, "exp_vqa_fz_named"}
    value = table.set_index(["model", "target", "metric"])["value"]
    assert value["exp_vqa", "unseen", "auc"] == 100 and value["prior", "unseen", "auc"] == 50
    assert value["exp_vqa_fz_named", "AU25", "f1"] == 100
    assert ("exp_vqa_fz_named", "AU25", "auc") not in value.index


def test_differences_to_the_controls_are_paired(run):
    gains = zero_shot.differences(run).set_index(["group", "model", "metric", "minus"])
    assert gains.loc[("unseen", "exp_vqa_fz", "auc", SHUFFLED), "low"] > 0
    assert gains.loc[("unseen", "exp_vqa_fz", "f1", "prior"), "high"] < 0


def test_layouts_put_unseen_action_units_first_in_the_chart_and_averages_in_the_table(table):
    targets = list(zero_shot.auc_rows(table)["target"].unique())
    assert targets == [*groups_of(table)["unseen"], "unseen", "seen"]
    assert set(zero_shot.layout(table, ("seen", "unseen"))["AUs"]) == {"seen", "unseen"}


def test_without_an_unseen_action_unit_the_tables_are_empty(run, monkeypatch):
    monkeypatch.setattr(run, "profile", replace(run.profile, unseen=()))
    table = zero_shot.zero_shot(run)
    assert zero_shot.corpus(run) is None and table.empty and zero_shot.differences(run).empty
    assert zero_shot.layout(table).empty and zero_shot.auc_rows(table).empty
