"""Loading any InstructBLIP: precision, device, memory, and what is refused."""

from __future__ import annotations

import re
from collections import namedtuple
from pathlib import Path

import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration, T5Config
from transformers.utils import logging

import expvqa_lib as expvqa
from expvqa_lib.errors import ModelError, SettingsError
from expvqa_lib.model import beginnings, encode, load_model, score_yes_no
from expvqa_lib.model.load import _placement
from expvqa_lib.questions import ask_q3
from expvqa_lib.training import finetune
from expvqa_lib.training.recipe import Recipe
from tools.base_model.build import initialise

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(model, processor, tmp_path):
    expvqa.ExpVQA(model, processor).save(tmp_path / "mine")
    return tmp_path / "mine"


@pytest.fixture
def image(faces) -> str:
    return faces["image"].iat[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_each_precision_loads_answers_scores_and_explains(folder, image, dtype):
    loaded = expvqa.load(folder, dtype=dtype, quiet=True)
    assert {p.dtype for p in loaded.model.parameters()} == {getattr(torch, dtype)}
    assert isinstance(loaded.ask(image, "Why?", crop=False), str)
    exact = expvqa.load(folder, quiet=True).aus(image, crop=False)
    assert (loaded.aus(image, crop=False) - exact).abs().max() < 0.05
    assert loaded.explain(image, au=12, crop=False).heat.max() == pytest.approx(1, abs=1e-2)


def test_one_line_on_stderr_says_how_much_memory_it_takes_and_progress_bars_are_left_alone(
    folder, model, capfd
):
    logging.enable_progress_bar()
    load_model(folder)
    out, err = capfd.readouterr()
    assert out == "" and len(err.splitlines()) == 1
    assert str(folder) in err and f"{4 * model.num_parameters() / 1e9:.3f} GB on cpu" in err
    load_model(folder, dtype="bfloat16", quiet=True)
    assert capfd.readouterr() == ("", "") and logging.is_progress_bar_enabled()


def test_a_model_that_does_not_fit_is_refused_before_it_is_read(folder, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: namedtuple("memory", "available")(1000))
    (folder / "model.safetensors").unlink()  # so that reading it would be another error
    with pytest.raises(ModelError, match=r"GB on cpu .* 0\.0 GB are free.*dtype='float16'"):
        load_model(folder)


def test_bits_need_bitsandbytes_and_settings_must_be_known(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install -e '\.\[quantization\]'"):
        load_model(folder, bits=4)
    monkeypatch.undo()
    for options, message in (
        ({"bits": 3}, "bits=3: expected 8 or 4"),
        ({"dtype": "int8"}, "'int8'.*float32, bfloat16, float16"),
        ({"device": "nowhere"}, "'nowhere'"),
    ):
        with pytest.raises(SettingsError, match=message):
            load_model(folder, **options)
    if not torch.cuda.is_available():
        with pytest.raises(SettingsError, match="device 'cuda' cannot be used here"):
            load_model(folder, device="cuda")


def test_nothing_tells_people_to_install_a_strangers_project_of_our_name():
    """There is no project `expvqa` on PyPI: whoever takes the name would have his code run."""
    pages = [
        *ROOT.glob("expvqa_lib/**/*.py"),
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("notebooks/*"),
    ]
    command = re.compile(r"pip install\s+(-\S+\s+)*[\\'\"]*expvqa(_lib)?(?![\w/-])")
    assert len(pages) > 50
    assert [page.name for page in pages if page.is_file() and command.search(page.read_text("utf-8"))] == []


@pytest.mark.parametrize("bits", [8, 4])
def test_bits_hold_the_language_model_alone(folder, image, bits):
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="the extra `quantization` is not installed")
    loaded = expvqa.load(folder, bits=bits, quiet=True)
    kind = bitsandbytes.nn.Linear8bitLt if bits == 8 else bitsandbytes.nn.Linear4bit
    language = loaded.model.language_model
    assert isinstance(language.model.layers[0].mlp.up_proj, kind)
    assert isinstance(language.model.layers[0].self_attn.q_proj, kind)
    dense = loaded.model.qformer.encoder.layer[0].intermediate.dense
    assert not any(
        isinstance(part, kind) for part in (loaded.model.language_projection, dense, language.lm_head)
    )
    change = loaded.aus(image, crop=False) - expvqa.load(folder, quiet=True).aus(image, crop=False)
    assert 0 < change.abs().max() < 0.1


def test_large_models_go_to_an_accelerator_in_half_precision_and_small_ones_stay(monkeypatch):
    assert (
        _placement(None, None, False) == _placement(None, None, True) == (torch.device("cpu"), torch.float32)
    )
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    for name, half in (("cuda", torch.bfloat16), ("mps", torch.float16)):
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda name=name: torch.device(name))
        assert _placement(None, None, True) == (torch.device(name), half)
        assert _placement(None, None, False) == (torch.device("cpu"), torch.float32)
        assert _placement(None, "float32", True) == (torch.device(name), torch.float32)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_language_model_alone_can_be_held_in_half_precision(
    folder, model, processor, tmp_path, capfd, dtype
):
    """Everything that trains is bit by bit that of the file, and what is saved is a plain InstructBLIP."""
    loaded, _ = load_model(folder, language_dtype=dtype)
    size = 4 * model.num_parameters() - 2 * model.language_model.num_parameters()
    assert f"{size / 1e9:.3f} GB" in capfd.readouterr().err
    assert {p.dtype for p in loaded.language_model.parameters()} == {getattr(torch, dtype)}
    for name, value in loaded.named_parameters():
        if not name.startswith("language_model."):
            assert torch.equal(value, model.get_parameter(name)), name
    expvqa.ExpVQA(loaded, processor).save(tmp_path / "saved")
    architecture = InstructBlipForConditionalGeneration.__name__
    assert InstructBlipConfig.from_pretrained(tmp_path / "saved").architectures == [architecture]


def test_an_encoder_decoder_language_model_answers_scores_and_explains_but_does_not_train(
    model, processor, image, pairs, tmp_path
):
    """As in Salesforce/instructblip-flan-t5-xl."""
    text = T5Config(
        vocab_size=420, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    parts = {name: getattr(model.config, name).to_dict() for name in ("vision_config", "qformer_config")}
    config = InstructBlipConfig(**parts, text_config=text.to_dict(), num_query_tokens=4, image_token_index=3)
    torch.manual_seed(0)
    other = InstructBlipForConditionalGeneration(config)
    initialise(other)
    expvqa.ExpVQA(other, processor).save(tmp_path / "t5")
    loaded = expvqa.load(tmp_path / "t5", quiet=True)
    assert not loaded.model.config.use_decoder_only_language_model
    assert isinstance(loaded.ask(image, "Why?", crop=False), str)
    assert len(loaded.ask(image, "Why?", samples=2, crop=False)) == 2
    assert loaded.explain(image, au=12, crop=False).heat.max() == pytest.approx(1)
    text, queries = encode(processor, [ask_q3(12)]), torch.full((1, 4), 3)
    with torch.no_grad():
        logits = loaded.model(
            pixel_values=processor.image_processor([Image.open(image)], return_tensors="pt")["pixel_values"],
            qformer_input_ids=text["qformer_input_ids"],
            qformer_attention_mask=text["qformer_attention_mask"],
            input_ids=torch.cat([queries, text["input_ids"]], 1),
            attention_mask=torch.cat([torch.ones_like(queries), text["attention_mask"]], 1),
            decoder_input_ids=torch.zeros(1, 1, dtype=torch.long),
        ).logits[0, -1]
    words = [[token for (token,) in spellings] for spellings in beginnings(processor.tokenizer)]
    expected = torch.stack([logits[tokens].max() for tokens in words]).softmax(0)[0]
    score = score_yes_no(loaded.model, loaded.processor, [image], [12]).iat[0, 0]
    assert score == pytest.approx(float(expected), abs=1e-5)
    with pytest.raises(ModelError, match="decoder-only"):
        finetune(loaded.model, processor, pairs, tmp_path / "out", recipe=Recipe(steps=1))


def test_folders_without_an_instructblip_are_refused(tmp_path):
    T5Config().save_pretrained(tmp_path / "t5")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("t5", "type 't5'; expected 'instructblip'"),
        ("empty", "no instructblip"),
        ("none", "none"),
    ):
        with pytest.raises(ModelError, match=f"{tmp_path / name}: .*{message}"):
            load_model(tmp_path / name)


@pytest.mark.parametrize("name", ["query_tokens", "layer.0.crossattention.attention.key.weight"])
def test_a_model_with_weights_missing_or_of_another_shape_is_refused(folder, name):
    """transformers would fill them with random numbers and answer anyway."""
    weights = load_file(folder / "model.safetensors")
    key = next(key for key in weights if key.endswith(name))
    whole = weights.pop(key)
    for changed in ({}, {key: whole[..., :-1].contiguous()}):
        save_file(weights | changed, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelError, match=f"{folder}: .*{name}"):
            load_model(folder)


def test_a_model_cut_short_is_refused(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(ModelError, match=str(folder)):
        load_model(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "qformer_tokenizer"])
def test_a_model_without_one_of_its_tokenizers_is_refused(folder, name):
    """transformers would make one that knows no word, or read the language model's for the Q-Former."""
    (folder / name).rename(folder.parent / name)
    with pytest.raises(ModelError, match=f"{folder}: .*{name.removesuffix('.json')}"):
        load_model(folder)
