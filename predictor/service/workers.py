"""Fits slow models in a process of their own, so that no cycle ever waits and no hanging fit outlives its budget."""

import copy
import ctypes
import multiprocessing
import os
import signal
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np
import structlog
from pebble import ProcessExpired, ProcessFuture, ProcessPool
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from predictor.config import WorkLimits
from predictor.data.view import Ints, SeriesView, bounded_rows, fair_sample
from predictor.models import Budgeted, Model

log = structlog.get_logger(__name__)

NICENESS = 10
# A fit that sleeps uses no CPU; so many times its CPU budget of wall time ends it as well.
WALL_SHARE = 6.0
CLOSING_S = 2.0
# Slow fits begin with this much history, of at most so many series.
FIRST_FIT_CELLS = 60
FITTED_SERIES = 1000
# What one source has at most of the series that models learn from, where there are enough sources (ten).
SOURCE_SHARE = 0.1
# Fits of a round plan with at least so much CPU, whatever the machine has to spare, and one that takes so much tells.
LEAST_FIT_S, TELLING_S = 1.2, 0.3
# Share of the time after which a fit is ended that it may plan with.
PLANNED_SHARE = 0.5
# Each cycle in which something drifts brings the next fit so much nearer, as a share of the time between fits.
SOONER = 0.5


def use_one_thread() -> None:
    """Keeps the numeric libraries of this process from starting a thread per core: small arrays do not gain by it."""
    # The variable is for libraries that are loaded later, the limit for those that are loaded already.
    os.environ["OMP_NUM_THREADS"] = "1"
    threadpool_limits(limits=1)


# mallopt(3): arrays from this size on are mapped by themselves. Set by hand, glibc no longer raises it to 32 MB.
M_MMAP_THRESHOLD = -3
LARGE_BYTES = 1 << 20


def give_back_large_arrays() -> bool:
    """For the whole process; False where the C library has no such switch."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(M_MMAP_THRESHOLD, LARGE_BYTES) == 1


def prepare_worker() -> None:
    """First thing in the fitting process: it gives way to cycles, and an interrupt is its parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    use_one_thread()


class Fitted(NamedTuple):
    """A fitted model, and what its fit took."""

    model: Model
    cpu_s: float
    wall_s: float


def fit_model(model: Model, view: SeriesView, cpu_budget_s: float) -> Fitted:
    """The fitted model. A fit over budget is ended by the kernel, and the process with it."""
    cpu, wall = time.process_time(), time.monotonic()
    signal.setitimer(signal.ITIMER_PROF, cpu_budget_s)
    signal.setitimer(signal.ITIMER_REAL, WALL_SHARE * cpu_budget_s)
    try:
        model.fit(view)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.setitimer(signal.ITIMER_REAL, 0.0)
    return Fitted(model, time.process_time() - cpu, time.monotonic() - wall)


def plan_budget_s(limits: WorkLimits, pace: float, since_s: float) -> float:
    """CPU seconds that all fits of one round may plan with, `since_s` after the last was begun (0 = there was none).

    They take `fit_share` of a core and, as they give way to whoever else wants it, are over before the next round at
    the pace (CPU seconds in a second) of the last; `fit_budget_s` is the end of the longest, and plans are not exact.
    The first round is short: something learnt soon is worth more than more of it later.
    """
    wanted = min(limits.fit_share, pace) * min(since_s, limits.refit_every_s)
    return max(LEAST_FIT_S, min(wanted, PLANNED_SHARE * limits.fit_budget_s))


class FitPool:
    """One process for fits, started when first needed and again after it has died; several predictors may share it."""

    def __init__(self) -> None:
        # Spawned, not forked: this process has threads.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPool(max_workers=1, initializer=prepare_worker, context=context)
        self._running: list[ProcessFuture[Fitted]] = []

    @property
    def free(self) -> bool:
        """False while anybody's fit is running, and when closed."""
        self._running = [answer for answer in self._running if not answer.done()]
        return bool(self._pool.active) and not self._running

    def schedule(self, model: Model, view: SeriesView, cpu_budget_s: float) -> "Future[Fitted]":
        """Begins to fit a copy of the model, after those that were scheduled before."""
        answer = self._pool.schedule(fit_model, args=(model, view, cpu_budget_s))
        self._running.append(answer)
        return answer

    def close(self) -> None:
        """Ends the process, whatever it is doing; nothing can be scheduled afterwards."""
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join(CLOSING_S)


class FitWorker:
    """One predictor's fits in a pool of its own, or in a shared one. Not for use by several threads."""

    def __init__(self, cpu_budget_s: float, shared: FitPool | None = None) -> None:
        self.failures = 0
        # CPU seconds in a second that the last fit got: how much the machine has to spare.
        self.pace = 1.0
        self._cpu_budget_s = cpu_budget_s
        self._shared = shared is not None
        self._pool = shared or FitPool()
        self._jobs: list[tuple[str, Future[Fitted]]] = []

    @property
    def busy(self) -> bool:
        """True while a job is running."""
        return any(not answer.done() for _, answer in self._jobs)

    def submit(self, models: Sequence[Model], view: SeriesView) -> bool:
        """Begins to fit copies of the models, one after the other; False (and nothing done) while busy or closed."""
        if not self._pool.free:
            return False
        for model in [copy.copy(model) for model in models]:
            self._jobs.append((model.name, self._pool.schedule(model, view, self._cpu_budget_s)))
        return True

    def collect(self) -> list[Model]:
        """Models fitted since the last call; failures are logged and counted. Never waits."""
        fitted: list[Model] = []
        arrived = [job for job in self._jobs if job[1].done()]
        self._jobs = [job for job in self._jobs if job not in arrived]
        for name, answer in arrived:
            error = answer.exception()
            if error is None:
                done = answer.result()
                if done.cpu_s >= TELLING_S:
                    self.pace = done.cpu_s / max(done.wall_s, done.cpu_s)
                fitted.append(done.model)
                continue
            self.failures += 1
            text = f"{type(error).__name__}: {error}"
            if isinstance(error, ProcessExpired):
                text = f"the fitting process ended, probably over its budget of {self._cpu_budget_s:g} s CPU"
            log.warning("fit failed, the old one stays", model=name, error=text)
        return fitted

    def close(self) -> None:
        """Ends the process, unless it is shared; nothing that was submitted is heard of."""
        self._jobs = []
        if not self._shared:
            self._pool.close()


class FitSchedule:
    """When the slow models are fitted, to which series, and where: in a process of their own or in the one given or, if
    not `background`, within the cycle.
    """

    def __init__(self, limits: WorkLimits, seed: int, background: bool | FitPool) -> None:
        self._limits = limits
        shared = background if isinstance(background, FitPool) else None
        self._worker = FitWorker(limits.fit_budget_s, shared) if background else None
        self._fitted_at = -np.inf
        self._begun_at: float | None = None
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
        if now - self._fitted_at >= self._limits.refit_every_s and view.cells >= FIRST_FIT_CELLS:
            slow = [model for model in models if model.slow]
            since_s = 0.0 if self._begun_at is None else now - self._begun_at
            if not slow or self._begin(slow, view, since_s):
                self._fitted_at = self._begun_at = now

    def _begin(self, slow: Sequence[Model], view: SeriesView, since_s: float) -> bool:
        sample = view.part(self.sample_series(view))
        if self._worker:
            budgeted: list[Budgeted] = [model for model in slow if isinstance(model, Budgeted)]
            for one in budgeted:
                one.fit_budget_s = plan_budget_s(self._limits, self._worker.pace, since_s) / len(budgeted)
            return self._worker.submit(slow, sample)
        for model in slow:
            model.fit(sample)
        return True

    def sample_series(self, view: SeriesView) -> Ints:
        """Places of series of which no source has more than its share, so that none can teach the others its ways."""
        groups = np.arange(view.series) if view.groups is None else view.groups
        return fair_sample(groups, min(bounded_rows(groups, SOURCE_SHARE), FITTED_SERIES), self._rng)

    def hasten(self) -> None:
        """What was fitted to old ways is fitted again sooner."""
        self._fitted_at -= SOONER * self._limits.refit_every_s

    def close(self) -> None:
        """Ends the fitting process."""
        if self._worker:
            self._worker.close()
