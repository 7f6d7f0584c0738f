"""Every figure draws from small real tables, saves a picture that is not blank, and saves the same bytes twice."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from expvqa_lib import data_figures, figures, metrics, overlays
from expvqa_lib.errors import TableError
from expvqa_lib.facs import EMOTIONS

AUS = ["AU1", "AU4", "AU12"]


def labels(rows=60, seed=0):
    table = pd.DataFrame(np.random.default_rng(seed).random((rows, 3)) < 0.4, columns=AUS).astype("Int8")
    table.loc[:5, "AU4"] = pd.NA
    return table


def results():
    y, rng = labels(), np.random.default_rng(1)
    noise = pd.DataFrame(rng.random(y.shape), columns=AUS)
    scores = {"prior": metrics.prior_scores(y, y.index), "exp_vqa": (noise + y.fillna(0).astype(float)) / 2, "my own": noise}
    names = {"dataset": "lab", "split": "test", "n_resamples": 20}
    return pd.concat([metrics.au_table(y, s, model=model, **names) for model, s in scores.items()])


def face(seed=0):
    y, x = np.mgrid[:48, :48] / 48
    disc = (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.2
    return Image.fromarray((255 * (0.3 + 0.6 * disc[..., None] * [0.9, 0.7, 0.5 + 0.1 * seed])).clip(0, 255).astype(np.uint8))


def heat():
    y, x = np.mgrid[:7, :7]
    return np.exp(-((x - 3) ** 2 + (y - 5) ** 2) / 2)


def looked(i):
    mask = np.zeros((48, 48))
    mask[30:40, 10:38] = i
    question = "How can this person's emotion be inferred from their facial actions?"
    return {"image": face(i), "heat": heat(), "region": mask, "title": question, "answer": "happy, as the lip corners are pulled"}


def log():
    step = np.arange(1, 41)
    every_tenth = step % 10 == 0
    return pd.DataFrame(
        {
            "step": step,
            "loss": 2 / step,
            "eval_loss": np.where(every_tenth, 2.2 / step, np.nan),
            "eval_au_auc": np.where(every_tenth, 0.9 - 1 / step, np.nan),
        }
    )


def pointing():
    rows = [("exp_vqa", au, m, v, v - 5, v + 5) for au in AUS for m, v in (("pointing_accuracy", 70.0), ("chance", 12.0))]
    return pd.DataFrame(rows, columns=["model", "target", "metric", "value", "low", "high"])


EMOTION = ["fear", "anger", None, "fear", "happiness", "anger"]
DRAWN = {
    "au_bars": lambda: figures.au_bars(results()),
    "au_bars_auc": lambda: figures.au_bars(results(), metric="auc", title="AUC"),
    "training_curves": lambda: figures.training_curves({"exp_vqa": log(), "exp_vqa_fz": log()}),
    "training_loss": lambda: figures.training_curves({"exp_vqa": log()[["step", "loss"]]}),
    "pointing_bars": lambda: figures.pointing_bars(pointing()),
    "confusion": lambda: figures.confusion(EMOTION, ["fear", None, "fear", "anger", "happiness", "anger"], list(EMOTIONS)),
    "au_cooccurrence": lambda: data_figures.au_cooccurrence(labels()),
    "au_counts": lambda: data_figures.au_counts({"lab": labels(), "wild": labels(seed=2)[["AU1", "AU4"]]}),
    "emotion_counts": lambda: data_figures.emotion_counts({"wild": EMOTION}),
    "data_overview": lambda: data_figures.data_overview(
        [face(i) for i in range(3)], ["AU1", "none", "AU4 AU12"], {"lab": labels()}, {"wild": EMOTION}, columns=4
    ),
    "face_grid": lambda: overlays.face_grid([face(), np.asarray(face(1)), np.asarray(face(2)) / 255], ["a", "b b", "c"], columns=2),
    "attention_gallery": lambda: overlays.attention_gallery([looked(0), looked(1)]),
}


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.filterwarnings("error")
def test_figure_saves_a_full_picture_and_the_same_bytes_twice(name, tmp_path):
    first, second = (figures.save(DRAWN[name](), tmp_path / f"{n}.png") for n in "ab")
    picture = np.asarray(Image.open(first).convert("L"))
    assert picture.shape[1] >= 400 and (picture < 250).mean() > 0.01
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_a_notebook_shows_a_figure_without_pyplot():
    png = figures.pointing_bars(pointing())._repr_png_()
    assert png.startswith(b"\x89PNG")


def test_figures_keep_their_look_and_leave_the_readers_settings_alone(tmp_path):
    plain = figures.save(figures.au_bars(results()), tmp_path / "plain.png").read_bytes()
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        assert figures.save(figures.au_bars(results()), tmp_path / "loud.png").read_bytes() == plain
        assert mpl.rcParams["font.size"] == 30
        figures.use_style()
        assert mpl.rcParams["font.size"] < 10


def test_every_named_model_has_a_colour_and_a_name_of_its_own():
    assert figures.COLOURS.keys() == figures.NAMES.keys()
    assert len(set(figures.COLOURS.values())) == len(figures.COLOURS)
    assert figures.colour("x", ["x", "y"]) != figures.colour("y", ["x", "y"])


def test_smooth_maps_are_shares_of_their_maximum():
    smooth = overlays.smooth(5 * heat(), 70)
    assert smooth.shape == (70, 70) and smooth.min() >= 0 and 0.9 < smooth.max() <= 1
    assert np.unravel_index(smooth.argmax(), smooth.shape) == pytest.approx((55, 35), abs=2)
    assert not overlays.smooth(np.zeros((4, 4))).any()


def test_what_cannot_be_drawn_is_said():
    with pytest.raises(TableError, match="no metric 'f2'; it has auc, balanced_accuracy, f1"):
        figures.au_bars(results(), metric="f2")
    with pytest.raises(TableError, match="2 faces and 1 captions"):
        overlays.face_grid([face(), face()], ["one"])
    with pytest.raises(TableError, match="at least one row"):
        overlays.attention_gallery([])
