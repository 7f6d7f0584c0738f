"""Readers of single pictures: RAF-AU and EmotioNet with AUs, AffectNet and RAF-DB with emotions.

Each picture is a subject of its own: who is in it is not known.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from ...errors import TableError
from ...facs import ACTION_UNITS, EMOTIONS, au_column
from .reading import SUFFIX, Reading
from .splits import assign_splits

FACS_CODES = range(1, 70)  # numbers of actions in the FACS manual; from 70 on, actions out of sight
EMOTIONET_AUS = (1, 2, 4, 5, 6, 9, 12, 17, 20, 25, 26)
_AFFECTNET_COLUMNS = (
    *("subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks"),
    *("expression", "valence", "arousal"),
)
RAF_BASIC = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")  # 1 to 7
RAF_COMPOUND = (
    "happiness+surprise",  # 1
    "happiness+disgust",
    "sadness+fear",
    "sadness+anger",
    "sadness+surprise",
    "sadness+disgust",
    "fear+anger",
    "fear+surprise",
    "anger+surprise",
    "anger+disgust",
    "disgust+surprise",  # 11
)


def read_raf_au(reading: Reading) -> None:
    """Read RAF-AU (Yan and others 2020): 4601 pictures, the AUs of each.

        root/
        |-- RAFAU_label.txt              0007.jpg 1+L2+25   or null, where the coders saw no AU
        `-- aligned/0007_aligned.jpg     or original/0007.jpg

    T, B, L and R (top, bottom, left, right) before or after a number are removed, and AU or AD before it. The
    file lists the AUs that are present. An AU that is not listed counts as absent if the file lists it for at
    least one picture and `facs.ACTION_UNITS` has it, and is unlabelled otherwise. Where one of a picture's
    codes cannot be read, its AUs that are not listed are unlabelled. The paper's random split is not public,
    so the test pictures are drawn.

    Raises:
        TableError: no usable picture is there, or a file cannot be read; the message names it.
    """
    list_file = reading.find(r"RAFAU_label\.txt$", "RAFAU_label.txt")["path"].iat[0]
    rows = reading.drop_repeated(_listed(reading, list_file), ["name"], ["label"])
    code = r"(?<![^+])(?i:A[DU]|[TBLR]{0,2})0?([0-9]{1,2})(?i:[TBLR]?)(?![^+])"
    labels = rows["label"].where(rows["label"].str.lower() != "null", "")
    labels = labels.str.replace(" ", "").str.replace(code, r"\1", regex=True)
    # of object: of Arrow's strings, pandas 3.1 takes an empty text for the last code
    codes = labels.astype(object).str.get_dummies("+")  # [pictures, codes], 1 where listed
    readable = [code for code in codes if code.isdigit() and int(code) in FACS_CODES]
    complete = (codes.drop(columns=readable) == 0).all(axis=1)
    kind = "AU code that cannot be read, AUs that its row does not list left unlabelled"
    reading.problem(kind, rows[~complete], "label", "FACS numbers, with T, B, L or R before them")
    if unknown := [code for code in readable if int(code) not in ACTION_UNITS]:
        reading.notes.append(f"codes without a phrase, ignored: {', '.join(unknown)}")
    for au in (au for au in ACTION_UNITS if str(au) in readable):
        rows[au_column(au)] = np.where(codes[str(au)] == 1, 1.0, np.where(complete, 0.0, np.nan))
    reading.notes.append(f"{(labels == '').sum()} pictures are coded null: every AU counts as absent there")
    _pictures(reading, rows, "_aligned")


def read_emotionet(reading: Reading) -> None:
    """Read the manually annotated part of EmotioNet (Benitez-Quiroz and others 2016, 2020).

        root/
        |-- EmotioNet_FACS_aws_2020_24600.csv     URL,URL orig,AU 1,AU 2,...   (in single quotes)
        |                                         1 present, 0 absent, 999 not annotated
        `-- images/FOLDER/NAME.jpg                as in the URL, or images/NAME.jpg

    It is distributed as an Excel workbook of addresses: save it as CSV, and the pictures under the names of
    their addresses. Of its 60 columns, the 11 AUs of the 2017 challenge are read, which are the paper's 11 by
    number. Errors as in `read_raf_au`.
    """
    expected = "EmotioNet_FACS*.csv (save the distributed .xlsx as CSV)"
    lists = reading.find(r"(?i:emotionet_facs)[^/]*\.csv$", expected)["path"]
    columns = {"address": "URL", "AU{}": rf"(?:AU)?[ _]*0*({'|'.join(map(str, EMOTIONET_AUS))})"}
    rows = reading.read_csv(lists.iat[0], columns)
    aus = [column for column in map(au_column, EMOTIONET_AUS) if column in rows]
    for column in aus:
        rows[column] = reading.codes(rows, column, {"0": 0, "1": 1, "999": np.nan})
    address = rows["address"].str.strip("\"' ").str.split("?").str[0]
    rows["name"] = address.str.split("/").str[-2:].str.join("/")
    rows = reading.drop_repeated(rows, ["name"], aus)
    _pictures(reading, reading.drop(rows, rows[aus].isna().all(axis=1), "no AU labelled"))


def read_affectnet(reading: Reading) -> None:
    """Read the manual labels of AffectNet (Mollahosseini and others 2017): one of 8 emotions a picture.

        root/
        |-- Manually_Annotated_file_lists/training.csv     subDirectory_filePath,face_x,...,expression,...
        |-- Manually_Annotated_file_lists/validation.csv   with or without the line of names
        `-- Manually_Annotated_Images/1/NAME.jpg

    or, as it is distributed since 2021,

        root/
        |-- train_set/annotations/0_exp.npy, train_set/images/0.jpg
        `-- val_set/annotations/0_exp.npy, val_set/images/0.jpg      or valid_set

    Expressions 0 to 7 are read, 8 to 10 (none, uncertain, no face) are dropped. The official validation set
    is the paper's test set. A picture in both lists is a test picture. Errors as in
    `read_raf_au`.
    """
    lists = reading.find(r"(?P<part>training|validation)\.csv$")
    columns = {"name": "subDirectory_filePath", "expression": "expression"}
    tables = [
        reading.read_csv(table.path, columns, _AFFECTNET_COLUMNS).assign(part=table.part)
        for table in lists.sort_values("part", ascending=False).itertuples()
    ]
    rows = pd.concat(tables, ignore_index=True) if tables else _affectnet_arrays(reading)
    rows = reading.drop(rows, rows["expression"].isin(["8", "9", "10"]), "none, uncertain or no face")
    rows = rows.assign(part=np.where(rows["part"].str.startswith("train"), "train", "test"))
    rows = _name_emotions(reading, rows.sort_values("part", kind="stable"), "expression", EMOTIONS, first=0)
    reading.notes.append("published split: the validation set is the paper's test set")
    _pictures(reading, rows)


def _affectnet_arrays(reading: Reading) -> pd.DataFrame:
    """Rows of the files NUMBER_exp.npy, each of which holds one expression as a number or as text."""
    expected = "Manually_Annotated_file_lists/training.csv or train_set/annotations/0_exp.npy"
    pattern = r"(?P<part>train|val|valid)_set/annotations/(?P<number>[0-9]+)_exp\.npy$"
    files = reading.find(pattern, expected)
    reading.read += len(files)
    return files.assign(
        name=files["part"] + "_set/images/" + files["number"] + ".jpg",
        expression=[_array_value(reading.root / file) for file in files["path"]],
        file=files["path"],
        line=1,
    )


def _array_value(file: Path) -> str:
    try:
        return str(np.load(file).item())
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        return f"not one number ({error})"


def read_raf_db(reading: Reading, *, basic: bool = False) -> None:
    """Read RAF-DB (Li and others 2017): one of 11 compound emotions a picture, or of 7 basic ones.

        root/
        `-- compound/                                     or basic/, or root itself where it is called so
            |-- EmoLabel/list_patition_label.txt          train_0001.jpg 5
            `-- Image/aligned/train_0001_aligned.jpg      or Image/original/train_0001.jpg

    A compound emotion becomes its two words, `happiness+surprise`. The names tell the official split; of the
    compound set it has 3162 and 792 pictures, as many as the paper's, which calls its own random. The paper
    does not use the basic set. Errors as in `read_raf_au`.
    """
    kind, emotions = ("basic", RAF_BASIC) if basic else ("compound", RAF_COMPOUND)
    list_file = _raf_list(reading, kind)
    rows = _name_emotions(reading, _listed(reading, list_file), "label", emotions, first=1)
    rows["part"] = rows["name"].str.extract(r"^(train|test)_")[0]
    rows = reading.drop(
        rows, rows["part"].isna(), "name that tells no split", "name", "train_ or test_ before the number"
    )
    reading.notes.append("published split: by the files' names")
    _pictures(reading, rows, "_aligned", under=f"{Path(list_file).parents[1]}/".removeprefix("./"))


def _raf_list(reading: Reading, kind: str) -> str:
    """The list in a folder that is called basic or compound; else the only list, if its labels are so."""
    expected = f"{kind}/EmoLabel/list_patition_label.txt"
    lists = reading.find(r"(?i:EmoLabel)/list_par?tition_label\.txt$", expected)["path"]
    other = "compound" if kind == "basic" else "basic"
    parents = [f"{reading.root.name}/{path}".lower().split("/")[-3] for path in lists]
    called = [path for path, parent in zip(lists, parents, strict=True) if kind in parent]
    if called or len(lists) != 1 or other in parents[0]:
        if len(called) == 1:
            return called[0]
        raise TableError(f"{reading.root}: found {list(lists)}, expected one {expected}")
    codes = {text.split()[-1] for _, text in reading.lines(lists.iat[0])}
    if (found := "compound" if codes - {*"1234567"} else "basic") != kind:
        raise TableError(
            f"{reading.root / lists.iat[0]}: its labels are those of the {found} set; "
            f"read it as {'RAF-DB' if found == 'compound' else 'RAF-DB-basic'}, or name its folder {kind}"
        )
    reading.notes.append(f"{lists.iat[0]} is taken for the {kind} set by its labels")
    return lists.iat[0]


def _listed(reading: Reading, file: str) -> pd.DataFrame:
    """Read lines `NAME LABEL`: columns name, label, file, line."""
    rows = pd.DataFrame(reading.lines(file), columns=["line", "text"]).assign(file=file)
    reading.read += len(rows)
    rows = rows.join(rows["text"].str.extract(r"^\s*(?P<name>\S+)\s+(?P<label>\S.*?)\s*$"))
    return reading.drop(rows, rows["label"].isna(), "malformed row", "text", "an image and its label")


def _name_emotions(
    reading: Reading, rows: pd.DataFrame, column: str, emotions: Iterable[str], first: int
) -> pd.DataFrame:
    """Name the emotions, whose codes count from `first`, and keep a row a picture."""
    names = {str(code): name for code, name in enumerate(emotions, first)}
    rows = rows.assign(emotion=rows[column].map(names).astype(object))
    expected = f"{column} {', '.join(names)}"
    rows = reading.drop(rows, rows["emotion"].isna(), "label that cannot be read", column, expected)
    return reading.drop_repeated(rows, ["name"], ["emotion"])


def _pictures(reading: Reading, rows: pd.DataFrame, aligned: str = "", under: str = "") -> None:
    """Find the pictures below `under`, with `aligned` before the suffix or as named, split them, and finish.

    The split is drawn, but for rows with a column `part` (train or test).
    """
    names = rows["name"].str.replace("\\", "/").str.replace(r"^(\./)+", "", regex=True)
    below = re.escape(under) + "(?:.*/)?" if under else ""
    image, parts = pd.Series(np.nan, rows.index, dtype=object), names.str.split("/")
    for depth in sorted({0, *names.str.count("/")}, reverse=True):  # with folders as named, else without
        images = reading.find(f"{below}(?P<name>{'[^/]+/' * depth}[^/]+{SUFFIX})").set_index("name")["path"]
        if not depth:  # a picture in another row's folder is another picture
            images = images[~images.str.split("/").str[-2].isin(parts.str[-2].dropna())]
        wanted = parts.str[-depth - 1 :].str.join("/")
        for name in (wanted.str.replace(r"(\.\w+)$", aligned + r"\1", regex=True), wanted):
            image = image.fillna(name.map(images).where(~name.duplicated(keep=False)))
    subjects = names.str.replace(r"\.\w+$", "", regex=True)
    rows = rows.assign(image=image, subject=subjects, frame="0", wanted=names)
    given = dict(zip(subjects, rows["part"], strict=True)) if "part" in rows else None
    reading.finish(assign_splits(reading, rows, given))
