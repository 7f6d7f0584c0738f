"""Any vision-language model: a real server on the loopback, with faults, and tiny weights of transformers."""

import base64
import io
import json
import math
import multiprocessing
import shutil
import socket
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from chat_server import ChatServer
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

from expvqa_lib.data import chat, load_image, write_table
from expvqa_lib.errors import ModelError, ServerError
from expvqa_lib.evaluation import measure, read_faces, read_predictions
from expvqa_lib.evaluation.predictions import COLUMNS, questions_about
from expvqa_lib.evaluation.vision_language import LocalModel, ask
from expvqa_lib.pipeline.cli import main

AUS = (1, 12)
TEMPLATE = (
    "{% for m in messages %}{% for part in m.content %}"
    "{{ '<image>' if part.type == 'image' else part.text }} {% endfor %}{% endfor %}"
)


@pytest.fixture(scope="module")
def own(tmp_path_factory, faces):
    """A face table of six faces of three people, with two AUs and emotions."""
    root, rows = tmp_path_factory.mktemp("own"), faces[faces["dataset"] == "synth_wild"].head(6)
    for k, image in enumerate(rows["image"]):
        load_image(image).save(root / f"{k}.png")
    table = pd.DataFrame({"image": [f"{k}.png" for k in range(6)], "subject": list("aabbcc")})
    table = table.assign(dataset="own", split="test", frame="0", emotion=rows["emotion"].tolist())
    write_table(table.assign(AU1=[0, 1, 0, 1, 0, 1], AU12=[1, 1, 0, 0, 1, 0]), root / "own.parquet")
    return root / "own.parquet"


@pytest.fixture
def connect(tmp_path, monkeypatch):
    monkeypatch.setattr(chat, "RETRIES", 2)
    return lambda server, **more: chat.Chat("any", tmp_path / "answers.sqlite", url=server.url, **more)


def seen(messages: list[dict]) -> np.ndarray:
    """The picture that a request shows."""
    kind, _, data = messages[0]["content"][0]["image_url"]["url"].partition("base64,")
    assert kind == "data:image/png;"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def asked(messages: list[dict]) -> str:
    return messages[0]["content"][1]["text"]


def likelihood(pixels: np.ndarray) -> float:
    return float(pixels.mean() / 255)


def test_log_probabilities_of_the_picture_that_was_sent(own, connect):
    def first(messages):
        p = likelihood(seen(messages))
        some = [(" Yes", 0.6 * p), ("yes", 0.3 * p), ("NO", 0.9 * (1 - p)), ("The", 0.1)]
        return [(token, math.log(value)) for token, value in some]

    faces = read_faces(own)
    with ChatServer(lambda messages: "No, I think.") as server:
        server.first = first
        table = ask(connect(server), faces, questions_about(AUS))
        again = ask(connect(server), faces, questions_about(AUS))
        assert len(server.bodies) == 12 == len(set(server.bodies))
    pd.testing.assert_frame_equal(again, table)
    expected = [likelihood(np.asarray(load_image(image))) for image in faces["image"].repeat(2)]
    np.testing.assert_allclose(table["p_yes"], expected, atol=1e-6)
    assert set(table["p_yes_from"]) == {"log-probabilities"} and list(table)[:-1] == list(COLUMNS)
    assert table["image"].tolist() == [name for name in faces["name"] for _ in AUS]


def command(own, output, *more, model="any") -> list[str]:
    options = ["--model", model, "--data", own, "--output", output, *more]
    return ["predict", *map(str, options)]


def measured(own, output) -> pd.Series:
    predictions = str(output / "predictions.parquet")
    assert main(["evaluate", "--predictions", predictions, "--data", str(own)]) == 0
    table = pd.read_csv(output / "metrics.csv").set_index(["model", "target", "metric"])
    return table["value"].rename(index={output.name: "p", f"{output.name}_in_words": "words"}, level=0)


def test_words_that_are_neither_yes_nor_no_are_named_and_never_a_no(own, tmp_path, capsys):
    """Of AU1 one answer is unread: its P(yes) is left out of the metrics, and in words it is wrong."""

    def write(messages):
        if "inner eyebrow" not in asked(messages):
            return "I cannot say."
        return "Perhaps." if np.array_equal(seen(messages), unread) else "No."

    unread = np.asarray(load_image(read_faces(own)["image"].iat[0]))  # of a face without AU1
    with ChatServer(write) as server:
        assert main(command(own, tmp_path, "--api", server.url, "--skip-unreadable")) == 0
    printed = capsys.readouterr()
    assert "P(yes) from words: 12 answers, 7 neither yes nor no" in printed.out
    assert "neither yes nor no: AU1 of 0.png: 'Perhaps.'" in printed.err
    table = read_predictions(tmp_path / "predictions.parquet")
    assert table["p_yes"].isna().sum() == 7 and table["p_yes"].sum() == 0
    with pytest.warns(UserWarning, match="never labelled here and left out: AU12"):
        found = measured(own, tmp_path)
    assert found["words", "AU12", "unread"] == 100 and found["words", "AU1", "unread"] == pytest.approx(
        100 / 6, 1e-3
    )
    assert found["words", "AU12", "accuracy"] == 0 and found["words", "AU1", "accuracy"] == pytest.approx(
        100 / 3, 1e-3
    )
    assert found["p", "AU1", "accuracy"] == 40 and ("p", "AU12", "accuracy") not in found.index


def test_each_data_set_is_asked_about_its_own_action_units(own, tmp_path, capsys):
    table = pd.read_parquet(own)
    other = table.assign(
        dataset="other", subject=table["subject"] + "2", AU1=None, AU4=table["AU12"], AU12=None
    )
    both = own.parent / f"{tmp_path.name}.parquet"
    write_table(pd.concat([table, other], ignore_index=True), both)
    with ChatServer(lambda messages: "yes") as server:
        assert main(command(both, tmp_path, "--api", server.url)) == 0
        predictions = read_predictions(tmp_path / "predictions.parquet")
        aus = predictions.groupby("dataset")["au"].unique().map(list).to_dict()
        assert aus == {"other": ["AU4"], "own": ["AU1", "AU12"]} and len(server.bodies) == 18
        assert measured(both, tmp_path)["p", "AU4", "recall"] == 100
        write_table(table.assign(AU1=None, AU12=None), both)
        assert main(command(both, tmp_path, "--api", server.url)) == 1
        assert "nothing to ask in Q3" in capsys.readouterr().err
        assert main(command(both, tmp_path, "--api", server.url, "--parallel", 0)) == 1
        assert len(server.bodies) == 18


REFUSING = {
    "five at most": (lambda body: body.get("top_logprobs", 0) <= 5, "log-probabilities", 0.0),
    "no log-probabilities": (lambda body: "logprobs" not in body, "words", 0.0),
    "reasons": (lambda body: not {"logprobs", "temperature"} & set(body), "words", None),
}


@pytest.mark.parametrize("kind", REFUSING)
def test_a_server_that_refuses_an_option_is_asked_without_it_from_then_on(own, connect, kind):
    faces, questions = read_faces(own), questions_about(AUS, ("Q1", "Q3"))
    with ChatServer(lambda messages: "yes") as server:
        server.first = lambda messages: [("yes", math.log(0.6)), ("no", math.log(0.3))]
        server.takes, source, temperature = REFUSING[kind]
        table = ask(connect(server, parallel=1), faces, questions)
        bodies = [json.loads(body) for body in server.bodies]
        accepted = list(filter(server.takes, bodies))
        assert len(accepted) == 18 and len(bodies) <= 18 + 4
        assert {body.get("temperature") for body in accepted} == {temperature}
        pd.testing.assert_frame_equal(ask(connect(server), faces, questions), table)
        assert len(server.bodies) == len(bodies)  # nothing is asked twice
        server.takes = lambda body: False
        with pytest.raises(ServerError, match="not so"):
            ask(connect(server), faces, questions_about((4,)))
    q3 = table[table["question_type"] == "Q3"]
    assert set(q3["p_yes_from"]) == {source}
    np.testing.assert_allclose(q3["p_yes"], 1 if source == "words" else 2 / 3)


def test_sampled_answers_give_the_share_of_yes(own, connect):
    with ChatServer() as server:
        server.write = lambda messages: ["Yes", "no", "yes!", "Hm"][len(server.bodies) % 4]
        table = ask(connect(server, parallel=1), read_faces(own), questions_about(AUS), samples=4)
    assert set(table["p_yes_from"]) == {"samples"} and len(set(server.bodies)) == 48
    np.testing.assert_allclose(table["p_yes"], 2 / 3)


def test_sentences_are_measured_as_those_of_any_model(own, connect):
    faces = read_faces(own)
    with ChatServer(lambda messages: "The person raises inner eyebrow. This is happiness.") as server:
        table = ask(connect(server), faces, questions_about(AUS, ("Q1", "Q2")))
    found = measure(table, faces, resamples=20).set_index(["model", "question", "target", "metric"])["value"]
    assert found["model", "Q1", "AU1", "recall"] == 100 and found["model", "Q2", "AU12", "recall"] == 0
    assert found["model", "Q1", "emotion", "unread"] == 0


@pytest.mark.parametrize("fault", ["429", "500", "cut", "slow"])
def test_a_passing_fault_loses_nothing(own, connect, fault, monkeypatch):
    monkeypatch.setattr(chat, "TIMEOUT", 1.0)
    with ChatServer(lambda messages: "yes") as server:
        server.faults = [fault, "", fault]
        table = ask(connect(server), read_faces(own), questions_about(AUS))
    assert table["p_yes"].eq(1).all() and len(server.bodies) == 14 and len(set(server.bodies)) == 12


def test_a_lasting_fault_ends_the_run_and_the_next_one_asks_only_what_is_missing(own, connect):
    faces, questions = read_faces(own), questions_about(AUS)
    with ChatServer(lambda messages: "yes") as server:
        model = connect(server, parallel=1)
        server.faults = [""] * 5 + ["another form"]
        with pytest.raises(ServerError, match="answers so far are in"):
            ask(model, faces, questions)
        assert 6 <= len(server.bodies) <= 7  # the next one may be under way
        assert ask(connect(server), faces, questions)["p_yes"].eq(1).all()
    assert len(server.bodies) == 13 and len(set(server.bodies)) == 12


def test_a_killed_run_asks_nothing_twice_but_what_was_under_way(own, connect):
    faces, questions = read_faces(own), questions_about(AUS)
    with ChatServer(lambda messages: "no", delay=0.2) as server:
        process = multiprocessing.get_context("fork").Process(
            target=ask, args=(connect(server), faces, questions)
        )
        process.start()
        while len(server.bodies) < 10 and process.is_alive():
            time.sleep(0.005)
        process.kill()
        process.join()
        server.delay = 0
        ask(connect(server), faces, questions)
    counts = Counter(server.bodies)
    assert len(counts) == 12 and sum(counts.values()) - 12 <= 8 and max(counts.values()) <= 2


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
    assert main(command(own, tmp_path / "out", model=tiny)) == 0
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
        line = command(own, tmp_path / "served", "--api", url, "--parallel", 2, model=tiny)
        assert main(line) == 0
    finally:
        serving.kill_server()
    served = read_predictions(tmp_path / "served" / "predictions.parquet")
    here = ask(LocalModel(str(tiny), tmp_path / "a.sqlite"), read_faces(own), questions_about(AUS))
    assert served["answer"].tolist() == here["answer"].tolist()
    assert set(served["p_yes_from"]) == {"words"}  # it gives no log-probabilities
    assert ((here["p_yes"] > 0.5) == (served["p_yes"] == 1)).all()
