"""The explorer, driven as a browser drives it but from Python: values are set, buttons clicked, and what it shows is read."""

from __future__ import annotations

import base64
import datetime
import io
import re
import threading

import numpy as np
import pytest
from PIL import Image
from skimage import data

import expvqa_lib as expvqa
from expvqa_lib.errors import SettingsError
from expvqa_lib.explorer.face import DRAWN, PHOTO, see
from expvqa_lib.explorer.render import WHISKERS, View, bars_html, figure_png
from expvqa_lib.explorer.worker import Latest
from expvqa_lib.model.answer import score_yes_no
from expvqa_lib.questions import ask_q1, ask_q2, ask_q3
from expvqa_lib.synthfacs import AUS

MARKUP = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def shipped() -> expvqa.ExpVQA:
    return expvqa.load()


@pytest.fixture
def explorer(shipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    explorer = expvqa.explore(shipped)
    assert explorer.wait()
    yield explorer
    explorer.stop.click()
    assert explorer.wait()


def jpeg(picture) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG")
    return buffer.getvalue()


def upload(explorer, name: str, content: bytes) -> None:
    file = {"name": name, "type": "image/jpeg", "size": len(content), "content": memoryview(content)}
    file["last_modified"] = datetime.datetime(2026, 1, 2)
    explorer.face.upload.value = (file,)
    assert explorer.wait()


def shown(explorer) -> str:
    """All the HTML on the page."""
    parts = (
        explorer.answer,
        explorer.status,
        explorer.notice,
        explorer.bars,
        explorer.past,
        explorer.looked,
        explorer.link,
    )
    return "".join(part.value for part in parts)


def picture(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def test_it_starts_with_an_answer_bars_and_a_map(explorer):
    assert explorer.view.question == ask_q3(12) and explorer.view.answer in ("yes", "no")
    assert (
        f"{explorer.view.answer}  (P(yes) = " in explorer.answer.value
        and "5 sampled" in explorer.answer.value
    )
    assert explorer.bars.value.count('class="bar"') == len(AUS)
    assert len(picture(explorer.overlay.value).convert("RGB").getcolors(10**6)) > 100
    assert explorer.stop.disabled and not explorer.save.disabled and not explorer.history


def test_a_slider_redraws_the_face_and_changes_what_the_model_sees(explorer):
    before, face, rest = explorer.view, explorer.face.picture.value, explorer.view.aus["AU12"]
    explorer.face.sliders[12].value = 1.0
    assert explorer.face.picture.value != face, "the face is drawn before the model answers"
    assert explorer.wait()
    assert (
        explorer.view.aus["AU12"] > rest + 0.3
        and explorer.view.answer == "yes"
        and explorer.view is not before
    )
    explorer.face.rest.click()
    assert (
        explorer.wait()
        and explorer.face.picture.value == face
        and explorer.view.aus["AU12"] == pytest.approx(rest, abs=1e-4)
    )


def test_whiskers_run_from_the_lowest_to_the_highest_of_the_three_wordings(explorer, shipped):
    image = see(explorer.face.chosen()).image
    each = np.stack(
        [
            score_yes_no(shipped.model, shipped.processor, [image], AUS, wordings=(k,)).iloc[0]
            for k in range(3)
        ]
    )
    np.testing.assert_allclose(explorer.view.aus, each.mean(0), atol=1e-4)
    np.testing.assert_allclose(explorer.view.spread, np.stack([each.min(0), each.max(0)], 1), atol=1e-4)
    assert explorer.bars.value.count('class="whisker"') == len(AUS) and WHISKERS in explorer.bars.value
    low, high = explorer.view.spread.loc["AU12"]
    assert (
        f'left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%" title="{low:.2f} to {high:.2f}"'
        in explorer.bars.value
    )
    without = bars_html(AUS, explorer.view.aus, None)
    assert "whisker" not in without and without.count('class="bar"') == len(AUS)


def test_the_method_of_the_map_is_chosen(explorer, shipped):
    default, shown_map = explorer.view.heat, explorer.overlay.value
    explorer.method.value = "cross_attention"
    assert explorer.wait()
    image = see(explorer.face.chosen()).image
    found = shipped.explain(image, question=ask_q3(12), method="cross_attention", crop=False).heat
    np.testing.assert_allclose(explorer.view.heat, found, atol=1e-4)
    assert (
        found.shape != default.shape
        and explorer.overlay.value != shown_map
        and explorer.view.method == "cross_attention"
    )
    explorer.kind.value = "Q1"
    assert explorer.wait() and len(explorer.view.words) > 1
    assert all(word.heat.shape == found.shape for word in explorer.view.words)
    asked, chosen = explorer.view, (explorer.word.value + 1) % len(explorer.view.words)
    explorer.live.value, explorer.word.value = False, chosen
    explorer.method.value = "guided_gradients"
    assert (
        explorer.wait()
        and explorer.word.value == chosen
        and explorer.view.word == explorer.view.words[chosen].text
    )
    assert (
        explorer.view.heat.shape == default.shape and explorer.view.samples is asked.samples
    )  # nothing else is asked again
    explorer.ask.click()
    explorer.method.value = "rollout"
    explorer.stop.click()
    assert (
        explorer.wait() and explorer.method.value == explorer.view.method
    )  # the menu says what made the map


def test_the_word_to_explain_is_chosen_among_those_of_the_answer(explorer):
    assert (
        explorer.word.layout.display == "none" and "for “" in explorer.looked.value
    )  # a yes or no is one word
    explorer.kind.value = "Q1"
    explorer.face.expression.value = "surprise"
    assert explorer.wait()
    view, shown_map = explorer.view, explorer.overlay.value
    names = [name for name, _ in explorer.word.options]
    assert explorer.word.layout.display is None and " ".join(names) == re.sub(r"[.,]", "", view.answer)
    assert (
        max(view.words, key=lambda word: word.gain).text == view.word == names[explorer.word.value]
        and len(names) > 3
    )
    other = next(k for k, word in enumerate(view.words) if np.abs(word.heat - view.heat).max() > 0.5)
    explorer.word.value = other
    assert explorer.view.word == names[other] and explorer.overlay.value != shown_map
    assert explorer.view.aus is view.aus and explorer.word.value == other
    explorer.kind.value = "Q3"
    assert explorer.wait() and explorer.word.layout.display == "none" and not explorer.view.words


def test_people_and_expressions_set_the_face(explorer):
    explorer.face.expression.value = "surprise"
    assert {au for au, slider in explorer.face.sliders.items() if slider.value} == {1, 2, 5, 25, 26}
    face = explorer.face.picture.value
    explorer.face.person.click()
    assert explorer.face.picture.value != face and explorer.face.sliders[1].value


def test_each_kind_asks_its_question_and_any_text_is_a_question_in_own_words(explorer):
    explorer.kind.value = "Q1"
    assert explorer.wait() and explorer.view.question == ask_q1()
    explorer.kind.value, explorer.area.value = "Q2", "nose"
    assert explorer.wait() and explorer.view.question == ask_q2("nose")
    explorer.kind.value, explorer.au.value = "Q3", 4
    assert explorer.wait() and explorer.view.question == ask_q3(4)
    assert explorer.bars.value.count("expvqa-asked") == 1
    explorer.question.value = "Who is it?"
    assert explorer.wait() and explorer.view.question == "Who is it?" and explorer.kind.value == "own"
    assert "expvqa-asked" not in explorer.bars.value


def test_without_asking_at_every_change_only_the_button_asks_and_it_keeps_a_history(explorer):
    explorer.live.value = False
    before = explorer.view
    explorer.face.sliders[12].value, explorer.samples.value = 1.0, 0
    assert explorer.wait() and explorer.view is before
    explorer.ask.click()
    assert explorer.wait() and explorer.view.answer == "yes" and explorer.view.samples == ()
    assert len(explorer.history) == 1 and explorer.past.value.count("expvqa-past") == 1


def test_only_the_newest_question_is_answered(explorer):
    for au in AUS[:12]:
        explorer.au.value = au
    assert explorer.wait() and explorer.view.question == ask_q3(AUS[11])
    explorer.ask.click()
    explorer.stop.click()
    assert explorer.wait() and not explorer.history and "Stopped." in explorer.status.value


def test_an_error_is_explained_in_place_and_goes_away(explorer):
    explorer.question.value = " "
    assert explorer.wait()
    assert (
        "expvqa-error" in explorer.status.value
        and "the question is empty; ask something" in explorer.status.value
    )
    assert explorer.view is None and explorer.save.disabled and explorer.overlay.layout.visibility == "hidden"
    explorer.kind.value = "Q1"
    assert (
        explorer.wait()
        and "expvqa-error" not in shown(explorer)
        and explorer.overlay.layout.visibility == "visible"
    )


def test_a_text_file_renamed_is_refused_by_its_name_and_the_last_photo_does_not_stand(explorer):
    upload(explorer, "holiday.jpg", b"Dear diary, today I was at the sea")
    assert (
        "holiday.jpg: not a picture, found text that begins" in explorer.status.value
        and "Traceback" not in shown(explorer)
    )
    assert explorer.view is None and explorer.face.picture.layout.visibility == "hidden"
    explorer.face.path.value = "nowhere.png"
    assert explorer.wait() and "nowhere.png: no such file" in explorer.status.value
    upload(explorer, "astronaut.jpg", jpeg(data.astronaut()))
    assert explorer.view.source == "astronaut.jpg" and explorer.face.picture.layout.visibility == "visible"


def test_a_photo_of_20_megapixels_is_cut_to_its_face(explorer, tmp_path):
    large = np.asarray(Image.fromarray(data.astronaut()).resize((4500, 4500)))
    explorer.face.source.value = PHOTO
    assert "Upload a photo" in explorer.status.value and "above 10 MB" in explorer.face.limit.value
    upload(explorer, "large.jpg", jpeg(large))
    cropped = explorer.view.image
    assert explorer.view.answer and max(cropped.size) <= 1024 and "expvqa-error" not in shown(explorer)
    explorer.face.crop.value = True
    assert (
        explorer.wait()
        and np.abs(
            np.asarray(cropped.resize((64, 64))) - np.asarray(explorer.view.image.resize((64, 64)))
        ).mean()
        > 5
    )
    Image.new("RGB", (400, 300), "green").save(tmp_path / "lawn.png")
    explorer.face.crop.value, explorer.face.path.value = False, "lawn.png"
    assert explorer.wait() and "No face found: the whole picture is used." in explorer.notice.value


def test_markup_in_names_questions_and_answers_is_shown_as_text(explorer):
    upload(explorer, f"{MARKUP}.jpg", b"not a picture")
    assert "&lt;img" in explorer.status.value and MARKUP not in shown(explorer)
    upload(explorer, f"{MARKUP}.jpg", jpeg(data.astronaut()))
    explorer.question.value = f"{MARKUP} $x_$ </s>"
    explorer.ask.click()
    assert explorer.wait() and explorer.history[-1].source == f"{MARKUP}.jpg"
    assert MARKUP not in shown(explorer) and explorer.past.value.count("&lt;img") == 2
    explorer.save.click()
    assert MARKUP not in explorer.link.value


def test_the_view_is_saved_as_a_picture(explorer):
    explorer.save.click()
    name, content = re.search(
        r'download="(expvqa-[\d-]+\.png)" href="data:image/png;base64,([^"]+)"', explorer.link.value
    ).groups()
    image = picture(base64.b64decode(content)).convert("RGB")
    assert image.format is None and min(image.size) > 500 and len(image.getcolors(10**7)) > 1000
    explorer.face.sliders[4].value = 1.0
    assert name not in explorer.link.value, "what is offered must be what is seen"


def test_any_text_can_stand_in_the_saved_picture():
    view = View(
        Image.new("RGB", (9, 9)), "a" * 99, "$\\frac{1$ " + "why " * 200, MARKUP * 30, samples=("$_$",) * 9
    )
    assert picture(figure_png(view)).size[0] > 500


def test_explore_takes_a_loaded_model_only():
    with pytest.raises(
        SettingsError, match=r"explore takes a loaded model, found str 'exp-vqa'; give it expvqa_lib\.load"
    ):
        expvqa.explore("exp-vqa")


def test_the_newest_job_supersedes_the_one_under_way_and_those_that_wait():
    under_way, go_on, done, failed = threading.Event(), threading.Event(), [], []

    def slow(check):
        under_way.set()
        assert go_on.wait(10)
        check()
        done.append("slow")

    def broken(check):
        raise ValueError("broken")

    work = Latest(failed.append)
    work.submit(slow)
    assert under_way.wait(10) and not work.wait(0.01)
    work.submit(lambda check: done.append("waiting"))
    work.submit(lambda check: done.append("newest"))
    go_on.set()
    assert work.wait(10) and done == ["newest"]
    work.submit(broken)
    assert work.wait(10) and [str(error) for error in failed] == ["broken"]
    work.submit(lambda check: done.append("after"))
    assert work.wait(10) and done == ["newest", "after"], "an error must not end the work for good"


def test_a_photo_is_not_asked_for_while_the_face_is_drawn(explorer):
    assert explorer.face.source.value == DRAWN and explorer.face.chosen().aus == {}
    assert explorer.face.intensities.layout.display is None
    explorer.face.source.value = PHOTO
    assert explorer.face.intensities.layout.display == "none" and explorer.face.chosen() is None
