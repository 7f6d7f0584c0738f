"""The command `expvqa`: its parser is light, and what a command needs is imported when it runs."""

import re
import sys
from argparse import SUPPRESS, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence

from ...errors import ExpVQAError
from .asking_options import ASKING
from .options import COMMANDS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1 for an error, 130 when interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = build_parser(arguments[0] if arguments else "").parse_args(arguments)
    try:
        from . import asking, commands

        getattr(asking if options.command in ASKING else commands, options.command)(options)
    except ExpVQAError as error:
        # a worker process puts its traceback before the message
        message = re.split(r"expvqa_lib\.errors\.\w+: ", str(error))[-1].strip()
        print(f"expvqa: error: {message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("expvqa: interrupted", file=sys.stderr)
        return 130
    return 0


def build_parser(chosen: str) -> ArgumentParser:
    """Return the parser; only where `train` is chosen does it import torch, for the settings of a recipe."""
    parser = ArgumentParser(
        prog="expvqa", description="Ask questions about facial expressions, and reproduce Exp-VQA."
    )
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    for name, (summary, examples, options) in COMMANDS.items():
        description = "\n  expvqa ".join([f"{summary}\n\nexamples:", *examples])
        command = commands.add_parser(
            name, help=summary, description=description, formatter_class=RawDescriptionHelpFormatter
        )
        for flag, settings in options.items():
            command.add_argument(flag, **settings)
        if name == chosen == "train":
            from .commands import RECIPE

            for setting, settings in RECIPE.items():
                command.add_argument(f"--{setting.replace('_', '-')}", default=SUPPRESS, **settings)
    return parser
