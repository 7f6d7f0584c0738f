"""Probes find what is there and only that; features are pooled as described and computed once."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

from expvqa_lib.data.table import SPLITS
from expvqa_lib.errors import TableError
from expvqa_lib.evaluation import finetuned_probe, linear_probe, probe, probe_all, probe_layout, probes
from expvqa_lib.evaluation.metrics import au_table
from expvqa_lib.evaluation.probes import PARTS, features
from expvqa_lib.expvqa import ExpVQA
from expvqa_lib.facs import BP4D_AUS
from expvqa_lib.files import cached
from expvqa_lib.questions import ask_q1


def planted(n: int, seed: int, width: int = 12) -> tuple[np.ndarray, pd.DataFrame, pd.DataFrame]:
    """Features of different scales: the first two tell AU1 and AU4, the third the emotion."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width))
    aus = (x[:, :2] + rng.normal(0, 0.3, (n, 2)) > (0.8, 0.0)).astype(int)
    emotions = np.select([x[:, 2] < -0.5, x[:, 2] > 0.5], ["anger", "fear"], "neutral")
    x = x * np.geomspace(1e-3, 1e3, width) + 5
    return x, pd.DataFrame(aus, columns=["AU1", "AU4"], dtype="Int8"), pd.DataFrame({"emotion": emotions})


@pytest.fixture
def data() -> tuple[dict, dict, dict]:
    """Features, AU labels and emotions of three splits."""
    splits = [planted(n, seed) for seed, n in enumerate((300, 200, 200))]
    return tuple(dict(zip(SPLITS, column, strict=True)) for column in zip(*splits, strict=True))


def macro(labels: pd.DataFrame, scores: pd.DataFrame, metric: str) -> float:
    table = au_table(labels, scores, model="m", dataset="d", split="test", resamples=0)
    return table.set_index(["target", "metric"])["value"]["macro", metric]


def test_a_linear_probe_recovers_a_planted_signal_and_no_other(data):
    x, aus, emotions = data
    scores = linear_probe(x, aus)
    assert macro(aus["test"], scores, "auc") > 95 and macro(aus["test"], scores, "f1") > 80
    named = linear_probe(x, emotions)
    assert named.columns.tolist() == ["anger", "fear", "neutral"] and np.allclose(named.sum(axis=1), 1)
    assert (named.idxmax(axis=1) == emotions["test"]["emotion"]).mean() > 0.9
    noise = linear_probe({split: values[:, 3:] for split, values in x.items()}, aus)
    assert 40 < macro(aus["test"], noise, "auc") < 60


def test_a_probe_is_scikit_learns_with_the_strength_of_the_lowest_validation_loss(data):
    x, y, _ = data
    scaled = {split: (values - x["train"].mean(0)) / x["train"].std(0) for split, values in x.items()}
    scores_by_loss = {}
    for strength in (10.0**k for k in range(-5, 2)):
        loss, scores = 0, {}
        for au in y["train"]:
            fit = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
            fit.fit(scaled["train"], y["train"][au].astype(int))
            truth = y["validation"][au].to_numpy(dtype=int)
            right = fit.predict_proba(scaled["validation"])[np.arange(len(truth)), truth]
            loss -= np.log(right[truth == 0]).mean() + np.log(right[truth == 1]).mean()
            scores[au] = fit.predict_proba(scaled["test"])[:, 1]
        scores_by_loss[loss] = pd.DataFrame(scores)
    pd.testing.assert_frame_equal(linear_probe(x, y), scores_by_loss[min(scores_by_loss)], atol=2e-3)


def test_unlabelled_rows_are_left_out_of_that_au_alone(data):
    x, y, _ = data
    holed = y | {"train": y["train"].copy()}
    holed["train"].loc[:99, "AU1"] = pd.NA
    scores, of_wrong = linear_probe(x, holed), linear_probe(x, y | {"train": holed["train"].fillna(1)})
    assert not np.allclose(of_wrong["AU1"], scores["AU1"], atol=0.05)
    alone, holed = ({split: aus[["AU4"]] for split, aus in labels.items()} for labels in (y, holed))
    pd.testing.assert_frame_equal(linear_probe(x, alone), linear_probe(x, holed))


def test_an_au_of_one_class_is_named_and_predicted_and_one_without_labels_left_out(data):
    x, y, _ = data
    y = {split: labels.assign(AU12=0, AU20=pd.NA) for split, labels in y.items()}
    with pytest.warns(UserWarning, match="AU12"):
        scores = linear_probe(x, y)
    assert list(scores) == ["AU1", "AU4", "AU12"] and (scores["AU12"] == 0).all()


def test_features_are_means_of_transformers_own_outputs(run, model, processor, faces_of):
    images = faces_of("synth_lab")["image"].tolist()[:12]
    pictures = [Image.open(image) for image in images]
    pixels = processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
    text = processor.qformer_tokenizer([ask_q1()] * 12, return_tensors="pt")
    with torch.no_grad():
        states = model.vision_model(pixels).last_hidden_state
        own = model.get_image_features(pixels, text["input_ids"], text["attention_mask"], return_dict=True)
    queries = own.qformer_outputs.last_hidden_state[:, : model.config.num_query_tokens]
    table = features(run, "base", images)
    assert np.allclose(table.filter(like="encoder"), states[:, 1:].mean(1), atol=1e-5)
    assert np.allclose(table.filter(like="qformer"), queries.mean(1), atol=1e-5)


@pytest.fixture
def pictures(tmp_path, monkeypatch) -> tuple[dict, dict]:
    """Images by split, and labels that one look decides: AU1 where it is light, AU4 where it is red."""
    for name, value in {"BATCH": 8, "RATE": 1e-3, "HEAD_RATE": 1e-2}.items():
        monkeypatch.setattr(probes, name, value)
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


def test_fine_tuning_of_the_encoder_learns_aus(model, processor, pictures):
    images, labels = pictures
    labels["train"].loc[:5, "AU4"] = pd.NA
    scores = finetuned_probe(ExpVQA(model, processor), images, labels, "encoder", 10)
    assert macro(labels["test"], scores, "auc") > 95


def test_fine_tuning_stops_when_validation_gets_worse_and_keeps_the_best_weights(
    model, processor, pictures, monkeypatch
):
    images, labels = pictures
    given = images, labels | {"train": 1 - labels["train"]}, "encoder"  # what is learnt is wrong elsewhere
    steps, step = [], torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: steps.append(1) or step(self))
    stopped = finetuned_probe(ExpVQA(copy.deepcopy(model), processor), *given, 30)
    assert len(steps) < 30 * 6
    best = len(steps) // 6 - 3  # epochs, without the three of its patience
    pd.testing.assert_frame_equal(stopped, finetuned_probe(ExpVQA(model, processor), *given, best))


def test_fine_tuning_of_the_q_former_classifies_emotions(model, processor, pictures):
    images, labels = pictures
    emotions = {
        split: pd.DataFrame({"emotion": aus["AU1"].astype("string")}) for split, aus in labels.items()
    }
    emotions = {split: table.replace({"1": "fear", "0": "anger"}) for split, table in emotions.items()}
    emotions["train"].loc[0, "emotion"] = pd.NA
    scores = finetuned_probe(ExpVQA(model, processor), images, emotions, "qformer", 6)
    assert list(scores) == ["anger", "fear"]
    assert (scores.idxmax(axis=1) == emotions["test"]["emotion"]).mean() > 0.9


@pytest.fixture
def run(model, processor, faces_of, tmp_path):
    """A run with the untrained model as base, and another that differs in the vision encoder's final norm."""
    other = copy.deepcopy(model)
    torch.manual_seed(0)
    norm = other.vision_model.post_layernorm
    norm.weight.data = torch.rand_like(norm.weight)
    models = {"base": ExpVQA(model, processor), "exp_vqa": ExpVQA(other, processor)}
    return SimpleNamespace(
        profile=SimpleNamespace(probed=20, probed_finetuned=20, resamples=50, seed=0),
        has_aus=True,
        au_corpus="synth_lab",
        emotion_corpus="synth_emotion",
        faces_of=faces_of,
        emotion_faces=lambda split: faces_of("synth_emotion", split),
        model=models.get,
        store=tmp_path,
        cached=lambda kind, name, make: cached(tmp_path / f"{kind}-{name}.parquet", make),
    )


@pytest.mark.filterwarnings("ignore")  # in a miniature some AUs have one class only
def test_a_runs_tables_have_a_row_a_model_and_part_and_a_missing_split_is_named(run, monkeypatch):
    monkeypatch.setattr(probes, "STRENGTHS", (0.01, 1.0))
    monkeypatch.setattr(probes, "MODELS", ("base", "exp_vqa"))
    table, gains = probe_all(run)
    wide = probe_layout(table)
    assert wide["Model"].tolist() == ["Base, untuned", "Exp-VQA"] * 2
    assert wide["Features"].tolist() == ["Vision encoder"] * 2 + ["Q-Former"] * 2
    columns = [f"AU{n}" for n in BP4D_AUS]
    assert wide.columns.tolist()[2:] == [*columns, "Average", "Emotion accuracy"]
    occurs = run.faces_of("synth_lab", "test")[columns].eq(1).any().to_numpy()
    assert not occurs.all() and np.allclose(wide[columns].loc[:, occurs].mean(axis=1), wide["Average"])
    assert set(gains["model"]) == {"exp_vqa"} and gains["part"].tolist() == [*PARTS, *PARTS]
    both = wide[["Average", "Emotion accuracy"]].to_numpy()
    assert gains["value"].tolist() == pytest.approx((both[1::2] - both[::2]).T.ravel().tolist())
    run.faces_of = lambda dataset, split: pd.DataFrame({"image": []})
    with pytest.raises(TableError, match="split train"):
        probe(run, "aus")
