"""Fine-tuning on question-answer pairs, both variants of the paper, on one process or many.

Exp-VQA trains the vision encoder, the Q-Former, the queries and the projection. Exp-VQA(fz) keeps the vision
encoder frozen, all but its final norm. The language model is frozen in both.
"""

import math
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import datasets
import pandas as pd
import torch
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from ..errors import ModelError, SettingsError
from ..files import atomic, fingerprint
from ..model.load import DTYPES
from .dataset import Collator, ImagePairs
from .feature_cache import VisionStates, encoder_key
from .loss import LossModel
from .recipe import VARIANTS, Recipe
from .trainer import PairTrainer


def finetune(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    pairs: datasets.DatasetDict,
    folder: str | Path,
    *,
    variant: str = "exp_vqa",
    recipe: Recipe = Recipe(),  # noqa: B008, it is frozen
    features: str | Path | None = None,
) -> pd.DataFrame:
    """Fine-tune a model in place and save it; a training that was killed goes on from its last checkpoint.

    Under `accelerate launch` or `torchrun` all processes call it. The loss is a mean over the answer tokens
    of all processes, so it does not depend on their number.

    Args:
        pairs: a split `train` and, to be measured on, `validation` (`data.pairs`).
        folder: of the model, its processor and `log.csv`; checkpoints stand in a hidden folder beside it.
        features: cache of a frozen vision encoder's states (default: `features` beside `folder`).

    Returns:
        The log: `step`, `loss` (training), `eval_loss` (validation), `learning_rate`; NaN if not measured.

    Raises:
        SettingsError: variant, folder, number of images or precision are impossible; the message says which.
        ModelError: the language model is an encoder-decoder or quantised.
        TrainingError: the loss is not a number; step and images are named.
    """
    folder, processes = Path(folder), int(os.environ.get("WORLD_SIZE", 1))
    _check(model, folder, recipe)
    freeze(model, variant)
    splits = [name for name in ("train", "validation") if name == "train" or len(pairs.get(name, ()))]
    train, *validation = (ImagePairs(pairs[name], recipe, train=name == "train") for name in splits)
    if len(train) < (batch := recipe.images * processes):
        raise SettingsError(
            f"{len(train)} training images are fewer than a batch of {batch}: lower Recipe.images"
        )
    steps = recipe.steps or recipe.epochs * math.ceil(len(train) // batch / recipe.accumulate)
    data = [split.fingerprint() for split in (train, *validation)]
    identity = fingerprint(variant, asdict(recipe), processes, encoder_key([model]), *data)
    _set_precision(model, variant, recipe)
    work = folder.parent / f".{folder.name}-checkpoints-{identity}"
    collator = Collator(processor, recipe)
    trainer = PairTrainer(LossModel(model), recipe, steps, work, train, *validation, collator=collator)
    if variant == "exp_vqa_fz" and not recipe.augment:  # a frozen encoder, and images that never change
        images = [image for split in (train, *validation) for image in split.images]
        collator.states = VisionStates(model, processor, images, features or folder.parent / "features")
    trainer.train_on()
    return _save(trainer, model, processor, folder)


def freeze(model: InstructBlipForConditionalGeneration, variant: str) -> None:
    """Let gradients reach what the variant trains, and nothing else (in place).

    Raises:
        SettingsError: the variant is not one of `VARIANTS`.
    """
    if variant not in VARIANTS:
        raise SettingsError(f"variant {variant!r} is unknown; known are {', '.join(VARIANTS)}")
    model.requires_grad_(True)
    model.language_model.requires_grad_(False)
    if variant == "exp_vqa_fz":
        model.vision_model.requires_grad_(False)
        model.vision_model.post_layernorm.requires_grad_(True)


def _check(model: InstructBlipForConditionalGeneration, folder: Path, recipe: Recipe) -> None:
    if not model.config.use_decoder_only_language_model or getattr(model, "is_quantized", False):
        raise ModelError(
            "only models with a decoder-only language model (Vicuna) in full precision can be trained"
        )
    if recipe.precision == "float16" and not torch.cuda.is_available():
        raise SettingsError("Recipe.precision='float16' needs a CUDA GPU; use 'bfloat16' or 'float32' here")
    is_empty = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not is_empty and not (folder / "config.json").exists():
        raise SettingsError(
            f"{folder}: not a model folder, and training would replace it; choose a new or empty one"
        )


def _set_precision(model: InstructBlipForConditionalGeneration, variant: str, recipe: Recipe) -> None:
    """Hold frozen parts in the recipe's precision, as the reference does, and trained parts in float32."""
    precision = DTYPES[recipe.precision]
    for part in (model.vision_model, model.qformer, model.language_projection):
        part.float()
    model.query_tokens.data = model.query_tokens.data.float()
    model.language_model.to(precision)
    if variant == "exp_vqa_fz":
        model.vision_model.embeddings.to(precision)
        model.vision_model.encoder.to(precision)


def _save(trainer: PairTrainer, model, processor: InstructBlipProcessor, folder: Path) -> pd.DataFrame:
    """Write the model, its processor and the log, remove the checkpoints, and return the log."""
    log = pd.DataFrame(trainer.state.log_history, columns=["step", "loss", "eval_loss", "learning_rate"])
    log = log.dropna(subset=["loss", "eval_loss"], how="all")
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # gathered where processes share them
    model.requires_grad_(True).eval()
    if trainer.args.should_save:
        for cut_off in folder.parent.glob(f".{folder.stem}-????????{folder.suffix}"):
            shutil.rmtree(cut_off, ignore_errors=True)
        with atomic(folder) as temporary:
            model.save_pretrained(temporary, state_dict=weights)
            processor.save_pretrained(temporary)
            log.to_csv(temporary / "log.csv", index=False)
        shutil.rmtree(trainer.args.output_dir, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    return log
