"""Models that misbehave, in a module of their own so that another process can import them."""

import os
import time
from typing import ClassVar

from predictor.data.view import Floats, Ints, SeriesView


class Obedient:
    """Remembers where it was fitted."""

    name: ClassVar[str] = "obedient"
    slow: ClassVar[bool] = True
    replayable: ClassVar[bool] = False
    costly: ClassVar[bool] = False

    def __init__(self) -> None:
        self.process = 0
        self.threads = ""

    def fit(self, view: SeriesView) -> None:
        self.process = os.getpid()
        self.threads = os.environ["OMP_NUM_THREADS"]

    def update(self, view: SeriesView) -> None: ...

    def predict(self, view: SeriesView, origins: Ints) -> Floats:
        return view.rates


class Failing(Obedient):
    """Cannot be fitted."""

    name: ClassVar[str] = "failing"

    def fit(self, view: SeriesView) -> None:
        raise ZeroDivisionError("no data")


class Spinning(Obedient):
    """Never comes back and uses the processor."""

    name: ClassVar[str] = "spinning"

    def fit(self, view: SeriesView) -> None:
        while True:
            pass


class Sleeping(Obedient):
    """Never comes back and uses nothing."""

    name: ClassVar[str] = "sleeping"

    def fit(self, view: SeriesView) -> None:
        time.sleep(1000)
