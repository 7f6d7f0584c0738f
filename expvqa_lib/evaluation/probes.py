"""Probes of what the vision encoder's and the Q-Former's features hold (Exp-BLIP, tables 3 and 4).

Linear probes are logistic regressions on standardised features, classes balanced by weights, with one
regularisation for all targets, chosen on validation. Fine-tuned probes train what gives the features, too.
"""

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from functools import partial

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
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from ..data import labelled_aus, load_image
from ..data.table import SPLITS
from ..errors import TableError
from ..facs import au_column
from ..model import encode, encode_images, query_image
from ..questions import ask_q1
from .detection import bootstrap_settings
from .metrics import COLUMNS, au_table, emotion_difference, emotion_table, paired_difference
from .tables import MODELS, NAMES

PARTS = {"encoder": "Vision encoder", "qformer": "Q-Former"}
QUESTION = ask_q1()  # what the Q-Former reads
STRENGTHS = tuple(10.0**k for k in range(-5, 2))
"""scikit-learn's `C` (inverse of the regularisation), from which validation chooses."""
BATCH, RATE, HEAD_RATE, WEIGHT_DECAY, PATIENCE = 32, 1e-4, 1e-3, 0.05, 3
"""Of fine-tuned probes, which stop after `PATIENCE` epochs without a lower validation loss."""


def probe_all(run, epochs: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of `probe` for action units and, if the run has a corpus for it, emotion."""
    targets = ["aus", "emotion"][: 1 + bool(run.emotion_corpus)]
    tables, gains = zip(*(probe(run, target, epochs=epochs) for target in targets), strict=True)
    return pd.concat(tables, ignore_index=True), pd.concat(gains, ignore_index=True)


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
    aus = [au_column(au) for au in labelled_aus(pd.concat(faces.values()))]
    labels = {split: rows[aus if target == "aus" else ["emotion"]] for split, rows in faces.items()}

    images = {split: rows["image"].tolist() for split, rows in faces.items()}

    def predict(name: str, part: str) -> pd.DataFrame:
        if epochs:
            loaded = run.model(name)
            return finetuned_probe(loaded.model, loaded.processor, images, labels, part, epochs)
        tables = {
            split: run.cached(f"features-{target}-{split}-{most}", name, partial(features, run, name, paths))
            for split, paths in images.items()
        }
        values = {split: table.filter(like=part).to_numpy() for split, table in tables.items()}
        # rows in one piece: another order of the sums would move the last digit
        return linear_probe({split: np.ascontiguousarray(rows) for split, rows in values.items()}, labels)

    kind = f"probe-{target}-{most}-{epochs}"
    scores = {
        (name, part): run.cached(f"{kind}-{part}", name, partial(predict, name, part))
        for name in models or MODELS
        for part in parts
    }
    return _tables(faces["test"], labels["test"], scores, bootstrap_settings(run))


def _draw(run, target: str, split: str, most: int | None) -> pd.DataFrame:
    faces = run.faces_of(run.au_corpus, split) if target == "aus" else run.emotion_faces(split)
    if faces.empty:
        raise TableError(f"no faces in the split {split}; a probe needs {', '.join(SPLITS)}")
    if split != "test":
        faces = faces.sample(min(most or len(faces), len(faces)), random_state=run.profile.seed)
    return faces.reset_index(drop=True)


def _tables(
    test: pd.DataFrame, labels: pd.DataFrame, scores: Mapping, settings: Mapping
) -> tuple[pd.DataFrame, pd.DataFrame]:
    tables, gains, settings = [], [], {"groups": test["subject"], **settings}
    place = {"dataset": test["dataset"].iat[0], "split": "test"}
    for (model, part), predicted in scores.items():
        base, row = scores["base", part], {"model": model, "part": part}
        if "emotion" in labels:
            row |= {"target": f"{PARTS[part]}, emotion", "metric": "accuracy"}
            predicted, base = predicted.idxmax(axis=1), base.idxmax(axis=1)
            table = emotion_table(labels["emotion"], predicted, model=model, **place, **settings)
            table = table.query("target == 'macro' and metric == 'accuracy'").assign(target="emotion")
            gain = emotion_difference(labels["emotion"], predicted, base, **settings)
        else:
            row |= {"target": f"{PARTS[part]}, AUs", "metric": "f1"}
            table = au_table(labels, predicted, model=model, metrics=("f1", "auc"), **place, **settings)
            gain = paired_difference(labels, predicted, base, **settings)
        tables.append(table.assign(part=part))
        gains.append({**row, **gain})
    table = pd.concat(tables, ignore_index=True)[["model", "part", *COLUMNS[1:]]]
    return table, pd.DataFrame(gains).query("model != 'base'").reset_index(drop=True)


def probe_layout(table: pd.DataFrame) -> pd.DataFrame:
    """Lay a table of `probe_all` out as the paper does: a row a model and part, a column an AU (F1)."""
    rows = table[table["metric"].isin(["f1", "accuracy"])]
    wide = rows.pivot(index=["part", "model"], columns="target", values="value")
    order = pd.MultiIndex.from_product([PARTS, rows["model"].unique()])
    wide = wide.loc[order, rows["target"].unique()].rename(PARTS, level="part").rename(NAMES, level="model")
    wide = wide.rename(columns={"macro": "Average", "emotion": "Emotion accuracy"}).rename_axis(columns=None)
    return wide.reset_index(names=["Features", "Model"])[["Model", "Features", *wide]]


def features(run, name: str, images: Sequence[str]) -> pd.DataFrame:
    """Features of image files by a model of the run: a row an image, columns `encoder0` ... and `qformer0`
    ...

    `encoder`: the mean of the patches' states after the final norm, without the class token. `qformer`: the
    mean of the query outputs with the first Q1 question, before the projection.
    """
    loaded = run.model(name)
    model, processor, tables = loaded.model, loaded.processor, []
    for k in range(0, len(images), 64):
        pixels = _pixels(processor, images[k : k + 64]).to(model.device, model.dtype)
        with torch.inference_mode():
            embeds = encode_images(model, pixels)
            parts = {part: _mean(model, processor, embeds, part).float().cpu().numpy() for part in PARTS}
        tables.append(
            pd.concat([pd.DataFrame(rows).add_prefix(part) for part, rows in parts.items()], axis=1)
        )
    return pd.concat(tables, ignore_index=True)


def _modules(model: InstructBlipForConditionalGeneration, part: str) -> list[nn.Module]:
    """What the features of a part depend on."""
    if part == "encoder":
        return [model.vision_model]
    return [model.vision_model, model.qformer, nn.ParameterList([model.query_tokens])]


def _pixels(processor: InstructBlipProcessor, images: Sequence[str]) -> Tensor:
    pictures = [load_image(image) for image in images]
    return processor.image_processor(pictures, return_tensors="pt")["pixel_values"]


def _mean(model, processor: InstructBlipProcessor, embeds: Tensor, part: str) -> Tensor:
    if part == "encoder":
        return embeds[:, 1:].mean(1)
    text = encode(processor, [QUESTION] * len(embeds))
    ids, mask = (text[f"qformer_{name}"].to(embeds.device) for name in ("input_ids", "attention_mask"))
    return query_image(model, embeds, ids, mask).mean(1)


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
    classes = np.unique(y)
    if len(classes) == 1:
        warnings.warn(f"{labels.name}: all training labels are {classes[0]}", stacklevel=3)
        return [np.nan] * len(STRENGTHS), classes, [np.ones((len(x["test"]), 1))] * len(STRENGTHS)
    solver, losses, test = LogisticRegression(class_weight="balanced", warm_start=True, max_iter=1000), [], []
    for strength in STRENGTHS:
        solver.set_params(C=strength).fit(x["train"][labels.index], y)
        losses.append(np.nan)
        if len(validation):
            p = solver.predict_proba(x["validation"][validation.index])
            weights = compute_sample_weight("balanced", y_validation)
            losses[-1] = log_loss(y_validation, p, sample_weight=weights, labels=classes)
        test.append(solver.predict_proba(x["test"]))
    return losses, classes, test


def finetuned_probe(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    images: Mapping[str, Sequence[str]],
    labels: Mapping[str, pd.DataFrame],
    part: str,
    epochs: int,
) -> pd.DataFrame:
    """Train a part, in place, with a linear head until validation stops it; results as of `linear_probe`."""
    torch.manual_seed(0)
    body = nn.ModuleList(_modules(model, part)).float().requires_grad_(True)
    config = model.config.vision_config if part == "encoder" else model.config.qformer_config
    columns = labels["train"].columns[labels["train"].notna().any()].tolist()
    names = sorted(labels["train"]["emotion"].dropna().unique()) if columns == ["emotion"] else columns
    head = nn.Linear(config.hidden_size, len(names)).to(model.device)
    trained = nn.ModuleList([body, head])
    groups = [{"params": body.parameters(), "lr": RATE}, {"params": head.parameters(), "lr": HEAD_RATE}]
    optimiser = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY)
    (paths, y), validation = (
        _labelled(images[split], labels[split], names, model.device) for split in ("train", "validation")
    )
    loss_of = partial(_balanced_loss, y, columns == ["emotion"])

    def logits(paths: Sequence[str], flip: bool = False) -> Tensor:
        pixels = _pixels(processor, paths).to(model.device)
        if flip:
            mirrored = torch.rand(len(pixels), device=model.device) < 0.5
            pixels = torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)
        return head(_mean(model, processor, encode_images(model, pixels), part))

    @torch.inference_mode()
    def predict(paths: Sequence[str]) -> Tensor:
        trained.eval()
        return torch.cat([logits(paths[k : k + 64]) for k in range(0, len(paths), 64)])

    best, best_loss, best_epoch = None, math.inf, 0
    for epoch in trange(epochs, desc="fine-tuning the probe"):
        trained.train()
        for rows in torch.randperm(len(paths)).split(BATCH):
            optimiser.zero_grad()
            loss_of(logits(paths[rows], flip=True), y[rows]).backward()
            optimiser.step()
        loss = float(loss_of(predict(validation[0]), validation[1]))
        if loss < best_loss:
            best, best_loss, best_epoch = copy.deepcopy(trained.state_dict()), loss, epoch
        elif epoch - best_epoch >= PATIENCE:
            break
    trained.load_state_dict(best)
    scores = predict(images["test"]).cpu()
    return pd.DataFrame(scores.softmax(1) if columns == ["emotion"] else scores.sigmoid(), columns=names)


def _labelled(
    images: Sequence[str], labels: pd.DataFrame, names: Sequence[str], device: torch.device
) -> tuple[np.ndarray, Tensor]:
    """The images that have a label, and their targets [I, K]: 0, 1 or NaN (unlabelled)."""
    if "emotion" in labels:
        labels = pd.DataFrame({name: labels["emotion"] == name for name in names})
        labels = labels.where(labels.any(axis=1))
    y = labels[names].astype("Float64").to_numpy(dtype=np.float32, na_value=np.nan)
    known = ~np.isnan(y).all(axis=1)
    return np.array(images)[known], torch.from_numpy(y[known]).to(device)


def _balanced_loss(train: Tensor, is_emotion: bool, logits: Tensor, y: Tensor) -> Tensor:
    """Cross entropy with classes, or an AU's two, balanced by the targets of the training images."""
    known, positives = (~train.isnan()).sum(0), train.nan_to_num().sum(0).clamp(min=1)
    if is_emotion:
        return nn.functional.cross_entropy(logits, y, weight=known / (train.shape[1] * positives))
    negatives = (known - positives).clamp(min=1)
    each = nn.functional.binary_cross_entropy_with_logits(
        logits, y.nan_to_num(), pos_weight=negatives / positives, reduction="none"
    )
    return each[~y.isnan()].mean()
