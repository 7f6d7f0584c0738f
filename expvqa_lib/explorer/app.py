"""The explorer: a face, a question, the answer and where the model looked, in a notebook."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import replace

import ipywidgets as w
import pandas as pd
import torch
from PIL import Image

from .. import questions
from ..attention.explain import METHODS, explain_words
from ..errors import ExpVQAError, ImageError, SettingsError
from ..expvqa import ExpVQA, load
from ..facs import ACTION_UNITS, AREAS
from ..model.answer import embed_images, score_yes_no
from ..synthfacs import AUS, Face
from . import render as views
from .face import FaceChooser, Photo
from .render import View
from .worker import Latest

KINDS = {"Q1 face": "Q1", "Q2 area": "Q2", "Q3 action": "Q3", "own words": "own"}
SMALL = 50_000_000  # parameters: such a model answers in a tenth of a second
_KEPT = 30  # entries of the history


def explore(model: ExpVQA | None = None) -> Explorer:
    """An explorer of a model (default: `load()`): make it the last line of a cell in JupyterLab, Notebook or Colab.

    Raises:
        SettingsError: `model` is something else, for instance a name; `load` it first.
    """
    if model is not None and not isinstance(model, ExpVQA):
        raise SettingsError(
            f"explore takes a loaded model, found {type(model).__name__} {model!r}; give it expvqa_lib.load(...)"
        )
    return Explorer(load() if model is None else model)


class Explorer(w.VBox):
    """Widgets of one model. It is asked on another thread, so that the page stays alive, and only the newest question counts.

    Its parts can be set from Python: `face` (a `FaceChooser`), `kind`, `area`, `au`, `question`, `samples`, `live`, `method` (of
    `attention.METHODS`), `word` (the one of the answer that is explained), and the buttons `ask`, `stop` and `save`. `wait` waits for the
    answer, `view` holds it, `history` holds what was asked for by the button.
    """

    def __init__(self, model: ExpVQA) -> None:
        self.model, self.view, self.history = model, None, []
        self._wanted = False  # in the history: kept while a later change, say of a slider still moving, takes a question's place
        self._arranging = False  # the words to choose from are being changed, and nobody chose one
        self._is_small = sum(part.numel() for part in model.model.parameters()) < SMALL
        self._worker = Latest(self._show_error)
        self.face = FaceChooser(self._on_face)
        self._make_question()
        self._make_results()
        super().__init__(self._arranged())
        for part in (self.kind, self.area, self.au):
            part.observe(self._on_kind, "value")
        self.question.observe(self._on_question, "value")
        for part in (self.question, self.samples):
            part.observe(self._on_change, "value")
        self.method.observe(self._on_method, "value")
        self.word.observe(self._on_word, "value")
        self.ask.on_click(lambda _: self._submit(keep=True))
        self.stop.on_click(self._on_stop)
        self.save.on_click(self._on_save)
        self._show(None)
        self._on_kind()  # sets the first question

    def wait(self, timeout: float = 60) -> bool:
        """Wait until the answer is there; False where `timeout` seconds were not enough."""
        return self._worker.wait(timeout)

    # ------------------------------------------------------------------------------------------------- the widgets

    def _make_question(self) -> None:
        self.kind = w.ToggleButtons(options=KINDS, value="Q3", style={"button_width": "112px"})
        self.area = w.Dropdown(options=AREAS, layout=w.Layout(width="226px"))
        names = [(f"AU{au} {unit.noun}", au) for au, unit in ACTION_UNITS.items()]
        self.au = w.Dropdown(options=names, value=12, layout=w.Layout(width="226px"))
        counts = [("no samples", 0), ("3 samples", 3), ("5 samples", 5), ("10 samples", 10)]
        self.samples = w.Dropdown(options=counts, value=5, layout=w.Layout(width="112px"))
        self.question = w.Text(continuous_update=False, layout=w.Layout(width="456px"))
        self.ask = w.Button(
            description="Ask", button_style="primary", icon="comment", layout=w.Layout(width="112px")
        )
        self.stop = w.Button(description="Stop", icon="stop", disabled=True, layout=w.Layout(width="112px"))
        self.live = w.Checkbox(
            value=self._is_small,
            description="ask at every change",
            indent=False,
            layout=w.Layout(width="170px"),
        )

    def _make_results(self) -> None:
        self.progress = w.IntProgress(
            max=5, layout=w.Layout(width="456px", height="8px", visibility="hidden")
        )
        self.status, self.notice, self.answer, self.bars = w.HTML(), w.HTML(), w.HTML(), w.HTML()
        self.overlay = w.Image(format="png", width=views.SIDE, height=views.SIDE)
        self.word = w.Dropdown(layout=w.Layout(width="224px", display="none"))
        able = self.model.model.config.use_decoder_only_language_model
        methods = [method for method in METHODS if able or method != "language_attention"]
        self.method = w.Dropdown(
            options=[(method.replace("_", " "), method) for method in methods], layout=w.Layout(width="224px")
        )
        self.looked, self.heading, self.past, self.link = w.HTML(), w.HTML(), w.HTML(), w.HTML()
        self.save = w.Button(
            description="Save as PNG", icon="download", disabled=True, layout=w.Layout(width="130px")
        )

    def _arranged(self) -> list[w.Widget]:
        looked = w.VBox(
            [self.looked, self.word, self.method, self.overlay],
            layout=w.Layout(width="228px", justify_content="flex-end"),
        )
        left = [
            w.HBox([self.face, looked]),
            self.notice,
            self.kind,
            w.HBox([self.area, self.au, self.samples]),
            self.question,
            w.HBox([self.ask, self.stop, self.live]),
            self.progress,
            self.status,
            self.answer,
        ]
        past = [w.HTML(views.box("title", "History")), self.past, w.HBox([self.save, self.link])]
        right = [self.heading, w.HBox([self.bars, self.face.intensities])]
        columns = [
            w.VBox(left, layout=w.Layout(width="466px")),
            w.VBox(right, layout=w.Layout(width="446px")),
        ]
        warning = w.HTML(views.STYLE + views.box("notice", self.model.notice or ""))
        return [warning, w.HBox(columns, layout=w.Layout(flex_flow="row wrap", grid_gap="0 14px")), *past]

    # ------------------------------------------------------------------------------------------------------- events

    def _on_face(self, now: bool) -> None:
        self._show_heading()
        if now:
            self._submit()
        else:
            self._on_change()

    def _on_kind(self, _=None) -> None:
        for part, kind in ((self.area, "Q2"), (self.au, "Q3")):
            part.layout.display = None if self.kind.value == kind else "none"
        if self.kind.value != "own":
            self.question.value = self._preset()
        self._show_bars()

    def _on_question(self, change: dict) -> None:
        if self.kind.value != "own" and change["new"] != self._preset():
            self.kind.value = "own"

    def _on_change(self, _=None) -> None:
        self.link.value = ""
        if self.live.value:
            self._submit()

    def _on_method(self, _) -> None:
        """A question under way is asked again; an answer that is there is only explained again."""
        if not self.stop.disabled:
            self._submit()
        elif self.view and self.view.method != self.method.value:
            self.link.value = ""
            view, method, word = self.view, self.method.value, self.word.value
            self._start(lambda check: self._explain_again(check, replace(view, method=method), word))

    def _on_word(self, change: dict) -> None:
        if not self._arranging and self.view and change["new"] is not None:
            self.link.value = ""
            self._show(self.view.explaining(self.view.words[change["new"]]))

    def _on_stop(self, _) -> None:
        self._worker.cancel()
        self._wanted = False
        self._rest("Stopped.")
        if self.view:
            self.method.value = self.view.method  # of the map that stays

    def _on_save(self, _) -> None:
        content = views.figure_png(
            self.view
        )  # here, not on the thread: matplotlib's styles are shared by all threads
        name = f"expvqa-{datetime.datetime.now():%Y%m%d-%H%M%S}.png"
        self.link.value = f'<a class="expvqa" download="{name}" href="{views.data_url(content)}">{name} ({len(content) // 1024} kB)</a>'

    # ------------------------------------------------------------------------------------------------------- asking

    def _preset(self) -> str:
        if self.kind.value == "Q1":
            return questions.ask_q1()
        return (
            questions.ask_q2(self.area.value) if self.kind.value == "Q2" else questions.ask_q3(self.au.value)
        )

    def _submit(self, keep: bool = False) -> None:
        """Ask what the widgets say now; with `keep` it goes to the history."""
        chosen = self.face.chosen()
        if chosen is None:
            self._worker.cancel()
            self._rest("Upload a photo, or give its path.")
            return
        self._wanted |= keep
        question, samples, method = self.question.value, self.samples.value, self.method.value
        self._start(lambda check: self._work(check, chosen, question, samples, method))

    def _start(self, job: Callable[[Callable[[], None]], None]) -> None:
        self.stop.disabled, self.save.disabled = False, True
        self.progress.value, self.progress.layout.visibility = 0, "visible"
        self._worker.submit(job)

    def _work(
        self, check: Callable[[], None], chosen: Face | Photo, question: str, samples: int, method: str
    ) -> None:
        """On the thread: ask step by step, and show what is there after each."""
        if self._is_small:
            torch.set_num_threads(1)  # of this thread: two would wait for one another longer than they work
        self._step(check, "Looking for the face")
        seen = self.face.see(chosen)
        check()
        self.notice.value = views.box("notice", seen.notice or "")
        if isinstance(chosen, Photo):
            self.face.show(seen.shown)
        self._step(check, "Answering")
        answer = self.model.ask(seen.image, question, crop=False)
        view = View(seen.shown, seen.name, question, answer, seen=seen.image, method=method)
        self._step(check, "Explaining", view)
        view = self._explained(view)
        self._step(check, "Scoring the action units", view)
        aus, spread = self._scored(seen.image)
        view = replace(
            self.view, aus=aus, spread=spread
        )  # of what is shown: another word may have been chosen meanwhile
        if samples:
            self._step(check, "Sampling answers", view)
            told = tuple(self.model.ask(seen.image, question, samples=samples, crop=False))
            view = replace(self.view, samples=told)
        check()
        if self._wanted:
            self._wanted = False
            self.history = [*self.history, view][-_KEPT:]
        self._show(view)
        self._rest("")

    def _explain_again(self, check: Callable[[], None], view: View, word: int | None) -> None:
        """On the thread: the same answer and word, by the method that the view names."""
        self._step(check, "Explaining")
        view = self._explained(view)
        check()
        self._show(view if word is None else view.explaining(view.words[word]))
        self._rest("")

    def _explained(self, view: View) -> View:
        """With a map for the word that the picture made likelier by most; of a yes, a no or a large model for the first word alone."""
        if (
            self._is_small
            and len(view.answer.split()) > 1
            and self.model.model.config.use_decoder_only_language_model
        ):
            words = explain_words(
                self.model.model,
                self.model.processor,
                view.seen,
                view.question,
                view.answer,
                method=view.method,
            )
            return replace(view, words=tuple(words)).explaining(max(words, key=lambda word: word.gain))
        found = self.model.explain(view.seen, question=view.question, method=view.method, crop=False)
        return replace(view, heat=found.heat, word=found.answer, p_yes=found.p_yes)

    def _scored(self, image: Image.Image) -> tuple[pd.Series, pd.DataFrame | None]:
        """P(yes) of each AU: the mean over the wordings of Q3, with the lowest and the highest. Where that takes long, one wording."""
        model, processor = self.model.model, self.model.processor
        embeds = embed_images(model, processor, [image])
        wordings = range(len(questions.Q3)) if self._is_small or model.device.type != "cpu" else (0,)
        each = pd.concat(
            [score_yes_no(model, processor, [], AUS, wordings=(k,), embeds=embeds) for k in wordings]
        )
        return each.mean(), pd.DataFrame({"low": each.min(), "high": each.max()}) if len(each) > 1 else None

    def _step(self, check: Callable[[], None], doing: str, view: View | None = None) -> None:
        """Between two steps: end here if something newer is wanted, else show what is there and say what comes."""
        check()
        if view:
            self._show(view)
        self.progress.value += 1
        self.status.value = views.box("quiet", f"{doing} …")

    # ------------------------------------------------------------------------------------------------------ showing

    def _show(self, view: View | None) -> None:
        self.view = view
        self.answer.value = views.answer_html(view)
        if view and view.heat is not None:
            self.overlay.value = views.overlay_png(view)
        if view is None or view.heat is not None:  # while an answer is being explained the last map stays
            self.overlay.layout.visibility = "visible" if view else "hidden"
        self._show_words()
        self.past.value = views.history_html(self.history)
        self._show_bars()
        self._show_heading()

    def _show_words(self) -> None:
        """The word that is explained: of several the one chosen among them."""
        words = self.view.words if self.view else ()
        self._arranging = True
        self.word.options = [(word.text, k) for k, word in enumerate(words)]
        self.word.value = next((k for k, word in enumerate(words) if word.heat is self.view.heat), None)
        self.word.layout.display = None if words else "none"
        self._arranging = False
        word = (
            f" for “{self.view.word}”"
            if self.view and self.view.word and not words
            else " for the word"
            if words
            else ""
        )
        self.looked.value = views.box("title", f"Where it looked{word}")

    def _show_bars(self) -> None:
        if (
            self.view is None or self.view.aus is not None
        ):  # until there are new ones the old ones stay, or they would flicker
            chances, spread = (self.view.aus, self.view.spread) if self.view else (None, None)
            self.bars.value = views.bars_html(
                AUS, chances, self.au.value if self.kind.value == "Q3" else None, spread
            )

    def _show_heading(self) -> None:
        drawn = "; sliders: how strongly it is drawn" if self.face.is_drawn else ""
        self.heading.value = views.box("title", f"Action units: probability of yes{drawn}")

    def _show_error(self, error: Exception) -> None:
        """Where there is no answer, that of something else must not stand."""
        self._wanted = False
        known = isinstance(error, ExpVQAError)
        if isinstance(error, ImageError):
            self.face.show(None)
        self._show(None)
        self._rest("")
        self.status.value = views.box(
            "error", str(error) if known else f"This should not happen: {type(error).__name__}: {error}"
        )

    def _rest(self, text: str) -> None:
        """Nothing is under way."""
        self.status.value = views.box("quiet", text)
        self.stop.disabled, self.progress.layout.visibility = True, "hidden"
        self.save.disabled = self.view is None
