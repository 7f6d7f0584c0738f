"""Any vision-language model behind an API: a real server on the loopback, with faults."""

import base64
import io
import json
import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from chat_server import ChatServer, kill_after, predict_command
from PIL import Image

from expvqa_lib.data import chat, load_image, write_table
from expvqa_lib.errors import ServerError
from expvqa_lib.evaluation import measure, read_faces, read_predictions
from expvqa_lib.evaluation.predictions import COLUMNS, questions_about
from expvqa_lib.evaluation.vision_language import ask
from expvqa_lib.pipeline.cli import main

AUS = (1, 12)


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
        assert main(predict_command(own, tmp_path, "--api", server.url, "--skip-unreadable")) == 0
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
        assert main(predict_command(both, tmp_path, "--api", server.url)) == 0
        predictions = read_predictions(tmp_path / "predictions.parquet")
        aus = predictions.groupby("dataset")["au"].unique().map(list).to_dict()
        assert aus == {"other": ["AU4"], "own": ["AU1", "AU12"]} and len(server.bodies) == 18
        assert measured(both, tmp_path)["p", "AU4", "recall"] == 100
        write_table(table.assign(AU1=None, AU12=None), both)
        assert main(predict_command(both, tmp_path, "--api", server.url)) == 1
        assert "nothing to ask in Q3" in capsys.readouterr().err
        assert main(predict_command(both, tmp_path, "--api", server.url, "--parallel", 0)) == 1
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
        kill_after(server, 10, ask, connect(server), faces, questions)
        ask(connect(server), faces, questions)
    counts = Counter(server.bodies)
    assert len(counts) == 12 and sum(counts.values()) - 12 <= 8 and max(counts.values()) <= 2
