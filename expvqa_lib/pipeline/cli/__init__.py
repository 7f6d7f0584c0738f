"""The command `expvqa`. Each command is a module of this package, imported when it is chosen."""

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib import import_module

from ...errors import ExpVQAError

COMMANDS = {
    "ask": "answer a question about one or more face images",
    "data": "check or read a data set or your own labels, or cut the faces out",
    "pairs": "build question-answer pairs for training",
    "train": "fine-tune a model",
    "evaluate": "measure the models of a run, or a model on your own faces",
    "convert": "convert a checkpoint of the authors to a transformers folder, or back",
    "reproduce": "run the numbered notebooks and write the report",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1 for an error, 130 when interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = build_parser(arguments[0] if arguments else "").parse_args(arguments)
    try:
        options.run(options)
    except ExpVQAError as error:
        print(f"expvqa: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("expvqa: interrupted", file=sys.stderr)
        return 130
    return 0


def build_parser(chosen: str) -> ArgumentParser:
    """Return the parser with the options of the `chosen` command alone: the others are not imported."""
    parser = ArgumentParser(
        prog="expvqa", description="Ask questions about facial expressions, and reproduce Exp-VQA."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, formatter_class=RawDescriptionHelpFormatter)
        if name == chosen:
            module = import_module(f".{name}", __package__)
            command.description = module.__doc__
            command.set_defaults(run=module.run)
            for flags, settings in module.ARGUMENTS:
                command.add_argument(*flags, **settings)
    return parser
