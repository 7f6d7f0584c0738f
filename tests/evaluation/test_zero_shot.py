"""Action units that Exp-VQA(fz) was never asked about in training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from expvqa_lib.errors import SettingsError
from expvqa_lib.evaluation import zero_shot
from expvqa_lib.evaluation.metrics import au_table
from expvqa_lib.pipeline import profiles
from expvqa_lib.pipeline.profiles import Profile
from expvqa_lib.pipeline.run import Run
from expvqa_lib.synthfacs import CorpusSizes

SIZES = CorpusSizes(
    lab_train=2,
    lab_validation=1,
    lab_test=2,
    videos=1,
    image=48,
    wild_train=12,
    wild_validation=2,
    wild_test=120,
)
SIZES = replace(SIZES, emotion_train=2, emotion_validation=2, emotion_test=2)
BLIND = "exp_vqa_fz_shuffled_images"


class Scripted(Run):
    """A run whose models answer by a script: `sight` 1 sees each AU, 0 says the same of all faces; both say no to what is unseen."""

    def scores(self, name, corpus, aus, split="test"):
        faces = self.faces_of(corpus, split)
        sight = {"base": 0.0, "exp_vqa": 1.0, "exp_vqa_fz": 0.5}[name]
        rng = np.random.default_rng(0)
        noise = rng.random((len(faces), len(aus)))
        told = sight * faces[[f"AU{au}" for au in aus]].astype(float) + (1 - sight) * noise
        return told * [0.4 if au in self.profile.unseen and name != "exp_vqa" else 1.0 for au in aus]

    def answers(self, name, kind, corpus=None):
        faces = self.faces_of(corpus)
        answer = faces["AU25"].map({1: "The person separates lips.", 0: "The face shows sadness."})
        return pd.DataFrame({"row": faces.index, "area": None, "question": "?", "answer": answer})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zero-shot")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(profiles.PROFILES, "toy", Profile("toy", SIZES, resamples=100))
        yield Scripted("toy", run_dir=folder, figures_dir=folder)


@pytest.fixture(scope="module")
def table(run):
    return zero_shot.zero_shot(run)


def test_unseen_action_units_are_asked_where_they_are_labelled_and_frequent_enough(run):
    faces, asked = run.faces_of("synth_wild"), zero_shot.asked(run)
    assert zero_shot.corpus(run) == "synth_wild"
    assert set(asked["unseen"]) <= {5, 9, 20, 25, 26} and not set(asked["unseen"]) & set(asked["seen"])
    assert {au: int(faces[f"AU{au}"].sum()) >= zero_shot.FEWEST for au in (25, 11)} == {
        25: 25 in asked["unseen"],
        11: 11 in asked["seen"],
    }


def test_averages_are_those_of_their_action_units(run, table):
    for group, aus in zero_shot.asked(run).items():
        mine = table[(table["model"] == "exp_vqa_fz") & (table["metric"] == "auc")].set_index("target")[
            "value"
        ]
        assert mine[group] == pytest.approx(mine[[f"AU{au}" for au in aus]].mean())
    faces = run.faces_of("synth_wild")
    scores = run.scores("exp_vqa_fz", "synth_wild", [25])
    alone = au_table(
        faces[["AU25"]], scores, model="m", dataset="d", split="s", metrics=("auc",), resamples=0
    )
    assert mine["AU25"] == pytest.approx(alone["value"].iat[0])


def test_models_and_controls_stand_beside_each_other_and_what_is_named_has_no_rank(table):
    assert set(table["model"]) == {"prior", "base", "exp_vqa", "exp_vqa_fz", BLIND, "exp_vqa_fz_named"}
    value = table.set_index(["model", "target", "metric"])["value"]
    assert value["exp_vqa", "unseen", "auc"] == 100 and value["prior", "unseen", "auc"] == 50
    assert value["exp_vqa_fz_named", "AU25", "f1"] == 100
    assert ("exp_vqa_fz_named", "AU25", "auc") not in value.index


def test_the_verdict_says_what_beats_the_controls_and_what_does_not(run, table):
    gains = zero_shot.differences(run)
    of = gains.set_index(["group", "model", "metric", "minus"])
    assert (
        of.loc[("unseen", "exp_vqa_fz", "auc", BLIND), "low"] > 0
        and of.loc[("unseen", "exp_vqa_fz", "f1", "prior"), "high"] < 0
    )
    said = zero_shot.verdict(table, gains).split("\n\n")
    assert (
        "surely more than Label prior and Base, untuned and Exp-VQA(fz), shuffled images. Exp-VQA" in said[0]
    )
    assert "F1 of 0.0" in said[1] and "surely less than Label prior" in said[1]
    better = gains.assign(low=gains["low"].abs() + 1, high=gains["high"].abs() + 2)
    assert "surely less" not in zero_shot.verdict(table, better) and "neither" not in zero_shot.verdict(
        table, better
    )


def test_without_an_unseen_action_unit_there_is_nothing_to_ask(run, monkeypatch):
    monkeypatch.setattr(run, "profile", replace(run.profile, unseen=()))
    assert zero_shot.corpus(run) is None
    with pytest.raises(SettingsError, match="no test split has 10 faces or more with an unseen action unit"):
        zero_shot.zero_shot(run)
