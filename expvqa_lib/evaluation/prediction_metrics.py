"""The metrics of a prediction table, for labels of one's own; no model is needed."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

from ..data import labelled_aus
from ..errors import TableError
from ..facs import EMOTIONS
from ..questions import QUESTION_TYPES, read_emotion
from .detection import au_answer_table, au_score_table, emotion_answer_table
from .metrics.answers import answer_table, share_table, wide
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
    """Score predictions, with the label prior and the model on shuffled images beside them; no model is needed.

    Intervals come from drawing subjects. Of several wordings P(yes) is averaged, and answers count each. Where one
    subject has more than half of the faces, the control by shuffled images is left out (a note on standard error).

    Args:
        predictions: from `predict_in_parts` or `read_predictions`.
        faces: from `read_faces`.

    Returns:
        Columns of `au_table` and `question`. Q3: all its metrics, and of answers in words, model `NAME_in_words`,
        those of `answer_table`. Q1 and Q2: the AUs and emotions read out of the answers, the share of `empty` answers, and
        of Q1 the share `unread` in which no emotion could be read.

    Raises:
        TableError: a prediction is missing, given twice, of an unknown face, AU or area, or its probability is NaN.
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
            of_kind = predictions[predictions["question_type"] == kind]
            questions = questions_about(labelled_aus(rows), [kind], of_kind["wording"].unique())
            answered = of_kind[of_kind["dataset"] == dataset]
            if len(answered) and questions.empty:
                raise TableError(
                    f"predictions: {kind} was asked of {dataset}, where no action unit is labelled"
                )
            if len(questions):
                score = _yes_no_tables if kind == "Q3" else _sentence_tables
                table = pd.concat(score(answered, rows, train, questions, name, settings))
                tables.append(table.assign(question=kind))
    if not tables:
        raise TableError(f"the predictions hold no question of {', '.join(QUESTION_TYPES)}")
    return pd.concat(tables, ignore_index=True)


def _wide_answers(
    predictions: pd.DataFrame, faces: pd.DataFrame, questions: pd.DataFrame, by: str
) -> pd.DataFrame:
    """Answers in words, faces by targets, one wording below the other; each question must be answered once."""
    predictions = predictions.assign(au=predictions[by])
    targets = questions[by].drop_duplicates().tolist()
    tables = [
        wide(predictions[predictions["wording"] == wording], faces["name"].tolist(), targets, "answer")
        for wording in questions["wording"].unique()
    ]
    return pd.concat(tables, ignore_index=True)


def _yes_no_tables(
    predictions: pd.DataFrame,
    faces: pd.DataFrame,
    train: pd.DataFrame,
    questions: pd.DataFrame,
    name: str,
    settings: dict,
) -> list[pd.DataFrame]:
    """Q3: P(yes), answers in words, or both, whichever is there."""
    in_words, tables = predictions["answer"].notna().any(), []
    answers = _wide_answers(predictions, faces, questions, "au")
    if predictions["p_yes"].notna().any() or not in_words:
        if (bad := predictions["p_yes"].isna()).any():
            first = predictions[bad].iloc[0]
            raise TableError(
                f"predictions: p_yes is missing or no number: {first['au']} of {first['image']} ({bad.sum()} such "
                "rows in all); expected a probability; ask the model again, or empty the whole column to score the "
                "answers in words alone"
            )
        scores = mean_scores(predictions, faces["name"].tolist(), questions["au"].drop_duplicates().tolist())
        main = _main_of(faces, name)
        tables.append(
            au_score_table(faces, train, {name: scores}, main=main, averages=("macro", "micro"), **settings)
        )
    if in_words:
        repeated = pd.concat([faces] * (len(answers) // len(faces)), ignore_index=True)
        names = {"model": f"{name}_in_words", "dataset": faces["dataset"].iat[0], "split": "test"}
        labels = repeated[au_columns(faces)]
        tables.append(answer_table(labels, answers, groups=repeated["subject"], **settings, **names))
    return tables


def _sentence_tables(
    predictions: pd.DataFrame,
    faces: pd.DataFrame,
    train: pd.DataFrame,
    questions: pd.DataFrame,
    name: str,
    settings: dict,
) -> list[pd.DataFrame]:
    """Q1 and Q2: what the answers say of the labels; several wordings count as so many more faces."""
    by = "question_type" if questions["area"].isna().all() else "area"
    answers = _wide_answers(predictions, faces, questions, by).fillna("").astype(object)
    faces = pd.concat([faces] * (len(answers) // len(faces)), ignore_index=True)
    long = answers.reset_index(names="row").melt("row", value_name="answer")
    long = long.sort_values("row", kind="stable", ignore_index=True)
    names = {"groups": faces["subject"], "model": name, "dataset": faces["dataset"].iat[0], "split": "test"}
    empty = (answers.map(str.strip) == "").to_numpy()
    targets = [*map(str, answers), "macro"]
    tables = [share_table(empty, np.ones_like(empty), targets, "empty", **names, **settings)]
    if au_columns(faces):
        tables.append(au_answer_table(faces, {name: long}, main=_main_of(faces, name), **settings))
    known = faces["emotion"].isin(list(EMOTIONS)).to_numpy()
    if by == "question_type" and known.any():
        rows = faces[known].reset_index(drop=True)
        train = train[train["emotion"].isin(list(EMOTIONS))]
        known_answers = {name: long[known].reset_index(drop=True)}
        table = emotion_answer_table(rows, train, known_answers, main=_main_of(rows, name), **settings)
        tables.append(table.replace({"target": {"macro": "emotion"}}))  # `macro` is that of the AUs
        unread = long["answer"].map(read_emotion).isna().to_numpy() & known
        tables.append(
            share_table(unread[:, None], known[:, None], ["emotion"], "unread", **names, **settings)
        )
    return tables


def _main_of(faces: pd.DataFrame, name: str) -> str | None:
    """The model to be asked about shuffled images; None, with a note, where one subject has most of the faces."""
    if 2 * faces["subject"].value_counts().iat[0] <= len(faces):
        return name
    print(
        f"expvqa: {faces['dataset'].iat[0]}: one subject has more than half of the faces: no control by "
        "shuffled images",
        file=sys.stderr,
    )
    return None
