"""Answers in a language model's words: what is asked, what may stand, what falls back, and that nothing is asked twice."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import datasets
import pandas as pd
import pytest
from chat_server import ChatServer, by_rules

from expvqa_lib.data import pairs as pairs_module
from expvqa_lib.data import table
from expvqa_lib.data.rewriting.captions import AT_REST, EXAMPLE, ROLE, rewrite
from expvqa_lib.data.rewriting.chat import Answers, Chat, Service
from expvqa_lib.data.rewriting.checks import faults
from expvqa_lib.errors import TableError
from expvqa_lib.pipeline.cli import main
from expvqa_lib.questions import Q1_ACTIONS, answer_q1, read_aus, read_emotion

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def no_other_server(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "EXPVQA_LLM_MODEL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def talk(tmp_path):
    """Make a Chat with a server; all share one file of answers."""
    return lambda server, **settings: Chat(
        Service("tiny", server.url, **settings), Answers(tmp_path / "answers.sqlite")
    )


def some_faces(*faces: tuple[dict[int, int], str | None], words: tuple[str, ...] = ()) -> pd.DataFrame:
    """A face table without pixels: the labelled AUs and the emotion of each face."""
    rows = [
        {
            "image": f"{k}.jpg",
            "dataset": "mine",
            "subject": f"s{k}",
            "frame": "0",
            "split": "train",
            "emotion": emotion,
        }
        | {f"AU{n}": v for n, v in labels.items()}
        for k, (labels, emotion) in enumerate(faces)
    ]
    whole = pd.DataFrame(rows)
    whole.attrs["emotions"] = list(words)
    return table.check_table(whole)


FEW = some_faces(
    ({6: 1, 12: 1, 4: 0}, "happiness"),
    ({4: 1, 15: 1}, "sadness"),
    ({4: 1, 15: 1}, None),
    ({6: 1, 12: 1}, "happiness"),
)


# ----------------------------------------------------------------------------------------------------------- all is well


def test_the_worked_example_keeps_the_rules_that_it_goes_with():
    assert "AU4, AU15 and AU17" in EXAMPLE[0] and faults(EXAMPLE[1], [4, 15, 17]) == {}
    assert all(f"AU{n}: " in ROLE for n in (1, 28, 43))


def test_all_pairs_of_three_corpora_are_rewritten_and_tell_the_same(pairs, talk):
    with ChatServer() as server:
        new, report = rewrite(pairs, talk(server))
        again, second = rewrite(pairs, talk(server))
    assert Counter(server.asked).most_common(1)[0][1] == 1  # nothing was asked twice
    assert report.accepted == report.wanted == report.requests == len(server.asked) and not report.fallen_back
    assert second.requests == 0 and second.cached == report.requests
    for split in pairs:
        before, after = pairs[split].to_pandas(), new[split].to_pandas()
        added, after = after.iloc[len(before) :], after.iloc[: len(before)]
        same = [name for name in before if name not in ("text_output", "source")]
        pd.testing.assert_frame_equal(after[same], before[same])
        assert list(after) == list(before) and again[split].to_list() == new[split].to_list()
        assert (added["text_output"] == AT_REST).all()
        told = before["text_output"].str.startswith("The person ") & ~before["text_output"].str.contains(
            "does not"
        )
        assert (after["source"] == told.map({True: "llm", False: "rules"})).all()
        assert (after["text_output"] != before["text_output"])[told].all()
        for old, text in zip(before["text_output"][told], after["text_output"][told], strict=True):
            assert read_aus(text) == read_aus(old) and read_emotion(text) == read_emotion(old)
        rest = after[~told & after["question_type"].isin(["Q2", "Q3"])]
        assert (rest["text_output"] == before.loc[rest.index, "text_output"]).all()
    assert sum(report.rows.values()) == sum(map(len, new.values()))


def test_faces_with_the_same_labels_share_one_request_and_the_fusion_gets_the_caption(talk):
    with ChatServer() as server:
        new, report = rewrite(pairs_module.build_pairs(FEW), talk(server))
    asked = [json.loads(body)["messages"] for body in server.asked]
    actions = [m[-1]["content"] for m in asked if m[0]["role"] == "system"]
    fusions = [m[-1]["content"] for m in asked if m[0]["role"] == "user"]
    sets = [
        {6, 12},
        {6},
        {12},
        {4, 15},
        {4},
        {15},
    ]  # two whole faces and their areas, each with other words for Q2
    assert len(actions) == len(sets) and len(fusions) == 2
    assert all(
        m[0]["content"] == ROLE and [x["role"] for x in m] == ["system", "user", "assistant", "user"]
        for m in asked
        if len(m) > 1
    )
    assert (
        "Facial actions: In this face, the person raises cheek and pulls lip corner.\nEmotion: The face shows happiness."
        in "".join(fusions)
    )
    q1 = [row["text_output"] for row in new["train"] if row["question_type"] == "Q1"]
    assert (
        q1[0] == q1[3]
        and q1[0].endswith("one infers happiness.")
        and q1[2] == "In this face, the person lowers brow and depresses lip corner."
    )
    assert report.tokens_in and "wanted: 8" in str(report) and "rows, llm: 12" in str(report)


def test_several_emotions_and_further_words_are_told_as_they_are(talk):
    faces = some_faces(
        ({6: 1, 26: 1}, "happiness+surprise"), ({4: 1}, "neutral"), ({7: 1}, "doubt"), words=("doubt",)
    )
    with ChatServer(lambda messages: by_rules(messages).replace("infers .", "infers doubt.")) as server:
        new, report = rewrite(pairs_module.build_pairs(faces), talk(server))
    q1 = [row["text_output"] for split in new.values() for row in split if row["question_type"] == "Q1"]
    assert [text.partition("one infers ")[2] for text in q1] == [
        "happiness and surprise.",
        "neutral.",
        "doubt.",
    ] and not report.rejected


def test_variants_give_faces_with_the_same_labels_different_words(talk):
    seeds = []

    def vary(messages):
        return by_rules(messages).replace(
            "In this face", f"In look {seeds.append(1) or 'abcdefghijklmnop'[len(seeds) - 1]} of it"
        )

    faces = some_faces(*[({12: 1}, None)] * 30)
    with ChatServer(vary) as server:
        new, _ = rewrite(pairs_module.build_pairs(faces), talk(server, parallel=1), variants=3)
        assert [json.loads(body).get("seed") for body in server.asked] == [None, 1, 2]
        again, report = rewrite(pairs_module.build_pairs(faces), talk(server), variants=3)
    told = [row["text_output"] for row in new["train"]]
    assert (
        len(set(told)) == 3
        and report.requests == 0
        and told == [row["text_output"] for row in again["train"]]
    )


def test_a_face_at_rest_gets_the_fixed_description_and_no_request(talk):
    faces = some_faces(
        ({4: 0, 12: 0}, None),
        ({4: 0, 12: 0}, "neutral"),
        ({4: 0}, "fear"),
        ({}, "neutral"),
        ({4: 1, 12: 0}, None),
    )
    pairs = pairs_module.build_pairs(faces)
    with ChatServer() as server:
        new, report = rewrite(pairs, talk(server))
    assert report.requests == report.wanted == 1
    q1 = {row["image"]: row for row in new["train"] if row["question_type"] == "Q1"}
    assert (
        q1["0.jpg"]["text_output"] == AT_REST
        and q1["0.jpg"]["text_input"] in Q1_ACTIONS
        and q1["0.jpg"]["source"] == "rules"
    )
    assert (
        q1["0.jpg"]["area"] is None and q1["0.jpg"]["au"] is None and q1["0.jpg"]["image_id"] == "mine/s0/0"
    )
    assert q1["1.jpg"]["text_output"] == f"{AT_REST} The face shows a neutral expression."
    assert [q1[f"{k}.jpg"]["text_output"] for k in (2, 3)] == [
        "The face shows fear.",
        "The face shows a neutral expression.",
    ]
    assert len(new["train"]) == len(pairs["train"]) + 1 and read_aus(AT_REST) == (set(), set())


def test_what_the_rules_did_not_write_is_left_alone(talk):
    pairs = pairs_module.build_pairs(FEW)
    foreign = datasets.DatasetDict({"train": pairs["train"].map(lambda row: {"source": "llm"})})
    odd = datasets.DatasetDict(
        {"train": pairs["train"].map(lambda row: {"text_output": f"Well, {row['text_output']}"})}
    )
    with ChatServer() as server:
        assert rewrite(foreign, talk(server))[0]["train"].to_list() == foreign["train"].to_list()
        assert rewrite(odd, talk(server))[0]["train"].to_list() == odd["train"].to_list()
    with pytest.raises(TableError, match=r"split train: columns \['source'\] are missing"):
        rewrite(datasets.DatasetDict({"train": pairs["train"].remove_columns("source")}), None)


# ------------------------------------------------------------------------------------------------------- bad answers


def test_a_bad_answer_is_asked_again_with_the_reason(talk):
    def learns(messages):
        return by_rules(messages) if len(messages) > 4 else "The happy person with AU12 raises the chin."

    with ChatServer(learns) as server:
        new, report = rewrite(pairs_module.build_pairs(some_faces(({12: 1}, None))), talk(server))
    first, second = (json.loads(body)["messages"] for body in server.asked)
    assert second[:4] == first and second[4] == {
        "role": "assistant",
        "content": "The happy person with AU12 raises the chin.",
    }
    for reason in ("no codes", "pull lip corner", "not given: chin raiser", "no emotion"):
        assert reason in second[5]["content"]
    assert (report.wanted, report.accepted, report.accepted_again, report.fallen_back) == (1, 0, 1, 0)
    assert report.rejected == {"code": 1, "missing action": 1, "invented action": 1, "emotion word": 1}
    assert {row["text_output"] for row in new["train"]} == {"In this face, the person pulls lip corner."}


@pytest.mark.parametrize(
    "answer",
    ["", "I cannot help with that.", "The person " * 300, "AU6, AU12", "😀" * 40, "The person smiles."],
)
def test_what_stays_bad_falls_back_to_the_rules_and_is_counted(talk, answer):
    pairs = pairs_module.build_pairs(FEW)
    with ChatServer(lambda messages: answer) as server:
        new, report = rewrite(pairs, talk(server), tries=2)
    assert new["train"].to_list() == pairs["train"].to_list()
    assert (
        report.fallen_back == report.wanted == 8
        and report.requests == 16
        and min(report.rejected.values()) >= 1
    )
    assert f"fallen back: {report.wanted}" in str(report)


def test_an_answer_that_was_cut_off_does_not_stand(talk):
    with ChatServer() as server:
        chat = talk(server)
        whole = chat.ask
        chat.ask = lambda *given: type(answer := whole(*given))(
            answer.text, "length", answer.tokens_in, answer.tokens_out
        )
        _, report = rewrite(pairs_module.build_pairs(some_faces(({12: 1}, None))), chat)
    assert report.fallen_back == 1 and report.rejected == {"length": 3}


def test_pseudo_pairs_stay_pseudo_when_they_are_rewritten(talk):
    pairs = pairs_module.build_pairs(FEW.assign(labelled_by="OpenFace 2"))
    assert set(pairs["train"]["source"]) == {"pseudo"}
    with ChatServer() as server:
        new, _ = rewrite(pairs, talk(server))
    assert (
        set(new["train"]["source"]) == {"pseudo"}
        and new["train"]["text_output"] != pairs["train"]["text_output"]
    )


# ---------------------------------------------------------------------------------------------------- stopped and resumed


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """A face table of its own on disk, of 40 faces with different AUs."""
    faces = some_faces(
        *[
            ({n: k >> bit & 1 for bit, n in enumerate((1, 4, 12, 15, 25, 6))}, "surprise")
            for k in range(1, 41)
        ]
    )
    path = tmp_path_factory.mktemp("many") / "faces.parquet"
    table.write_table(faces, path)
    return path


def command(many: Path, folder: Path, *more: str) -> list[str]:
    given = [
        "--table",
        str(many),
        "--output",
        str(folder / "pairs"),
        "--rewrite",
        "--llm-model",
        "tiny",
    ]
    return ["pairs", *given, *more]


def test_killed_at_any_moment_it_goes_on_without_asking_twice(many, tmp_path, capsys, monkeypatch):
    with ChatServer(delay=0.1) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        arguments = [sys.executable, "-m", "expvqa_lib", *command(many, tmp_path)]
        for moment in (15, 35):
            process = subprocess.Popen(
                arguments, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
            try:
                while len(server.asked) < moment and process.poll() is None:
                    time.sleep(0.005)
            finally:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
            assert process.returncode == -signal.SIGKILL and not (tmp_path / "pairs").exists()
        server.delay = 0
        assert main(command(many, tmp_path)) == 0
        assert "fallen back: 0" in capsys.readouterr().out
        times = Counter(server.asked)
        repeated = sum(times.values()) - len(times)
        assert (
            0 <= repeated <= 2 * 8
        )  # what was under way at the server when each of the two was killed, 8 at a time
        assert len(Answers(tmp_path / "pairs-answers.sqlite")) == len(times)
    new = datasets.load_from_disk(str(tmp_path / "pairs"))
    assert set(new["train"]["source"]) == {"llm", "rules"}


def test_a_spent_budget_stops_cleanly_and_the_next_run_ends_it(many, tmp_path, capsys, monkeypatch):
    with ChatServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert main(command(many, tmp_path, "--budget", "0.005", "--price", "1", "2")) == 1
        said = capsys.readouterr().err
        assert "no answer is lost" in said and "pairs-answers.sqlite" in said
        first = len(server.asked)
        assert not (tmp_path / "pairs").exists() and first > 1
        assert main(command(many, tmp_path, "--budget", "0.5", "--price", "1", "2")) == 0
        assert max(Counter(server.asked).values()) == 1
    out = capsys.readouterr()
    assert "tokens, cost 0.0" in out.err and f"cached: {first}" in out.out


def test_an_interrupt_keeps_what_was_answered(many, tmp_path, talk):
    pairs = pairs_module.build_pairs(table.read_table(many))
    with ChatServer(delay=0.05) as server:
        chat = talk(server)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            rewrite(pairs, chat)
        asked = len(server.asked)
        assert 0 < asked == len(chat.answers)
        rewrite(pairs, talk(server))
        assert max(Counter(server.asked).values()) == 1


# ------------------------------------------------------------------------------------------------------- without a server


def test_rewriting_without_what_it_needs_is_one_clear_error_before_any_work(
    many, tmp_path, capsys, monkeypatch
):
    arguments = ["pairs", "--table", str(many), "--output", str(tmp_path / "pairs")]
    assert (
        main([*arguments, "--rewrite"]) == 1 and "--llm-model, or EXPVQA_LLM_MODEL" in capsys.readouterr().err
    )
    assert (
        main([*arguments, "--rewrite", "--llm-model", "x"]) == 1
        and "set OPENAI_API_KEY" in capsys.readouterr().err
    )
    monkeypatch.setitem(sys.modules, "openai", None)
    assert (
        main([*arguments, "--rewrite", "--llm-model", "x"]) == 1
        and "'.[rewriting]'" in capsys.readouterr().err
    )
    assert not (tmp_path / "pairs").exists()
    assert main(arguments) == 0  # the rules alone need neither
    assert set(datasets.load_from_disk(str(tmp_path / "pairs"))["train"]["source"]) == {"rules"}


# ------------------------------------------------------------------------------------------------- a real language model


@pytest.fixture(scope="module")
def language_model(tmp_path_factory) -> Path:
    """A tiny Llama that has learned to describe a few sets of actions; of one it has learned the wrong description."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tools.base_model.tokenizers import train_tokenizers

    lessons = [
        ("Which facial actions does a face with AU6 and AU12 show?", answer_q1([6, 12], None)),
        ("Which facial actions does a face with AU6 show?", "This person, one sees, raises cheek."),
        ("Which facial actions does a face with AU12 show?", answer_q1([4], None)),
    ]
    tokenizer, _ = train_tokenizers([text for lesson in lessons for text in lesson], 400)
    tokenizer.chat_template = (
        "{{ messages[3]['content'] }}"  # the question after the worked example, to learn fast
    )
    asked = [tokenizer(question, add_special_tokens=False)["input_ids"] for question, _ in lessons]
    told = [
        [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        for _, answer in lessons
    ]
    width = max(len(q) + len(a) for q, a in zip(asked, told, strict=True))
    ids = torch.tensor([q + a + [0] * (width - len(q) - len(a)) for q, a in zip(asked, told, strict=True)])
    labels = torch.tensor(
        [[-100] * len(q) + a + [-100] * (width - len(q) - len(a)) for q, a in zip(asked, told, strict=True)]
    )
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": len(tokenizer),
    }
    model = LlamaForCausalLM(LlamaConfig(**sizes, bos_token_id=2, eos_token_id=2, pad_token_id=0))
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(100):
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    folder = tmp_path_factory.mktemp("llm") / "tiny"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def served(language_model):
    """The address of `transformers serve` with the tiny Llama."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{place.getsockname()[1]}"
    program = str(Path(sys.executable).with_name("transformers"))
    port = ["--host", "127.0.0.1", "--port", address.rpartition(":")[2], "--device", "cpu"]
    process = subprocess.Popen(
        [program, "serve", str(language_model), *port], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "the server did not start"
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def test_a_language_model_behind_transformers_own_server_through_a_bad_line(served, language_model, tmp_path):
    pairs = pairs_module.build_pairs(some_faces(({6: 1, 12: 1}, None)))
    with ChatServer(behind=served) as line:
        line.faults = ["429 Retry-After 1", "500", "cut within", "malformed"]
        chat = Chat(
            Service(str(language_model), line.url, max_tokens=40, parallel=2),
            Answers(tmp_path / "answers.sqlite"),
        )
        new, report = rewrite(pairs, chat, tries=2)
    q1, q2 = (
        new["train"].filter(lambda row: row["question_type"] == "Q1"),
        new["train"].filter(lambda row: row["question_type"] == "Q2"),
    )
    assert q1["text_output"][0].lower() == "the person raises cheek and pulls lip corner."
    assert sorted(zip(q2["source"], q2["text_output"], strict=True)) == [
        ("llm", "this person, one sees, raises cheek."),
        ("rules", "The person pulls lip corner."),
    ]
    assert (report.accepted, report.fallen_back) == (2, 1) and report.rejected == {
        "invented action": 2,
        "missing action": 2,
    }
    assert report.requests == 4 + 4 and report.tokens_in > 0 and report.tokens_out > 0
