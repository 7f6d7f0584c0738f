"""A model's predictions for a face table, one row a question, kept in parts while they are made; and the metrics of such predictions.

Columns: `image` (relative to the table's root), `dataset`, `subject`, `split`, `question_type` (Q1, Q2, Q3), `au` (`AU12`, of Q3), `area`
(of Q2 and Q3), `wording`, `question`, `answer` (in words; missing where only probabilities were asked for) and `p_yes` (of Q3).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .. import questions
from ..data import readers
from ..data import table as face_table
from ..data.table import SPLITS, labelled_aus
from ..errors import ModelError, SettingsError, TableError
from ..facs import ACTION_UNITS, EMOTIONS
from ..files import atomic, file_state, fingerprint
from ..questions import QUESTION_TYPES
from . import tables as evaluation
from .metrics.answers import answer_table, share_table, wide

if TYPE_CHECKING:
    from ..expvqa import ExpVQA

CHUNK = 256
"""Faces a part: where the run is killed, the answers about as many are lost at most."""
COLUMNS = (
    "image",
    "dataset",
    "subject",
    "split",
    "question_type",
    "au",
    "area",
    "wording",
    "question",
    "answer",
    "p_yes",
)
_ANSWER_TOKENS = 9  # of a yes or no in words, as in the released code


def read_faces(
    data: str | Path, root: str | Path | None = None, kept: str | Path | None = None
) -> pd.DataFrame:
    """Read a face table (Parquet or .csv, images below `root`), or the folder that holds data sets, whose tables are kept in `kept`.

    Rows that a program labelled are left out: nothing is measured on those. `image` is the path, `name` the same relative to the root.

    Raises:
        TableError: as for `read_table`, no row is labelled by people, or an image stands twice in a data set.
        SettingsError: there are no data sets in the folder.
    """
    data = Path(data)
    root = Path(root or (data if data.is_dir() else data.parent)).resolve()
    faces = readers.read_available(data, kept or data) if data.is_dir() else face_table.read_table(data, root)
    faces = faces[faces["labelled_by"].isna()].reset_index(drop=True)
    if faces.empty:
        raise TableError(
            f"{data}: no row is labelled by people; nothing is measured on labels that a program made"
        )
    if (twice := faces.duplicated(["dataset", "image"])).any():
        raise TableError(
            f"{data}: image {faces.loc[twice, 'image'].iat[0]} stands in several rows; expected one a face"
        )
    return faces.assign(name=[os.path.relpath(image, root) for image in faces["image"]])


def _of_split(faces: pd.DataFrame, split: str) -> list[pd.DataFrame]:
    """The faces of a split, a table a data set."""
    if split not in SPLITS:
        raise SettingsError(f"split {split!r} is unknown; known are {', '.join(SPLITS)}")
    here = faces[faces["split"] == split]
    if here.empty:
        raise TableError(
            f"the face table has no row of the split {split!r}; found {', '.join(faces['split'].unique())}"
        )
    return [rows.reset_index(drop=True) for _, rows in here.groupby("dataset", sort=True)]


def _asked(faces: pd.DataFrame, kinds: Sequence[str], wordings: Sequence[int]) -> pd.DataFrame:
    """The questions about each face of one data set: Q1 once, Q2 of each area and Q3 of each AU that is labelled there."""
    units = [ACTION_UNITS[n] for n in labelled_aus(faces)]
    areas = list(dict.fromkeys(unit.area for unit in units))
    rows = []
    for kind in (kind for kind in QUESTION_TYPES if kind in kinds):
        for w in wordings:
            if kind == "Q1":
                rows.append((kind, None, None, w, questions.ask_q1(w)))
            elif kind == "Q2":
                rows += [(kind, None, area, w, questions.ask_q2(area, w)) for area in areas]
            else:
                rows += [(kind, unit.name, unit.area, w, questions.ask_q3(unit.number, w)) for unit in units]
    return pd.DataFrame(rows, columns=["question_type", "au", "area", "wording", "question"])


# ------------------------------------------------------------------------------------------------------------ predictions


def predict(
    model: ExpVQA,
    faces: pd.DataFrame,
    folder: str | Path,
    kinds: Sequence[str] = ("Q3",),
    *,
    split: str = "test",
    wordings: Sequence[int] = (0,),
    in_words: bool = False,
    name: str = "model",
) -> pd.DataFrame:
    """Ask a model about the faces of a split and write `folder/predictions.parquet`, in parts of `CHUNK` faces below `folder/parts`.

    A part is named for the model, its images and questions: a run that was killed goes on and asks nothing twice, another model or table
    makes parts of its own. Of several processes all call this; the main one writes, and each gets the predictions.

    Args:
        faces: from `read_faces`.
        kinds: of `QUESTION_TYPES`. Q1 and Q2 are answered in words, Q3 by P(yes), and with `in_words` also in words.
        wordings: which wordings to ask with, each a row of its own.
        name: of the model, kept with the predictions.

    Raises:
        SettingsError: a kind of question, a wording or the split is unknown.
        TableError: the split has no row, or nothing is labelled that could be asked about.
        ImageError: an image is missing or unreadable.
        ModelError: the model gives a probability that is no number.
    """
    from ..model.processes import by_share, from_main, state
    from ..training.feature_cache import encoder_key

    if unknown := [kind for kind in kinds if kind not in QUESTION_TYPES]:
        raise SettingsError(f"question type {unknown[0]!r} is unknown; known are {', '.join(QUESTION_TYPES)}")
    folder, main, parts = Path(folder), state().is_main_process, []
    key = encoder_key([model.model], model.model.generation_config.to_diff_dict(), in_words)
    for rows in _of_split(faces, split):
        asked = _asked(rows, kinds, wordings)
        for k in range(0, len(rows) if len(asked) else 0, CHUNK):
            some = rows.iloc[k : k + CHUNK]
            told = some[["name", "dataset", "subject", "split"]].astype(str).to_numpy().tolist()
            made_of = (key, told, [file_state(image) for image in some["image"]], asked.to_numpy().tolist())
            parts.append((folder / "parts" / f"{fingerprint(*made_of)}.parquet", some, asked))
    if not parts:
        raise TableError(
            f"nothing to ask in {', '.join(kinds)}: no face of the split {split!r} has a labelled action unit"
        )
    todo = from_main([not path.exists() for path, *_ in parts])
    sizes = [len(some) for _, some, _ in parts]
    done = sum(size for size, new in zip(sizes, todo, strict=True) if not new)
    with tqdm(total=sum(sizes), initial=done, desc="asking", unit=" faces", disable=not main) as bar:
        for (path, some, asked), size, new in zip(parts, sizes, todo, strict=True):
            if not new:
                continue
            made = pd.concat(
                by_share(
                    range(size),
                    lambda rows, some=some, asked=asked: [_answers(model, some.iloc[rows], asked, in_words)],
                )
            )
            if main:
                with atomic(path) as temporary:
                    made.to_parquet(temporary, index=False)
            bar.update(size)
    state().wait_for_everyone()
    whole = pd.concat([pd.read_parquet(path) for path, *_ in parts], ignore_index=True)
    whole.attrs = {"model": name}
    if main:
        with atomic(folder / "predictions.parquet") as temporary:
            whole.to_parquet(temporary, index=False)
    return whole


def _answers(model: ExpVQA, faces: pd.DataFrame, asked: pd.DataFrame, in_words: bool) -> pd.DataFrame:
    """Ask all questions about some faces; each face is looked at once. One face's rows after the other's."""
    from ..model.answer import embed_images, generate, score_yes_no

    seen = embed_images(model.model, model.processor, faces["image"].tolist())
    answers, scores = (
        np.full((len(faces), len(asked)), None, object),
        np.full((len(faces), len(asked)), np.nan),
    )
    q3 = (asked["question_type"] == "Q3").to_numpy()
    for wording in asked.loc[q3, "wording"].unique():
        columns = np.flatnonzero(q3 & (asked["wording"] == wording))
        aus = [int(au[2:]) for au in asked["au"].iloc[columns]]
        scores[:, columns] = score_yes_no(
            model.model, model.processor, [], aus, wordings=[wording], embeds=seen
        )
    if (bad := np.isnan(scores) & q3).any():
        row, column = np.argwhere(bad)[0]
        raise ModelError(
            f"the model's probability of yes is no number for {asked['au'].iat[column]} of {faces['name'].iat[row]} ({bad.sum()} in all); "
            "its weights hold NaN or its precision is too small: try --dtype float32"
        )
    for column in range(len(asked)):
        if not q3[column] or in_words:
            how = {"max_new_tokens": _ANSWER_TOKENS} if q3[column] else {}
            told = generate(
                model.model,
                model.processor,
                [],
                [asked["question"].iat[column]] * len(faces),
                embeds=seen,
                **how,
            )
            answers[:, column] = [texts[0] for texts in told]
    rows = (
        faces[["name", "dataset", "subject", "split"]]
        .rename(columns={"name": "image"})
        .loc[faces.index.repeat(len(asked))]
    )
    many = pd.concat([asked] * len(faces), ignore_index=True) if len(faces) else asked.iloc[:0]
    whole = pd.concat([rows.reset_index(drop=True), many], axis=1).assign(
        answer=answers.ravel(), p_yes=scores.ravel()
    )
    text = [column for column in COLUMNS if column not in ("wording", "p_yes")]
    return whole[list(COLUMNS)].astype(
        dict.fromkeys(text, "string") | {"wording": "int64", "p_yes": "float64"}
    )


# ---------------------------------------------------------------------------------------------------------------- metrics


def read_predictions(path: str | Path) -> pd.DataFrame:
    """Read predictions of `predict`, or of another program in the same columns.

    Raises:
        TableError: no readable Parquet table is there, or a column is missing.
    """
    try:
        predictions = pd.read_parquet(path)
    except Exception as error:
        raise TableError(f"{path}: no readable Parquet table of predictions ({error})") from error
    if missing := [column for column in COLUMNS if column not in predictions]:
        raise TableError(f"{path}: no column {', '.join(missing)}; predictions have {', '.join(COLUMNS)}")
    return predictions


def measure(
    predictions: pd.DataFrame,
    faces: pd.DataFrame,
    *,
    split: str = "test",
    name: str = "model",
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Score predictions, with the label prior and the model on shuffled images beside them; no model is needed.

    Intervals come from drawing subjects; faces of a table without subjects are drawn one by one. Of several wordings P(yes) is the mean,
    and answers count each. Where one subject has more than half of the faces, nobody else's image is left to exchange for it, and the
    shuffled control is left out, which is said on standard error.

    Args:
        predictions: from `predict` or `read_predictions`.
        faces: from `read_faces`, the same split.

    Returns:
        Tidy table: model, dataset, split, target, metric, value, low, high, support, and `question`. Q3: all metrics of `au_table`, and of
        answers in words, model `NAME_in_words`, those of `answer_table` with the share that is neither yes nor no. Q1 and Q2: the AUs and
        emotions that they tell, the share that is `empty`, and of Q1 the share `unread` in which no emotion could be read.

    Raises:
        TableError: a prediction is missing, there twice, of an unknown face, AU or area, or its probability is no number.
    """
    tables, here, drawn = [], _of_split(faces, split), {"resamples": resamples, "seed": seed}
    known, found = {rows["dataset"].iat[0] for rows in here}, set(predictions["dataset"])
    if strange := sorted(map(str, found - known)):
        raise TableError(
            f"predictions: data set {strange[0]!r} is not in the face table's split {split!r}; found {', '.join(sorted(known))}"
        )
    for rows in here:
        mine = predictions[predictions["dataset"] == rows["dataset"].iat[0]]
        train = faces[(faces["dataset"] == rows["dataset"].iat[0]) & (faces["split"] == "train")]
        for kind in (kind for kind in QUESTION_TYPES if (predictions["question_type"] == kind).any()):
            asked = _asked(
                rows, [kind], predictions.loc[predictions["question_type"] == kind, "wording"].unique()
            )
            told = mine[mine["question_type"] == kind]
            if len(told) and asked.empty:
                raise TableError(
                    f"predictions: {kind} was asked of {rows['dataset'].iat[0]}, where no action unit is labelled"
                )
            if len(asked):
                tables.append(
                    (_q3 if kind == "Q3" else _in_words)(told, rows, train, asked, name, drawn).assign(
                        question=kind
                    )
                )
    if not tables:
        raise TableError(f"the predictions hold no question of {', '.join(QUESTION_TYPES)}")
    return pd.concat(tables, ignore_index=True).assign(split=split)


def _by_wording(
    told: pd.DataFrame, faces: pd.DataFrame, asked: pd.DataFrame, value: str, by: str = "au"
) -> list[pd.DataFrame]:
    """A value of the predictions, faces by targets, a table a wording; each question must be answered once."""
    told = told.assign(au=told[by])
    return [
        wide(told[told["wording"] == w], faces["name"].tolist(), asked[by].drop_duplicates().tolist(), value)
        for w in asked["wording"].unique()
    ]


def _q3(
    told: pd.DataFrame, faces: pd.DataFrame, train: pd.DataFrame, asked: pd.DataFrame, name: str, drawn: dict
) -> pd.DataFrame:
    scores, answers = (_by_wording(told, faces, asked, value) for value in ("p_yes", "answer"))
    in_words, tables = told["answer"].notna().any(), []
    if told["p_yes"].notna().any() or not in_words:
        if (bad := told["p_yes"].isna()).any():
            first = told[bad].iloc[0]
            raise TableError(
                f"predictions: p_yes is missing or no number: {first['au']} of {first['image']} ({bad.sum()} such rows in all); expected a "
                "probability; ask the model again, or empty the whole column to score the answers in words alone"
            )
        given = {"averages": ("macro", "micro"), "main": _exchanged(faces, name)}
        tables.append(
            evaluation.au_detection(faces, train, {name: sum(scores) / len(scores)}, *drawn.values(), **given)
        )
    if in_words:
        labels, groups = (
            pd.concat([rows] * len(answers), ignore_index=True)
            for rows in (faces[evaluation.au_columns(faces)], faces["subject"])
        )
        names = {"model": f"{name}_in_words", "dataset": faces["dataset"].iat[0], "split": "test"}
        tables.append(
            answer_table(labels, pd.concat(answers, ignore_index=True), groups=groups, **drawn, **names)
        )
    return pd.concat(tables, ignore_index=True)


def _in_words(
    told: pd.DataFrame, faces: pd.DataFrame, train: pd.DataFrame, asked: pd.DataFrame, name: str, drawn: dict
) -> pd.DataFrame:
    """Q1 and Q2: what the answers tell, as far as it is labelled; several wordings as so many more faces."""
    by = "question_type" if asked["area"].isna().all() else "area"
    answers = (
        pd.concat(_by_wording(told, faces, asked, "answer", by), ignore_index=True).fillna("").astype(object)
    )  # [faces, areas]
    faces = pd.concat([faces] * (len(answers) // len(faces)), ignore_index=True)
    long = (
        answers.reset_index(names="row")
        .melt("row", value_name="answer")
        .sort_values("row", kind="stable", ignore_index=True)
    )
    common = {
        "groups": faces["subject"],
        "model": name,
        "dataset": faces["dataset"].iat[0],
        "split": "test",
    } | drawn
    empty = (answers.map(str.strip) == "").to_numpy()
    tables = [share_table(empty, np.ones_like(empty), [*map(str, answers), "macro"], "empty", **common)]
    if evaluation.au_columns(faces):
        tables.append(evaluation.told_aus(faces, {name: long}, *drawn.values(), _exchanged(faces, name)))
    known = faces["emotion"].isin(list(EMOTIONS)).to_numpy()
    if by == "question_type" and known.any():
        some, heard = faces[known].reset_index(drop=True), long[known].reset_index(drop=True)
        train = train[train["emotion"].isin(list(EMOTIONS))]
        emotions = evaluation.told_emotions(
            some, train, {name: heard}, *drawn.values(), _exchanged(some, name)
        )
        tables.append(emotions.replace({"target": {"macro": "emotion"}}))  # `macro` is that of the AUs
        unread = long["answer"].map(questions.read_emotion).isna().to_numpy()[:, None]
        tables.append(share_table(unread & known[:, None], known[:, None], ["emotion"], "unread", **common))
    return pd.concat(tables, ignore_index=True)


def _exchanged(faces: pd.DataFrame, name: str) -> str | None:
    """The model to be shown exchanged images, or None where somebody has more than half of the faces, which is said."""
    if 2 * faces["subject"].value_counts().iat[0] <= len(faces):
        return name
    print(
        f"expvqa: {faces['dataset'].iat[0]}: one subject has more than half of the faces: no control by exchanged images",
        file=sys.stderr,
    )
    return None
