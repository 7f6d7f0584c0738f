"""What the commands do: each function is called with the options of the command of its name."""

import sys
import warnings
from argparse import Namespace
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

import datasets
import numpy as np
import pandas as pd

from ... import expvqa
from ...data import (
    build_pairs,
    crop_dataset,
    describe_reading,
    inspection,
    read_pairs_json,
    read_table,
    readable,
    readers,
    save_pairs,
    split_by_image,
)
from ...data.chat import Chat
from ...data.rewriting import rewrite
from ...errors import TableError
from ...evaluation.predictions import processes
from ...files import atomic
from ...model import convert_checkpoint, export_checkpoint, load_model
from ...training import (
    Curriculum,
    Recipe,
    add_pseudo_pairs,
    caption,
    change,
    curriculum,
    finetune,
    select,
    variant_of,
)
from ..profiles import get
from .asking import require, run_of, show_warning

RECIPE = {setting.name: setting.metadata for setting in fields(Recipe) if setting.metadata}
"""Settings that `expvqa train` can change, with what `add_argument` takes."""


def data(options: Namespace) -> None:
    """Print the report of the data set; with `read` and `crop`, write the output."""
    action, output = options.action, options.output
    require(action == "check" or output, f"{action} needs --output: a face table, .parquet, or the folder")
    given = {"images": options.images, "threshold": options.threshold}
    chosen = {name: value for name, value in given.items() if value is not None}
    if action == "crop":
        faces, dropped = crop_dataset(options.dataset, options.root, output)
        reasons = "".join(f", {count} dropped: {reason}" for reason, count in dropped.items())
        print(f"{output}: {len(faces)} faces{reasons}; use it as --data-root")
    elif action == "read":
        reading = readers.read_dataset(options.dataset, options.root, output, options.labels, **chosen)
        print(*reading.table.attrs["rows"], *reading.notes, sep="\n")
        print(inspection.count_faces(reading.table).T.to_string())
        print(f"{output}: the face table, with images relative to {reading.root}")
        print(f"{readers.split_path(output)}: its split")
    else:
        reading = readers.read_dataset(options.dataset, options.root, labels=options.labels, **chosen)
        print(describe_reading(reading, None if options.all else 200))


def pairs(options: Namespace) -> None:
    """Write the pairs and print how many there are in each split."""
    output, warnings.showwarning = Path(options.output), show_warning
    require(not output.exists(), f"{output}: exists already; remove it, or give another --output")
    require(options.llm_model or not options.rewrite, "--rewrite needs a language model: --llm-model NAME")
    require(options.image_root or not options.from_json, "--from-json needs --image-root, their folder")
    if options.rewrite:
        store = output.with_name(f"{output.name}-answers.sqlite")
        chat = Chat(options.llm_model, store, price=tuple(options.price), max_cost=options.budget)
    with atomic(output) as temporary, TemporaryDirectory(dir=output.parent) as folder:
        rows = _read_json(options, folder) if options.from_json else _build(options, output, folder)
        if options.rewrite:
            rows, report = rewrite(rows, chat)
            print(report.to_string())
        rows = datasets.DatasetDict({split: part for split, part in rows.items() if len(part)})
        if not rows:
            raise TableError(f"{options.table}: no face has a label, expected AUs or emotions with values")
        save_pairs(rows, temporary)
    for split, part in rows.items():
        print(f"{split}: {len(part)} pairs")
    print(f"{output}: read it with datasets.load_from_disk")


def _build(options: Namespace, output: Path, folder: str) -> datasets.DatasetDict:
    """Return the pairs by the rules; with a captioner also those of its pseudo-labels."""
    table = read_table(options.table, options.image_root) if options.table else run_of(options).faces()
    if options.skip_unreadable:
        table = table[readable(table["image"])].reset_index(drop=True)
    built = build_pairs(table, folder=folder)
    if options.captioner:
        model, captions = expvqa.load(options.captioner), output.with_name(f"{output.name}-captions")
        built = add_pseudo_pairs(built, table, caption(model.model, model.processor, table, captions))
    return built


def _read_json(options: Namespace, folder: str) -> datasets.DatasetDict:
    """Return the pairs of released files; counts of dropped rows go to standard error."""
    released, dropped = read_pairs_json(
        options.from_json, options.image_root, drop_missing=options.drop_missing, folder=folder
    )
    for reason, count in dropped.items():
        print(f"expvqa: {count} rows dropped: {reason}", file=sys.stderr)
    if options.skip_unreadable:
        released = _leave_out_unreadable(released)
    share = options.validation
    return split_by_image(released, share) if share else datasets.DatasetDict({"train": released})


def _leave_out_unreadable(rows: datasets.Dataset) -> datasets.Dataset:
    return rows.select(np.flatnonzero(readable(rows["image"][:])))


def train(options: Namespace) -> None:
    """Fine-tune, on as many processes as were launched, and print where the model is."""
    changes = {name: getattr(options, name) for name in RECIPE if name in options}
    chosen = curriculum(options.variant, tuple(options.unseen))  # refuses an unknown one before any work
    warnings.showwarning = show_warning
    if options.pairs:
        folder, log = options.output, _train_on_pairs(options, chosen, changes)
    else:
        require(
            not (changes or options.model or options.unseen or options.skip_unreadable),
            "--model, --unseen, --skip-unreadable and changes of the recipe go with --pairs; a profile "
            "has its own",
        )
        run = run_of(options, options.output)
        with processes().main_process_first():  # one of several processes draws the faces
            run.pairs()
        folder, log = run.train(options.variant), run.training_log(options.variant)
    largest = f"{log['weight_change'].max():.1e}"
    processes().print(f"{folder}: the fine-tuned model; the largest change of a weight is {largest}")


def _train_on_pairs(options: Namespace, chosen: Curriculum, changes: dict) -> pd.DataFrame:
    """Fine-tune on pairs of one's own and return the log."""
    name, pairs, variant = options.variant, Path(options.pairs), variant_of(options.variant)
    require(not chosen.captioner, f"--variant {name} needs the faces of a profile; leave --pairs out")
    require(
        options.model and options.output, "--pairs needs --model, to start from, and --output, a new folder"
    )
    require(
        (pairs / "dataset_dict.json").is_file(), f"{pairs}: no pairs; expected a folder of `expvqa pairs`"
    )
    recipe = change(getattr(get(options.profile), variant), **changes)
    model = load_model(options.model, device="cpu", language_dtype=recipe.precision)
    rows = select(datasets.load_from_disk(options.pairs), chosen)
    if options.skip_unreadable:
        rows = datasets.DatasetDict({split: _leave_out_unreadable(part) for split, part in rows.items()})
    return finetune(*model, rows, options.output, variant=variant, recipe=recipe)


def convert(options: Namespace) -> None:
    """Write the converted model and print where it is."""
    if options.to_lavis:
        path = export_checkpoint(options.checkpoint, options.output)
        print(f"{path}: a LAVIS checkpoint without the language model")
        return
    require(
        options.language_model and options.qformer_tokenizer,
        "the checkpoint holds neither: give --language-model and --qformer-tokenizer",
    )
    folder = convert_checkpoint(
        options.checkpoint,
        options.output,
        language_model=options.language_model,
        qformer_tokenizer=options.qformer_tokenizer,
        base=options.base,
    )
    print(f"{folder}: a transformers folder; try expvqa ask --model {folder}")


def reproduce(options: Namespace) -> None:
    """Run the notebooks and print where the report is."""
    from ..reproduce import reproduce as run_notebooks

    report = run_notebooks(
        options.profile,
        data_root=options.data_root,
        base=options.base,
        output=options.output,
        figures=options.figures,
        start=options.start,
    )
    print(f"report: {report}")
