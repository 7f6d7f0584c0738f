"""Loading any InstructBLIP: precision, device, memory, and what is refused."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch
from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration, T5Config

import expvqa_lib as expvqa
from expvqa_lib.errors import ModelError, SettingsError
from expvqa_lib.expvqa import ExpVQA
from expvqa_lib.model import load as loading
from expvqa_lib.model.answer import score_yes_no
from expvqa_lib.model.load import load_model, memory_needed
from expvqa_lib.training.finetune import finetune
from expvqa_lib.training.recipe import Recipe
from tools.base_model.build import initialise


@pytest.fixture
def folder(model, processor, tmp_path):
    ExpVQA(model, processor).save(tmp_path / "mine")
    return tmp_path / "mine"


@pytest.fixture
def image(faces) -> str:
    return faces["image"].iat[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", torch.bfloat16])
def test_each_precision_loads_asks_scores_and_explains(folder, image, dtype):
    loaded = expvqa.load(folder, dtype=dtype, quiet=True)
    assert {p.dtype for p in loaded.model.parameters()} == {getattr(torch, str(dtype).removeprefix("torch."))}
    assert isinstance(loaded.ask(image, "Why?", crop=False), str)
    whole = expvqa.load(folder, quiet=True)
    assert (loaded.aus(image, crop=False) - whole.aus(image, crop=False)).abs().max() < 0.05
    assert loaded.explain(image, au=12, crop=False).heat.max() == pytest.approx(1, abs=1e-2)


def test_one_line_says_how_much_memory_it_takes(folder, model, capfd):
    load_model(folder)
    out, err = capfd.readouterr()
    size = f"{model.num_parameters() / 1e6:,.1f} million parameters take {4 * model.num_parameters() / 1e9:.3f} GB in float32 on cpu"
    assert out == "" and err.splitlines() == [err.strip()] and f"{folder}: {size}" in err
    load_model(folder, dtype="bfloat16", quiet=True)
    assert capfd.readouterr() == ("", "")


def test_memory_is_counted_by_precision_and_bits(model):
    everything = sum(p.numel() for p in model.parameters())
    linear = sum(
        m.weight.numel() for m in model.language_model.model.modules() if isinstance(m, torch.nn.Linear)
    )
    assert memory_needed(model, torch.float32) == 4 * everything
    assert memory_needed(model, torch.float16, bits=4) == 2 * everything - 2 * linear + linear // 2
    assert memory_needed(model, torch.float16, bits=8) == 2 * everything - linear
    words = sum(p.numel() for p in model.language_model.parameters())
    assert memory_needed(model, torch.float32, torch.float16) == 4 * everything - 2 * words


def test_what_does_not_fit_is_refused_before_it_is_read(folder, monkeypatch):
    memory = namedtuple("memory", "available")
    monkeypatch.setattr(loading.psutil, "virtual_memory", lambda: memory(1000))
    (folder / "model.safetensors").unlink()  # so that reading it would be another error
    with pytest.raises(
        ModelError,
        match=r"does not fit: .* GB in float32 on cpu \(0\.0 GB free\); try dtype='bfloat16' or dtype='float16'",
    ):
        load_model(folder)


def test_bits_without_the_extra_and_unknown_settings_are_named(folder, monkeypatch):
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ModelError,
        match=r"4 bits need bitsandbytes, which is not installed: pip install 'expvqa\[quantization\]'",
    ):
        load_model(folder, bits=4)
    monkeypatch.undo()
    for options, message in (
        ({"bits": 3}, "bits=3: expected 8 or 4"),
        ({"dtype": "int8"}, "dtype 'int8' is unknown; known are float32, bfloat16, float16"),
        ({"device": "nowhere"}, "device 'nowhere' cannot be used here"),
    ):
        with pytest.raises(SettingsError, match=message):
            load_model(folder, **options)
    if not torch.cuda.is_available():
        with pytest.raises(SettingsError, match="device 'cuda' cannot be used here"):
            load_model(folder, device="cuda")


@pytest.mark.parametrize("bits", [8, 4])
def test_bits_hold_the_language_model_alone(folder, image, bits):
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="the extra `quantization` is not installed")
    loaded = expvqa.load(folder, bits=bits, quiet=True)
    kind = bitsandbytes.nn.Linear8bitLt if bits == 8 else bitsandbytes.nn.Linear4bit
    layer = loaded.model.language_model.model.layers[0]
    assert isinstance(layer.mlp.up_proj, kind) and isinstance(layer.self_attn.q_proj, kind)
    whole = [
        loaded.model.language_projection,
        loaded.model.qformer.encoder.layer[0].intermediate.dense,
        loaded.model.language_model.lm_head,
    ]
    assert not any(isinstance(part, kind) for part in whole)
    change = loaded.aus(image, crop=False) - expvqa.load(folder, quiet=True).aus(image, crop=False)
    assert 0 < change.abs().max() < 0.1


def test_large_models_go_to_an_accelerator_in_half_precision_and_small_ones_stay(monkeypatch):
    assert loading._choose(None, None, 10**6) == (torch.device("cpu"), torch.float32)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    for name, half in (("cuda", torch.bfloat16), ("mps", torch.float16)):
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda name=name: torch.device(name))
        assert loading._choose(None, None, 8 * 10**9) == (torch.device(name), half)
        assert loading._choose(None, None, 10**6) == (torch.device("cpu"), torch.float32)
        assert loading._choose(None, "float32", 8 * 10**9) == (torch.device(name), torch.float32)


def test_the_language_model_can_be_held_in_half_precision_alone(folder):
    for name in ("bfloat16", "float16"):
        model = load_model(folder, quiet=True, language_dtype=name)[0]
        assert {p.dtype for p in model.language_model.parameters()} == {getattr(torch, name)}
        assert {
            p.dtype for name, p in model.named_parameters() if not name.startswith("language_model.")
        } == {torch.float32}
        assert type(model) is InstructBlipForConditionalGeneration


def test_an_encoder_decoder_language_model_answers_scores_and_explains_but_does_not_train(
    model, processor, image, pairs, tmp_path
):
    """As in Salesforce/instructblip-flan-t5-xl."""
    text = T5Config(
        vocab_size=420,
        d_model=32,
        d_kv=16,
        d_ff=48,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
        pad_token_id=0,
    )
    parts = {name: getattr(model.config, name).to_dict() for name in ("vision_config", "qformer_config")}
    config = InstructBlipConfig(**parts, text_config=text.to_dict(), num_query_tokens=4, image_token_index=3)
    torch.manual_seed(0)
    other = InstructBlipForConditionalGeneration(config)
    initialise(other)
    ExpVQA(other, processor).save(tmp_path / "t5")
    loaded = expvqa.load(tmp_path / "t5", quiet=True)
    assert not loaded.model.config.use_decoder_only_language_model
    assert (
        isinstance(loaded.ask(image, "Why?", crop=False), str)
        and len(loaded.ask(image, "Why?", samples=2, crop=False)) == 2
    )
    scores = loaded.aus([image, image], aus=[1, 12], crop=False)
    assert (
        scores.to_numpy().min() > 0
        and scores.to_numpy().max() < 1
        and scores["AU1"].iat[0] == pytest.approx(scores["AU1"].iat[1])
    )
    assert loaded.explain(image, au=12, crop=False).heat.max() == pytest.approx(1)
    from PIL import Image

    from expvqa_lib.model.tokenize import encode
    from expvqa_lib.model.yes_no import beginnings
    from expvqa_lib.questions import ask_q3

    words = [[token for (token,) in spellings] for spellings in beginnings(processor.tokenizer)]
    asked = encode(processor, [ask_q3(12)])
    queries = torch.full((1, 4), 3)
    with torch.no_grad():
        logits = loaded.model(
            pixel_values=processor.image_processor([Image.open(image)], return_tensors="pt")["pixel_values"],
            qformer_input_ids=asked["qformer_input_ids"],
            qformer_attention_mask=asked["qformer_attention_mask"],
            input_ids=torch.cat([queries, asked["input_ids"]], 1),
            attention_mask=torch.cat([torch.ones_like(queries), asked["attention_mask"]], 1),
            decoder_input_ids=torch.zeros(1, 1, dtype=torch.long),
        ).logits[0, -1]
    scores = score_yes_no(loaded.model, loaded.processor, [image], [12])  # the first wording
    assert scores["AU12"].iat[0] == pytest.approx(
        float(torch.stack([logits[tokens].max() for tokens in words]).softmax(0)[0]), abs=1e-5
    )
    with pytest.raises(ModelError, match="only models with a decoder-only language model"):
        finetune(loaded.model, processor, pairs, tmp_path / "out", recipe=Recipe(steps=1))


def test_another_kind_of_model_is_refused(tmp_path):
    T5Config().save_pretrained(tmp_path / "t5")
    with pytest.raises(ModelError, match="found model type 't5', expected 'instructblip'"):
        load_model(tmp_path / "t5")
    with pytest.raises(ModelError, match="no InstructBLIP model could be loaded"):
        load_model(tmp_path / "nothing")
