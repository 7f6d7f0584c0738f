"""How true relevance maps are: the measures on maps and models whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from test_attention import look_only_at
from test_evaluation import COLUMNS, part, value

from expvqa_lib.attention import explain as attention
from expvqa_lib.attention.explain import METHODS
from expvqa_lib.attention.faithfulness import (
    CONTROLS,
    RANDOMISED,
    SHARES,
    deletion_insertion,
    faithfulness,
    pointing,
    pointing_cases,
    randomised,
    widen,
)
from expvqa_lib.data.table import labelled_aus
from expvqa_lib.evaluation.tables import MAIN
from expvqa_lib.facs import ACTION_UNITS, BP4D_AUS
from expvqa_lib.questions import ask_q3
from expvqa_lib.synthfacs import Face, au_mask


@pytest.fixture
def maps_of(monkeypatch):
    """Replace the attention maps, nothing else: how they are scored is what is tested."""

    def arrange(draw, p_yes: float = 1.0) -> list[dict]:
        calls = []

        def relevance(model, processor, images, asked, **options):
            calls.append({"images": images, "asked": asked} | options)
            return (
                np.stack([draw(k) for k in range(len(images))]).astype(np.float32),
                np.full(len(images), p_yes),
                None,
            )

        monkeypatch.setattr(attention, "relevance", relevance)
        return calls

    return arrange


def regions(faces: pd.DataFrame, each: int, seed: int) -> list[np.ndarray]:
    cases = pointing_cases(faces, each, seed)
    return [
        au_mask(Face.from_json(faces["face"].iat[r]), au)
        for r, au in zip(cases["row"], cases["au"], strict=True)
    ]


def test_cases_are_faces_that_show_the_au(faces):
    test = part(faces, "wild")
    cases = pointing_cases(test, 2, seed=0)
    assert all(test[ACTION_UNITS[au].name].iat[row] == 1 for row, au in cases.itertuples(index=False))
    assert not cases.duplicated().any()
    counts = cases["au"].value_counts()
    for au in labelled_aus(test):
        assert counts.get(au, 0) == min(2, (test[ACTION_UNITS[au].name] == 1).sum())


def test_a_perfect_map_scores_100_and_one_that_looks_away_0(faces, maps_of):
    test = part(faces, "lab")
    masks = regions(test, 3, 5)
    calls = maps_of(lambda k: masks[k])
    table = pointing(None, None, test, 3, method="gradient_patch", resamples=20, seed=5)
    assert list(table.columns) == COLUMNS
    assert (table.loc[table["metric"] == "pointing_accuracy", ["value", "low", "high"]] == 100).all(axis=None)
    (call,) = calls
    assert (
        call["method"] == "gradient_patch"
        and set(call["targets"]) == {"yes"}
        and len(call["asked"]) == len(masks)
    )
    maps_of(lambda k: ~masks[k])
    away = pointing(None, None, test, 3, resamples=20, seed=5)
    assert (away.loc[away["metric"] == "pointing_accuracy", ["value", "low", "high"]] == 0).all(axis=None)


def test_chance_is_the_regions_share_of_the_pixels(faces, maps_of):
    test = part(faces, "lab")
    masks, cases = regions(test, 3, 5), pointing_cases(test, 3, 5)
    maps_of(lambda k: masks[k])
    table = pointing(None, None, test, 3, resamples=20, seed=5)
    shares = pd.Series([mask.mean() * 100 for mask in masks]).groupby(cases["au"]).mean()
    for au, share in shares.items():
        assert value(table, MAIN, f"AU{au}", "chance") == pytest.approx(share)
    assert value(table, MAIN, "macro", "chance") == pytest.approx(shares.mean())
    assert table.loc[table["target"] == "macro", "support"].tolist() == [len(cases)] * 5


def test_pointing_asks_the_model_itself(model, processor, faces):
    test = part(faces, "lab")
    table = pointing(model, processor, test, 1, resamples=10)
    hits = table.loc[(table["metric"] == "pointing_accuracy") & (table["target"] != "macro"), "value"]
    assert set(hits) <= {0.0, 100.0}
    again = pointing(model, processor, test, 1, resamples=10)
    pd.testing.assert_frame_equal(table, again)


def test_what_the_model_does_not_see_counts_only_among_all(faces, maps_of):
    test = part(faces, "lab")
    masks = regions(test, 3, 5)
    maps_of(lambda k: masks[k], p_yes=0.4)
    table = pointing(None, None, test, 3, resamples=20, seed=5)
    assert value(table, MAIN, "macro", "pointing_accuracy") == 100
    assert np.isnan(value(table, MAIN, "macro", "pointing_detected"))
    assert table.loc[table["metric"] == "pointing_detected", "support"].eq(0).all()


# ---------------------------------------------------------------------------------------------------------- faithfulness


@torch.no_grad()
def say(model, answer: str, processor, image: str) -> None:
    """Let the language model answer every Q3 by yes or no, whatever it sees: along the mean state that it answers from."""
    head, states = model.language_model.lm_head, []
    with head.register_forward_pre_hook(lambda module, given: states.append(given[0])):
        attention.relevance(
            model,
            processor,
            [image] * len(BP4D_AUS),
            [ask_q3(au) for au in BP4D_AUS],
            method="cross_attention",
        )
    yes, no = attention.first_tokens(processor, ["yes", "no"])
    strong = (100 if answer == "yes" else -100) * states[0].mean(0)  # stronger than any other spelling
    head.weight[yes], head.weight[no] = strong, -strong


@pytest.fixture
def scored(model, processor, faces, monkeypatch) -> pd.DataFrame:
    """The table of a model that sees every AU, with one method that tells the truth and one that looks away."""
    test = part(faces, "lab")

    def relevance(asked_of, processor, images, asked, method, **options):
        names = {ask_q3(au): au for au in ACTION_UNITS}
        rows = test.set_index("image")["face"]
        masks = np.stack(
            [au_mask(Face.from_json(rows[i]), names[q]) for i, q in zip(images, asked, strict=True)]
        )
        maps = masks if method == "truth" and asked_of is model else ~masks
        return maps.astype(np.float32), np.ones(len(images)), None

    monkeypatch.setattr(attention, "relevance", relevance)
    return faithfulness(model, processor, test, 2, 1, methods=("truth", "lie"), resamples=20, seed=3)


def test_a_true_map_has_everything_and_a_false_one_nothing(scored):
    def of(model: str, method: str, metric: str) -> float:
        return value(scored[scored["method"] == method], model, "macro", metric)

    assert list(scored.columns) == [*COLUMNS, "method"]
    for metric in ("pointing_accuracy", "pointing_region", "pointing_patch", "energy"):
        assert of(MAIN, "truth", metric) == pytest.approx(100)
    for model, method in ((MAIN, "lie"), (RANDOMISED, "truth"), (RANDOMISED, "lie")):
        assert of(model, method, "pointing_accuracy") == of(model, method, "energy") == 0
    assert 0 <= of(MAIN, "truth", "deletion") <= 100 and 0 <= of(MAIN, "truth", "insertion") <= 100


def test_a_uniform_map_has_chance(scored):
    uniform = scored[scored["method"] == "uniform"].pivot(index="target", columns="metric", values="value")
    np.testing.assert_allclose(uniform["pointing_accuracy"], uniform["area"], rtol=1e-4)
    np.testing.assert_allclose(uniform["energy"], uniform["area"], rtol=1e-4)
    assert set(scored["method"]) == {"truth", "lie", *CONTROLS} and 0 < uniform.loc["macro", "area"] < 30
    assert (uniform["pointing_region"] > uniform["pointing_accuracy"]).all()


def test_the_table_asks_the_model_itself_and_leaves_out_what_it_misses(model, processor, faces):
    test = part(faces, "lab")
    settings = {"methods": METHODS[2:4], "resamples": 10, "seed": 1}
    say(model, "no", processor, test["image"].iat[0])
    assert faithfulness(model, processor, test, 1, 1, **settings).empty
    say(model, "yes", processor, test["image"].iat[0])
    table = faithfulness(model, processor, test, 1, 1, **settings)
    assert set(table["model"]) == {MAIN, RANDOMISED} and set(table["method"]) == {*METHODS[2:4], *CONTROLS}
    assert table["value"].between(0, 100).all()
    assert table[table["target"] == "macro"]["support"].gt(3).all()


def test_taking_away_the_deciding_patch_first_lowers_the_curve_most(model, processor, faces):
    look_only_at(model, 5)
    picture = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    maps = np.zeros((16, 4, 4), np.float32)
    maps.reshape(16, 16)[np.arange(16), np.arange(16)] = 1
    images, asked = [picture] * 16, [ask_q3(12)] * 16
    curves = deletion_insertion(model, processor, images, asked, maps)
    whole = attention.relevance(model, processor, images, asked, method="cross_attention")[1]
    np.testing.assert_allclose(
        [curves[0][0], curves[1][-1]], [whole, whole], atol=1e-4
    )  # nothing is taken away, everything is shown
    deletion, insertion = (np.trapezoid(curve, SHARES, axis=0) for curve in curves)
    swing = np.abs(deletion - insertion)
    assert int(swing.argmax()) == 5
    np.testing.assert_allclose(
        deletion + insertion, (deletion + insertion)[0], atol=1e-3
    )  # one patch decides: it is blurred or not


def test_a_randomised_model_has_the_same_values_elsewhere(model):
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    other = dict(randomised(model, seed=1).named_parameters())
    name = "qformer.encoder.layer.0.crossattention.attention.key.weight"
    assert not torch.equal(other[name], before[name]) and torch.equal(
        other[name].flatten().sort()[0], before[name].flatten().sort()[0]
    )
    assert all(torch.equal(weight, before[n]) for n, weight in model.named_parameters())
    again = dict(randomised(model, seed=1).named_parameters())
    assert torch.equal(again[name], other[name]) and not torch.equal(
        dict(randomised(model, seed=2).named_parameters())[name], other[name]
    )


def test_a_region_grows_each_way_by_its_reach():
    region = np.zeros((1, 9, 9), bool)
    region[0, 4, 4] = True
    assert (
        widen(region, 0).sum() == 1 and widen(region, 2).sum() == 25 and widen(region, 2)[0, 2:7, 2:7].all()
    )
