"""Which pairs a model is taught."""

import numpy as np
import pandas as pd
import pytest

from expvqa_lib import pairs
from expvqa_lib.corpora.table import AU_COLUMNS, SPLITS
from expvqa_lib.errors import SettingsError
from expvqa_lib.teaching import Lesson, choose


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(0)
    n = 60
    labels = pd.DataFrame(pd.NA, index=range(n), columns=list(AU_COLUMNS), dtype="Int8")
    labels[["AU1", "AU12", "AU25"]] = rng.integers(0, 2, (n, 3))
    columns = {"image": [f"{k}.png" for k in range(n)], "dataset": "own", "subject": "s", "frame": range(n), "labelled_by": None}
    table = pd.DataFrame(columns | {"split": [SPLITS[k % 3] for k in range(n)], "emotion": "happiness"})
    return pairs.build(pd.concat([table, labels], axis=1))


def _counts(rows):
    return pd.Series(rows["question_type"]).value_counts().to_dict()


def test_everything_is_taught_unless_something_is_left_out(made):
    assert choose(made, Lesson()) is made


def test_an_unseen_action_unit_is_never_asked_about_but_still_named(made):
    chosen = choose(made, Lesson(unseen=(25,)))
    for split in ("train", "validation"):
        before, after = made[split].to_pandas(), chosen[split].to_pandas()
        assert before.query("question_type == 'Q3' and au == 25").size and not after.query("question_type == 'Q3' and au == 25").size
        assert after["text_output"].str.contains("separates lips").any()
        rest = before[~(before["question_type"].eq("Q3") & before["au"].eq(25))].reset_index(drop=True)
        pd.testing.assert_frame_equal(after, rest)
    assert chosen["test"].to_dict() == made["test"].to_dict()


@pytest.mark.parametrize("kinds", [("Q1",), ("Q1", "Q2"), ("Q3",)])
def test_a_lesson_holds_its_types_of_question(made, kinds):
    chosen = choose(made, Lesson(questions=kinds))
    assert _counts(chosen["train"]) == {kind: n for kind, n in _counts(made["train"]).items() if kind in kinds}


def test_what_cannot_be_taught_is_refused(made):
    with pytest.raises(SettingsError, match="'Q4' is unknown; known are Q1, Q2, Q3"):
        Lesson(questions=("Q4",))
    with pytest.raises(SettingsError, match="AU 3 is unknown"):
        Lesson(unseen=(3,))
    with pytest.raises(SettingsError, match="none of the .* training pairs is left"):
        choose(made, Lesson(questions=("Q3",), unseen=(1, 12, 25)))
