"""Readers of the data sets that are videos with AU codes for each frame: BP4D, DISFA and GFT.

Videos are read as image files, one a frame. Of the training videos, and of GFT's test videos, the paper takes one frame in ten and every
frame whose labels differ from those of the frame before it (`data/published/datasets.csv`); `every=1` takes all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa

from ...errors import SettingsError, TableError
from ...facs import BP4D_AUS, au_column
from .. import splits
from .log import SUFFIX, Log, Reading, bad_lines, codes, places, unrepeated
from .textfiles import header, read_csv

DISFA_AUS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
GFT_AUS = (1, 2, 4, 6, 10, 12, 14, 15, 23, 24)
OCCURRENCE = {"0": 0, "1": 1, "9": float("nan"), "-9": float("nan"), "999": float("nan")}
"""Codes of BP4D and GFT; 9 (unknown) and its kin leave the AU unlabelled."""
INTENSITY = {str(k): k for k in range(6)}
"""Codes of DISFA."""

BP4D_PARTS = (
    "F001 M007 F018 F008 F002 M004 F010 F009 M012 M001 F016 M014 F023 M008",
    "M011 F003 M010 M002 F005 F022 M018 M017 F013 M016 F020 F011 M013 M005",
    "F007 F015 F006 F019 M006 M009 F012 M003 F004 F021 F017 M015 F014",
)
"""The subjects of the usual three folds, as in github.com/CVI-SZU/ME-GraphAU, tool/BP4D_image_label_process.py. Fold 1 tests on the last
part: 13 subjects, as many as the paper's test set; the other folds test on 14."""

_FRAME = r"[^/]*?(?P<number>[0-9]{1,9})" + SUFFIX
_NO_FRAME = "line without frame and intensity, its AU left unlabelled"
_NUMBER = r"[0-9]{1,9}"


def read_bp4d(
    root: str | Path, *, every: int = 10, fold: int = 1, seed: int = 42, split_file: str | Path | None = None
) -> Reading:
    """Read BP4D (Zhang and others 2014): 12 AUs of 41 subjects in 8 tasks.

        root/
        |-- AUCoding/AU_OCC/F001_T1.csv       0,1,2,4,...   AU numbers after the first cell
        |                                     1,0,9,1,...   frame; 1 present, 0 absent, 9 unknown
        `-- Sequences_2D+3D/F001/T1/0001.jpg  or 001.jpg, 1.jpg

    The tables may stand in `AUCoding` itself, the image folder may have any name. AUs besides the paper's 12 are ignored.

    Args:
        every: of the training frames, one in so many is taken (and each with new labels).
        fold: 1, 2 or 3: which third of the subjects is the test set (see `BP4D_PARTS`).
        seed: for the validation subjects, drawn among the training subjects.
        split_file: a split kept by `splits.write`, in place of fold and seed.

    Raises:
        TableError: no usable frame is there, or a file cannot be read; the message names it.
        SettingsError: there is no such fold.
    """
    if fold not in (1, 2, 3):
        raise SettingsError(f"fold={fold!r}: expected 1, 2 or 3")
    log = Log("BP4D", root)
    tables = log.require(
        log.find(r"(?P<subject>[FM][0-9]{3})_(?P<video>T[0-9]{1,2})\.csv$", "AU_OCC"),
        "AUCoding/AU_OCC/F001_T1.csv",
    )
    rows = _occurrence(log, tables, BP4D_AUS)
    given = {
        subject: "test" if k == 3 - fold else "train"
        for k, part in enumerate(BP4D_PARTS)
        for subject in part.split()
    }
    if not split_file:
        log.note(
            f"split: fold {fold} of the usual three; the paper does not name its fold, but tests on 13 subjects, as fold 1 does"
        )
    images = log.find(r"(?P<subject>[FM][0-9]{3})/(?P<video>T[0-9]{1,2})/" + _FRAME)
    return _reading(log, rows, images, BP4D_AUS, every, ("train", "validation"), seed, given, split_file)


def read_gft(
    root: str | Path, *, every: int = 10, seed: int = 42, split_file: str | Path | None = None
) -> Reading:
    """Read GFT (Girard and others 2017): 10 AUs of 96 subjects, one video each.

        root/
        |-- AU_OCC/001A.csv          frame,AU1,AU2,...   or AU numbers alone
        |                            1,0,-9,...          frame; 1 present, 0 absent, 9, -9 or 999 not coded
        `-- images/001A/0001.jpg     the videos' frames, in a folder of any name

    No description of the distributed files is public: this layout, BP4D's, is our assumption. The subjects of the test set are drawn in
    the paper's proportion; all frames are sampled, as in the paper. Arguments and errors as in `read_bp4d`.
    """
    log = Log("GFT", root)
    tables = log.require(log.find(r"AU_OCC/(?P<subject>[^/]+)\.csv$"), "AU_OCC/SUBJECT.csv").assign(video="")
    rows = _occurrence(log, tables, GFT_AUS)
    images = log.find(r"(?P<subject>[^/]+)/" + _FRAME).assign(video="")
    return _reading(
        log, rows, images, GFT_AUS, every, ("train", "validation", "test"), seed, None, split_file
    )


def read_disfa(
    root: str | Path,
    *,
    present_from: int = 2,
    every: int = 10,
    seed: int = 42,
    split_file: str | Path | None = None,
) -> Reading:
    """Read DISFA (Mavadati and others 2013): intensities of 12 AUs for 27 subjects, one video each.

        root/
        |-- ActionUnit_Labels/SN001/SN001_au1.txt   1,0   frame (from 1), intensity 0 to 5; a file for each AU
        `-- Images/SN001/0001.jpg                   the frames of one camera's video, in a folder of any name

    DISFA is distributed as videos: take the frames out first, for instance by
    `ffmpeg -i Video_LeftCamera/LeftVideoSN001_comp.avi Images/SN001/%05d.jpg`. Where one of the images is number 0, as public code
    has them (github.com/CVI-SZU/ME-GraphAU), frame 1 of the labels is image 0. A label row is one frame: what its files say together.
    The 3 test subjects are drawn: the paper's are not public.

    Args:
        present_from: intensity from which an AU counts as present; intensities are kept in `AU12_intensity`.
        every, seed, split_file: as in `read_bp4d`.

    Raises:
        TableError: as in `read_bp4d`.
        SettingsError: `present_from` is not within 1 to 5.
    """
    if present_from not in range(1, 6):
        raise SettingsError(
            f"present_from={present_from!r}: expected an intensity of 1 to 5; the paper takes 2"
        )
    log = Log("DISFA", root)
    tables = log.find(r"(?P<folder>SN[0-9]{3})/(?P<subject>SN[0-9]{3})_[aA][uU](?P<au>[0-9]{1,2})\.txt$")
    rows = _intensities(
        log,
        log.require(tables[tables["folder"] == tables["subject"]], "ActionUnit_Labels/SN001/SN001_au1.txt"),
    )
    for column in map(au_column, DISFA_AUS):
        intensity = rows[f"{column}_intensity"]
        rows[column] = (intensity >= present_from).astype(float).where(intensity.notna())
    images = log.find(r"[^/]*(?P<subject>SN[0-9]{3})[^/]*/" + _FRAME).assign(video="")
    if (images["number"].astype(int) == 0).any():
        log.note("images are counted from 0: frame 1 of the labels is image 0")
        images["number"] = images["number"].astype(int) + 1
    return _reading(log, rows, images, DISFA_AUS, every, ("train", "validation"), seed, None, split_file)


def _occurrence(log: Log, tables: pd.DataFrame, aus: Sequence[int]) -> pd.DataFrame:
    """Read tables of frames by AUs: a row a frame, with a column an AU, NaN where it is unlabelled."""
    parts, ignored, absent = [], set(), set()
    for table in tables.itertuples():
        first, *names = header(log, table.path)
        numbers = {
            name: int(told[1])
            for name in names
            if (told := re.fullmatch(r"(?:AU)?\s*([0-9]{1,3})", name, re.IGNORECASE))
        }
        ignored |= set(numbers.values()) - set(aus)
        absent |= set(aus) - set(numbers.values())
        kept = {name: au_column(au) for name, au in numbers.items() if au in aus}
        if len(set(kept.values())) < len(kept):
            raise TableError(f"{log.root / table.path}: row 1: one AU has two columns among {list(kept)}")
        rows, bad = read_csv(log, table.path, wanted=(first, *kept))
        log.malformed(table.path, bad, f"a frame and {len(names)} codes")
        rows = rows.rename_columns({first: "number"} | kept)
        rows = rows.append_column("subject", pa.repeat(table.subject, len(rows))).append_column(
            "video", pa.repeat(table.video, len(rows))
        )
        parts.append(rows)
    rows = pa.concat_tables(parts, promote_options="default").to_pandas()
    log.read += len(rows)
    if ignored:
        log.note(
            f"AUs that are ignored, because the paper does not use them here: {len(ignored)} ({', '.join(map(str, sorted(ignored)))})"
        )
    if absent:
        log.note(
            f"AUs that some tables have no column for, and that are unlabelled there: {', '.join(map(str, sorted(absent)))}"
        )
    for column in map(au_column, aus):
        rows[column] = codes(log, rows, column, OCCURRENCE) if column in rows else float("nan")
    rows = log.drop(
        rows, ~rows["number"].str.fullmatch(_NUMBER), "malformed row", "number", ", expected a frame number"
    )
    return rows.assign(number=rows["number"].astype(int))


def _intensities(log: Log, tables: pd.DataFrame) -> pd.DataFrame:
    """Read DISFA's files: a row a frame, with a column `AU12_intensity` an AU, NaN where no file says it or one contradicts itself."""
    known = tables[tables["au"].astype(int).isin(DISFA_AUS)]
    if ignored := sorted(set(tables["au"].astype(int)) - set(DISFA_AUS)):
        log.note(f"AUs that are ignored, because DISFA does not code them: {', '.join(map(str, ignored))}")
    parts = []
    for table in log.require(known, "file of an AU that DISFA codes").itertuples():
        lines, bad = read_csv(log, table.path, ["number", "value"])
        if bad:
            log.problem(_NO_FRAME, bad_lines(table.path, bad, "frame,intensity"), len(bad))
        parts.append(
            lines.append_column("subject", pa.repeat(table.subject, len(lines))).append_column(
                "au", pa.repeat(int(table.au), len(lines))
            )
        )
    lines = pa.concat_tables(parts).to_pandas()
    if not (framed := lines["number"].str.fullmatch(_NUMBER)).all():
        log.problem(
            _NO_FRAME, places(lines[~framed], "number", ", expected a frame number"), int((~framed).sum())
        )
    lines = lines[framed].assign(number=lines["number"][framed].astype(int))
    lines["value"] = codes(log, lines, "value", INTENSITY, "intensity")
    lines = lines.drop_duplicates(["subject", "number", "au", "value"])
    if (torn := lines.duplicated(["subject", "number", "au"], keep=False)).any():
        log.problem(
            "frame with two intensities, its AU left unlabelled",
            places(lines[torn], "number", " more than once"),
            int(torn.sum()),
        )
        lines.loc[torn, "value"] = float("nan")
        lines = lines.drop_duplicates(["subject", "number", "au"])
    wide = lines.pivot(index=["subject", "number"], columns="au", values="value").reindex(
        columns=list(DISFA_AUS)
    )
    log.read += len(wide)
    rows = wide.rename(columns=lambda au: f"{au_column(au)}_intensity").reset_index()
    folders = (
        tables.assign(folder=tables["path"].str.rpartition("/")[0])
        .drop_duplicates("subject")
        .set_index("subject")["folder"]
    )
    return rows.assign(video="", file=rows["subject"].map(folders), line=rows["number"])


def _reading(
    log: Log,
    rows: pd.DataFrame,
    images: pd.DataFrame,
    aus: Sequence[int],
    every: int,
    sampled: tuple[str, ...],
    seed: int,
    given: Mapping[str, str] | None,
    split_file: str | Path | None,
) -> Reading:
    """Sort out repeated and unlabelled frames, split, sample, and find the frames' images."""
    if every < 1:
        raise SettingsError(
            f"every={every!r}: expected 1 (all frames), or one in so many; the paper takes 10"
        )
    labels, key = [au_column(au) for au in aus], ["subject", "video", "number"]
    rows = unrepeated(log, rows, key, labels)
    rows = log.drop(rows, rows[labels].isna().all(axis=1), "no AU labelled")
    rows, split = splits.assign(log, rows, seed, given, split_file)
    rows = rows.sort_values(key, ignore_index=True)
    rows = log.drop(rows, rows["split"].isin(sampled) & ~taken(rows, labels, every), "not sampled")
    images = images.assign(number=images["number"].astype(int), image=images["path"]).drop_duplicates(key)
    rows = rows.merge(images[[*key, "image"]], on=key, how="left")
    names = (
        rows["video"]
        + rows["video"].map(lambda video: "_" if video else "")
        + rows["number"].astype(str).str.zfill(5)
    )
    return log.reading(rows.assign(frame=names, wanted=rows["subject"] + "/" + names), split)


def taken(rows: pd.DataFrame, labels: list[str], every: int) -> pd.Series:
    """The paper's sampling: true for one frame in `every` of each video, and where labels differ from those of the frame before.

    Args:
        rows: a row a frame, in order, with columns `subject`, `video` and `labels` (NaN where unlabelled).
    """
    place = rows.groupby(["subject", "video"], sort=False).cumcount()
    values = rows[labels].fillna(-1)
    return (place % every == 0) | (values != values.shift()).any(axis=1)
