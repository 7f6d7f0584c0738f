"""The face table: every broken rule is named by file, row and column, and unlabelled stays unlabelled."""

import os

import pandas as pd
import pytest

from expvqa_lib.data import (
    AU_COLUMNS,
    au_labels,
    check_table,
    concat_tables,
    labelled_aus,
    read_table,
    write_table,
)
from expvqa_lib.errors import TableError


def some_faces(**columns) -> pd.DataFrame:
    rows = {
        "image": ["a.png", "b/c.png", "d.png"],
        "dataset": ["lab", "lab", "wild"],
        "frame": ["0", "0", "7"],
    }
    rows |= {"subject": ["s1", "s2", "s1"], "split": ["train", "test", "validation"]}
    rows |= {"AU12": [1, 0, None], "AU1": [None, 1, None], "emotion": ["happiness", None, "neutral"]}
    return pd.DataFrame(rows | columns)


def test_unlabelled_stays_missing_and_further_columns_stay_through_parquet(tmp_path):
    path = tmp_path / "faces.parquet"
    write_table(some_faces(AU12_intensity=[0.5, 0.0, None], pose=["l", "r", "f"]), path)
    table = read_table(path)
    assert table["AU12"].tolist() == [1, 0, pd.NA] and table["AU1"].tolist() == [pd.NA, 1, pd.NA]
    assert all(table[column].dtype == "Int8" for column in AU_COLUMNS)
    assert table[[c for c in AU_COLUMNS if c not in ("AU1", "AU12")]].isna().all(axis=None)
    assert table["emotion"].isna().tolist() == [False, True, False]
    assert [au_labels(row) for row in table.to_dict("records")] == [{12: 1}, {1: 1, 12: 0}, {}]
    assert labelled_aus(table) == [1, 12] and labelled_aus(table[2:]) == []
    assert table["pose"].tolist() == ["l", "r", "f"] and table["AU12_intensity"].iat[0] == 0.5


@pytest.mark.parametrize("name", ["faces.csv", "FACES.CSV"])
def test_csv_is_known_by_its_ending_in_any_case_and_keeps_numbers_of_subjects_as_written(tmp_path, name):
    some_faces(subject=["007", "008", "007"]).to_csv(tmp_path / name, index=False)
    assert read_table(tmp_path / name)["subject"].tolist() == ["007", "008", "007"]


@pytest.mark.parametrize("image", ["../secret.png", "b/../../secret.png", "/etc/passwd", "link/secret.png"])
def test_an_image_that_leads_out_of_the_folder_is_refused(tmp_path, image):
    folder = tmp_path / "data"
    folder.mkdir()
    os.symlink(tmp_path, folder / "link")
    write_table(some_faces(image=["a.png", image, "c.png"]), folder / "faces.parquet")
    with pytest.raises(TableError) as caught:
        read_table(folder / "faces.parquet")
    for part in (str(folder / "faces.parquet"), "row 1", "image", repr(image)):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("column", "values", "parts"),
    [
        ("AU12", [1, 2, None], ("row 1", "found 2", "0, 1")),
        ("AU12", [None, "yes", None], ("row 1", "found 'yes'", "0, 1")),
        ("AU1", [0, 300, -1], ("row 1", "found 300", "0, 1")),
        ("emotion", ["joy", None, None], ("row 0", "found 'joy'", "'happiness'")),
        ("emotion", ["happiness+awe", None, None], ("row 0", "found 'happiness+awe'")),
        ("split", ["train", "dev", "test"], ("row 1", "found 'dev'", "'validation'")),
        ("image", [None, "b.png", "c.png"], ("row 0", "expected a value")),
        ("subject", ["s1", "s2", None], ("row 2", "expected a value")),
    ],
)
def test_a_value_that_is_not_allowed_is_named(tmp_path, column, values, parts):
    path = tmp_path / "faces.parquet"
    with pytest.raises(TableError) as caught:
        write_table(some_faces(**{column: values}), path)
    assert not path.exists()
    for part in (str(path), column, *parts):
        assert part in str(caught.value)
    some_faces(**{column: values}).to_parquet(path)  # the same, written by somebody else
    with pytest.raises(TableError) as caught:
        read_table(path)
    assert str(path) in str(caught.value) and column in str(caught.value)


def test_rows_are_counted_from_0_missing_columns_are_listed_and_a_subject_is_in_one_split():
    with pytest.raises(TableError, match="row 1, column AU12: found 2"):
        check_table(some_faces(AU12=[1, 2, None]).set_axis([7, 7, 7]))
    with pytest.raises(TableError, match=r"mine.parquet: columns \['subject', 'split'\]"):
        check_table(some_faces().drop(columns=["subject", "split"]), "mine.parquet")
    with pytest.raises(TableError, match="subject 's1' of lab"):
        check_table(some_faces(subject=["s1", "s1", "s9"]))


@pytest.mark.parametrize("content", [None, b"", b"image,split\na.png,train\n"])
def test_what_is_no_table_is_refused(tmp_path, content):
    path = tmp_path / "faces.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TableError, match=str(path)):
        read_table(path)


def test_tables_are_joined_with_their_further_emotions_and_counts(tmp_path):
    compound = some_faces(emotion=["happiness+surprise", None, "fear"])
    compound.attrs = {"rows": ["lab: x"]}
    further = some_faces(emotion=["awe", "fear", None], dataset="further", subject=["a", "b", "c"])
    further.attrs = {"emotions": ["awe"], "rows": ["further: y"]}
    write_table(concat_tables([compound, further]), tmp_path / "tables" / "faces.parquet")
    table = read_table(tmp_path / "tables" / "faces.parquet", root=tmp_path)
    assert table.attrs == {"emotions": ["awe"], "rows": ["lab: x", "further: y"]}
    assert table["image"].iat[0] == str(tmp_path / "a.png") and table["emotion"].iat[3] == "awe"
