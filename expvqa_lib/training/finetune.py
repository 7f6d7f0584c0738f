"""Fine-tuning on question-answer pairs, both variants of the paper, on one process or many.

Exp-VQA trains the vision encoder, the Q-Former, the queries and the projection. Exp-VQA(fz) keeps the vision
encoder frozen, all but its final norm. The language model is frozen in both.
"""

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import datasets
import pandas as pd
import torch
from accelerate import PartialState
from transformers import (
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from ..errors import ModelError, SettingsError, TrainingError
from ..files import atomic, fingerprint
from ..model.load import DTYPES
from .card import base_name, model_card
from .dataset import Collator, ImagePairs
from .loss import LossModel, cached_states, encoder_key
from .recipe import VARIANTS, Recipe, count_steps, learning_rate

WHOLE = "whole"
"""Name of the empty file that is put into a checkpoint when all of it is written."""


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

    All processes of `accelerate launch` call it. The loss is a mean over the answer tokens of all of them.

    Args:
        pairs: a split `train` and, to be measured on, `validation` (`data.pairs`).
        folder: of the model, its processor, card and `log.csv`; checkpoints are in a hidden folder beside it.
        features: cache of a frozen vision encoder's states (default: `features` beside `folder`).

    Returns:
        The log: `step`, `loss`, `eval_loss` (validation), `learning_rate`, and the largest `weight_change`.

    Raises:
        SettingsError: variant, folder, number of images or precision are impossible.
        ModelError: the language model is an encoder-decoder or quantised.
        TrainingError: the loss is not a number; step and images are named.
    """
    folder, processes = Path(folder), int(os.environ.get("WORLD_SIZE", 1))
    _check(model, folder, recipe)
    freeze(model, variant)
    splits = [name for name in ("train", "validation") if name == "train" or len(pairs.get(name, ()))]
    train, *validation = (ImagePairs(pairs[name], recipe, train=name == "train") for name in splits)
    if len(train) < (batch := recipe.images * processes):
        raise SettingsError(f"{len(train)} training images fill no batch of {batch}: lower Recipe.images")
    steps = count_steps(recipe, len(train) // batch)
    data = [split.fingerprint() for split in (train, *validation)]
    identity = fingerprint(variant, asdict(recipe), processes, encoder_key([model]), *data)
    work = folder.parent / f".{folder.name}-checkpoints-{identity}"
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():  # as in the reference: frozen parts in the recipe's precision
            tensor.data = tensor.to(torch.float32 if tensor.requires_grad else DTYPES[recipe.precision])
    card = model_card(model, variant, recipe, steps, processes, {n: pairs[n] for n in splits})
    collator = Collator(processor, recipe)
    trainer = PairTrainer(LossModel(model), recipe, steps, work, train, *validation, collator=collator)
    if variant == "exp_vqa_fz" and not recipe.augment:  # a frozen encoder, and images that never change
        images = [image for split in (train, *validation) for image in split.images]
        collator.states = cached_states(model, processor, images, features or folder.parent / "features")
    start = {n: p.detach().cpu().clone() for n, p in model.named_parameters() if p.requires_grad}
    trainer.train(resume_from_checkpoint=[None, *_checkpoints(work)][-1])
    return _save(trainer, model, processor, folder, start, card)


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
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    if folder.exists() and names and "config.json" not in names:
        raise SettingsError(
            f"{folder}: not a model folder, and training would replace it; choose a new or empty one"
        )


def _save(trainer: Trainer, model, processor: InstructBlipProcessor, folder: Path, start, card: str):
    """Write the model, its processor, card and log, remove the checkpoints, and return the log."""
    columns = ["step", "loss", "eval_loss", "learning_rate", "weight_change"]
    log = pd.DataFrame(trainer.state.log_history, columns=columns).dropna(subset=columns[1:3], how="all")
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # gathered where processes share them
    model.requires_grad_(True).eval()
    model.config.base_model = base_name(model.name_or_path)
    if trainer.args.should_save:
        changes = (weights[name].cpu() - value for name, value in start.items())
        log.loc[log.index[-1], "weight_change"] = max(float(change.abs().max()) for change in changes)
        for cut_off in folder.parent.glob(f".{folder.stem}-????????{folder.suffix}"):
            shutil.rmtree(cut_off, ignore_errors=True)
        with atomic(folder) as temporary:
            model.save_pretrained(temporary, state_dict=weights)
            processor.save_pretrained(temporary)
            log.to_csv(temporary / "log.csv", index=False)
            (temporary / "README.md").write_text(card, encoding="utf-8")
        shutil.rmtree(trainer.args.output_dir, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    return log


class PairTrainer(Trainer):
    """Trains for `steps` by a recipe, with checkpoints in the folder `work`; the loss must be a number."""

    def __init__(
        self,
        model: LossModel,
        recipe: Recipe,
        steps: int,
        work: Path,
        train: ImagePairs,
        validation: ImagePairs | None = None,
        *,
        collator: Collator,
    ) -> None:
        self.recipe = recipe
        super().__init__(
            model=model,
            args=_Arguments(
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
                eval_strategy="steps" if validation is not None else "no",
                eval_steps=recipe.validate_every,
                save_strategy="steps",
                save_steps=recipe.validate_every,
                remove_unused_columns=False,
                dataloader_drop_last=True,
                dataloader_num_workers=recipe.workers,
                ddp_find_unused_parameters=True,  # the last Q-Former layer's weights for text
                dataloader_pin_memory=torch.cuda.is_available(),
                report_to=[],
            ),
            train_dataset=train,
            eval_dataset=validation,
            data_collator=collator,
            callbacks=[_Steps(recipe)],
        )
        torch.manual_seed(recipe.seed + self.args.process_index)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        images = inputs.pop("images")
        # as a tensor, FSDP would cast the count to half precision
        count = None if num_items_in_batch is None else int(num_items_in_batch)
        loss = super().compute_loss(model, inputs, num_items_in_batch=count)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"step {self.state.global_step + 1}: loss {loss.item()} with the images {', '.join(images)}; "
                "the last checkpoint stays. Look at these images and answers, lower the learning rate, or "
                "train in bfloat16 or float32"
            )
        return loss

    def create_optimizer(self, model=None):
        """AdamW; the vision encoder may have a learning rate of its own."""
        recipe = self.recipe
        rate = recipe.learning_rate if recipe.vision_learning_rate is None else recipe.vision_learning_rate
        trained = [(name, p) for name, p in (model or self.model).named_parameters() if p.requires_grad]
        groups = [
            {"params": [p for name, p in trained if "vision_model." not in name], "lr": recipe.learning_rate},
            {"params": [p for name, p in trained if "vision_model." in name], "lr": rate},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True
        )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer or self.optimizer, lambda step: learning_rate(self.recipe, step, num_training_steps)
        )
        return self.lr_scheduler

    @torch.no_grad()
    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """The mean loss over the answer tokens of all validation images; every process computes all of it."""
        total, count = 0.0, 0
        self.model_wrapped.eval()
        for batch in torch.utils.data.DataLoader(
            self.eval_dataset, batch_size=self.args.eval_batch_size, collate_fn=self.data_collator
        ):
            tokens = int((batch["labels"] != -100).sum())
            total += tokens * float(self.model_wrapped(**self._prepare_inputs(batch))["loss"])
            count += tokens
        metrics = {f"{metric_key_prefix}_loss": total / count}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


@dataclass
class _Steps(TrainerCallback):
    """What happens at an epoch, a step or a checkpoint, where `Trainer` alone would do something else."""

    recipe: Recipe

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        """Set the images' epoch, which the data loader does not in the epoch in which a training goes on."""
        train_dataloader.dataset.set_epoch(int(state.epoch))

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        """Set the learning rate by step: the scheduler lags behind where the gradient scaler skips one."""
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * learning_rate(self.recipe, state.global_step, state.max_steps)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        """No checkpoint of weights that are not finite, nor of the last step: the model is saved next."""
        control.should_save &= state.global_step < state.max_steps
        for name, value in model.named_parameters() if control.should_save else ():
            if value.requires_grad and not torch.isfinite(value).all():
                raise TrainingError(
                    f"step {state.global_step}: {name} is not finite; the last checkpoint stays"
                )

    def on_save(self, args, state, control, **kwargs):
        """Mark the checkpoint as whole when all processes have written it; then remove older ones."""
        PartialState().wait_for_everyone()
        if args.should_save:
            older = _checkpoints(Path(args.output_dir))
            Path(args.output_dir, f"checkpoint-{state.global_step}", WHOLE).touch()
            for checkpoint in older:
                shutil.rmtree(checkpoint, ignore_errors=True)


def _checkpoints(work: Path) -> list[str]:
    """The whole checkpoints, oldest first."""
    checkpoints = (str(mark.parent) for mark in work.glob(f"checkpoint-*/{WHOLE}"))
    return sorted(checkpoints, key=lambda path: int(path.rpartition("-")[2]))


class _Arguments(TrainingArguments):
    @property
    def n_gpu(self) -> int:
        """At most one a process: with more, `Trainer` would cut batches apart for torch's DataParallel."""
        return min(super().n_gpu, 1)
