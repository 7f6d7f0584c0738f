"""Probes find what is there and only that; features are pooled as said, looked at once, and independent of the batch."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from expvqa_lib.errors import SettingsError, TableError, TrainingError
from expvqa_lib.evaluation import probes as probing
from expvqa_lib.evaluation import representation
from expvqa_lib.evaluation.finetuned_probe import ProbeRecipe, finetuned_probe
from expvqa_lib.evaluation.metrics import au_table

NAMES = {"model": "m", "dataset": "d", "split": "test"}


def planted(n, seed, width=12):
    """Features whose first two columns say AU1 and AU4, on scales of their own; the third says the emotion; the rest is noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width))
    labels = pd.DataFrame(
        (x[:, :2] + rng.normal(0, 0.3, (n, 2)) > (0.8, 0.0)).astype(int), columns=["AU1", "AU4"], dtype="Int8"
    )
    emotions = pd.Series(
        np.select([x[:, 2] < -0.5, x[:, 2] > 0.5], ["anger", "fear"], "neutral"), dtype="string"
    )
    return x * np.geomspace(1e-3, 1e3, width) + 5, labels, emotions


def test_a_linear_probe_recovers_a_planted_signal():
    (x, y, e), (vx, vy, ve), (tx, ty, te) = planted(600, 0), planted(200, 1), planted(400, 2)
    told = probing.linear_probe(x, y, vx, vy, tx)
    auc = au_table(ty, told, **NAMES, resamples=0).set_index(["target", "metric"])["value"]
    assert auc["AU1", "auc"] > 95 and auc["AU4", "auc"] > 95 and auc["macro", "f1"] > 85
    emotions = probing.linear_probe(x, e, vx, ve, tx)
    assert emotions.columns.tolist() == ["anger", "fear", "neutral"] and np.allclose(emotions.sum(axis=1), 1)
    assert (emotions.idxmax(axis=1) == te).mean() > 0.9
    noise = probing.linear_probe(x[:, 3:], y, vx[:, 3:], vy, tx[:, 3:])
    assert (
        40
        < au_table(ty, noise, **NAMES, resamples=0).set_index(["target", "metric"])["value"]["macro", "auc"]
        < 60
    )


def test_a_probe_is_scikit_learns_with_the_strength_that_validation_likes_best():
    (x, y, _), (vx, vy, _), (tx, _, _) = planted(60, 0), planted(400, 1), planted(50, 2)
    told = probing.linear_probe(x, y, vx, vy, tx)
    scale = lambda f: (f - x.mean(0)) / x.std(0)  # noqa: E731
    losses = {}
    for strength in probing.STRENGTHS:
        fits = [
            LogisticRegression(C=strength, class_weight="balanced", max_iter=1000).fit(
                scale(x), y[au].astype(int)
            )
            for au in y
        ]
        loss = 0
        for au, fit in zip(y, fits, strict=True):
            right = np.where(
                vy[au] == 1, fit.predict_proba(scale(vx))[:, 1], fit.predict_proba(scale(vx))[:, 0]
            )
            loss -= np.mean([np.log(right[vy[au] == 0]).mean(), np.log(right[vy[au] == 1]).mean()])
        losses[loss] = np.stack([fit.predict_proba(scale(tx))[:, 1] for fit in fits], 1)
    assert np.allclose(told.to_numpy(), losses[min(losses)], atol=2e-3)


def test_unlabelled_rows_are_left_out_of_that_au_alone():
    (x, y, e), (vx, vy, ve), (tx, _, _) = planted(300, 0), planted(100, 1), planted(50, 2)
    y.loc[:99, "AU1"], e[:100] = pd.NA, pd.NA
    told = probing.linear_probe(x, y, vx, vy, tx)
    wrong = y.copy()
    wrong.loc[:99, "AU1"] = 1
    assert not np.allclose(probing.linear_probe(x, wrong, vx, vy, tx)["AU1"], told["AU1"], atol=0.05)
    every = planted(300, 0)[1]
    alone = probing.linear_probe(x, every[["AU4"]], vx, vy[["AU4"]], tx)
    both = probing.linear_probe(x, y[["AU4"]], vx, vy[["AU4"]], tx)
    assert np.allclose(alone, both)
    emotions = probing.linear_probe(x, e, vx, ve, tx)
    mean, spread = x.mean(0), x.std(0)
    wanted = probing.linear_probe(
        (x[100:] - mean) / spread, e[100:], (vx - mean) / spread, ve, (tx - mean) / spread
    )
    assert (emotions.idxmax(axis=1) == wanted.idxmax(axis=1)).mean() > 0.9


def test_an_au_of_one_class_and_one_without_labels_are_named_and_the_first_has_a_row():
    (x, y, _), (vx, vy, _), (tx, ty, _) = planted(300, 0), planted(100, 1), planted(50, 2)
    y = y.assign(AU12=0, AU20=pd.NA)
    with pytest.warns(UserWarning) as told:
        scores = probing.linear_probe(x, y, vx, vy.assign(AU12=0, AU20=0), tx)
    said = [str(w.message) for w in told]
    assert any("AU12: all training labels are 0" in text for text in said) and any(
        "left out: AU20" in text for text in said
    )
    assert list(scores) == ["AU1", "AU4", "AU12"] and (scores["AU12"] == 0).all()
    table = au_table(ty.assign(AU12=[1, 0] * 25), scores, **NAMES, resamples=0).set_index(
        ["target", "metric"]
    )
    assert (
        table.loc[("AU12", "f1"), ["value", "support"]].tolist() == [0, 25]
        and table.loc[("AU12", "auc"), "value"] == 50
    )


def test_bad_probes_are_named():
    x, y, e = planted(30, 0)
    with pytest.raises(TableError, match="training: 30 features for 29 labels"):
        probing.linear_probe(x, y[1:], x, y, x)
    with pytest.raises(TableError, match="no row has an emotion"):
        probing.linear_probe(x, e.where(e == "joy"), x, e, x)
    with pytest.raises(TableError, match="no AU column has a label"):
        probing.linear_probe(x, y[[]], x, y, x)


@pytest.fixture
def images(faces):
    return faces[faces["dataset"] == "synth_lab"]["image"].tolist()[:12]


def test_features_are_pooled_as_said_and_independent_of_the_batch(model, processor, images, tmp_path):
    pixels = probing.pixels_of(processor, images)
    with torch.no_grad():
        states = model.vision_model(pixels).last_hidden_state
        text = {
            f"qformer_{k}": v
            for k, v in processor.qformer_tokenizer([probing.QUESTION] * 12, return_tensors="pt").items()
        }
        text |= dict(processor.tokenizer([probing.QUESTION] * 12, return_tensors="pt"))
        own = model.get_image_features(
            pixels, text["qformer_input_ids"], text["qformer_attention_mask"], return_dict=True
        )
    wanted = {
        "encoder": states[:, 1:].mean(1),
        "qformer": own.qformer_outputs.last_hidden_state[:, : model.config.num_query_tokens].mean(1),
    }
    for part in probing.PARTS:
        found = probing.represent(model, processor, images, part, tmp_path / "a", batch=5)
        assert np.allclose(found, wanted[part].numpy(), atol=1e-5)
        assert np.allclose(
            found, probing.represent(model, processor, images, part, tmp_path / "b", batch=64), atol=1e-5
        )
    without = probing.represent(model, processor, images, "qformer", tmp_path / "a", question="")
    assert without.shape == found.shape and not np.allclose(without, found, atol=1e-3)
    with pytest.raises(SettingsError, match="part 'language' is unknown"):
        probing.represent(model, processor, images, "language", tmp_path / "c")


def test_features_are_kept_for_these_weights_alone(model, processor, images, tmp_path, monkeypatch):
    def count():
        return len(list(tmp_path.rglob("*.safetensors")))

    first = probing.represent(model, processor, images, "qformer", tmp_path)
    monkeypatch.setattr(probing, "pixels_of", None)  # whoever looks again, fails
    assert (
        np.array_equal(probing.represent(model, processor, images, "qformer", tmp_path), first)
        and count() == 1
    )
    monkeypatch.undo()
    model.query_tokens.data += 1
    assert (
        not np.allclose(probing.represent(model, processor, images, "qformer", tmp_path), first)
        and count() == 2
    )
    monkeypatch.setattr(probing, "pixels_of", None)  # one look serves both parts
    encoder = probing.represent(model, processor, images, "encoder", tmp_path)
    assert encoder.shape == (len(images), model.config.vision_config.hidden_size) and count() == 2


@pytest.fixture
def dark_and_light(tmp_path):
    """Images by split, and labels that a glance decides: AU1 where it is light, AU4 where it is red."""
    from PIL import Image

    rng = np.random.default_rng(0)
    images, labels = {}, {}
    for split, n in (("train", 48), ("validation", 24), ("test", 24)):
        y = rng.integers(0, 2, (n, 2))
        images[split] = [str(tmp_path / f"{split}{k}.png") for k in range(n)]
        for path, (light, red) in zip(images[split], y, strict=True):
            picture = rng.integers(90, 130, (48, 48, 3)) + 60 * light + 60 * red * np.array([1, -1, -1])
            Image.fromarray(picture.astype(np.uint8)).save(path)
        labels[split] = pd.DataFrame(y, columns=["AU1", "AU4"], dtype="Int8")
    return images, labels


def test_fine_tuning_learns_and_leaves_the_model_alone(model, processor, dark_and_light):
    images, labels = dark_and_light
    labels["train"].loc[:5, "AU4"] = pd.NA
    before = {name: value.clone() for name, value in model.state_dict().items()}
    recipe = ProbeRecipe(epochs=10, patience=2, images=8, learning_rate=1e-3, head_learning_rate=1e-2)
    scores, log = finetuned_probe(model, processor, images, labels, recipe=recipe)
    auc = au_table(labels["test"], scores, **NAMES, resamples=0).set_index(["target", "metric"])["value"]
    assert auc["macro", "auc"] > 95
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert (
        list(log) == ["epoch", "loss", "validation_loss"] and log["loss"].iloc[-1] < log["loss"].iloc[0] / 2
    )


def test_fine_tuning_without_hope_stops_after_its_patience_and_keeps_the_best_weights(
    model, processor, dark_and_light
):
    images, labels = dark_and_light
    opposite = labels | {"train": 1 - labels["train"]}
    recipe = ProbeRecipe(
        epochs=30, patience=2, images=8, learning_rate=1e-3, head_learning_rate=1e-2, flip=False
    )
    _, log = finetuned_probe(model, processor, images, opposite, recipe=recipe)
    best = int(log["validation_loss"].argmin())
    assert len(log) == best + 3 < 30
    kept, again = finetuned_probe(
        model, processor, images | {"test": images["validation"]}, opposite, recipe=recipe
    )
    pd.testing.assert_frame_equal(again, log, rtol=1e-3)
    y = labels["validation"].to_numpy(dtype=float)
    p = kept.to_numpy().clip(1e-6, 1 - 1e-6)
    positives = (1 - labels["train"]).sum().to_numpy(dtype=float)
    loss = -(y * np.log(p) * ((48 - positives) / positives) + (1 - y) * np.log(1 - p)).mean()
    assert loss == pytest.approx(log["validation_loss"].min(), abs=1e-3)


def test_fine_tuning_of_the_q_former_classifies_emotions(model, processor, dark_and_light):
    images, labels = dark_and_light
    names = {
        split: table["AU1"].map({1: "fear", 0: "anger"}).astype("string") for split, table in labels.items()
    }
    names["train"][0] = pd.NA
    recipe = ProbeRecipe(epochs=6, images=8, learning_rate=1e-3, head_learning_rate=1e-2)
    scores, _ = finetuned_probe(model, processor, images, names, "qformer", recipe=recipe)
    assert list(scores) == ["anger", "fear"] and (scores.idxmax(axis=1) == names["test"]).mean() > 0.9


def test_fine_tuning_names_what_stops_it(model, processor, dark_and_light):
    images, labels = dark_and_light
    with pytest.raises(TableError, match="validation: no image has a label"):
        finetuned_probe(
            model,
            processor,
            images,
            labels | {"validation": labels["validation"].replace({0: pd.NA, 1: pd.NA})},
        )
    with pytest.raises(TableError, match="train: 47 images for 48 labels"):
        finetuned_probe(model, processor, images | {"train": images["train"][1:]}, labels)
    with pytest.raises(TrainingError, match=r"epoch 1: loss nan; lower ProbeRecipe.learning_rate"):
        finetuned_probe(model, processor, images, labels, recipe=ProbeRecipe(learning_rate=float("nan")))


@pytest.mark.filterwarnings("ignore")  # in a miniature, AUs of one class and fits that did not converge
def test_the_papers_table_has_a_row_a_model_and_part(model, processor, faces, tmp_path, monkeypatch):
    monkeypatch.setattr(probing, "STRENGTHS", (0.01, 1.0))

    other = copy.deepcopy(model)
    torch.manual_seed(0)
    other.vision_model.post_layernorm.weight.data = torch.rand_like(other.vision_model.post_layernorm.weight)
    tables, differences = {}, {}
    for target, dataset in (("aus", "synth_lab"), ("emotion", "synth_emotion")):
        some = faces[faces["dataset"] == dataset].reset_index(drop=True)
        scores = {
            (name, part): representation.probe(m, processor, some, target, part, tmp_path)
            for name, m in (("base", model), ("exp_vqa", other))
            for part in probing.PARTS
        }
        tables[target] = representation.representation_table(some, scores, target, resamples=50)
        differences[target] = representation.representation_differences(some, scores, target, resamples=50)
    wide = representation.paper_layout(tables["aus"], tables["emotion"])
    assert wide["Model"].tolist() == ["Base, untuned", "Exp-VQA"] * 2
    assert wide["Features"].tolist() == ["Vision encoder"] * 2 + ["Q-Former"] * 2
    assert wide.columns.tolist()[2:] == [f"AU{n}" for n in (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)] + [
        "Average",
        "Emotion accuracy",
    ]
    aus = [c for c in wide if c.startswith("AU")]
    assert np.allclose(wide[aus].mean(axis=1), wide["Average"])
    gap = differences["aus"].set_index("part").loc["encoder"]
    assert (
        gap["value"] == pytest.approx(wide["Average"][1] - wide["Average"][0]) and gap["model"] == "exp_vqa"
    )
    assert differences["emotion"]["value"][0] == pytest.approx(
        wide["Emotion accuracy"][1] - wide["Emotion accuracy"][0]
    )


def test_a_table_without_a_split_is_named(model, processor, faces, tmp_path):
    lab = faces[(faces["dataset"] == "synth_lab") & (faces["split"] != "validation")]
    with pytest.raises(TableError, match="no faces in the split validation"):
        representation.probe(model, processor, lab, "aus", "encoder", tmp_path)
    with pytest.raises(SettingsError, match="target 'age' is unknown"):
        representation.probe(model, processor, faces, "age", "encoder", tmp_path)
