"""Answer a question about one or more face images.

example:
  expvqa ask docs/face.png "How can this person's emotion be inferred from their facial actions?"
"""

import sys
import warnings
from argparse import Namespace
from pathlib import Path

from ...errors import ImageError
from .options import MODEL, argument, load_model

ARGUMENTS = (
    argument("images", nargs="+", metavar="IMAGE", help="image file with one face"),
    argument("question", metavar="QUESTION", help="the question, in quotes, after the images"),
    argument("--model", metavar="DIR", help="model folder or hub name (default: the quick profile's model)"),
    *MODEL,
    argument("--samples", type=int, default=1, metavar="N", help="sample N answers (default: the best)"),
    argument("--no-crop", action="store_true", help="use the whole image, not the face in it"),
    argument("--seed", type=int, default=0, metavar="N", help="seed of the samples (default: 0)"),
)


def run(options: Namespace) -> None:
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
    given = {"samples": options.samples, "crop": not options.no_crop, "seed": options.seed}
    for row in model.ask(options.images, options.question, **given).itertuples():
        print(row.answer if len(options.images) == 1 else f"{row.image}\t{row.answer}")
