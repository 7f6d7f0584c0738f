"""A table comes out as CSV, Markdown and LaTeX, and the best comparable values are bold."""

import numpy as np
import pandas as pd

from expvqa_lib.plots import export


def markdown(table, stem, **options) -> list[str]:
    export(table, stem, **options)
    return stem.with_suffix(".md").read_text().splitlines()


ROWS = [
    ("Base & co", "ours", 50.04, 3.0, "71.3 [66.0, 75.2]", 1),
    ("Exp_VQA", "ours", 50.01, 2.0, "80.0 [70.0, 90.0]", 2),
    ("x|y", "BP4D", np.nan, 1.0, "9 of 10", 3),
]
TABLE = pd.DataFrame(ROWS, columns=["model", "data", "F1", "error", "AUC", "faces"])


def test_three_files_hold_the_table_with_the_best_of_each_column_bold(tmp_path):
    export(TABLE, tmp_path / "new" / "t.1", lower=["error"], note="Data differ: 50%_")
    csv, md, tex = (tmp_path / "new" / f"t.1.{suffix}" for suffix in ("csv", "md", "tex"))
    pd.testing.assert_frame_equal(pd.read_csv(csv), TABLE)
    assert md.read_text().splitlines() == [
        "| model | data | F1 | error | AUC | faces |",
        "| --- | --- | --- | --- | --- | --- |",
        "| Base & co | ours | **50.0** | 3.0 | 71.3 [66.0, 75.2] | 1 |",
        "| Exp_VQA | ours | **50.0** | 2.0 | **80.0 [70.0, 90.0]** | 2 |",
        "| x\\|y | BP4D | - | **1.0** | 9 of 10 | 3 |",
        "",
        "Data differ: 50%_",
    ]
    lines = tex.read_text().splitlines()
    assert lines[:2] == ["% Data differ: 50%_", r"\begin{tabular}{lrrrrr}"]
    assert lines[3] == r"model & data & F1 & error & AUC & faces \\"
    assert lines[5:7] == [
        r"Base \& co & ours & \textbf{50.0} & 3.0 & 71.3 [66.0, 75.2] & 1 \\",
        r"Exp\_VQA & ours & \textbf{50.0} & 2.0 & \textbf{80.0 [70.0, 90.0]} & 2 \\",
    ]
    assert lines[8:10] == [r"\bottomrule", r"\end{tabular}"]


def test_a_wide_table_is_scaled_to_the_line(tmp_path):
    table = pd.DataFrame({f"AU{n}": [float(n)] for n in range(12)})
    export(table, tmp_path / "wide")
    text = (tmp_path / "wide.tex").read_text()
    assert text.startswith(r"\resizebox{\linewidth}{!}{%") and text.rstrip().endswith("}")
    assert text.count("{") == text.count("}") and "AU11" in text


def test_models_in_columns_compete_by_row_and_rows_of_other_data_apart(tmp_path):
    lines = markdown(TABLE, tmp_path / "t", lower=["error"], within="data")
    assert "| 3.0 |" in lines[2] and "**2.0**" in lines[3] and "**1.0**" in lines[4]
    models = pd.DataFrame({"A": [10.0, 3.0], "B": [20.0, 2.0]}, index=["AU1", "AU2"])
    lines = markdown(models, tmp_path / "t", best="row")
    assert [lines[0], *lines[2:]] == ["|  | A | B |", "| AU1 | 10.0 | **20.0** |", "| AU2 | **3.0** | 2.0 |"]
    assert "**" not in "".join(markdown(models, tmp_path / "t", best=None))


def test_every_level_of_an_index_is_a_column_whose_groups_may_compete_apart_also_of_no_row(tmp_path):
    index = pd.MultiIndex.from_tuples([("A", "x"), ("A", "y"), ("B", "x")], names=["model", "method"])
    table = pd.DataFrame({"energy": [1.0, 2.0, 0.5]}, index)
    lines = markdown(table, tmp_path / "t", within="model")
    assert lines[2:] == ["| A | x | 1.0 |", "| A | y | **2.0** |", "| B | x | **0.5** |"]
    assert markdown(table.head(0), tmp_path / "t", within="model")[0] == "| model | method | energy |"
