"""Run the numbered notebooks in order and write the report.

example:
  expvqa reproduce --profile quick --from 04
"""

import argparse

from .options import add_profile_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `expvqa reproduce`."""
    add_profile_options(parser)
    parser.add_argument("--from", dest="start", default="", metavar="NN", help="resume with notebook NN")
    parser.add_argument("--output", default="", metavar="DIR", help="folder for runs (default: runs)")
    parser.add_argument(
        "--figures",
        default="",
        metavar="DIR",
        help="folder for figures and tables (default: figures for quick and full, else in the run)",
    )


def run(options: argparse.Namespace) -> None:
    """Run the notebooks and print where the report is."""
    from ..reproduce import reproduce

    report = reproduce(
        options.profile,
        data_root=options.data_root,
        base=options.base,
        start=options.start,
        output=options.output,
        figures=options.figures,
    )
    print(f"report: {report}")
