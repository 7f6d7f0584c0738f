"""Requests to a language model behind OpenAI's chat-completions API, with a store of answers and a budget.

Each answer is stored as it arrives, under a key made of its request, so a run that was stopped anywhere goes
on with the missing ones.
"""

import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from tqdm.contrib.concurrent import thread_map

from ...errors import ServerError, SettingsError
from ...files import fingerprint

try:
    import openai
except ImportError:  # an extra
    openai = None

PARALLEL, MAX_TOKENS = 8, 512
"""Requests at a time, and tokens of an answer."""
RETRIES = 6
"""Of a request that fails with 408, 409, 429, 5xx or a lost connection; openai waits longer each time."""


class Chat:
    """A language model with a store of its answers; `counts` of requests, cached answers, tokens and cost."""

    def __init__(
        self,
        model: str,
        path: str | Path,
        *,
        price: tuple[float, float] = (0.0, 0.0),
        max_cost: float | None = None,
    ) -> None:
        """Prepare the client; OPENAI_BASE_URL and OPENAI_API_KEY are its address and key.

        Args:
            model: its name at the server.
            path: SQLite file of answers.
            price: of a million tokens, in and out.
            max_cost: no request is sent once the cost of this run has reached it; those under way still end.

        Raises:
            SettingsError: the extra `rewriting`, the address and key, or the price for a budget is missing.
            ServerError: the file cannot be made, or is no store of answers.
        """
        if openai is None:
            raise SettingsError("a language model needs the openai client: pip install -e '.[rewriting]'")
        key = os.environ.get("OPENAI_API_KEY")
        if not key and not os.environ.get("OPENAI_BASE_URL"):
            raise SettingsError(
                "no language model: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server of your own"
            )
        if max_cost is not None and not any(price):
            raise SettingsError(f"a budget of {max_cost} needs the price of a million tokens, in and out")
        # a server of one's own needs no key, but the client insists on one
        self._client = openai.OpenAI(api_key=key or "none", timeout=60.0, max_retries=RETRIES)
        self.model, self.price, self.max_cost = model, price, max_cost
        self.counts = Counter(requests=0, cached=0)
        self.path, self._lock = Path(path), threading.Lock()
        self._query("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, text TEXT, finish TEXT)")

    def ask(self, messages: Sequence[dict[str, str]]) -> tuple[str, str]:
        """Return the answer to a conversation, and why it ended: "stop", or "length" where it was cut off.

        Raises:
            ServerError: the server fails or refuses, or the budget is spent.
        """
        body = {"model": self.model, "messages": messages, "max_completion_tokens": MAX_TOKENS}
        key = fingerprint(body)
        if stored := self._query("SELECT text, finish FROM answers WHERE key = ?", key):
            with self._lock:
                self.counts.update(cached=1)
            return stored[0]
        if self.max_cost is not None and self.counts["cost"] >= self.max_cost:
            raise ServerError(
                f"the budget of {self.max_cost} is spent; answers are in {self.path}, start again"
            )
        try:
            completion = self._client.chat.completions.create(**body)
            choice, usage = completion.choices[0], completion.usage
            answer = choice.message.content or "", choice.finish_reason or "stop"
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
            self.counts.update(requests=1, tokens_in=tokens[0], tokens_out=tokens[1], cost=cost)
        self._query("INSERT OR IGNORE INTO answers (key, text, finish) VALUES (?, ?, ?)", key, *answer)
        return answer

    def map(self, function: Callable, items: Sequence, label: str) -> list:
        """Apply a function that asks to each item, `PARALLEL` at a time; the first error ends it."""
        return thread_map(function, items, max_workers=PARALLEL, desc=label, disable=not items)

    def _query(self, statement: str, *values: str) -> list[tuple]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=60)) as store, store:
                return store.execute(statement, values).fetchall()
        except (OSError, sqlite3.Error) as error:
            raise ServerError(
                f"{self.path}: cannot store answers here ({error}); choose another place"
            ) from error
