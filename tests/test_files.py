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
    with pytest.raises(ExpVQAError, match=str(path)), atomic(path / "b.csv"):
        raise AssertionError


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_folder_is_replaced_whole_or_not_at_all_and_the_umask_gives_the_permissions(tmp_path, umask):
    (tmp_path / "model" / "old").mkdir(parents=True)
    with pytest.raises(RuntimeError), atomic(tmp_path / "model") as temporary:
        temporary.mkdir()
        raise RuntimeError
    assert os.listdir(tmp_path) == ["model"] and os.listdir(tmp_path / "model") == ["old"]
    before = os.umask(umask)
    try:
        with atomic(tmp_path / "model") as temporary:
            temporary.mkdir()
            save_file({"x": torch.zeros(1)}, temporary / "b.safetensors")
        with atomic(tmp_path / "a.safetensors") as temporary:
            save_file({"x": torch.zeros(1)}, temporary)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    file, folder = 0o666 & ~umask, 0o777 & ~umask
    assert modes == {"a.safetensors": file, "model": folder, "b.safetensors": file}


def test_a_cached_table_is_made_once(tmp_path):
    path = tmp_path / "new" / "a.parquet"
    table = pd.DataFrame({"n": [1, 2]}, index=[5, 6])
    for make in (table.copy, None):
        assert cached(path, make).equals(table.reset_index(drop=True))
    with pytest.raises(ZeroDivisionError):
        cached(tmp_path / "b.parquet", lambda: 1 / 0)
    assert os.listdir(tmp_path) == ["new"] and os.listdir(path.parent) == ["a.parquet"]


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
    links = {root / "in": root / "a", root / "out": other, root / "2.png": other / "2.png"}
    for link, target in (links | {tmp_path / "link": root}).items():
        link.symlink_to(target)
    good = ["a/1.png", "in/1.png", "a/../a/1.png", str(root / "a" / "1.png"), "./a//1.png"]
    assert inside(root, good) == [str(root / "a" / "1.png")] * 5
    assert inside(tmp_path / "link", good[:3]) == [str(root / "a" / "1.png")] * 3
    bad = ["2.png", "out/2.png", "../root2/2.png", "..", "/etc/passwd", "a/../../root2/2.png"]
    assert inside(root, bad) == [None] * 6
    assert inside(root, ["a\0b/1.png", 7]) == [str(root / "a?b" / "1.png"), str(root / "7")]
