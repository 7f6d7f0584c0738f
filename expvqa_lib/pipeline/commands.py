"""What `expvqa data`, `pairs`, `train` and `evaluate` do, and the run of a command; cli.py says what they take."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SettingsError, TableError

if TYPE_CHECKING:
    from collections.abc import Callable

    import datasets
    import pandas as pd

    from ..data.rewriting.chat import Chat
    from .run import Run


def open_run(options: argparse.Namespace, run_dir: str | None = None) -> Run:
    """The run that the options describe; `run_dir` (default: runs/PROFILE) hangs from where the user stands."""
    from .run import Run

    place = run_dir or Path("runs") / options.profile
    return Run(options.profile, place, data_root=options.data_root or "", base=options.base or "")


def data(options: argparse.Namespace) -> None:
    """Check or read a data set or labels of one's own, or cut the faces out of a corpus."""
    from ..data import crop as cropping
    from ..data import readers
    from ..data.readers import report as inspection

    given = {"labels": options.labels} if options.labels else {}
    if options.action == "check":
        print(inspection.report(readers.read_corpus(options.dataset, options.root, **given), progress=True))
        return
    if not options.output:
        raise SettingsError(
            f"{options.action} needs --output: the face table to write, such as bp4d.parquet, or the folder for faces"
        )
    if options.action == "crop":
        cropped = cropping.crop_corpus(options.dataset, options.root, options.output)
        told = "".join(f", {count} dropped: {reason}" for reason, count in cropped.dropped.items())
        print(
            f"{options.output}: {len(cropped.table)} faces of {cropped.read} rows{told}; use the folder as --data-root"
        )
        return
    reading = readers.read_and_keep(options.dataset, options.root, options.output, **given)
    print(inspection.rows(reading).to_string(index=False))
    print(
        f"{options.output}: the face table; {readers.split_path(options.output)}: its split; images are relative to {reading.root}"
    )


def pairs(options: argparse.Namespace) -> None:
    """Write pairs: a profile's, those of a face table, or released ones; in a language model's words where asked."""
    from ..data.pairs import save
    from ..data.rewriting.captions import rewrite
    from ..files import atomic

    output = Path(options.output)
    if output.exists():
        raise SettingsError(f"{output}: exists already; remove it, or give another folder with --output")
    chat = _chat(options, output) if options.rewrite else None  # what it lacks is said before the work starts
    with atomic(output) as temporary:
        folder = temporary / "arrow"
        folder.mkdir(parents=True)
        made = _released(options, folder) if options.from_json else _made(options, output, folder)
        made, report = rewrite(made, chat) if chat else (made, None)
        for split in [split for split, rows in made.items() if not len(rows)]:
            del made[split]
        if not made:
            raise TableError(
                f"{options.table}: no face has a label, so there are no pairs; expected AU columns or emotion with values"
            )
        save(made, temporary)
        shutil.rmtree(folder)
    for split, rows in made.items():
        print(f"{split}: {len(rows)} pairs")
    print(f"{report}\n" if report else "", f"{output}: read it with datasets.load_from_disk", sep="")


def _made(options: argparse.Namespace, output: Path, folder: Path) -> datasets.DatasetDict:
    """The pairs by the rules, and with a captioner those of what nobody labelled."""
    from ..data.pairs import build

    if not options.captioner and not options.table:
        return open_run(options).pairs()
    table = _table(options)
    if not options.captioner:
        return build(table, folder=folder)
    import expvqa_lib as expvqa

    from ..training.pseudo_labels import add, caption

    captions = caption(expvqa.load(options.captioner), table, output.with_name(f"{output.name}-captions"))
    return add(build(table, folder=folder), table, captions)


def _table(options: argparse.Namespace) -> pd.DataFrame:
    from ..data.table import read_table

    return read_table(options.table, options.image_root) if options.table else open_run(options).faces()


def _released(options: argparse.Namespace, folder: Path) -> datasets.DatasetDict:
    """The pairs of released files; counts and missing images go to standard error."""
    import datasets

    from ..data.pairs_json import read_json, split_by_image

    if not options.image_root:
        raise SettingsError("--from-json needs --image-root, the folder that the images are relative to")
    given = {"question_types": options.question_types, "drop_missing": options.drop_missing, "folder": folder}
    found = read_json(options.from_json, options.image_root, **given)
    dropped = "".join(f", {count} dropped ({reason})" for reason, count in found.dropped.items())
    print(f"expvqa: {found.read} rows read, {len(found.pairs)} kept{dropped}", file=sys.stderr)
    if found.missing:
        print(f"expvqa: not there, for instance: {', '.join(found.missing)}", file=sys.stderr)
    return (
        split_by_image(found.pairs, options.validation)
        if options.validation
        else datasets.DatasetDict({"train": found.pairs})
    )


def _chat(options: argparse.Namespace, output: Path) -> Chat:
    from ..data.rewriting.chat import Answers, Chat, Service

    model = options.llm_model or os.environ.get("EXPVQA_LLM_MODEL")
    if not model:
        raise SettingsError("--rewrite needs the name of a language model: --llm-model, or EXPVQA_LLM_MODEL")
    price = tuple(options.price or (0.0, 0.0))
    service = Service(
        model, options.llm_url, price=price, max_requests=options.max_requests, max_cost=options.budget
    )
    return Chat(service, Answers(output.with_name(f"{output.name}-answers.sqlite")))


def train(options: argparse.Namespace) -> None:
    """Fine-tune a model of a profile, or one of one's own on pairs of one's own."""
    import torch
    from accelerate import PartialState

    from ..training.curriculum import curriculum

    if options.pairs:
        _train_on(options)
        return
    if options.model or options.unseen or _own_recipe(options):
        raise SettingsError(
            "--model, --unseen and changes of the recipe go with --pairs; without, a profile trains its own model on its own pairs"
        )
    curriculum(options.variant)  # what is unknown is refused before any work
    run = open_run(options, options.output)
    with PartialState(
        cpu=not torch.accelerator.is_available()
    ).main_process_first():  # one of several processes draws the faces
        run.pairs()
    run.train(options.variant)
    PartialState().print(
        f"{options.variant} is trained; its run folder is {options.output or Path('runs') / options.profile}"
    )


def _own_recipe(options: argparse.Namespace) -> dict:
    """The fields of the recipe that were given on the command line."""
    names = ("precision", "images", "pairs_per_image", "accumulate", "epochs", "max_words")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    given |= {"steps": None} if options.epochs else {}
    return given | ({"augment": False} if options.no_augment else {})


def _train_on(options: argparse.Namespace) -> None:
    """Fine-tune a model of one's own on pairs of one's own by a profile's recipe."""
    from dataclasses import replace

    import datasets
    from accelerate import PartialState

    from ..model.load import load_model
    from ..training.curriculum import curriculum, select, variant_of
    from ..training.finetune import finetune
    from . import profiles

    lessons = curriculum(options.variant, tuple(options.unseen))
    variant = variant_of(options.variant)
    recipe = replace(getattr(profiles.get(options.profile), variant), **_own_recipe(options))
    if lessons.captioner:
        raise SettingsError(
            f"{options.variant} is trained on sentences about a profile's faces, not on --pairs; leave that out"
        )
    if not options.model or not options.output:
        raise SettingsError("--pairs needs --model, what to start from, and --output, the new folder")
    try:
        pairs = datasets.load_from_disk(options.pairs)
    except Exception as error:
        raise SettingsError(
            f"{options.pairs}: no pairs could be read ({error}); expected a folder of `expvqa pairs`"
        ) from error
    model, processor = load_model(options.model, device="cpu", language_dtype=recipe.precision)
    finetune(model, processor, select(pairs, lessons), options.output, variant=variant, recipe=recipe)
    PartialState().print(f"{options.output}: the fine-tuned model")


def evaluate(options: argparse.Namespace, load: Callable) -> None:
    """Measure the models of a run, or one on a face table of one's own; `load` takes the options and loads their model."""
    if options.data or options.predictions:
        _evaluate_own(options, load)
        return
    from ..training.recipe import VARIANTS

    _refuse_own(
        options,
        ("image_root", "questions", "wordings", "in_words", "split"),
        "go with --data; without, a run's test split is asked Q3",
    )
    run = open_run(options, options.output)
    if options.model in ("base", *VARIANTS):
        table = run.au_detection()
        table = table[table["model"] == options.model]
    elif options.model:
        table = run.au_detection(load(options), Path(options.model).name)
    else:
        table = run.au_detection()
    print(table.to_string(index=False))


def _refuse_own(options: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    if given := [f"--{name.replace('_', '-')}" for name in names if getattr(options, name)]:
        raise SettingsError(f"{' and '.join(given)} {why}")


def _evaluate_own(options: argparse.Namespace, load: Callable) -> None:
    from ..evaluation import predictions as predicting
    from ..files import atomic

    if not options.data:
        raise SettingsError("--predictions needs --data, the face table with the labels")
    split = options.split or "test"
    if options.predictions:
        _refuse_own(
            options,
            ("model", "questions", "wordings", "in_words"),
            "go without --predictions, which are measured as they are",
        )
        output = Path(options.output or Path(options.predictions).parent)
        predictions = predicting.read_predictions(options.predictions)
        faces = predicting.read_faces(options.data, options.image_root, output / "tables")
    else:
        if not options.model:
            raise SettingsError(
                "--data needs --model, the model to ask, or --predictions, what one has answered"
            )
        from ..model.processes import state

        with state().main_process_first():  # one of several processes reads data sets and keeps their tables
            output = Path(options.output or Path("predictions") / Path(options.model).name)
            faces = predicting.read_faces(options.data, options.image_root, output / "tables")
        kinds = [kind.upper() for kind in options.questions or ["q3"]]
        asked = {
            "split": split,
            "wordings": options.wordings or [0],
            "in_words": options.in_words,
            "name": Path(options.model).name,
        }
        predictions = predicting.predict(load(options), faces, output, kinds, **asked)
        if not state().is_main_process:
            return
    name = predictions.attrs.get("model") or Path(options.predictions).resolve().parent.name
    table = predicting.measure(predictions, faces, split=split, name=name)
    with atomic(output / "metrics.csv") as temporary:
        table.to_csv(temporary, index=False, float_format="%.4f")
    print(table.to_string(index=False))
    print(f"{output}: {'metrics.csv' if options.predictions else 'predictions.parquet and metrics.csv'}")
