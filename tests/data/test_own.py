"""Labels of one's own and pseudo-labels: what is unlabelled stays so, nothing outside the root is read, and the counts add up."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from expvqa_lib.data import pairs, readers
from expvqa_lib.data import table as face_table
from expvqa_lib.data.readers.au_tools import read_libreface, read_openface, read_pyfeat
from expvqa_lib.data.readers.labels import read_own
from expvqa_lib.data.table import au_labels
from expvqa_lib.errors import ExpVQAError, SettingsError, TableError
from expvqa_lib.pipeline.cli import main

OWN = """image,AU01,au_12, AU4 ,AU12_intensity,emotion
a/1.png,1,0,,0.0,Happy
2.png,0,1,1,3.5,sadness+fear
3.png,,1,nan,5,
4.png,,,,,neutral
"""


@pytest.fixture
def root(tmp_path, faces):
    for k, name in enumerate(("a/1.png", *(f"{k}.png" for k in range(2, 30)))):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(Path(faces["image"].iat[k]).read_bytes())
    return tmp_path / "images"


def written(folder, text, name="labels.csv") -> Path:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


def labels_of(reading) -> dict:
    assert reading.read == len(reading.table) + sum(reading.dropped.values())
    return {row["image"]: au_labels(row) for row in reading.table.to_dict("records")}


def problems(reading) -> str:
    return "\n".join(place for problem in reading.problems for place in problem.examples)


def test_columns_are_found_by_their_names_and_empty_cells_are_unlabelled(tmp_path, root):
    reading = read_own(root, written(tmp_path, OWN))
    assert labels_of(reading) == {
        "a/1.png": {1: 1, 12: 0},
        "2.png": {1: 0, 4: 1, 12: 1},
        "3.png": {12: 1},
        "4.png": {},
    }
    table = reading.table.set_index("image")
    assert table["emotion"].fillna("-").to_dict() == {
        "a/1.png": "happiness",
        "2.png": "sadness+fear",
        "3.png": "-",
        "4.png": "neutral",
    }
    assert table["AU12_intensity"].fillna(-1).to_dict() == {
        "a/1.png": 0.0,
        "2.png": 3.5,
        "3.png": 5.0,
        "4.png": -1,
    }
    assert (
        table["labelled_by"].isna().all() and (table["dataset"] == "own").all() and table["subject"].is_unique
    )
    assert not reading.problems and not reading.dropped


@pytest.mark.parametrize(
    "change", [lambda t: b"\xef\xbb\xbf" + t, lambda t: t.replace(b"\n", b"\r\n"), lambda t: t + b"\n\n"]
)
def test_byte_order_marks_windows_lines_and_blank_lines_change_nothing(tmp_path, root, change):
    plain = read_own(root, written(tmp_path, OWN)).table
    pd.testing.assert_frame_equal(read_own(root, written(tmp_path, change(OWN.encode()))).table, plain)


def test_a_parquet_table_is_read_like_its_csv(tmp_path, root):
    plain = read_own(root, written(tmp_path, OWN)).table
    pd.read_csv(tmp_path / "labels.csv").to_parquet(tmp_path / "labels.parquet")
    pd.testing.assert_frame_equal(read_own(root, tmp_path / "labels.parquet").table, plain)
    pd.DataFrame({"image": [["2.png"]], "AU1": [1]}).to_parquet(tmp_path / "lists.parquet")
    for name, message in (
        ("lists.parquet", "not readable as text or numbers"),
        ("none.parquet", "not a readable Parquet table"),
    ):
        with pytest.raises(TableError, match=f"{name}.* {message}"):
            read_own(root, tmp_path / name)


def test_intensities_are_present_from_the_threshold_on(tmp_path, root):
    path = written(tmp_path, "image,AU1,AU2_r\n2.png,1.5,0\n3.png,2,2.5\n4.png,,\n5.png,0,\n6.png,-1,9e999\n")
    reading = read_own(root, path, threshold=2)
    assert labels_of(reading) == {"2.png": {1: 0, 2: 0}, "3.png": {1: 1, 2: 1}, "5.png": {1: 0}}
    assert reading.dropped == {"nothing labelled": 2}
    assert f"{path}, row 6, column AU1: found '-1', expected a number from 0" in problems(reading)
    assert f"{path}, row 6, column AU2_intensity: found '9e999'" in problems(reading)


def test_what_cannot_be_read_is_unlabelled_and_named(tmp_path, root):
    path = written(
        tmp_path,
        "image,AU1,AU2,emotion\n2.png,9,0,joy\n3.png,yes,1,awe\n4.png,0.5,1,\n5.png,1.0,true,fear\n6.png,1\n",
    )
    reading = read_own(root, path, emotions=["awe"])
    assert labels_of(reading) == {"2.png": {2: 0}, "3.png": {2: 1}, "4.png": {2: 1}, "5.png": {1: 1, 2: 1}}
    assert reading.table["emotion"].fillna("-").tolist() == ["-", "awe", "-", "fear"] and reading.table.attrs[
        "emotions"
    ] == ["awe"]
    for part in (
        "row 2, column AU1: found '9'",
        "row 3, column AU1: found 'yes'",
        "row 4, column AU1: found '0.5'",
        "column emotion: found 'joy'",
    ):
        assert part in problems(reading)
    assert reading.dropped == {"malformed row": 1} and "row 6: found '6.png,1', expected 4 cells" in problems(
        reading
    )


def test_rows_of_one_image_must_agree(tmp_path, root):
    text = "image,AU1\n2.png,1\n2.png,1\na/1.png,0\n./a/1.png,1\n"
    reading = read_own(root, written(tmp_path, text))
    assert labels_of(reading) == {"2.png": {1: 1}}
    assert reading.dropped == {"repeated row": 1, "labelled twice, differently": 2}


@pytest.mark.parametrize(
    "image", ["../secret.png", "/etc/passwd", "link/secret.png", "out.png", "a/../../secret.png"]
)
def test_an_image_outside_the_root_is_dropped_and_named(tmp_path, root, image):
    (tmp_path / "secret.png").write_bytes((root / "2.png").read_bytes())
    os.symlink(tmp_path, root / "link")
    os.symlink(tmp_path / "secret.png", root / "out.png")
    path = written(tmp_path, f"image,AU1\n2.png,1\n{image},1\ngone.png,0\n{root}/3.png,0\n")
    reading = read_own(root, path)
    assert labels_of(reading) == {"2.png": {1: 1}, "3.png": {1: 0}}
    assert reading.dropped == {"image path that leads out of the folder": 1, "image missing": 1}
    assert f"{path}, row 3: found {image!r}" in problems(
        reading
    ) and f"{path}, row 4: found 'gone.png'" in problems(reading)


def test_subjects_splits_frames_and_data_sets_are_followed_where_given(tmp_path, root):
    rows = [
        "2.png,s1,7,train,x,1",
        "3.png,s1,8,train,,0",
        "4.png,s2,1,test,x,1",
        "5.png,s3,1,dev,x,1",
        "6.png,,1,test,x,1",
    ]
    reading = read_own(
        root, written(tmp_path, "\n".join(["image,subject,frame,split,dataset,AU1", *rows])), dataset="mine"
    )
    assert reading.table[["subject", "frame", "split", "dataset"]].values.tolist() == [
        ["s1", "7", "train", "x"],
        ["s1", "8", "train", "mine"],
        ["s2", "1", "test", "x"],
    ]
    assert reading.dropped == {"subject not named": 1, "split that is not train, validation or test": 1}
    with pytest.raises(TableError, match="subject 's1' of own"):
        read_own(
            root,
            written(tmp_path, "image,person,split,AU1\n2.png,s1,train,1\n3.png,s1,test,1\n"),
            subject="person",
        )


def test_a_drawn_split_parts_subjects_and_hangs_on_the_seed_alone(tmp_path, root):
    lines = [f"{k}.png,s{k // 2},{k % 2}" for k in range(2, 30)]
    one, other = (
        read_own(root, written(tmp_path, "\n".join(["image,subject,AU1", *some])), shares=(0.2, 0.3))
        for some in (lines, lines[::-1])
    )
    pd.testing.assert_frame_equal(one.table, other.table)
    assert one.splits["split"].value_counts().to_dict() == {"train": 7, "validation": 3, "test": 4}
    assert (one.table.groupby("subject")["split"].nunique() == 1).all()
    assert (
        read_own(root, tmp_path / "labels.csv", shares=(0.2, 0.3), seed=1).table["split"]
        != one.table["split"]
    ).any()
    with pytest.raises(SettingsError, match="expected shares from 0 that leave some for training"):
        read_own(root, tmp_path / "labels.csv", shares=(0.5, 0.5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "row 1: found columns .*, expected also image"),
        ("file,AU1\n2.png,1\n", "row 1: found columns file, AU1, expected also image"),
        ("image,smile\n2.png,1\n", "expected an AU, `AU12` say, or emotion"),
        ("image,AU1,AU01\n2.png,1,1\n", "row 1: column 'AU01' is AU1, as is another"),
        ("image,AU1,AU1\n2.png,1,1\n", "row 1: column 'AU1' is AU1, as is another"),
        ("image,AU1\n", "nothing of own can be used: 0 rows read"),
        ("image,AU1\n2.png,\n", "1 nothing labelled"),
        (b"image,AU1\n2.png,\xff\n", "row 2, column 2: not UTF-8"),
        ("image,AU1\n2.png,1\n".encode("utf-16"), "UTF-16 text"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, root, text, message):
    with pytest.raises(TableError, match=message):
        read_own(root, written(tmp_path, text))
    with pytest.raises(TableError, match="none.csv: cannot be read"):
        read_own(root, tmp_path / "none.csv")


def is_label(text: str) -> bool:
    try:
        return float(text) in (0, 1)
    except ValueError:
        return text.strip().lower() in ("true", "false")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_never_makes_an_unlabelled_au_absent_nor_ends_in_another_error(tmp_path, root, data):
    lines = [line.split(",") for line in OWN.splitlines()]
    cells = st.one_of(
        st.sampled_from(
            ["", "9", "-1", "nan", "NaN", "1e400", "../../etc/passwd", "0 0", "\ufeff", "0\0", '"', "no"]
        ),
        st.text(max_size=4),
    )
    harmed = set()
    for _ in range(data.draw(st.integers(1, 4))):
        row, column = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 5))
        lines[row][column] = data.draw(cells.filter(lambda cell: not is_label(cell)))
        harmed.add(row)
    text = "\n".join(map(",".join, lines)).encode("utf-8", "replace")
    at = data.draw(st.integers(0, 2 * len(text)))
    try:
        reading = read_own(root, written(tmp_path, text[:at] if data.draw(st.booleans()) else text))
    except ExpVQAError as error:
        assert "labels.csv" in str(error) or str(root) in str(error)
        return
    whole = {"a/1.png": {1: 1, 12: 0}, "2.png": {1: 0, 4: 1, 12: 1}, "3.png": {12: 1}, "4.png": {}}
    for image, labels in labels_of(reading).items():
        assert image in {path.relative_to(root).as_posix() for path in root.rglob("*.png")}
        assert not harmed or all(whole.get(image, {}).get(au, label) == label for au, label in labels.items())
        assert all(label == 1 or whole.get(image, {}).get(au) == 0 for au, label in labels.items())


# ------------------------------------------------------------------------------------------------------------ pseudo-labels

OPENFACE = """frame, face_id, timestamp, confidence, success, gaze_0_x, AU01_r, AU12_r, AU45_r, AU01_c, AU12_c, AU28_c, AU45_c
1, 0, 0.000, 0.98, 1, 0.1, 0.40, 3.10, 0.00, 0.00, 1.00, 0.00, 1.00
2, 0, 0.033, 0.98, 1, 0.1, 2.40, 0.10, 0.00, 1.00, 0.00, 1.00, 0.00
3, 0, 0.067, 0.70, 1, 0.1, 2.40, 0.10, 0.00, 1.00, 0.00, 1.00, 0.00
4, 0, 0.100, 0.02, 0, 0.1, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00
5, 0, 0.133, 0.95, 1, 0.1, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00
"""


def test_openface_frames_are_found_by_pattern_and_sure_ones_kept(tmp_path, root):
    pattern = "{frame:d}.png"
    reading = read_openface(root, [written(tmp_path, OPENFACE, "clip.csv")], images=pattern)
    assert labels_of(reading) == {"2.png": {1: 1, 12: 0, 28: 1}, "5.png": {1: 0, 12: 0, 28: 0}}
    assert reading.dropped == {"no face found": 1, "confidence too low": 1, "image missing": 1}
    assert (reading.table["labelled_by"] == "OpenFace 2").all() and (reading.table["subject"] == "clip").all()
    assert reading.table["frame"].tolist() == ["2", "5"] and reading.table["AU1_intensity"].tolist() == [
        2.4,
        0.0,
    ]
    strong = read_openface(root, tmp_path / "clip.csv", images=pattern, confidence=0.5, intensity=2.5)
    assert labels_of(strong) == {
        "2.png": {1: 0, 12: 0, 28: 1},
        "3.png": {1: 0, 12: 0, 28: 1},
        "5.png": {1: 0, 12: 0, 28: 0},
    }
    for wrong in ("{nobody}.png", "{frame.x}.png", "{"):
        with pytest.raises(SettingsError, match="no pattern with"):
            read_openface(root, tmp_path / "clip.csv", images=wrong)


def test_openface_pictures_are_found_by_the_files_name(tmp_path, root):
    head, row = "face, confidence, AU01_r, AU01_c\n", "0, 0.98, 1.0, 1.0\n"
    files = [
        written(tmp_path, head + row, "2.csv"),
        written(tmp_path, head + row + row.replace("1.0, 1.0", "0.0, 0.0"), "3.csv"),
    ]
    reading = read_openface(root, files, images="{name}.png")
    assert labels_of(reading) == {"2.png": {1: 1}} and reading.dropped == {"several faces in the image": 2}


def test_pyfeat_probabilities_become_labels_above_the_threshold(tmp_path, root):
    head = "input,frame,FaceRectX,FaceRectY,FaceRectWidth,FaceRectHeight,FaceScore,AU01,AU12,"
    head += "anger,disgust,fear,happiness,sadness,surprise,neutral\n"
    rows = [
        f"{root}/2.png,0,1,1,9,9,0.99,0.7,0.2,0.1,0,0,0.8,0,0,0.1",
        "3.png,0,1,1,9,9,0.97,0.2,,0.3,0.3,0,0.2,0,0,0.2",
        "4.png,0,,,,,,,,,,,,,,",
        "5.png,0,1,1,9,9,0.5,0.7,0.2,0.1,0,0,0.8,0,0,0.1",
        "6.png,0,1,1,9,9,0.99,0.7,0.2,0.1,0,0,0.8,0,0,0.1",
        "6.png,0,50,1,9,9,0.99,0.1,0.9,0.1,0,0,0.8,0,0,0.1",
        "7.png,0,1,1,9,9,0.99,1.7,0.9,,,,,,,",
    ]
    reading = read_pyfeat(root, written(tmp_path, head + "\n".join(rows)))
    assert labels_of(reading) == {"2.png": {1: 1, 12: 0}, "3.png": {1: 0}, "7.png": {12: 1}}
    assert (
        reading.table["emotion"].fillna("-").tolist() == ["happiness", "-", "-"]
        and (reading.table["labelled_by"] == "Py-Feat").all()
    )
    assert reading.dropped == {"no face found": 1, "confidence too low": 1, "several faces in the image": 2}
    assert "row 8, column AU1: found '1.7', expected a number from 0 to 1" in problems(reading)
    assert labels_of(read_pyfeat(root, tmp_path / "labels.csv", threshold=0.1, score=0.4))["5.png"] == {
        1: 1,
        12: 1,
    }


def test_libreface_detections_count_before_intensities(tmp_path, root):
    head = ",input_image_path,aligned_image_path,facial_expression,au_1,au_12,au_1_intensity,au_5_intensity\n"
    first = written(tmp_path, head + "0,2.png,tmp/2.png,Happiness,0,1,4.0,1.9\n", "one.csv")
    second = written(tmp_path, head + "0,3.png,tmp/3.png,Contempt,1,0,0.0,2.0\n1,,,,,,,\n", "two.csv")
    reading = read_libreface(root, [first, second])
    assert labels_of(reading) == {"2.png": {1: 0, 5: 0, 12: 1}, "3.png": {1: 1, 5: 1, 12: 0}}
    assert reading.table["emotion"].tolist() == ["happiness", "contempt"] and reading.dropped == {
        "no face found": 1
    }
    assert labels_of(read_libreface(root, [first, second], intensity=1.0))["2.png"][5] == 1
    with pytest.raises(SettingsError, match="no label files"):
        read_libreface(root, [])


def test_the_command_reads_labels_of_ones_own_into_a_table_that_gives_pairs(tmp_path, root, capsys):
    path, output = written(tmp_path, OWN), tmp_path / "tables" / "own.parquet"
    given = ["--root", str(root), "--labels", str(path)]
    assert main(["data", "check", "own", *given]) == 0
    assert "own in " in capsys.readouterr().out
    assert main(["data", "read", "own", *given, "--output", str(output)]) == 0
    before = face_table.read_table(output, root)
    assert main(["data", "read", "own", *given, "--output", str(output)]) == 0  # follows the split beside it
    pd.testing.assert_frame_equal(face_table.read_table(output, root), before)
    built = pairs.build_pairs(before)
    assert sum(map(len, built.values())) > 4 and all(
        os.path.isfile(image) for split in built.values() for image in split["image"]
    )
    for name, options, message in (
        ("own", {}, "own needs label files"),
        ("BP4D", {"labels": [path]}, "BP4D takes no label files"),
    ):
        with pytest.raises(SettingsError, match=message):
            readers.read_corpus(name, root, **options)
