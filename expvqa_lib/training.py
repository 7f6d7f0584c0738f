"""Fine-tuning on question-answer pairs with transformers' `Trainer`, both variants of the paper.

Exp-VQA trains the vision encoder, its final norm, the Q-Former, the queries and the projection; Exp-VQA(fz) keeps the vision encoder
frozen (its final norm still trains). The language model is frozen in both. All questions about one image in a batch share one pass of
the vision encoder.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor, Trainer, TrainerCallback, TrainingArguments

from .errors import SettingsError, TableError
from .files import atomic, fingerprint
from .model import answer_loss, language_inputs, query_image
from .photos import load_image
from .text import encode

VARIANTS = ("exp_vqa", "exp_vqa_fz")


@dataclass(frozen=True)
class Recipe:
    """How to fine-tune. One step sees `images` pictures with `questions` pairs each."""

    steps: int = 1000
    images: int = 8  # small batches: at this size the number of updates counts
    questions: int = 6
    learning_rate: float = 1e-3  # of queries, Q-Former and projection
    vision_learning_rate: float = 1.5e-4
    weight_decay: float = 0.05
    warmup: float = 0.05  # share of the steps
    validate_every: int = 500  # steps
    augment: bool = True  # random crops and flips; without them a frozen vision encoder looks at each image only once
    seed: int = 42


class ImagePairs(torch.utils.data.Dataset):
    """Pairs grouped by image: item k is one image with `questions` of its pairs, chosen anew in every epoch.

    Q1 is chosen whenever there is one, then Q2 and Q3 by chance, Q3 three times out of four.
    """

    def __init__(self, pairs: datasets.Dataset, questions: int, seed: int, *, train: bool = True, augment: bool = True) -> None:
        if not len(pairs):
            raise TableError("no pairs to train on: the split is empty")
        self.questions, self.seed, self.train, self.epoch = questions, seed, train, 0
        self.augment = train and augment
        table = pairs.to_pandas()
        self.groups = list(table.groupby("image", sort=False).indices.values())
        self.kinds = table["question_type"].to_numpy()
        self.text = list(zip(table["text_input"], table["text_output"], strict=True))
        self.images = table["image"].to_numpy()

    def __len__(self) -> int:
        return len(self.groups)

    def set_epoch(self, epoch: int) -> None:
        """Choices depend on the epoch, not on what this process has read, so that a run that goes on sees what it would have seen."""
        self.epoch = epoch if self.train else 0

    def __getitem__(self, k: int) -> dict:
        rows = self.groups[k]
        rng = np.random.default_rng([self.seed, k, self.epoch])
        kinds = self.kinds[rows]
        share = {"Q1": 1e6, "Q2": 1 / max(1, (kinds == "Q2").sum()), "Q3": 3 / max(1, (kinds == "Q3").sum())}
        weight = np.array([share[kind] for kind in kinds])
        chosen = rows[np.argsort(-np.log(rng.random(len(rows))) / weight)[: self.questions]]
        return {"image": self.images[int(rows[0])], "pairs": [self.text[r] for r in chosen], "augment": rng if self.augment else None}


class Collator:
    """Load, augment and stack images [I, 3, S, S]; tokenise the pairs [N, T]; `image_index` [N] says which image each asks about.

    Where `states` holds what a frozen vision encoder makes of each image, that is stacked instead: [I, 1 + patches, D_vision].
    """

    def __init__(self, processor: InstructBlipProcessor, states: Mapping[str, Tensor] | None = None) -> None:
        self.processor, self.states = processor, states

    def __call__(self, items: Sequence[dict]) -> dict[str, Tensor]:
        if self.states is None:
            pictures = [load_image(item["image"]) for item in items]
            pictures = [crop_and_flip(p, i["augment"]) if i["augment"] else p for p, i in zip(pictures, items, strict=True)]
            seen = {"pixel_values": self.processor.image_processor(pictures, return_tensors="pt")["pixel_values"]}
        else:
            seen = {"vision_states": torch.stack([self.states[item["image"]] for item in items]).float()}
        pairs = [pair for item in items for pair in item["pairs"]]
        index = torch.tensor([k for k, item in enumerate(items) for _ in item["pairs"]])
        text = encode(self.processor, [q for q, _ in pairs], [a for _, a in pairs])
        return {**seen, "image_index": index, **text}


def crop_and_flip(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The recipe's geometry: a random crop of 0.8 to 1.0 of the area (aspect 3/4 to 4/3) at the same size, flipped half of the time."""
    width, height = image.size
    area = rng.uniform(0.8, 1.0) * width * height
    aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    w, h = min(width, (area * aspect) ** 0.5), min(height, (area / aspect) ** 0.5)
    left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
    image = image.resize((width, height), Image.Resampling.BICUBIC, box=(left, top, left + w, top + h))
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image


def batch_loss(model: InstructBlipForConditionalGeneration, batch: dict[str, Tensor]) -> Tensor:
    """Loss of one batch of `Collator`: the vision encoder runs once an image, the rest once a question; in three groups by length."""
    states = batch["vision_states"] if "vision_states" in batch else _vision_states(model, batch["pixel_values"])
    embeds = model.vision_model.post_layernorm(states)  # [I, P, D]
    output = query_image(model, embeds, batch["qformer_input_ids"], batch["qformer_attention_mask"], batch["image_index"])
    ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
    total = output.new_zeros(())
    for rows in mask.sum(1).argsort(stable=True).tensor_split(min(3, len(mask))):  # short answers are not padded to the longest
        width = int(mask[rows].sum(1).max())
        inputs = language_inputs(model, output[rows], ids[rows, :width], mask[rows, :width])
        total = total + answer_loss(model, inputs, labels[rows, :width], reduction="sum")
    return total / (labels != -100).sum()


def _vision_states(model: InstructBlipForConditionalGeneration, pixel_values: Tensor) -> Tensor:
    """What the vision encoder makes of images before its final norm: [I, 1 + patches, D_vision]; without gradients where it is frozen."""
    vision = model.vision_model
    trained = vision.embeddings.patch_embedding.weight.requires_grad and torch.is_grad_enabled()
    with torch.set_grad_enabled(trained):
        return vision.encoder(inputs_embeds=vision.embeddings(pixel_values)).last_hidden_state


def _all_states(model: InstructBlipForConditionalGeneration, processor: InstructBlipProcessor, images: Sequence[str]) -> dict[str, Tensor]:
    """`_vision_states` of all images, in float16: once for the whole training."""
    states = {}
    for k in tqdm(range(0, len(images), 128), desc="looking", unit="x128"):
        paths = images[k : k + 128]
        pixels = processor.image_processor([load_image(path) for path in paths], return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            states |= zip(paths, _vision_states(model, pixels.to(model.device)).half().cpu(), strict=True)
    return states


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


class _Epochs(TrainerCallback):
    """Tells the training images their epoch; the data loader forgets to in the epoch in which a run goes on."""

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        train_dataloader.dataset.set_epoch(int(state.epoch))


class _PairTrainer(Trainer):
    """`Trainer` whose loss is `batch_loss`."""

    def __init__(self, recipe: Recipe, **kwargs) -> None:
        self.recipe = recipe
        super().__init__(**kwargs)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = batch_loss(model, inputs)
        return (loss, {}) if return_outputs else loss

    def create_optimizer(self, model=None):
        """AdamW; the vision encoder, which was pretrained longest, moves at its own rate."""
        model = model or self.model
        vision = {id(p) for p in model.vision_model.parameters()}
        trained = [p for p in model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if id(p) not in vision], "lr": self.recipe.learning_rate},
            {"params": [p for p in trained if id(p) in vision], "lr": self.recipe.vision_learning_rate},
        ]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=self.recipe.weight_decay)
        return self.optimizer

    def get_eval_dataloader(self, eval_dataset=None):
        """All validation images; of the training images an incomplete last batch is left out."""
        return torch.utils.data.DataLoader(self.eval_dataset, batch_size=self.args.eval_batch_size, collate_fn=self.data_collator)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        with torch.no_grad():
            return batch_loss(model, self._prepare_inputs(inputs)), None, None


def finetune(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    pairs: datasets.DatasetDict,
    folder: str | Path,
    *,
    variant: str = "exp_vqa",
    recipe: Recipe = Recipe(),
) -> pd.DataFrame:
    """Fine-tune a model in place and save it; a run that was cut off goes on from its last checkpoint.

    Args:
        model: to train; changed in place.
        pairs: splits `train` and `validation` of the pairs' table (`questions`).
        folder: of the finished model, its processor and `log.csv`; checkpoints stand in a hidden folder beside it while training.
        variant: one of `VARIANTS`.

    Returns:
        The log: columns `step`, `loss` (training), `eval_loss` (validation), `learning_rate`, missing where not measured.
    """
    folder = Path(folder)
    freeze(model, variant)
    if folder.exists() and not (folder / "config.json").exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingsError(f"{folder}: not a model folder, and training would replace it; choose a new or an empty folder")
    work = folder.parent / f".{folder.name}-checkpoints-{fingerprint(variant, asdict(recipe), pairs.num_rows)}"
    arguments = TrainingArguments(
        output_dir=str(work),
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.images,
        per_device_eval_batch_size=recipe.images,
        learning_rate=recipe.learning_rate,
        warmup_steps=max(1, round(recipe.warmup * recipe.steps)),
        lr_scheduler_type="cosine",
        max_grad_norm=1.0,
        seed=recipe.seed,
        data_seed=recipe.seed,
        logging_steps=max(1, recipe.steps // 100),
        eval_strategy="steps",
        eval_steps=recipe.validate_every,
        save_strategy="steps",
        save_steps=recipe.validate_every,
        save_total_limit=1,
        remove_unused_columns=False,
        dataloader_drop_last=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to=[],
    )
    train = ImagePairs(pairs["train"], recipe.questions, recipe.seed, augment=recipe.augment)
    if len(train) < recipe.images:
        raise SettingsError(f"{len(train)} training images are fewer than one batch of {recipe.images}; lower Recipe.images")
    validation = ImagePairs(pairs["validation"], recipe.questions, recipe.seed, train=False)
    states = None
    if variant == "exp_vqa_fz" and not recipe.augment:
        states = _all_states(model, processor, list(dict.fromkeys([*train.images, *validation.images])))
    trainer = _PairTrainer(
        recipe,
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=Collator(processor, states),
        callbacks=[_Epochs()],
    )
    trainer.train(resume_from_checkpoint=_last_checkpoint(work))
    log = pd.DataFrame(trainer.state.log_history)
    log = log.reindex(columns=["step", "loss", "eval_loss", "learning_rate"]).dropna(subset=["loss", "eval_loss"], how="all")
    model.requires_grad_(True).eval()
    with atomic(folder) as temporary:
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)
        log.to_csv(temporary / "log.csv", index=False)
    shutil.rmtree(work, ignore_errors=True)
    return log


def _last_checkpoint(work: Path) -> str | None:
    """The last checkpoint that was written to its end; its state comes last."""
    whole = [path.parent for path in work.glob("checkpoint-*/trainer_state.json")]
    return str(max(whole, key=lambda path: int(path.name.split("-")[1]))) if whole else None
