"""Programs and models side by side, on the faces that all of them have."""

from collections import namedtuple
from collections.abc import Iterator, Mapping
from glob import glob
from itertools import chain, product
from pathlib import Path

import pandas as pd

from ..data.readers.labels import read_scores
from ..data.readers.programs import SOURCES, program_of
from ..data.readers.reading import Reading
from ..errors import TableError
from ..files import read_frame
from ..training.recipe import VARIANTS
from .detection import YES_NO_METRICS, bootstrap_settings, table_settings
from .metrics import au_table, paired_difference, prior_scores
from .predictions import COLUMNS, faces_to_measure, read_predictions, with_names
from .tables import MAIN, au_columns

_RANKED = ("auc", "average_precision", "calibration_error")
Scored = namedtuple(
    "Scored", "scores answers is_probability threshold notes", defaults=(True, "P >= 0.5", "")
)
"""What one model says of images (the index): scores in [0, 1] and answers 0 or 1, an AU a column, NaN where
it says nothing; whether its scores are probabilities; from where on it answers 1; and what was left out."""
Comparison = namedtuple("Comparison", "table differences counts left_out")


def read_scored(
    path: str | Path, root: str | Path, images: str = "", faces: pd.DataFrame | None = None
) -> Scored:
    """Read predictions of `expvqa evaluate`, or what Py-Feat, OpenFace 2, LibreFace or `expvqa score` write.

    A row is of the picture below `root` that it names. Of several faces in it, the one that overlaps the
    labelled face most is taken where both have boxes, else the largest, as by `crop_face`; without boxes
    none. A table of `image` and a probability an AU (`AU1`, ...) is read as well.

    Args:
        path: a file, a folder of .csv files, or a pattern of files (`openface/*.csv`).
        images: where the frames of a video are, see `data.read_dataset`.
        faces: of `read_faces`; the columns left, top, width and height are the boxes of the faces (pixels).

    Raises:
        TableError: the file cannot be read, or no program writes such columns.
    """
    pattern = f"{path}/*.csv" if Path(path).is_dir() else str(path)
    files = sorted(glob(pattern)) if not Path(path).is_file() else [path]
    table = read_frame((files or [path])[0], "table of scores")
    if set(COLUMNS) <= set(table):
        table = pd.concat(map(read_predictions, files))
        scores = table[table["question_type"] == "Q3"].pivot_table("p_yes", "image", "au")
        return by_probability(scores)
    if not (program := program_of(table)):
        raise TableError(
            f"{path}: found the columns {', '.join(table)[:200]}; expected predictions of expvqa evaluate, "
            f"or an output of {', '.join(list(SOURCES)[1:])}: the image and a column an action unit"
        )
    reading, source = Reading(program, root), SOURCES[program]
    labelled = None if faces is None else faces.drop_duplicates("name").set_index("name")
    scores, answers = read_scores(reading, files, images=images, labelled=labelled)
    dropped = [f"{count} {reason}" for reason, count in reading.dropped.items()]
    notes = ", ".join([f"read as {program}", *dropped])
    threshold = f"the program's code, else intensity >= {source.intensity or 1:g}"
    threshold = f"P >= {source.probability}" if source.probability else threshold
    return Scored(scores, answers, source.probability is not None, threshold, notes)


def by_probability(scores: pd.DataFrame) -> Scored:
    """Answer yes from a probability of one half."""
    return Scored(scores, (scores >= 0.5).astype(float).where(scores.notna()))


def compare_run(run, others: Mapping[str, str | Path]) -> Comparison:
    """Set other programs, by the file of each, beside a run's models on its test faces."""
    faces = with_names(run.faces_of(run.au_corpus), run.image_root)
    models = {
        name: by_probability(run.scores(name).set_axis(faces["name"]))
        for name in dict.fromkeys([MAIN, *VARIANTS])
    }
    models |= {name: read_scored(file, run.image_root, faces=faces) for name, file in others.items()}
    return compare(faces, models, **bootstrap_settings(run))


def compare(
    faces: pd.DataFrame, models: Mapping[str, Scored], *, split: str | None = None, **settings: int
) -> Comparison:
    """Measure models on the faces of which all say something about every AU that all know.

    Args:
        faces: labelled faces of one data set, of `read_faces`.
        models: by name; the others are compared with the first.
        split: of the faces; None takes all.
        settings: `resamples` and `seed` of the intervals.

    Returns:
        `table`, the columns of `detection_table`: of each model its own AUs, and macro over those that all
        know; F1 and the like of answers, AUC of scores, `calibration_error` where they are probabilities; and
        the label prior. `differences` of macro F1 and AUC from the first model, the columns of
        `paired_differences`. `counts`: how many faces a model has, its threshold, and what of its output was
        left out. `left_out`: each face that is not compared (`image`), and the models that lack it.

    Raises:
        TableError: faces of several data sets, or no AU or no face that all have.
    """
    tables = faces_to_measure(faces, split)
    if len(tables) > 1:
        names = [table["dataset"].iat[0] for table in tables]
        raise TableError(f"found faces of {', '.join(names)}; expected those of one data set: give its table")
    faces = tables[0].set_axis(tables[0]["name"])
    labelled = au_columns(faces)
    common = [au for au in labelled if all(au in model.scores for model in models.values())]
    if not common:
        known = {"the faces": labelled} | {name: list(model.scores) for name, model in models.items()}
        raise TableError(f"found no action unit that all know: {known}")
    has = {name: model.scores.reindex(faces.index)[common].notna() for name, model in models.items()}
    has = pd.DataFrame({name: known.all(axis=1) for name, known in has.items()})
    everywhere = has.all(axis=1)
    if not everywhere.any():
        notes = "; ".join(f"{name}: {has[name].sum()} ({model.notes})" for name, model in models.items())
        raise TableError(
            f"of {len(faces)} faces none is known by all. Found {notes}; is the root theirs, and does "
            "--images name their frames?"
        )
    counts, left_out, faces = _counts(has, models), _left_out(~has[~everywhere]), faces[everywhere]
    prior = prior_scores(faces[labelled])
    models = {
        name: model._replace(scores=model.scores.loc[faces.index], answers=model.answers.loc[faces.index])
        for name, model in {**models, "prior": Scored(prior, prior)}.items()
    }
    settings = table_settings(faces, **({"resamples": 1000, "seed": 0} | settings))
    rows = [_rows(faces[labelled], *both, common, settings) for both in models.items()]
    differences = _differences(faces[common], models, settings)
    return Comparison(pd.concat(chain(*rows), ignore_index=True), differences, counts, left_out)


def _counts(has: pd.DataFrame, models: Mapping[str, Scored]) -> pd.DataFrame:
    rows = [
        (name, has[name].sum(), has.all(axis=1).sum(), model.threshold, model.notes)
        for name, model in models.items()
    ]
    return pd.DataFrame(rows, columns=["model", "faces", "compared", "threshold", "notes"])


def _left_out(lacks: pd.DataFrame) -> pd.DataFrame:
    names = [", ".join(lacks.columns[row]) for row in lacks.to_numpy()]
    return pd.DataFrame({"image": lacks.index, "lacking": names})


def _rows(
    labels: pd.DataFrame, name: str, model: Scored, common: list[str], settings: dict
) -> Iterator[pd.DataFrame]:
    """The metrics of each AU that a model knows, and the mean over those that all know."""
    own = [au for au in labels if au in model.scores]
    for values, metrics in (
        (model.answers, YES_NO_METRICS),
        (model.scores, _RANKED[: 2 + model.is_probability]),
    ):
        for aus, is_macro in ((own, False), (common, True)):
            truth = labels[aus].where(values[aus].notna())
            table = au_table(truth, values[aus].fillna(0.0), metrics=metrics, model=name, **settings)
            yield table[(table["target"] == "macro") == is_macro]


def _differences(labels: pd.DataFrame, models: dict[str, Scored], settings: dict) -> pd.DataFrame:
    """Macro F1 and AUC of each model minus those of the first."""
    first, *others = (name for name in models if name != "prior")
    rows, draws = [], {key: settings[key] for key in ("groups", "resamples", "seed")}
    for name, (metric, kind) in product(others, {"f1": "answers", "auc": "scores"}.items()):
        both = (getattr(models[key], kind)[list(labels)] for key in (name, first))
        gain = paired_difference(labels, *both, metric=metric, **draws)
        rows.append({"model": name, "metric": metric, "minus": first, **gain})
    return pd.DataFrame(rows)
