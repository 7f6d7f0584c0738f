"""Fine-tune a model of a profile, or your own model on your own pairs.

examples:
  expvqa train --profile quick --variant exp_vqa_fz --output runs/mine
  accelerate launch --config_file expvqa_lib/assets/accelerate/fsdp.yaml -m expvqa_lib train \\
      --profile paper --pairs pairs --model instructblip --output mine
"""

from argparse import SUPPRESS, Namespace
from dataclasses import fields, replace

import datasets
import torch
from accelerate import PartialState

from ...errors import SettingsError
from ...model import load_model
from ...training.curriculum import curriculum, select, variant_of
from ...training.finetune import finetune
from ...training.recipe import Recipe
from ..profiles import get
from .options import PROFILE, argument, open_run

RECIPE = [setting for setting in fields(Recipe) if setting.metadata]
"""Settings that the command line can change; `metadata` is what `add_argument` takes."""

ARGUMENTS = (
    *PROFILE,
    argument(
        "--variant",
        default="exp_vqa",
        metavar="NAME",
        help="exp_vqa trains the vision encoder (default), exp_vqa_fz keeps it frozen; or an ablation "
        "of that, such as q3_only, cat_captioner or without_au12",
    ),
    argument(
        "--output",
        default="",
        metavar="DIR",
        help="folder of runs (default: runs); with --pairs: new model folder",
    ),
    argument("--pairs", metavar="DIR", help="your own pairs, a folder of `expvqa pairs`; with --model"),
    argument("--model", metavar="DIR", help="with --pairs: model folder or hub name to start from"),
    argument("--unseen", type=int, nargs="+", metavar="AU", help="with --pairs: AUs without Q3 pairs"),
    *(
        argument(f"--{setting.name.replace('_', '-')}", default=SUPPRESS, **setting.metadata)
        for setting in RECIPE
    ),
)


def run(options: Namespace) -> None:
    """Fine-tune, on as many processes as were launched, and print where the model is."""
    changes = {s.name: getattr(options, s.name) for s in RECIPE if s.name in options}
    if options.pairs:
        _train_on_pairs(options, changes)
        return
    if changes or options.model or options.unseen:
        raise SettingsError(
            "--model, --unseen and changes of the recipe go with --pairs; a profile has its own"
        )
    curriculum(options.variant)  # an unknown one is refused before any work
    run = open_run(options, options.output)
    state = PartialState(cpu=not torch.accelerator.is_available())
    with state.main_process_first():  # one of several processes draws the faces
        run.pairs()
    folder = run.train(options.variant)
    state.print(f"{folder}: the fine-tuned model")


def _train_on_pairs(options: Namespace, changes: dict) -> None:
    chosen = curriculum(options.variant, tuple(options.unseen or ()))
    if chosen.captioner:
        raise SettingsError(f"--variant {options.variant} needs the faces of a profile; leave --pairs out")
    if not options.model or not options.output:
        raise SettingsError("--pairs needs --model, what to start from, and --output, the new folder")
    variant = variant_of(options.variant)
    steps = {"steps": None} if "epochs" in changes else {}
    recipe = replace(getattr(get(options.profile), variant), **changes, **steps)
    try:
        pairs = select(datasets.load_from_disk(options.pairs), chosen)
    except FileNotFoundError as error:
        raise SettingsError(f"{options.pairs}: no pairs; expected a folder of `expvqa pairs`") from error
    model, processor = load_model(options.model, device="cpu", language_dtype=recipe.precision)
    finetune(model, processor, pairs, options.output, variant=variant, recipe=recipe)
    PartialState().print(f"{options.output}: the fine-tuned model")
