"""Work on a thread of its own, of which only the newest counts."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait


class Superseded(Exception):
    """A newer job was submitted, or the job was cancelled."""


class NewestJobOnly:
    """Runs jobs one at a time; a new job supersedes the running one and any that waits.

    A job is a function of `check`, which it calls between its steps: `check` ends it by raising `Superseded`.
    Any other exception is given to `failed`, on the same thread.
    """

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        self._failed, self._newest = failed, 0
        self._thread = ThreadPoolExecutor(1, "expvqa")
        self._last: Future | None = None

    def submit(self, job: Callable[[Callable[[], None]], None]) -> None:
        """Run a job as soon as the running one ends."""
        self._newest += 1
        self._last = self._thread.submit(self._run, job, self._newest)

    def cancel(self) -> None:
        """Let no submitted job go on."""
        self._newest += 1

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs; False where `timeout` seconds were not enough."""
        return self._last is None or not wait([self._last], timeout).not_done

    def _run(self, job: Callable[[Callable[[], None]], None], number: int) -> None:
        def check() -> None:
            if number != self._newest:
                raise Superseded

        try:
            check()
            job(check)
        except Superseded:
            pass
        except Exception as error:
            if number == self._newest:
                self._failed(error)
