"""transformers' `Trainer` with a recipe's optimiser and schedule, and with checkpoints that are always
whole."""

import shutil
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import Trainer, TrainerCallback, TrainingArguments

from ..errors import TrainingError
from .dataset import Collator, ImagePairs
from .loss import LossModel
from .recipe import Recipe, learning_rate

WHOLE = "whole"
"""Name of the empty file that is put into a checkpoint when all of it is written."""


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
            callbacks=[_Steps(recipe, steps)],
        )
        torch.manual_seed(recipe.seed + self.args.process_index)

    def train_on(self) -> None:
        """Train from the last whole checkpoint or the start; one that was cut off is written anew."""
        checkpoints = _checkpoints(Path(self.args.output_dir))
        self.train(resume_from_checkpoint=str(checkpoints[-1]) if checkpoints else None)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        images = inputs.pop("images")
        # as a tensor, FSDP would cast the count to half precision
        count = None if num_items_in_batch is None else int(num_items_in_batch)
        loss, outputs = super().compute_loss(model, inputs, True, count)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"step {self.state.global_step + 1}: loss {loss.item()} with the images {', '.join(images)}; "
                "the last checkpoint stays. Look at these images and answers, lower the learning rate, or "
                "train in bfloat16 or float32"
            )
        return (loss, outputs) if return_outputs else loss

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

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """The mean loss over the answer tokens of all validation images; every process computes all of it."""
        total, count = 0.0, 0
        self.model_wrapped.eval()
        for batch in torch.utils.data.DataLoader(
            self.eval_dataset, batch_size=self.args.eval_batch_size, collate_fn=self.data_collator
        ):
            tokens = int((batch["labels"] != -100).sum())
            batch.pop("images")
            with torch.no_grad():
                total += tokens * float(self.model_wrapped(**self._prepare_inputs(batch))["loss"])
            count += tokens
        metrics = {f"{metric_key_prefix}_loss": total / count}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class _Steps(TrainerCallback):
    """What happens at an epoch, a step or a checkpoint, where `Trainer` alone would do something else."""

    def __init__(self, recipe: Recipe, steps: int) -> None:
        self.recipe, self.steps = recipe, steps

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        """Set the images' epoch, which the data loader does not in the epoch in which a training goes on."""
        train_dataloader.dataset.set_epoch(int(state.epoch))

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        """Set the learning rate by step: the scheduler lags behind where the gradient scaler skips one."""
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * learning_rate(self.recipe, state.global_step, self.steps)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        """No checkpoint of weights that are not finite, nor of the last step: the model is saved next."""
        if state.global_step >= self.steps:
            control.should_save = False
        if control.should_save:
            for name, value in model.named_parameters():
                if value.requires_grad and not torch.isfinite(value).all():
                    raise TrainingError(
                        f"step {state.global_step}: {name} is not finite; the last checkpoint stays"
                    )

    def on_save(self, args, state, control, **kwargs):
        """Mark the checkpoint as whole when all processes have written it; then remove older ones."""
        PartialState().wait_for_everyone()
        if args.should_save:
            older = _checkpoints(Path(args.output_dir))
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE).touch()
            for checkpoint in older:
                shutil.rmtree(checkpoint, ignore_errors=True)
        PartialState().wait_for_everyone()


def _checkpoints(work: Path) -> list[Path]:
    """The whole checkpoints, oldest first."""
    checkpoints = (mark.parent for mark in work.glob(f"checkpoint-*/{WHOLE}"))
    return sorted(checkpoints, key=lambda path: int(path.name.split("-")[1]))


class _Arguments(TrainingArguments):
    @property
    def n_gpu(self) -> int:
        """At most one a process: with more, `Trainer` would cut batches apart for torch's DataParallel."""
        return min(super().n_gpu, 1)
