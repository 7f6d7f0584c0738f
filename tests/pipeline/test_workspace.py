"""One run on disk: made when first asked for, read back afterwards."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from expvqa_lib.data.table import SPLITS
from expvqa_lib.errors import ExpVQAError, SettingsError
from expvqa_lib.expvqa import load
from expvqa_lib.pipeline import profiles
from expvqa_lib.pipeline.profiles import BASE, Profile
from expvqa_lib.pipeline.run import MODELS, Run, repository_root
from expvqa_lib.synthfacs import CorpusSizes
from expvqa_lib.training.finetune import Recipe

ROOT = Path(__file__).resolve().parents[2]
SIZES = CorpusSizes(
    lab_train=2,
    lab_validation=1,
    lab_test=2,
    videos=1,
    wild_train=6,
    wild_validation=2,
    wild_test=2,
    emotion_train=6,
    emotion_validation=2,
    emotion_test=4,
    image=48,
)
RECIPE = Recipe(steps=2, images=4, pairs_per_image=2, validate_every=1)
TOY = Profile("toy", SIZES, RECIPE, RECIPE, explained=1, resamples=5)


@pytest.fixture(scope="module", autouse=True)
def toy_profile():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(profiles.PROFILES, "toy", TOY)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("run")
    return {"run_dir": folder / "run", "figures_dir": folder / "figures"}


@pytest.fixture(scope="module")
def detection(place) -> pd.DataFrame:
    """The first table, for which faces are drawn and both variants trained."""
    return Run("toy", **place).au_detection()


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_the_first_table_makes_everything_it_needs(detection, place):
    assert set(detection["model"]) == {"prior", *MODELS, "exp_vqa_shuffled_images"}
    assert sorted(path.name.split("-")[0] for path in (place["run_dir"] / "models").iterdir()) == [
        "exp_vqa",
        "exp_vqa_fz",
    ]
    assert len(list((place["run_dir"] / "predictions").glob("q3_scores-*.parquet"))) == 3
    assert not list(place["run_dir"].rglob(".*"))  # no checkpoint and nothing half-written is left


def test_a_second_workspace_reads_back_and_makes_nothing_again(detection, place):
    before = stamps(place["run_dir"])
    again = Run("toy", **place)
    pd.testing.assert_frame_equal(again.au_detection(), detection)
    assert len(again.training_log("exp_vqa")) == 4
    assert set(again.pairs()) == set(SPLITS)
    assert stamps(place["run_dir"]) == before


def test_predictions_are_read_back_without_the_model(detection, place, monkeypatch):
    run = Run("toy", **place)
    monkeypatch.setattr(Run, "model", lambda *_: pytest.fail("the model was loaded again"))
    assert run.scores("exp_vqa").shape == (24, 12)


def test_another_recipe_makes_its_own_model_and_predictions_and_no_others(detection, place, monkeypatch):
    first = Run("toy", **place)
    monkeypatch.setitem(
        profiles.PROFILES, "toy", replace(TOY, exp_vqa_fz=replace(RECIPE, learning_rate=0.05))
    )
    other = Run("toy", **place)
    assert other.model_dir("exp_vqa") == first.model_dir("exp_vqa")
    assert other.model_dir("exp_vqa_fz") != first.model_dir("exp_vqa_fz")
    pd.testing.assert_frame_equal(other.scores("base"), first.scores("base"))
    assert not other.scores("exp_vqa_fz").equals(first.scores("exp_vqa_fz"))
    monkeypatch.setitem(profiles.PROFILES, "toy", replace(TOY, corpora=replace(SIZES, seed=1)))
    assert Run("toy", **place).model_dir("exp_vqa") != first.model_dir("exp_vqa")


def test_answers_name_their_face_area_and_question(detection, place):
    run = Run("toy", **place)
    q1 = run.answers("exp_vqa", "Q1")
    assert (
        list(q1.columns) == ["row", "area", "question", "answer"]
        and q1["row"].tolist() == [0, 1, 2, 3]
        and q1["area"].isna().all()
    )
    assert q1["answer"].map(type).eq(str).all()
    before = stamps(place["run_dir"])
    pd.testing.assert_frame_equal(run.answers("exp_vqa", "Q1"), q1)
    assert stamps(place["run_dir"]) == before


def test_faces_of_one_corpus_and_split(detection, place):
    faces = Run("toy", **place).faces_of("synth_lab")
    assert (
        set(faces["split"]) == {"test"}
        and set(faces["dataset"]) == {"synth_lab"}
        and list(faces.index) == list(range(24))
    )


def test_a_model_of_ones_own_is_measured_beside_the_prior_and_shuffled_images(detection, place):
    table = Run("toy", **place).au_detection(load(BASE, quiet=True), "mine")
    assert set(table["model"]) == {"prior", "mine", "mine_shuffled_images"} and list(table.columns) == list(
        detection.columns
    )


def test_a_saved_table_says_what_made_it(detection, place):
    run = Run("toy", **place)
    path = run.save_table(detection, "au_detection")
    assert path == place["figures_dir"] / "au_detection.csv"
    pd.testing.assert_frame_equal(pd.read_csv(path), detection, atol=1e-3, check_dtype=False)
    run = json.loads((place["figures_dir"] / "run.json").read_text())
    assert (
        run["profile"] == "toy"
        and run["seed"] == TOY.seed
        and run["python"]
        and run["torch"]
        and run["threads"] >= 1
    )
    assert set(run) >= {"commit", "transformers", "machine", "data", "base"}
    assert sorted(os.listdir(place["figures_dir"])) == ["au_detection.csv", "run.json"]


# ------------------------------------------------------------------------------------------------------ places and errors


def test_relative_places_hang_from_the_repository_wherever_one_stands(monkeypatch, tmp_path):
    for folder in (ROOT, ROOT / "notebooks"):
        monkeypatch.chdir(folder)
        assert repository_root() == ROOT
        run = Run("quick", figures_dir="figures")
        assert run.run_dir == ROOT / "runs" / "quick" and run.figures_dir == ROOT / "figures"
        assert Run("quick", run_dir="runs/mine").run_dir == ROOT / "runs" / "mine"
    monkeypatch.chdir(tmp_path)
    assert Run("quick").run_dir == tmp_path.resolve() / "runs" / "quick"
    assert Run("quick", run_dir=tmp_path / "x").run_dir == tmp_path / "x"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "fast"}, "profile 'fast' is unknown; known are quick, smoke"),
        (
            {"profile": "paper"},
            "profile 'paper' reads data sets; give the folder that holds them with --data-root DIR",
        ),
        ({"profile": "paper", "data_root": "/nowhere"}, "data root /nowhere: no such folder"),
        (
            {"profile": "quick", "data_root": "/data"},
            "data_root='/data': profile 'quick' draws its own faces",
        ),
    ],
)
def test_profiles_that_cannot_run_are_refused(options, message):
    with pytest.raises(SettingsError, match=message):
        Run(**options)


def test_unknown_models_are_refused(place):
    with pytest.raises(SettingsError, match="model 'exp_blip' is unknown; known are exp_vqa, exp_vqa_fz"):
        Run("toy", **place).model("exp_blip")


def test_a_place_that_cannot_be_written_to_is_named(tmp_path, detection):
    (tmp_path / "file").write_text("in the way")
    run = Run("toy", run_dir=tmp_path / "file" / "run", figures_dir=tmp_path / "file" / "figures")
    with pytest.raises(ExpVQAError, match=f"{tmp_path / 'file' / 'run'}: cannot make this folder"):
        run.faces()
    with pytest.raises(ExpVQAError, match=f"{tmp_path / 'file' / 'figures'}: cannot make this folder"):
        run.save_table(detection, "au_detection")
    assert (tmp_path / "file").read_text() == "in the way"


def test_the_smoke_profile_is_a_miniature_of_the_quick_one():
    quick, smoke = profiles.get("quick"), profiles.get("smoke")
    for field in vars(quick.corpora):
        small, large = getattr(smoke.corpora, field), getattr(quick.corpora, field)
        assert small == large if field in ("image", "seed") else 0 < small < large
    assert smoke.exp_vqa.steps < quick.exp_vqa.steps and smoke.resamples < quick.resamples
    with pytest.raises(AttributeError):
        quick.seed = 1  # frozen
