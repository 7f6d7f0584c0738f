"""Predictions as one table, a row a question about a face; how a model is asked for them.

Columns: `image` (relative to the table's root), `dataset`, `subject`, `split`, `question_type` (Q1, Q2, Q3),
`au` (`AU12`, of Q3), `area` (of Q2 and Q3), `wording`, `question`, `answer` (in words; missing where only
probabilities were asked for) and `p_yes` (of Q3).
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from tqdm.auto import tqdm
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from ..data import labelled_aus, read_available, read_table
from ..errors import ModelError, TableError
from ..facs import ACTION_UNITS
from ..files import atomic, cached, file_state, fingerprint
from ..model.answer import embed_images, generate, score_questions
from ..questions import QUESTION_TYPES, ask_q1, ask_q2, ask_q3
from ..training.feature_cache import encoder_key
from .metrics import wide

CHUNK = 256
"""Faces a part: a run that is killed loses at most the answers about so many."""
FACE_COLUMNS = ("image", "dataset", "subject", "split")
COLUMNS = (*FACE_COLUMNS, "question_type", "au", "area", "wording", "question", "answer", "p_yes")
_ANSWER_TOKENS = 9  # of a yes or no in words, as in the released code


def processes() -> PartialState:
    """The processes of `accelerate launch` or `torchrun`; on the CPU where there is no accelerator."""
    return PartialState(cpu=not torch.accelerator.is_available())


def read_faces(
    data: str | Path, root: str | Path | None = None, tables: str | Path | None = None
) -> pd.DataFrame:
    """Read a face table (Parquet or .csv, images below `root`), or a folder of data sets.

    Rows that a program labelled are left out: nothing is measured on those.

    Args:
        tables: folder for the face tables of the data sets.

    Returns:
        The face table with a column `name`, the image's path relative to the root.

    Raises:
        TableError: no row is labelled by people, or an image is in several rows of a data set.
        SettingsError: there are no data sets in the folder.
    """
    data = Path(data)
    root = Path(root or (data if data.is_dir() else data.parent)).resolve()
    faces = read_available(data, tables or data) if data.is_dir() else read_table(data, root)
    faces = faces[faces["labelled_by"].isna()].reset_index(drop=True)
    if faces.empty:
        raise TableError(
            f"{data}: no row is labelled by people; nothing is measured on labels that a program made"
        )
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
    areas = list(dict.fromkeys(unit.area for unit in units))
    rows = []
    for kind in (kind for kind in QUESTION_TYPES if kind in kinds):
        for w in wordings:
            if kind == "Q1":
                rows.append((kind, None, None, w, ask_q1(w)))
            elif kind == "Q2":
                rows += [(kind, None, area, w, ask_q2(area, w)) for area in areas]
            else:
                rows += [(kind, unit.name, unit.area, w, ask_q3(unit.number, w)) for unit in units]
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
    """Ask each question about each face. The vision encoder runs once an image.

    Args:
        faces: with `name` (see `with_names`).
        questions: from `questions_about`. Q1 and Q2 are answered in words, Q3 by P(yes).
        in_words: answer Q3 in words, too.
        batch: answers that are generated at once.

    Returns:
        Table with the columns `COLUMNS`, one face's rows after the other's.

    Raises:
        ImageError: an image is missing or unreadable.
        ModelError: a probability is NaN, or the tokenizer cannot tell yes from no.
    """
    embeds = embed_images(model, processor, faces["image"].tolist(), progress=progress)
    answers = np.full((len(faces), len(questions)), None, object)
    p_yes = np.full(answers.shape, np.nan, np.float32)
    yes_no = (questions["question_type"] == "Q3").to_numpy()
    texts = questions["question"].tolist()
    if yes_no.any():
        asked = questions.loc[yes_no, "question"].tolist()
        p_yes[:, yes_no] = score_questions(model, processor, embeds, asked, progress=progress).numpy()
    if (bad := np.isnan(p_yes) & yes_no).any():
        row, column = np.argwhere(bad)[0]
        where = f"{questions['au'].iat[column]} of {faces['name'].iat[row]} ({bad.sum()} in all)"
        raise ModelError(f"P(yes) is NaN for {where}: the model holds NaN, or overflows; try --dtype float32")
    for column in np.flatnonzero(~yes_no | in_words):
        options = {"max_new_tokens": _ANSWER_TOKENS} if yes_no[column] else {}
        options |= {"embeds": embeds, "batch": batch, "progress": progress}
        replies = generate(model, processor, [], [texts[column]] * len(faces), **options)
        answers[:, column] = [reply for (reply,) in replies]
    table = faces.drop(columns="image").rename(columns={"name": "image"})[list(FACE_COLUMNS)]
    table = table.merge(questions, how="cross").assign(answer=answers.ravel(), p_yes=p_yes.ravel())
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
) -> pd.DataFrame:
    """Ask about the labels of the test faces and write `folder/predictions.parquet`.

    Parts of `CHUNK` faces are cached in `folder/parts`, by model, images and questions: a run that was killed
    goes on. Several processes of `accelerate launch` or `torchrun` share the parts.

    Args:
        faces: from `read_faces`.
        kinds: of Q1, Q2, Q3; `in_words` as for `predict`.
        name: of the model, kept in the table's `attrs`.

    Raises:
        TableError: there is no test face, or nothing to ask about.
    """
    folder, parts = Path(folder), []
    key = encoder_key([model], model.generation_config.to_diff_dict(), in_words)
    for rows in test_faces(faces):
        questions = questions_about(labelled_aus(rows), kinds)
        for k in range(0, len(rows) if len(questions) else 0, CHUNK):
            part = rows.iloc[k : k + CHUNK]
            identity = part[["name", *FACE_COLUMNS[1:]]].astype(str).to_numpy().tolist()
            images = [file_state(image) for image in part["image"]]
            made_of = fingerprint(key, identity, images, questions.to_numpy().tolist())
            parts.append((folder / "parts" / f"{made_of}.parquet", part, questions))
    if not parts:
        raise TableError(
            f"nothing to ask in {', '.join(kinds)}: no face of the test split has a labelled action unit"
        )
    with processes().split_between_processes(parts) as own_parts:
        for path, part, questions in tqdm(
            own_parts, desc="asking", unit=f"x{CHUNK} faces", disable=not processes().is_main_process
        ):
            cached(path, partial(predict, model, processor, part, questions, in_words=in_words))
    processes().wait_for_everyone()
    table = pd.concat([pd.read_parquet(path) for path, *_ in parts], ignore_index=True)
    table.attrs = {"model": name}
    if processes().is_main_process:
        with atomic(folder / "predictions.parquet") as temporary:
            table.to_parquet(temporary, index=False)
    return table


def mean_scores(predictions: pd.DataFrame, images: Sequence[str], aus: Sequence[str]) -> pd.DataFrame:
    """P(yes) of Q3, the mean over the wordings: [images, aus]; each must be predicted once a wording.

    Raises:
        TableError: as for `metrics.wide`.
    """
    by_wording = [wide(rows, images, aus, "p_yes") for _, rows in predictions.groupby("wording", sort=False)]
    return sum(by_wording) / len(by_wording)


def read_predictions(path: str | Path) -> pd.DataFrame:
    """Read predictions of `predict_in_parts`, or of another program in the same columns.

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


def test_faces(faces: pd.DataFrame) -> list[pd.DataFrame]:
    """The test faces of a table, a table a data set.

    Raises:
        TableError: there are none.
    """
    rows = faces[faces["split"] == "test"]
    if rows.empty:
        splits = ", ".join(faces["split"].unique())
        raise TableError(f"the face table has no row of the split 'test'; found {splits}")
    return [table.reset_index(drop=True) for _, table in rows.groupby("dataset", sort=True)]
