"""Every figure draws from small real tables, saves a picture that is not blank, and saves the same bytes twice."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from expvqa_lib.attention.explain import Word
from expvqa_lib.errors import TableError
from expvqa_lib.evaluation import metrics
from expvqa_lib.facs import EMOTIONS
from expvqa_lib.plots import attention as storyboards
from expvqa_lib.plots import charts as figures
from expvqa_lib.plots import faces as overlays
from expvqa_lib.plots import labels as data_figures
from expvqa_lib.plots import methods as method_figures

AUS = ["AU1", "AU4", "AU12"]


def labels(rows=60, seed=0):
    table = pd.DataFrame(np.random.default_rng(seed).random((rows, 3)) < 0.4, columns=AUS).astype("Int8")
    table.loc[:5, "AU4"] = pd.NA
    return table


def results():
    y, rng = labels(), np.random.default_rng(1)
    noise = pd.DataFrame(rng.random(y.shape), columns=AUS)
    scores = {
        "prior": metrics.prior_scores(y, y.index),
        "exp_vqa": (noise + y.fillna(0).astype(float)) / 2,
        "my own": noise,
    }
    names = {"dataset": "lab", "split": "test", "resamples": 20}
    return pd.concat([metrics.au_table(y, s, model=model, **names) for model, s in scores.items()])


def face(seed=0):
    y, x = np.mgrid[:48, :48] / 48
    disc = (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.2
    return Image.fromarray(
        (255 * (0.3 + 0.6 * disc[..., None] * [0.9, 0.7, 0.5 + 0.1 * seed])).clip(0, 255).astype(np.uint8)
    )


def heat():
    y, x = np.mgrid[:7, :7]
    return np.exp(-((x - 3) ** 2 + (y - 5) ** 2) / 2)


def looked(i):
    mask = np.zeros((48, 48))
    mask[30:40, 10:38] = i
    question = "How can this person's emotion be inferred from their facial actions?"
    return {
        "image": face(i),
        "heat": heat(),
        "region": mask,
        "title": question,
        "answer": "happy, as the lip corners are pulled",
    }


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
    rows = [
        ("exp_vqa", au, m, v, v - 5, v + 5)
        for au in AUS
        for m, v in (("pointing_accuracy", 70.0), ("chance", 12.0))
    ]
    return pd.DataFrame(rows, columns=["model", "target", "metric", "value", "low", "high"])


def methods():
    kinds = [
        "pointing_region",
        *(f"{kind}_{share}" for kind in ("deletion", "insertion") for share in (0, 3.125, 25, 100)),
    ]
    of = [
        ("exp_vqa", "rollout"),
        ("exp_vqa", "cross_attention"),
        ("exp_vqa_randomised", "rollout"),
        ("exp_vqa", "centre"),
    ]
    rows = [
        (*names, target, kind, 90.0 - n)
        for names in of
        for target in ("AU1", "AU12", "macro")
        for n, kind in enumerate(kinds)
    ]
    return pd.DataFrame(rows, columns=["model", "method", "target", "metric", "value"])


def grid(labels=((1, 0, np.nan), (1, 1, 0))):
    maps, chances = np.stack([[heat()] * 3] * 2), np.array([[0.9, 0.7, 0.2], [0.4, 1.0, 0.1]])
    return storyboards.attention_grid([face(), face(1)], [1, 4, 12], maps, chances, np.array(labels))


def word(text, start, gain, row, column):
    peak = np.zeros((10, 10))
    peak[row, column] = 1
    return Word(text, start, gain, peak)


ANSWER = "The person raises inner eyebrow."
WORDS = [
    word("The", 0, 0.0, 5, 5),
    word("person", 4, 0.25, 5, 5),
    word("raises", 11, 3.0, 2, 3),
    word("inner", 18, 1.0, 8, 3),
]


def curves(truth=None):
    frames = [0, 5, 10, 15]
    chances = pd.DataFrame({"AU1": [0.1, 0.8, 0.9, 0.2], "AU12": [0.0, 0.1, 0.6, 0.3]}, frames)
    truth = (
        pd.DataFrame({"AU1": [0, 0.7, 1, 0.1], "AU12": [0, 0, 1.0, 1]}, frames) if truth is None else truth
    )
    return storyboards.video_curves({0: face(), 5: face(1), 15: face(2)}, chances, truth, present=0.35)


EMOTION = ["fear", "anger", None, "fear", "happiness", "anger"]
DRAWN = {
    "au_bars": lambda: figures.au_bars(results()),
    "au_bars_auc": lambda: figures.au_bars(results(), metric="auc", title="AUC"),
    "training_curves": lambda: figures.training_curves({"exp_vqa": log(), "exp_vqa_fz": log()}),
    "training_loss": lambda: figures.training_curves({"exp_vqa": log()[["step", "loss"]]}),
    "pointing_bars": lambda: figures.pointing_bars(pointing()),
    "method_heat": lambda: method_figures.method_heat(methods(), "pointing_region", "peaks (%)"),
    "method_curves": lambda: method_figures.method_curves(methods(), "cross_attention"),
    "confusion": lambda: figures.confusion(
        EMOTION, ["fear", None, "fear", "anger", "happiness", "anger"], list(EMOTIONS)
    ),
    "au_cooccurrence": lambda: data_figures.au_cooccurrence(labels()),
    "au_counts": lambda: data_figures.au_counts({"lab": labels(), "wild": labels(seed=2)[["AU1", "AU4"]]}),
    "emotion_counts": lambda: data_figures.emotion_counts({"wild": EMOTION}),
    "data_overview": lambda: data_figures.data_overview(
        [face(i) for i in range(3)],
        ["AU1", "none", "AU4 AU12"],
        {"lab": labels()},
        {"wild": EMOTION},
        columns=4,
    ),
    "face_grid": lambda: overlays.face_grid(
        [face(), np.asarray(face(1)), np.asarray(face(2)) / 255], ["a", "b b", "c"], columns=2
    ),
    "attention_grid": grid,
    "attention_words": lambda: storyboards.attention_words(
        face(), "Which $actions$ are there?", ANSWER, WORDS
    ),
    "video_curves": curves,
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


def test_the_grid_has_a_number_a_cell_a_frame_where_the_unit_is_and_colour_where_it_errs():
    cells = [ax for ax in grid().axes if ax.images and ax.texts]
    assert [ax.texts[0].get_text() for ax in cells] == ["0.90", "0.70", "0.20", "0.40", "1.00", "0.10"]
    assert [bool(ax.patches) for ax in cells] == [True, False, False, True, True, False]
    assert [ax.texts[0].get_color() != "white" for ax in cells] == [False, True, False, True, False, False]
    strongest = [ax.images[1].get_array()[..., 3].max() for ax in cells]
    assert np.argsort(strongest).tolist() == np.argsort([0.9, 0.7, 0.2, 0.4, 1.0, 0.1]).tolist(), (
        "a map is as strong as P(yes)"
    )
    with pytest.raises(TableError, match="2 faces and 3 action units, but .*'labels': \\(1, 3\\)"):
        grid([[1, 0, 1]])


def test_words_have_the_colour_of_their_place_and_are_grey_without_gain():
    key = storyboards.position_colours(100).astype(int)
    assert np.abs(key - key[:, ::-1]).max() <= 1, "both halves of a face share their colours"
    linear = (key / 255) ** 2.2 @ [0.2126, 0.7152, 0.0722]
    assert (1.05 / (linear + 0.05)).min() > 3, "every colour can be read on white"
    grey, pale, raises, inner = map(storyboards.word_colour, WORDS)
    assert np.ptp(grey) < 0.01 < np.ptp(pale) and np.abs(raises - inner).max() > 0.3
    fig = storyboards.attention_words(face(), "Which?", ANSWER, WORDS, shown=2)
    texts = {text.get_text(): text for text in fig.texts}
    assert [texts[w].get_fontweight() for w in ("The", "person", "raises", "inner")] == [
        "normal",
        "normal",
        "bold",
        "bold",
    ]
    np.testing.assert_allclose(texts["raises"].get_color(), raises)
    assert texts["eyebrow."].get_color() == "#8C8C8C"
    below = [ax for ax in fig.axes if len(ax.texts) == 2 and ax.texts[1].get_text().endswith("likely")]
    assert [ax.texts[0].get_text() for ax in below] == ["1  raises", "2  inner"]
    assert [ax.texts[1].get_text() for ax in below] == ["20 × as likely", "2.7 × as likely"]
    with pytest.raises(TableError, match="the words do not fit the answer 'The face'"):
        storyboards.attention_words(face(), "Which?", "The face", WORDS)


def test_a_long_answer_stays_on_the_page():
    answer = " ".join(["depresses lip corner"] * 12)
    words = [word(part, answer.index(part), 1.0, 7, 5) for part in ("depresses", "lip", "corner")]
    fig = storyboards.attention_words(face(), "Why " * 30, answer, words)
    renderer = FigureCanvasAgg(fig).get_renderer()
    ends = [text.get_window_extent(renderer) for text in fig.texts]
    assert max(end.x1 for end in ends) <= fig.bbox.x1 and max(end.y1 for end in ends) <= fig.bbox.y1
    below = max(
        ax.get_window_extent().y1
        for ax in fig.axes
        if len(ax.texts) == 2 and ax.texts[1].get_text().endswith("likely")
    )
    assert min(end.y0 for end in ends) > below, "the sentence must not run into the pictures"


def test_curves_are_the_tables_and_the_film_is_tied_to_its_frames():
    fig = curves()
    panels = [ax for ax in fig.axes if ax.collections and len(ax.lines) > 2]
    assert len(panels) == 2 and [ax.lines[-1].get_ydata().tolist() for ax in panels] == [
        [0.1, 0.8, 0.9, 0.2],
        [0.0, 0.1, 0.6, 0.3],
    ]
    assert sum(bool(ax.images) for ax in fig.axes) == 3
    (ties,) = (ax for ax in fig.axes if len(ax.lines) == 3 and not ax.collections)
    assert [line.get_xdata().tolist() for line in ties.lines] == [[0, 0], [7.5, 5], [15, 15]]
    heights = [np.unique(ax.collections[0].get_paths()[0].vertices[:, 1]).tolist() for ax in panels]
    assert heights == [[0, 0.1, 0.7, 1], [0, 1]]
    with pytest.raises(TableError, match="expected the same frames and action units in both"):
        curves(pd.DataFrame({"AU1": [0, 1]}))
    with pytest.raises(
        TableError, match="1 pictures of frames \\[0\\], 1 action units; expected two pictures or more"
    ):
        storyboards.video_curves({0: face()}, pd.DataFrame({"AU1": [1.0]}), pd.DataFrame({"AU1": [1.0]}))
