"""Build question-answer pairs: of a profile, of your own face table, or from the authors' files.

examples:
  expvqa pairs --profile quick --output pairs
  expvqa pairs --table faces.parquet --rewrite --llm-model gpt-4o-mini --budget 5 --price 0.15 0.6
  expvqa pairs --table faces.parquet --captioner exp-vqa
  expvqa pairs --from-json Q1.json Q2.json Q3.json --image-root images --validation 0.02
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

import datasets

from ...data import build_pairs, read_pairs_json, read_table, save_pairs, split_by_image
from ...data.rewriting import Chat, rewrite
from ...errors import SettingsError, TableError
from ...expvqa import load
from ...files import atomic
from ...training.pseudo_labels import add_pseudo_pairs, caption
from .options import add_profile_options, open_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `expvqa pairs`."""
    add_profile_options(parser)
    parser.add_argument(
        "--table", metavar="FILE", help="your own face table, in place of the profile's faces"
    )
    parser.add_argument(
        "--image-root",
        metavar="DIR",
        help="with --table or --from-json: folder that the images are relative to",
    )
    parser.add_argument(
        "--captioner",
        metavar="DIR",
        help="trained model that adds pseudo-labels to training faces without labels",
    )
    parser.add_argument(
        "--output", default="pairs", metavar="DIR", help="new folder for the pairs (default: pairs)"
    )
    released = parser.add_argument_group("pairs of the authors")
    released.add_argument(
        "--from-json", nargs="+", metavar="FILE", help="their JSON lists, named for Q1, Q2 and Q3"
    )
    released.add_argument("--drop-missing", action="store_true", help="leave out rows without an image file")
    released.add_argument(
        "--validation", type=float, metavar="X", help="share of the images for validation, say 0.02"
    )
    llm = parser.add_argument_group("Q1 and Q2 in a language model's words (OPENAI_API_KEY, OPENAI_BASE_URL)")
    llm.add_argument(
        "--rewrite", action="store_true", help="rewrite them; answers are kept in OUTPUT-answers.sqlite"
    )
    llm.add_argument(
        "--llm-model", metavar="NAME", help="name of the language model (default: EXPVQA_LLM_MODEL)"
    )
    llm.add_argument("--budget", type=float, metavar="X", help="stop before this run costs more")
    llm.add_argument(
        "--price", type=float, nargs=2, metavar=("IN", "OUT"), help="of a million tokens in and out"
    )


def run(options: argparse.Namespace) -> None:
    """Write the pairs and print how many there are in each split."""
    output, report = Path(options.output), None
    if output.exists():
        raise SettingsError(f"{output}: exists already; remove it, or give another folder with --output")
    chat = (
        _chat(options, output) if options.rewrite else None
    )  # a missing setting is reported before the work
    with atomic(output) as temporary:
        folder = temporary / "arrow"
        folder.mkdir(parents=True)
        pairs = _read_json(options, folder) if options.from_json else _build(options, output, folder)
        if chat:
            pairs, report = rewrite(pairs, chat)
        for split in [split for split, rows in pairs.items() if not len(rows)]:
            del pairs[split]
        if not pairs:
            raise TableError(f"{options.table}: no face has a label, expected AUs or emotions with values")
        save_pairs(pairs, temporary)
        shutil.rmtree(folder)
    for split, rows in pairs.items():
        print(f"{split}: {len(rows)} pairs")
    if report is not None:
        print(report.to_string())
    print(f"{output}: read it with datasets.load_from_disk")


def _build(options: argparse.Namespace, output: Path, folder: Path) -> datasets.DatasetDict:
    """Return the pairs by the rules; with a captioner also those of its pseudo-labels."""
    if not options.captioner and not options.table:
        return open_run(options).pairs()
    table = read_table(options.table, options.image_root) if options.table else open_run(options).faces()
    pairs = build_pairs(table, folder=folder)
    if options.captioner:
        captions = output.with_name(f"{output.name}-captions")
        model = load(options.captioner)
        answers = caption(model.model, model.processor, table, captions)
        pairs = add_pseudo_pairs(pairs, table, answers)
    return pairs


def _read_json(options: argparse.Namespace, folder: Path) -> datasets.DatasetDict:
    """Return the pairs of released files; counts of dropped rows go to standard error."""
    if not options.image_root:
        raise SettingsError("--from-json needs --image-root, the folder that the images are relative to")
    pairs, dropped = read_pairs_json(
        options.from_json, options.image_root, drop_missing=options.drop_missing, folder=folder
    )
    for reason, count in dropped.items():
        print(f"expvqa: {count} rows dropped: {reason}", file=sys.stderr)
    if options.validation:
        return split_by_image(pairs, options.validation)
    return datasets.DatasetDict({"train": pairs})


def _chat(options: argparse.Namespace, output: Path) -> Chat:
    """Return the client of the language model, with its store of answers beside the output."""
    model = options.llm_model or os.environ.get("EXPVQA_LLM_MODEL")
    if not model:
        raise SettingsError("--rewrite needs the name of a language model: --llm-model, or EXPVQA_LLM_MODEL")
    store = output.with_name(f"{output.name}-answers.sqlite")
    return Chat(model, store, price=tuple(options.price or (0.0, 0.0)), max_cost=options.budget)
