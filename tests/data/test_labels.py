"""Labels of one's own and of programs: empty cells stay unlabelled, no image outside the root is read."""

import os
from pathlib import Path

import pandas as pd
import pytest
from corpora_fixtures import put

from expvqa_lib.data import au_labels, build_pairs, read_available, read_dataset, read_table
from expvqa_lib.errors import TableError
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
        put(tmp_path / "images" / name, Path(faces["image"].iat[k]).read_bytes())
    return tmp_path / "images"


@pytest.fixture
def own(tmp_path, root):
    """Reads labels of one's own out of text."""
    return lambda text: read_dataset("own", root, labels=written(tmp_path, text))


def written(folder: Path, text: str | bytes, name: str = "labels.csv") -> Path:
    put(folder / name, text)
    return folder / name


def labels_of(reading) -> dict[str, dict[int, int]]:
    assert reading.read == len(reading.table) + sum(reading.dropped.values())
    return {row["image"]: au_labels(row) for row in reading.table.to_dict("records")}


def examples_of(reading) -> str:
    return "\n".join(example for examples in reading.problems.values() for example in examples)


def test_columns_are_found_by_their_names_and_empty_cells_are_unlabelled(tmp_path, root, own):
    reading = own(OWN)
    labels = {"a/1.png": {1: 1, 12: 0}, "2.png": {1: 0, 4: 1, 12: 1}, "3.png": {12: 1}, "4.png": {}}
    assert labels_of(reading) == labels
    table = reading.table.set_index("image").loc[list(labels)].fillna({"emotion": "-", "AU12_intensity": -1})
    assert table["emotion"].tolist() == ["happiness", "sadness+fear", "-", "neutral"]
    assert table["AU12_intensity"].tolist() == [0.0, 3.5, 5.0, -1]
    assert table["labelled_by"].isna().all() and set(table["dataset"]) == {"own"}
    assert table["subject"].is_unique and not reading.problems and not reading.dropped
    pd.read_csv(tmp_path / "labels.csv").to_parquet(tmp_path / "labels.PARQUET")
    again = read_dataset("own", root, labels=tmp_path / "labels.PARQUET")
    pd.testing.assert_frame_equal(again.table, reading.table)


def test_a_cell_that_cannot_be_read_is_unlabelled_and_named(own):
    rows = "2.png,9,0,-1,joy", "3.png,yes,1,9e999,fear", '"4.png",0.5,1,2,', "5.png,1.0,true,,fear", "6.png,1"
    reading = own("\n".join(["image,AU1,AU2,AU2_r,emotion", *rows]))
    assert labels_of(reading) == {"2.png": {2: 0}, "3.png": {2: 1}, "4.png": {2: 1}, "5.png": {1: 1, 2: 1}}
    assert reading.table["emotion"].fillna("-").tolist() == ["-", "fear", "-", "fear"]
    assert reading.dropped == {"malformed row": 1}
    cells = {"2, column AU1": "'9'", "3, column AU1": "'yes'", "4, column AU1": "'0.5'"}
    cells |= {"2, column AU2_intensity": "'-1'", "3, column AU2_intensity": "'9e999'"}
    cells |= {"2, column emotion": "'joy'", "6": "'6.png,1', expected 5 cells"}
    assert all(f"labels.csv, row {row}: found {cell}" in examples_of(reading) for row, cell in cells.items())


def test_rows_of_one_image_must_agree_and_what_is_no_picture_never_becomes_a_face(own, root):
    reading = own("image,AU1\n2.png,1\n2.png,1\na/1.png,0\n./a/1.png,1\n")
    assert labels_of(reading) == {"2.png": {1: 1}}
    assert reading.dropped == {"repeated row": 1, "labelled twice, differently": 2}
    put(root / "notes.txt", b"text")
    reading = own("image,12\n2.png,1\nnotes.txt,1\n")
    assert labels_of(reading) == {"2.png": {12: 1}} and sum(reading.dropped.values()) == 1


def test_subjects_splits_frames_and_data_sets_are_followed_where_given(own):
    head = "image,subject,frame,split,dataset,AU1\n2.png,s1,7,train,x,1\n3.png,s1,8,train,,0\n"
    reading = own(head + "4.png,s2,1,test,x,1\n5.png,s3,1,dev,x,1\n6.png,,,test,x,1\n")
    rows = map(" ".join, reading.table[["subject", "frame", "split", "dataset"]].to_numpy())
    assert list(rows) == ["6.png 6.png test x", "s1 7 train x", "s1 8 train own", "s2 1 test x"]
    assert reading.dropped == {"split that is none of the three": 1}
    reading = own("image,subject,split,AU1\n2.png,s1,train,1\n3.png,s1,test,1\n")
    assert labels_of(reading) == {"2.png": {1: 1}} and "row 3: found 'test'" in examples_of(reading)


def test_a_drawn_split_parts_subjects_by_their_names_alone(own):
    lines = [f"{k}.png,s{k // 2},{k % 2}" for k in range(2, 30)]
    one, other, some = (
        own("\n".join(["image,subject,AU1", *rows])) for rows in (lines, lines[::-1], lines[:9])
    )
    pd.testing.assert_frame_equal(one.table, other.table)
    assert (one.table.groupby("subject")["split"].nunique() == 1).all()
    splits = one.splits.set_index("subject")["split"]
    assert set(splits) == {"train", "validation", "test"}
    assert some.splits.set_index("subject")["split"].to_dict().items() <= splits.to_dict().items()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,AU1\n2.png,1\n", "row 1: found columns file, AU1; expected also .*image"),
        ("image,smile\n2.png,1\n", "1 nothing labelled"),
        ("image,AU1,AU01\n2.png,1,1\n", "column called twice"),
        ("image,AU1\n", "nothing of own can be used: 0 rows read"),
        ("image,AU1\n2.png,\n", "1 nothing labelled"),
        (b"image,AU1\n2.png,\xff\n", "row 2, column 2: not UTF-8"),
        ("image,AU1\n2.png,1\n".encode("utf-16"), "row 1, column 1: not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(own, text, message):
    with pytest.raises(TableError, match=message):
        own(text)


OPENFACE = """frame, face_id, time, confidence, success, gaze, AU01_r, AU12_r, AU01_c, AU12_c, AU28_c, AU45_c
1, 0, 0.000, 0.98, 1, 0.1, 0.40, 3.10, 0.00, 1.00, 0.00, 1.00
2, 0, 0.033, 0.98, 1, 0.1, 2.40, 0.10, 1.00, 0.00, 1.00, 0.00
3, 0, 0.067, 0.70, 1, 0.1, 2.40, 0.10, 1.00, 0.00, 1.00, 0.00
4, 0, 0.100, 0.02, 0, 0.1, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00
5, 0, 0.133, 0.95, 1, 0.1, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00
"""


def test_frames_that_openface_is_sure_of_are_read_with_their_aligned_faces(tmp_path, root):
    for frame in (2, 3, 5):
        picture = (root / f"{frame}.png").read_bytes()
        put(root / "clip_aligned" / f"frame_det_00_{frame:06d}.bmp", picture)
    reading = read_dataset("OpenFace", root, labels=[written(tmp_path, OPENFACE, "clip.csv")])
    labels = {2: {1: 1, 12: 0, 28: 1}, 5: {1: 0, 12: 0, 28: 0}}
    assert labels_of(reading) == {f"clip_aligned/frame_det_00_{k:06d}.bmp": aus for k, aus in labels.items()}
    assert reading.dropped == {"confidence too low": 1, "image missing": 2}
    columns = ["labelled_by", "dataset", "subject", "frame", "AU1_intensity"]
    rows = [["OpenFace", "OpenFace", "clip", "2", 2.4], ["OpenFace", "OpenFace", "clip", "5", 0.0]]
    assert reading.table[columns].to_numpy().tolist() == rows


def test_pyfeat_probabilities_become_labels_from_the_threshold_on(tmp_path, root):
    rows = [
        "input,frame,FaceScore,AU01,AU12,anger,disgust,fear,happiness,sadness,surprise,neutral",
        f"{root}/2.png,0,0.99,0.7,0.2,0.1,0,0,0.8,0,0,0.1",
        "3.png,0,0.97,0.2,,0.3,0.3,0,0.2,0,0,0.2",
        "4.png,0,,,,,,,,,,",
        "5.png,0,0.5,0.7,0.2,0.1,0,0,0.8,0,0,0.1",
        "6.png,0,0.99,0.7,0.2,0.1,0,0,0.8,0,0,0.1",
        "6.png,0,0.99,0.1,0.9,0.1,0,0,0.8,0,0,0.1",
        "7.png,0,0.99,1.7,0.9,,,,,,,",
    ]
    reading = read_dataset("Py-Feat", root, labels=written(tmp_path, "\n".join(rows)))
    assert labels_of(reading) == {"2.png": {1: 1, 12: 0}, "3.png": {1: 0}, "7.png": {12: 1}}
    assert reading.table["emotion"].fillna("-").tolist() == ["happiness", "-", "-"]
    assert sorted(reading.dropped.values()) == [1, 1, 2]  # no face, an unsure one, two in one image
    assert "row 8, column AU1: found '1.7', expected a number from 0 to 1" in examples_of(reading)


def test_libreface_detections_count_before_intensities(tmp_path, root):
    head = ",input_image_path,aligned_image_path,facial_expression,au_1,au_12,au_1_intensity,au_5_intensity\n"
    first = written(tmp_path, head + "0,2.png,tmp/2.png,Happiness,0,1,4.0,1.9\n", "one.csv")
    second = written(tmp_path, head + "0,3.png,tmp/3.png,Contempt,1,0,0.0,2.0\n1,,,,,,,\n", "two.csv")
    reading = read_dataset("LibreFace", root, labels=[first, second])
    assert labels_of(reading) == {"2.png": {1: 0, 5: 0, 12: 1}, "3.png": {1: 1, 5: 1, 12: 0}}
    assert reading.table["emotion"].tolist() == ["happiness", "contempt"]
    assert list(reading.dropped.values()) == [1]  # no face


def test_tables_of_ones_own_and_of_a_program_are_used_together_and_part_people_alike(tmp_path, root):
    names = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.png"))]
    own = written(tmp_path, "\n".join(["image,AU1", *(f"{name},1" for name in names[:20])]))
    rows = ["input,FaceScore,AU12", *(f"{name},0.99,0.9" for name in names[5:])]
    program = written(tmp_path, "\n".join(rows), "feat.csv")
    for dataset, labels in 2 * (("own", own), ("Py-Feat", program)):  # again by the split beside the table
        command = ["data", "read", dataset, "--root", str(root), "--labels", str(labels)]
        assert main([*command, "--output", str(root / f"{dataset}.parquet")]) == 0
    faces = read_available(root, tmp_path / "tables")
    assert faces["dataset"].value_counts().to_dict() == {"own": 20, "Py-Feat": len(names) - 5}
    assert (faces.groupby("image")["split"].nunique() == 1).all() and faces["split"].nunique() == 3
    assert set(read_table(root / "own.parquet")["image"]) <= set(faces["image"])
    built = build_pairs(faces)
    assert all(os.path.isfile(image) for split in built.values() for image in split["image"])


def test_a_row_belongs_to_the_face_that_it_names(tmp_path, root):
    picture = (root / "2.png").read_bytes()
    for face, frame in ((0, 1), (0, 2), (1, 1), (1, 2)):
        put(root / "clip_aligned" / f"frame_det_{face:02d}_{frame:06d}.bmp", picture)
    rows = ["frame,face_id,confidence,AU12_c", "1,0,0.9,0", "1,1,0.9,1", "2,0,0.7,0", "2,1,0.9,1"]
    reading = read_dataset("OpenFace", root, labels=written(tmp_path, "\n".join(rows), "clip.csv"))
    faces = reading.table[["image", "subject", "AU12"]].to_numpy().tolist()
    assert faces == [
        ["clip_aligned/frame_det_00_000001.bmp", "clip_0", 0],
        ["clip_aligned/frame_det_01_000001.bmp", "clip_1", 1],
        ["clip_aligned/frame_det_01_000002.bmp", "clip_1", 1],
    ]
    rows = ["input,FaceScore,FaceRectWidth,FaceRectHeight,AU12", "2.png,0.99,20,30,0", "2.png,0.95,90,99,1"]
    reading = read_dataset("Py-Feat", root, labels=written(tmp_path, "\n".join(rows), "feat.csv"))
    assert labels_of(reading) == {"2.png": {12: 1}} and reading.read == 2


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("Py-Feat", "input,frame,FaceScore,AU12\nclip.mp4,0,0.99,0.9\nclip.mp4,1,0.99,0.1\n"),
        ("LibreFace", "frame_idx,au_12\n0,1\n1,0\n"),
        ("OpenFace", "frame,confidence,AU12_r\n0,0.99,3.0\n1,0.99,0.5\n"),
    ],
)
def test_labels_of_a_video_need_its_frames(tmp_path, root, program, text):
    put(root / "clip.mp4", b"video")
    labels = written(tmp_path, text, "clip.csv")
    with pytest.raises(TableError):
        read_dataset(program, root, labels=labels)
    for frame in (0, 1):
        put(root / "clip" / f"{frame:06d}.png", (root / "2.png").read_bytes())
    pattern = {"images": "{name}/{frame:06d}.png"} | ({"threshold": 1} if program == "OpenFace" else {})
    reading = read_dataset(program, root, labels=labels, **pattern)
    assert labels_of(reading) == {"clip/000000.png": {12: 1}, "clip/000001.png": {12: 0}}
    assert set(reading.table["subject"]) == {"clip"}


def test_a_picture_of_libreface_is_called_as_its_file_and_py_feat_2_says_happy(tmp_path, root):
    labels = written(tmp_path, "au_1,facial_expression\n1,Sadness\n", "3.csv")
    reading = read_dataset("LibreFace", root, labels=labels)
    assert labels_of(reading) == {"3.png": {1: 1}}
    text = "input,FaceScore,AU45,Neutral,Happy,Sad\n2.png,0.99,0.9,0.01,0.97,0.02\n3.png,0.99,0.9,0,0.1,0.9\n"
    reading = read_dataset("Py-Feat", root, labels=written(tmp_path, text))
    assert reading.table["emotion"].tolist() == ["happiness", "sadness"]
    assert [place.rpartition(" ")[2] for place in examples_of(reading).splitlines() if "AU45" in place]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_column_that_looks_like_a_label_and_is_not_read_is_named_with_its_count(root, tmp_path, suffix):
    table = pd.DataFrame({"image": ["2.png", "3.png"], "AU1": [1, 0], "emotions": ["joy", None]})
    table = table.assign(AU12_score=[0.5, 0.25], comment=["a", "b"])
    path = tmp_path / f"labels{suffix}"
    table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path)
    (places,) = (
        places
        for kind, places in read_dataset("own", root, labels=path).problems.items()
        if "not read" in kind
    )
    assert [place.rpartition(": ")[2] for place in places] == ["emotions, 1 values", "AU12_score, 2 values"]
