"""Readers of the data sets that are single pictures: RAF-AU and EmotioNet with AUs, AffectNet, RAF-DB and FaceME with emotions.

Each picture is a subject of its own: who is on it is not known.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ...errors import TableError
from ...facs import ACTION_UNITS, EMOTIONS, au_column
from .. import splits
from .log import SUFFIX, Log, Reading, codes, drop_outside, places, unrepeated
from .textfiles import header, read_csv, read_lines

FACS_CODES = range(1, 70)
"""Numbers of actions in the FACS manual; those from 70 on say what cannot be seen."""
EMOTIONET_AUS = (1, 2, 4, 5, 6, 9, 12, 17, 20, 25, 26)
AFFECTNET = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
"""Emotions of AffectNet's codes 0 to 7; 8 (none), 9 (uncertain) and 10 (no face) name none."""
RAF_BASIC = dict(
    zip("1234567", ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"), strict=True)
)
RAF_COMPOUND = {
    "1": "happiness+surprise",
    "2": "happiness+disgust",
    "3": "sadness+fear",
    "4": "sadness+anger",
    "5": "sadness+surprise",
    "6": "sadness+disgust",
    "7": "fear+anger",
    "8": "fear+surprise",
    "9": "anger+surprise",
    "10": "anger+disgust",
    "11": "disgust+surprise",
}
WORDS = {emotion.adjective: emotion.name for emotion in EMOTIONS.values()} | {"fearful": "fear"}
"""Words of FaceME that are names of `facs.EMOTIONS` in another form."""


def read_raf_au(root: str | Path, *, seed: int = 42, split_file: str | Path | None = None) -> Reading:
    """Read RAF-AU (Yan and others 2020): 4601 pictures, the AUs of each.

        root/
        |-- RAFAU_label.txt              0007.jpg 1+L2+25   or null, where the coders saw no AU
        `-- aligned/0007_aligned.jpg     or original/0007.jpg

    Prefixes T, B, L and R (top, bottom, left, right) are removed. The file lists what is present; what it does not list is taken for
    absent among those AUs of `facs.ACTION_UNITS` (which are the 27 of Exp-BLIP's supplement) that it lists for at least one picture, and
    is unlabelled else. Where one of a picture's codes cannot be read, all that it does not list is unlabelled.

    Args:
        seed: for the test set and the validation set; the paper's random split is not public.
        split_file: a split kept by `splits.write`, in its place.

    Raises:
        TableError: no usable picture is there, or a file cannot be read; the message names it.
    """
    log = Log("RAF-AU", root)
    found = log.require(log.find(r"RAFAU_label\.txt$")[:1], "RAFAU_label.txt")
    rows = _listed(log, found["path"].iat[0])
    rows = unrepeated(log, rows, ["name"], ["label"])
    coded = rows["label"].str.split("+").explode().str.strip()
    coded = coded[coded.str.lower() != "null"]
    numbers = coded.str.extract(r"^[TBLR]{0,2}([0-9]{1,2})$")[0].astype(float)
    unread = ~numbers.isin(FACS_CODES)
    if unread.any():
        where = rows.loc[coded.index[unread]].assign(code=coded[unread].tolist())
        expected = ", expected a FACS number, with T, B, L or R before it"
        log.problem(
            "AU code that cannot be read, what its row does not list left unlabelled",
            places(where, "code", expected),
            len(where),
        )
        numbers = numbers.where(~unread)
    seen = set(numbers.dropna().astype(int))
    if ignored := sorted(seen - set(ACTION_UNITS)):
        log.note(
            f"codes that are ignored, because no phrase is known for them: {', '.join(map(str, ignored))}"
        )
    whole = ~rows.index.isin(coded.index[unread])
    for au in sorted(seen & set(ACTION_UNITS)):
        present = rows.index.isin(numbers.index[numbers == au])
        rows[au_column(au)] = np.where(present, 1.0, np.where(whole, 0.0, np.nan))
    log.note(
        f"{int((rows['label'].str.lower() == 'null').sum())} pictures are coded null: every AU counts as absent there"
    )
    return _pictures(log, rows, _images(log, rows["name"], "_aligned"), seed, None, split_file)


def read_emotionet(root: str | Path, *, seed: int = 42, split_file: str | Path | None = None) -> Reading:
    """Read the manually annotated part of EmotioNet (Benitez-Quiroz and others 2016, 2020).

        root/
        |-- EmotioNet_FACS_aws_2020_24600.csv     URL,URL orig,AU 1,AU 2,...   (names and URLs in single quotes)
        |                                         1 present, 0 absent, 999 not annotated
        `-- images/FOLDER/NAME.jpg                as in the URL, or images/NAME.jpg

    It is distributed as an Excel workbook of addresses: save it as CSV, and the pictures under the names of their addresses. Of its 60
    columns, the 11 AUs of the 2017 challenge are read, which are the paper's 11 by number. Arguments and errors as in `read_raf_au`.
    """
    log = Log("EmotioNet", root)
    expected = "EmotioNet_FACS*.csv (save the distributed .xlsx as CSV)"
    found = log.require(log.find(r"(?i:emotionet_facs)[^/]*\.csv$")[:1], expected)
    file = found["path"].iat[0]
    rows = _rows(log, file, quote='"')
    named = {name: "AU" + name.upper().removeprefix("AU").strip(" _") for name in rows}
    rows = rows.rename(columns={old: new for old, new in named.items() if old.upper().startswith("AU")})
    columns = [c for c in map(au_column, EMOTIONET_AUS) if c in rows]
    if not columns or "URL" not in rows or rows.columns.duplicated().any():
        raise TableError(
            f"{log.root / file}: row 1: found columns {list(rows)[:6]} ..., expected URL, and each AU once, 'AU 1'"
        )
    for column in columns:
        rows[column] = codes(log, rows, column, {"0": 0, "1": 1, "999": np.nan})
    address = rows["URL"].str.strip("\"' ").str.split("?").str[0]
    rows = rows.assign(
        name=address.str.split("/").str[-2:].str.join("/"), unlabelled=rows[columns].isna().all(axis=1)
    )
    rows = drop_outside(log, rows, "name")
    rows = unrepeated(log, rows, ["name"], columns)
    rows = log.drop(rows, rows["unlabelled"], "no AU labelled")
    rows = rows[["name", "file", "line", *columns]]
    return _pictures(log, rows, _images(log, rows["name"]), seed, None, split_file)


def read_affectnet(root: str | Path, *, seed: int = 42, split_file: str | Path | None = None) -> Reading:
    """Read the manually annotated part of AffectNet (Mollahosseini and others 2017): one of 8 emotions a picture.

        root/
        |-- Manually_Annotated_file_lists/training.csv     subDirectory_filePath,face_x,...,expression,valence,arousal
        |-- Manually_Annotated_file_lists/validation.csv   with or without the line of names
        `-- Manually_Annotated_Images/1/NAME.jpg

    or, as it is distributed since 2021,

        root/
        |-- train_set/annotations/0_exp.npy, train_set/images/0.jpg
        `-- val_set/annotations/0_exp.npy, val_set/images/0.jpg      or valid_set

    Expressions 0 to 7 are read, 8 to 10 (none, uncertain, no face) are dropped. The official validation set is the paper's test set.
    Where a picture stands in both lists, it is tested on. Arguments and errors as in `read_raf_au`.
    """
    log = Log("AffectNet", root)
    lists = log.find(r"(?P<part>training|validation)\.csv$", "Manually_Annotated")
    rows = _affectnet_lists(log, lists) if len(lists) else _affectnet_arrays(log)
    rows = log.drop(rows, rows["expression"].isin(["8", "9", "10"]), "none, uncertain or no face")
    rows = _emotions(log, rows, "expression", {str(code): emotion for code, emotion in enumerate(AFFECTNET)})
    rows = drop_outside(log, rows, "name")
    rows = unrepeated(log, rows, ["name"], ["emotion"])
    if not split_file:
        log.note("split: the official one; its validation set is the paper's test set")
    given = dict(zip(_subjects(rows["name"]), rows["part"], strict=True))
    return _pictures(log, rows, _images(log, rows["name"]), seed, given, split_file)


def _affectnet_lists(log: Log, lists: pd.DataFrame) -> pd.DataFrame:
    """Rows of validation.csv, then of training.csv: of a picture in both, the first row is kept."""
    names = ["subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks"]
    names += ["expression", "valence", "arousal"]
    parts = []
    for table in lists.sort_values("part", ascending=False).itertuples():
        found = [name.lower() for name in header(log, table.path)]
        named = "expression" in found and "subdirectory_filepath" in found
        if not named and len(found) != len(names):
            raise TableError(
                f"{log.root / table.path}: row 1: found {found[:5]}, expected the columns {names}"
            )
        rows = _rows(log, table.path, None if named else names, ("subDirectory_filePath", "expression"))
        parts.append(rows.assign(part="train" if table.part == "training" else "test"))
    return pd.concat(parts, ignore_index=True).rename(columns={"subDirectory_filePath": "name"})


def _affectnet_arrays(log: Log) -> pd.DataFrame:
    """Rows of the files NUMBER_exp.npy, each of which holds one expression as a number or as text."""
    found = log.find(r"(?P<part>train|val|valid)_set/annotations/(?P<number>[0-9]+)_exp\.npy$")
    log.require(found, "Manually_Annotated_file_lists/training.csv or train_set/annotations/0_exp.npy")
    log.read += len(found)

    def expression(file: str) -> str:
        try:
            return str(np.load(io.BytesIO(log.bytes(file)), allow_pickle=False).item())
        except (ValueError, EOFError, OSError, SyntaxError) as error:
            return f"not one number ({error})"

    folders = found["path"].str.rpartition("/annotations/")[0].str.rpartition("/")[2]
    rows = found.assign(name=folders + "/images/" + found["number"] + ".jpg", file=found["path"], line=1)
    rows = rows.assign(
        expression=[expression(file) for file in found["path"]],
        part=np.where(found["part"] == "train", "train", "test"),
    )
    return rows.sort_values("part", kind="stable")[["name", "part", "expression", "file", "line"]]


def read_raf_db(
    root: str | Path, *, basic: bool = False, seed: int = 42, split_file: str | Path | None = None
) -> Reading:
    """Read RAF-DB (Li and others 2017): one of 11 compound emotions a picture, or with `basic` one of 7 emotions.

        root/
        `-- compound/                                     or basic/, or root itself where it is called so
            |-- EmoLabel/list_patition_label.txt          train_0001.jpg 5
            `-- Image/aligned/train_0001_aligned.jpg      or Image/original/train_0001.jpg

    A compound emotion becomes its two words, `happiness+surprise`. The names tell the official split; of the compound set it has 3162 and
    792 pictures, as many as the paper's, which calls its own random. Arguments and errors as in `read_raf_au`.
    """
    kind, known = ("basic", RAF_BASIC) if basic else ("compound", RAF_COMPOUND)
    log = Log("RAF-DB basic" if basic else "RAF-DB", root)
    found = log.find(r"EmoLabel/list_par?tition_label\.txt$")
    found = found[[f"/{log.root.name}/{base}".endswith(f"/{kind}/") for base in found["base"]]][:1]
    found = log.require(found, f"{kind}/EmoLabel/list_patition_label.txt")
    rows = _listed(log, found["path"].iat[0])
    rows = _emotions(log, rows, "label", known)
    rows = unrepeated(log, rows, ["name"], ["emotion"])
    part = rows["name"].str.extract(r"^(train|test)_")[0]
    rows = log.drop(
        rows, part.isna(), "name that tells no split", "name", ", expected train_ or test_ before the number"
    )
    if not split_file:
        log.note(
            "split: the official one, by the files' names"
            + ("" if basic else "; of the paper's sizes, which says random")
        )
    given = dict(zip(_subjects(rows["name"]), part.dropna(), strict=True))
    return _pictures(
        log, rows, _images(log, rows["name"], "_aligned", found["base"].iat[0]), seed, given, split_file
    )


def read_raf_db_basic(root: str | Path, *, seed: int = 42, split_file: str | Path | None = None) -> Reading:
    """Read RAF-DB's 7 basic emotions: `read_raf_db` with `basic`. The paper does not use them."""
    return read_raf_db(root, basic=True, seed=seed, split_file=split_file)


def read_faceme(
    root: str | Path, *, agreeing: int = 2, seed: int = 42, split_file: str | Path | None = None
) -> Reading:
    """Read FaceME: emotion words out of 85, from three annotators a picture; training only.

        root/
        |-- annotations.csv      image,annotator_1,annotator_2,annotator_3
        |                        0001.jpg,happiness;awe,awe,happiness
        `-- images/0001.jpg

    How FaceME is distributed is not public: this layout is our assumption; write a table of this form from what you have. Words that at
    least `agreeing` annotators chose are kept, the most chosen first, joined by "+"; all words of the set are in `table.attrs`. A part
    is set apart for validation. Other arguments and errors as in `read_raf_au`.
    """
    log = Log("FaceME", root)
    file = log.require(log.find(r"annotations\.csv$")[:1], "annotations.csv")["path"].iat[0]
    rows = _rows(log, file)
    annotators = [c for c in rows if c not in ("image", "file", "line")]
    if "image" not in rows or len(annotators) < agreeing:
        raise TableError(
            f"{log.root / file}: row 1: found columns {list(rows)[:-2]}, expected image, and one for each of 3 annotators"
        )
    rows = rows.rename(columns={"image": "name"})
    rows = unrepeated(log, drop_outside(log, rows, "name"), ["name"], annotators)
    words = rows[annotators].stack().str.lower().str.split(";").explode().str.strip()
    words = words[words != ""].rename_axis(["row", "annotator"]).reset_index(name="word").drop_duplicates()
    words["word"] = words["word"].replace(WORDS)
    if (odd := words["word"].str.contains("+", regex=False)).any():
        at = words[odd].iloc[0]
        raise TableError(
            f"{log.root / file}: row {rows.loc[at['row'], 'line']}, column {at['annotator']}: found {at['word']!r}; a word has no '+'"
        )
    count = words.groupby(["row", "word"])["annotator"].nunique().reset_index()
    count = count[count["annotator"] >= agreeing].sort_values(
        ["row", "annotator", "word"], ascending=[True, False, True]
    )
    rows["emotion"] = count.groupby("row")["word"].agg("+".join).reindex(rows.index)
    rows = log.drop(rows, rows["emotion"].isna(), f"no word of {agreeing} annotators")
    given = dict.fromkeys(_subjects(rows["name"]), "train")
    emotions = sorted(set("+".join(rows["emotion"]).split("+")) - set(EMOTIONS) - {""})
    return _pictures(log, rows, _images(log, rows["name"]), seed, given, split_file, emotions)


def _rows(
    log: Log,
    file: str,
    names: Sequence[str] | None = None,
    wanted: Sequence[str] | None = None,
    quote: str | bool = False,
) -> pd.DataFrame:
    """Read comma-separated text and count its rows."""
    rows, bad = read_csv(log, file, names, wanted, quote)
    log.malformed(file, bad, f"{len(names or header(log, file))} cells")
    log.read += len(rows)
    return rows.to_pandas()


def _listed(log: Log, file: str) -> pd.DataFrame:
    """Read lines `NAME LABEL`: columns name, label, file, line."""
    rows = read_lines(log, file)
    log.read += len(rows)
    rows = rows.join(rows["text"].str.extract(r"^\s*(?P<name>\S+)\s+(?P<label>\S+)\s*$"))
    rows = log.drop(rows, rows["label"].isna(), "malformed row", "text", ", expected an image and its label")
    return drop_outside(log, rows, "name")


def _emotions(log: Log, rows: pd.DataFrame, column: str, known: dict[str, str]) -> pd.DataFrame:
    rows = rows.assign(emotion=rows[column].map(known).astype(object))
    return log.drop(
        rows,
        rows["emotion"].isna(),
        "label that cannot be read",
        column,
        f", expected {column} {', '.join(known)}",
    )


def _subjects(names: pd.Series) -> pd.Series:
    return names.str.replace(r"\.\w+$", "", regex=True)


def _images(log: Log, names: pd.Series, aligned: str = "", under: str = "") -> pd.Series:
    """Find each name below the folder `under`: with `aligned` before its suffix, else as it is, else without folder if that is enough."""
    wanted = [names]
    if aligned:
        wanted.insert(0, names.str.replace(r"(\.\w+)$", aligned + r"\1", regex=True))
    if (
        not (short := names.str.replace(r"^.*/", "", regex=True)).duplicated().any()
        and (short != names).any()
    ):
        wanted.append(short)
    found = pd.Series(None, names.index, dtype=object)
    for candidates in wanted:
        depth = int(candidates.str.count("/").mode().max()) if len(candidates) else 0
        images = log.find(
            (re.escape(under) + "(?:.*/)?" if under else "")
            + "(?P<name>"
            + "[^/]+/" * depth
            + "[^/]+"
            + SUFFIX
            + ")"
        )
        found = found.fillna(candidates.map(images.set_index("name")["path"]))
    return found


def _pictures(
    log: Log, rows, images: pd.Series, seed: int, given: dict | None, split_file, emotions: Sequence[str] = ()
) -> Reading:
    """Split the rows and make their table; `images` are the paths of their pictures."""
    rows = rows.assign(image=images, subject=_subjects(rows["name"]), frame="0", wanted=rows["name"])
    rows, split = splits.assign(log, rows, seed, given, split_file)
    return log.reading(rows, split, emotions)
