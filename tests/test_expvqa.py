"""The model as a person uses it, on the shipped models."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from skimage import data

import expvqa_lib as expvqa
from expvqa_lib.attention import relevance
from expvqa_lib.data import crop_face
from expvqa_lib.data.images import NO_FACE
from expvqa_lib.errors import ImageError, ModelError, SettingsError
from expvqa_lib.expvqa import INSTRUCTBLIP, hardware_note, options_for_gpu
from expvqa_lib.facs import ACTION_UNITS
from expvqa_lib.model import score_yes_no
from expvqa_lib.pipeline.profiles import BASE
from expvqa_lib.questions import ask_q1, ask_q3, read_emotion
from expvqa_lib.synthfacs import AUS, Face, Scene, random_identity, render

QUESTION = ask_q1()


@pytest.fixture(scope="module")
def base() -> expvqa.ExpVQA:
    return expvqa.load(BASE, quiet=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    """Three rendered faces as files."""
    folder, rng = tmp_path_factory.mktemp("faces"), np.random.default_rng(0)
    paths = [str(folder / f"{k}.png") for k in range(3)]
    for path, au in zip(paths, (12, 1, 27), strict=True):
        Image.fromarray(render(Face(random_identity(rng), Scene(), {au: 1.0})).image).save(path)
    return paths


def test_one_image_in_any_form_gives_one_answer_and_several_samples_are_seeded(base, files):
    answer, picture = base.ask(files[0], QUESTION), Image.open(files[0])
    assert isinstance(answer, str) and answer
    for image in (Path(files[0]), picture, np.asarray(picture), Path(files[0]).read_bytes()):
        assert base.ask(image, QUESTION) == answer
    of_opencv = cv2.imread(files[0])
    assert base.ask(of_opencv, QUESTION, bgr=True) == answer
    assert base.aus(of_opencv, bgr=True).equals(base.aus(files[0])) and not base.aus(of_opencv).equals(
        base.aus(files[0])
    )
    answers = base.ask(files[0], QUESTION, samples=3, seed=1)
    assert len(answers) == 3 and base.ask(files[0], QUESTION, samples=3, seed=1) == answers


def test_a_list_gives_a_table_with_the_answer_that_each_image_gets_alone(base, files):
    table = base.ask(files, QUESTION)
    answers = [base.ask(file, QUESTION) for file in files]
    told = {"image": files, "question": [QUESTION] * 3, "answer": answers, "notice": [None] * 3}
    assert table.to_dict("list") == told
    pd.testing.assert_frame_equal(base.ask(pd.Series(files, index=[9, 8, 7]), QUESTION), table)
    assert base.ask(files[:1], QUESTION).shape == (1, 4) and base.ask([], QUESTION).shape == (0, 4)
    samples = base.ask(files, QUESTION, samples=2)
    assert samples["image"].tolist() == [file for file in files for _ in range(2)]


def test_empty_questions_and_unknown_aus_are_refused(base, files):
    for ask, options, message in (
        (base.ask, {"question": "  \n"}, "the question is empty"),
        (base.explain, {"question": " "}, "AU number or a question"),
        (base.explain, {"au": 99}, "99"),
        (base.aus, {"aus": [99]}, "99"),
    ):
        with pytest.raises(SettingsError, match=message):
            ask(files[0], **options)


def test_unreadable_images_are_refused_by_every_method(base, files, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    for image in (tmp_path / "nobody.png", tmp_path / "notes.png", Image.new("RGB", (0, 9)), None):
        for ask in (base.ask, lambda i, _: base.aus([files[0], i]), lambda i, q: base.explain(i, question=q)):
            with pytest.raises(ImageError):
                ask(image, QUESTION)


def test_aus_are_a_row_for_one_image_and_a_table_for_a_list(model, processor, base, files):
    row, table = base.aus(files[0]), base.aus(files)
    assert row.between(0, 1).all() and list(row.index) == [f"AU{au}" for au in AUS]
    assert list(table.columns) == list(row.index) and list(table.index) == files
    np.testing.assert_allclose(table.iloc[0], row, atol=1e-4)
    np.testing.assert_allclose(base.aus(files[0], aus=[25, 12]), row[["AU25", "AU12"]], atol=1e-4)
    scores = score_yes_no(base.model, base.processor, files, AUS, wordings=range(3))
    np.testing.assert_allclose(base.aus(files, crop=False), scores, atol=1e-5)
    assert base.aus([]).shape == (0, len(AUS))
    # the tiny models are asked about the renderer's AUs, any other about all of facs, AU8 and AU21 too
    assert base.model.config.aus == expvqa.load().model.config.aus == list(AUS)
    other = expvqa.ExpVQA(model, processor).aus(files[0], crop=False)
    assert list(other.index) == [f"AU{au}" for au in ACTION_UNITS]


def test_a_model_says_what_it_is(base, model, processor):
    quick = expvqa.load()
    for each, said in (
        (quick, ("Exp-VQA quick, fine-tuned from base", "2.3 million", "96 x 96", "cpu", quick.notice)),
        (base, ("Exp-VQA base\n", "torch.float32", "action units: 1, 2, 4")),
        (expvqa.ExpVQA(model, processor), ("48 x 48 pixels", "action units: 1, 2, 4")),
    ):
        assert [part for part in said if part not in repr(each)] == [] and 3 <= len(
            repr(each).splitlines()
        ) <= 4


def test_large_models_are_explained_in_two_passes_unless_another_method_is_asked_for(
    base, files, monkeypatch
):
    assert base.explain(files[0], au=12, crop=False).method == "guided_gradients"
    monkeypatch.setattr("expvqa_lib.expvqa.LARGE", 10)
    assert base.explain(files[0], au=12, crop=False).method == "gradient_cross_attention"
    assert base.explain(files[0], au=12, method="rollout", crop=False).method == "rollout"


def test_explain_maps_a_yes_to_an_au_or_the_first_word_of_an_answer(base, files):
    about = base.model, base.processor, files[:1]
    smile = base.explain(files[0], au=12, crop=False)
    np.testing.assert_allclose(smile.heat, relevance(*about, [ask_q3(12)], targets=["yes"])[0][0], atol=1e-4)
    assert smile.p_yes == pytest.approx(base.aus(files[0], crop=False)["AU12"], abs=1e-4)
    assert smile.question == ask_q3(12) and smile.answer == ("yes" if smile.p_yes >= 0.5 else "no")
    face = base.explain(files[0], question=QUESTION, method="rollout", crop=False)
    maps, p_yes, words = relevance(*about, [QUESTION], method="rollout")
    np.testing.assert_allclose(face.heat, maps[0], atol=1e-6)
    assert (face.question, face.answer) == (QUESTION, words[0]) and face.heat.shape == (8, 8)
    assert face.p_yes == pytest.approx(float(p_yes[0])) and isinstance(face.plot(), Figure)


def test_the_face_is_cut_out_of_a_photograph_first(base):
    photo = data.astronaut()
    cropped = base.aus(photo)
    assert np.abs(cropped - base.aus(photo, crop=False)).max() > 1e-3
    np.testing.assert_allclose(base.aus(crop_face(photo)[0], crop=False), cropped, atol=1e-5)
    with pytest.warns(UserWarning, match=NO_FACE):
        table = base.ask([np.zeros((200, 400, 3), np.uint8), photo], QUESTION)
    assert table["notice"].fillna("").tolist() == [NO_FACE, ""]


def test_the_default_model_sees_a_smile_and_raised_brows_and_says_what_it_knows_of_photographs():
    model, rng = expvqa.load(), np.random.default_rng(1)
    people = [random_identity(rng) for _ in range(20)]

    def scores(aus: dict[int, float]) -> pd.DataFrame:
        return model.aus([render(Face(who, Scene(), aus)).image for who in people], aus=[1, 12])

    rest = scores({})
    assert (scores({12: 1.0, 6: 0.8})["AU12"] > rest["AU12"]).sum() >= 16  # by chance: 0.6%
    assert (scores({1: 1.0, 2: 0.8})["AU1"] > rest["AU1"]).sum() >= 16
    assert "rendered faces" in model.notice


def test_a_gpu_with_room_is_offered_the_large_model_and_else_the_note_tells_why(monkeypatch):
    def gpu(name: str, capability: tuple[int, int], free: float) -> None:
        values = {"is_available": True, "get_device_name": name, "get_device_capability": capability}
        for function, value in (values | {"mem_get_info": (int(free * 1e9),) * 2}).items():
            monkeypatch.setattr(torch.cuda, function, lambda value=value: value)

    for name, capability, free, dtype, bits in (
        ("Tesla T4", (7, 5), 15.6, "float16", 4),
        ("NVIDIA A100", (8, 0), 39, "bfloat16", None),
    ):
        gpu(name, capability, free)
        assert options_for_gpu() == {"source": INSTRUCTBLIP, "device": "cuda", "dtype": dtype, "bits": bits}
        assert name in hardware_note() and ("4 bits" in hardware_note()) == (bits == 4)
    gpu("GeForce GTX 1650", (7, 5), 3.9)
    with pytest.raises(ModelError, match="8 GB free; 4 GB are free"):
        options_for_gpu()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "tiny model" in hardware_note() and "CUDA GPU" in hardware_note()


def test_a_smile_in_a_photograph_is_happiness():
    shipped = expvqa.load(quiet=True)
    photo, rest = data.astronaut(), render(Face()).image
    smiles = [shipped.aus(image)["AU12"] for image in (photo, rest)]
    assert smiles[0] > 0.5 and smiles[0] > smiles[1]
    assert read_emotion(shipped.ask(photo, QUESTION)) == "happiness"
