"""Options that several commands share; what is heavy to import is put off until they are used."""

import argparse
from pathlib import Path

from ...errors import SettingsError


def add_model_options(parser: argparse.ArgumentParser, default: str) -> None:
    """Add `--model` and how to load it."""
    parser.add_argument("--model", metavar="DIR", help=f"model folder or hub name (default: {default})")
    parser.add_argument("--device", metavar="D", help="cpu, cuda or mps (default: what suits the model)")
    parser.add_argument(
        "--dtype", metavar="T", help="float32, bfloat16 or float16 (default: what suits the device)"
    )
    parser.add_argument(
        "--bits", type=int, choices=(8, 4), help="bits of the language model (needs bitsandbytes)"
    )


def add_profile_options(parser: argparse.ArgumentParser) -> None:
    """Add `--profile` and what a profile on real data needs."""
    parser.add_argument(
        "--profile",
        default="quick",
        metavar="NAME",
        help="quick: drawn faces (default); full: with the ablations; paper, paper-full: your data sets",
    )
    parser.add_argument(
        "--data-root",
        default="",
        metavar="DIR",
        help="with paper: folder of the data sets, each in a folder of its name",
    )
    parser.add_argument(
        "--base",
        default="",
        metavar="DIR",
        help="model folder or hub name to start from (paper: InstructBLIP-Vicuna-7B of the hub)",
    )


def positive(text: str) -> int:
    """Parse a whole number of 1 or more."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return number


def load_model(options: argparse.Namespace):
    """Load the model that the options name, as `expvqa_lib.load` does."""
    import expvqa_lib

    return expvqa_lib.load(options.model, device=options.device, dtype=options.dtype, bits=options.bits)


def model_name(model: str) -> str:
    """Return the last part of a model's folder (of `.`, too) or hub name."""
    return Path(model).resolve().name


def open_run(options: argparse.Namespace, output: str | None = None):
    """Open the run that the options describe, in the folder of runs `output`."""
    from ..run import Run

    return Run(options.profile, output or "", data_root=options.data_root, base=options.base)


def refuse(options: argparse.Namespace, names: tuple[str, ...], reason: str) -> None:
    """Raise SettingsError where options are given that would be ignored."""
    if given := [f"--{name.replace('_', '-')}" for name in names if getattr(options, name)]:
        raise SettingsError(f"{' and '.join(given)} {reason}")
