"""How true relevance maps are: the measures on maps and models whose truth is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import look_only_at

from expvqa_lib.attention import (
    METHODS,
    Relevance,
    faithfulness,
    faithfulness_layout,
    pointing,
    pointing_layout,
    relevance,
)
from expvqa_lib.attention.methods import first_tokens
from expvqa_lib.attention.truth import deletion_insertion, pointing_cases, randomised
from expvqa_lib.data import labelled_aus
from expvqa_lib.evaluation.metrics import COLUMNS
from expvqa_lib.evaluation.tables import MAIN
from expvqa_lib.facs import ACTION_UNITS, BP4D_AUS
from expvqa_lib.questions import ask_q3
from expvqa_lib.synthfacs import Face, au_mask

RANDOMISED = f"{MAIN}_randomised"


def value(table: pd.DataFrame, model: str, target: str, metric: str) -> float:
    return table.set_index(["model", "target", "metric"])["value"][model, target, metric]


@pytest.fixture
def set_maps(run, faces, model, monkeypatch):
    """Replace the attention maps by true masks or their opposite: how they are scored is tested."""
    names = {ask_q3(au): au for au in ACTION_UNITS}
    drawn = faces.set_index("image")["face"]

    def replace(is_true, p_yes: float = 1.0) -> None:
        def fake(explained, processor, images, questions, *, method, **options):
            pairs = zip(images, questions, strict=True)
            masks = np.stack([au_mask(Face.from_json(drawn[image]), names[text]) for image, text in pairs])
            maps = masks if is_true(explained is model, method) else ~masks
            return Relevance(maps.astype(np.float32), np.full(len(images), p_yes), [])

        monkeypatch.setattr("expvqa_lib.attention.truth.relevance", fake)

    return replace


def test_cases_are_faces_that_show_the_au(run):
    cases, faces = pointing_cases(run, 2), run.faces_of("synth_lab")
    assert all(case[ACTION_UNITS[case["au"]].name] == 1 for _, case in cases.iterrows())
    assert all(case["question"] == ask_q3(case["au"]) for _, case in cases.iterrows())
    assert not cases[["image", "au"]].duplicated().any()
    counts = cases["au"].value_counts()
    for au in labelled_aus(faces):
        assert counts.get(au, 0) == min(2, (faces[ACTION_UNITS[au].name] == 1).sum())


@pytest.mark.parametrize(("is_true", "score"), [(True, 100), (False, 0)])
def test_a_perfect_map_scores_100_and_one_that_looks_away_0(run, set_maps, is_true, score):
    set_maps(lambda *_: is_true)
    table = pointing(run)
    assert list(table.columns) == list(COLUMNS) and set(table["model"]) == {MAIN, "base"}
    scores = table.loc[table["metric"] == "pointing_accuracy", ["value", "low", "high"]]
    assert (scores == score).all(axis=None)


def test_chance_is_the_regions_share_of_the_pixels(run, set_maps):
    set_maps(lambda *_: True)
    table, cases = pointing(run), pointing_cases(run, 2)
    pairs = zip(cases["face"], cases["au"], strict=True)
    masks = np.stack([au_mask(Face.from_json(face), au) for face, au in pairs])
    shares = pd.Series(masks.mean((1, 2)) * 100).groupby(cases["au"]).mean()
    for au, share in shares.items():
        assert value(table, MAIN, f"AU{au}", "chance") == pytest.approx(share)
    assert value(table, MAIN, "macro", "chance") == pytest.approx(shares.mean())
    macro = table[(table["target"] == "macro") & (table["model"] == MAIN)]
    assert macro["support"].tolist() == [len(cases)] * 5


def test_an_au_that_the_model_misses_counts_only_among_all(run, set_maps):
    set_maps(lambda *_: True, p_yes=0.4)
    table = pointing(run)
    assert value(table, MAIN, "macro", "pointing_accuracy") == 100
    assert np.isnan(value(table, MAIN, "macro", "pointing_detected"))
    assert table.loc[table["metric"] == "pointing_detected", "support"].eq(0).all()


def test_a_run_points_with_its_model_and_with_the_base(run):
    table = pointing(run)
    counts = table[(table["metric"] == "chance") & (table["target"] != "macro")].groupby("model")
    counts = counts["support"].max()
    assert counts[MAIN] == 2 and counts["base"] == 1  # of 4 faces an AU a half, and a fifth
    pd.testing.assert_frame_equal(table, pointing(run))
    layout = pointing_layout(table)
    assert list(layout) == ["Base, untuned", "Exp-VQA", "chance"] and layout.loc["Average"].notna().all()


@torch.no_grad()
def answer_always(model, answer: str, processor, image: str) -> None:
    """Make the language model answer every Q3 by yes or no: along the mean state that it answers from."""
    head, states = model.language_model.lm_head, []
    with head.register_forward_pre_hook(lambda module, given: states.append(given[0])):
        questions = [ask_q3(au) for au in BP4D_AUS]
        relevance(model, processor, [image] * len(questions), questions, method="cross_attention")
    yes, no = first_tokens(processor, ["yes", "no"])
    strong = (100 if answer == "yes" else -100) * states[0].mean(0)  # stronger than any other spelling
    head.weight[yes], head.weight[no] = strong, -strong


@pytest.fixture
def table(run, set_maps) -> pd.DataFrame:
    """Of a model that detects every AU: one method tells the truth, but not of permuted weights."""
    set_maps(lambda is_model, method: is_model and method == "guided_gradients")
    return faithfulness(run)


def test_a_true_map_has_everything_and_a_false_one_nothing(table):
    def macro(model: str, method: str, metric: str) -> float:
        return value(table[table["method"] == method], model, "macro", metric)

    assert list(table.columns) == [*COLUMNS, "method"]
    for metric in ("pointing_accuracy", "pointing_region", "pointing_patch", "energy"):
        assert macro(MAIN, "guided_gradients", metric) == pytest.approx(100)
    for model, method in ((MAIN, "rollout"), (RANDOMISED, "guided_gradients"), (RANDOMISED, "rollout")):
        assert macro(model, method, "pointing_accuracy") == macro(model, method, "energy") == 0


def test_a_uniform_map_has_chance(table):
    uniform = table[table["method"] == "uniform"].pivot(index="target", columns="metric", values="value")
    np.testing.assert_allclose(uniform["pointing_accuracy"], uniform["area"], rtol=1e-4)
    np.testing.assert_allclose(uniform["energy"], uniform["area"], rtol=1e-4)
    assert set(table["method"]) == {*METHODS, "uniform", "centre"} and 0 < uniform.loc["macro", "area"] < 30
    assert (uniform["pointing_region"] > uniform["pointing_accuracy"]).all()


def test_a_run_scores_every_method_where_its_model_detects_the_au(run, model, processor, faces):
    answer_always(model, "yes", processor, faces["image"].iat[0])
    table = faithfulness(run)
    assert set(table["model"]) == {MAIN, RANDOMISED}
    assert set(table["method"]) == {*METHODS, "uniform", "centre"}
    assert table["value"].between(0, 100).all()
    layout = faithfulness_layout(table)
    assert len(layout) == 2 * len(METHODS) + 2 and layout["energy"].between(0, 100).all()


@pytest.mark.parametrize("reason", ["nothing detected", "not drawn"])
def test_where_nothing_can_be_measured_tables_are_empty(run, model, processor, faces, reason):
    answer_always(model, "no", processor, faces["image"].iat[0])
    run.is_drawn = reason != "not drawn"
    table = faithfulness(run)
    assert table.empty and list(table) == [*COLUMNS, "method"]
    assert faithfulness_layout(table).empty
    if not run.is_drawn:
        assert pointing(run).empty and pointing_layout(pointing(run)).empty


def test_blurring_the_deciding_patch_first_lowers_the_curve_most(model, processor):
    look_only_at(model, 5)
    picture = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    maps = np.zeros((16, 4, 4), np.float32)
    maps.reshape(16, 16)[np.arange(16), np.arange(16)] = 1
    cases = pd.DataFrame({"image": [picture] * 16, "question": ask_q3(12)})
    curves = deletion_insertion(SimpleNamespace(model=model, processor=processor), cases, maps, seed=0)
    whole = relevance(model, processor, list(cases["image"]), list(cases["question"]), method="rollout").p_yes
    for end in ("deletion_0", "insertion_100"):  # nothing is blurred, everything is shown
        np.testing.assert_allclose(curves[end], whole, atol=1e-4)
    assert int((curves["deletion"] - curves["insertion"]).abs().argmax()) == 5
    both = curves["deletion"] + curves["insertion"]  # one patch decides: it is blurred or not
    np.testing.assert_allclose(both, both[0], atol=1e-3)


def test_a_randomised_model_has_the_same_values_elsewhere(model):
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    other, again, different = (dict(randomised(model, seed).named_parameters()) for seed in (1, 1, 2))
    name = "qformer.encoder.layer.0.crossattention.attention.key.weight"
    assert not torch.equal(other[name], before[name])
    assert torch.equal(other[name].flatten().sort()[0], before[name].flatten().sort()[0])
    assert all(torch.equal(weight, before[n]) for n, weight in model.named_parameters())
    assert torch.equal(again[name], other[name]) and not torch.equal(different[name], other[name])
