"""Commands that put questions to a model and measure its answers, and what all commands share."""

import sys
import warnings
from argparse import Namespace
from itertools import compress
from pathlib import Path

import pandas as pd

from ... import expvqa
from ...data import labelled_aus, readable
from ...data.chat import Chat
from ...errors import ImageError, SettingsError
from ...evaluation import (
    MODELS,
    au_detection,
    measure,
    metric_rows,
    paper_tables,
    predict_in_parts,
    read_faces,
    read_predictions,
    read_scored,
    with_intervals,
)
from ...evaluation import compare as compare_models
from ...evaluation.predictions import faces_to_measure, processes, questions_about
from ...evaluation.scoring import NOTHING_FOUND
from ...evaluation.vision_language import LocalModel
from ...evaluation.vision_language import ask as ask_any
from ...files import save_table
from ...plots import clip_curves, export, forest, save
from ...training import add_results, read_card
from ..run import Run


def require(condition: object, message: str) -> None:
    """Refuse options that do not go together."""
    if not condition:
        raise SettingsError(message)


def show_warning(message: Warning, *_) -> None:
    """Print a warning as a line of the command."""
    processes().print(f"expvqa: {message}", file=sys.stderr)  # once, however many processes there are


def load(options: Namespace) -> expvqa.ExpVQA:
    """The model that --model and the options beside it name."""
    return expvqa.load(options.model, device=options.device, dtype=options.dtype, bits=options.bits)


def run_of(options: Namespace, output: str = "") -> Run:
    """The run that --profile and the options beside it name."""
    return Run(options.profile, output, data_root=options.data_root, base=options.base)


def ask(options: Namespace) -> None:
    """Print each answer on a line: of several images after the image's name and a tab."""
    for image in options.images:  # before the model loads, which takes seconds
        if not Path(image).is_file():
            raise ImageError(
                f"{image}: no such image file; give the images first and the question last, in quotes"
            )
    warnings.showwarning = show_warning
    if options.skip_unreadable:
        options.images = list(compress(options.images, readable(options.images)))
    model = load(options)
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
    warnings.showwarning = show_warning
    chosen = {"ask": options.ask, "emotion": not options.no_emotion, "largest": options.largest}
    frames = {"every": options.every, "fps": options.fps}
    table = load(options).score(options.paths, options.aus, output=options.output, **chosen, **frames)
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


def evaluate(options: Namespace) -> None:
    """Print the table of metrics; of your own faces, write it beside the predictions."""
    asked, given = options.question_types or options.in_words, options.predictions
    if options.data:
        require(
            bool(given) != bool(options.model), "--data needs --model to ask, or --predictions, its answers"
        )
        require(not (given and asked), "--question-types and --in-words go with --model, not --predictions")
        require(options.model or not options.card, "--card needs --model, a folder with its card")
        if options.card:  # before hours of asking
            read_card(options.model)
        _evaluate_faces(options)
        return
    require(
        not (given or options.image_root or asked or options.skip_unreadable),
        "--predictions, --image-root, --question-types, --in-words and --skip-unreadable go with --data",
    )
    run, models = run_of(options, options.output), [options.model] if options.model else MODELS
    table = au_detection(run, *models)
    for name in set(models) - {"base"} if options.card else ():
        add_results(run.model_dir(name), paper_tables(table.assign(question="Q3")))
    print(table.to_string(index=False))


def predict(options: Namespace) -> None:
    """Write the predictions of any vision-language model; name the answers that say neither yes nor no."""
    require(options.samples >= 0 < options.parallel, "--samples is 0 or more, --parallel 1 or more")
    warnings.showwarning = show_warning
    output, split = Path(options.output), None if options.split == "all" else options.split
    faces = read_faces(options.data, options.image_root, output / "tables")
    if options.skip_unreadable:
        faces = faces[readable(faces["image"])].reset_index(drop=True)
    kinds = [kind.upper() for kind in options.question_types]
    jobs = [(rows, questions_about(labelled_aus(rows), kinds)) for rows in faces_to_measure(faces, split)]
    jobs = [job for job in jobs if len(job[1])]
    require(
        jobs, f"{options.data}: no face has a labelled action unit, so nothing to ask in {', '.join(kinds)}"
    )
    store = output / "answers.sqlite"
    if options.api:
        settings = {"url": options.api, "price": tuple(options.price), "max_cost": options.budget}
        model = Chat(options.model, store, parallel=options.parallel, **settings)
    else:
        model = LocalModel(options.model, store, device=options.device, dtype=options.dtype)
    how = {"samples": options.samples, "in_words": options.in_words}
    table = pd.concat([ask_any(model, *job, **how) for job in jobs], ignore_index=True)
    save_table(table, output / "predictions.parquet")
    print(pd.Series(dict(model.counts)).to_string())
    for source, rows in table.groupby("p_yes_from"):
        print(f"P(yes) from {source}: {len(rows)} answers, {rows['p_yes'].isna().sum()} neither yes nor no")
    for row in table[table["p_yes_from"].notna() & table["p_yes"].isna()].head(5).itertuples():
        print(f"expvqa: neither yes nor no: {row.au} of {row.image}: {row.answer!r:.80}", file=sys.stderr)
    print(f"{output}: predictions.parquet; measure it with expvqa evaluate --predictions")


def compare(options: Namespace) -> None:
    """Write tables and the forest plot; print macro F1 and AUC, the differences, and who has which faces."""
    show = {"index": False, "float_format": "%.1f"}
    files = dict(part.partition("=")[::2] for part in options.models)
    require(
        all(files.values()) and 1 < len(files) == len(options.models) and "prior" not in files,
        f"found {' '.join(options.models)}; expected two or more NAME=FILE with different names, such as "
        "pyfeat=feat.csv (prior is the label prior)",
    )
    root = Path(options.image_root or Path(options.data).parent)
    faces, split = read_faces(options.data, root), None if options.split == "all" else options.split
    models = {name: read_scored(file, root, options.images, faces) for name, file in files.items()}
    found, output = compare_models(faces, models, split=split), Path(options.output)
    save_table(found.table, output / "comparison.csv")
    save_table(found.left_out, output / "left_out.csv")
    for metric, best in {"f1": "row", "auc": "row", "calibration_error": None}.items():
        if (found.table["metric"] == metric).any():
            export(with_intervals(found.table, metric), output / metric, best=best)
    differences = found.differences.assign(p=found.differences["p"].map("{:.3f}".format))
    export(differences, output / "differences", best=None)
    save(
        forest(metric_rows(found.table, "f1"), "Action units, side by side", "F1 (%)"),
        output / "comparison.png",
    )
    macro = found.table[(found.table["target"] == "macro") & found.table["metric"].isin(["f1", "auc"])]
    print(macro.drop(columns=["dataset", "split", "target"]).to_string(**show))
    for table in (differences, found.counts):
        print("", table.to_string(**show), sep="\n")
    for row in found.left_out.head(1).itertuples():
        print(f"\n{len(found.left_out)} faces left out, such as {row.image}: nothing of {row.lacking}")
    print(f"{output}: comparison.csv and .png; left_out.csv; f1, auc and differences as .csv, .md and .tex")


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
        model = load(options)
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
        save_table(table, output / "metrics.csv")
        results = paper_tables(table)
        for title, shown in results.items():
            export(shown, output / title.lower().replace(" ", "_"), best="row")
        if options.card:
            add_results(options.model, results)
        print(table.to_string(index=False))
        print(f"measured: {'all faces' if split == 'all' else f'the split {split}'} of {options.data}")
        files = f"{'' if given else 'predictions.parquet, '}metrics.csv; {', '.join(results)}"
        print(f"{output}: {files} as .csv, .md and .tex")
