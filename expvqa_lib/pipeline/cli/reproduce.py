"""Run the numbered notebooks in order and write the report.

example:
  expvqa reproduce --profile quick --from 04
"""

from argparse import Namespace

from .options import PROFILE, argument

ARGUMENTS = (
    *PROFILE,
    argument("--from", dest="start", default="", metavar="NN", help="resume with notebook NN"),
    argument("--output", default="", metavar="DIR", help="folder for runs (default: runs)"),
    argument(
        "--figures",
        default="",
        metavar="DIR",
        help="folder for figures and tables (default: figures for quick and full, else in the run)",
    ),
)


def run(options: Namespace) -> None:
    """Run the notebooks and print where the report is."""
    from ..reproduce import reproduce

    names = ("profile", "data_root", "base", "output", "figures", "start")
    print(f"report: {reproduce(**{name: getattr(options, name) for name in names})}")
