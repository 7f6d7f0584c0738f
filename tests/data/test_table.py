"""The face table: every broken rule is named by file, row and column, and unlabelled stays unlabelled."""

from __future__ import annotations

import os

import pandas as pd
import pytest

from expvqa_lib.data import table as face_table
from expvqa_lib.data.table import AU_COLUMNS, au_labels, check, labelled_aus, read, write
from expvqa_lib.errors import TableError


def some_faces(**columns) -> pd.DataFrame:
    rows = {
        "image": ["a.png", "b/c.png", "d.png"],
        "dataset": ["lab", "lab", "wild"],
        "subject": ["s1", "s2", "s1"],
        "frame": ["0", "0", "7"],
        "split": ["train", "test", "validation"],
        "AU12": [1, 0, None],
        "AU1": [None, 1, None],
        "emotion": ["happiness", None, "neutral"],
    }
    return pd.DataFrame(rows | columns)


def test_unlabelled_stays_missing_through_parquet(tmp_path):
    path = tmp_path / "faces.parquet"
    write(some_faces(), path)
    table = read(path)
    assert table["AU12"].tolist() == [1, 0, pd.NA] and table["AU1"].tolist() == [pd.NA, 1, pd.NA]
    assert all(table[column].dtype == "Int8" for column in AU_COLUMNS)
    assert table[[c for c in AU_COLUMNS if c not in ("AU1", "AU12")]].isna().all(axis=None)
    assert table["emotion"].isna().tolist() == [False, True, False]
    assert [au_labels(row) for row in table.to_dict("records")] == [{12: 1}, {1: 1, 12: 0}, {}]
    assert labelled_aus(table) == [1, 12] and labelled_aus(table[2:]) == []


def test_an_emotion_is_optional_and_further_columns_are_kept(tmp_path):
    path = tmp_path / "faces.parquet"
    write(some_faces(AU12_intensity=[0.5, 0.0, None], pose=["l", "r", "f"]).drop(columns="emotion"), path)
    table = read(path)
    assert (
        table["emotion"].isna().all()
        and table["pose"].tolist() == ["l", "r", "f"]
        and table["AU12_intensity"].iat[0] == 0.5
    )


def test_paths_come_back_under_the_tables_own_folder(tmp_path):
    folder = tmp_path / "data"
    write(some_faces(), folder / "faces.parquet")
    folder.rename(tmp_path / "moved")
    root = (tmp_path / "moved").resolve()
    assert read(tmp_path / "moved" / "faces.parquet")["image"].tolist() == [
        str(root / name) for name in ("a.png", "b/c.png", "d.png")
    ]


@pytest.mark.parametrize("image", ["../secret.png", "b/../../secret.png", "/etc/passwd", "link/secret.png"])
def test_an_image_that_leads_out_of_the_folder_is_refused(tmp_path, image):
    folder = tmp_path / "data"
    folder.mkdir()
    os.symlink(tmp_path, folder / "link")
    write(some_faces(image=["a.png", image, "c.png"]), folder / "faces.parquet")
    with pytest.raises(TableError) as caught:
        read(folder / "faces.parquet")
    for part in (str(folder / "faces.parquet"), "row 1", repr(image), "lies outside"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("column", "values", "parts"),
    [
        ("AU12", [1, 2, None], ("row 1", "AU12", "found 2", "expected one of [0, 1]")),
        ("AU12", [0.5, 0, None], ("row 0", "AU12", "found 0.5", "expected one of [0, 1]")),
        ("AU12", [None, "yes", None], ("row 1", "AU12", "found 'yes'", "expected one of [0, 1]")),
        ("AU1", [None, 300, 1], ("row 1", "AU1", "found 300", "expected one of [0, 1]")),
        ("AU1", [0, 1, -1], ("row 2", "AU1", "found -1", "expected one of [0, 1]")),
        ("emotion", ["joy", None, None], ("row 0", "emotion", "found 'joy'", "'happiness'")),
        ("split", ["train", "dev", "test"], ("row 1", "split", "found 'dev'", "'validation'")),
        ("split", ["train", None, "test"], ("row 1", "split", "missing")),
        ("image", [None, "b.png", "c.png"], ("row 0", "image", "missing")),
        ("subject", ["s1", "s2", None], ("row 2", "subject", "missing")),
    ],
)
def test_a_value_that_is_not_allowed_is_named(tmp_path, column, values, parts):
    path = tmp_path / "faces.parquet"
    with pytest.raises(TableError) as caught:
        write(some_faces(**{column: values}), path)
    assert not path.exists()
    for part in (str(path), *parts):
        assert part in str(caught.value)
    some_faces(**{column: values}).to_parquet(path)  # the same, written by somebody else
    with pytest.raises(TableError) as caught:
        read(path)
    assert str(path) in str(caught.value) and column in str(caught.value)


def test_rows_are_counted_from_0_whatever_their_index(tmp_path):
    table = some_faces(AU12=[1, 2, None])
    table.index = [7, 7, 7]
    with pytest.raises(TableError, match="row 1, column AU12: found 2"):
        check(table)


def test_missing_columns_are_listed():
    with pytest.raises(
        TableError, match=r"mine.parquet: columns \['subject', 'split'\] are missing; a face table needs"
    ):
        check(some_faces().drop(columns=["subject", "split"]), "mine.parquet")


def test_a_subject_in_two_splits_is_refused():
    with pytest.raises(TableError, match=r"subject 's1' of lab stands in several splits"):
        check(some_faces(subject=["s1", "s1", "s9"]))


@pytest.mark.parametrize("content", [None, b"", b"image,split\na.png,train\n"])
def test_what_is_no_table_is_refused(tmp_path, content):
    path = tmp_path / "faces.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TableError, match=f"{path}: not a readable Parquet face table"):
        read(path)


def test_checking_leaves_the_given_table_alone():
    given = some_faces()
    before = given.copy()
    check(given)
    pd.testing.assert_frame_equal(given, before)


def test_an_empty_table_is_a_table(tmp_path):
    write(some_faces()[:0], tmp_path / "faces.parquet")
    assert len(read(tmp_path / "faces.parquet")) == 0
    assert face_table.labelled_aus(read(tmp_path / "faces.parquet")) == []


def test_compound_and_further_emotions_are_kept_and_others_refused(tmp_path):
    compound = some_faces(emotion=["happiness+surprise", None, "fear"])
    further = some_faces(emotion=["awe", "fear", None], dataset="further", subject=["a", "b", "c"])
    further.attrs = {"emotions": ["awe"], "note": "x"}
    (tmp_path / "tables").mkdir()
    write(face_table.concat([compound, further]), tmp_path / "tables" / "faces.parquet")
    table = read(tmp_path / "tables" / "faces.parquet", root=tmp_path)
    assert table.attrs == {"emotions": ["awe"], "note": "x"}
    assert table["image"].iat[0] == str(tmp_path / "a.png")
    told = [face_table.emotions(row) for row in table.to_dict("records")]
    assert told == [("happiness", "surprise"), (), ("fear",), ("awe",), ("fear",), ()]
    with pytest.raises(TableError, match=r"row 0, column emotion: found 'happiness\+awe'"):
        check(some_faces(emotion=["happiness+awe", None, None]))
