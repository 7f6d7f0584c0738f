"""Every reader alike: all rows are accounted for, splits are followed, only the data set is read."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from corpora_fixtures import BUILDERS, put

from expvqa_lib.data import describe_reading, read_available, read_dataset, read_table
from expvqa_lib.data.readers import READERS, split_path
from expvqa_lib.data.readers.splits import read_split
from expvqa_lib.errors import SettingsError, TableError
from expvqa_lib.pipeline.cli import main
from tools.dataset_layouts import layouts

ALL = pytest.mark.parametrize("name", READERS)


@ALL
def test_all_rows_are_kept_or_dropped_for_a_reason_and_every_split_has_faces(root, name):
    reading = read_dataset(name, root(name))
    assert reading.read == len(reading.table) + sum(reading.dropped.values()) > 20
    assert not reading.problems and set(reading.table["split"]) == {"train", "validation", "test"}
    assert all((reading.root / image).is_file() for image in reading.table["image"])
    assert not reading.table["image"].duplicated().any()
    assert any("split" in note or "validation" in note for note in reading.notes)
    pd.testing.assert_frame_equal(read_dataset(name, reading.root).table, reading.table)


@ALL
def test_a_missing_image_drops_its_row_and_leaves_the_split_alone(root, name):
    folder = root(name)
    before = read_dataset(name, folder)
    image = folder / before.table["image"].iat[0]
    image.unlink()
    shutil.rmtree(image.parents[1] / "original", ignore_errors=True)
    after = read_dataset(name, folder)
    assert after.dropped["image missing"] == 1 and before.table["image"].iat[0] not in set(
        after.table["image"]
    )
    assert name == "DISFA" or len(after.table) == len(before.table) - 1  # there the next frame is sampled
    assert after.read == before.read == len(after.table) + sum(after.dropped.values())
    assert [", row " in place for place in after.problems["image missing"]] == [True]
    pd.testing.assert_frame_equal(after.splits, before.splits)


@ALL
def test_a_split_beside_the_table_is_followed(root, name, tmp_path):
    folder, output = root(name), tmp_path / "out" / "faces.parquet"
    first = read_dataset(name, folder, output)
    table = read_table(output, folder)
    assert table["image"].tolist() == [str(folder.resolve() / image) for image in first.table["image"]]
    assert table.attrs["rows"] == first.table.attrs["rows"]
    split = pd.read_csv(split_path(output), dtype=str)
    assert split.to_dict("list") == first.splits.to_dict("list")
    split.assign(split="test")[1:].to_csv(split_path(output), index=False)
    second = read_dataset(name, folder, output)
    assert set(second.table["split"]) == {"test"} and second.dropped["subject of no split"] >= 1
    assert set(second.table["subject"]) == set(first.table["subject"]) - {split["subject"][0]}
    assert len(pd.read_csv(split_path(output))) == len(split) - 1


@ALL
def test_a_folder_without_the_data_set_is_named(tmp_path, name):
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(TableError, match=f"{folder}: .*{name.partition('-basic')[0]}"):
            read_dataset(name, folder)


@pytest.mark.parametrize(
    ("name", "labels", "message"),
    [("CK", None, "'CK'.* BP4D, DISFA"), ("own", None, "own needs"), ("BP4D", "a.csv", "BP4D takes no")],
)
def test_unknown_data_sets_and_label_files_out_of_place_are_refused(tmp_path, name, labels, message):
    with pytest.raises(SettingsError, match=message):
        read_dataset(name, tmp_path, labels=labels)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("subject,split\na,train\na,test\n", r"row 3: found \['a', 'test'\]"),
        ("subject,split\na,dev\n", r"row 2: found \['a', 'dev'\]"),
        ("who,split\na,train\n", "expected columns subject and split"),
        ("", "expected columns subject and split"),
    ],
)
def test_a_split_file_that_breaks_a_rule_is_refused(tmp_path, content, message):
    put(tmp_path / "s.csv", content)
    with pytest.raises(TableError, match=f"{tmp_path / 's.csv'}: .*{message}"):
        read_split(tmp_path / "s.csv")


def test_folders_are_read_once_also_where_their_tables_are_written_beside_them(root, tmp_path):
    root("BP4D")
    expected = read_available(tmp_path, tmp_path / "tables")
    for _ in range(2):
        pd.testing.assert_frame_equal(read_available(tmp_path, tmp_path), expected)
    with pytest.raises(SettingsError, match="expected folders named BP4D"):
        read_available(tmp_path / "tables" / "nowhere", tmp_path)


def test_of_two_copies_of_the_images_one_is_used_and_named(root):
    folder = root("BP4D")
    before = read_dataset("BP4D", folder)
    shutil.copytree(folder / "Sequences_2D+3D" / "F001", folder / "aligned" / "F001")
    reading = read_dataset("BP4D", folder)
    assert reading.table["image"].equals(before.table["image"])
    (note,) = set(reading.notes) - set(before.notes)
    assert note.startswith("6 files") and "aligned/F001" in note


def test_links_are_named_and_not_followed(root, tmp_path):
    folder = root("BP4D")
    frames, codes = folder / "Sequences_2D+3D" / "M007", folder / "AUCoding"
    frames.rename(tmp_path / "outside")
    frames.symlink_to(tmp_path / "outside")
    (folder / "loop").symlink_to(folder)
    (codes / "AU_OCC" / "F099_T1.csv").symlink_to(folder / "gone.csv")
    reading = read_dataset("BP4D", folder)
    assert "M007" not in set(reading.table["subject"]) and reading.dropped["image missing"] == 5
    assert reading.read == len(reading.table) + sum(reading.dropped.values())
    (named,) = (places for kind, places in reading.problems.items() if "link" in kind)
    assert sorted(named) == ["AUCoding/AU_OCC/F099_T1.csv", "Sequences_2D+3D/M007", "loop"]
    codes.rename(tmp_path / "codes")
    codes.symlink_to(tmp_path / "codes")
    with pytest.raises(TableError, match="link .*: AUCoding"):
        read_dataset("BP4D", folder)


def test_check_prints_counts_that_add_up_and_what_is_missing(root, capsys):
    folder = root("BP4D")
    frames = folder / "Sequences_2D+3D"
    (frames / "F007" / "T1" / "0098.jpg").unlink()
    put(frames / "F015" / "T1" / "0098.jpg", b"no picture")
    assert main(["data", "check", "BP4D", "--root", str(folder)]) == 0
    report = " ".join(capsys.readouterr().out.split())
    percent = 100 * read_dataset("BP4D", folder).table.query("split == 'train'")["AU1"].mean()
    missing = "AUCoding/AU_OCC/F007_T1.csv, row 2: found 'F007/T1_00098'"
    for part in ("36 rows read = 25 kept + ", "1 image missing", f"AU1 {percent:.1f}", "train_images 16627"):
        assert part in report
    assert missing in report and "Sequences_2D+3D/F015/T1/0098.jpg" in report


def test_many_problems_are_counted_and_few_are_listed(root):
    folder = root("RAF-AU")
    for k in range(4, 24):
        (folder / "aligned" / f"{k:04d}_aligned.jpg").unlink()
    report = describe_reading(read_dataset("RAF-AU", folder))
    assert report.count(": found '00") == 10 and "20 x image missing" in report


def test_the_command_writes_a_table_and_its_split_and_fails_where_nothing_is_usable(root, tmp_path, capsys):
    folder, output = root("RAF-DB"), tmp_path / "raf.parquet"
    read = ["data", "read", "RAF-DB", "--root", str(folder)]
    assert main([*read, "--output", str(output)]) == 0 and len(read_table(output, folder)) == 26
    printed = capsys.readouterr().out
    assert str(output) in printed and str(split_path(output)) in printed
    assert main(read) == 1 and "--output" in capsys.readouterr().err
    shutil.rmtree(folder / "compound" / "Image")
    assert main(["data", "check", "RAF-DB", "--root", str(folder)]) == 1
    error = capsys.readouterr().err
    assert "26 image missing" in error and "compound/EmoLabel/list_patition_label.txt, row 1" in error


def test_the_documented_layouts_are_those_of_the_readers():
    page = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
    assert page == layouts(), "python -m tools.dataset_layouts > docs/datasets.md"
    assert all(name in page for name in BUILDERS)
