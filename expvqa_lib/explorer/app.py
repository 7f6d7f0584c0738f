"""The explorer: a face, a question, the answer and where the model looked, in a notebook."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from html import escape

import ipywidgets as w
import pandas as pd
import torch

from ..attention import METHODS, Word, explain_words
from ..errors import ExpVQAError, ImageError, SettingsError
from ..expvqa import ExpVQA, load
from ..facs import ACTION_UNITS, AREAS
from ..model import embed_images, score_yes_no
from ..questions import NO, Q3, YES, ask_q1, ask_q2, ask_q3
from .face import FaceChooser, FaceImage
from .render import Exchange, figure
from .worker import NewestJobOnly

SMALL = 50_000_000  # parameters: such a model answers in a tenth of a second
BOXES = {
    "answer": "font-weight:600",
    "quiet": "color:var(--jp-ui-font-color2, #666)",
    "error": "border-left:4px solid #C62828;background:#FDECEA;color:#611A15;padding:6px 10px",
    "notice": "border-left:4px solid #B8A000;background:#FFF8E1;color:#5C4A00;padding:6px 10px",
}


def explore(model: ExpVQA | None = None) -> Explorer:
    """An explorer of a model (default: `load()`), to be shown as the last line of a cell.

    Raises:
        SettingsError: `model` is something else, for instance a name.
    """
    if model is not None and not isinstance(model, ExpVQA):
        raise SettingsError(f"explore takes a loaded model, found {model!r}; give it expvqa_lib.load(...)")
    return Explorer(load() if model is None else model)


class Explorer(w.VBox):
    """Widgets of one model, which works on another thread, so that the page stays alive.

    Its parts can be set from Python: `face` (a `FaceChooser`), `kind`, `area`, `au`, `question`, `samples`,
    `method` (of `attention.METHODS`), `live`, `word` (of the answer, to be explained), and the buttons `ask`,
    `stop` and `save`. `wait` waits for the answer, `exchange` holds it.
    """

    def __init__(self, model: ExpVQA) -> None:
        self.model, self.exchange = model, None
        self._is_small = sum(part.numel() for part in model.model.parameters()) < SMALL
        self._worker = NewestJobOnly(self._show_error)
        self._make_widgets()
        answering = [
            self.kind,
            w.HBox([self.area, self.au]),
            self.question,
            w.HBox([self.method, self.samples]),
            w.HBox([self.ask, self.stop, self.live]),
            w.HBox([self.save, self.word, self.link]),
            self.status,
            self.figure,
        ]
        columns = [self.face, w.VBox(answering, layout={"width": "672px"})]
        super().__init__(
            [self.notice, w.HBox(columns, layout={"flex_flow": "row wrap", "grid_gap": "0 14px"})]
        )
        for part in (self.kind, self.area, self.au):
            part.observe(self._on_kind, "value")
        for part in (self.question, self.samples, self.method):
            part.observe(self._on_change, "value")
        self.word.observe(self._on_word, "value")
        self.ask.on_click(self._submit)
        self.stop.on_click(self._on_stop)
        self.save.on_click(self._on_save)
        self._on_kind()  # sets the first question

    def wait(self, timeout: float = 60) -> bool:
        """Wait until the answer is there; False where `timeout` seconds were not enough."""
        return self._worker.wait(timeout)

    def _make_widgets(self) -> None:
        third, half = {"width": "150px"}, {"width": "226px"}
        self.face = FaceChooser(self._on_change)
        kinds = {"Q1 face": "Q1", "Q2 area": "Q2", "Q3 action": "Q3"}
        self.kind = w.ToggleButtons(options=kinds, value="Q3", style={"button_width": "150px"})
        self.area = w.Dropdown(options=AREAS, layout=half)
        aus = [(f"AU{au} {unit.noun}", au) for au, unit in ACTION_UNITS.items()]
        self.au = w.Dropdown(options=aus, value=12, layout=half)
        self.question = w.Text(continuous_update=False, tooltip="or any question", layout={"width": "456px"})
        methods = [(f"map: {name.replace('_', ' ')}", name) for name in METHODS]
        self.method = w.Dropdown(options=methods, layout=half)
        samples = [(f"{count or 'no'} samples", count) for count in (0, 3, 5, 10)]
        self.samples = w.Dropdown(options=samples, value=5, layout=half)
        self.ask = w.Button(description="Ask", button_style="primary", icon="comment", layout=third)
        self.stop = w.Button(description="Stop", icon="stop", layout=third)
        self.live = w.Checkbox(
            value=self._is_small, description="at every change", indent=False, layout=third
        )
        self.save = w.Button(description="Save as PNG", icon="download", layout=third)
        self.link, self.status, self.notice = (
            w.HTML(),
            w.HTML(),
            w.HTML(_box("notice", self.model.notice or "")),
        )
        self.word = w.Dropdown(description="map for", layout=half)
        self.figure = w.Image(format="png", width=660)

    # ------------------------------------------------------------------------------------------------ events

    def _on_change(self, _=None, is_new_photo: bool = False) -> None:
        if self.live.value or is_new_photo:
            self._submit()

    def _on_kind(self, _=None) -> None:
        for part, kind in ((self.area, "Q2"), (self.au, "Q3")):
            part.layout.display = None if self.kind.value == kind else "none"
        asked = {"Q1": ask_q1(), "Q2": ask_q2(self.area.value), "Q3": ask_q3(self.au.value)}
        self.question.value = asked[self.kind.value]

    def _on_word(self, change: dict) -> None:
        if self.exchange and change["new"] is not None:
            self._show(replace(self.exchange, word=self.exchange.words[change["new"]]))

    def _on_stop(self, _) -> None:
        self._worker.cancel()
        self._rest("quiet", "Stopped.")

    def _on_save(self, _) -> None:
        name = f"expvqa-{datetime.datetime.now():%Y%m%d-%H%M%S}.png"
        data = base64.b64encode(self.figure.value).decode()
        self.link.value = (
            f'<a class="expvqa" download="{name}" href="data:image/png;base64,{data}">{name}</a>'
        )

    def _submit(self, _=None) -> None:
        """Ask what the widgets say."""
        chosen = self.face.chosen()
        if chosen is None:
            self._worker.cancel()
            self._rest("quiet", "Upload a photo, or give its path.")
        else:
            self.stop.disabled, self.save.disabled = False, True
            asked = self.question.value, self.method.value, self.samples.value
            self._worker.submit(partial(self._answer, chosen, *asked))

    # ----------------------------------------------------------------------------------------- on the thread

    def _answer(
        self,
        load_face: Callable[[], FaceImage],
        question: str,
        method: str,
        samples: int,
        check: Callable[[], None],
    ) -> None:
        """Ask step by step; end where something newer is wanted."""
        if self._is_small:
            torch.set_num_threads(1)  # of this thread: two would wait for one another longer than they work
        self._step(check, "Looking for the face")
        face = load_face()
        self._step(check, "Answering")
        answer = self.model.ask(face.image, question, crop=False)
        self._step(check, f"{answer}: explaining")
        answer, words = self._explained(face, question, answer, method)
        self._step(check, f"{answer}: scoring the action units")
        aus = self._scores(face)
        self._step(check, f"{answer}: sampling answers")
        sampled = self.model.ask(face.image, question, samples=samples, crop=False) if samples else ()
        check()
        best = max(words, key=lambda word: word.gain)
        self._show(Exchange(face, question, answer, method, words, best, aus, tuple(sampled)))

    def _step(self, check: Callable[[], None], doing: str) -> None:
        check()
        self.status.value = _box("quiet", f"{doing} …")

    def _explained(
        self, face: FaceImage, question: str, answer: str, method: str
    ) -> tuple[str, tuple[Word, ...]]:
        """The answer (yes or no with its probability), its words with maps; of a large model the first."""
        has_words = self.model.model.config.use_decoder_only_language_model and len(answer.split()) > 1
        if self._is_small and has_words:
            given = {"question": question, "answer": answer, "method": method}
            return answer, tuple(explain_words(self.model.model, self.model.processor, face.image, **given))
        found = self.model.explain(face.image, question=question, method=method, crop=False)
        text = f"{answer}  (P(yes) = {found.p_yes:.2f})" if found.answer in (YES, NO) else answer
        return text, (Word(found.answer, 0, 0.0, found.heat),)

    def _scores(self, face: FaceImage) -> pd.DataFrame:
        """P(yes) of each AU: mean, low, high over the wordings of Q3; of one where three take long."""
        model, processor = self.model.model, self.model.processor
        aus = getattr(model.config, "aus", None) or list(ACTION_UNITS)
        embeds = embed_images(model, processor, [face.image])
        wordings = range(len(Q3) if self._is_small or model.device.type != "cpu" else 1)
        tables = [score_yes_no(model, processor, [], aus, wordings=(k,), embeds=embeds) for k in wordings]
        return pd.concat(tables).agg(["mean", "min", "max"]).T.set_axis(["mean", "low", "high"], axis=1)

    def _show(self, exchange: Exchange) -> None:
        self.exchange = None  # so that a new list of words is no choice of one
        self.word.options = [(word.text, k) for k, word in enumerate(exchange.words)]
        self.word.value = next(k for k, word in enumerate(exchange.words) if word is exchange.word)
        self.word.layout.display = None if len(exchange.words) > 1 else "none"
        self.exchange = exchange
        self.figure.value = figure(exchange)._repr_png_()
        self.face.show(exchange.face.shown)
        self.notice.value = _box("notice", exchange.face.notice or self.model.notice or "")
        self._rest("answer", exchange.answer)

    def _show_error(self, error: Exception) -> None:
        """Explain the error in place; the answer to something else must not stand."""
        self.exchange = None
        if isinstance(error, ImageError):
            self.face.show(None)
        is_ours = isinstance(error, ExpVQAError)
        self._rest("error", str(error) if is_ours else f"This is a fault: {type(error).__name__}: {error}")

    def _rest(self, kind: str, text: str) -> None:
        """Say how it ended; nothing runs."""
        self.status.value, self.link.value = _box(kind, text), ""
        self.stop.disabled, self.save.disabled = True, self.exchange is None
        self.figure.layout.visibility = "visible" if self.exchange else "hidden"


def _box(kind: str, text: str) -> str:
    """Text in a box of one of `BOXES`."""
    style = f"line-height:1.4;overflow-wrap:anywhere;{BOXES[kind]}"
    return f'<div class="expvqa-{kind}" style="{style}">{escape(text)}</div>' if text else ""
