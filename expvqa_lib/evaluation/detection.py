"""Action units and emotions that models detect, with label prior and shuffled images as controls."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd

from ..errors import TableError
from ..questions import read_aus, read_emotion
from ..training.recipe import VARIANTS
from .metrics import (
    ALL_METRICS,
    au_table,
    best_thresholds,
    caption_aus,
    emotion_table,
    paired_difference,
    prior_scores,
    reliability_table,
    share_table,
)
from .tables import MAIN, MODELS, au_columns

YES_NO_METRICS = ("f1", "balanced_accuracy", "precision", "recall")
"""Of answers that say yes or no, where there is no score to rank by or to choose a threshold for."""


def bootstrap_settings(run) -> dict:
    """How a run (a `pipeline.Run`) draws its intervals: `resamples` and `seed`."""
    return {"resamples": run.profile.resamples, "seed": run.profile.seed}


def metric_tables(
    measure: Callable,
    faces: pd.DataFrame,
    labels,
    predictions: Mapping,
    *,
    resamples: int,
    seed: int,
    **settings,
) -> pd.DataFrame:
    """The metric tables of all models on some test faces, one below the other."""
    settings |= table_settings(faces, resamples, seed)
    return pd.concat(
        [measure(labels, of, model=m, **settings) for m, of in predictions.items()], ignore_index=True
    )


def table_settings(faces: pd.DataFrame, resamples: int, seed: int) -> dict:
    """What all metric tables of some test faces share."""
    return {
        "dataset": faces["dataset"].iat[0],
        "split": faces["split"].iat[0] if faces["split"].nunique() == 1 else "all",
        "groups": faces["subject"],
        "resamples": resamples,
        "seed": seed,
    }


def paired_differences(
    run, faces: pd.DataFrame, labels: pd.DataFrame, scores: Mapping[str, pd.DataFrame], pairs: Iterable
) -> pd.DataFrame:
    """The `paired_difference` of each pair: columns model, metric, minus, value, low, high, p, support.

    Args:
        pairs: model, metric and the other model, both of `scores`.
    """
    rows, settings = [], {"groups": faces["subject"], **bootstrap_settings(run)}
    for model, metric, minus in pairs:
        both = (scores[name][labels.columns] for name in (model, minus))
        gain = paired_difference(labels, *both, metric=metric, **settings)
        rows.append({"model": model, "metric": metric, "minus": minus, **gain})
    return pd.DataFrame(rows)


# ----------------------------------------------------------------------------------------------- controls


def with_controls(predictions: Mapping, faces: pd.DataFrame, seed: int, main: str | None = MAIN) -> dict:
    """Add the shuffled-image control: each face gets the `main` model's prediction for another subject's
    face.

    The question is the same for all faces, so this equals asking about the other image. None adds no control.
    """
    if main is None:
        return dict(predictions)
    shuffled = predictions[main].iloc[exchange_subjects(faces["subject"], seed)].reset_index(drop=True)
    return {**predictions, f"{main}_shuffled_images": shuffled}


def exchange_subjects(subjects: pd.Series, seed: int) -> np.ndarray:
    """Draw a permutation of the rows that gives every row another subject's, as near to random as that
    allows.

    Raises:
        TableError: one subject has more than half of the rows.
    """
    rng = np.random.default_rng(seed)
    values, largest = subjects.to_numpy(), subjects.value_counts()
    if 2 * largest.max() > len(subjects):
        raise TableError(
            f"subject {largest.index[0]!r} has more than half of the {len(subjects)} rows; images of others "
            "are needed to exchange"
        )
    order = rng.permutation(len(values))
    for k in range(len(values)):
        if values[order[k]] == values[k]:
            other = next(
                j
                for j in rng.permutation(len(values))
                if values[order[j]] != values[k] and values[order[k]] != values[j]
            )
            order[k], order[other] = order[other], order[k]
    return order


# --------------------------------------------------------------------------------- tables of predictions


def detection_table(
    faces: pd.DataFrame,
    scores: Mapping[str, pd.DataFrame],
    resamples: int = 1000,
    seed: int = 0,
    main: str | None = MAIN,
    micro: bool = False,
) -> pd.DataFrame:
    """Detection of each AU (Q3) by every model, by the label prior, and by the `main` model on shuffled
    images.

    Args:
        faces: test faces with labels and subjects.
        scores: P(yes) [faces, AUs] by model.
        micro: as for `au_table`.

    Returns:
        Table: model, dataset, split, target, metric, value, low, high (percent), support.
    """
    labels = faces[au_columns(faces)]
    scores = {"prior": prior_scores(labels), **with_controls(scores, faces, seed, main)}
    settings = {"metrics": ALL_METRICS, "micro": micro, "resamples": resamples, "seed": seed}
    return metric_tables(au_table, faces, labels, scores, **settings)


def emotion_answer_table(
    faces: pd.DataFrame,
    train: pd.DataFrame,
    answers: Mapping[str, pd.DataFrame],
    resamples: int = 1000,
    seed: int = 0,
    main: str | None = MAIN,
) -> pd.DataFrame:
    """Emotions read out of Q1 answers (one a face), in the columns of `detection_table`.

    The prior names the most frequent emotion of `train`, if that has any. `names_actions` is the share of
    a model's answers that name an emotion and at least one action.
    """
    read = {model: table["answer"].map(read_emotion) for model, table in answers.items()}
    settings = {"targets": ["macro"], "metric": "names_actions", **table_settings(faces, resamples, seed)}
    shares, all_faces = [], np.ones((len(faces), 1))
    for model, table in answers.items():
        both = read[model].notna() & table["answer"].map(lambda text: bool(read_aus(text)[0]))
        shares.append(share_table(both.to_numpy(bool)[:, None], all_faces, model=model, **settings))
    read = with_controls(read, faces, seed, main)
    if train["emotion"].notna().any():
        read["prior"] = [train["emotion"].mode().iat[0]] * len(faces)
    found = metric_tables(emotion_table, faces, faces["emotion"], read, resamples=resamples, seed=seed)
    return pd.concat([found, *shares], ignore_index=True)


def au_answer_table(
    faces: pd.DataFrame,
    answers: Mapping[str, pd.DataFrame],
    resamples: int = 1000,
    seed: int = 0,
    main: str | None = MAIN,
) -> pd.DataFrame:
    """AUs read out of answers in words, of every model and control, in the columns of `detection_table`.

    An AU counts as predicted where any of the face's answers says that it is present. The prior names all.
    """
    labels = faces[au_columns(faces)]
    read = {model: answered_aus(table, len(faces), list(labels)) for model, table in answers.items()}
    read = with_controls(read, faces, seed, main) | {"prior": prior_scores(labels)}
    settings = {"resamples": resamples, "seed": seed, "metrics": YES_NO_METRICS}
    return metric_tables(au_table, faces, labels, read, **settings)


def answered_aus(answers: pd.DataFrame, n: int, columns: list[str]) -> pd.DataFrame:
    """AUs that any answer about a face (`row`) says are present, 1 or 0: [n, columns]."""
    by_face = caption_aus(answers["answer"], columns).groupby(answers["row"].to_numpy())
    return by_face.max().reindex(range(n), fill_value=0.0)


# ------------------------------------------------------------------------------------------ of a whole run


def au_detection(run, *models: str, main: str = MAIN) -> pd.DataFrame:
    """Detection of each AU on the run's AU corpus, by people that no training saw; see `detection_table`.

    Args:
        run: a `pipeline.Run`.
        models: default: base, Exp-VQA and Exp-VQA(fz).
        main: the model of the shuffled control; the first one where it is not among them.
    """
    scores = {name: run.scores(name) for name in models or MODELS}
    main = main if main in scores else models[0]
    return detection_table(run.faces_of(run.au_corpus), scores, main=main, **bootstrap_settings(run))


def sentence_labels(run) -> pd.DataFrame:
    """Emotions read out of Q1 answers and AUs out of Q2 answers, where the run has such labels.

    `run` is a `pipeline.Run`. Columns as `au_detection`, and `question`.
    """
    settings, tables = bootstrap_settings(run), {}
    if run.emotion_corpus:
        answers = {name: run.answers(name, "Q1") for name in MODELS}
        tables["Q1"] = emotion_answer_table(
            run.emotion_faces(), run.emotion_faces("train"), answers, **settings
        )
    if run.has_aus:
        answers = {name: run.answers(name, "Q2") for name in MODELS}
        tables["Q2"] = au_answer_table(run.faces_of(run.au_corpus), answers, **settings)
    return below_each_other(tables)


def below_each_other(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Tables by question in one, with the column `question`."""
    return pd.concat([table.assign(question=name) for name, table in tables.items()], ignore_index=True)


def emotion_answers(run) -> pd.DataFrame:
    """Each test face's emotion (`true`) and that of Exp-VQA's Q1 answer (`answered`, None: unread)."""
    answered = run.answers(MAIN, "Q1")["answer"].map(read_emotion)
    return pd.DataFrame({"true": run.emotion_faces()["emotion"].astype(object), "answered": answered})


def differences(run) -> pd.DataFrame:
    """Macro F1 and AUC of Exp-VQA minus those of each other model and control, on the same resampled people.

    `run` is a `pipeline.Run`. Columns: metric, minus, value, low, high (percentage points), p, verdict: an
    interval without 0 is "better" or "worse", else "no difference shown".
    """
    faces = run.faces_of(run.au_corpus)
    labels, scores = faces[au_columns(faces)], {name: run.scores(name) for name in MODELS}
    scores = with_controls(scores, faces, run.profile.seed) | {"prior": prior_scores(labels)}
    pairs = [(MAIN, metric, other) for metric in ("f1", "auc") for other in scores if other != MAIN]
    table = paired_differences(run, faces, labels, scores, pairs).drop(columns=["model", "support"])
    verdict = np.select([table["low"] > 0, table["high"] < 0], ["better", "worse"], "no difference shown")
    return table.assign(verdict=verdict)


def tuned_thresholds(run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Detection by both variants with each AU's best threshold on the validation split, not 0.5.

    Returns:
        A table in the columns of `au_detection` whose metrics end in `_tuned`, and the thresholds, a row a
        model and a column an AU; both empty where the AU corpus has no validation split.
    """
    validation, test = run.faces_of(run.au_corpus, "validation"), run.faces_of(run.au_corpus)
    columns = [column for column in au_columns(test) if column in au_columns(validation)]
    settings = table_settings(test, **bootstrap_settings(run)) | {"metrics": YES_NO_METRICS}
    tables, thresholds = [pd.DataFrame()], {}
    for name in VARIANTS if columns else ():
        thresholds[name] = best_thresholds(validation[columns], run.scores(name, validation)[columns])
        settings |= {"model": name, "threshold": thresholds[name]}
        tables.append(au_table(test[columns], run.scores(name)[columns], **settings))
    return pd.concat(tables, ignore_index=True), pd.DataFrame(thresholds).T


def reliability(run) -> pd.DataFrame:
    """`reliability_table` of Exp-VQA on the AU corpus, all AUs together."""
    faces = run.faces_of(run.au_corpus)
    return reliability_table(faces[au_columns(faces)], run.scores(MAIN))
