"""Work off the main thread of which only the newest counts."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Superseded(Exception):
    """The job is no longer wanted: a newer one came, or it was cancelled."""


class Latest:
    """Runs one job at a time on a thread of its own; a new job supersedes the one under way and any that waits.

    A job is a function of `check`, which it calls between its steps: `check` raises `Superseded` where the job is no longer wanted, and
    so ends it. Another exception is given to `failed`, which runs on the same thread.
    """

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        self._failed = failed
        self._changed = threading.Condition()
        self._waiting: tuple[int, Callable] | None = None
        self._number, self._running = 0, False

    def submit(self, job: Callable[[Callable[[], None]], None]) -> None:
        """Run a job as soon as the one under way lets go."""
        with self._changed:
            self._number += 1
            self._waiting = (self._number, job)
            if not self._running:  # the thread ends with the work, so that none outlives what it worked for
                self._running = True
                threading.Thread(target=self._work, name="expvqa", daemon=True).start()

    def cancel(self) -> None:
        """Let nothing that was submitted go on."""
        with self._changed:
            self._number += 1
            self._waiting = None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs; False where `timeout` seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout)

    def _work(self) -> None:
        while True:
            with self._changed:
                if self._waiting is None:
                    self._running = False
                    self._changed.notify_all()
                    return
                (number, job), self._waiting = self._waiting, None
            try:
                job(lambda number=number: self._check(number))
            except Superseded:
                continue
            except Exception as error:
                if number == self._number:
                    self._failed(error)

    def _check(self, number: int) -> None:
        if number != self._number:
            raise Superseded
