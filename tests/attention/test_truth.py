"""How true relevance maps are: the measures on maps and models whose truth is known."""

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
from expvqa_lib.attention.truth import close_gaps, deletion_insertion, pointing_cases, randomised
from expvqa_lib.data import labelled_aus
from expvqa_lib.evaluation.metrics import COLUMNS
from expvqa_lib.evaluation.tables import MAIN
from expvqa_lib.expvqa import ExpVQA
from expvqa_lib.facs import ACTION_UNITS, BP4D_AUS
from expvqa_lib.questions import ask_q3
from expvqa_lib.synthfacs import Face, au_mask

RANDOMISED = f"{MAIN}_randomised"


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
    assert all(case[f"AU{case['au']}"] == 1 for _, case in cases.iterrows())
    assert cases["question"].tolist() == [ask_q3(au) for au in cases["au"]]
    assert not cases[["image", "au"]].duplicated().any()
    expected = {au: min(2, faces[f"AU{au}"].eq(1).sum()) for au in labelled_aus(faces)}
    assert cases["au"].value_counts().to_dict() == {au: count for au, count in expected.items() if count}


@pytest.mark.parametrize(("is_true", "p_yes"), [(True, 1.0), (False, 1.0), (True, 0.4)])
def test_a_perfect_map_scores_100_one_that_looks_away_0_and_a_missed_au_is_not_detected(
    run, set_maps, is_true, p_yes
):
    set_maps(lambda *_: is_true, p_yes)
    table, cases = pointing(run), pointing_cases(run, 2)
    assert list(table.columns) == list(COLUMNS) and set(table["model"]) == {MAIN, "base"}
    metrics = dict(list(table.groupby("metric")))
    assert (metrics["pointing_accuracy"][["value", "low", "high"]] == 100 * is_true).all(axis=None)
    detected = metrics["pointing_detected"]
    assert detected["value"].eq(100 * is_true).all() if p_yes > 0.5 else detected["value"].isna().all()
    assert p_yes > 0.5 or detected["support"].eq(0).all()
    pairs = zip(cases["face"], cases["au"], strict=True)
    areas = pd.Series([100 * au_mask(Face.from_json(face), au).mean() for face, au in pairs])
    shares = areas.groupby(cases["au"].to_numpy()).mean()
    chance = metrics["chance"].query(f"model == '{MAIN}'").set_index("target")
    np.testing.assert_allclose(chance["value"], [*shares, shares.mean()])
    assert chance.at["macro", "support"] == len(cases)


def test_a_run_points_with_its_model_and_with_the_base(run):
    table = pointing(run)
    counts = table[(table["metric"] == "chance") & (table["target"] != "macro")].groupby("model")["support"]
    assert counts.max().to_dict() == {MAIN: 2, "base": 1}  # of 4 faces an AU a half, and a fifth
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


def test_a_true_map_has_everything_a_false_one_nothing_and_a_uniform_one_chance(run, set_maps):
    set_maps(lambda is_model, method: is_model and method == "guided_gradients")
    table = faithfulness(run)
    assert list(table.columns) == [*COLUMNS, "method"]
    macro = table[table["target"] == "macro"].set_index(["model", "method", "metric"])["value"]
    for metric in ("pointing_accuracy", "pointing_region", "pointing_patch", "energy"):
        assert macro[MAIN, "guided_gradients", metric] == pytest.approx(100)
    for place in ((MAIN, "rollout"), (RANDOMISED, "guided_gradients"), (RANDOMISED, "rollout")):
        assert macro[*place, "pointing_accuracy"] == macro[*place, "energy"] == 0
    uniform = table[table["method"] == "uniform"].pivot(index="target", columns="metric", values="value")
    for metric in ("pointing_accuracy", "energy"):
        np.testing.assert_allclose(uniform[metric], uniform["area"], rtol=1e-4)
    assert 0 < uniform.loc["macro", "area"] < 30
    assert (uniform["pointing_region"] > uniform["pointing_accuracy"]).all()


def test_a_run_scores_every_method_where_its_model_detects_the_au(run, model, processor, faces):
    answer_always(model, "yes", processor, faces["image"].iat[0])
    table = faithfulness(run)
    assert set(table["model"]) == {MAIN, RANDOMISED} and table["value"].between(0, 100).all()
    assert set(table["method"]) == {*METHODS, "uniform", "centre"}
    layout = faithfulness_layout(table)
    assert len(layout) == 2 * len(METHODS) + 2 and layout["energy"].between(0, 100).all()


@pytest.mark.parametrize("is_rendered", [True, False])
def test_where_nothing_is_detected_or_drawn_tables_are_empty(run, model, processor, faces, is_rendered):
    answer_always(model, "no", processor, faces["image"].iat[0])
    run.is_rendered = is_rendered
    table = faithfulness(run)
    assert list(table) == [*COLUMNS, "method"] and table.empty and faithfulness_layout(table).empty
    assert is_rendered or (pointing(run).empty and pointing_layout(pointing(run)).empty)


def test_blurring_the_deciding_patch_first_lowers_the_curve_most(model, processor):
    look_only_at(model, 5)
    picture = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    maps = np.zeros((16, 4, 4), np.float32)
    maps.reshape(16, 16)[np.arange(16), np.arange(16)] = 1
    cases = pd.DataFrame({"image": [picture] * 16, "question": ask_q3(12)})
    curves = deletion_insertion(ExpVQA(model, processor), cases, maps, seed=0)
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


def test_closing_fills_gaps_between_pixels_and_adds_nothing_beyond():
    mask = np.zeros((48, 48), bool)
    mask[10, 5:20] = mask[13, 5:20] = True  # two lines with a gap of two pixels, as of lids
    mask[30, 5:20] = True
    region = close_gaps(mask)
    assert region[10:14, 5:20].all() and region.sum() == 4 * 15 + 15
