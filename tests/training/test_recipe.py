"""The recipe: the learning rate step by step, and the paper's settings against the published table."""

import math

import numpy as np
import pandas as pd
import pytest

from expvqa_lib.errors import SettingsError
from expvqa_lib.evaluation import published
from expvqa_lib.training import PAPER, Recipe, change, learning_rate


def reference_rate(epoch: int, step: int) -> float:
    """The rule of `hyperparameters_exp_vqa.csv`: by step in epoch 0, then one cosine value an epoch."""
    if epoch == 0:
        return min(1e-5, 1e-8 + (1e-5 - 1e-8) * step / 1000)
    return 1e-5 * 0.5 * (1 + math.cos(math.pi * epoch / 6))


@pytest.mark.parametrize("steps_an_epoch", [1500, 700])
def test_the_references_schedule_step_by_step(steps_an_epoch):
    """Also where the first epoch is shorter than the warm-up, and the peak is never reached."""
    for epoch in range(6):
        for step in (0, 1, 500, steps_an_epoch - 1):
            rate = 1e-5 * learning_rate(PAPER, epoch * steps_an_epoch + step, 6 * steps_an_epoch)
            assert rate == pytest.approx(reference_rate(epoch, step), rel=1e-12)


def test_the_cosine_schedule_warms_up_and_ends_near_zero():
    rates = np.array([learning_rate(Recipe(warmup=0.1), step, 100) for step in range(100)])
    assert rates[0] == 0 and rates[10] == 1 == rates.max() and rates[99] < 0.001
    assert (np.diff(rates[:11]) > 0).all() and (np.diff(rates[10:]) < 0).all()


def test_the_papers_recipe_is_the_published_table():
    table = pd.read_csv(published.FOLDER / "hyperparameters_exp_vqa.csv").set_index("setting")["value"]
    numbers = {"peak_lr": PAPER.learning_rate, "warmup_start_lr": PAPER.warmup_start}
    numbers |= {"warmup_steps": PAPER.warmup, "epochs": PAPER.epochs}
    numbers |= {"per_gpu": PAPER.images * PAPER.pairs_per_image * PAPER.accumulate}
    assert table[[*numbers]].astype(float).to_dict() == numbers
    texts = {"weight_decay": PAPER.weight_decay, "gradient_clipping": "none", "seed": PAPER.seed}
    texts |= {"max_words": f"{PAPER.max_words}:", "randaugment": f"{PAPER.randaugment} draws"}
    texts |= {"workers": PAPER.workers}
    assert all(table[name].startswith(str(text)) for name, text in texts.items())
    assert "0.9 0.999" in table["betas_eps"] and PAPER.betas == (0.9, 0.999)
    assert f"area {PAPER.crop[0]}-{PAPER.crop[1]}" in table["train_crop"]
    assert (PAPER.clip, PAPER.vision_learning_rate, PAPER.precision) == (0, None, "float16")
    assert PAPER.reference_text and PAPER.gradient_checkpointing


def test_settings_out_of_range_are_named():
    for changes, message in (
        ({"schedule": "linear"}, "Recipe.schedule='linear'.* cosine, reference"),
        ({"precision": "int8"}, "Recipe.precision='int8'.* float32, bfloat16, float16"),
        ({"steps": None}, "Recipe.steps=None, Recipe.epochs=None"),
        ({"epochs": 3}, "Recipe.steps=1000, Recipe.epochs=3"),
        ({"schedule": "reference"}, "Recipe.schedule='reference'"),
        ({"images": 0}, "Recipe.images=0"),
        ({"steps": 0}, "Recipe.steps=0"),
        ({"warmup": -1}, "Recipe.warmup=-1"),
        ({"learning_rate": math.nan}, "Recipe.learning_rate=nan"),
    ):
        with pytest.raises(SettingsError, match=message):
            Recipe(**changes)


def test_a_change_brings_along_what_follows_from_it():
    small = change(PAPER, steps=50, warmup=5, learning_rate=1e-4)
    assert (small.epochs, small.schedule, small.vision_learning_rate) == (None, "cosine", None)
    assert learning_rate(small, 5, 50) == 1 > learning_rate(small, 4, 50)
    assert change(Recipe(), epochs=2).steps is None
    assert change(Recipe(), learning_rate=2e-3).vision_learning_rate == pytest.approx(3e-4)
    with pytest.raises(SettingsError, match="give one, not both"):
        change(PAPER, steps=50, epochs=2)
