"""The face table: every broken rule is named by file, row and column, and unlabelled stays unlabelled."""

import pandas as pd
import pytest

from expvqa_lib.data import (
    au_labels,
    check_table,
    concat_tables,
    labelled_aus,
    read_available,
    read_dataset,
    read_table,
    write_table,
)
from expvqa_lib.errors import TableError
from expvqa_lib.evaluation import read_predictions
from expvqa_lib.facs import ACTION_UNITS, au_column


def read_own(path):
    return read_dataset("own", path.parent, labels=path)


def some_faces(**columns) -> pd.DataFrame:
    rows = {"image": ["a.png", "b/c.png", "d.png"], "dataset": ["lab", "lab", "wild"], "frame": list("007")}
    rows |= {"subject": ["s1", "s2", "s1"], "split": ["train", "test", "validation"]}
    rows |= {"AU12": [1, 0, None], "AU1": [None, 1, None], "emotion": ["happiness", None, "neutral"]}
    return pd.DataFrame(rows | columns)


def test_unlabelled_stays_missing_and_further_columns_stay_through_parquet(tmp_path):
    path = tmp_path / "faces.parquet"
    write_table(some_faces(AU12_intensity=[0.5, 0.0, None], pose=["l", "r", "f"]), path)
    table = read_table(path)
    assert table["AU12"].tolist() == [1, 0, pd.NA] and table["AU1"].tolist() == [pd.NA, 1, pd.NA]
    assert {str(table[au_column(number)].dtype) for number in ACTION_UNITS} == {"Int8"}
    assert table["emotion"].isna().tolist() == [False, True, False]
    assert [au_labels(row) for row in table.to_dict("records")] == [{12: 1}, {1: 1, 12: 0}, {}]
    assert labelled_aus(table) == [1, 12] and labelled_aus(table[2:]) == []
    assert table["pose"].tolist() == ["l", "r", "f"] and table["AU12_intensity"].iat[0] == 0.5


@pytest.mark.parametrize("name", ["faces.csv", "FACES.CSV"])
def test_csv_is_known_by_its_ending_in_any_case_and_keeps_numbers_of_subjects_as_written(tmp_path, name):
    some_faces(subject=["007", "008", "007"]).to_csv(tmp_path / name, index=False)
    assert read_table(tmp_path / name)["subject"].tolist() == ["007", "008", "007"]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("AU12", [1, 2, None], "row 1, column AU12: found 2.*0, 1"),
        ("AU12", [None, "yes", None], "row 1, column AU12: found 'yes'.*0, 1"),
        ("AU1", [0, 300, -1], "row 1, column AU1: found 300.*0, 1"),
        ("emotion", ["joy", None, None], "row 0, column emotion: found 'joy'.*'happiness'"),
        ("emotion", ["happiness+awe", None, None], r"row 0, column emotion: found 'happiness\+awe'"),
        ("split", ["train", "dev", "test"], "row 1, column split: found 'dev'.*'validation'"),
        ("image", [None, "b.png", "c.png"], "row 0, column image.*expected a value"),
        ("subject", ["s1", "s2", None], "row 2, column subject.*expected a value"),
    ],
)
def test_a_value_that_is_not_allowed_is_named(tmp_path, column, values, message):
    path, table = tmp_path / "faces.parquet", some_faces(**{column: values})
    with pytest.raises(TableError, match=f"{path}.*{message}"):
        write_table(table, path)
    assert not path.exists()
    table.to_parquet(path)  # the same, written by somebody else
    with pytest.raises(TableError, match=f"{path}.*{column}"):
        read_table(path)


def test_rows_are_counted_from_0_missing_columns_are_listed_and_a_subject_is_in_one_split(tmp_path):
    with pytest.raises(TableError, match="row 1, column AU12"):
        check_table(some_faces(AU12=[1, 2, None]).set_axis([7, 7, 7]))
    with pytest.raises(TableError, match=r"mine.parquet: columns \['subject', 'split'\]"):
        check_table(some_faces().drop(columns=["subject", "split"]), "mine.parquet")
    with pytest.raises(TableError, match="subject 's1' of lab"):
        check_table(some_faces(subject=["s1", "s1", "s9"]))
    (tmp_path / "faces.parquet").write_text("image,split\na.png,train\n")
    with pytest.raises(TableError, match=str(tmp_path / "faces.parquet")):
        read_table(tmp_path / "faces.parquet")


def test_tables_are_joined_with_their_further_emotions_and_counts(tmp_path):
    compound = some_faces(emotion=["happiness+surprise", None, "fear"])
    compound.attrs = {"rows": ["lab: x"]}
    further = some_faces(emotion=["awe", "fear", None], dataset="further", subject=["a", "b", "c"])
    further.attrs = {"emotions": ["awe"], "rows": ["further: y"]}
    write_table(concat_tables([compound, further]), tmp_path / "tables" / "faces.parquet")
    table = read_table(tmp_path / "tables" / "faces.parquet", root=tmp_path)
    assert table.attrs == {"emotions": ["awe"], "rows": ["lab: x", "further: y"]}
    assert table["image"].iat[0] == str(tmp_path / "a.png") and table["emotion"].iat[3] == "awe"


@pytest.mark.parametrize(("separator", "decimal"), [(",", "."), (";", ","), (";", "."), ("\t", ".")])
def test_cells_of_csv_may_be_separated_by_semicolons_or_tabs(tmp_path, separator, decimal):
    path = tmp_path / "faces.csv"
    some_faces(AU12_intensity=[0.5, 1.25, None]).to_csv(path, index=False, sep=separator, decimal=decimal)
    table = read_table(path)
    assert table["AU12"].tolist() == [1, 0, pd.NA]
    assert table["AU12_intensity"].tolist()[:2] == [0.5, 1.25]


@pytest.mark.parametrize("name", ["t.parquet", "t.csv"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"", "empty file"),
        (None, "no such file|cannot be read"),
    ],
)
@pytest.mark.parametrize("read", [read_table, read_predictions, read_own])
def test_a_table_that_is_something_else_is_called_what_it_is(tmp_path, name, content, what, read):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TableError, match=f"{name}.*({what})"):
        read(tmp_path / name)


def test_folders_of_data_sets_may_be_spelled_otherwise_and_hidden_tables_are_not_read(tmp_path):
    folder = tmp_path / "raf_db_BASIC"
    (folder / "Image" / "aligned").mkdir(parents=True)
    (folder / "EmoLabel").mkdir()
    (folder / "EmoLabel" / "list_patition_label.txt").write_text("train_00001.jpg 4\ntest_0001.jpg 5\n")
    for name in ("train_00001_aligned.jpg", "test_0001_aligned.jpg"):
        (folder / "Image" / "aligned" / name).touch()
    (tmp_path / "._more.parquet").write_bytes(b"no table")
    table = read_available(tmp_path, tmp_path / "tables")
    assert sorted(table["emotion"]) == ["happiness", "sadness"]
    folder.with_name("RAF-DB-basic").mkdir()  # the name itself comes before other spellings
    with pytest.raises(TableError, match="RAF-DB-basic: no"):
        read_available(tmp_path, tmp_path / "others")
