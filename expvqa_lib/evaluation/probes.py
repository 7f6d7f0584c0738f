"""Probes of what the vision encoder's and the Q-Former's features hold (Exp-BLIP, tables 3 and 4).

Linear probes are logistic regressions on standardised features, classes balanced by weights, with one
regularisation for all targets, chosen on validation. Fine-tuned probes train what gives the features, too.
"""

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_sample_weight
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from tqdm.auto import trange
from transformers import InstructBlipProcessor

from ..data import SPLITS, load_image
from ..errors import TableError
from ..model import embed_images, encode, encode_images, query_image
from ..questions import ask_q1
from .detection import bootstrap_settings, table_settings
from .metrics import COLUMNS, au_table, emotion_difference, emotion_table, paired_difference
from .tables import MODELS, NAMES, au_columns

PARTS = {"encoder": "Vision encoder", "qformer": "Q-Former"}
QUESTION = ask_q1()  # what the Q-Former reads
STRENGTHS = tuple(10.0**k for k in range(-5, 2))
"""scikit-learn's `C` (inverse of the regularisation), from which validation chooses."""
BATCH, RATE, HEAD_RATE, WEIGHT_DECAY, PATIENCE = 32, 1e-4, 1e-3, 0.05, 3
"""Of fine-tuned probes, which stop after `PATIENCE` epochs without a lower validation loss."""


def probe_all(run, epochs: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of `probe` for action units and emotion, where the run has a corpus for them."""
    targets = ["aus"] * run.has_aus + ["emotion"] * bool(run.emotion_corpus)
    results = zip(*(probe(run, target, epochs=epochs) for target in targets), strict=True)
    return tuple(pd.concat(tables, ignore_index=True) for tables in results)


def probe(
    run, target: str, models: Sequence[str] = (), parts: Sequence[str] = tuple(PARTS), epochs: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Probe models for `aus` (F1 and AUC on the AU corpus) or `emotion` (accuracy on the emotion corpus).

    Args:
        run: a `pipeline.Run`; its profile limits the faces of training and validation.
        models: of the run; default: `MODELS`.
        epochs: of fine-tuned probes, at most; 0 for linear probes.

    Returns:
        The columns of `au_table` and `part`, with intervals by subject; and each model's macro F1 or
        accuracy minus the base's: target, model, part, metric, value, low, high (points), p, support.

    Raises:
        TableError: a split has no faces.
    """
    most = run.profile.probed_finetuned if epochs else run.profile.probed
    faces = {split: _draw(run, target, split, most) for split in SPLITS}
    columns = ["emotion"] if target == "emotion" else au_columns(pd.concat(faces.values()))
    labels = {split: rows[columns] for split, rows in faces.items()}
    images = {split: rows["image"].tolist() for split, rows in faces.items()}

    def predict(name: str, part: str) -> pd.DataFrame:
        if epochs:
            return finetuned_probe(run.model(name), images, labels, part, epochs)
        values = {}
        for split, paths in images.items():
            table = run.cached(f"features-{target}-{split}-{most}", name, partial(features, run, name, paths))
            # rows in one piece: another order of the sums would move the last digit
            values[split] = np.ascontiguousarray(table.filter(like=part).to_numpy())
        return linear_probe(values, labels)

    tables, gains, scores = [], [], {}
    settings = table_settings(faces["test"], **bootstrap_settings(run))
    for model, part in product(models or MODELS, parts):
        name = f"probe-{target}-{most}-{epochs}-{part}"
        scores[model, part] = run.cached(name, model, partial(predict, model, part))
        both = scores[model, part], scores["base", part]
        table, gain = _measured(labels["test"], *both, model=model, **settings)
        tables.append(table.assign(part=part))
        gains.append({"model": model, "part": part, **gain} | {"target": f"{PARTS[part]}, {gain['target']}"})
    table = pd.concat(tables, ignore_index=True)[["model", "part", *COLUMNS[1:]]]
    return table, pd.DataFrame(gains).query("model != 'base'").reset_index(drop=True)


def _draw(run, target: str, split: str, most: int | None) -> pd.DataFrame:
    faces = run.faces_of(run.au_corpus, split) if target == "aus" else run.emotion_faces(split)
    if faces.empty:
        raise TableError(f"no faces in the split {split}; a probe needs {', '.join(SPLITS)}")
    if split != "test":
        faces = faces.sample(min(most or len(faces), len(faces)), random_state=run.profile.seed)
    return faces.reset_index(drop=True)


def _measured(
    labels: pd.DataFrame, scores: pd.DataFrame, base: pd.DataFrame, **settings
) -> tuple[pd.DataFrame, dict]:
    """A probe's metrics, and its difference to the base's."""
    paired = {name: settings[name] for name in ("groups", "resamples", "seed")}
    if "emotion" not in labels:
        table = au_table(labels, scores, metrics=("f1", "auc"), **settings)
        return table, {"target": "AUs", "metric": "f1", **paired_difference(labels, scores, base, **paired)}
    true, predicted, other = labels["emotion"], scores.idxmax(axis=1), base.idxmax(axis=1)
    table = emotion_table(true, predicted, **settings).query("target == 'macro' and metric == 'accuracy'")
    gain = emotion_difference(true, predicted, other, **paired)
    return table.assign(target="emotion"), {"target": "emotion", "metric": "accuracy", **gain}


def probe_layout(table: pd.DataFrame) -> pd.DataFrame:
    """Lay a table of `probe_all` out as the paper does: a row a model and part, a column an AU (F1)."""
    rows = table[table["metric"].isin(["f1", "accuracy"])]
    wide = rows.pivot(index=["part", "model"], columns="target", values="value")
    order = list(product(PARTS, rows["model"].unique()))
    wide = wide.loc[order, rows["target"].unique()].rename(PARTS, level="part").rename(NAMES, level="model")
    wide = wide.rename(columns={"macro": "Average", "emotion": "Emotion accuracy"}).rename_axis(columns=None)
    return wide.reset_index(names=["Features", "Model"])[["Model", "Features", *wide]]


def features(run, name: str, images: Sequence[str]) -> pd.DataFrame:
    """Features of image files by a model of the run: a row an image, columns `encoder0` ... and `qformer0`
    ...

    `encoder`: the mean of the patches' states after the final norm, without the class token. `qformer`: the
    mean of the query outputs with the first Q1 question, before the projection.
    """
    model, processor, tables = run.model(name).model, run.model(name).processor, []
    for k in range(0, len(images), 64):
        with torch.inference_mode():
            embeds = embed_images(model, processor, images[k : k + 64])
            parts = {part: _mean(model, processor, embeds, part).float().cpu().numpy() for part in PARTS}
        tables.append(pd.concat([pd.DataFrame(x).add_prefix(part) for part, x in parts.items()], axis=1))
    return pd.concat(tables, ignore_index=True)


def _mean(model, processor: InstructBlipProcessor, embeds: Tensor, part: str) -> Tensor:
    if part == "encoder":
        return embeds[:, 1:].mean(1)
    text = encode(processor, [QUESTION] * len(embeds)).to(embeds.device)
    return query_image(model, embeds, text).mean(1)


def linear_probe(features: Mapping[str, np.ndarray], labels: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Fit linear probes and return their probabilities for the test features, a row each.

    Args:
        features: [N, D] of each split.
        labels: of `train` and `validation`: a column an AU (0, 1 or missing: left out), or the column
            `emotion` for a multinomial regression. Without validation labels `C` is 1.

    Returns:
        P(present), a column an AU that is labelled in training; or P(emotion), a column an emotion.
    """
    mean, spread = features["train"].mean(axis=0), features["train"].std(axis=0)
    x = {split: (values - mean) / np.where(spread > 0, spread, 1.0) for split, values in features.items()}
    columns = labels["train"].columns[labels["train"].notna().any()]
    threads = 1 if len(mean) < 512 else None  # on small matrices threads cost more than they gain
    # hardly regularised fits may not converge: validation judges them
    with threadpool_limits(threads), warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        fits = {name: _fit(x, labels["train"][name], labels["validation"][name]) for name in columns}
    losses = np.array([loss for loss, _, _ in fits.values()])  # [targets, strengths]
    known = losses[~np.isnan(losses).any(axis=1)]
    best = int(known.mean(axis=0).argmin()) if len(known) else STRENGTHS.index(1.0)
    if "emotion" in fits:
        _, classes, test = fits["emotion"]
        return pd.DataFrame(test[best], columns=classes.tolist())
    return pd.DataFrame({name: test[best] @ (classes == 1) for name, (_, classes, test) in fits.items()})


def _fit(
    x: Mapping[str, np.ndarray], labels: pd.Series, validation: pd.Series
) -> tuple[list, np.ndarray, list]:
    """Balanced validation losses (NaN without labels), classes, and the test's P(class), by strength."""
    labels = labels.dropna()
    validation = validation[validation.isin(labels)]
    y, y_validation = np.array(labels.tolist()), np.array(validation.tolist())
    classes, losses, test = np.unique(y), [np.nan] * len(STRENGTHS), []
    if len(classes) == 1:
        warnings.warn(f"{labels.name}: all training labels are {classes[0]}", stacklevel=3)
        return losses, classes, [np.ones((len(x["test"]), 1))] * len(STRENGTHS)
    solver = LogisticRegression(class_weight="balanced", warm_start=True, max_iter=1000)
    for k, strength in enumerate(STRENGTHS):
        solver.set_params(C=strength).fit(x["train"][labels.index], y)
        if len(validation):
            p = solver.predict_proba(x["validation"][validation.index])
            weights = compute_sample_weight("balanced", y_validation)
            losses[k] = log_loss(y_validation, p, sample_weight=weights, labels=classes)
        test.append(solver.predict_proba(x["test"]))
    return losses, classes, test


def finetuned_probe(
    expvqa, images: Mapping[str, Sequence[str]], labels: Mapping[str, pd.DataFrame], part: str, epochs: int
) -> pd.DataFrame:
    """Train a part of an `ExpVQA`, in place, with a linear head while validation gains; as `linear_probe`."""
    model, is_emotion = expvqa.model, "emotion" in labels["train"]
    modules, width = [model.vision_model], model.config.vision_config.hidden_size
    if part == "qformer":
        modules += [model.qformer, nn.ParameterList([model.query_tokens])]
        width = model.config.qformer_config.hidden_size
    names = list(labels["train"].dropna(axis=1, how="all"))
    names = sorted(labels["train"]["emotion"].dropna().unique()) if is_emotion else names
    y = {split: _targets(rows, names).to(model.device) for split, rows in labels.items()}
    known = {split: (~targets.isnan().all(1)).nonzero()[:, 0].cpu() for split, targets in y.items()}
    torch.manual_seed(0)
    trained = nn.ModuleList([nn.ModuleList(modules), nn.Linear(width, len(names)).to(model.device)])
    body, head = trained.float().requires_grad_(True)
    groups = [{"params": body.parameters(), "lr": RATE}, {"params": head.parameters(), "lr": HEAD_RATE}]
    optimiser = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY)

    def logits(split: str, rows: Tensor) -> Tensor:
        pictures = [load_image(images[split][row]) for row in rows]
        pixels = expvqa.processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
        if trained.training:  # half of them mirrored
            pixels = torch.where(torch.rand(len(pixels), 1, 1, 1) < 0.5, pixels.flip(3), pixels)
        return head(_mean(model, expvqa.processor, encode_images(model, pixels.to(model.device)), part))

    @torch.inference_mode()
    def predict(split: str, rows: Tensor) -> Tensor:
        trained.eval()
        return torch.cat([logits(split, some) for some in rows.split(64)])

    best, best_loss, best_epoch, rows = None, math.inf, 0, known["validation"]
    for epoch in trange(epochs, desc="fine-tuning the probe"):
        trained.train()
        for some in known["train"][torch.randperm(len(known["train"]))].split(BATCH):
            optimiser.zero_grad()
            _balanced_loss(y["train"], is_emotion, logits("train", some), y["train"][some]).backward()
            optimiser.step()
        loss = _balanced_loss(y["train"], is_emotion, predict("validation", rows), y["validation"][rows])
        if loss < best_loss:
            best, best_loss, best_epoch = copy.deepcopy(trained.state_dict()), loss, epoch
        elif epoch - best_epoch >= PATIENCE:
            break
    trained.load_state_dict(best)
    scores = predict("test", torch.arange(len(images["test"]))).cpu()
    return pd.DataFrame(scores.softmax(1) if is_emotion else scores.sigmoid(), columns=names)


def _targets(labels: pd.DataFrame, names: Sequence[str]) -> Tensor:
    """0, 1 or NaN (unlabelled) [I, K]."""
    if "emotion" in labels:
        is_named = pd.DataFrame({name: labels["emotion"] == name for name in names})
        labels = is_named.where(labels["emotion"].isin(names))
    return torch.from_numpy(labels[names].astype("Float64").to_numpy(np.float32, na_value=np.nan))


def _balanced_loss(train: Tensor, is_emotion: bool, logits: Tensor, y: Tensor) -> Tensor:
    """Cross entropy with classes, or an AU's two, balanced by the targets of the training images."""
    known, positives = (~train.isnan()).sum(0), train.nan_to_num().sum(0).clamp(min=1)
    if is_emotion:
        return nn.functional.cross_entropy(logits, y, weight=known / (train.shape[1] * positives))
    weight = (known - positives).clamp(min=1) / positives
    loss = partial(nn.functional.binary_cross_entropy_with_logits, pos_weight=weight, reduction="none")
    return loss(logits, y.nan_to_num())[~y.isnan()].mean()
