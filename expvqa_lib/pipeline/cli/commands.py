"""What the commands do: each function is called with the options of the command of its name."""

import sys
import warnings
from argparse import Namespace
from dataclasses import fields
from itertools import compress
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
from ...data.rewriting import Chat, rewrite
from ...errors import ImageError, SettingsError, TableError
from ...evaluation import au_detection, measure, predict_in_parts, read_faces, read_predictions
from ...evaluation.predictions import processes
from ...evaluation.scoring import NOTHING_FOUND
from ...files import atomic
from ...model import convert_checkpoint, export_checkpoint, load_model
from ...plots import clip_curves, save
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
from ..run import Run

RECIPE = {setting.name: setting.metadata for setting in fields(Recipe) if setting.metadata}
"""Settings that `expvqa train` can change, with what `add_argument` takes."""


def _require(condition: object, message: str) -> None:
    if not condition:
        raise SettingsError(message)


def _show_warning(message: Warning, *_) -> None:
    processes().print(f"expvqa: {message}", file=sys.stderr)  # once, however many processes there are


def _load(options: Namespace) -> expvqa.ExpVQA:
    return expvqa.load(options.model, device=options.device, dtype=options.dtype, bits=options.bits)


def _run(options: Namespace, output: str = "") -> Run:
    return Run(options.profile, output, data_root=options.data_root, base=options.base)


def ask(options: Namespace) -> None:
    """Print each answer on a line: of several images after the image's name and a tab."""
    for image in options.images:  # before the model loads, which takes seconds
        if not Path(image).is_file():
            raise ImageError(
                f"{image}: no such image file; give the images first and the question last, in quotes"
            )
    warnings.showwarning = _show_warning
    if options.skip_unreadable:
        options.images = list(compress(options.images, readable(options.images)))
    model = _load(options)
    if model.notice:
        print(f"expvqa: {model.notice}", file=sys.stderr)
    answers = model.ask(
        options.images,
        options.question,
        samples=options.samples,
        crop=not options.no_crop,
        seed=options.seed,
    )
    for row in answers.itertuples():
        print(row.answer if len(options.images) == 1 else f"{row.image}\t{row.answer}")


def score(options: Namespace) -> None:
    """Write the table, and the curves of each person in a video; print how much there is."""
    warnings.showwarning = _show_warning
    chosen = {"ask": options.ask, "emotion": not options.no_emotion, "largest": options.largest}
    frames = {"every": options.every, "fps": options.fps}
    table = _load(options).score(options.paths, options.aus, output=options.output, **chosen, **frames)
    for name, faces in table.dropna(subset="time").groupby("subject"):
        if options.figures and len(faces) > 1:
            path = Path(options.figures) / f"{Path(name).name}.png"
            save(clip_curves(faces), path)
            print(f"{path}: action units over time")
    seen, without = table.drop_duplicates(["file", "frame"]), table["notice"][table["face"].isna()]
    unread = (without != NOTHING_FOUND).sum()
    print(
        f"{options.output}: {table['face'].notna().sum()} faces in {len(seen)} pictures and frames; "
        f"{len(without) - unread} without a face, {unread} cannot be read"
    )


def data(options: Namespace) -> None:
    """Print the report of the data set; with `read` and `crop`, write the output."""
    action, output = options.action, options.output
    _require(action == "check" or output, f"{action} needs --output: a face table, .parquet, or the folder")
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
    output, warnings.showwarning = Path(options.output), _show_warning
    _require(not output.exists(), f"{output}: exists already; remove it, or give another --output")
    _require(options.llm_model or not options.rewrite, "--rewrite needs a language model: --llm-model NAME")
    _require(options.image_root or not options.from_json, "--from-json needs --image-root, their folder")
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
    table = read_table(options.table, options.image_root) if options.table else _run(options).faces()
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
    warnings.showwarning = _show_warning
    if options.pairs:
        folder, log = options.output, _train_on_pairs(options, chosen, changes)
    else:
        _require(
            not (changes or options.model or options.unseen or options.skip_unreadable),
            "--model, --unseen, --skip-unreadable and changes of the recipe go with --pairs; a profile "
            "has its own",
        )
        run = _run(options, options.output)
        with processes().main_process_first():  # one of several processes draws the faces
            run.pairs()
        folder, log = run.train(options.variant), run.training_log(options.variant)
    largest = f"{log['weight_change'].max():.1e}"
    processes().print(f"{folder}: the fine-tuned model; the largest change of a weight is {largest}")


def _train_on_pairs(options: Namespace, chosen: Curriculum, changes: dict) -> pd.DataFrame:
    """Fine-tune on pairs of one's own and return the log."""
    name, pairs, variant = options.variant, Path(options.pairs), variant_of(options.variant)
    _require(not chosen.captioner, f"--variant {name} needs the faces of a profile; leave --pairs out")
    _require(
        options.model and options.output, "--pairs needs --model, to start from, and --output, a new folder"
    )
    _require(
        (pairs / "dataset_dict.json").is_file(), f"{pairs}: no pairs; expected a folder of `expvqa pairs`"
    )
    recipe = change(getattr(get(options.profile), variant), **changes)
    model = load_model(options.model, device="cpu", language_dtype=recipe.precision)
    rows = select(datasets.load_from_disk(options.pairs), chosen)
    if options.skip_unreadable:
        rows = datasets.DatasetDict({split: _leave_out_unreadable(part) for split, part in rows.items()})
    return finetune(*model, rows, options.output, variant=variant, recipe=recipe)


def evaluate(options: Namespace) -> None:
    """Print the table of metrics; of your own faces, write it beside the predictions."""
    asked, given = options.question_types or options.in_words, options.predictions
    if options.data:
        _require(
            bool(given) != bool(options.model), "--data needs --model to ask, or --predictions, its answers"
        )
        _require(not (given and asked), "--question-types and --in-words go with --model, not --predictions")
        _evaluate_faces(options)
        return
    _require(
        not (given or options.image_root or asked or options.skip_unreadable),
        "--predictions, --image-root, --question-types, --in-words and --skip-unreadable go with --data",
    )
    models = [options.model] if options.model else []
    print(au_detection(_run(options, options.output), *models).to_string(index=False))


def _evaluate_faces(options: Namespace) -> None:
    """Ask a model, or read what it answered, and measure that; of several processes the main one."""
    given = Path(options.predictions).resolve() if options.predictions else None
    folder = given.parent if given else Path("predictions") / Path(options.model).resolve().name
    output, name = Path(options.output or folder), folder.name
    with processes().main_process_first():  # one of several processes reads data sets and writes their tables
        faces = read_faces(options.data, options.image_root, output / "tables")
        if options.skip_unreadable:
            faces = faces[readable(faces["image"])].reset_index(drop=True)
    split = options.split or ("test" if Path(options.data).is_dir() else "all")
    measured = {"split": None if split == "all" else split}
    if given:
        predictions = read_predictions(options.predictions)
    else:
        model = _load(options)
        predictions = predict_in_parts(
            model.model,
            model.processor,
            faces,
            output,
            [kind.upper() for kind in options.question_types or ["q3"]],
            in_words=options.in_words,
            name=name,
            **measured,
        )
    if processes().is_main_process:
        table = measure(predictions, faces, name=predictions.attrs.get("model") or name, **measured)
        with atomic(output / "metrics.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.4f")
        print(table.to_string(index=False))
        print(f"measured: {'all faces' if split == 'all' else f'the split {split}'} of {options.data}")
        print(f"{output}: {'metrics.csv' if given else 'predictions.parquet and metrics.csv'}")


def convert(options: Namespace) -> None:
    """Write the converted model and print where it is."""
    if options.to_lavis:
        path = export_checkpoint(options.checkpoint, options.output)
        print(f"{path}: a LAVIS checkpoint without the language model")
        return
    _require(
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
