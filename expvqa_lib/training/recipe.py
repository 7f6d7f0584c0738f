"""How to fine-tune: every setting in one frozen dataclass, the paper's own among them, and the learning
rate by step."""

import math
import warnings
from argparse import BooleanOptionalAction
from dataclasses import dataclass, field, replace

from ..errors import SettingsError

VARIANTS = ("exp_vqa", "exp_vqa_fz")
PRECISIONS = ("float32", "bfloat16", "float16")


def _option(default, text: str, **settings):
    """A setting that `expvqa train` takes as an option, too: its help text and settings of argparse."""
    return field(default=default, metadata={"help": text, **(settings or {"type": int, "metavar": "N"})})


@dataclass(frozen=True)
class Recipe:
    """How to fine-tune: one step of one process sees `images` pictures with `pairs_per_image` pairs each.

    With `steps`, an epoch shows each image once, with some of its pairs; with `epochs`, it shows every pair
    once, as the reference does. The defaults suit the tiny model, which learns by many small steps.
    """

    steps: int | None = _option(
        1000, "steps of training, on the cosine schedule (small data: docs/real-data.md)"
    )
    epochs: int | None = _option(None, "in place of steps (paper: 6)")
    images: int = _option(8, "images a step and process (paper: 30)")
    pairs_per_image: int = _option(6, "pairs that share an image's pass of the vision encoder (paper: 1)")
    learning_rate: float = _option(1e-3, "its peak (paper: 1e-5)", type=float, metavar="X")
    vision_learning_rate: float | None = 1.5e-4  # pretrained longest, so it moves least; None: the same
    weight_decay: float = 0.05  # on every trained tensor, norms and biases too
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0  # largest norm of the gradient; 0: none
    schedule: str = "cosine"
    warmup: float = _option(
        0.05,
        "steps in which the learning rate rises (paper: 1000), or below 1 their share of all",
        type=float,
        metavar="X",
    )
    warmup_start: float = 1e-8  # reference: the learning rate before the warm-up
    validate_every: int = 500  # steps; a checkpoint stands there too
    augment: bool = _option(
        True,
        "crop, flip and RandAugment; without, a frozen encoder reads each image once",
        action=BooleanOptionalAction,
    )
    crop: tuple[float, float] = (0.8, 1.0)  # share of the area
    randaugment: int = 0  # operations drawn; at magnitude 5 of 10
    reference_text: bool = False  # lower case, some characters to spaces, cut to `max_words`
    max_words: int = _option(50, "words to which a text is cut (paper: 50)")
    precision: str = _option(
        "float32", "of the arithmetic and of frozen parts (paper: float16)", choices=PRECISIONS
    )
    gradient_checkpointing: bool = False
    accumulate: int = _option(1, "batches a step (paper: 1)")
    workers: int = _option(0, "processes that read images; 0 suits small data (paper: 4)")
    seed: int = 42

    def __post_init__(self) -> None:
        """Raise SettingsError for a value that is out of range; it names the field, the value and what is
        allowed."""
        for name, allowed in (("schedule", ("cosine", "reference")), ("precision", PRECISIONS)):
            if getattr(self, name) not in allowed:
                raise SettingsError(
                    f"Recipe.{name}={getattr(self, name)!r} is unknown; known are {', '.join(allowed)}"
                )
        if (self.steps is None) == (self.epochs is None) or self.schedule == "reference" and self.steps:
            raise SettingsError(
                f"Recipe.steps={self.steps!r}, Recipe.epochs={self.epochs!r}: give one, not both or none; "
                f"Recipe.schedule={self.schedule!r}: 'reference' counts epochs"
            )
        counts = ("steps", "epochs", "images", "pairs_per_image", "validate_every", "max_words", "accumulate")
        lowest = dict.fromkeys(counts, 1) | {"learning_rate": 1e-12, "warmup": 0}
        for name, least in lowest.items():
            if (value := getattr(self, name)) is not None and not least <= value < math.inf:
                raise SettingsError(f"Recipe.{name}={value!r}: expected {least} or more")


PAPER = Recipe(
    steps=None,
    epochs=6,
    images=30,  # on each of 4 GPUs
    pairs_per_image=1,
    learning_rate=1e-5,
    vision_learning_rate=None,
    betas=(0.9, 0.999),
    clip=0.0,
    schedule="reference",
    warmup=1000,
    validate_every=1000,
    randaugment=2,
    reference_text=True,
    precision="float16",
    gradient_checkpointing=True,
    workers=4,
)
"""The released configuration of Exp-VQA (`assets/published/hyperparameters_exp_vqa.csv` has each setting with
its source).

Where the released code contradicts itself: its configuration says `max_txt_len: 200`, which nothing reads;
the text is cut to 50 words. `max_words=50` is what the released weights saw, `max_words=200` what the
configuration seems to mean.
"""


def change(recipe: Recipe, **changes) -> Recipe:
    """A recipe with other settings, and those that follow from them.

    Steps take the place of epochs and the reverse; steps follow the cosine schedule; the learning rate of the
    vision encoder keeps its ratio to the other.
    """
    ratio = changes.get("learning_rate", recipe.learning_rate) / recipe.learning_rate
    follows = {"vision_learning_rate": recipe.vision_learning_rate and ratio * recipe.vision_learning_rate}
    follows |= {"epochs": None, "schedule": "cosine"} if "steps" in changes else {}
    follows |= {"steps": None} if "epochs" in changes else {}
    return replace(recipe, **follows | changes)


def warmup_steps(recipe: Recipe, steps: int) -> int:
    """The steps out of `steps` in which the learning rate rises; in the reference's first epoch alone."""
    return max(1, round(recipe.warmup if recipe.warmup >= 1 else recipe.warmup * steps))


def count_steps(recipe: Recipe, batches: int) -> int:
    """The steps of a training on `batches` an epoch; a warning where they end within the warm-up."""
    steps = recipe.steps or recipe.epochs * math.ceil(batches / recipe.accumulate)
    if steps <= (warm := warmup_steps(recipe, steps)):
        warnings.warn(
            f"{steps} steps end within the warm-up of {warm}, so the weights hardly change: more --steps "
            "(or --epochs) and a shorter --warmup, say 0.1 of them; docs/real-data.md has figures",
            stacklevel=3,
        )
    return steps


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """The learning rate of one step (from 0) out of `steps`, as a share of the peak.

    `cosine`: linear warm-up, then a cosine to 0. `reference`: linear warm-up by
    step in the first epoch, which is flat for its rest, then one constant value an epoch, on a cosine
    (released `optims.py`; with 6 epochs the peak times 0.933, 0.75, 0.5, 0.25 and 0.067).
    """
    warm = warmup_steps(recipe, steps)
    if recipe.schedule == "cosine":
        if step < warm:
            return step / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
    epoch = step // max(1, steps // recipe.epochs)
    if epoch == 0:
        start = recipe.warmup_start / recipe.learning_rate
        return min(1.0, start + (1 - start) * step / warm)
    return 0.5 * (1 + math.cos(math.pi * min(epoch, recipe.epochs) / recipe.epochs))
