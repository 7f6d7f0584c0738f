"""The metrics of a prediction table, for labels of one's own; no model is needed."""

import sys

import numpy as np
import pandas as pd

from ..data import labelled_aus
from ..errors import TableError
from ..facs import EMOTIONS
from ..questions import QUESTION_TYPES, read_emotion
from .detection import au_answer_table, detection_table, emotion_answer_table, table_settings
from .metrics import answer_table, share_table, wide
from .predictions import mean_scores, questions_about, test_faces
from .tables import au_columns


def measure(
    predictions: pd.DataFrame,
    faces: pd.DataFrame,
    *,
    name: str = "model",
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Score predictions, with the label prior and the model on shuffled images beside them.

    Intervals come from drawing subjects. Where one subject has more than half of the faces, the control by
    shuffled images is left out (with a note on standard error).

    Args:
        predictions: from `predict_in_parts` or `read_predictions`, one wording a question.
        faces: from `read_faces`.

    Returns:
        Columns of `detection_table` and `question`. Q3: all metrics of `au_table`, and of answers in words,
        model `NAME_in_words`, those of `answer_table`. Q1 and Q2: the AUs and emotions read out of the
        answers, the share of `empty` answers, and of Q1 the share `unread` in which no emotion could be read.

    Raises:
        TableError: a prediction is missing, given twice, of an unknown face, AU or area, or its probability
        is NaN.
    """
    datasets = {rows["dataset"].iat[0]: rows for rows in test_faces(faces)}
    if unknown := sorted(set(map(str, predictions["dataset"])) - set(datasets)):
        raise TableError(
            f"predictions: data set {unknown[0]!r} is not in the face table's split 'test'; "
            f"found {', '.join(datasets)}"
        )
    tables, settings = [], {"resamples": resamples, "seed": seed}
    for dataset, rows in datasets.items():
        train = faces[(faces["dataset"] == dataset) & (faces["split"] == "train")]
        for kind in (kind for kind in QUESTION_TYPES if (predictions["question_type"] == kind).any()):
            questions = questions_about(labelled_aus(rows), [kind])
            answered = predictions[
                (predictions["question_type"] == kind) & (predictions["dataset"] == dataset)
            ]
            if len(questions) or len(answered):
                score = _yes_no_tables if kind == "Q3" else _sentence_tables
                table = pd.concat(score(answered, rows, train, questions, name, settings))
                tables.append(table.assign(question=kind))
    if not tables:
        raise TableError(f"the predictions hold no question of {', '.join(QUESTION_TYPES)}")
    return pd.concat(tables, ignore_index=True)


def _yes_no_tables(predictions, faces, train, questions, name: str, settings: dict) -> list[pd.DataFrame]:
    """Q3: P(yes), answers in words, or both, whichever is there."""
    targets, images, tables = questions["au"].tolist(), faces["name"].tolist(), []
    answers = wide(predictions, images, targets, "answer")
    in_words = answers.notna().any(axis=None)
    if predictions["p_yes"].notna().any() or not in_words:
        if (bad := predictions["p_yes"].isna()).any():
            first = predictions[bad].iloc[0]
            raise TableError(
                f"predictions: p_yes of {first['au']} of {first['image']} is missing ({bad.sum()} such rows "
                "in all); expected a probability, or no value in the whole column"
            )
        scores, main = {name: mean_scores(predictions, images, targets)}, _main_of(faces, name)
        tables.append(detection_table(faces, train, scores, main=main, micro=True, **settings))
    if in_words:
        names = table_settings(faces, **settings) | {"model": f"{name}_in_words"}
        tables.append(answer_table(faces[au_columns(faces)], answers, **names))
    return tables


def _sentence_tables(predictions, faces, train, questions, name: str, settings: dict) -> list[pd.DataFrame]:
    """Q1 and Q2: what the answers say of the labels."""
    is_q1 = questions["area"].isna().all()
    by = "question_type" if is_q1 else "area"
    answers = wide(
        predictions.assign(au=predictions[by]), faces["name"].tolist(), questions[by].tolist(), "answer"
    )
    answers = answers.fillna("").astype(object)  # [faces, areas]
    long = answers.reset_index(names="row").melt("row", value_name="answer")
    names = table_settings(faces, **settings) | {"model": name}
    empty = (answers.map(str.strip) == "").to_numpy()
    tables = [share_table(empty, np.ones_like(empty), [*map(str, answers), "macro"], "empty", **names)]
    if au_columns(faces):
        tables.append(au_answer_table(faces, {name: long}, main=_main_of(faces, name), **settings))
    has_emotion = faces["emotion"].isin(list(EMOTIONS)).to_numpy()
    if is_q1 and has_emotion.any():
        rows, labelled_answers = (
            faces[has_emotion].reset_index(drop=True),
            long[has_emotion].reset_index(drop=True),
        )
        train = train[train["emotion"].isin(list(EMOTIONS))]
        main = _main_of(rows, name)
        table = emotion_answer_table(rows, train, {name: labelled_answers}, main=main, **settings)
        tables.append(table.replace({"target": {"macro": "emotion"}}))  # `macro` is that of the AUs
        unread = (long["answer"].map(read_emotion).isna().to_numpy() & has_emotion)[:, None]
        tables.append(share_table(unread, has_emotion[:, None], ["emotion"], "unread", **names))
    return tables


def _main_of(faces: pd.DataFrame, name: str) -> str | None:
    """The model for the shuffled control; None, with a note, where one subject has most of the faces."""
    if 2 * faces["subject"].value_counts().iat[0] <= len(faces):
        return name
    where = f"expvqa: {faces['dataset'].iat[0]}: one subject has more than half of the faces"
    print(f"{where}: no control by shuffled images", file=sys.stderr)
    return None
