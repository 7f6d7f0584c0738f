"""Fine-tuning on question-answer pairs with transformers' `Trainer`, both variants of the paper, on one process or many.

Exp-VQA trains the vision encoder, its final norm, the Q-Former, the queries and the projection; Exp-VQA(fz) keeps the vision encoder
frozen (its final norm still trains). The language model is frozen in both. All questions about one image in a batch share one pass of
the vision encoder; of a frozen one that sees the same images again, the results are kept on disk.
"""

from __future__ import annotations

import copy
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import datasets
import pandas as pd
import torch
from torch import Tensor
from transformers import (
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from ..data.images import load_image
from ..errors import ModelError, SettingsError, TrainingError
from ..files import atomic, fingerprint
from ..model.forward import answer_loss, language_inputs, query_image
from ..model.load import DTYPES
from .dataset import Collator, ImagePairs
from .feature_cache import Features, encoder_key
from .recipe import VARIANTS, Recipe, learning_rate

TINY = Recipe()


def batch_loss(model: InstructBlipForConditionalGeneration, batch: dict, reduction: str = "mean") -> Tensor:
    """Loss of one batch of `Collator`: the vision encoder runs once an image, the rest once a question, in groups by length."""
    states = (
        batch["vision_states"] if "vision_states" in batch else _vision_states(model, batch["pixel_values"])
    )
    norm = model.vision_model.post_layernorm
    embeds = norm(states.to(norm.weight.dtype))  # [I, P, D]
    output = query_image(
        model, embeds, batch["qformer_input_ids"], batch["qformer_attention_mask"], batch["image_index"]
    )
    ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
    total = output.new_zeros((), dtype=torch.float32)
    for rows in (
        mask.sum(1).argsort(stable=True).tensor_split(batch["groups"])
    ):  # short answers are not padded to the longest
        width = int(mask[rows].sum(1).max())
        inputs = language_inputs(model, output[rows], ids[rows, :width], mask[rows, :width])
        total = total + answer_loss(model, inputs, labels[rows, :width], reduction="sum")
    return total if reduction == "sum" else total / (labels != -100).sum()


def _vision_states(model: InstructBlipForConditionalGeneration, pixel_values: Tensor) -> Tensor:
    """What the vision encoder makes of images before its final norm: [I, 1 + patches, D_vision]; without gradients where it is frozen."""
    vision = model.vision_model
    weight = vision.embeddings.patch_embedding.weight
    with torch.set_grad_enabled(weight.requires_grad and torch.is_grad_enabled()):
        return vision.encoder(
            inputs_embeds=vision.embeddings(pixel_values.to(weight.dtype))
        ).last_hidden_state


def freeze(model: InstructBlipForConditionalGeneration, variant: str) -> None:
    """Leave trainable what the variant trains (in place).

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


class _Trained(InstructBlipForConditionalGeneration):
    """The model as `Trainer` calls it: a batch in, its loss out; so that autocast, DDP and FSDP, which wrap `forward`, see all of it."""

    def forward(self, num_items_in_batch: Tensor | None = None, **batch) -> dict[str, Tensor]:
        """The mean over the labelled tokens of this batch, or its sum over `num_items_in_batch`: those of all processes' batches."""
        if num_items_in_batch is None:
            return {"loss": batch_loss(self, batch)}
        return {"loss": batch_loss(self, batch, "sum") / num_items_in_batch}


class _Steps(TrainerCallback):
    """What hangs on the step or the epoch, where `Trainer` alone would do something else."""

    def __init__(self, recipe: Recipe, steps: int) -> None:
        self.recipe, self.steps = recipe, steps

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        """Tell the training images their epoch; the data loader forgets to in the epoch in which a run goes on."""
        train_dataloader.dataset.set_epoch(int(state.epoch))

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        """Set the learning rate by the step; a step that the gradient scaler skips would hold the schedule up for good."""
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * learning_rate(self.recipe, state.global_step, self.steps)

    def on_step_end(self, args, state, control, **kwargs):
        """No checkpoint at the very end, from which a killed run would go one step too far: the model itself is saved next."""
        if state.global_step >= self.steps:
            control.should_save = False


class _PairTrainer(Trainer):
    """`Trainer` with the recipe's optimiser and schedule, checkpoints that are whole or absent, and a loss that must be a number."""

    def __init__(self, recipe: Recipe, **kwargs) -> None:
        self.recipe = recipe
        super().__init__(**kwargs)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        images = inputs.pop("images")
        count = (
            None if num_items_in_batch is None else int(num_items_in_batch)
        )  # as a tensor, FSDP would cast it to half precision
        loss, outputs = super().compute_loss(model, inputs, True, count)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"step {self.state.global_step + 1}: loss {float(loss)} with the images {', '.join(images)}; the last checkpoint stays. "
                "Look at these images and answers, lower the learning rate, or train in bfloat16 or float32"
            )
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, model=None):
        """AdamW; the vision encoder may move at its own rate."""
        model, recipe = model or self.model, self.recipe
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        vision = [p for name, p in trained.items() if "vision_model." in name]
        other = [p for name, p in trained.items() if "vision_model." not in name]
        own = recipe.learning_rate if recipe.vision_learning_rate is None else recipe.vision_learning_rate
        groups = [{"params": other, "lr": recipe.learning_rate}, {"params": vision, "lr": own}]
        self.optimizer = torch.optim.AdamW(
            groups, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True
        )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer or self.optimizer, lambda step: learning_rate(self.recipe, step, num_training_steps)
        )
        return self.lr_scheduler

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """The mean loss over the labelled tokens of all validation images; every process computes all of it."""
        loader = torch.utils.data.DataLoader(
            self.eval_dataset, batch_size=self.args.eval_batch_size, collate_fn=self.data_collator
        )
        total, count = 0.0, 0
        self.model_wrapped.eval()
        for batch in loader:
            tokens = int((batch["labels"] != -100).sum())
            with torch.no_grad():
                batch.pop("images")
                total += tokens * float(self.model_wrapped(**self._prepare_inputs(batch))["loss"])
            count += tokens
        metrics = {f"{metric_key_prefix}_loss": total / count}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, model, trial):
        """Write beside the checkpoints, rename when all processes are done, and only then remove the older ones."""
        for name, value in self.model.named_parameters():
            if value.requires_grad and not torch.isfinite(value).all():
                raise TrainingError(
                    f"step {self.state.global_step}: {name} is no longer finite; the last checkpoint stays"
                )
        final = self.args.output_dir
        self.args.output_dir = str(Path(final) / ".partial")
        try:
            super()._save_checkpoint(model, trial)
        finally:
            partial, self.args.output_dir = Path(self.args.output_dir), final
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            (written,) = partial.glob("checkpoint-*")
            older = _checkpoints(Path(final))
            shutil.rmtree(
                Path(final) / written.name, ignore_errors=True
            )  # of a run that ended at this very step
            written.rename(Path(final) / written.name)
            for path in older:
                if path.name != written.name:
                    shutil.rmtree(path, ignore_errors=True)
        self.accelerator.wait_for_everyone()


def finetune(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    pairs: datasets.DatasetDict,
    folder: str | Path,
    *,
    variant: str = "exp_vqa",
    recipe: Recipe = TINY,
    features: str | Path | None = None,
) -> pd.DataFrame:
    """Fine-tune a model in place and save it; a run that was cut off goes on from its last checkpoint.

    Under `accelerate launch` or `torchrun` all processes call it; one of them writes. The loss is the mean over the labelled tokens of all
    processes' batches, so it does not depend on how many share the work.

    Args:
        model: to train; changed in place.
        pairs: splits `train` and, to be measured on, `validation` of the pairs' table (`pairs`).
        folder: of the finished model, its processor and `log.csv`; checkpoints stand in a hidden folder beside it while training.
        variant: one of `VARIANTS`.
        features: folder that keeps a frozen vision encoder's results (default: `features` beside `folder`); it may be deleted at any time.

    Returns:
        The log: columns `step`, `loss` (training), `eval_loss` (validation), `learning_rate`, missing where not measured.

    Raises:
        SettingsError: the variant is unknown, `folder` is another kind of folder, there are too few images, the precision needs a GPU.
        ModelError: the language model is an encoder-decoder or quantised.
        TrainingError: the loss is not a number; it names the step and the images.
    """
    folder = Path(folder)
    if not model.config.use_decoder_only_language_model or getattr(model, "is_quantized", False):
        raise ModelError(
            "only models with a decoder-only language model (Vicuna) in full precision can be trained"
        )
    if recipe.precision == "float16" and not torch.cuda.is_available():
        raise SettingsError("Recipe.precision='float16' needs a CUDA GPU; use 'bfloat16' or 'float32' here")
    freeze(model, variant)
    if (
        folder.exists()
        and not (folder / "config.json").exists()
        and (not folder.is_dir() or any(folder.iterdir()))
    ):
        raise SettingsError(
            f"{folder}: not a model folder, and training would replace it; choose a new or an empty folder"
        )
    train = ImagePairs(pairs["train"], recipe)
    batch = recipe.images * int(os.environ.get("WORLD_SIZE", 1))  # of all processes
    if len(train) < batch:
        raise SettingsError(
            f"{len(train)} training images are fewer than one batch of {batch}; lower Recipe.images"
        )
    steps = recipe.steps or recipe.epochs * math.ceil(len(train) // batch / recipe.accumulate)
    validation = ImagePairs(pairs["validation"], recipe, train=False) if "validation" in pairs else None
    told = [split.fingerprint() for split in (train, validation) if split]
    work = (
        folder.parent
        / f".{folder.name}-checkpoints-{fingerprint(variant, asdict(recipe), batch, encoder_key([model]), told)}"
    )
    _hold_frozen_parts(model, variant, recipe)
    arguments = _arguments(work, recipe, steps, validation is not None)
    caller = copy.copy(model)  # shares all weights
    caller.__class__ = _Trained
    trainer = _PairTrainer(
        recipe,
        model=caller,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=Collator(processor, recipe),
        callbacks=[_Steps(recipe, steps)],
    )
    torch.manual_seed(recipe.seed + arguments.process_index)
    if variant == "exp_vqa_fz" and not recipe.augment:
        images = list(dict.fromkeys([*train.images, *(validation.images if validation else [])]))
        trainer.data_collator.states = _kept_states(
            model, processor, images, features or folder.parent / "features", trainer.accelerator
        )
    if arguments.should_save:  # what a killed run left half-written
        for half in (work / ".partial", *folder.parent.glob(f".{folder.stem}-????????{folder.suffix}")):
            shutil.rmtree(half, ignore_errors=True)
    last = _checkpoints(work)
    trainer.train(resume_from_checkpoint=str(last[-1]) if last else None)
    log = pd.DataFrame(trainer.state.log_history).reindex(
        columns=["step", "loss", "eval_loss", "learning_rate"]
    )
    log = log.dropna(subset=["loss", "eval_loss"], how="all")
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # gathers what is spread over processes
    model.requires_grad_(True).eval()
    if arguments.should_save:
        with atomic(folder) as temporary:
            model.save_pretrained(temporary, state_dict=state)
            processor.save_pretrained(temporary)
            log.to_csv(temporary / "log.csv", index=False)
        shutil.rmtree(work, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    return log


def _arguments(work: Path, recipe: Recipe, steps: int, validate: bool) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(work),
        max_steps=steps,
        use_cpu=not torch.accelerator.is_available(),
        per_device_train_batch_size=recipe.images,
        per_device_eval_batch_size=recipe.images,
        gradient_accumulation_steps=recipe.accumulate,
        learning_rate=recipe.learning_rate,
        max_grad_norm=recipe.clip,
        bf16=recipe.precision == "bfloat16",
        fp16=recipe.precision == "float16",
        activation_checkpointing=recipe.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        seed=recipe.seed,
        data_seed=recipe.seed,
        logging_steps=max(1, steps // 100),
        logging_nan_inf_filter=False,
        eval_strategy="steps" if validate else "no",
        eval_steps=recipe.validate_every,
        save_strategy="steps",
        save_steps=recipe.validate_every,
        remove_unused_columns=False,
        dataloader_drop_last=True,
        dataloader_num_workers=recipe.workers,
        ddp_find_unused_parameters=True,  # the last Q-Former layer's words lead nowhere
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to=[],
    )
    arguments._n_gpu = min(
        arguments.n_gpu, 1
    )  # several GPUs in one process would be torch's DataParallel, which cuts batches apart
    return arguments


def _hold_frozen_parts(model: InstructBlipForConditionalGeneration, variant: str, recipe: Recipe) -> None:
    """Hold what is frozen in the recipe's precision, as the reference does, and what trains in float32 (in place)."""
    kind = DTYPES[recipe.precision]
    for part in (model.vision_model, model.qformer, model.language_projection):
        part.float()
    model.query_tokens.data = model.query_tokens.data.float()
    model.language_model.to(kind)
    if variant == "exp_vqa_fz":
        model.vision_model.embeddings.to(kind)
        model.vision_model.encoder.to(kind)


def _kept_states(
    model, processor: InstructBlipProcessor, images: Sequence[str], folder: Path, accelerator
) -> Features:
    """`_vision_states` of all images, each process computing its share of what is not on disk yet."""
    vision = model.vision_model.to(accelerator.device)  # where sharded training has left it on the CPU
    kept = Features(
        folder, encoder_key([vision.embeddings, vision.encoder], processor.image_processor.to_dict())
    )

    def encode(paths: Sequence[str]) -> Tensor:
        pixels = processor.image_processor([load_image(path) for path in paths], return_tensors="pt")[
            "pixel_values"
        ]
        with torch.no_grad():
            parts = [_vision_states(model, some.to(accelerator.device)).cpu() for some in pixels.split(64)]
        return torch.cat(parts)

    kept.fill(images, encode, accelerator.process_index, accelerator.num_processes)
    accelerator.wait_for_everyone()
    kept.scan()
    return kept


def _checkpoints(work: Path) -> list[Path]:
    """The whole checkpoints, oldest first: one gets its name when it is written to its end."""
    return sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
