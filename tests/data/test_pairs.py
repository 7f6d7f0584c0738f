"""Pairs of a face table, and the authors' pair files, whose damage is named by file, row and key."""

import json

import datasets
import pandas as pd
import pytest
from PIL import Image

from expvqa_lib.data import SPLITS, build_pairs, read_pairs_json, save_pairs, split_by_image
from expvqa_lib.data import pairs as module
from expvqa_lib.errors import SettingsError, TableError
from expvqa_lib.files import fingerprint
from expvqa_lib.pipeline.cli import main


def test_the_source_tells_peoples_labels_from_those_of_a_program(faces, pairs):
    assert set(pairs["train"]["source"]) == {"rules"}
    labelled_by = faces["dataset"].map({"synth_wild": "OpenFace 2"}).astype("string")
    made = build_pairs(faces.assign(labelled_by=labelled_by))["train"].to_pandas()
    assert (made["source"] == made["dataset"].map({"synth_wild": "pseudo"}).fillna("rules")).all()


def test_each_image_stays_in_its_split_under_one_name(pairs, faces):
    rows = pd.concat([pairs[split].to_pandas().assign(split=split) for split in pairs])
    assert (rows["image"].map(faces.set_index("image")["split"]) == rows["split"]).all()
    for one, other in (("image", "image_id"), ("image_id", "image")):
        assert (rows.groupby(one)[other].nunique() == 1).all()


def test_the_seed_alone_decides_in_memory_or_in_parts_on_disk(faces, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 7)
    on_disk, other = build_pairs(faces, seed=7, folder=tmp_path), build_pairs(faces, seed=8)
    for split in SPLITS:
        assert on_disk[split].to_list() == pairs[split].to_list() != other[split].to_list()
    assert [file["filename"] for file in on_disk["test"].cache_files] == [str(tmp_path / "test.arrow")]


def test_the_draws_of_a_seed_are_those_of_earlier_versions(pairs):
    """The committed figures were made from these words, in this order."""
    rows = [row for split in SPLITS for row in pairs[split]]
    words = "\n".join(f"{row['image_id']} {row['text_input']} {row['text_output']}" for row in rows)
    assert fingerprint(words) == "e0b1938fdf937da2"


def test_an_empty_split_survives_the_disk(faces, tmp_path):
    pairs = build_pairs(faces[faces["split"] == "test"])
    assert len(pairs["train"]) == 0 < len(pairs["test"])
    save_pairs(pairs, tmp_path)
    again = datasets.load_from_disk(str(tmp_path))
    assert again["train"].features == again["test"].features == module.FEATURES
    assert len(again["train"]) == 0 and again["test"].to_list() == pairs["test"].to_list()


def row(image: str, question: str = "?", answer: str = "!", **more) -> dict:
    return {"image": image, "text_input": question, "text_output": answer} | more


ROWS = [
    row("a/1.png", "What does this person feel?", "The person pulls lip corner.", image_id=7),
    row("a/1.png", "What of the lips?", "The person separates lips.", image_id="7", area="lips"),
    row("2.png", "Does AU 06, cheek raiser, occur?", "No, it does not.", area="cheeks", x={"y": []}),
    row("2.png", "Does this person pull lip corner?", "Yes", area=None),
]


@pytest.fixture
def root(tmp_path):
    """A folder of images for the rows."""
    folder = tmp_path / "images"
    (folder / "a").mkdir(parents=True)
    for name in ("a/1", *range(20)):
        Image.new("RGB", (8, 8), "tan").save(folder / f"{name}.png")
    return folder


def write(folder, rows, name="pairs.json"):
    (folder / name).write_bytes(rows if isinstance(rows, bytes) else json.dumps(rows).encode())
    return folder / name


def test_rows_keep_their_words_and_get_a_type_an_au_and_an_absolute_path(tmp_path, root):
    pairs, dropped = read_pairs_json([write(tmp_path, ROWS)], root)
    table = pairs.to_pandas()
    assert dropped == {}
    assert table[["text_input", "text_output"]].equals(pd.DataFrame(ROWS)[["text_input", "text_output"]])
    assert table["question_type"].tolist() == ["Q1", "Q2", "Q3", "Q3"]
    assert table["au"].fillna(0).tolist() == [0, 0, 6, 12]
    assert table["image"].tolist() == [str(root / pair["image"]) for pair in ROWS]
    assert table["image_id"].tolist() == ["7", "7", "2.png", "2.png"]
    assert table["area"].fillna("-").tolist() == ["-", "lips", "cheeks", "-"]


def test_a_byte_order_mark_windows_lines_and_a_folder_change_nothing_and_a_files_name_tells_the_type(
    tmp_path, root
):
    plain = read_pairs_json([write(tmp_path, ROWS)], root)[0].to_list()
    windows = b"\xef\xbb\xbf" + json.dumps(ROWS, indent=2).replace("\n", "\r\n").encode()
    assert read_pairs_json([write(tmp_path, windows)], root, folder=tmp_path)[0].to_list() == plain
    files = [write(tmp_path, ROWS, name) for name in ("train_Q2.json", "type3.json")]
    assert read_pairs_json(files, root)[0]["question_type"][:] == ["Q2"] * 4 + ["Q3"] * 4


def test_rows_with_missing_images_are_an_error_or_dropped_and_counted(tmp_path, root):
    missing = [row(f"missing/{k}.png") for k in range(30)]
    path = write(tmp_path, [*ROWS, *missing, row("2.png", answer=" ")])
    with pytest.raises(TableError, match=r"row 4, key image: 'missing/0.png'.*--drop-missing"):
        read_pairs_json([path], root)
    pairs, dropped = read_pairs_json([path], root, drop_missing=True)
    assert len(pairs) == 4 and dropped == {"image missing": 30, "empty question or answer": 1}
    with pytest.raises(TableError, match="30"):
        read_pairs_json([write(tmp_path, missing)], root, drop_missing=True)
    for file, folder in ((tmp_path / "none.json", root), (path, tmp_path / "none.json")):
        with pytest.raises(TableError, match=r"none\.json"):
            read_pairs_json([file], folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "char 0"),
        (json.dumps(ROWS).encode()[:-20], "line 1"),
        (json.dumps(ROWS).encode("utf-16"), "utf-8"),
        (json.dumps(ROWS[0]).encode(), "expected a list"),
        ([*ROWS, 3], "row 4: found 3, expected an object"),
        ([*ROWS, ROWS[0] | {"text_output": ["!"]}], r"row 4, key text_output: found \['!'\]"),
        ([ROWS[0] | {"area": 5}], "row 0, key area: found 5"),
        ([ROWS[0] | {"image_id": 1.5}], "row 0, key image_id: found 1.5"),
        ([{"image": "2.png", "text_input": "?"}], "row 0, key text_output: found None"),
    ],
)
def test_damage_is_named_by_file_row_and_key(tmp_path, root, content, message):
    path = write(tmp_path, content)
    with pytest.raises(TableError, match=f"{path}.*{message}"):
        read_pairs_json([path], root)


def test_validation_takes_its_share_of_the_images_in_any_order_of_rows(tmp_path, root):
    rows = [row(f"{k // 3}.png", f"{k}?") for k in range(60)]
    images = []
    for order in (rows, rows[::-1]):
        pairs, _ = read_pairs_json([write(tmp_path, order)], root)
        splits = split_by_image(pairs, 0.2)
        assert splits.num_rows == {"train": 48, "validation": 12}
        images.append(set(splits["validation"]["image"]))
    assert images[0] == images[1] and len(images[0]) == 4
    with pytest.raises(SettingsError, match=r"validation=0\.01: 0 of 20"):
        split_by_image(pairs, 0.01)


def test_the_command_writes_pairs_of_both_splits(tmp_path, root, capsys):
    rows = [pair | {"image": f"{k}.png"} for k in range(6) for pair in ROWS]
    path = str(write(tmp_path, [*rows, ROWS[0] | {"image": "missing.png"}]))
    arguments = ["pairs", "--from-json", path, "--output", str(tmp_path / "pairs"), "--validation", "0.34"]
    assert main(arguments) == 1 and "--image-root" in capsys.readouterr().err
    arguments += ["--image-root", str(root)]
    assert main(arguments) == 1 and "row 24" in capsys.readouterr().err and not (tmp_path / "pairs").exists()
    assert main([*arguments, "--drop-missing"]) == 0 and "image missing" in capsys.readouterr().err
    pairs = datasets.load_from_disk(str(tmp_path / "pairs"))
    assert pairs.num_rows == {"train": 16, "validation": 8} and pairs["train"].features == module.FEATURES
