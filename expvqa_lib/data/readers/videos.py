"""Readers of the data sets that are videos with AU codes for each frame: BP4D and DISFA.

Videos are read as image files, one a frame. Of the training videos the paper takes one frame in ten, and
every frame whose labels differ from those of the frame before it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ...facs import BP4D_AUS, au_column
from .reading import SUFFIX, Reading
from .splits import assign_splits

EVERY = 10  # training frames
DISFA_AUS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
PRESENT_FROM = 2  # of DISFA's intensities 0 to 5, as in most papers; 14 037 training frames, of 14 814

# Fold 1 of the usual three, as in github.com/CVI-SZU/ME-GraphAU, tool/BP4D_image_label_process.py. It tests
# on 13 subjects, as many as the paper, which does not name its fold; the other folds test on 14.
BP4D_TRAIN = (
    "F001 M007 F018 F008 F002 M004 F010 F009 M012 M001 F016 M014 F023 M008 "
    "M011 F003 M010 M002 F005 F022 M018 M017 F013 M016 F020 F011 M013 M005"
)
BP4D_TEST = "F007 F015 F006 F019 M006 M009 F012 M003 F004 F021 F017 M015 F014"

_FRAME = r"[^/]*?(?P<number>[0-9]{1,9})" + SUFFIX


def read_bp4d(reading: Reading) -> None:
    """Read BP4D (Zhang and others 2014): 12 AUs of 41 subjects in 8 tasks.

        root/
        |-- AUCoding/AU_OCC/F001_T1.csv       0,1,2,4,...   AU numbers after the first cell
        |                                     1,0,9,1,...   frame; 1 present, 0 absent, 9 unknown
        `-- Sequences_2D+3D/F001/T1/0001.jpg  or 001.jpg, 1.jpg

    The tables may also be in `AUCoding` itself, and the image folder may have any name. AUs besides the
    paper's 12 are ignored. The split is fold 1 of the usual three; its validation subjects are drawn.

    Raises:
        TableError: no usable frame is there, or a file cannot be read; the message names it.
    """
    subject, video = r"(?P<subject>[FM][0-9]{3})", "(?P<video>T[0-9]{1,2})"
    tables = reading.find(rf"{subject}_{video}\.csv$", expected="AUCoding/AU_OCC/F001_T1.csv")
    columns = {"number": r"0|\D*", "AU{}": rf"(?:AU)?\s*0*({'|'.join(map(str, BP4D_AUS))})"}
    rows = _read_frames(reading, tables, columns)
    codes = {"0": 0, "1": 1, "9": np.nan}
    for column in map(au_column, BP4D_AUS):
        rows[column] = reading.codes(rows, column, codes) if column in rows else np.nan
    given = dict.fromkeys(BP4D_TRAIN.split(), "train") | dict.fromkeys(BP4D_TEST.split(), "test")
    if not reading.split_file:
        reading.notes.append(
            "split: fold 1 of the usual three, which tests on 13 subjects, as the paper does"
        )
    images = reading.find(f"{subject}/{video}/{_FRAME}")
    _frames(reading, rows, images.astype({"number": int}), list(map(au_column, BP4D_AUS)), given)


def read_disfa(reading: Reading, *, threshold: float = PRESENT_FROM) -> None:
    """Read DISFA (Mavadati and others 2013): intensities of 12 AUs for 27 subjects, one video each.

        root/
        |-- ActionUnit_Labels/SN001/SN001_au1.txt   1,0   frame (from 1), intensity 0 to 5; a file for each AU
        `-- Images/SN001/0001.jpg                   the frames of one camera's video, in a folder of any name

    DISFA is distributed as videos: take the frames out first, for instance by `ffmpeg -i
    Video_LeftCamera/LeftVideoSN001_comp.avi Images/SN001/%05d.jpg`. Where a subject has an image number 0, as
    in public code (github.com/CVI-SZU/ME-GraphAU), frame 1 of its labels is image 0. An AU is present from
    intensity `threshold` on; intensities stay in `AU12_intensity`. With 2, which most papers take, the
    paper's sampling gives 14 037 training frames, with 1 from 14 644 to 15 064, by the drawn test subjects;
    the paper has 14 814 and does not name its threshold. The 3 test subjects are drawn: the paper's are not
    public. Errors as in `read_bp4d`.
    """
    numbers = "|".join(map(str, DISFA_AUS))
    pattern = rf"(?P<subject>SN[0-9]{{3}})/(?P=subject)_[aA][uU]0?(?P<au>{numbers})\.txt$"
    tables = reading.find(pattern, expected="ActionUnit_Labels/SN001/SN001_au1.txt")
    columns = {"number": "number", "code": "code"}
    lines = _read_frames(reading, tables.astype({"au": int}), columns, list(columns))
    lines["intensity"] = reading.codes(lines, "code", {str(k): k for k in range(6)})
    lines = reading.drop_repeated(lines, ["subject", "au", "number"], ["intensity"])
    wide = (
        lines.pivot(index=["subject", "number"], columns="au", values="intensity")
        .reindex(columns=list(DISFA_AUS))
        .rename(columns="AU{}_intensity".format)
    )
    reading.read += len(wide) - len(lines)  # from here on a row is a frame: what its files say together
    present = (wide >= threshold).astype(float).where(wide.notna())
    rows = wide.join(present.rename(columns=lambda name: name.removesuffix("_intensity"))).reset_index()
    folders = tables.drop_duplicates("subject").set_index("subject")["path"].str.rpartition("/")[0]
    rows = rows.assign(video="", file=rows["subject"].map(folders), line=rows["number"])
    images = reading.find(r"[^/]*(?P<subject>SN[0-9]{3})[^/]*/" + _FRAME).astype({"number": int})
    from_0 = images.groupby("subject")["number"].transform("min") == 0
    if from_0.any():
        subjects = ", ".join(images["subject"][from_0].unique())
        reading.notes.append(f"images are counted from 0, frame 1 of the labels is image 0: {subjects}")
        images["number"] += from_0
    _frames(reading, rows, images.assign(video=""), list(map(au_column, DISFA_AUS)))


def _read_frames(
    reading: Reading, tables: pd.DataFrame, columns: Mapping[str, str], names: Sequence[str] = ()
) -> pd.DataFrame:
    """Read the tables below each other, with the groups of their paths and the frames' numbers."""
    rows = pd.concat(
        (reading.read_csv(file, columns, names, "number") for file in tables["path"]), ignore_index=True
    )
    rows = rows.merge(tables, how="left", left_on="file", right_on="path")
    bad = ~rows["number"].str.fullmatch("[0-9]{1,9}")
    rows = reading.drop(rows, bad, "malformed row", "number", "a frame number")
    return rows.assign(number=rows["number"].astype(int))


def _frames(
    reading: Reading,
    rows: pd.DataFrame,
    images: pd.DataFrame,
    labels: list[str],
    given: Mapping[str, str] | None = None,
) -> None:
    """Drop repeated and unlabelled frames and those without an image, split, and sample."""
    key = ["subject", "video", "number"]
    rows = reading.drop_repeated(rows, key, labels)
    rows = reading.drop(rows, rows[labels].isna().all(axis=1), "no AU labelled")
    rows = assign_splits(reading, rows, given)
    images = images.drop_duplicates(key).rename(columns={"path": "image"})[[*key, "image"]]
    rows = rows.merge(images, on=key, how="left").sort_values(key, ignore_index=True)
    names = (rows["video"] + "_").str.removeprefix("_") + rows["number"].astype(str).str.zfill(5)
    rows = rows.assign(frame=names, wanted=rows["subject"] + "/" + names)
    rows = reading.drop(rows, rows["image"].isna(), "image missing", "wanted")  # first: as the paper's count
    is_unused = (rows["split"] != "test") & ~is_sampled(rows, labels)
    reading.finish(reading.drop(rows, is_unused, "not sampled"))


def is_sampled(rows: pd.DataFrame, labels: list[str]) -> pd.Series:
    """The paper's sampling: one frame in `EVERY` of each video, and where labels differ from the frame
    before.

    Args:
        rows: a row a frame, in order, with columns `subject`, `video` and `labels` (NaN where unlabelled).
    """
    place = rows.groupby(["subject", "video"], sort=False).cumcount()
    values = rows[labels].fillna(-1)
    return (place % EVERY == 0) | (values != values.shift()).any(axis=1)
