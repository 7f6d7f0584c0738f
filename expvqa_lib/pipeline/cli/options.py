"""Arguments that several commands share; what is heavy to import is put off until they are used."""

from argparse import Namespace
from pathlib import Path


def argument(*flags: str, **settings) -> tuple[tuple[str, ...], dict]:
    """One argument of a command: what `ArgumentParser.add_argument` takes."""
    return flags, settings


MODEL = (
    argument("--device", metavar="D", help="cpu, cuda or mps (default: what suits the model)"),
    argument("--dtype", metavar="T", help="float32, bfloat16 or float16 (default: what suits the device)"),
    argument("--bits", type=int, choices=(8, 4), help="bits of the language model (needs bitsandbytes)"),
)
PROFILE = (
    argument(
        "--profile",
        default="quick",
        metavar="NAME",
        help="quick: drawn faces (default); full: with the ablations; paper, paper-full: your data sets",
    ),
    argument(
        "--data-root",
        default="",
        metavar="DIR",
        help="with paper: folder of the data sets, each in a folder of its name",
    ),
    argument(
        "--base",
        default="",
        metavar="DIR",
        help="model folder or hub name to start from (paper: InstructBLIP-Vicuna-7B of the hub)",
    ),
)


def load_model(options: Namespace):
    """Load the model that the options name, as `expvqa_lib.load` does."""
    import expvqa_lib

    return expvqa_lib.load(options.model, device=options.device, dtype=options.dtype, bits=options.bits)


def model_name(model: str) -> str:
    """Return the last part of a model's folder (of `.`, too) or hub name."""
    return Path(model).resolve().name


def open_run(options: Namespace, output: str = ""):
    """Open the run that the options describe, in the folder of runs `output`."""
    from ..run import Run

    return Run(options.profile, output, data_root=options.data_root, base=options.base)
