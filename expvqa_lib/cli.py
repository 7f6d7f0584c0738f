"""The command `expvqa`: ask, pairs, train, evaluate, reproduce."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ExpVQAError, ImageError, SettingsError

if TYPE_CHECKING:
    from .workspace import Workspace

VARIANTS = ("exp_vqa", "exp_vqa_fz")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1 for an error that the message explains, 130 when interrupted.

    Usage errors end in argparse's exit status 2.
    """
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
    except ExpVQAError as error:
        if options.debug:
            raise
        print(f"expvqa: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("expvqa: interrupted", file=sys.stderr)
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; building it imports nothing heavy, so that `--help` is quick."""
    parser = argparse.ArgumentParser(
        prog="expvqa",
        description="Ask questions about facial expressions, and reproduce Exp-VQA (Pattern Recognition 168, 2025).",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name, run, summary: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog="example:\n  " + example,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        sub.set_defaults(run=run)
        return sub

    ask = command(
        "ask",
        _ask,
        "answer a question about one or more face images",
        'expvqa ask face.jpg "How can this person\'s emotion be inferred from their facial actions?"',
    )
    ask.add_argument("images", nargs="+", metavar="IMAGE", help="image file with one face")
    ask.add_argument("question", metavar="QUESTION", help="the question, in quotes; it comes last")
    ask.add_argument("--model", metavar="DIR", help="model folder or hub name (default: the tiny model of the quick profile)")
    ask.add_argument("--samples", type=_positive, default=1, metavar="N", help="sample N answers (default: 1, the best one)")
    ask.add_argument("--no-crop", action="store_true", help="take the whole image instead of the face found in it")
    ask.add_argument("--seed", type=int, default=0, metavar="N", help="seed for sampled answers (default: 0)")
    ask.add_argument("--device", metavar="D", help="cpu, cuda, mps ... (default: the library's choice)")

    pairs = command("pairs", _pairs, "synthesize the question and answer pairs of a profile", "expvqa pairs --profile quick --output pairs")
    _profile(pairs)
    pairs.add_argument(
        "--output", default="pairs", metavar="DIR", help="new folder for the pairs, a Hugging Face data set (default: pairs)"
    )

    train = command("train", _train, "fine-tune a model", "expvqa train --profile quick --variant exp_vqa_fz --output runs/mine")
    _profile(train)
    train.add_argument(
        "--variant", choices=VARIANTS, default="exp_vqa", help="exp_vqa trains the vision encoder, exp_vqa_fz keeps it frozen"
    )
    train.add_argument("--output", metavar="DIR", help="folder of the run; the model stays there (default: runs/PROFILE)")

    evaluate = command("evaluate", _evaluate, "measure AU detection and print the table", "expvqa evaluate --profile quick")
    _profile(evaluate)
    evaluate.add_argument("--model", metavar="NAME", help="only the rows of this model, for example exp_vqa (default: all)")
    evaluate.add_argument("--output", metavar="DIR", help="folder of the run with the trained models (default: runs/PROFILE)")

    reproduce = command(
        "reproduce", _reproduce, "run the numbered notebooks and write the report", "expvqa reproduce --profile quick --from 04"
    )
    _profile(reproduce)
    reproduce.add_argument("--from", dest="start", metavar="NN", help="start with notebook NN, keeping the ones before it")
    reproduce.add_argument("--only", nargs="+", metavar="NN", help="run these notebooks only")
    reproduce.add_argument("--output", default="runs", metavar="DIR", help="folder for runs (default: runs)")
    reproduce.add_argument("--figures", default="figures", metavar="DIR", help="folder for figures and tables (default: figures)")
    return parser


def _profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", default="quick", metavar="NAME", help="quick (default); paper cannot run yet")
    parser.add_argument("--data-root", metavar="DIR", help="folder that holds the licensed data sets (the paper profile)")


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return number


def _ask(options: argparse.Namespace) -> None:
    for image in options.images:  # before the model loads, which takes seconds
        if not Path(image).is_file():
            raise ImageError(f"{image}: no such image file; give image files first and the question last, in quotes")
    import expvqa_lib as expvqa

    where = {"device": options.device} if options.device else {}
    model = expvqa.load(options.model, **where) if options.model else expvqa.load(**where)
    if notice := getattr(model, "notice", None):
        print(f"expvqa: {notice}", file=sys.stderr)
    warnings.showwarning = lambda message, *_: print(f"expvqa: {message}", file=sys.stderr)
    images = options.images[0] if len(options.images) == 1 else options.images
    answers = model.ask(images, options.question, samples=options.samples, crop=not options.no_crop, seed=options.seed)
    if isinstance(answers, str):
        print(answers)
    elif isinstance(answers, list):
        print("\n".join(answers))
    else:
        for row in answers.itertuples():
            print(f"{row.image}\t{row.answer}")


def _workspace(options: argparse.Namespace, run_dir: str | None = None) -> Workspace:
    from .workspace import Workspace

    return Workspace(options.profile, run_dir=run_dir or Path("runs") / options.profile, data_root=options.data_root)


def _pairs(options: argparse.Namespace) -> None:
    from .files import atomic

    output = Path(options.output)
    if output.exists():
        raise SettingsError(f"{output}: exists already; remove it, or give another folder with --output")
    pairs = _workspace(options).pairs()
    with atomic(output) as temporary:
        pairs.save_to_disk(temporary)
    for split, rows in pairs.items():
        print(f"{split}: {len(rows)} pairs")
    print(f"{output}: read it with datasets.load_from_disk")


def _train(options: argparse.Namespace) -> None:
    _workspace(options, options.output).model(options.variant)
    print(f"{options.variant} is trained; its run folder is {options.output or Path('runs') / options.profile}")


def _evaluate(options: argparse.Namespace) -> None:
    table = _workspace(options, options.output).au_detection()
    if options.model:
        known = sorted(table["model"].unique())
        if options.model not in known:
            raise SettingsError(f"model {options.model!r} is not in the table; known are {', '.join(known)}")
        table = table[table["model"] == options.model]
    print(table.to_string(index=False))


def _reproduce(options: argparse.Namespace) -> None:
    from .reproduce import reproduce

    report = reproduce(
        options.profile,
        data_root=options.data_root,
        start=options.start,
        output=options.output,
        figures=options.figures,
        only=options.only,
    )
    print(f"report: {report}")
