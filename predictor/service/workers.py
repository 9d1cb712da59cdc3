"""Fits slow models in a process of their own, so that no cycle ever waits and no hanging fit outlives its budget."""

import copy
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from queue import Empty, SimpleQueue

import numpy as np
import structlog
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from predictor.config import WorkLimits
from predictor.data.view import Ints, SeriesView, fair_sample
from predictor.models import Model

log = structlog.get_logger(__name__)

NICENESS = 10
# A fit that sleeps uses no CPU; so many times its CPU budget of wall time ends it as well.
PATIENCE = 6.0
CLOSING_S = 2.0
# Slow fits begin with this much history, of at most so many series.
FIRST_FIT_CELLS = 60
FITTED_SERIES = 1000
# Each cycle in which something drifts brings the next fit so much nearer, as a share of the time between fits.
SOONER = 0.5


def use_one_thread() -> None:
    """Keeps the numeric libraries of this process from starting a thread per core: small arrays do not gain by it."""
    # The variable is for libraries that are loaded later, the limit for those that are loaded already.
    os.environ["OMP_NUM_THREADS"] = "1"
    threadpool_limits(limits=1)


def serve_fits(pipe: Connection, cpu_budget_s: float) -> None:
    """Main function of the fitting process: receives (model, view), sends back the fitted model or a line of text.

    Ends when the other end closes, that is also when the parent dies. A fit over budget is ended by the kernel,
    and this process with it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    use_one_thread()
    while True:
        try:
            model, view = pipe.recv()
        except EOFError:
            return
        _limit(cpu_budget_s)
        answer = _fitted(model, view)
        _limit(0.0)
        try:
            pipe.send(answer)
        except BrokenPipeError:
            return


def _limit(cpu_budget_s: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, cpu_budget_s)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE * cpu_budget_s)


def _fitted(model: Model, view: SeriesView) -> Model | str:
    try:
        model.fit(view)
    except Exception as error:  # noqa: BLE001 - the outer catch of this process: any model may fail in any way
        return f"{type(error).__name__}: {error}"
    return model


class FitWorker:
    """One worker process, started when first needed and again after it has died. Not for use by several threads."""

    def __init__(self, cpu_budget_s: float) -> None:
        self.failures = 0
        self._cpu_budget_s = cpu_budget_s
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._answers: SimpleQueue[tuple[str, Model | str]] = SimpleQueue()

    @property
    def busy(self) -> bool:
        """True while a job is running."""
        return self._thread is not None and self._thread.is_alive()

    def submit(self, models: Sequence[Model], view: SeriesView) -> bool:
        """Begins to fit copies of the models, one after the other; False (and nothing done) while busy or closed."""
        if self.busy or self._closed:
            return False
        # Starting, sending and receiving may all block, hence the thread.
        jobs = [copy.copy(model) for model in models]
        self._thread = threading.Thread(target=self._converse, args=(jobs, view), name="fits", daemon=True)
        self._thread.start()
        return True

    def collect(self) -> list[Model]:
        """Models fitted since the last call; failures are logged and counted. Never waits."""
        fitted: list[Model] = []
        while True:
            try:
                name, answer = self._answers.get_nowait()
            except Empty:
                return fitted
            if isinstance(answer, str):
                self.failures += 1
                log.warning("fit failed, the old one stays", model=name, error=answer)
            else:
                fitted.append(answer)

    def _converse(self, models: Sequence[Model], view: SeriesView) -> None:
        for model in models:
            if self._closed:
                return
            try:
                pipe = self._connected()
                pipe.send((model, view))
                self._answers.put((model.name, pipe.recv()))
            except (EOFError, OSError) as error:
                over = (
                    f"the fitting process ended, probably over its budget of {self._cpu_budget_s:g} s CPU ({error!r})"
                )
                self._answers.put((model.name, over))
                self._stop()

    def _connected(self) -> Connection:
        if self._pipe is not None and self._process is not None and self._process.is_alive():
            return self._pipe
        self._stop()
        context = multiprocessing.get_context("spawn")
        with self._lock:
            if self._closed:
                raise EOFError("closed")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(
                target=serve_fits, args=(theirs, self._cpu_budget_s), name="fits", daemon=True
            )
            self._process.start()
            theirs.close()
            return self._pipe

    def _stop(self) -> None:
        with self._lock:
            process, pipe, self._process, self._pipe = self._process, self._pipe, None, None
        if process is not None:
            process.kill()
            process.join(CLOSING_S)
        if pipe is not None:
            pipe.close()

    def close(self) -> None:
        """Ends the worker process, whatever it is doing; nothing can be submitted afterwards."""
        with self._lock:
            self._closed = True
            process = self._process
        if process is not None:
            process.kill()  # wakes the thread that waits for its answer
        if self._thread is not None:
            self._thread.join(CLOSING_S)
        self._stop()


class FitSchedule:
    """When the slow models are fitted, to which series, and where: in a process of their own or, if not `background`,
    within the cycle."""

    def __init__(self, limits: WorkLimits, seed: int, background: bool) -> None:
        self._every_s = limits.refit_every_s
        self._worker = FitWorker(limits.fit_budget_s) if background else None
        self._fitted_at = -np.inf
        self._rng = np.random.default_rng(seed)

    @property
    def failures(self) -> int:
        """How many background fits have failed so far."""
        return self._worker.failures if self._worker else 0

    def collect(self) -> list[Model]:
        """Models whose background fit has arrived."""
        return self._worker.collect() if self._worker else []

    def begin_when_due(self, models: Iterable[Model], view: SeriesView, now: float) -> None:
        """Begins a fit of the slow ones among the models, unless the last one is too recent."""
        if now - self._fitted_at >= self._every_s and view.cells >= FIRST_FIT_CELLS:
            slow = [model for model in models if model.slow]
            if not slow or self._begin(slow, view):
                self._fitted_at = now

    def _begin(self, slow: Sequence[Model], view: SeriesView) -> bool:
        sample = view.part(self.sample_series(view))
        if self._worker:
            return self._worker.submit(slow, sample)
        for model in slow:
            model.fit(sample)
        return True

    def sample_series(self, view: SeriesView) -> Ints:
        """Places of series of which no source has more than it must, so that none can teach the others its ways."""
        groups = np.arange(view.series) if view.groups is None else view.groups
        return fair_sample(groups, min(view.series, FITTED_SERIES), self._rng)

    def hasten(self) -> None:
        """What was fitted to old ways is fitted again sooner."""
        self._fitted_at -= SOONER * self._every_s

    def close(self) -> None:
        """Ends the fitting process."""
        if self._worker:
            self._worker.close()
