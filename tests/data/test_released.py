"""The authors' pair files: read as released, counted, refused by file and row where they are damaged, and trained on."""

from __future__ import annotations

import json
import os
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from expvqa_lib.data import jsonlist
from expvqa_lib.data.pairs_json import read_json, split_by_image
from expvqa_lib.errors import ExpVQAError, SettingsError, TableError
from expvqa_lib.pipeline.cli import main

ROWS = [
    {
        "image": "a/1.png",
        "image_id": 7,
        "text_input": "How can this person's emotion be inferred from their facial actions?",
        "text_output": "The person pulls lip corner, which suggests happiness.",
    },
    {
        "image": "a/1.png",
        "image_id": "7",
        "text_input": "What of the lips?",
        "text_output": "The person separates lips.",
        "area": "lips",
    },
    {
        "image": "2.png",
        "text_input": "Does AU 06, cheek raiser, occur?",
        "text_output": "No, it does not.",
        "area": "cheeks",
        "x": {"y": []},
    },
    {"image": "2.png", "text_input": "Does this person pull lip corner?", "text_output": "Yes", "area": None},
]


@pytest.fixture
def root(tmp_path):
    for name in ("a/1.png", "2.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (48, 48), "tan").save(tmp_path / "images" / name)
    return tmp_path / "images"


def written(folder, rows, name="pairs.json"):
    text = rows if isinstance(rows, (str, bytes)) else json.dumps(rows)
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


def test_rows_keep_their_words_and_get_a_type_an_au_and_a_place(tmp_path, root):
    found = read_json([written(tmp_path, ROWS)], root)
    assert found.read == len(found.pairs) == 4 and found.dropped == {} and found.missing == ()
    table = found.pairs.to_pandas()
    for key in ("text_input", "text_output"):
        assert table[key].tolist() == [row[key] for row in ROWS]
    assert table["question_type"].tolist() == ["Q1", "Q2", "Q3", "Q3"]
    assert table["au"].tolist()[2:] == [6, 12] and table["au"].isna().tolist() == [True, True, False, False]
    assert table["image"].tolist() == [str(root / row["image"]) for row in ROWS]
    assert table["image_id"].tolist() == ["7", "7", "2.png", "2.png"]
    assert table["area"].fillna("-").tolist() == ["-", "lips", "cheeks", "-"]


def test_a_files_name_or_the_caller_tells_the_type_before_the_row_does(tmp_path, root):
    q2, other = written(tmp_path, ROWS, "train_Q2.json"), written(tmp_path, ROWS, "type3.json")
    assert read_json([q2, other], root).pairs["question_type"][:] == ["Q2"] * 4 + ["Q3"] * 4
    assert (
        read_json([q2, other], root, question_types=["Q1", "Q2"]).pairs["question_type"][:]
        == ["Q1"] * 4 + ["Q2"] * 4
    )
    for wrong in (["Q1"], ["Q1", "Q4"], []):
        with pytest.raises(SettingsError, match="expected Q1, Q2 or Q3 for each of the 2 files"):
            read_json([q2, other], root, question_types=wrong)


def test_a_byte_order_mark_windows_lines_and_a_folder_for_the_pairs_change_nothing(tmp_path, root):
    plain = read_json([written(tmp_path, ROWS)], root).pairs.to_list()
    windows = b"\xef\xbb\xbf" + json.dumps(ROWS, indent=2).replace("\n", "\r\n").encode()
    assert read_json([written(tmp_path, windows)], root, folder=tmp_path).pairs.to_list() == plain


def test_missing_images_are_listed_or_dropped_and_counted(tmp_path, root):
    gone = [{"image": f"gone/{k}.png", "text_input": "?", "text_output": "!"} for k in range(30)]
    path = written(tmp_path, [*gone, *ROWS, {"image": "2.png", "text_input": "?", "text_output": " "}])
    with pytest.raises(
        TableError, match=r"images of 30 of 35 rows are not there, among them gone/0.png, gone/1.png"
    ) as caught:
        read_json([path], root)
    assert "gone/9.png" in str(caught.value) and "gone/10.png" not in str(caught.value)
    found = read_json([path], root, drop_missing=True)
    assert found.dropped == {"image missing": 30, "empty question or answer": 1} and len(found.missing) == 10
    assert found.read == len(found.pairs) + sum(found.dropped.values()) == 35
    with pytest.raises(TableError, match="no pairs: 30 rows read"):
        read_json([written(tmp_path, gone)], root, drop_missing=True)


@pytest.mark.parametrize(
    "image",
    [
        "../secret.png",
        "a/../../secret.png",
        "a/../2.png",
        "/etc/passwd",
        "link/secret.png",
        "out.png",
        "a\0.png",
    ],
)
def test_an_image_outside_the_root_is_refused_by_file_row_and_key(tmp_path, root, image):
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    os.symlink(tmp_path, root / "link")
    os.symlink(tmp_path / "secret.png", root / "out.png")
    path = written(tmp_path, [*ROWS, ROWS[0] | {"image": image}])
    with pytest.raises(TableError) as caught:
        read_json([path], root, drop_missing=True)
    for part in (f"{path}: row 4, key image: found", "expected a path below"):
        assert part in str(caught.value)


ROW = json.dumps(ROWS[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "row 0: found '', expected a list"),
        (f"{ROW}\n{ROW}", "row 0: found an object: JSON lines, perhaps"),
        (
            f"[{ROW}, {ROW}",
            "row 2: found the end of the file, expected a comma or the end of the list; the file may be cut off",
        ),
        (f"[{ROW}, {ROW[:40]}", "row 1: no JSON object"),
        (f"[{ROW} {ROW}]", "row 1: found '{"),
        (f"[{ROW},]", "row 1: found ']', expected an object"),
        (f"[{ROW}, 3]", "row 1: found '3]', expected an object"),
        (f"[{ROW}]]", "row 1: found ']' behind the list"),
        (f'[{ROW[:-1]}, "x": NaN}}]', "row 0: NaN is not JSON"),
        (f'[{ROW[:-1]}, "area": "a", "area": "b"}}]', "row 0: key 'area' stands twice"),
        (f'[{ROW[:-1]}, "x": {"[" * 100_000}', "row 0: nested too deep"),
        (f'[{ROW[:-1]}, "image_id": {"9" * 5000}}}]', "row 0: Exceeds the limit"),
        (f'[{ROW}, {ROW[:-1]}, "image_id": 1e999}}]', "row 1: key 'image_id' stands twice"),
        (
            '[{"image": "2.png", "image_id": 1e999, "text_input": "?", "text_output": "!"}]',
            "row 0, key image_id: found inf",
        ),
        (
            '[{"image": "2.png", "image_id": true, "text_input": "?", "text_output": "!"}]',
            "row 0, key image_id: found True",
        ),
        (
            '[{"image": "2.png", "text_input": "?", "text_output": ["!"]}]',
            "row 0, key text_output: found \\['!'\\], expected text",
        ),
        ('[{"image": "2.png", "text_input": "?"}]', "row 0, key text_output: missing"),
        (
            '[{"image": "2.png", "text_input": "?", "text_output": "\\ud800"}]',
            "row 0, key text_output: .* half a character",
        ),
        (f"[{ROW}".encode() + b', {"image": "\xff"}]', "not UTF-8 text"),
        (f"[{ROW}]".encode("utf-16"), "not UTF-8 text"),
    ],
)
def test_a_damaged_file_is_refused_by_file_and_row(tmp_path, root, text, message):
    path = written(tmp_path, text)
    with pytest.raises(TableError, match=message) as caught:
        read_json([path], root)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 600


def test_files_and_folders_that_are_not_there_are_named(tmp_path, root):
    with pytest.raises(TableError, match="none.json: cannot be read"):
        read_json([tmp_path / "none.json"], root)
    with pytest.raises(TableError, match="nowhere: no such folder"):
        read_json([written(tmp_path, ROWS)], tmp_path / "nowhere")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_ends_in_another_error_than_ours(tmp_path, root, data):
    content = bytearray(json.dumps(ROWS, indent=1).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.sampled_from([0, 1, 40]))] = data.draw(
            st.one_of(st.binary(max_size=6), st.just(b'"../../etc/passwd"'))
        )
    try:
        found = read_json([written(tmp_path, bytes(content))], root, drop_missing=True)
    except ExpVQAError as error:
        assert "pairs.json" in str(error)
    else:
        assert found.read == len(found.pairs) + sum(found.dropped.values())
        assert all(image in (str(root / "a/1.png"), str(root / "2.png")) for image in found.pairs["image"])


def test_a_long_file_is_read_in_a_window(tmp_path, root):
    path = tmp_path / "long.json"
    with open(path, "w") as file:
        file.write("[" + ",\n".join([json.dumps(ROWS[1] | {"pad": "x" * 700})] * 20_000) + "]")
    tracemalloc.start()
    assert sum(1 for _ in jsonlist.objects(path)) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size / 10
    huge = written(tmp_path, "[" + json.dumps(ROWS[1] | {"pad": "x" * 3_000_000}) + "]")
    with pytest.raises(TableError, match="row 0: no JSON object .* larger than"):
        next(jsonlist.objects(huge))


def test_validation_takes_its_share_of_the_images_whatever_the_order_of_rows(tmp_path, root):
    for k in range(20):
        Image.new("RGB", (8, 8)).save(root / f"{k}.png")
    rows = [
        {"image": f"{k}.png", "text_input": f"{q}?", "text_output": "!"} for k in range(20) for q in range(3)
    ]
    one, other = (
        split_by_image(read_json([written(tmp_path, some)], root).pairs, 0.2) for some in (rows, rows[::-1])
    )
    assert {split: len(pairs) for split, pairs in one.items()} == {"train": 48, "validation": 12}
    assert (
        set(one["validation"]["image"]) == set(other["validation"]["image"])
        and len(set(one["validation"]["image"])) == 4
    )
    with pytest.raises(SettingsError, match="validation=0.01: 0 of 20 images"):
        split_by_image(read_json([written(tmp_path, rows)], root).pairs, 0.01)


def test_the_command_makes_pairs_that_a_model_trains_on(tmp_path, root, capsys):
    from expvqa_lib.pipeline.profiles import BASE

    for k in range(6):
        Image.new("RGB", (48, 48), (40 * k, 90, 90)).save(root / f"{k}.png")
    rows = [row | {"image": f"{k}.png"} for k in range(6) for row in ROWS]
    path, pairs, mine = (
        written(tmp_path, [*rows, ROWS[0] | {"image": "gone.png"}]),
        str(tmp_path / "pairs"),
        str(tmp_path / "mine"),
    )
    given = ["pairs", "--from-json", str(path), "--output", pairs, "--validation", "0.34"]
    assert main(given) == 1 and "needs --image-root" in capsys.readouterr().err
    given += ["--image-root", str(root)]
    assert main(given) == 1 and "1 of 25 rows are not there, among them gone.png" in capsys.readouterr().err
    assert not (tmp_path / "pairs").exists()
    assert main([*given, "--drop-missing"]) == 0
    told = capsys.readouterr()
    assert "25 rows read, 24 kept, 1 dropped (image missing)" in told.err and "gone.png" in told.err
    assert "train: 16 pairs\nvalidation: 8 pairs" in told.out and not (tmp_path / "pairs" / "arrow").exists()
    recipe = [
        "--profile",
        "paper",
        "--precision",
        "float32",
        "--images",
        "4",
        "--pairs-per-image",
        "4",
        "--epochs",
        "1",
    ]
    assert main(["train", *recipe, "--pairs", pairs, "--model", str(BASE), "--output", mine]) == 0
    assert (tmp_path / "mine" / "model.safetensors").exists() and (
        tmp_path / "mine" / "log.csv"
    ).read_text().count("\n") > 1
