"""The client of a language model and its store of answers, against a real server that fails in every way."""

import pytest
from chat_server import ChatServer

from expvqa_lib.data import chat as module
from expvqa_lib.data.chat import Chat
from expvqa_lib.errors import ServerError, SettingsError

pytestmark = pytest.mark.usefixtures("no_other_server")
WORDS = [f"word {k}" for k in range(12)]
ANSWERS = [f"You wrote {word}." for word in WORDS]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    with ChatServer(lambda messages: f"You wrote {messages[-1]['content']}.") as server:
        yield server


def ask_all(chat: Chat, words: list[str]) -> list[str]:
    return chat.map(lambda word: chat.ask([{"role": "user", "content": word}])[0], words, "asking")


def test_answers_come_in_order_so_many_at_a_time_and_the_key_stays_off_the_disk(connect, server, tmp_path):
    server.delay, chat = 0.05, connect(server, parallel=3)
    assert ask_all(chat, WORDS) == ANSWERS and 1 < server.most_active <= 3
    assert chat.counts == {"requests": 12, "cached": 0, "tokens_in": 120, "tokens_out": 600, "cost": 0}
    assert server.keys == {"Bearer sk-very-secret"}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and all(b"secret" not in path.read_bytes() for path in files)


@pytest.mark.parametrize("fault", ["500", "429", "cut"])
def test_a_request_is_repeated_after_a_passing_fault(connect, server, fault):
    server.faults = [fault]
    assert ask_all(connect(server), WORDS[:1]) == ANSWERS[:1] and len(server.bodies) == 2


@pytest.mark.parametrize(("fault", "requests"), [("401", 1), ("404", 1), ("500", 2), ("another form", 1)])
def test_a_lasting_fault_ends_the_run_and_the_answers_before_it_are_stored(connect, server, fault, requests):
    ask_all(connect(server, parallel=1), WORDS[:2])
    server.faults = [fault] * 50
    with pytest.raises(ServerError, match=rf"{server.url}.*answers\.sqlite"):
        ask_all(connect(server, parallel=1), WORDS[:3])
    assert len(server.bodies) == 2 + requests
    server.faults, chat = [], connect(server)
    assert ask_all(chat, WORDS) == ANSWERS and len(server.bodies) == 2 + requests + 10
    assert (chat.counts["requests"], chat.counts["cached"]) == (10, 2)
    chat.ask([{"role": "system", "content": WORDS[0]}])
    assert len(server.bodies) == 2 + requests + 11  # another conversation


def test_a_budget_needs_a_price_and_a_server_that_counts(connect, server):
    with pytest.raises(SettingsError, match="price"):
        connect(server, max_cost=3.0)
    server.usage = None
    with pytest.raises(ServerError, match="usage"):
        ask_all(connect(server, max_cost=3.0, price=(1.0, 1.0)), WORDS)
    assert ask_all(connect(server), WORDS[:1]) == ANSWERS[:1]


def test_without_server_key_address_or_client_the_message_names_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(SettingsError, match="OPENAI_API_KEY.*OPENAI_BASE_URL"):
        Chat("tiny", tmp_path / "a.sqlite")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(ServerError, match=r"127\.0\.0\.1:9/v1"):
        ask_all(Chat("tiny", tmp_path / "a.sqlite"), WORDS[:1])
    monkeypatch.setattr(module, "openai", None)
    with pytest.raises(SettingsError, match=r"pip install -e '.\[rewriting\]'"):
        Chat("tiny", tmp_path / "a.sqlite")


def test_a_file_of_something_else_is_named_and_left_alone(server, tmp_path):
    path = tmp_path / "answers.sqlite"
    path.write_text("not a database, but long enough to be one " * 20)
    for place in (path, tmp_path, path / "within" / "a.sqlite"):
        with pytest.raises(ServerError, match=str(place)):
            Chat("tiny", place)
    assert path.read_text().startswith("not a database")
