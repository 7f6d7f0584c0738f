"""The recipe: the reference's learning rate step by step, and the paper's settings against the published
table."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from expvqa_lib.errors import SettingsError
from expvqa_lib.evaluation.published import FOLDER
from expvqa_lib.training.recipe import PAPER, Recipe, learning_rate


def reference_rate(epoch: int, step: int, *, peak=1e-5, start=1e-8, warmup=1000, epochs=6) -> float:
    """The rule in words of `hyperparameters_exp_vqa.csv`: by step while epoch = 0, else one cosine value an
    epoch."""
    if epoch == 0:
        return min(peak, start + (peak - start) * step / warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * epoch / epochs))


@pytest.mark.parametrize("steps_an_epoch", [1500, 700])
def test_the_references_schedule_exactly(steps_an_epoch):
    """Also where the first epoch is shorter than the warm-up: the peak is never reached then."""
    total = 6 * steps_an_epoch
    for step in (
        0,
        1,
        500,
        steps_an_epoch - 1,
        *(e * steps_an_epoch + k for e in range(1, 6) for k in (0, 77)),
        total - 1,
    ):
        mine = PAPER.learning_rate * learning_rate(PAPER, step, total)
        assert mine == pytest.approx(reference_rate(step // steps_an_epoch, step % steps_an_epoch), rel=1e-12)


def test_the_constant_rates_of_the_later_epochs_are_the_published_ones():
    rates = [PAPER.learning_rate * learning_rate(PAPER, 2000 * epoch, 12000) for epoch in range(1, 6)]
    assert rates == pytest.approx([9.330e-6, 7.500e-6, 5.000e-6, 2.500e-6, 6.699e-7], rel=1e-3)
    assert PAPER.learning_rate * learning_rate(PAPER, 0, 12000) == pytest.approx(1e-8)
    assert learning_rate(PAPER, 1000, 12000) == learning_rate(PAPER, 1999, 12000) == 1


def test_the_cosine_schedule_warms_up_and_ends_near_zero():
    rates = [learning_rate(Recipe(warmup=0.1), step, 100) for step in range(100)]
    assert rates[0] == 0 and rates[10] == 1 == max(rates) and rates[99] < 0.001
    assert all(a < b for a, b in zip(rates[:10], rates[1:11], strict=True)) and all(
        a > b for a, b in zip(rates[10:], rates[11:], strict=False)
    )


def test_the_papers_recipe_is_the_published_table():
    table = pd.read_csv(FOLDER / "hyperparameters_exp_vqa.csv").set_index(["group", "setting"])["value"]
    assert float(table["schedule", "peak_lr"]) == PAPER.learning_rate and PAPER.vision_learning_rate is None
    assert float(table["schedule", "warmup_start_lr"]) == PAPER.warmup_start
    assert (
        int(table["schedule", "warmup_steps"]) == PAPER.warmup_steps
        and int(table["schedule", "epochs"]) == PAPER.epochs
    )
    assert table["optimizer", "weight_decay"].startswith(str(PAPER.weight_decay))
    assert "0.9 0.999" in table["optimizer", "betas_eps"] and PAPER.betas == (0.9, 0.999)
    assert table["optimizer", "gradient_clipping"] == "none" and PAPER.clip == 0
    assert int(table["batch", "per_gpu"]) == PAPER.images * PAPER.pairs_per_image and PAPER.accumulate == 1
    assert table["text", "max_words"].startswith(f"{PAPER.max_words}:") and PAPER.reference_text
    assert f"area {PAPER.crop[0]}-{PAPER.crop[1]}" in table["image", "train_crop"]
    assert (
        table["image", "randaugment"].startswith(f"{PAPER.randaugment[0]} draws")
        and "magnitude 5" in table["image", "randaugment"]
    )
    assert (
        PAPER.randaugment[1] == 5
        and PAPER.gradient_checkpointing
        and PAPER.precision == "float16"
        and PAPER.seed == 42
    )
    assert table["run", "seed"].startswith("42") and table["run", "workers"].startswith(str(PAPER.workers))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "linear"}, "Recipe.schedule='linear' is unknown; known are cosine, reference"),
        ({"precision": "int8"}, "Recipe.precision='int8' is unknown; known are float32, bfloat16, float16"),
        ({"steps": None}, "give one"),
        ({"epochs": 3}, "give one"),
        ({"schedule": "reference"}, "counts epochs: give Recipe.epochs"),
        ({"images": 0}, "Recipe.images=0: expected 1 or more"),
        ({"max_words": 0}, "Recipe.max_words=0"),
    ],
)
def test_settings_out_of_range_are_named(changes, message):
    with pytest.raises(SettingsError, match=message):
        Recipe(**changes)
