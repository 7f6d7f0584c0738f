"""Asking a language model: a real server of the API on the loopback, with everything going wrong that can."""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from email.utils import formatdate

import pytest
from chat_server import ChatServer

from expvqa_lib.data.rewriting import chat as module
from expvqa_lib.data.rewriting.chat import Answers, Chat, Service
from expvqa_lib.errors import ServerError, SettingsError


def echo(messages: list[dict]) -> str:
    return f"You said {messages[-1]['content']}."


def said(content: str) -> list[dict]:
    return [{"role": "user", "content": content}]


@pytest.fixture
def server(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with ChatServer(echo) as server:
        yield server


@pytest.fixture
def connect(server, tmp_path):
    """Make a Chat with the server; all share one file of answers."""
    return lambda **settings: Chat(
        Service("tiny", server.url, **settings), Answers(tmp_path / "answers.sqlite")
    )


def ask_all(chat: Chat, words) -> list[str]:
    return chat.map(lambda word: chat.ask(said(word)).text, list(words), "asking")


# --------------------------------------------------------------------------------------------------------------- answers


def test_every_question_gets_its_own_answer_in_order_some_at_a_time(connect, server):
    server.delay = 0.05
    words = [f"word {k}" for k in range(12)]
    chat = connect(parallel=3)
    assert ask_all(chat, words) == [f"You said {word}." for word in words]
    assert 1 < server.most <= 3
    assert chat.requests == 12 and (chat.tokens_in, chat.tokens_out) == (120, 600)


def test_nothing_is_asked_twice_not_even_by_another_run(connect, server):
    assert connect().ask(said("hello")) == connect().ask(said("hello"))
    assert len(server.asked) == 1
    connect().ask(said("hello"), seed=1)
    connect(max_tokens=7).ask(said("hello"))
    connect().ask([*said("hello"), *said("hello")])
    assert len(server.asked) == 4  # another seed, setting or conversation is another question
    assert (
        json.loads(server.asked[2])["max_completion_tokens"] == 7 and json.loads(server.asked[1])["seed"] == 1
    )


def test_the_key_goes_to_the_server_and_not_to_the_disk(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    Chat(Service("tiny"), Answers(tmp_path / "answers.sqlite")).ask(said("hello"))
    assert server.keys == {"Bearer sk-very-secret"}
    assert all(b"secret" not in path.read_bytes() for path in tmp_path.iterdir())


def _fill(path, start: int) -> None:
    answers = Answers(path)
    for k in range(start, start + 60):
        answers.put(str(k), module.Answer(f"{k}", "stop", 1, 1))


def test_several_processes_may_keep_answers_in_one_file(tmp_path):
    path = tmp_path / "answers.sqlite"
    processes = [
        multiprocessing.get_context("fork").Process(target=_fill, args=(path, start)) for start in (0, 30, 60)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    answers = Answers(path)
    assert len(answers) == 120 and all(answers.get(str(k)).text == str(k) for k in range(120))
    assert answers.put("0", module.Answer("another", "stop", 1, 1)).text == "0"  # the first one stays


# ---------------------------------------------------------------------------------------------------------------- faults

FAULTS = ("500", "429", "time-out", "cut before", "cut within", "malformed", "another form", "html")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_passing_fault_is_survived_by_asking_again(connect, server, fault):
    server.faults = [fault]
    chat = connect(timeout=0.5)
    assert chat.ask(said("hello")).text == "You said hello."
    assert chat.requests == len(server.asked) == 2
    assert 0.2 < server.times[1] - server.times[0] < 2


def test_pauses_double_and_the_server_may_ask_for_another(connect, server):
    server.faults = ["500", "500", "429 Retry-After 1.5"]
    assert connect().ask(said("hello")).text == "You said hello."
    first, second, third = (b - a for a, b in zip(server.times, server.times[1:], strict=False))
    assert 0.25 <= first < 0.7 and 0.5 <= second < 1.2 and 1.5 <= third < 2.2


def test_retry_after_is_read_as_seconds_or_as_a_date():
    assert module._seconds("2.5") == 2.5 and module._seconds("-3") == 0
    assert 8 < module._seconds(formatdate(time.time() + 10, usegmt=True)) <= 10
    assert [module._seconds(nonsense) for nonsense in ("", "soon", "nan", "inf")] == [None] * 4


def test_faults_amid_many_questions_lose_and_repeat_nothing(connect, server):
    server.faults = [*FAULTS]
    words = [f"word {k}" for k in range(15)]
    chat = connect(parallel=4, timeout=0.5)
    assert ask_all(chat, words) == [f"You said {word}." for word in words]
    assert len(server.asked) == chat.requests == 15 + len(FAULTS)


@pytest.mark.parametrize(
    ("fault", "message", "requests"),
    [
        ("401", "refuses .*check the address, key, model and account", 1),
        ("404", "refuses", 1),
        ("500", "2 attempts failed, the last with InternalServerError.*no answer is lost", 2),
        ("malformed", "2 attempts failed, the last with JSONDecodeError", 2),
        ("429 Retry-After 4000", "asks to wait for 4000 s", 1),
    ],
)
def test_a_lasting_fault_ends_the_run_and_keeps_the_answers(connect, server, fault, message, requests):
    ask_all(connect(), "ab")
    server.faults = [fault] * 50
    with pytest.raises(ServerError, match=message):
        ask_all(connect(parallel=1, attempts=2), "abcdef")
    assert len(server.asked) == 2 + requests
    server.faults = []
    assert ask_all(connect(), "abcdef") == [f"You said {word}." for word in "abcdef"]
    assert len(server.asked) == 2 + requests + 4


def test_what_is_under_way_when_one_fails_is_kept(connect, server):
    server.faults, server.delay = ["401"], 0.1
    with pytest.raises(ServerError, match="refuses"):
        ask_all(connect(parallel=4), [f"word {k}" for k in range(40)])
    assert len(server.asked) <= 8
    asked = len(server.asked)
    ask_all(connect(), [f"word {k}" for k in range(40)])
    assert len(server.asked) == asked + 40 - (asked - 1)  # all but the refused one had been answered


def test_no_server_at_all_is_an_error_that_says_where(tmp_path):
    chat = Chat(Service("tiny", "http://127.0.0.1:9/v1", attempts=1), Answers(tmp_path / "a.sqlite"))
    with pytest.raises(
        ServerError, match="127.0.0.1:9/v1/: 1 attempts failed, the last with APIConnectionError"
    ):
        chat.ask(said("hello"))


# ---------------------------------------------------------------------------------------------------------------- budget


def test_a_budget_of_requests_is_never_exceeded_and_the_next_run_goes_on(connect, server):
    server.faults, words = ["500"], [f"word {k}" for k in range(10)]
    with pytest.raises(ServerError, match="budget of 4 requests is spent; no answer is lost, [0-3] are in"):
        ask_all(connect(max_requests=4), words)
    assert len(server.asked) == 4
    assert ask_all(connect(max_requests=7), words) == [f"You said {word}." for word in words]
    assert len(server.asked) == 11  # ten answers and the one that failed


def test_a_budget_of_money_is_never_exceeded(connect, server):
    server.delay = 0.02
    chat = connect(
        parallel=4, price=(1000.0, 2000.0), max_cost=2.0, max_tokens=50
    )  # an answer costs 10 and 50 tokens: 0.11
    with pytest.raises(ServerError, match=r"budget of 2.0 \(cost so far .*\) is spent"):
        ask_all(chat, [f"word {k}" for k in range(40)])
    assert chat.cost == pytest.approx(0.11 * len(server.asked)) and 1.4 <= chat.cost <= 2.0
    assert "cost 1." in chat.spent() or "cost 2." in chat.spent()


def test_a_request_without_an_answer_counts_as_its_dearest(connect, server):
    server.faults = ["time-out"]
    chat = connect(timeout=0.5, price=(1000.0, 2000.0), max_cost=100, max_tokens=1000)
    chat.ask(said("hello"))
    assert 2.11 < chat.cost < 2.14  # 1000 tokens out at most, and the 0.11 of the answer


# ---------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("settings", [{"parallel": 0}, {"attempts": 0}, {"max_tokens": 0}, {"max_cost": 3.0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(SettingsError):
        Service("tiny", **settings)


def test_without_key_and_address_it_is_said_what_to_set(server, tmp_path):
    with pytest.raises(SettingsError, match="set OPENAI_API_KEY, or OPENAI_BASE_URL"):
        Chat(Service("tiny"), Answers(tmp_path / "a.sqlite"))


def test_without_the_extra_it_is_said_how_to_install_it(connect, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(SettingsError, match=r"pip install -e '.\[rewriting\]'"):
        connect()


def test_a_file_that_holds_no_answers_is_named_and_left_alone(tmp_path):
    path = tmp_path / "answers.sqlite"
    path.write_text("not a database, but long enough to be one " * 20)
    with pytest.raises(ServerError, match="answers.sqlite: answers cannot be kept here"):
        Answers(path)
    assert path.read_text().startswith("not a database")
    with pytest.raises(ServerError, match="cannot be made or opened"):
        Answers(tmp_path)
    with pytest.raises(ServerError, match="cannot be made or opened"):
        Answers(path / "within" / "a.sqlite")
