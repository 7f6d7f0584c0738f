"""The recipe: the reference's learning rate step by step, and the paper's settings against the published
table."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from expvqa_lib.errors import SettingsError
from expvqa_lib.evaluation import published
from expvqa_lib.training import PAPER, Recipe, learning_rate


def reference_rate(epoch: int, step: int) -> float:
    """The rule of `hyperparameters_exp_vqa.csv` in words: by step in epoch 0, then one cosine value an
    epoch."""
    if epoch == 0:
        return min(1e-5, 1e-8 + (1e-5 - 1e-8) * step / 1000)
    return 1e-5 * 0.5 * (1 + math.cos(math.pi * epoch / 6))


@pytest.mark.parametrize("steps_an_epoch", [1500, 700])
def test_the_references_schedule_step_by_step(steps_an_epoch):
    """Also where the first epoch is shorter than the warm-up, and the peak is never reached."""
    total = 6 * steps_an_epoch
    for epoch in range(6):
        for step in (0, 1, 500, steps_an_epoch - 1):
            rate = 1e-5 * learning_rate(PAPER, epoch * steps_an_epoch + step, total)
            assert rate == pytest.approx(reference_rate(epoch, step), rel=1e-12)


def test_the_cosine_schedule_warms_up_and_ends_near_zero():
    rates = np.array([learning_rate(Recipe(warmup=0.1), step, 100) for step in range(100)])
    assert rates[0] == 0 and rates[10] == 1 == rates.max() and rates[99] < 0.001
    assert (np.diff(rates[:11]) > 0).all() and (np.diff(rates[10:]) < 0).all()


def test_the_papers_recipe_is_the_published_table():
    table = pd.read_csv(published.FOLDER / "hyperparameters_exp_vqa.csv").set_index(["group", "setting"])
    table = table["value"]
    assert float(table["schedule", "peak_lr"]) == PAPER.learning_rate and PAPER.vision_learning_rate is None
    assert float(table["schedule", "warmup_start_lr"]) == PAPER.warmup_start
    assert int(table["schedule", "warmup_steps"]) == PAPER.warmup_steps
    assert int(table["schedule", "epochs"]) == PAPER.epochs
    assert table["optimizer", "weight_decay"].startswith(str(PAPER.weight_decay))
    assert "0.9 0.999" in table["optimizer", "betas_eps"] and PAPER.betas == (0.9, 0.999)
    assert table["optimizer", "gradient_clipping"] == "none" and PAPER.clip == 0
    assert int(table["batch", "per_gpu"]) == PAPER.images * PAPER.pairs_per_image and PAPER.accumulate == 1
    assert table["text", "max_words"].startswith(f"{PAPER.max_words}:") and PAPER.reference_text
    assert f"area {PAPER.crop[0]}-{PAPER.crop[1]}" in table["image", "train_crop"]
    assert table["image", "randaugment"].startswith(f"{PAPER.randaugment} draws")
    assert PAPER.gradient_checkpointing and PAPER.precision == "float16"
    assert table["run", "seed"].startswith(str(PAPER.seed))
    assert table["run", "workers"].startswith(str(PAPER.workers))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "linear"}, "Recipe.schedule='linear'.* cosine, reference"),
        ({"precision": "int8"}, "Recipe.precision='int8'.* float32, bfloat16, float16"),
        ({"steps": None}, "Recipe.steps=None, Recipe.epochs=None"),
        ({"epochs": 3}, "Recipe.steps=1000, Recipe.epochs=3"),
        ({"schedule": "reference"}, "Recipe.schedule='reference'"),
        ({"images": 0}, "Recipe.images=0"),
        ({"max_words": 0}, "Recipe.max_words=0"),
    ],
)
def test_settings_out_of_range_are_named(changes, message):
    with pytest.raises(SettingsError, match=message):
        Recipe(**changes)
