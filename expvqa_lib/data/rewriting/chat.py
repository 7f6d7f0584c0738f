"""Asking a language model behind any server that speaks OpenAI's chat-completions API.

Every answer is kept in one SQLite file under a key made of the request, in the transaction in which it arrives: a run that was
stopped anywhere, by Ctrl-C, `kill -9` or a spent budget, goes on with what is missing. Threads, not asyncio, since a notebook runs a loop.
"""

from __future__ import annotations

import math
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import astuple, dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TypeVar

from tqdm.auto import tqdm

from ...errors import ServerError, SettingsError
from ...files import fingerprint

Item, Result = TypeVar("Item"), TypeVar("Result")
LONGEST_WAIT = 300.0
"""Seconds; a server that asks for more in `Retry-After` ends the run, which can go on later."""


@dataclass(frozen=True)
class Service:
    """Which model answers, where, how hard to try, and what it may cost.

    The address and key come from the environment (OPENAI_BASE_URL, OPENAI_API_KEY) where `url` is None; the key never from elsewhere.
    """

    model: str
    url: str | None = None
    parallel: int = 8  # requests at a time
    attempts: int = 7  # a request, with pauses that double
    timeout: float = 60.0  # seconds a request
    max_tokens: int = 512  # an answer
    price: tuple[float, float] = (0.0, 0.0)  # of a million tokens, in and out
    max_requests: int | None = None  # of this run, failed ones included
    max_cost: float | None = None  # of this run, in the unit of `price`

    def __post_init__(self) -> None:
        """Raise SettingsError where a value is out of range."""
        for name in ("parallel", "attempts", "max_tokens"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if self.max_cost is not None and not sum(self.price) > 0:
            raise SettingsError(
                f"a budget of {self.max_cost} needs the price of a million tokens, in and out"
            )


@dataclass(frozen=True)
class Answer:
    """What the model wrote, why it stopped ("stop", or "length" where it was cut off), and the tokens in and out."""

    text: str
    finish: str
    tokens_in: int
    tokens_out: int


class Answers:
    """Answers on disk by key. Several threads and processes may use the file at once."""

    def __init__(self, path: str | Path) -> None:
        """Open or make the file. Raises ServerError where it is no such file or cannot be written to."""
        self.path, self._lock = Path(path), threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(self.path, timeout=60, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise ServerError(
                f"{self.path}: cannot be made or opened ({error}); choose another place for the answers"
            ) from error
        columns = "key TEXT PRIMARY KEY, text TEXT, finish TEXT, tokens_in INTEGER, tokens_out INTEGER"
        self._run(f"CREATE TABLE IF NOT EXISTS answers ({columns})")

    def _run(self, statement: str, values: Sequence = ()) -> list[tuple]:
        try:
            with self._lock, self._file:
                return self._file.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise ServerError(
                f"{self.path}: answers cannot be kept here ({error}); make room, or move the file away"
            ) from error

    def get(self, key: str) -> Answer | None:
        """The answer kept under a key."""
        rows = self._run("SELECT text, finish, tokens_in, tokens_out FROM answers WHERE key = ?", (key,))
        return Answer(*rows[0]) if rows else None

    def put(self, key: str, answer: Answer) -> Answer:
        """Keep an answer and return it; where another process was first, return that one's."""
        self._run("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?)", (key, *astuple(answer)))
        return self.get(key)

    def __len__(self) -> int:
        return self._run("SELECT COUNT(*) FROM answers")[0][0]


class Chat:
    """A conversation partner that remembers what it was asked. Counts requests, answers from disk, tokens and cost of this run."""

    def __init__(self, service: Service, answers: Answers) -> None:
        """Connect lazily. Raises SettingsError where the extra `rewriting` or both address and key are missing."""
        try:
            import openai
        except ImportError:
            raise SettingsError(
                "asking a language model needs the openai client: pip install -e '.[rewriting]'"
            ) from None
        key, url = os.environ.get("OPENAI_API_KEY"), service.url or os.environ.get("OPENAI_BASE_URL")
        if not key and not url:
            raise SettingsError(
                "no language model to ask: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server of your own"
            )
        # a server of one's own needs no key, but the client insists on one
        self._client = openai.OpenAI(
            api_key=key or "none", base_url=url, timeout=service.timeout, max_retries=0
        )
        self.service, self.answers = service, answers
        self.requests = self.cached = self.tokens_in = self.tokens_out = 0
        self.cost = self._pending = 0.0
        self._lock, self._stop = threading.Lock(), threading.Event()

    def ask(self, messages: Sequence[dict[str, str]], seed: int | None = None) -> Answer:
        """Answer a conversation: from disk where it was asked before, else by the server.

        Raises:
            ServerError: the server cannot be reached, refuses, or answers with nonsense after all attempts; or the budget is spent.
        """
        body = {
            "model": self.service.model,
            "messages": list(messages),
            "max_completion_tokens": self.service.max_tokens,
        }
        body |= {} if seed is None else {"seed": seed}
        key = fingerprint(body)
        if kept := self.answers.get(key):
            with self._lock:
                self.cached += 1
            return kept
        return self.answers.put(key, self._request(body))

    def map(self, function: Callable[[Item], Result], items: Sequence[Item], label: str) -> list[Result]:
        """Apply a function that asks to each item, `parallel` at a time, showing progress, tokens and cost.

        The first error ends it: what is under way at the server is waited for and kept, the rest is not asked.
        """
        self._stop.clear()
        failed: list[Exception] = []

        def attempt(item: Item) -> Result:
            try:
                return function(item)
            except Exception as error:
                failed.append(error)
                self._stop.set()  # at once, before this thread takes up another item
                raise

        with (
            ThreadPoolExecutor(self.service.parallel) as pool,
            tqdm(total=len(items), desc=label, disable=not items) as bar,
        ):
            futures = [pool.submit(attempt, item) for item in items]
            try:
                for future in as_completed(futures):
                    future.result()
                    bar.set_postfix_str(self.spent(), refresh=False)
                    bar.update()
            except BaseException as error:
                self._stop.set()
                pool.shutdown(cancel_futures=True)
                if isinstance(error, Exception):
                    raise failed[0] from error.__cause__  # the others were only stopped by it
                raise
        return [future.result() for future in futures]

    def spent(self) -> str:
        """Tokens and cost so far, in words."""
        return f"{self.tokens_in + self.tokens_out} tokens" + (
            f", cost {self.cost:.4f}" if sum(self.service.price) else ""
        )

    # -------------------------------------------------------------------------------------------------------- requests

    def _request(self, body: dict) -> Answer:
        import openai

        for attempt in range(self.service.attempts):
            dearest = self._reserve(body)
            paid = dearest  # what was asked may be charged for, whatever becomes of the answer
            try:
                answer = _read(self._client.chat.completions.create(**body))
                if answer.tokens_in + answer.tokens_out:  # some servers do not count
                    paid = self._price(answer.tokens_in, answer.tokens_out)
                with self._lock:
                    self.tokens_in += answer.tokens_in
                    self.tokens_out += answer.tokens_out
                return answer
            except openai.APIStatusError as error:
                paid = 0.0
                if (
                    error.status_code not in (408, 409, 429)
                    and error.status_code < 500
                    or error.code == "insufficient_quota"
                ):
                    raise ServerError(
                        f"{self._client.base_url}: refuses ({error}); check the address, key, model and account"
                    ) from error
                problem = error
            except (
                openai.APIConnectionError,
                openai.APIResponseValidationError,
                ValueError,
            ) as error:  # time-outs too; not JSON
                problem = error
            finally:
                self._settle(dearest, paid)
            if attempt + 1 < self.service.attempts:
                self._stop.wait(_pause(problem, attempt))
        raise ServerError(
            f"{self._client.base_url}: {self.service.attempts} attempts failed, the last with {problem!r}; {self._resume()}"
        ) from problem

    def _reserve(self, body: dict) -> float:
        """Count a request that is about to start, and hold back the most that it can cost: a token has at least one byte."""
        dearest = self._price(
            sum(len(m["content"].encode()) + 16 for m in body["messages"]), self.service.max_tokens
        )
        limits, spent = self.service, None
        with self._lock:
            if self._stop.is_set():
                raise ServerError(f"stopped; {self._resume()}")
            if limits.max_requests is not None and self.requests >= limits.max_requests:
                spent = f"{limits.max_requests} requests"
            elif limits.max_cost is not None and self.cost + self._pending + dearest > limits.max_cost:
                spent = f"{limits.max_cost} (cost so far {self.cost:.4f}; the next request could exceed it)"
            else:
                self.requests += 1
                self._pending += dearest
        if spent:
            raise ServerError(f"the budget of {spent} is spent; {self._resume()}")
        return dearest

    def _settle(self, reserved: float, paid: float) -> None:
        with self._lock:
            self._pending -= reserved
            self.cost += paid

    def _price(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self.service.price[0] + tokens_out * self.service.price[1]) / 1e6

    def _resume(self) -> str:
        return (
            f"no answer is lost, {len(self.answers)} are in {self.answers.path}: start again and it goes on"
        )


def _read(completion) -> Answer:
    """Take what is needed from a completion. Raises ValueError where the server sent JSON of another form, or no JSON."""
    try:
        choice, usage = completion.choices[0], completion.usage
        text = choice.message.content or ""
        return Answer(
            text,
            choice.finish_reason or "stop",
            *((usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)),
        )
    except (AttributeError, TypeError, IndexError) as error:
        raise ValueError(f"not a chat completion: {str(completion)[:80]!r}") from error


def _pause(problem: Exception, attempt: int) -> float:
    """Seconds before the next attempt: what the server asks for, else doubled each time, with chance so that requests spread."""
    headers = getattr(getattr(problem, "response", None), "headers", {})
    wanted = _seconds(headers.get("retry-after", ""))
    if wanted is None:
        return min(30.0, 0.5 * 2**attempt) * random.uniform(0.5, 1.0)
    if wanted > LONGEST_WAIT:
        raise ServerError(
            f"the server asks to wait for {wanted:.0f} s; start again then, and it goes on"
        ) from problem
    return wanted


def _seconds(retry_after: str) -> float | None:
    """Read a `Retry-After` header, seconds or an HTTP date; None where there is no valid one."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
