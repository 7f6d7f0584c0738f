"""Vision-language models of transformers: tiny weights, asked here and through the server of transformers."""

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from chat_server import ChatServer, predict_command
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.cli.serve import Serve
from transformers.utils.import_utils import is_serve_available

from expvqa_lib.data import chat, load_image
from expvqa_lib.errors import ModelError
from expvqa_lib.evaluation import read_faces, read_predictions
from expvqa_lib.evaluation.predictions import questions_about
from expvqa_lib.evaluation.vision_language import LocalModel, ask
from expvqa_lib.pipeline.cli import main

AUS = (1, 12)
TEMPLATE = (
    "{% for m in messages %}{% for part in m.content %}"
    "{{ '<image>' if part.type == 'image' else part.text }} {% endfor %}{% endfor %}"
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A Llava of random weights that nearly always says yes or no."""
    folder, words = (
        tmp_path_factory.mktemp("tiny") / "llava",
        ["<unk>", "<s>", "</s>", "<image>", "yes", "no"],
    )
    text = "does this person do the answer with or alone pull raise lip corner inner eyebrow . ? ,"
    words += sorted(text.split())
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        additional_special_tokens=["<image>"],
    )
    size = {"height": 16, "width": 16}
    image = CLIPImageProcessor(size=size, crop_size=size, do_center_crop=False)
    more = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    processor = LlavaProcessor(image, tokenizer, chat_template=TEMPLATE, **more)
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=16, patch_size=8, projection_dim=16, **small),
        text_config=LlamaConfig(
            vocab_size=len(words), bos_token_id=1, eos_token_id=2, pad_token_id=2, **small
        ),
        image_token_index=3,
        image_token_id=3,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id = 2
    inputs = processor(
        text="<image> does this person", images=Image.new("RGB", (16, 16)), return_tensors="pt"
    )
    with torch.no_grad():
        hidden, tilt = model.model(**inputs).last_hidden_state[0, -1], 0.3 * torch.randn(16)
        likely = 6 * hidden / hidden.square().sum()
        model.lm_head.weight.zero_()
        model.lm_head.weight[4], model.lm_head.weight[5] = likely + tilt, likely - tilt
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_weights_of_transformers_give_what_their_logits_say(own, tiny, tmp_path):
    faces, questions, model = (
        read_faces(own),
        questions_about(AUS),
        LocalModel(str(tiny), tmp_path / "a.sqlite"),
    )
    table = ask(model, faces, questions)
    network, processor = model._model, model._processor
    for row in table.sample(4, random_state=0).itertuples():
        image = load_image(own.parent / row.image)
        text = f"<image> {row.question} Answer with yes or no alone. "
        inputs = processor(text=text, images=image, return_tensors="pt")
        with torch.inference_mode():
            p = network(**inputs).logits[0, -1].softmax(-1)
        assert p[4] + p[5] > 0.5 and row.p_yes == pytest.approx(float(p[4] / (p[4] + p[5])), abs=1e-4)
        assert row.answer.split()[0] == ("yes" if p[4] > p[5] else "no")
    assert set(table["p_yes_from"]) == {"log-probabilities"} and table["p_yes"].round(4).nunique() > 6
    again = LocalModel(str(tiny), tmp_path / "a.sqlite")
    pd.testing.assert_frame_equal(ask(again, faces, questions), table)
    assert again.counts["cached"] == 12
    with ChatServer(lambda messages: reply(messages).text) as server:  # the same behind the API
        reply = lambda messages: model.request({"messages": messages, "max_completion_tokens": 5})  # noqa: E731
        server.first = lambda messages: reply(messages).first
        served = ask(chat.Chat("any", tmp_path / "b.sqlite", url=server.url), faces, questions)
    np.testing.assert_allclose(served["p_yes"], table["p_yes"], atol=1e-6)


def test_the_command_asks_local_weights_and_what_is_no_model_is_refused(own, tiny, tmp_path, capsys):
    assert main(predict_command(own, tmp_path / "out", model=tiny)) == 0
    assert "P(yes) from log-probabilities: 12 answers" in capsys.readouterr().out
    with pytest.raises(ModelError, match=f"{tmp_path}: no vision-language model"):
        LocalModel(str(tmp_path), tmp_path / "c.sqlite")


def pickled(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"lm_head.weight": torch.zeros(2, 2)}, folder / "pytorch_model.bin")


def cut(folder):
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])


def without_a_layer(folder):
    weights = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "layers.1" not in k},
        folder / "model.safetensors",
        {"format": "pt"},
    )


def with_code(folder):
    """A model of no known type whose class is in the folder."""
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Own: pass\n")
    config = {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.Own", "AutoModelForImageTextToText": "own.Own"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    processor = json.loads((folder / "processor_config.json").read_text())
    processor |= {"processor_class": "Own", "auto_map": {"AutoProcessor": "own.Own"}}
    (folder / "processor_config.json").write_text(json.dumps(processor))


DAMAGE = {
    pickled: "safetensors",
    cut: "model.safetensors is cut short",
    without_a_layer: "weights are missing",
    with_code: "custom code",
    lambda folder: (folder / "chat_template.jinja").unlink(): "no chat template",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_weights_that_lack_something_or_bring_code_are_refused(tiny, tmp_path, damage, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda _: "y")  # transformers would ask, and run the code on a yes
    folder = Path(shutil.copytree(tiny, tmp_path / "llava"))
    damage(folder)
    with pytest.raises(ModelError, match=f"{folder}: .*{DAMAGE[damage]}"):
        LocalModel(str(folder), tmp_path / "a.sqlite")
    assert not (folder / "ran").exists()


@pytest.mark.skipif(not is_serve_available(), reason="transformers serve needs fastapi, uvicorn and openai")
def test_the_server_of_transformers_answers_as_the_same_weights_do_here(own, tiny, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serving = Serve(str(tiny), device="cpu", host="127.0.0.1", port=port, non_blocking=True)
    try:
        url = f"http://127.0.0.1:{port}/v1"
        line = predict_command(own, tmp_path / "served", "--api", url, "--parallel", 2, model=tiny)
        assert main(line) == 0
    finally:
        serving.kill_server()
    served = read_predictions(tmp_path / "served" / "predictions.parquet")
    here = ask(LocalModel(str(tiny), tmp_path / "a.sqlite"), read_faces(own), questions_about(AUS))
    assert served["answer"].tolist() == here["answer"].tolist()
    assert set(served["p_yes_from"]) == {"words"}  # it gives no log-probabilities
    assert ((here["p_yes"] > 0.5) == (served["p_yes"] == 1)).all()
