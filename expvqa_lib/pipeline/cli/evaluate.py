"""Measure the models of a run, or a model on your own faces: predictions first, then metrics.

examples:
  expvqa evaluate --profile quick
  expvqa evaluate --model exp-vqa --data faces.parquet --question-types q3 q1 --output mine
  expvqa evaluate --predictions mine/predictions.parquet --data faces.parquet
"""

from argparse import Namespace
from pathlib import Path

from ...errors import SettingsError
from ...evaluation import au_detection, measure, predict_in_parts, read_faces, read_predictions
from ...evaluation.predictions import processes
from ...files import atomic
from .options import MODEL, PROFILE, argument, load_model, model_name, open_run

ARGUMENTS = (
    *PROFILE,
    argument(
        "--model",
        metavar="DIR",
        help="with --data: model folder or hub name; else a model of the run (default: all)",
    ),
    *MODEL,
    argument(
        "--output",
        default="",
        metavar="DIR",
        help="folder of runs (default: runs); with --data: predictions/MODEL",
    ),
    argument("--data", metavar="PATH", help="your own face table, .parquet or .csv, or folder of data sets"),
    argument(
        "--image-root", metavar="DIR", help="folder that the images are relative to (default: the table's)"
    ),
    argument(
        "--question-types",
        nargs="+",
        choices=("q1", "q2", "q3"),
        metavar="Q",
        help="q1, q2, q3 (default: q3)",
    ),
    argument("--in-words", action="store_true", help="answer Q3 in words, too; counts neither yes nor no"),
    argument("--predictions", metavar="FILE", help="measure these again, without a model"),
)


def run(options: Namespace) -> None:
    """Print the table of metrics; of your own faces, write it beside the predictions."""
    if options.data:
        _evaluate_faces(options)
        return
    if options.predictions or options.image_root or options.question_types or options.in_words:
        raise SettingsError("--predictions, --image-root, --question-types and --in-words go with --data")
    run = open_run(options, options.output)
    models = [options.model] if options.model else []
    print(au_detection(run, *models).to_string(index=False))


def _evaluate_faces(options: Namespace) -> None:
    """Ask a model, or read what it answered, and measure that; of several processes the main one."""
    if bool(options.predictions) == bool(options.model):
        raise SettingsError("--data needs --model, the model to ask, or --predictions, its answers")
    if options.predictions and (options.question_types or options.in_words):
        raise SettingsError(
            "--question-types and --in-words go with --model: --predictions are measured as they are"
        )
    if options.predictions:
        folder = Path(options.predictions).resolve().parent
    else:
        folder = Path("predictions") / model_name(options.model)
    output, name = Path(options.output or folder), folder.name
    with processes().main_process_first():  # one of several processes reads data sets and writes their tables
        faces = read_faces(options.data, options.image_root, output / "tables")
    if options.predictions:
        predictions = read_predictions(options.predictions)
    else:
        model, kinds = load_model(options), [kind.upper() for kind in options.question_types or ["q3"]]
        given = {"in_words": options.in_words, "name": name}
        predictions = predict_in_parts(model.model, model.processor, faces, output, kinds, **given)
    if processes().is_main_process:
        table = measure(predictions, faces, name=predictions.attrs.get("model") or name)
        with atomic(output / "metrics.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.4f")
        print(table.to_string(index=False))
        print(f"{output}: {'metrics.csv' if options.predictions else 'predictions.parquet and metrics.csv'}")
