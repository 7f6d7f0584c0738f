"""Loading any InstructBLIP: precision, device, memory, and what is refused."""

import re
from collections import namedtuple
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration, T5Config
from transformers.utils import logging
from weights import changed, encoder_decoder, save

import expvqa_lib as expvqa
from expvqa_lib.errors import ModelError, SettingsError
from expvqa_lib.model import load_model
from expvqa_lib.model.load import placement
from expvqa_lib.training import Recipe, finetune
from tools.base_model.build import initialise

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.fixture
def folder(model, processor, tmp_path) -> Path:
    return save(model, processor, tmp_path / "mine")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_each_precision_loads_answers_scores_and_explains(folder, images, dtype):
    loaded = expvqa.load(folder, dtype=dtype, quiet=True)
    assert {p.dtype for p in loaded.model.parameters()} == {getattr(torch, dtype)}
    assert isinstance(loaded.ask(images[0], "Why?", crop=False), str)
    exact = expvqa.load(folder, quiet=True).aus(images[0], crop=False)
    assert (loaded.aus(images[0], crop=False) - exact).abs().max() < 0.05
    assert loaded.explain(images[0], au=12, crop=False).heat.max() == pytest.approx(1, abs=1e-2)


def test_one_line_on_stderr_says_how_much_memory_it_takes_and_progress_bars_stay(folder, model, capfd):
    logging.enable_progress_bar()
    load_model(folder)
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1
    assert str(folder) in err and f"{4 * model.num_parameters() / 1e9:.3f} GB on cpu" in err
    load_model(folder, dtype="bfloat16", quiet=True)
    assert capfd.readouterr() == ("", "") and logging.is_progress_bar_enabled()


def test_a_model_that_does_not_fit_is_refused_before_it_is_read(folder, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: namedtuple("memory", "available")(1000))
    (folder / "model.safetensors").unlink()  # so that reading it would be another error
    with pytest.raises(ModelError, match=r"GB on cpu .* 0\.0 GB are free.*dtype='float16'"):
        load_model(folder)


def test_bits_need_bitsandbytes_and_settings_must_be_known(folder, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(ModelError, match=r"pip install -e '\.\[quant"):
        patch.setattr("importlib.util.find_spec", lambda name: None)
        load_model(folder, bits=4)
    refused = {"bits": (3, "bits=3: expected 8 or 4"), "device": ("nowhere", "'nowhere'")}
    refused |= {"dtype": ("int8", "'int8'.*float32, bfloat16, float16")}
    for name, (value, message) in refused.items():
        with pytest.raises(SettingsError, match=message):
            load_model(folder, **{name: value})


def test_nothing_tells_people_to_install_a_strangers_project_of_our_name():
    """There is no project `expvqa` on PyPI: whoever takes the name would have his code run."""
    kinds = ("expvqa_lib/**/*.py", "*.md", "docs/*.md", "notebooks/*.ipynb")
    command = re.compile(r"pip install\s+(-\S+\s+)*[\\'\"]*expvqa(_lib)?(?![\w/-])")
    pages = {page: page.read_text("utf-8") for kind in kinds for page in ROOT.glob(kind)}
    assert len(pages) > 50 and [page for page, text in pages.items() if command.search(text)] == []


@pytest.mark.parametrize("bits", [8, 4])
def test_bits_hold_the_language_model_alone(folder, images, bits):
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="the extra `quantization` is not installed")
    loaded = expvqa.load(folder, bits=bits, quiet=True)
    kind = bitsandbytes.nn.Linear8bitLt if bits == 8 else bitsandbytes.nn.Linear4bit
    names = {name for name, part in loaded.model.named_modules() if isinstance(part, kind)}
    assert all(name.startswith("language_model.model.layers.") for name in names)
    assert {f"language_model.model.layers.0.{name}" for name in ("mlp.up_proj", "self_attn.q_proj")} <= names
    change = loaded.aus(images[0], crop=False) - expvqa.load(folder, quiet=True).aus(images[0], crop=False)
    assert 0 < change.abs().max() < 0.1


def test_large_models_go_to_an_accelerator_in_half_precision_and_small_ones_stay(monkeypatch):
    assert placement(None, None, False) == placement(None, "float32", True) == (CPU, torch.float32)
    assert placement(None, None, True) == (CPU, torch.bfloat16)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    for name, half in (("cuda", torch.bfloat16), ("mps", torch.float16)):
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda name=name: torch.device(name))
        assert placement(None, None, True) == (torch.device(name), half)
        assert placement(None, None, False) == (CPU, torch.float32)
        assert placement(None, "float32", True) == (torch.device(name), torch.float32)


def test_the_language_model_alone_can_be_held_in_half_precision(folder, model, processor, tmp_path, capfd):
    """Everything that trains is bit by bit that of the file, and what is saved is a plain InstructBLIP."""
    loaded, _ = load_model(folder, language_dtype="bfloat16")
    size = 4 * model.num_parameters() - 2 * model.language_model.num_parameters()
    assert f"{size / 1e9:.3f} GB" in capfd.readouterr().err
    assert {p.dtype for p in loaded.language_model.parameters()} == {torch.bfloat16}
    different = changed(dict(model.named_parameters()), dict(loaded.named_parameters()))
    assert all(name.startswith("language_model.") for name in different)
    config = InstructBlipConfig.from_pretrained(save(loaded, processor, tmp_path / "saved"))
    assert config.architectures == [InstructBlipForConditionalGeneration.__name__]


def test_an_encoder_decoder_answers_and_explains_but_never_trains(model, processor, images, pairs, tmp_path):
    """As in Salesforce/instructblip-flan-t5-xl."""
    other = encoder_decoder(model, 420)
    initialise(other)
    loaded = expvqa.load(save(other, processor, tmp_path / "t5"), quiet=True)
    assert not loaded.model.config.use_decoder_only_language_model
    assert isinstance(loaded.ask(images[0], "Why?", crop=False), str)
    assert len(loaded.ask(images[0], "Why?", samples=2, crop=False)) == 2
    assert loaded.explain(images[0], au=12, crop=False).heat.max() == pytest.approx(1)
    with pytest.raises(ModelError, match="decoder-only"):
        finetune(loaded.model, processor, pairs, tmp_path / "out", recipe=Recipe(steps=1))


def test_folders_without_an_instructblip_are_refused(tmp_path):
    T5Config().save_pretrained(tmp_path / "t5")
    (tmp_path / "empty").mkdir()
    messages = {"t5": "type 't5'; expected 'instructblip'", "empty": "no instructblip", "none": "none"}
    for name, message in messages.items():
        with pytest.raises(ModelError, match=f"{tmp_path / name}: .*{message}"):
            load_model(tmp_path / name)


@pytest.mark.parametrize("name", ["query_tokens", "layer.0.crossattention.attention.key.weight"])
def test_a_model_with_weights_missing_or_of_another_shape_is_refused(folder, name):
    """transformers would fill them with random numbers and answer anyway."""
    file = folder / "model.safetensors"
    weights = load_file(file)
    key = next(key for key in weights if key.endswith(name))
    whole = weights.pop(key)
    for other in ({}, {key: whole[..., :-1].contiguous()}):
        save_file(weights | other, file, metadata={"format": "pt"})
        with pytest.raises(ModelError, match=f"{folder}: .*{name}"):
            load_model(folder)
