"""Every figure draws from small tables; nothing is clipped."""

import itertools

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from expvqa_lib import plots
from expvqa_lib.attention import Word
from expvqa_lib.errors import TableError
from expvqa_lib.evaluation.tables import NAMES
from expvqa_lib.facs import EMOTIONS
from expvqa_lib.plots.attention import _PLACES, word_colour
from expvqa_lib.plots.faces import smooth
from expvqa_lib.plots.style import COLOURS, colour

AUS = ["AU1", "AU4", "AU12"]
ANSWER = "The person raises inner eyebrow."


def labels(seed=0):
    table = pd.DataFrame(np.random.default_rng(seed).random((60, 3)) < 0.4, columns=AUS).astype("Int8")
    table.loc[:5, "AU4"] = pd.NA
    return table


def face(seed=0):
    y, x = np.mgrid[:48, :48] / 48
    disc = (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.2
    pixels = 255 * (0.3 + 0.6 * disc[..., None] * [0.9, 0.7, 0.5 + 0.1 * seed])
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def crossed(**values):
    """Every combination, with values that differ."""
    table = pd.DataFrame(itertools.product(*values.values()), columns=list(values))
    return table.assign(value=table.index % 9 + 80.0, low=70.0, high=95.0)


LOG = pd.DataFrame({"step": range(1, 41), "loss": 2 / np.arange(1, 41)})
CHECKED = LOG.assign(eval_loss=LOG["loss"].where(LOG["step"] % 10 == 0))
RESULTS = crossed(model=["prior", "exp_vqa", "my own"], target=[*AUS, "macro"], metric=["f1", "auc"])
RESULTS.loc[RESULTS["model"] == "my own", ["low", "high"]] = np.nan
POINTING = crossed(model=["exp_vqa"], target=AUS, metric=["pointing_accuracy", "chance"])
SHARES = [f"{kind}_{share}" for kind in ("deletion", "insertion") for share in (0, 3.125, 25, 100)]
OF = ["exp_vqa rollout", "exp_vqa cross_attention", "exp_vqa_randomised rollout", "exp_vqa centre"]
METHODS = crossed(of=OF, target=["AU1", "AU12", "macro"], metric=["pointing_region", *SHARES])
METHODS[["model", "method"]] = METHODS["of"].str.split(expand=True)
ABLATIONS = crossed(model=["prior", "base", "exp_vqa_fz", "q1_only"], question=["Q3", "Q1 actions"])
ABLATIONS["metric"] = ABLATIONS["question"].map({"Q3": "auc", "Q1 actions": "f1"})

HEAT = np.exp(-np.square(np.mgrid[:7, :7] - np.array([5, 3])[:, None, None]).sum(0) / 2)
EXAMPLE = {
    "heat": HEAT,
    "title": "How is the emotion inferred?",
    "answer": "happy, as the lip corners are up",
}
EXAMPLES = [EXAMPLE | {"image": face(k), "region": k * np.eye(48)} for k in (0, 1)]
EMOTION = ["fear", "anger", None, "fear", "happiness", "anger"]
ANSWERED = ["fear", None, "fear", "anger", "fear", "x"]
BINS = pd.DataFrame({"mean_score": [10.0, 90.0], "positives": [20.0, 80.0], "faces": [5, 50]})
MODELS = ["Label", "base", "x"]
ANSWERS = pd.DataFrame({"face": [0, 0, 1], "question": "Why?", "model": MODELS, "answer": "So"})
FRAMES = [0, 5, 10, 15]


def grid():
    maps, p_yes = np.stack([[HEAT] * 3] * 2), np.array([[0.9, 0.7, 0.2], [0.4, 1.0, 0.1]])
    labels, regions = np.array([(1, 0, np.nan), (1, 1, 0)]), [[None, None, HEAT > 0.5], [None] * 3]
    return plots.attention_grid([face(), face(1)], [1, 4, 12], maps, p_yes, labels, regions)


def word(text, start, gain, row, column):
    peak = np.zeros((10, 10))
    peak[row, column] = 1
    return Word(text, start, gain, peak)


WORDS = [word("The", 0, 0.0, 5, 5), word("person", 4, 0.25, 5, 5)]
WORDS += [word("raises", 11, 3.0, 2, 3), word("inner", 18, 1.0, 8, 3)]


def video(**changes):
    truth = pd.DataFrame({"AU1": [0, 0.7, 1, 0.1], "AU12": [0, 0, 1.0, 1]}, FRAMES)
    p_yes = pd.DataFrame({"AU1": [0.1, 0.8, 0.9, 0.2], "AU12": [0.0, 0.1, 0.6, 0.3]}, FRAMES)
    film = {frame: face(k) for k, frame in enumerate(FRAMES)}
    return plots.video_curves(film, **({"truth": truth, "p_yes": p_yes, "present": 0.35} | changes))


def overview(corpora, emotions):
    tables = {f"corpus {n}": labels(seed=n) for n in range(corpora)}
    return plots.data_overview([face(), face(1)], ["AU1", "none"], tables, emotions)


FIGURES = {
    "au_bars": lambda: plots.au_bars(RESULTS),
    "forest": lambda: plots.forest(POINTING, "Pointing", "accuracy (%)"),
    "ablation_chart": lambda: plots.ablation_chart(ABLATIONS),
    "training_curves": lambda: plots.training_curves({"exp_vqa": CHECKED, "exp_vqa_fz": LOG}),
    "pointing_bars": lambda: plots.pointing_bars(POINTING),
    "pointing_bars_of_nothing": lambda: plots.pointing_bars(POINTING.head(0)),
    "method_heat": lambda: plots.method_heat(METHODS, "pointing_region", "peaks (%)"),
    "method_curves": lambda: plots.method_curves(METHODS),
    "method_curves_of_nothing": lambda: plots.method_curves(METHODS.head(0)),
    "method_forest": lambda: plots.method_forest(METHODS, "pointing_region", "Peaks", "peaks (%)"),
    "confusion": lambda: plots.confusion(EMOTION, ANSWERED, list(EMOTIONS)),
    "reliability": lambda: plots.reliability(BINS),
    "au_cooccurrence": lambda: plots.au_cooccurrence(labels(), "Which actions come together"),
    "data_overview": lambda: overview(1, {"wild": EMOTION}),
    "data_overview_of_aus_alone": lambda: overview(2, {}),
    "data_overview_of_emotions_alone": lambda: overview(0, {"wild": EMOTION}),
    "data_overview_of_many_corpora": lambda: overview(4, {"wild": EMOTION}),
    "face_grid": lambda: plots.face_grid([face(), np.asarray(face(1)), face(2)], ["a", "b b", "c"], 2),
    "answer_grid": lambda: plots.answer_grid([face(), face(1)], ANSWERS),
    "attention_grid": grid,
    "attention_words": lambda: plots.attention_words(face(), "Which $actions$ are there?", ANSWER, WORDS),
    "attention_without_words": lambda: plots.attention_words(face(), "Which?", "...", []),
    "video_curves": video,
    "video_of_labels": lambda: video(p_yes=None, truth_name="true label"),
    "video_without_curves": lambda: video(truth=pd.DataFrame(index=FRAMES), p_yes=None),
    "attention_gallery": lambda: plots.attention_gallery(EXAMPLES),
    "face_grid_of_nothing": lambda: plots.face_grid([], []),
    "attention_gallery_of_nothing": lambda: plots.attention_gallery(pd.DataFrame()),
}


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.filterwarnings("error")
def test_a_figure_saves_a_full_picture_with_nothing_clipped_twice_the_same(name, tmp_path):
    for n in "ab":
        fig = FIGURES[name]()
        assert plots.save(fig, tmp_path / f"{n}.png") is fig
    picture, again = (np.asarray(Image.open(tmp_path / f"{n}.png").convert("L")).astype(int) for n in "ab")
    assert picture.shape[1] >= 400 and (picture < 250).mean() > 0.01
    assert np.abs(picture - again).max() <= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]
    border = [picture[0], picture[-1], picture[:, 0], picture[:, -1]]
    assert min(line.min() for line in border) == 255, "something is clipped"


def test_figures_keep_their_look_and_leave_the_readers_settings_alone(tmp_path):
    assert plots.pointing_bars(POINTING)._repr_png_().startswith(b"\x89PNG")  # in a notebook
    plots.save(plots.au_bars(RESULTS), tmp_path / "plain.png")
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        plots.save(plots.au_bars(RESULTS), tmp_path / "loud.png")
        assert mpl.rcParams["font.size"] == 30
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "loud.png").read_bytes()


def test_what_is_not_there_has_no_panel_and_is_named_and_every_model_has_a_colour_of_its_own():
    titles = [ax.get_title(loc="left") for ax in overview(1, {}).axes]
    assert "Emotions" not in titles and "How often each action unit is present" in titles
    with pytest.raises(TableError, match="'f1'"):
        plots.au_bars(RESULTS.query("metric != 'f1'"))
    assert COLOURS.keys() == NAMES.keys() and len(set(COLOURS.values())) == len(COLOURS)
    assert colour("x", ["x", "y"]) != colour("y", ["x", "y"])


def test_the_grid_has_a_number_a_cell_a_frame_where_the_unit_is_colour_where_it_errs_and_smooth_maps():
    cells = [ax for ax in grid().axes if ax.images and ax.texts]
    assert [ax.texts[0].get_text() for ax in cells] == ["0.90", "0.70", "0.20", "0.40", "1.00", "0.10"]
    assert [ax.spines["top"].get_visible() for ax in cells] == [True, False, False, True, True, False]
    assert [ax.texts[0].get_color() == "white" for ax in cells] == [True, False, True, False, True, True]
    smoothed = [ax.images[1].get_array() for ax in cells]  # shares of their maximum, times P(yes)
    assert [x.max() for x in smoothed] == pytest.approx([0.9, 0.7, 0.2, 0.4, 1.0, 0.1], rel=0.1)
    peak = np.array(np.unravel_index(smoothed[4].argmax(), smoothed[4].shape)) / len(smoothed[4])
    assert peak == pytest.approx((5.5 / 7, 3.5 / 7), abs=0.03)
    assert smoothed[4].min() >= 0 and smoothed[4].max() <= 1 and not smooth(np.zeros((4, 4))).any()
    opaque = [ax.images[1].get_alpha().max() for ax in cells]
    assert np.argsort(opaque).tolist() == np.argsort([0.9, 0.7, 0.2, 0.4, 1.0, 0.1]).tolist()


def test_the_words_of_an_answer_have_the_colour_and_number_of_their_maps_and_are_grey_without_gain():
    linear = (_PLACES / 255) ** 2.2 @ [0.2126, 0.7152, 0.0722]
    assert (1.05 / (linear + 0.05)).min() > 3, "every colour can be read on white"
    grey, pale, raises, inner = map(word_colour, WORDS)
    assert np.ptp(grey) < 0.01 < np.ptp(pale) and np.abs(raises - inner).max() > 0.3
    fig = plots.attention_words(face(), "Which?", ANSWER, WORDS)
    texts = {text.get_text().strip(): text for text in fig.findobj(mpl.text.Text)}
    np.testing.assert_allclose(texts["raises³"].get_color(), raises)
    assert texts["eyebrow."].get_color() == "#8C8C8C"
    titles = {ax.get_title(loc="left"): ax.get_xlabel() for ax in fig.axes}
    assert titles["3  raises"] == "20 × as likely" and titles["4  inner"] == "2.7 × as likely"


def test_a_long_answer_stays_on_the_page():
    answer = " ".join(["depresses lip corner"] * 12)
    words = [word(part, answer.index(part), 1.0, 7, 5) for part in ("depresses", "lip", "corner")]
    fig = plots.attention_words(face(), "Why " * 30, answer, words)
    renderer = FigureCanvasAgg(fig).get_renderer()
    plots.styled(lambda page: page.draw(renderer))(fig)
    ends = [text.get_window_extent(renderer) for text in fig.findobj(mpl.text.Text) if text.get_text()]
    assert max(end.x1 for end in ends) <= fig.bbox.x1 and max(end.y1 for end in ends) <= fig.bbox.y1
    (sentence,) = (text for text in fig.findobj(mpl.text.Text) if "Grey" in text.get_text())
    maps = max(ax.get_window_extent().y1 for ax in fig.axes if "likely" in ax.get_xlabel())
    assert sentence.get_window_extent(renderer).y0 > maps, "the sentence must not run into the pictures"


def test_curves_are_the_tables_and_every_picture_stands_over_its_frame():
    fig = video()
    strip, *panels = fig.axes
    curves = [ax.lines[0].get_ydata().tolist() for ax in panels]
    assert curves == [[0.1, 0.8, 0.9, 0.2], [0.0, 0.1, 0.6, 0.3]]
    areas = [set(ax.collections[0].get_paths()[0].vertices[:, 1].tolist()) for ax in panels]
    assert areas == [{0, 0.1, 0.7, 1}, {0, 1}]
    assert [np.mean(image.get_extent()[:2]) for image in strip.images] == [0, 5, 10, 15]
    assert strip.get_xlim() == panels[0].get_xlim()
