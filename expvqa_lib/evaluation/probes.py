"""What the representations know: linear probes of the vision encoder's and the Q-Former's features, as Exp-BLIP's tables 3 and 4 have them.

Features are pooled as `pool` says, computed once and kept on disk. A probe is logistic regression on standardised features, the classes
balanced by weights, one regularisation strength for all its targets, chosen on the validation split; an AU is present from 0.5 on.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from ..data.images import load_image
from ..errors import SettingsError, TableError
from ..model.forward import encode_images, query_image
from ..model.tokenize import encode
from ..questions import ask_q1
from ..training.feature_cache import FeatureCache, encoder_key
from .metrics import label_array

PARTS = ("encoder", "qformer")
QUESTION = ask_q1()
"""What the Q-Former reads unless told otherwise; an empty text stands for no question."""
STRENGTHS = tuple(10.0**k for k in range(-5, 2))
"""Of scikit-learn's `C`, the inverse of the regularisation, as far as validation may choose."""


def pool(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    pixel_values: Tensor,
    part: str,
    question: str = QUESTION,
) -> Tensor:
    """Return one vector an image [I, D], with gradients where they are on.

    `encoder`: the mean of the patches' states after the final norm; the class token is left out. `qformer`: the mean of the query
    outputs, before the projection, with `question` as the instruction.

    Raises:
        SettingsError: the part is not one of `PARTS`.
    """
    if part not in PARTS:
        raise SettingsError(f"part {part!r} is unknown; known are {', '.join(PARTS)}")
    embeds = encode_images(model, pixel_values)  # [I, 1 + patches, D_vision]
    return _of_patches(embeds) if part == "encoder" else _of_queries(model, processor, embeds, question)


def _of_patches(embeds: Tensor) -> Tensor:
    return embeds[:, 1:].mean(1)


def _of_queries(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    embeds: Tensor,
    question: str,
) -> Tensor:
    text = encode(processor, [question] * len(embeds))
    ids, mask = (text[f"qformer_{name}"].to(embeds.device) for name in ("input_ids", "attention_mask"))
    return query_image(model, embeds, ids, mask).mean(1)


def modules(model: InstructBlipForConditionalGeneration, part: str) -> list[nn.Module]:
    """Return what the features of a part depend on: the vision encoder, and for `qformer` also the Q-Former and its queries."""
    return (
        [model.vision_model]
        if part == "encoder"
        else [model.vision_model, model.qformer, nn.ParameterList([model.query_tokens])]
    )


def represent(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    images: Sequence[str],
    part: str,
    folder: str | Path,
    *,
    question: str = QUESTION,
    batch: int = 64,
) -> np.ndarray:
    """Return features [N, D] of image files, float32, as `pool` has them. One look at an image serves both parts.

    Args:
        folder: keeps them by weights, image processor, question and image content; it may be deleted at any time.
        batch: images a forward pass.

    Raises:
        SettingsError: the part is not one of `PARTS`.
        ImageError: an image cannot be read.
    """
    if part not in PARTS:
        raise SettingsError(f"part {part!r} is unknown; known are {', '.join(PARTS)}")
    kept = FeatureCache(
        folder, encoder_key(modules(model, "qformer"), processor.image_processor.to_dict(), "means", question)
    )

    def look(paths: Sequence[str]) -> Tensor:
        """Both parts' features behind each other: [n, D_vision + D_qformer]."""
        found = []
        for k in range(0, len(paths), batch):
            pixels = pixels_of(processor, paths[k : k + batch]).to(model.device, model.dtype)
            with torch.inference_mode():
                embeds = encode_images(model, pixels)
                found.append(
                    torch.cat([_of_patches(embeds), _of_queries(model, processor, embeds, question)], 1)
                    .float()
                    .cpu()
                )
        return torch.cat(found)

    kept.fill(images, look)
    width = model.config.vision_config.hidden_size
    return np.stack([kept[image].numpy() for image in images])[
        :, slice(width) if part == "encoder" else slice(width, None)
    ]


def pixels_of(processor: InstructBlipProcessor, images: Sequence[str]) -> Tensor:
    """Return image files as the model sees them [I, 3, S, S]."""
    return processor.image_processor([load_image(image) for image in images], return_tensors="pt")[
        "pixel_values"
    ]


def linear_probe(
    train_features: np.ndarray,
    train_labels: pd.DataFrame | pd.Series,
    validation_features: np.ndarray,
    validation_labels: pd.DataFrame | pd.Series,
    test_features: np.ndarray,
) -> pd.DataFrame:
    """Fit a linear probe and return its probabilities for test features: one row each, one column an AU or a class.

    Args:
        train_features, validation_features, test_features: [N, D], [V, D], [T, D].
        train_labels, validation_labels: AU columns (0, 1, missing: masked), for one two-class regression an AU; or one emotion a row
            (missing: left out), for a multinomial one. Without any label to validate on, `C` is 1.

    Returns:
        AUs: P(present), 0 or 1 throughout where the training labels are all of one class, which a warning names. Emotions: a class a
        column, rows that add up to 1; `idxmax(axis=1)` is the answer.

    Raises:
        TableError: features and labels differ in length, or nothing is labelled in training.
    """
    for features, labels, kind in (
        (train_features, train_labels, "training"),
        (validation_features, validation_labels, "validation"),
    ):
        if len(features) != len(labels):
            raise TableError(f"{kind}: {len(features)} features for {len(labels)} labels; give one a row")
    mean, spread = train_features.mean(axis=0), train_features.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    train, validation, test = (
        (np.asarray(f) - mean) / spread for f in (train_features, validation_features, test_features)
    )
    fits = []  # of each target: validation loss and test probabilities by C
    with threadpool_limits(
        1 if train.shape[1] < 512 else None
    ):  # small matrices lose more than they gain by threads
        for name, truth, checked in _targets(train_labels, validation_labels):
            rows, check = (np.flatnonzero(pd.notna(values)) for values in (truth, checked))
            fits.append(_path(name, train[rows], truth[rows], validation[check], checked[check], test))
    losses = np.array([[loss for loss, _ in fit] for fit in fits])  # [targets, C]
    unknown = np.isnan(losses).all(axis=1)
    best = int(losses[~unknown].mean(axis=0).argmin()) if not unknown.all() else STRENGTHS.index(1.0)
    return pd.concat([fit[best][1] for fit in fits], axis=1)


def _targets(
    train: pd.DataFrame | pd.Series, validation: pd.DataFrame | pd.Series
) -> list[tuple[str | None, np.ndarray, np.ndarray]]:
    """Name, training and validation labels (NaN or None where missing) of each regression."""
    if isinstance(train, pd.Series):
        if train.notna().sum() == 0:
            raise TableError("training: no row has an emotion")
        return [
            (
                None,
                train.to_numpy(dtype=object, na_value=None),
                validation.to_numpy(dtype=object, na_value=None),
            )
        ]
    y, columns = label_array(train, ())
    checked = validation.reindex(columns=columns).astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    return [(name, y[:, a], checked[:, a]) for a, name in enumerate(columns)]


def _path(
    name: str | None, x: np.ndarray, y: np.ndarray, check: np.ndarray, checked: np.ndarray, test: np.ndarray
) -> list:
    """For each of `STRENGTHS`, the balanced log loss on validation labels (NaN without) and the test's probabilities."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.utils.class_weight import compute_sample_weight

    classes = np.unique(y)
    if len(classes) == 1:
        warnings.warn(
            f"{name or 'emotion'}: all training labels are {classes[0]}, and so is each answer", stacklevel=4
        )
        constant = pd.DataFrame({name or classes[0]: np.full(len(test), float(classes[0]) if name else 1.0)})
        return [(np.nan, constant)] * len(STRENGTHS)
    known = np.isin(checked, classes)
    weights = compute_sample_weight("balanced", checked[known])
    solver, path = LogisticRegression(class_weight="balanced", warm_start=True, max_iter=1000), []
    for strength in STRENGTHS:
        with (
            warnings.catch_warnings()
        ):  # where hardly regularised fits stop early, validation judges what came of it
            warnings.simplefilter("ignore", ConvergenceWarning)
            solver.set_params(C=strength).fit(x, y)
        loss = np.nan
        if known.any():
            loss = log_loss(
                checked[known], solver.predict_proba(check[known]), sample_weight=weights, labels=classes
            )
        told = solver.predict_proba(test)
        path.append(
            (loss, pd.DataFrame({name: told[:, 1]}) if name else pd.DataFrame(told, columns=list(classes)))
        )
    return path
