"""The explorer: a face, a question, the answer and where the model looked, in a notebook."""

import base64
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime
from html import escape

import ipywidgets as w
import pandas as pd
import torch

from ..attention import METHODS, Word, explain_words
from ..errors import ExpVQAError, ImageError, SettingsError
from ..expvqa import ExpVQA, load
from ..facs import ACTION_UNITS, AREAS
from ..model import embed_images, score_yes_no
from ..model.forward import MAX_QUESTION
from ..questions import NO, Q3, YES, ask_q1, ask_q2, ask_q3
from .face import FaceChooser, FaceImage
from .render import Exchange, figure

BOXES = {
    "answer": "font-weight:600",
    "quiet": "color:var(--jp-ui-font-color2, #666)",
    "error": "border-left:4px solid #C62828;background:#FDECEA;color:#611A15;padding:6px 10px",
    "notice": "border-left:4px solid #B8A000;background:#FFF8E1;color:#5C4A00;padding:6px 10px",
}


class Explorer(w.VBox):
    """Widgets of one model, which works on another thread, so that the page stays alive.

    Its parts can be set from Python: `face` (a `FaceChooser`), `kind`, `area`, `au`, `question`, `samples`,
    `method` (of `attention.METHODS`), `live`, `word` (of the answer, to be explained), and the buttons `ask`
    and `stop`; `save` is a link to the picture. `wait` waits for the answer, `exchange` holds it.
    """

    def __init__(self, model: ExpVQA) -> None:
        self.model, self.exchange, self._newest = model, None, 0
        self._is_small = model.model.num_parameters() < 50_000_000  # it answers in a tenth of a second
        # two threads of a small model would wait for one another longer than they work
        threads = 1 if self._is_small else torch.get_num_threads()
        self._thread = ThreadPoolExecutor(1, "expvqa", torch.set_num_threads, (threads,))
        self.face = FaceChooser(self._on_change)
        vars(self).update(_widgets(self._is_small))
        self.method.value = model.default_method
        self.notice.value = _box("notice", model.notice)
        answering = [
            self.kind,
            w.HBox([self.area, self.au]),
            self.question,
            w.HBox([self.method, self.samples]),
            w.HBox([self.ask, self.stop, self.live]),
            w.HBox([self.save, self.word]),
            self.status,
            self.figure,
        ]
        columns = [self.face, w.VBox(answering, layout={"width": "672px"})]
        super().__init__(
            [self.notice, w.HBox(columns, layout={"flex_flow": "row wrap", "grid_gap": "0 14px"})]
        )
        handlers = dict.fromkeys((self.kind, self.area, self.au), self._on_kind)
        handlers |= dict.fromkeys((self.question, self.samples, self.method), self._on_change)
        for widget, handler in (handlers | {self.word: self._on_word}).items():
            widget.observe(handler, "value")
        self.ask.on_click(self._submit)
        self.stop.on_click(self._on_stop)
        self._on_kind()  # sets the first question

    def wait(self, timeout: float = 60) -> bool:
        """Wait until the answer is there; False where `timeout` seconds were not enough."""
        return not wait([self._thread.submit(int)], timeout).not_done  # it runs behind all others

    # ------------------------------------------------------------------------------------------------ events

    def _on_change(self, _=None, is_other_face: bool = False, is_new_photo: bool = False) -> None:
        if is_other_face:  # the last answer must not stand beside it
            self._newest += 1
            self._refuse("quiet", "Ask about this face.")
        if self.live.value or is_new_photo:
            self._submit()
        elif hindrance := self._hindrance():
            self.status.value = _box(*hindrance)

    def _on_kind(self, _=None) -> None:
        for widget, kind in ((self.area, "Q2"), (self.au, "Q3")):
            widget.layout.display = None if self.kind.value == kind else "none"
        questions = {"Q1": ask_q1(), "Q2": ask_q2(self.area.value), "Q3": ask_q3(self.au.value)}
        self.question.value = questions[self.kind.value]

    def _on_word(self, change: dict) -> None:
        if self.exchange and change["new"] is not None:
            self._show(self.exchange._replace(chosen=change["new"]))

    def _on_stop(self, _) -> None:
        self._newest += 1
        self._rest("quiet", "Stopped.")

    def _submit(self, _=None) -> None:
        """Ask what the widgets say; what is under way is superseded."""
        self._newest += 1
        if hindrance := self._hindrance():
            self._refuse(*hindrance)
        else:
            self.stop.disabled, self.save.value = False, ""
            about = self.face.chosen(), self.question.value, self.method.value, self.samples.value
            self._thread.submit(self._run, self._answer(*about), self._newest)

    def _hindrance(self) -> tuple[str, str] | None:
        """What keeps the question from being asked: a key of `BOXES` and the text; None: nothing."""
        readers = self.model.processor.tokenizer, self.model.processor.qformer_tokenizer
        tokens = max(len(read(self.question.value)["input_ids"]) for read in readers)
        if tokens > MAX_QUESTION:
            return "error", f"The question has {tokens} tokens, the model reads {MAX_QUESTION}: shorten it."
        return None if self.face.chosen() else ("quiet", "Upload a photo or a video, or give its path.")

    # ----------------------------------------------------------------------------------------- on the thread

    def _run(self, steps: Iterator[str], number: int) -> None:
        """Take step after step, until one is done or something newer is wanted; explain an error in place."""
        try:
            for step in steps:
                if number != self._newest:
                    return
                self.status.value = _box("quiet", f"{step} …")
        except Exception as error:
            if number == self._newest:
                if isinstance(error, ImageError):
                    self.face.show(None)
                fault = "" if isinstance(error, ExpVQAError) else f"This is a fault: {type(error).__name__}: "
                self._refuse("error", f"{fault}{error}")

    def _answer(
        self, load_face: Callable[[], FaceImage], question: str, method: str, samples: int
    ) -> Iterator[str]:
        """Ask step by step, and say what comes next."""
        model, processor = self.model.model, self.model.processor
        yield "Looking for the face"
        face = load_face()
        yield "Answering"
        answer = self.model.ask(face.image, question, crop=False)
        yield f"{answer}: explaining"
        if self._is_small and model.config.use_decoder_only_language_model and len(answer.split()) > 1:
            words = explain_words(model, processor, face.image, question, answer, method=method)
        else:  # the first alone
            first = self.model.explain(face.image, question=question, method=method, crop=False)
            words = [Word(first.answer, 0, 0.0, first.heat)]
            answer += f"  (P(yes) = {first.p_yes:.2f})" if first.answer in (YES, NO) else ""
        yield f"{answer}: scoring the action units"
        aus = getattr(model.config, "aus", None) or list(ACTION_UNITS)
        embeds = embed_images(model, processor, [face.image])
        wordings = range(len(Q3) if self._is_small or model.device.type != "cpu" else 1)  # 3 can take long
        tables = [score_yes_no(model, processor, embeds, aus, wordings=(k,)) for k in wordings]
        scores = pd.concat(tables).agg(["mean", "min", "max"]).T
        yield f"{answer}: sampling answers"
        sampled = self.model.ask(face.image, question, samples=samples, crop=False) if samples else []
        yield f"{answer}: drawing"
        best = max(range(len(words)), key=lambda k: words[k].gain)
        notice = face.notice or self.model.notice
        about = face, question, answer, method, words, best, scores, sampled
        self._show(Exchange(*about, self.model.name, notice))

    def _show(self, exchange: Exchange) -> None:
        self.exchange = None  # so that a new list of words is no choice of one
        self.word.options = [(word.text, k) for k, word in enumerate(exchange.words)]
        self.word.value = exchange.chosen
        self.word.layout.display = None if len(exchange.words) > 1 else "none"
        self.exchange = exchange
        self.figure.value = figure(exchange)._repr_png_()
        self.face.show(exchange.face.shown)
        self.notice.value = _box("notice", exchange.notice)
        self._rest("answer", exchange.answer)

    def _refuse(self, kind: str, text: str) -> None:
        """Say why there is no answer; one to something else must not stand."""
        self.exchange = None
        self._rest(kind, text)

    def _rest(self, kind: str, text: str) -> None:
        """Say how it ended; nothing runs."""
        self.status.value, self.stop.disabled = _box(kind, text), True
        name, data = (
            f"expvqa-{datetime.now():%Y%m%d-%H%M%S}.png",
            base64.b64encode(self.figure.value).decode(),
        )
        link = f'download="{name}" href="data:image/png;base64,{data}"'
        self.save.value = (
            f'<a class="jupyter-button expvqa-save" {link}>Save as PNG</a>' if self.exchange else ""
        )
        self.figure.layout.visibility = "visible" if self.exchange else "hidden"


def explore(model: ExpVQA | None = None) -> Explorer:
    """An explorer of a model (default: `load()`), to be shown as the last line of a cell.

    Raises:
        SettingsError: `model` is something else, for instance a name.
    """
    if model is not None and not isinstance(model, ExpVQA):
        raise SettingsError(f"explore takes a loaded model, found {model!r}; give it expvqa_lib.load(...)")
    return Explorer(load() if model is None else model)


def _widgets(is_small: bool) -> dict[str, w.Widget]:
    """The explorer's widgets, but for the face's."""
    third, half = {"width": "150px"}, {"width": "226px"}
    return {
        "kind": w.ToggleButtons(
            options=[("Q1 face", "Q1"), ("Q2 area", "Q2"), ("Q3 action", "Q3")],
            value="Q3",
            style={"button_width": "150px"},
        ),
        "area": w.Dropdown(options=AREAS, layout=half),
        "au": w.Dropdown(
            options=[(f"AU{au} {unit.noun}", au) for au, unit in ACTION_UNITS.items()], value=12, layout=half
        ),
        "question": w.Text(continuous_update=False, tooltip="or any question", layout={"width": "456px"}),
        "method": w.Dropdown(
            options=[(f"map: {name.replace('_', ' ')}", name) for name in METHODS], layout=half
        ),
        "samples": w.Dropdown(
            options=[(f"{count or 'no'} samples", count) for count in (0, 3, 5, 10)], value=5, layout=half
        ),
        "ask": w.Button(description="Ask", button_style="primary", icon="comment", layout=third),
        "stop": w.Button(description="Stop", icon="stop", layout=third),
        "live": w.Checkbox(value=is_small, description="at every change", indent=False, layout=third),
        "word": w.Dropdown(description="map for", layout=half),
        "figure": w.Image(format="png", width=660),
    } | {name: w.HTML() for name in ("save", "status", "notice")}


def _box(kind: str, text: str | None) -> str:
    """Text in a box of one of `BOXES`."""
    style = f"line-height:1.4;overflow-wrap:anywhere;{BOXES[kind]}"
    return f'<div class="expvqa-{kind}" style="{style}">{escape(text)}</div>' if text else ""
