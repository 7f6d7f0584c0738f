"""Predictions as one table, a row a question about a face: how a model is asked, how answers are measured.

Columns: `image` (relative to the table's root), `dataset`, `subject`, `split`, `question_type` (Q1, Q2, Q3),
`au` (`AU12`, of Q3), `area` (of Q2, Q3), `wording`, `question`, `answer` (in words, if asked for), `p_yes`.
"""

import os
import sys
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from tqdm.auto import tqdm
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from ..data import labelled_aus, read_available, read_table
from ..errors import ModelError, TableError
from ..facs import ACTION_UNITS, EMOTIONS
from ..files import cached, file_state, fingerprint, read_frame, save_table
from ..model import embed_images, generate, score_questions
from ..questions import QUESTION_TYPES, ask_q1, ask_q2, ask_q3, read_emotion
from ..training import encoder_key
from .detection import au_answer_table, detection_table, emotion_answer_table, table_settings
from .metrics import answer_table, share_table, wide
from .tables import au_columns

CHUNK = 256  # faces a part: a run that is killed loses at most the answers about so many
FACE_COLUMNS = ("image", "dataset", "subject", "split")
COLUMNS = (*FACE_COLUMNS, "question_type", "au", "area", "wording", "question", "answer", "p_yes")


def processes() -> PartialState:
    """The processes of `accelerate launch` or `torchrun`; on the CPU where there is no accelerator."""
    return PartialState(cpu=not torch.accelerator.is_available())


def read_faces(
    data: str | Path, root: str | Path | None = None, tables: str | Path | None = None
) -> pd.DataFrame:
    """Read a face table (Parquet or .csv, images below `root`), or a folder of data sets.

    Rows that a program labelled are left out: nothing is measured on those. The column `name` is added, see
    `with_names`. The face tables of data sets are written to the folder `tables`.

    Raises:
        TableError: no row is labelled by people, or an image is in several rows of a data set.
        SettingsError: there are no data sets in the folder.
    """
    data = Path(data)
    root = Path(root or (data if data.is_dir() else data.parent)).resolve()
    faces = read_available(data, tables or data) if data.is_dir() else read_table(data, root)
    faces = faces[faces["labelled_by"].isna()].reset_index(drop=True)
    if faces.empty:
        raise TableError(f"{data}: no row is labelled by people, and only their labels are measured on")
    if (twice := faces.duplicated(["dataset", "image"])).any():
        raise TableError(
            f"{data}: image {faces.loc[twice, 'image'].iat[0]} stands in several rows; expected one a face"
        )
    return with_names(faces, root)


def with_names(faces: pd.DataFrame, root: str | Path) -> pd.DataFrame:
    """Add the column `name`: the image's path relative to `root`, by which predictions find their face."""
    return faces.assign(name=[os.path.relpath(image, root) for image in faces["image"]])


def questions_about(
    aus: Sequence[int], kinds: Sequence[str] = ("Q3",), wordings: Sequence[int] = (0,)
) -> pd.DataFrame:
    """The questions about faces with these labelled AUs: Q1, Q2 of each area, Q3 of each AU.

    Columns: question_type, au, area, wording, question.
    """
    units = [ACTION_UNITS[n] for n in aus]
    areas = dict.fromkeys(unit.area for unit in units)
    rows = []
    for kind, w in product([kind for kind in QUESTION_TYPES if kind in kinds], wordings):
        about = {
            "Q1": [(None, None, ask_q1(w))],
            "Q2": [(None, area, ask_q2(area, w)) for area in areas],
            "Q3": [(unit.name, unit.area, ask_q3(unit.number, w)) for unit in units],
        }
        rows += [(kind, au, area, w, question) for au, area, question in about[kind]]
    return pd.DataFrame(rows, columns=["question_type", "au", "area", "wording", "question"])


def predict(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    faces: pd.DataFrame,
    questions: pd.DataFrame,
    *,
    in_words: bool = False,
    batch: int = 64,
    progress: bool = False,
) -> pd.DataFrame:
    """Ask each question of `questions_about` about each face; the vision encoder runs once an image.

    Q1 and Q2 are answered in words, Q3 by P(yes) and, with `in_words`, in words, too; `batch` answers are
    generated at once. The table has the columns `COLUMNS`, one face's rows after the other's.

    Raises:
        ImageError: an image is missing or unreadable.
        ModelError: a probability is NaN, or the tokenizer cannot tell yes from no.
    """
    embeds = embed_images(model, processor, faces["image"].tolist(), progress=progress)
    answers = np.full((len(faces), len(questions)), None, object)
    p_yes = np.full(answers.shape, np.nan, np.float32)
    is_q3, texts = (questions["question_type"] == "Q3").to_numpy(), questions["question"]
    if is_q3.any():
        asked = texts[is_q3].tolist()
        p_yes[:, is_q3] = score_questions(model, processor, embeds, asked, progress=progress)
    for column in np.flatnonzero(~is_q3 | in_words):
        options = {"batch": batch, "progress": progress}
        options |= {"max_new_tokens": 9} if is_q3[column] else {}  # for a yes or no, as in the released code
        replies = generate(model, processor, embeds, [texts.iat[column]] * len(faces), **options)
        answers[:, column] = [reply for (reply,) in replies]
    table = faces.drop(columns="image").rename(columns={"name": "image"})[list(FACE_COLUMNS)]
    table = table.merge(questions, how="cross").assign(answer=answers.ravel(), p_yes=p_yes.ravel())
    if len(bad := table[table["p_yes"].isna() & (table["question_type"] == "Q3")]):
        raise ModelError(
            f"P(yes) is NaN for {bad['au'].iat[0]} of {bad['image'].iat[0]} ({len(bad)} in all): the model "
            "holds NaN, or overflows; try --dtype float32"
        )
    dtypes = dict.fromkeys(COLUMNS, "string") | {"wording": "int64", "p_yes": "float32"}
    return table[list(COLUMNS)].astype(dtypes)


def predict_in_parts(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    faces: pd.DataFrame,
    folder: str | Path,
    kinds: Sequence[str] = ("Q3",),
    *,
    in_words: bool = False,
    name: str = "model",
    split: str | None = "test",
) -> pd.DataFrame:
    """Ask about the labels of a split's faces (None: all), write `folder/predictions.parquet`; see `predict`.

    Parts of `CHUNK` faces are cached in `folder/parts`, by model, images and questions: a run that was killed
    goes on. Several processes of `accelerate launch` or `torchrun` share the parts. The model's `name` is
    kept in the table's `attrs`.

    Raises:
        TableError: there is no test face, or nothing to ask about.
    """
    folder, state, parts = Path(folder), processes(), []
    key = encoder_key([model], model.generation_config.to_diff_dict(), in_words)
    for rows in faces_to_measure(faces, split):
        questions = questions_about(labelled_aus(rows), kinds)
        for k in range(0, len(rows) if len(questions) else 0, CHUNK):
            part = rows.iloc[k : k + CHUNK]
            made_of = fingerprint(
                key,
                part[["name", *FACE_COLUMNS[1:]]].astype(str).to_numpy().tolist(),
                [file_state(image) for image in part["image"]],
                questions.to_numpy().tolist(),
            )
            ask = partial(predict, model, processor, part, questions, in_words=in_words)
            parts.append((folder / "parts" / f"{made_of}.parquet", ask))
    if not parts:
        raise TableError(f"nothing to ask in {', '.join(kinds)}: no test face has a labelled action unit")
    with state.split_between_processes(parts) as own_parts:
        for part in tqdm(own_parts, desc=f"asking {CHUNK} faces each", disable=not state.is_main_process):
            cached(*part)
    state.wait_for_everyone()
    table = pd.concat([pd.read_parquet(path) for path, _ in parts], ignore_index=True)
    table.attrs = {"model": name}
    if state.is_main_process:
        save_table(table, folder / "predictions.parquet")
    return table


def mean_scores(predictions: pd.DataFrame, images: Sequence[str], aus: Sequence[str]) -> pd.DataFrame:
    """P(yes) of Q3, the mean over the wordings: [images, aus]; each must be predicted once a wording."""
    by_wording = [wide(rows, images, aus, "p_yes") for _, rows in predictions.groupby("wording", sort=False)]
    return sum(by_wording) / len(by_wording)


def read_predictions(path: str | Path) -> pd.DataFrame:
    """Read predictions of `predict_in_parts`, or of another program in the same columns.

    Raises:
        TableError: no readable Parquet table is there, or a column is missing.
    """
    predictions = read_frame(path, "table of predictions", {"subject": "string"})
    if missing := ", ".join(column for column in COLUMNS if column not in predictions):
        raise TableError(f"{path}: no column {missing}; predictions have {', '.join(COLUMNS)}")
    return predictions


def faces_to_measure(faces: pd.DataFrame, split: str | None = "test") -> list[pd.DataFrame]:
    """The faces of a split (None: all), a table a data set; without any it is a TableError."""
    rows = faces if split is None else faces[faces["split"] == split]
    if rows.empty:
        raise TableError(
            f"the face table has no row of the split {split!r}; found {', '.join(faces['split'].unique())}"
        )
    return [table.reset_index(drop=True) for _, table in rows.groupby("dataset", sort=True)]


def measure(
    predictions: pd.DataFrame,
    faces: pd.DataFrame,
    *,
    name: str = "model",
    resamples: int = 1000,
    seed: int = 0,
    split: str | None = "test",
) -> pd.DataFrame:
    """Score predictions of `predict_in_parts` or `read_predictions` about the test rows of `read_faces`.

    The label prior and the model on shuffled images stand beside it; where one subject has more than half of
    the faces, the latter is left out, with a note on standard error. Intervals come from drawing subjects.

    Returns:
        Columns of `detection_table` and `question`. Q3: all metrics of `au_table`, without the questions
        whose answers have no P(yes); and of answers in words, model `NAME_in_words`, those of `answer_table`.
        Q1 and Q2: the AUs and emotions read out of the answers, the share of `empty` answers, and of Q1 the
        share `unread` in which no emotion could be read.

    Raises:
        TableError: a prediction is missing, NaN, given twice, or of an unknown face, AU or area.
    """
    datasets = {rows["dataset"].iat[0]: rows for rows in faces_to_measure(faces, split)}
    if unknown := sorted(set(map(str, predictions["dataset"])) - set(datasets)):
        raise TableError(
            f"predictions: data set {unknown[0]!r} has no test face; found {', '.join(datasets)}"
        )
    tables, settings = [], {"resamples": resamples, "seed": seed}
    kinds = [kind for kind in QUESTION_TYPES if kind in set(predictions["question_type"])]
    for (dataset, rows), kind in product(datasets.items(), kinds):
        answered = predictions[(predictions["question_type"] == kind) & (predictions["dataset"] == dataset)]
        questions = questions_about(labelled_aus(rows), [kind])
        if len(questions) or len(answered):
            train = faces[(faces["dataset"] == dataset) & (faces["split"] == "train")]
            score = _yes_no_tables if kind == "Q3" else _sentence_tables
            scored = score(answered, rows, train, questions, name, settings)
            tables += [table.assign(question=kind) for table in scored]
    if not tables:
        raise TableError(f"the predictions hold no question of {', '.join(QUESTION_TYPES)}")
    return pd.concat(tables, ignore_index=True)


def _yes_no_tables(predictions, faces, train, questions, name: str, settings: dict) -> list[pd.DataFrame]:
    """Q3: P(yes), answers in words, or both, whichever is there."""
    images, aus, tables = faces["name"].tolist(), questions["au"].tolist(), []
    answers = wide(predictions, images, aus, "answer")
    in_words = answers.notna().any(axis=None)
    if predictions["p_yes"].notna().any() or not in_words:
        scores, main = mean_scores(predictions, images, aus), _main_of(faces, name)
        neither = scores.isna() & answers.notna()  # yes nor no: as if unlabelled, and in words a wrong answer
        scored, scores = faces.assign(**faces[aus].mask(neither)), {name: scores.mask(neither, 0.5)}
        tables.append(detection_table(scored, scores, main=main, micro=True, **settings))
    if in_words:
        settings = table_settings(faces, **settings)
        tables.append(answer_table(faces[aus], answers, model=f"{name}_in_words", **settings))
    return tables


def _sentence_tables(predictions, faces, train, questions, name: str, settings: dict) -> list[pd.DataFrame]:
    """Q1 and Q2: what the answers say of the labels."""
    by = "question_type" if questions["area"].isna().all() else "area"
    keys, predictions = questions[by].tolist(), predictions.assign(au=predictions[by])
    answers = wide(predictions, faces["name"].tolist(), keys, "answer").fillna("").astype(object)
    long = answers.reset_index(names="row").melt("row", value_name="answer")
    names = table_settings(faces, **settings) | {"model": name}
    empty = (answers.map(str.strip) == "").to_numpy()
    tables = [share_table(empty, np.ones_like(empty), [*keys, "macro"], "empty", **names)]
    if au_columns(faces):
        tables.append(au_answer_table(faces, {name: long}, main=_main_of(faces, name), **settings))
    has_emotion = faces["emotion"].isin(list(EMOTIONS)).to_numpy()
    if by == "question_type" and has_emotion.any():
        rows, answered = (table[has_emotion].reset_index(drop=True) for table in (faces, long))
        train, main = train[train["emotion"].isin(list(EMOTIONS))], _main_of(rows, name)
        table = emotion_answer_table(rows, train, {name: answered}, main=main, **settings)
        tables.append(table.replace({"target": {"macro": "emotion"}}))  # `macro` is that of the AUs
        unread = (long["answer"].map(read_emotion).isna().to_numpy() & has_emotion)[:, None]
        tables.append(share_table(unread, has_emotion[:, None], ["emotion"], "unread", **names))
    return tables


def _main_of(faces: pd.DataFrame, name: str) -> str | None:
    """The model for the shuffled control; None, with a note, where one subject has most of the faces."""
    if 2 * faces["subject"].value_counts().iat[0] <= len(faces):
        return name
    note = "one subject has more than half of the faces: no control by shuffled images"
    print(f"expvqa: {faces['dataset'].iat[0]}: {note}", file=sys.stderr)
    return None
