"""Fine-tune a model of a profile, or your own model on your own pairs.

examples:
  expvqa train --profile quick --variant exp_vqa_fz --output runs/mine
  accelerate launch --config_file expvqa_lib/assets/accelerate/fsdp.yaml -m expvqa_lib train \\
      --profile paper --pairs pairs --model instructblip --output mine
"""

import argparse
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
from .options import add_profile_options, open_run, positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `expvqa train`: among them each setting of the recipe that has a help text."""
    add_profile_options(parser)
    parser.add_argument(
        "--variant",
        default="exp_vqa",
        metavar="NAME",
        help="exp_vqa trains the vision encoder (default), exp_vqa_fz keeps it frozen; or an ablation "
        "of that, such as q3_only, cat_captioner or without_au12",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="folder of runs (default: runs); with --pairs: new model folder",
    )
    own = parser.add_argument_group("your own pairs and model, with changes of the profile's recipe")
    own.add_argument("--pairs", metavar="DIR", help="folder of `expvqa pairs`")
    own.add_argument("--model", metavar="DIR", help="model folder or hub name to start from")
    own.add_argument(
        "--unseen", type=positive, nargs="+", metavar="AU", help="AUs that no Q3 pair asks about"
    )
    for setting in fields(Recipe):
        if not setting.metadata:
            continue
        name, help_text = setting.name.replace("_", "-"), setting.metadata["help"]
        given = {"dest": setting.name, "default": argparse.SUPPRESS, "help": help_text}
        if isinstance(setting.default, bool):
            own.add_argument(f"--no-{name}", action="store_false", **given)
        elif choices := setting.metadata["choices"]:
            own.add_argument(f"--{name}", choices=choices, **given)
        else:
            own.add_argument(f"--{name}", type=positive, metavar="N", **given)


def run(options: argparse.Namespace) -> None:
    """Fine-tune, on as many processes as were launched, and print where the model is."""
    changes = {
        setting.name: getattr(options, setting.name) for setting in fields(Recipe) if setting.name in options
    }
    if options.pairs:
        _train_on_pairs(options, changes)
        return
    if changes or options.model or options.unseen:
        raise SettingsError(
            "--model, --unseen and changes of the recipe go with --pairs; a profile has its own"
        )
    _train_in_run(options)


def _train_in_run(options: argparse.Namespace) -> None:
    curriculum(options.variant)  # an unknown one is refused before any work
    run = open_run(options, options.output)
    state = PartialState(cpu=not torch.accelerator.is_available())
    with state.main_process_first():  # one of several processes draws the faces
        run.pairs()
    folder = run.train(options.variant)
    state.print(f"{folder}: the fine-tuned model")


def _train_on_pairs(options: argparse.Namespace, changes: dict) -> None:
    lessons = curriculum(options.variant, tuple(options.unseen or ()))
    if lessons.captioner:
        raise SettingsError(f"--variant {options.variant} needs the faces of a profile; leave --pairs out")
    if not options.model or not options.output:
        raise SettingsError("--pairs needs --model, what to start from, and --output, the new folder")
    variant = variant_of(options.variant)
    steps = {"steps": None} if "epochs" in changes else {}
    recipe = replace(getattr(get(options.profile), variant), **changes, **steps)
    try:
        pairs = datasets.load_from_disk(options.pairs)
    except Exception as error:
        raise SettingsError(
            f"{options.pairs}: no pairs could be read ({error}); expected a folder of `expvqa pairs`"
        ) from error
    model, processor = load_model(options.model, device="cpu", language_dtype=recipe.precision)
    finetune(
        model,
        processor,
        select(pairs, lessons),
        options.output,
        variant=variant,
        recipe=recipe,
    )
    PartialState().print(f"{options.output}: the fine-tuned model")
