"""The explorer, driven as a browser drives it but from Python: values are set, buttons clicked."""

import base64
import datetime
import io
import re
import threading
from html import escape

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage import data

import expvqa_lib as expvqa
from expvqa_lib.attention import Word
from expvqa_lib.errors import SettingsError
from expvqa_lib.explorer.face import PHOTO, RENDERED, FaceImage
from expvqa_lib.explorer.render import Exchange, figure
from expvqa_lib.model import score_yes_no
from expvqa_lib.questions import ask_q1, ask_q2, ask_q3
from expvqa_lib.synthfacs import AUS, prototype_face, render

MARKUP = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def shipped() -> expvqa.ExpVQA:
    return expvqa.load()


@pytest.fixture
def explorer(shipped):
    explorer = expvqa.explore(shipped)
    assert explorer.wait()
    yield explorer
    explorer.stop.click()
    assert explorer.wait()


def jpeg(picture) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG")
    return buffer.getvalue()


def upload(explorer, name: str, content: bytes) -> str:
    file = {"name": name, "type": "image/jpeg", "size": len(content), "content": memoryview(content)}
    return ask(explorer, upload=(file | {"last_modified": datetime.datetime(2026, 1, 2)},))


def ask(explorer, **values) -> str:
    """Set widgets by name and wait for the answer; what the page then says."""
    for name, value in values.items():
        getattr(explorer, name, getattr(explorer.face, name, None)).value = value
    assert explorer.wait()
    return explorer.status.value + explorer.notice.value + explorer.save.value


def test_it_starts_with_an_answer_a_figure_and_all_aus_with_their_range_over_the_wordings(explorer, shipped):
    exchange, shown = explorer.exchange, Image.open(io.BytesIO(explorer.figure.value)).convert("RGB")
    assert exchange.question == ask_q3(12) and re.match(r"(yes|no)  \(P\(yes\) = 0\.\d\d\)", exchange.answer)
    assert "expvqa-answer" in explorer.status.value and exchange.answer in explorer.status.value
    assert list(exchange.aus.index) == [f"AU{au}" for au in AUS] and len(exchange.samples) == 5
    assert len(shown.getcolors(10**6)) > 100 and min(shown.size) > 500
    assert explorer.stop.disabled and explorer.save.value
    parts = shipped.model, shipped.processor, [explorer.face.chosen()().image], AUS
    each = pd.concat([score_yes_no(*parts, wordings=(k,)) for k in range(3)])
    for name in ("mean", "min", "max"):
        np.testing.assert_allclose(exchange.aus[name], each.agg(name), atol=1e-4)


def test_sliders_expressions_and_people_redraw_the_face_and_change_the_answer(explorer):
    face, before = explorer.face.picture.value, explorer.exchange.aus.loc["AU12", "mean"]
    explorer.face.sliders[12].value = 1.0
    assert explorer.face.picture.value != face, "the face is drawn before the model answers"
    assert explorer.wait() and explorer.exchange.answer.startswith("yes")
    assert explorer.exchange.aus.loc["AU12", "mean"] > before + 0.3
    explorer.face.rest.click()
    assert explorer.wait() and explorer.face.picture.value == face
    assert explorer.exchange.aus.loc["AU12", "mean"] == pytest.approx(before, abs=1e-4)
    explorer.face.expression.value = "surprise"
    assert {au for au, slider in explorer.face.sliders.items() if slider.value} == {1, 2, 5, 25, 26}
    face = explorer.face.picture.value
    explorer.face.person.click()
    assert explorer.face.picture.value != face and explorer.face.sliders[1].value


def test_the_method_of_the_map_and_the_word_to_explain_are_chosen(explorer, shipped):
    assert explorer.word.layout.display == "none"  # a yes or no is one word
    ask(explorer, method="cross_attention")
    image = explorer.face.chosen()().image
    found = shipped.explain(image, question=ask_q3(12), method="cross_attention", crop=False).heat
    np.testing.assert_allclose(explorer.exchange.words[0].heat, found, atol=1e-4)
    ask(explorer, kind="Q1", method="guided_gradients", expression="surprise")
    exchange, shown = explorer.exchange, explorer.figure.value
    names, gains = [name for name, _ in explorer.word.options], [word.gain for word in exchange.words]
    assert explorer.word.layout.display is None and " ".join(names) == re.sub(r"[.,]", "", exchange.answer)
    assert len(names) > 3 and explorer.word.value == exchange.chosen == np.argmax(gains)
    explorer.word.value = other = int(np.argmin(gains))
    assert explorer.exchange.chosen == other and explorer.figure.value != shown
    assert explorer.word.value == other and explorer.exchange.aus is exchange.aus


def test_each_kind_asks_its_question_and_any_text_is_a_question(explorer):
    for settings, question in (
        ({"kind": "Q1"}, ask_q1()),
        ({"kind": "Q2", "area": "nose"}, ask_q2("nose")),
        ({"kind": "Q3", "au": 4}, ask_q3(4)),
        ({"question": "Who is it?"}, "Who is it?"),
    ):
        ask(explorer, **settings)
        assert explorer.exchange.question == question


def test_without_asking_at_every_change_only_the_button_asks(explorer):
    before, explorer.live.value, explorer.face.sliders[12].value = explorer.exchange, False, 1.0
    ask(explorer, samples=0)
    assert explorer.exchange is before
    explorer.ask.click()
    assert explorer.wait() and explorer.exchange.answer.startswith("yes") and not explorer.exchange.samples


def test_an_error_is_explained_in_place_and_goes_away(explorer):
    assert "expvqa-error" in ask(explorer, question=" ")
    assert explorer.exchange is None and not explorer.save.value
    assert explorer.figure.layout.visibility == "hidden"
    assert "expvqa-error" not in ask(explorer, kind="Q1")
    assert explorer.figure.layout.visibility == "visible"


def test_a_text_file_renamed_is_refused_by_its_name_and_the_last_photo_does_not_stand(explorer):
    page = upload(explorer, f"{MARKUP}.jpg", b"Dear diary, today I was at the sea")
    assert f"{escape(MARKUP)}.jpg: not a picture" in page and MARKUP not in page and "Traceback" not in page
    assert explorer.exchange is None and explorer.face.picture.layout.visibility == "hidden"
    assert "nowhere.png: No such file" in ask(explorer, path="nowhere.png")
    upload(explorer, "astronaut.jpg", jpeg(data.astronaut()))
    assert explorer.exchange.face.name == "astronaut.jpg"
    assert explorer.face.picture.layout.visibility == "visible"


def test_a_photo_of_20_megapixels_is_cut_to_its_face(explorer, tmp_path):
    large = np.asarray(Image.fromarray(data.astronaut()).resize((4500, 4500)))
    assert explorer.face.source.value == RENDERED and explorer.face.rendered_tools.layout.display is None
    explorer.face.source.value = PHOTO
    assert "Upload a photo" in explorer.status.value and explorer.face.rendered_tools.layout.display == "none"
    assert "expvqa-error" not in upload(explorer, "large.jpg", jpeg(large))
    cropped = explorer.exchange.face.image
    assert max(cropped.size) <= 1024
    ask(explorer, no_crop=True)
    whole, cut = (np.asarray(i.resize((64, 64)), float) for i in (explorer.exchange.face.image, cropped))
    assert np.abs(whole - cut).mean() > 5
    Image.new("RGB", (400, 300), "green").save(tmp_path / "lawn.png")
    assert "No face found" in ask(explorer, no_crop=False, path=str(tmp_path / "lawn.png"))


def test_markup_in_names_and_questions_is_shown_as_text(explorer):
    upload(explorer, f"{MARKUP}.jpg", jpeg(data.astronaut()))
    ask(explorer, method="cross_attention", samples=0, question=f"{MARKUP} $x_$ </s>")  # a long answer
    assert explorer.exchange.face.name == f"{MARKUP}.jpg"
    assert MARKUP not in ask(explorer)


def test_the_figure_is_saved_by_one_click_as_it_is_seen(explorer):
    link = r'download="(expvqa-[\d-]+\.png)" href="data:image/png;base64,([^"]+)"'
    before = re.search(link, explorer.save.value)[2]
    assert base64.b64decode(before) == explorer.figure.value
    explorer.face.sliders[4].value = 1.0
    assert explorer.wait() and re.search(link, explorer.save.value)[2] != before


def test_a_long_question_is_told_its_limit_before_anything_is_computed(explorer, monkeypatch):
    monkeypatch.setattr(explorer.model, "ask", None)
    limit = r"has \d{3} tokens, the model reads 128"
    explorer.live.value, explorer.question.value = False, "why " * 200  # typed, not asked
    assert re.search(limit, explorer.status.value) and explorer.exchange
    explorer.ask.click()
    assert re.search(limit, explorer.status.value)
    assert explorer.exchange is None and explorer.figure.layout.visibility == "hidden"


def test_the_name_of_the_expression_follows_the_sliders(explorer):
    expression, sliders = explorer.face.expression, explorer.face.sliders
    assert expression.value == "neutral"
    expression.value = "happiness"
    sliders[4].value = 0.5
    assert expression.value == "expression …" and sliders[12].value
    sliders[4].value = 0
    assert expression.value == "happiness"
    explorer.face.rest.click()
    assert expression.value == "neutral" and not sliders[12].value


@pytest.mark.parametrize("live", [True, False])
def test_switching_to_a_photo_shows_an_empty_place(explorer, live):
    explorer.live.value, explorer.face.source.value = live, PHOTO
    hidden = explorer.face.picture.layout.visibility, explorer.figure.layout.visibility
    assert hidden == ("hidden", "hidden") and explorer.exchange is None and not explorer.save.value
    assert "Upload a photo" in explorer.status.value
    explorer.face.source.value = RENDERED
    assert explorer.wait() and explorer.figure.layout.visibility == ("visible" if live else "hidden")
    drawn = explorer.face.picture.value
    upload(explorer, "astronaut.jpg", jpeg(data.astronaut()))
    photo = explorer.face.picture.value
    for source, shown in ((RENDERED, drawn), (PHOTO, photo)):  # the chosen face, never the last answer
        explorer.face.source.value = source
        assert explorer.face.picture.value == shown
        assert live or explorer.exchange is None and explorer.figure.layout.visibility == "hidden"


def test_a_frame_of_a_video_is_asked_about(explorer, tmp_path):
    frames = [render(prototype_face(name, 1), 256).image for name in ("neutral", "surprise")]
    video = cv2.VideoWriter(str(tmp_path / "a.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 5, (256, 256))
    for frame in frames:
        video.write(np.ascontiguousarray(frame[:, :, ::-1]))
    video.release()
    upload(explorer, "a.mp4", (tmp_path / "a.mp4").read_bytes())
    assert explorer.face.frame.max == 1 and explorer.face.frame.layout.display is None
    before = explorer.exchange.aus.loc["AU26", "mean"]
    ask(explorer, frame=1)
    exchange, picture = explorer.exchange, explorer.face.picture.value
    assert exchange.face.name == "a.mp4, frame 1" and exchange.aus.loc["AU26", "mean"] > before + 0.3
    explorer.live.value, explorer.face.frame.value = False, 0
    assert explorer.face.picture.value != picture, "a chosen frame is seen before it is asked about"
    ask(explorer, path=str(tmp_path / "a.mp4"))
    assert explorer.face.frame.value == 0
    (tmp_path / "b.webm").write_text("no video")
    assert "b.webm: frame 0 cannot be read" in ask(explorer, path=str(tmp_path / "b.webm"))
    upload(explorer, "astronaut.jpg", jpeg(data.astronaut()))
    assert explorer.face.frame.layout.display == "none"


def test_any_text_can_stand_in_the_figure():
    face, words = Image.new("RGB", (9, 9)), [Word("$_$", 0, 0.0, np.eye(3))]
    aus = pd.DataFrame({"mean": [0.5], "min": [0.4], "max": [0.6]}, ["AU1"])
    question, answer = "$\\frac{1$ " + "why " * 200 + "WWWW MMM " * 20, MARKUP * 30 + "\u8868" * 60
    shown = FaceImage(face, face, "a" * 99, None)
    exchange = Exchange(
        shown, question, answer, "rollout", words, 0, aus, [*["$_$"] * 9, *"abcde"], "quick", "$ mind"
    )
    drawn = figure(exchange)
    drawn.draw_without_rendering()
    said = " ".join(text.get_text() for text in drawn.texts).replace("\n", " ")
    for whole in (question.strip(), answer, "Exp-VQA quick. $ mind", "9 × $_$", "1 × e"):
        assert "".join(whole.split()) in "".join(said.split())
    extents = [text.get_window_extent() for text in drawn.texts]
    names = [label.get_window_extent().x0 for label in drawn.axes[2].get_yticklabels()]
    assert min(extent.y0 for extent in extents) >= 0, "text below the picture"
    assert max(extent.x1 for extent in extents) < min(names), "text runs into the bars"
    assert drawn._repr_png_().startswith(b"\x89PNG")


def test_explore_takes_a_loaded_model_only():
    with pytest.raises(SettingsError, match=r"'exp-vqa'.*expvqa_lib\.load"):
        expvqa.explore("exp-vqa")


def test_a_newer_question_ends_the_one_under_way_and_a_fault_ends_nothing_else(explorer, monkeypatch):
    begun, go_on, asked = threading.Event(), threading.Event(), []

    def slow(image, question, **options):
        asked.append(question)
        begun.set()
        assert go_on.wait(10)
        return {"broken?": None}.get(question, "no")  # None is no answer: a fault

    ask(explorer, samples=0)
    monkeypatch.setattr(explorer.model, "ask", slow)
    explorer.question.value = "under way?"
    assert begun.wait(10) and not explorer.wait(0.01)
    explorer.question.value = "waiting?"
    explorer.question.value = "newest?"
    go_on.set()
    assert explorer.wait() and asked == ["under way?", "newest?"] and explorer.exchange.question == "newest?"
    assert "This is a fault: AttributeError" in ask(explorer, question="broken?")
    ask(explorer, question="after?")
    before = explorer.exchange
    assert before.question == "after?"
    begun.clear()
    go_on.clear()
    explorer.ask.click()
    assert begun.wait(10)
    explorer.stop.click()
    go_on.set()
    assert explorer.wait() and explorer.exchange is before and "Stopped." in explorer.status.value
