"""Answer a question about one or more face images.

example:
  expvqa ask face.jpg "How can this person's emotion be inferred from their facial actions?"
"""

import argparse
import sys
import warnings
from pathlib import Path

from ...errors import ImageError
from .options import add_model_options, load_model, positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `expvqa ask`."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image file with one face")
    parser.add_argument("question", metavar="QUESTION", help="the question, in quotes, after the images")
    add_model_options(parser, "the tiny model of the quick profile")
    parser.add_argument(
        "--samples", type=positive, default=1, metavar="N", help="sample N answers (default: 1, the best one)"
    )
    parser.add_argument("--no-crop", action="store_true", help="use the whole image, not the face in it")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the samples (default: 0)")


def run(options: argparse.Namespace) -> None:
    """Print each answer on a line: of several images after the image's name and a tab."""
    for image in options.images:  # before the model loads, which takes seconds
        if not Path(image).is_file():
            raise ImageError(
                f"{image}: no such image file; give the images first and the question last, in quotes"
            )
    model = load_model(options)
    if model.notice:
        print(f"expvqa: {model.notice}", file=sys.stderr)
    warnings.showwarning = lambda message, *_: print(f"expvqa: {message}", file=sys.stderr)
    answers = model.ask(
        options.images, options.question, samples=options.samples, crop=not options.no_crop, seed=options.seed
    )
    for row in answers.itertuples():
        print(row.answer if len(options.images) == 1 else f"{row.image}\t{row.answer}")
