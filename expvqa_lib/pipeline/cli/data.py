"""Check the folder of a data set, read it or your own labels into a face table, or cut the faces out.

examples:
  expvqa data check BP4D --root data/BP4D
  expvqa data read BP4D --root data/BP4D --output tables/BP4D.parquet
  expvqa data crop tables/BP4D.parquet --root data/BP4D --output faces
  expvqa data read own --root photos --labels labels.csv --output own.parquet
"""

from argparse import Namespace

from ...data import crop_dataset, readers
from ...errors import SettingsError
from .options import argument

ARGUMENTS = (
    argument(
        "action",
        choices=("check", "read", "crop"),
        help="report on the data set; write its face table and split; cut out the faces of a face table",
    ),
    argument(
        "dataset",
        metavar="DATASET",
        help="one of docs/datasets.md; with --labels own, OpenFace, Py-Feat or LibreFace; crop: face table",
    ),
    argument(
        "--labels", nargs="+", metavar="FILE", help="your own CSV or Parquet table, or the AU tool's output"
    ),
    argument("--root", required=True, metavar="DIR", help="folder of the data set as it was distributed"),
    argument(
        "--output", metavar="PATH", help="read: the face table, .parquet; crop: the folder for the faces"
    ),
)


def run(options: Namespace) -> None:
    """Print the report of the data set; with `read` and `crop`, write the output."""
    if options.action != "check" and not options.output:
        raise SettingsError(
            f"{options.action} needs --output: a face table, .parquet, or the folder for faces"
        )
    if options.action == "crop":
        faces, dropped = crop_dataset(options.dataset, options.root, options.output)
        reasons = "".join(f", {count} dropped: {reason}" for reason, count in dropped.items())
        print(f"{options.output}: {len(faces)} faces{reasons}; use it as --data-root")
        return
    output = options.output if options.action == "read" else None
    reading = readers.read_dataset(options.dataset, options.root, output, options.labels)
    if options.action == "check":
        print(readers.describe_reading(reading))
    else:
        print(*reading.table.attrs["rows"])
        print(f"{output}: the face table, with images relative to {reading.root}")
        print(f"{readers.split_path(output)}: its split")
