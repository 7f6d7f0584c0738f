"""Models that answer to messages, and a store of their answers: what was answered is never asked again."""

import json
import os
import sqlite3
import threading
from collections import Counter, namedtuple
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from tqdm.contrib.concurrent import thread_map

from ..errors import ServerError, SettingsError
from ..files import fingerprint

try:
    import openai
except ImportError:  # an extra
    openai = None

PARALLEL, MAX_TOKENS = 8, 512
"""Requests at a time, and tokens of an answer."""
TIMEOUT, RETRIES = 120.0, 6
"""Seconds for an answer; and tries again after 408, 409, 429, 5xx or a lost connection, openai waiting longer
each time."""

_WITHOUT = {"logprobs": None, "top_logprobs": None}
LESS = ({}, {"top_logprobs": 5}, _WITHOUT, _WITHOUT | {"temperature": None, "seed": None})
"""What is changed or left out of a request (None), one after the other, where a server refuses it with 400 or
422: some give fewer log-probabilities or none, and models that reason have a temperature of their own."""

Reply = namedtuple("Reply", "text finish first")
"""A text, why it ended ("stop", or "length" where it was cut off), and the likeliest first tokens with their
log-probabilities, where they were asked for and given; else none."""


class Store:
    """Answers in an SQLite file at `path`, each under a key of its request, as soon as it is there.

    A subclass has `parallel`, how many requests are made at a time, and `request`. `counts` has `requests`,
    answers that were `cached`, and what a subclass counts.
    """

    parallel = 1

    def __init__(self, model: str, path: str | Path) -> None:
        self.model, self.path, self._lock = model, Path(path), threading.Lock()
        self.counts = Counter(requests=0, cached=0)
        self._query("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT)")

    def request(self, body: dict) -> Reply:
        """Answer to `model`, `messages` and the options of OpenAI's chat completions."""
        raise NotImplementedError

    def ask(self, messages: Sequence[dict], **options: object) -> Reply:
        """Return the answer to a conversation.

        Raises:
            ServerError: the server fails or refuses, or the budget is spent.
        """
        body = {"model": self.model, "messages": messages, "max_completion_tokens": MAX_TOKENS, **options}
        key = fingerprint(body)
        if stored := self._query("SELECT reply FROM replies WHERE key = ?", key):
            with self._lock:
                self.counts.update(cached=1)
            return Reply(*json.loads(stored[0][0]))
        reply = self.request(body)
        with self._lock:
            self.counts.update(requests=1)
        self._query("INSERT OR IGNORE INTO replies (key, reply) VALUES (?, ?)", key, json.dumps(reply))
        return reply

    def map(self, function: Callable, items: Sequence, label: str) -> list:
        """Apply a function that asks to each item, `parallel` at a time; the first error ends it."""
        return thread_map(function, items, max_workers=self.parallel, desc=label, disable=not items)

    def _query(self, statement: str, *values: str) -> list[tuple]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=60)) as store, store:
                return store.execute(statement, values).fetchall()
        except (OSError, sqlite3.Error) as error:
            raise ServerError(
                f"{self.path}: cannot store answers here ({error}); choose another place"
            ) from error


class Chat(Store):
    """A model behind OpenAI's API; `counts` also has tokens and cost."""

    def __init__(
        self,
        model: str,
        path: str | Path,
        *,
        url: str | None = None,
        price: tuple[float, float] = (0.0, 0.0),
        max_cost: float | None = None,
        parallel: int = PARALLEL,
    ) -> None:
        """Prepare the client; its key is OPENAI_API_KEY.

        Args:
            model: its name at the server.
            path: SQLite file of answers.
            url: the server's address (`http://127.0.0.1:8000/v1`); default OPENAI_BASE_URL, or OpenAI.
            price: of a million tokens, in and out.
            max_cost: no request is sent once the cost of this run has reached it; those under way still end.
            parallel: requests at a time.

        Raises:
            SettingsError: the extra `rewriting`, the address and key, or the price for a budget is missing.
            ServerError: the file cannot be made, or is no store of answers.
        """
        if openai is None:
            raise SettingsError("a language model needs the openai client: pip install -e '.[rewriting]'")
        key, url = os.environ.get("OPENAI_API_KEY"), url or os.environ.get("OPENAI_BASE_URL")
        if not key and not url:
            raise SettingsError(
                "no language model: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server of your own"
            )
        if max_cost is not None and not any(price):
            raise SettingsError(f"a budget of {max_cost} needs the price of a million tokens, in and out")
        # a server of one's own needs no key, but the client insists on one
        self._client = openai.OpenAI(
            api_key=key or "none", base_url=url, timeout=TIMEOUT, max_retries=RETRIES
        )
        self.price, self.max_cost, self.parallel, self._less = price, max_cost, parallel, 0
        super().__init__(model, path)

    def request(self, body: dict) -> Reply:
        """Ask the server."""
        if self.max_cost is not None and self.counts["cost"] >= self.max_cost:
            raise ServerError(
                f"the budget of {self.max_cost} is spent; answers are in {self.path}, start again"
            )
        try:
            completion = self._complete(body)
            choice, usage = completion.choices[0], completion.usage
            tops = (
                choice.logprobs.content[0].top_logprobs if choice.logprobs and choice.logprobs.content else []
            )
            first = [(top.token, top.logprob) for top in tops]
            reply = Reply(choice.message.content or "", choice.finish_reason or "stop", first)
        except (openai.OpenAIError, ValueError, AttributeError, IndexError, TypeError) as error:
            raise ServerError(
                f"{self._client.base_url}: no answer ({error}); "
                f"answers so far are in {self.path}, start again"
            ) from error
        if usage is None and self.max_cost is not None:
            raise ServerError(f"{self._client.base_url}: reports no usage, so a budget cannot be kept")
        tokens = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
        cost = sum(n * price for n, price in zip(tokens, self.price, strict=True)) / 1e6
        with self._lock:
            self.counts.update(tokens_in=tokens[0], tokens_out=tokens[1], cost=cost)
        return reply

    def _complete(self, body: dict):
        """The server's completion, with as many options as it takes; later requests begin with these."""
        attempts = {}
        for k in range(self._less, len(LESS)):
            changed = {name: LESS[k].get(name, value) for name, value in body.items()}
            attempt = {name: value for name, value in changed.items() if value is not None}
            if attempt not in attempts.values():
                attempts[k] = attempt
        for k, attempt in attempts.items():
            try:
                completion = self._client.chat.completions.create(**attempt)
            except (openai.BadRequestError, openai.UnprocessableEntityError):
                if k == max(attempts):
                    raise
            else:
                self._less = max(k, self._less)
                return completion
