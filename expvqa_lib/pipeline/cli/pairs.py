"""Build question-answer pairs: of a profile, of your own face table, or from the authors' files.

examples:
  expvqa pairs --profile quick --output pairs
  expvqa pairs --table faces.parquet --rewrite --llm-model gpt-4o-mini --budget 5 --price 0.15 0.6
  expvqa pairs --table faces.parquet --captioner exp-vqa
  expvqa pairs --from-json Q1.json Q2.json Q3.json --image-root images --validation 0.02
"""

import shutil
import sys
from argparse import Namespace
from pathlib import Path

import datasets

from ...data import build_pairs, read_pairs_json, read_table, save_pairs, split_by_image
from ...data.rewriting import Chat, rewrite
from ...errors import SettingsError, TableError
from ...expvqa import load
from ...files import atomic
from ...training.pseudo_labels import add_pseudo_pairs, caption
from .options import PROFILE, argument, open_run

ARGUMENTS = (
    *PROFILE,
    argument("--table", metavar="FILE", help="your own face table, in place of the profile's faces"),
    argument("--image-root", metavar="DIR", help="folder that the images of a table or JSON are relative to"),
    argument(
        "--captioner",
        metavar="DIR",
        help="trained model that adds pseudo-labels to unlabelled training faces",
    ),
    argument("--output", default="pairs", metavar="DIR", help="new folder for the pairs (default: pairs)"),
    argument(
        "--from-json", nargs="+", metavar="FILE", help="JSON lists of the authors, named for Q1, Q2 and Q3"
    ),
    argument("--drop-missing", action="store_true", help="of the JSON: leave out rows without an image file"),
    argument(
        "--validation", type=float, metavar="X", help="of the JSON: share of images for validation, say 0.02"
    ),
    argument(
        "--rewrite",
        action="store_true",
        help="Q1 and Q2 in a language model's words (OPENAI_API_KEY, _BASE_URL)",
    ),
    argument("--llm-model", metavar="NAME", help="name of the language model"),
    argument("--budget", type=float, metavar="X", help="stop before the rewriting costs more"),
    argument(
        "--price", type=float, nargs=2, default=(0, 0), metavar=("IN", "OUT"), help="of a million tokens"
    ),
)


def run(options: Namespace) -> None:
    """Write the pairs and print how many there are in each split."""
    output = Path(options.output)
    if output.exists():
        raise SettingsError(f"{output}: exists already; remove it, or give another folder with --output")
    if options.rewrite:
        if not options.llm_model:
            raise SettingsError("--rewrite needs the name of a language model: --llm-model")
        store = output.with_name(f"{output.name}-answers.sqlite")
        chat = Chat(options.llm_model, store, price=tuple(options.price), max_cost=options.budget)
    with atomic(output) as temporary:
        folder = temporary / "arrow"
        folder.mkdir(parents=True)
        pairs = _read_json(options, folder) if options.from_json else _build(options, output, folder)
        if options.rewrite:
            pairs, report = rewrite(pairs, chat)
            print(report.to_string())
        pairs = datasets.DatasetDict({split: rows for split, rows in pairs.items() if len(rows)})
        if not pairs:
            raise TableError(f"{options.table}: no face has a label, expected AUs or emotions with values")
        save_pairs(pairs, temporary)
        shutil.rmtree(folder)
    for split, rows in pairs.items():
        print(f"{split}: {len(rows)} pairs")
    print(f"{output}: read it with datasets.load_from_disk")


def _build(options: Namespace, output: Path, folder: Path) -> datasets.DatasetDict:
    """Return the pairs by the rules; with a captioner also those of its pseudo-labels."""
    table = read_table(options.table, options.image_root) if options.table else open_run(options).faces()
    pairs = build_pairs(table, folder=folder)
    if options.captioner:
        model, captions = load(options.captioner), output.with_name(f"{output.name}-captions")
        pairs = add_pseudo_pairs(pairs, table, caption(model.model, model.processor, table, captions))
    return pairs


def _read_json(options: Namespace, folder: Path) -> datasets.DatasetDict:
    """Return the pairs of released files; counts of dropped rows go to standard error."""
    if not options.image_root:
        raise SettingsError("--from-json needs --image-root, the folder that the images are relative to")
    given = {"drop_missing": options.drop_missing, "folder": folder}
    pairs, dropped = read_pairs_json(options.from_json, options.image_root, **given)
    for reason, count in dropped.items():
        print(f"expvqa: {count} rows dropped: {reason}", file=sys.stderr)
    if options.validation:
        return split_by_image(pairs, options.validation)
    return datasets.DatasetDict({"train": pairs})
