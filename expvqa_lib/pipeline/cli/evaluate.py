"""Measure the models of a run, or a model on your own faces: predictions first, then metrics.

examples:
  expvqa evaluate --profile quick
  expvqa evaluate --model exp-vqa --data faces.parquet --question-types q3 q1 --output mine
  expvqa evaluate --predictions mine/predictions.parquet --data faces.parquet
"""

import argparse
from pathlib import Path

from ...data import labelled_aus
from ...errors import SettingsError
from ...evaluation.detection import au_detection
from ...evaluation.prediction_metrics import measure
from ...evaluation.predictions import predict_in_parts, read_faces, read_predictions
from ...evaluation.tables import MODELS
from ...files import atomic
from ...model import processes, score_yes_no
from ...questions import Q3
from .options import add_model_options, add_profile_options, load_model, model_name, open_run, refuse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `expvqa evaluate`."""
    add_profile_options(parser)
    add_model_options(parser, "all models of the run; or the name of one of them, such as exp_vqa_fz")
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="folder of runs (default: runs); with --data: predictions/MODEL",
    )
    own = parser.add_argument_group(
        "your own faces; start the command again to resume, torchrun shares the images"
    )
    own.add_argument(
        "--data", metavar="PATH", help="face table, .parquet or .csv, or folder that holds data sets"
    )
    own.add_argument(
        "--image-root", metavar="DIR", help="folder that the images are relative to (default: the table's)"
    )
    own.add_argument(
        "--question-types",
        nargs="+",
        choices=("q1", "q2", "q3"),
        metavar="Q",
        help="q1, q2, q3 (default: q3)",
    )
    own.add_argument(
        "--in-words",
        action="store_true",
        help="answer Q3 in words, too: slower, and counts answers that are neither yes nor no",
    )
    own.add_argument("--predictions", metavar="FILE", help="measure these again, without a model")


def run(options: argparse.Namespace) -> None:
    """Print the table of metrics; of your own faces, write it beside the predictions."""
    if options.data:
        _evaluate_faces(options)
    elif options.predictions:
        raise SettingsError("--predictions needs --data, the face table with the labels")
    else:
        _evaluate_run(options)


def _evaluate_run(options: argparse.Namespace) -> None:
    refuse(options, ("image_root", "question_types", "in_words"), "go with --data; a run is asked Q3")
    run = open_run(options, options.output)
    if not options.model:
        table = au_detection(run)
    elif options.model in MODELS:
        table = au_detection(run, {options.model: run.scores(options.model)})
    else:
        model, faces = load_model(options), run.faces_of(run.au_corpus)
        images, aus = faces["image"].tolist(), labelled_aus(faces)
        scores = score_yes_no(model.model, model.processor, images, aus, wordings=range(len(Q3)))
        table = au_detection(run, {model_name(options.model): scores})
    print(table.to_string(index=False))


def _evaluate_faces(options: argparse.Namespace) -> None:
    """Ask a model, or read what it answered, and measure that; of several processes the main one."""
    if options.predictions:
        refuse(options, ("model", "question_types", "in_words"), "go without --predictions, the answers")
        folder = Path(options.predictions).resolve().parent
        name = folder.name
    elif options.model:
        name = model_name(options.model)
        folder = Path("predictions") / name
    else:
        raise SettingsError("--data needs --model, the model to ask, or --predictions, the answers of one")
    output = Path(options.output or folder)
    with processes().main_process_first():  # one of several processes reads data sets and writes their tables
        faces = read_faces(options.data, options.image_root, output / "tables")
    if options.predictions:
        predictions = read_predictions(options.predictions)
    else:
        kinds = [kind.upper() for kind in options.question_types or ["q3"]]
        model, settings = load_model(options), {"in_words": options.in_words, "name": name}
        predictions = predict_in_parts(model.model, model.processor, faces, output, kinds, **settings)
    if processes().is_main_process:
        table = measure(predictions, faces, name=predictions.attrs.get("model") or name)
        with atomic(output / "metrics.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.4f")
        print(table.to_string(index=False))
        print(f"{output}: {'metrics.csv' if options.predictions else 'predictions.parquet and metrics.csv'}")
