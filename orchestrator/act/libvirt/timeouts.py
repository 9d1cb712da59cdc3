"""Nothing waits for ever: calls that may hang run in threads of their own, and are given up after a while."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from cpdb import DriverError, Seconds

T = TypeVar("T")


def within(limit_s: Seconds, call: Callable[[], T], doing: str) -> T:
    """What `call` returns or raises. Raises DriverError when that takes longer than `limit_s`.

    A call into a hypervisor cannot be broken off: its thread stays until it comes back, and nobody waits for it.
    """
    asked = TimedCall(call)
    if not asked.wait(limit_s):
        raise DriverError(f"{doing}: no answer within {limit_s:g} s")
    return asked.answer()


class TimedCall(Generic[T]):
    """One call in a daemon thread of its own."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._found: list[T] = []
        self._error: BaseException | None = None
        self._done = threading.Event()
        threading.Thread(target=self._run, name="libvirt-call", daemon=True).start()

    def _run(self) -> None:
        try:
            self._found.append(self._call())
        except BaseException as error:  # noqa: BLE001 - it is raised again where the answer is taken
            self._error = error
        finally:
            self._done.set()

    def wait(self, limit_s: Seconds) -> bool:
        """Whether it came back within `limit_s`."""
        return self._done.wait(max(0.0, limit_s))

    def answer(self) -> T:
        """What it returned or raised; only after it came back."""
        if self._error is not None:
            raise self._error
        return self._found[0]


def until(look: Callable[[], bool], limit_s: Seconds, every_s: Seconds = 0.2) -> bool:
    """Looks again and again until it holds; False when it did not within `limit_s`."""
    deadline = time.monotonic() + limit_s
    while not look():
        if time.monotonic() >= deadline:
            return False
        time.sleep(every_s)
    return True
