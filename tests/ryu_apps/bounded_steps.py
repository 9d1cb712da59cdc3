"""Runs a parser with a bound on its steps, so that an endless loop is a failure and not a hang."""

import contextlib
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

# Lines of Python that a parser may run for a message of so many bytes; sound messages take less than a tenth.
LINES_PER_BYTE, LINES = 200, 20_000


class TooManySteps(BaseException):
    """A parser goes on and on."""


@contextlib.contextmanager
def bounded(size: int) -> Iterator[None]:
    """Raises TooManySteps inside the block once it has run too many lines for `size` bytes."""
    left = LINES + LINES_PER_BYTE * size

    def step(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise TooManySteps
        return step

    before = sys.gettrace()
    sys.settrace(step)
    try:
        yield
    finally:
        sys.settrace(before)
