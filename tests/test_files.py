"""No file is ever left half-written."""

import json
import os

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from expvqa_lib.errors import ExpVQAError
from expvqa_lib.files import atomic, cached, fingerprint, inside, write_json


def test_a_file_appears_whole_in_folders_that_are_made(tmp_path):
    path = tmp_path / "new" / "deep" / "a.csv"
    with atomic(path) as temporary:
        assert temporary.parent == path.parent and temporary.suffix == ".csv"
        temporary.write_text("half")
        assert not path.exists()
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["a.csv"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_was_there_stays_when_writing_fails(tmp_path, failure):
    path = tmp_path / "a.csv"
    path.write_text("old")
    with pytest.raises(failure), atomic(path) as temporary:
        temporary.write_text("half")
        raise failure
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.csv"]


def test_a_folder_replaces_a_folder_whole_or_not_at_all(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.mkdir()
        (temporary / "half").touch()
        raise RuntimeError
    assert os.listdir(path) == ["old"]
    with atomic(path) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
    assert os.listdir(path) == ["new"]
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_files_get_the_permissions_of_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        with atomic(tmp_path / "a.safetensors") as temporary:
            save_file({"x": torch.zeros(1)}, temporary)
        with atomic(tmp_path / "model") as temporary:
            (temporary / "part").mkdir(parents=True)
            save_file({"x": torch.zeros(1)}, temporary / "part" / "b.safetensors")
    finally:
        os.umask(before)
    paths = [tmp_path / "a.safetensors", *sorted((tmp_path / "model").rglob("*")), tmp_path / "model"]
    modes = [path.stat().st_mode & 0o777 for path in paths]
    assert modes == [0o666 & ~umask, 0o777 & ~umask, 0o666 & ~umask, 0o777 & ~umask]


def test_a_cached_table_is_made_once(tmp_path):
    path = tmp_path / "new" / "a.parquet"
    table = pd.DataFrame({"n": [1, 2]}, index=[5, 6])
    made = []
    for _ in range(2):
        read = cached(path, lambda: made.append(1) or table)
        assert read.equals(table.reset_index(drop=True))
    assert made == [1] and os.listdir(path.parent) == ["a.parquet"]


def test_a_table_that_cannot_be_made_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError):
        cached(tmp_path / "a.parquet", lambda: 1 / 0)
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a.csv", tmp_path / "file" / "deeper" / "a.csv"):
        with (
            pytest.raises(
                ExpVQAError, match=f"{path.parent}: cannot make this folder .*; choose a writable place"
            ),
            atomic(path),
        ):
            raise AssertionError("must not come here")


def test_a_read_only_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as root, who may write anywhere
    with (
        pytest.raises(ExpVQAError, match=f"{tmp_path}: not writable; choose another folder"),
        atomic(tmp_path / "a.csv"),
    ):
        raise AssertionError("must not come here")


def test_json_is_readable_and_keeps_every_letter(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"name": "Ærøskøbing 顔", "n": [1, 2]})
    text = path.read_text(encoding="utf-8")
    assert "Ærøskøbing 顔" in text and text.endswith("}\n") and text.count("\n") > 3
    assert json.loads(text) == {"name": "Ærøskøbing 顔", "n": [1, 2]}


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == 1
    assert os.listdir(tmp_path) == ["a.json"]


def test_fingerprints_change_with_every_part_and_never_by_themselves():
    parts = [
        (),
        ("ab",),
        ("a", "b"),
        ("b", "a"),
        (b"ab",),
        (1,),
        ("1",),
        ({"x": 1},),
        ({"x": 2},),
        ([1, [2]],),
        ([[1], 2],),
    ]
    found = [fingerprint(*p) for p in parts]
    assert len(set(found)) == len(parts)
    assert all(len(f) == 16 and int(f, 16) >= 0 for f in found)
    assert fingerprint({"x": 1, "y": 2}) == fingerprint({"y": 2, "x": 1})
    assert (
        fingerprint({"x": 1}, b"weights") == "ad4f542d088bb0ac"
    )  # kept results are found again by any later process


def test_paths_are_resolved_below_a_root_or_not_at_all(tmp_path):
    root, out = tmp_path / "root", tmp_path / "root2"
    (root / "a").mkdir(parents=True)
    out.mkdir()
    for path in (root / "a" / "1.png", out / "2.png"):
        path.touch()
    links = {
        "in": root / "a",
        "out": out,
        "in.png": root / "a" / "1.png",
        "out.png": out / "2.png",
        "loop": root / "loop",
    }
    for name, target in links.items():
        os.symlink(target, root / name)
    os.symlink(root, tmp_path / "link")
    good = {
        "a/1.png": "a/1.png",
        "in/1.png": "a/1.png",
        "in.png": "a/1.png",
        "a/../a/1.png": "a/1.png",
        "b/none.png": "b/none.png",
        "a/..": "",
    }
    good |= {str(root / "a" / "1.png"): "a/1.png", "a//1.png": "a/1.png", "./a/./1.png": "a/1.png"}
    assert inside(tmp_path / "link", good) == [str(root / place) for place in good.values()]
    bad = [
        "out/2.png",
        "out.png",
        "../root2/2.png",
        "..",
        "/etc/passwd",
        "/",
        str(out / "2.png"),
        "a/../../root2/2.png",
        "\0",
        "a\0/b",
        5,
        None,
    ]
    assert inside(root, bad) == [None] * len(bad)
    assert inside("/", ["etc/passwd", "../etc"]) == [
        os.path.realpath("/etc/passwd"),
        os.path.realpath("/etc"),
    ]
