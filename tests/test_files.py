"""Files are whole or absent, and belong to their user; cached tables; fingerprints; paths below a folder."""

import os

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from expvqa_lib.errors import ExpVQAError, ImageError
from expvqa_lib.files import atomic, cached, file_state, fingerprint, inside


def test_a_file_appears_whole_in_new_folders_and_stays_when_writing_fails(tmp_path):
    path = tmp_path / "new" / "deep" / "a.csv"
    with atomic(path) as temporary:
        assert temporary.parent == path.parent and temporary.suffix == ".csv"
        temporary.write_text("whole")
        assert not path.exists()
    for failure in (ValueError, KeyboardInterrupt):
        with pytest.raises(failure), atomic(path) as temporary:
            temporary.write_text("half")
            raise failure
        assert path.read_text() == "whole" and os.listdir(path.parent) == ["a.csv"]


def test_a_folder_replaces_a_folder_whole_or_not_at_all(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.mkdir()
        raise RuntimeError
    assert os.listdir(path) == ["old"]
    with atomic(path) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
    assert os.listdir(path) == ["new"] and os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_files_get_the_permissions_of_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        with atomic(tmp_path / "a.safetensors") as temporary:
            save_file({"x": torch.zeros(1)}, temporary)
        with atomic(tmp_path / "model") as temporary:
            temporary.mkdir()
            save_file({"x": torch.zeros(1)}, temporary / "b.safetensors")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    file, folder = 0o666 & ~umask, 0o777 & ~umask
    assert modes == {"a.safetensors": file, "model": folder, "b.safetensors": file}


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ExpVQAError, match=str(tmp_path / "file")), atomic(tmp_path / "file" / "a.csv"):
        raise AssertionError


def test_a_cached_table_is_made_once(tmp_path):
    path = tmp_path / "new" / "a.parquet"
    table = pd.DataFrame({"n": [1, 2]}, index=[5, 6])
    calls = []
    for _ in range(2):
        assert cached(path, lambda: calls.append(1) or table).equals(table.reset_index(drop=True))
    assert calls == [1] and os.listdir(path.parent) == ["a.parquet"]
    with pytest.raises(ZeroDivisionError):
        cached(tmp_path / "b.parquet", lambda: 1 / 0)
    assert os.listdir(tmp_path) == ["new"]


def test_the_state_of_a_file_changes_with_its_content(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"1")
    before = file_state(str(path))
    assert file_state(str(path)) == before
    path.write_bytes(b"22")
    assert file_state(str(path)) != before
    with pytest.raises(ImageError, match=r"none\.png"):
        file_state(str(tmp_path / "none.png"))


def test_fingerprints_change_with_every_part_and_between_no_two_processes():
    parts = [(), ("ab",), ("a", "b"), ("b", "a"), (b"ab",), (1,), ("1",), ([1, [2]],), ([[1], 2],)]
    assert len({fingerprint(*part) for part in parts}) == len(parts)
    assert fingerprint({"x": 1, "y": 2}) == fingerprint({"y": 2, "x": 1})
    assert fingerprint({"x": 1}, b"weights") == "ad4f542d088bb0ac"


def test_paths_are_resolved_below_a_root_or_not_at_all(tmp_path):
    root, other = tmp_path / "root", tmp_path / "root2"
    (root / "a").mkdir(parents=True)
    other.mkdir()
    os.symlink(root / "a", root / "in")
    os.symlink(other, root / "out")
    os.symlink(root, tmp_path / "link")
    good = ["a/1.png", "in/1.png", "a/../a/1.png", str(root / "a" / "1.png"), "./a//1.png"]
    assert inside(root, good) == [str(root / "a" / "1.png")] * 5
    assert inside(tmp_path / "link", good[:3]) == [str(root / "a" / "1.png")] * 3
    os.symlink(other / "2.png", root / "2.png")
    bad = ["2.png", "out/2.png", "../root2/2.png", "..", "/etc/passwd", "a/../../root2/2.png"]
    assert inside(root, bad) == [None] * 6
    assert inside(root, ["a\0b/1.png", 7]) == [str(root / "a?b" / "1.png"), str(root / "7")]
