"""The model as a person uses it, on the shipped base."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from skimage import data
from transformers.utils import logging

import expvqa_lib as expvqa
from expvqa_lib.attention.explain import relevance
from expvqa_lib.errors import ImageError, ModelError, SettingsError
from expvqa_lib.expvqa import INSTRUCTBLIP, hardware_note, options_for_gpu
from expvqa_lib.facs import ACTION_UNITS
from expvqa_lib.model.answer import score_yes_no
from expvqa_lib.pipeline.profiles import BASE, PROFILES
from expvqa_lib.questions import ask_q1, ask_q3
from expvqa_lib.synthfacs import AUS, Face, Scene, random_identity, render

ASKED = ask_q1()


@pytest.fixture(scope="module")
def base() -> expvqa.ExpVQA:
    return expvqa.load(BASE)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    """Three drawn faces as files."""
    folder, rng = tmp_path_factory.mktemp("faces"), np.random.default_rng(0)
    paths = [folder / f"{k}.png" for k in range(3)]
    for path, au in zip(paths, (12, 1, 27), strict=True):
        Image.fromarray(render(Face(random_identity(rng), Scene(), {au: 1.0})).image).save(path)
    return [str(path) for path in paths]


# ------------------------------------------------------------------------------------------------------------------- ask


def test_one_image_gives_one_answer(base, files):
    answer = base.ask(files[0], ASKED)
    assert isinstance(answer, str) and answer
    picture = Image.open(files[0])
    for image in (Path(files[0]), picture, np.asarray(picture), Path(files[0]).read_bytes()):
        assert base.ask(image, ASKED) == answer


def test_a_list_gives_a_table_with_the_answer_that_each_image_gets_alone(base, files):
    table = base.ask(files, ASKED)
    assert list(table.columns) == ["image", "question", "answer"]
    assert table["image"].tolist() == files and set(table["question"]) == {ASKED}
    assert table["answer"].tolist() == [base.ask(f, ASKED) for f in files]
    for images in (tuple(files), pd.Series(files, index=[9, 8, 7])):
        pd.testing.assert_frame_equal(base.ask(images, ASKED), table)
    assert base.ask(files[:1], ASKED).shape == (1, 3)
    assert base.ask([], ASKED).shape == (0, 3)


def test_samples_are_several_answers_and_seeded(base, files):
    answers = base.ask(files[0], ASKED, samples=3, seed=1)
    assert isinstance(answers, list) and len(answers) == 3
    assert base.ask(files[0], ASKED, samples=3, seed=1) == answers
    table = base.ask(files, ASKED, samples=2)
    assert table["image"].tolist() == [f for f in files for _ in range(2)]


@pytest.mark.parametrize("question", ["Why? 😀", "x" * 3000, "</s><image>", "¿Qué siente?"])
def test_any_question_gets_an_answer(base, files, question):
    assert isinstance(base.ask(files[0], question), str)


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_question_is_refused(base, files, question):
    with pytest.raises(SettingsError, match="the question is empty; ask something, for instance: How can"):
        base.ask(files[0], question)
    with pytest.raises(SettingsError, match="explain needs an AU number or a question"):
        base.explain(files[0], question=question)


@pytest.mark.parametrize("samples", [0, -1])
def test_fewer_than_one_sample_is_refused(base, files, samples):
    with pytest.raises(SettingsError, match=f"samples is {samples}; expected 1 or more"):
        base.ask(files[0], ASKED, samples=samples)


def test_bad_images_are_refused_by_every_way_of_asking(base, files, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    for image, message in (
        (tmp_path / "nobody.png", r"nobody\.png: no such file"),
        (Image.new("RGB", (0, 9)), "an image of 0 x 9 pixels holds nothing"),
        (tmp_path / "notes.png", "not a picture"),
        (None, "an image is a path"),
    ):
        for ask in (base.ask, lambda i, _: base.aus(i), lambda i, q: base.explain(i, question=q)):
            with pytest.raises(ImageError, match=message):
                ask(image, ASKED)
        with pytest.raises(ImageError, match=message):
            base.aus([files[0], image])


# ------------------------------------------------------------------------------------------------------- aus and explain


def test_a_model_is_asked_about_all_aus_that_it_can_answer(model, processor, base, files):
    """The tiny model has seen no AU that the renderer cannot draw; any other model answers all of `facs`, AU8 and AU21 included."""
    assert base.model.config.aus == list(AUS)
    assert list(base.aus(files[0]).index) == [f"AU{au}" for au in AUS]
    row = expvqa.ExpVQA(model, processor).aus(files[0], crop=False)
    assert list(row.index) == [f"AU{au}" for au in ACTION_UNITS] and {"AU8", "AU21"} <= set(row.index)


def test_an_explained_question_has_the_map_the_word_and_p_yes_of_relevance(base, files):
    found = base.explain(files[0], question=ask_q3(12), crop=False)
    maps, p_yes, words = relevance(base.model, base.processor, files[:1], [ask_q3(12)])
    np.testing.assert_allclose(found.heat, maps[0], atol=1e-6)
    assert found.answer == words[0] and found.p_yes == pytest.approx(float(p_yes[0]))


def test_aus_are_a_row_for_one_image_and_a_table_for_a_list(base, files):
    row, table = base.aus(files[0]), base.aus(files)
    assert isinstance(row, pd.Series) and list(row.index) == [f"AU{au}" for au in AUS]
    assert row.between(0, 1).all() and row.notna().all()
    assert list(table.columns) == list(row.index) and list(table.index) == files
    np.testing.assert_allclose(table.iloc[0], row, atol=1e-4)
    np.testing.assert_allclose(base.aus(files[0], aus=[25, 12]), row[["AU25", "AU12"]], atol=1e-4)
    np.testing.assert_allclose(
        base.aus(files, crop=False),
        score_yes_no(base.model, base.processor, files, AUS, wordings=range(3)),
        atol=1e-5,
    )
    assert base.aus([]).shape == (0, len(AUS))
    with pytest.raises(SettingsError, match="AU 3 is unknown"):
        base.aus(files[0], aus=[3])


def test_explain_says_where_it_looked(base, files):
    found = base.explain(files[0], au=12)
    assert found.question == ask_q3(12) and found.p_yes == pytest.approx(base.aus(files[0])["AU12"], abs=1e-4)
    assert found.heat.shape == (96, 96) and found.heat.max() == pytest.approx(1) and found.heat.min() >= 0
    assert isinstance(found.plot(), matplotlib.figure.Figure)
    maps, chance, _ = relevance(base.model, base.processor, files[:1], [ask_q3(12)], targets=["yes"])
    np.testing.assert_allclose(base.explain(files[0], au=12, crop=False).heat, maps[0], atol=1e-4)
    assert base.explain(files[0], au=12, method="rollout").heat.shape == (8, 8)
    assert base.explain(files[0], question=ASKED).question == ASKED
    with pytest.raises(SettingsError, match="explain needs an AU number or a question"):
        base.explain(files[0])
    with pytest.raises(SettingsError, match="AU 99 is unknown"):
        base.explain(files[0], au=99)


def test_the_face_is_cut_out_of_a_photograph_first(base):
    photo = data.astronaut()
    cropped, whole = base.aus(photo), base.aus(photo, crop=False)
    assert np.abs(cropped - whole).max() > 1e-3
    from expvqa_lib.data.face_crop import crop_face

    np.testing.assert_allclose(base.aus(crop_face(photo).image, crop=False), cropped, atol=1e-5)


# ------------------------------------------------------------------------------------------------------- loading, saving


def test_loading_is_quiet_gives_float32_and_leaves_transformers_as_it_was(capfd):
    logging.enable_progress_bar()
    model = expvqa.load(str(BASE), quiet=True)
    out, err = capfd.readouterr()
    assert out == err == ""
    assert logging.is_progress_bar_enabled()
    assert {p.dtype for p in model.model.parameters()} == {torch.float32} and not model.model.training
    assert "drawn faces" in model.notice


def test_a_saved_model_answers_the_same(base, files, tmp_path):
    base.save(tmp_path / "mine")
    again = expvqa.load(tmp_path / "mine")
    pd.testing.assert_frame_equal(again.aus(files), base.aus(files))
    assert again.ask(files[1], ASKED) == base.ask(files[1], ASKED)


def test_the_base_is_small_and_tells_what_it_is():
    assert sum(path.stat().st_size for path in BASE.rglob("*")) < 12_000_000
    card = (BASE / "README.md").read_text()
    assert (
        "No AU or emotion label of an image entered it" in card
        and "tools.base_model.pretrain" in card
        and "{" not in card
    )


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", tmp_path / "nothing"):
        with pytest.raises(ModelError, match=f"{place}: no InstructBLIP model could be loaded"):
            expvqa.load(place)


def test_a_model_cut_short_is_refused(tmp_path):
    folder = tmp_path / "half"
    shutil.copytree(BASE, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(ModelError, match=str(folder)):
        expvqa.load(folder)


@pytest.mark.parametrize(
    "name", ["query_tokens", "qformer.encoder.layer.0.crossattention.attention.key.weight"]
)
def test_a_model_with_weights_missing_or_of_another_shape_is_refused(tmp_path, name):
    """transformers would fill them with random numbers and answer anyway."""
    folder = tmp_path / "mine"
    shutil.copytree(BASE, folder)
    weights = load_file(folder / "model.safetensors")
    (key,) = [k for k in weights if k.endswith(name)]
    whole = weights.pop(key)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"{folder}: .*{name}"):
        expvqa.load(folder)
    save_file(
        weights | {key: whole[..., :-1].contiguous()}, folder / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(ModelError, match=f"{folder}: .*{name}"):
        expvqa.load(folder)


def test_the_package_imports_without_torch():
    code = "import sys, expvqa_lib; print('torch' in sys.modules, sorted(expvqa_lib.__all__))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False ['ExpVQA', 'Run', 'explore', 'load']"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        expvqa.nothing  # noqa: B018


# ------------------------------------------------------------------------------------------------------ the quick model


def test_the_default_model_sees_a_smile_and_raised_brows():
    model, rng = expvqa.load(), np.random.default_rng(1)
    people = [random_identity(rng) for _ in range(20)]

    def chances(aus: dict[int, float]) -> pd.DataFrame:
        return model.aus([render(Face(who, Scene(), aus)).image for who in people], aus=[1, 12])

    rest = chances({})
    assert (chances({12: 1.0, 6: 0.8})["AU12"] > rest["AU12"]).sum() >= 16  # by chance: 0.6%
    assert (chances({1: 1.0, 2: 0.8})["AU1"] > rest["AU1"]).sum() >= 16
    assert isinstance(model.ask(render(Face()).image, ASKED), str)


# ------------------------------------------------------------------------------------------------------- the large model


@pytest.fixture
def gpu(monkeypatch):
    """Puts a CUDA GPU into the machine: its name, compute capability and free memory in GB."""

    def plug_in(name: str, capability: tuple[int, int], free: float) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (int(free * 1e9), int(free * 1e9)))

    return plug_in


def test_a_t4_holds_the_large_model_in_4_bits(gpu):
    gpu("Tesla T4", (7, 5), 15.6)
    options = {"source": INSTRUCTBLIP, "device": "cuda", "dtype": "float16", "bits": 4}
    assert options_for_gpu() == options
    assert "Tesla T4" in hardware_note() and "4 bits" in hardware_note() and "`big = True`" in hardware_note()


def test_a_gpu_with_room_holds_the_large_model_in_half_precision(gpu):
    gpu("NVIDIA A100", (8, 0), 39)
    options = {"source": INSTRUCTBLIP, "device": "cuda", "dtype": "bfloat16", "bits": None}
    assert options_for_gpu() == options
    assert "NVIDIA A100" in hardware_note() and "bits" not in hardware_note()


def test_where_the_large_model_does_not_fit_the_note_tells_why(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "tiny model" in hardware_note() and "CUDA GPU" in hardware_note()
    gpu("GeForce GTX 1650", (7, 5), 3.9)
    with pytest.raises(ModelError, match="8 GB.*GeForce GTX 1650.*4 GB"):
        options_for_gpu()


def test_the_large_model_is_the_one_that_the_paper_profile_starts_from():
    assert PROFILES["paper"].base == INSTRUCTBLIP
