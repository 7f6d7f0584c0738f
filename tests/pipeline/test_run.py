"""One run on disk: made when first needed, read back afterwards, shared by profiles that need the same."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from expvqa_lib.data import SPLITS, write_table
from expvqa_lib.errors import SettingsError
from expvqa_lib.evaluation import MODELS, au_detection
from expvqa_lib.pipeline import checkout, profiles
from expvqa_lib.pipeline.profiles import Profile
from expvqa_lib.pipeline.run import Run
from expvqa_lib.synthfacs import CorpusSizes
from expvqa_lib.training.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]
SIZES = CorpusSizes(lab=(2, 1, 2), wild=(6, 2, 2), emotion=(6, 2, 4), videos=1, image=48)
RECIPE = Recipe(steps=2, images=4, pairs_per_image=2, validate_every=1)
TOY = Profile("toy", SIZES, RECIPE, RECIPE, explained=1, resamples=5)


@pytest.fixture(scope="module", autouse=True)
def toy_profiles():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(profiles.PROFILES, "toy", TOY)
        patch.setitem(profiles.PROFILES, "toy-full", replace(TOY, name="toy-full", ablations=True))
        yield


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def detection(output) -> pd.DataFrame:
    """The first table, for which faces are drawn and both variants trained."""
    return au_detection(Run("toy", output))


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_the_first_table_makes_everything_it_needs(detection, output):
    store = output / "store"
    assert set(detection["model"]) == {"prior", *MODELS, "exp_vqa_shuffled_images"}
    models = sorted(path.name.split("-")[0] for path in (store / "models").iterdir())
    assert models == ["exp_vqa", "exp_vqa_fz"]
    assert len(list((store / "predictions").glob("q3-*.parquet"))) == 3
    assert not list(output.rglob(".*"))  # no checkpoint and nothing half-written is left


@pytest.mark.parametrize("profile", ["toy", "toy-full"])
def test_a_second_run_and_a_fuller_profile_read_back_and_make_nothing_again(
    detection, output, profile, monkeypatch
):
    again = Run(profile, output)
    assert set(again.pairs()) == set(SPLITS)
    before = stamps(output)
    again.ensure("exp_vqa_fz", "exp_vqa")
    monkeypatch.setattr(Run, "model", lambda *_: pytest.fail("the model was loaded again"))
    pd.testing.assert_frame_equal(au_detection(again), detection)
    assert again.scores("exp_vqa").index.tolist() == list(range(24))
    assert len(again.training_log("exp_vqa")) == 4 and set(again.pairs()) == set(SPLITS)
    assert stamps(output) == before


def test_another_recipe_makes_its_own_model_and_predictions_and_no_others(detection, output, monkeypatch):
    first = Run("toy", output)
    changed = replace(TOY, exp_vqa_fz=replace(RECIPE, learning_rate=0.05))
    monkeypatch.setitem(profiles.PROFILES, "toy", changed)
    other = Run("toy", output)
    assert other.model_dir("exp_vqa") == first.model_dir("exp_vqa")
    assert other.model_dir("exp_vqa_fz") != first.model_dir("exp_vqa_fz")
    pd.testing.assert_frame_equal(other.scores("base"), first.scores("base"))
    assert not other.scores("exp_vqa_fz").equals(first.scores("exp_vqa_fz"))
    monkeypatch.setitem(profiles.PROFILES, "toy", replace(TOY, corpora=replace(SIZES, seed=1)))
    assert Run("toy", output).model_dir("exp_vqa") != first.model_dir("exp_vqa")
    half, folders = replace(TOY, exp_vqa=replace(RECIPE, precision="float16")), set()
    monkeypatch.setitem(profiles.PROFILES, "toy", half)
    for has_gpu in (False, True):  # float16 needs one
        monkeypatch.setattr(torch.cuda, "is_available", lambda has_gpu=has_gpu: has_gpu)
        folders.add(Run("toy", output).model_dir("exp_vqa"))
    assert len(folders) == 2


def test_answers_have_a_row_for_each_face_and_question(detection, output):
    run = Run("toy", output)
    q1 = run.answers("exp_vqa", "Q1")
    assert q1["row"].tolist() == [0, 1, 2, 3] and q1["answer"].notna().all()
    images = run.emotion_faces()["image"]
    assert q1["image"].tolist() == [str(Path(image).relative_to(run._data_folder)) for image in images]
    q2 = run.answers("exp_vqa", "Q2")
    assert not q2.duplicated(["row", "area"]).any() and set(q2["row"]) == set(range(24))
    before = stamps(output)
    pd.testing.assert_frame_equal(run.answers("exp_vqa", "Q1"), q1)
    assert stamps(output) == before


def test_faces_without_an_emotion_count_for_the_action_units(detection, output, tmp_path):
    faces = Run("toy", output).faces()
    faces = faces[faces["dataset"] == "synth_lab"].head(60).reset_index(drop=True)
    split = pd.Series(np.where(faces.index < 30, "train", "test"))
    emotion = np.where(faces.index % 10 == 0, "happiness", None)
    images = [f"{k}.png" for k in faces.index]
    faces = faces.assign(image=images, dataset="own", split=split, subject=split, emotion=emotion)
    (tmp_path / "data").mkdir()
    write_table(faces, tmp_path / "data" / "own.parquet")
    run = Run("paper", tmp_path / "runs", data_root=str(tmp_path / "data"))
    assert run.au_corpus == run.emotion_corpus == "own"
    assert len(run.faces_of("own")) == 30 and len(run.emotion_faces()) == 3


def test_a_saved_table_has_a_row_in_the_record_of_what_made_it(detection, output, tmp_path):
    run = Run("toy", output, tmp_path / "figures")
    run.save_table(detection, "au_detection")
    written = pd.read_csv(tmp_path / "figures" / "au_detection.csv")
    pd.testing.assert_frame_equal(written, detection, atol=1e-3, check_dtype=False)
    run.save_table(detection, "another")
    Run("toy-full", output, tmp_path / "figures").save_table(detection, "au_detection")
    record = pd.read_csv(tmp_path / "figures" / "runs.csv", dtype=str).set_index("table")
    assert record["profile"].to_dict() == {"another": "toy", "au_detection": "toy-full"}
    assert record["seed"].eq("42").all()
    assert {"commit", "torch", "transformers", "python", "data", "base"} <= set(record)


def test_results_of_profiles_do_not_mix_and_given_folders_are_relative_to_the_working_folder(monkeypatch):
    for profile, folder in {"quick": "figures", "full": "figures", "smoke": "runs/smoke/figures"}.items():
        run = Run(profile)
        assert run.figures_dir == ROOT / folder and run.store == ROOT / "runs" / "store"
    monkeypatch.chdir(ROOT / "notebooks")
    run = Run("toy", "mine", "pictures")
    assert run.store == ROOT / "notebooks" / "mine" / "store"
    assert run.figures_dir == ROOT / "notebooks" / "pictures"
    assert Run("toy").figures_dir == ROOT / "runs" / "toy" / "figures"


def git(folder, *commands):
    for command in commands:
        user = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", folder, *user, *command.split()], check=True, capture_output=True)


def test_figures_that_a_run_rewrites_are_no_change_of_the_commit(monkeypatch, tmp_path):
    for folder in ("notebooks", "figures", "expvqa_lib/pipeline"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("pyproject.toml", "figures/a.csv"):
        (tmp_path / file).write_text("1")
    git(tmp_path, "init", "add .", "commit -m first")
    monkeypatch.setattr(checkout, "__file__", str(tmp_path / "expvqa_lib" / "pipeline" / "checkout.py"))
    (tmp_path / "figures" / "a.csv").write_text("2")
    assert len(commit := checkout.git_commit()) == 7
    (tmp_path / "pyproject.toml").write_text("2")
    assert checkout.git_commit() == f"{commit}+changes"
    monkeypatch.setenv("PATH", "/nonexistent")
    assert checkout.git_commit() == ""


def test_the_commit_of_another_repository_around_the_installed_package_is_not_taken(monkeypatch, tmp_path):
    package = tmp_path / ".venv" / "site-packages" / "expvqa_lib" / "pipeline"
    package.mkdir(parents=True)
    git(tmp_path, "init", "commit --allow-empty -m other")
    monkeypatch.setattr(checkout, "__file__", str(package / "checkout.py"))
    assert checkout.repository_root() is None and checkout.git_commit() == ""
    (tmp_path / ".venv" / "notebooks").mkdir()
    (tmp_path / ".venv" / "pyproject.toml").touch()  # a checkout without git, within another repository
    assert checkout.repository_root() == tmp_path / ".venv" and checkout.git_commit() == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "fast"}, "profile 'fast' is unknown"),
        ({"profile": "paper"}, "--data-root DIR"),
        ({"profile": "paper", "data_root": "/nowhere"}, "data root /nowhere: no such folder"),
        ({"profile": "quick", "data_root": "/data"}, "data_root='/data'"),
    ],
)
def test_profiles_that_cannot_run_are_refused(options, message):
    with pytest.raises(SettingsError, match=message):
        Run(**options)


def test_the_smoke_profile_is_a_miniature_and_the_full_ones_differ_by_ablations_alone():
    quick, smoke = profiles.get("quick"), profiles.get("smoke")
    for field in vars(quick.corpora):
        small, large = getattr(smoke.corpora, field), getattr(quick.corpora, field)
        if field in ("image", "seed"):
            assert small == large
        else:
            assert (np.array(small) > 0).all() and (np.array(small) < large).all()
    assert smoke.exp_vqa.steps < quick.exp_vqa.steps and smoke.resamples < quick.resamples
    for name, full in (("quick", "full"), ("paper", "paper-full")):
        assert replace(profiles.get(full), name=name, ablations=False, probe_epochs=0) == profiles.get(name)
