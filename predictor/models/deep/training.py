"""Trains a network within a budget of CPU time."""

import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import cos, inf, pi
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from predictor.data.view import Floats
from predictor.models.deep.inputs import WARM_UP, NetworkTask, TrainingBatch, draw_batch, simple_loss
from predictor.models.deep.networks import Design, MomentInputs, fitting_weights, initial_weights, network_quantiles

BATCH = 256
FASTEST = 3e-3
# A network that was trained before only follows what has changed.
WARM = 0.3
DECAY = 1e-3
CLIPPED = 1.0
RISING = 50
CHECKED_EVERY = 40
# So many steps without getting better, and more of them will not help.
PATIENCE = 480
# With fewer moments than this to learn from, units are dropped at random, or the network learns them by heart.
PLENTY = 150_000
DROPPED = 0.1
VALIDATED = 2048
AVERAGED = 0.99
# What was kept back is learnt at last, so that the newest is not the least known: so many steps for each before.
AFTER = 0.4
# Share of the fitting process's limit that a training plans with; shares of that after which its two parts end.
OF_LIMIT = 0.75
FIRST_PART = 0.72
SECOND_PART = 0.95
OPTIMISER = optax.chain(
    optax.clip_by_global_norm(CLIPPED), optax.scale_by_adam(), optax.add_decayed_weights(DECAY)
)  # AdamW (Loshchilov and Hutter 2019) for a rate that changes from step to step


@dataclass(frozen=True, slots=True)
class TrainingEffort:
    """How much a training may cost: at most so many steps of the first part, at most so much time in all."""

    steps: int
    cpu_s: float
    seed: int = 1
    wall_s: float = inf

    def within_limit(self) -> "TrainingEffort":
        """The same, but well within the time after which the kernel would end this process, if it would."""
        cpu_s, wall_s = (OF_LIMIT * signal.getitimer(one)[0] or inf for one in (signal.ITIMER_PROF, signal.ITIMER_REAL))
        return replace(self, cpu_s=min(self.cpu_s, cpu_s), wall_s=min(self.wall_s, wall_s))


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained network's weights by name, and how it did on what was kept back (errors in units of the series).

    `median_error` and `simple_error` are mean absolute errors of its median and of the best simple guess.
    """

    weights: dict[str, Floats]
    loss: float
    median_error: float
    simple_error: float
    steps: int
    cpu_s: float


class Lesson(NamedTuple):
    """A batch as the compiled functions want it, see TrainingBatch."""

    asked: MomentInputs
    truths: Any
    counts: Any

    @classmethod
    def of(cls, batch: TrainingBatch) -> "Lesson":
        """The same moments."""
        return cls(MomentInputs.of(batch.inputs), batch.truths, batch.weights)


class TrainingState(NamedTuple):
    """All weights as one vector, their average over steps, what the optimiser remembers, and a key to chance."""

    weights: Any
    average: Any
    memory: Any
    key: Any


def train_network(
    kind: str, subject: NetworkTask, effort: TrainingEffort, warm: Mapping[str, Floats] | None = None
) -> Trained:
    """A network trained from scratch, or from the weights `warm`; the same data and seed give the same one.

    (As long as it is the number of steps that ends it, and not the CPU time.)
    """
    began = time.process_time()
    design = replace(Design.of(kind, subject), dropped=DROPPED if subject.moments < PLENTY else 0.0)
    training = _Training(design, subject, effort, warm)
    training.learn()
    loss, error = training.best_losses
    training.learn_the_rest()
    weights = design.named(np.asarray(training.best))
    simple = simple_loss(training.kept_back)
    return Trained(weights, loss, error, simple, training.best_step, time.process_time() - began)


class _Training:
    """A training under way: where it stands, and the best average so far with its losses on what is kept back."""

    def __init__(
        self, design: Design, subject: NetworkTask, effort: TrainingEffort, warm: Mapping[str, Floats] | None
    ) -> None:
        self._design, self._subject, self._effort = design, subject, effort
        self._began = time.process_time(), time.monotonic()
        self._rng = np.random.default_rng(effort.seed)
        warmed = warm is not None and fitting_weights(design, warm)
        self._rate = WARM * FASTEST if warmed else FASTEST
        weights = warm if warm is not None and warmed else initial_weights(design, self._rng)
        self.best: Any = design.joined(weights)
        self.kept_back = draw_batch(subject, range(subject.split, subject.last + 1), VALIDATED, self._rng)
        self.best_losses, self.best_step = (inf, inf), 0
        self._state = self._begin()

    def learn(self) -> None:
        """Learns all but what is kept back; keeps the average that did best there."""
        self._compile()
        step = 0
        for step in self._steps(self._effort.steps, FIRST_PART, range(WARM_UP, self._subject.taught)):
            if step % CHECKED_EVERY == 0:
                self._check(step)
            if step - self.best_step > PATIENCE:
                break
        self._check(step)

    def _compile(self) -> None:
        """Takes the first step of all and forgets it: rates fall with time, and compiling takes seconds of it once."""
        lesson = Lesson.of(draw_batch(self._subject, range(WARM_UP, self._subject.taught), BATCH, self._rng))
        _step(self._design, self._subject.levels, self._state, lesson, np.zeros(2, np.float32))
        self._check(0)

    def learn_the_rest(self) -> None:
        """Goes on from the best with all there is, more slowly."""
        self._rate *= WARM
        self._state = self._begin()
        steps = round(AFTER * self.best_step)
        for _ in self._steps(steps, SECOND_PART, range(WARM_UP, self._subject.last + 1)):
            pass
        self.best = self._state.average

    def _begin(self) -> TrainingState:
        return TrainingState(
            self.best, self.best, OPTIMISER.init(self.best), jax.random.key(self._effort.seed, impl="rbg")
        )

    def _steps(self, steps: int, until: float, span: range) -> Iterator[int]:
        """Makes steps, at rates that fall to 0, until there are enough or `until` of the time is spent; yields each."""
        begun = self._spent()
        for step in range(steps):
            progress = max(step / steps, (self._spent() - begun) / max(until - begun, 1e-9))
            if progress >= 1.0:
                return
            rate = self._rate * 0.5 * (1.0 + cos(pi * progress)) * min(1.0, (step + 1) / RISING)
            lesson = Lesson.of(draw_batch(self._subject, span, BATCH, self._rng))
            pace = np.array([rate, min(AVERAGED, (1.0 + step) / (10.0 + step))], dtype=np.float32)
            self._state = _step(self._design, self._subject.levels, self._state, lesson, pace)
            yield step + 1

    def _spent(self) -> float:
        """Share of the time that is spent, of whichever is scarcer."""
        cpu_s, wall_s = time.process_time() - self._began[0], time.monotonic() - self._began[1]
        return max(cpu_s / self._effort.cpu_s, wall_s / self._effort.wall_s)

    def _check(self, step: int) -> None:
        average = self._state.average
        losses = _losses(self._design, self._subject.levels, average, Lesson.of(self.kept_back))
        loss, error = (float(one) for one in losses)
        if loss < self.best_losses[0]:
            self.best_losses, self.best_step, self.best = (loss, error), step, average


@partial(jax.jit, static_argnums=(0, 1))
def _step(
    design: Design, levels: tuple[float, ...], state: TrainingState, lesson: Lesson, pace: Array
) -> TrainingState:
    """One step of training; `pace` is the rate and how much of the average is kept (Polyak and Juditsky 1992).

    One vector of weights compiles in half the time that forty arrays take.
    """
    key, now = jax.random.split(state.key)
    rate, kept = pace
    slopes = jax.grad(lambda vector: _loss(design, levels, vector, lesson, now)[0])(state.weights)
    moves, memory = OPTIMISER.update(slopes, state.memory, state.weights)
    weights = state.weights - rate * moves
    # The average over steps forecasts better than the last step.
    return TrainingState(weights, kept * state.average + (1.0 - kept) * weights, memory, key)


def _loss(
    design: Design, levels: tuple[float, ...], vector: Array, lesson: Lesson, key: Array | None = None
) -> tuple[Array, Array]:
    """Mean pinball loss of all levels and mean absolute error of the median, each moment as much as it counts."""
    quantiles = network_quantiles(design, design.named(vector), lesson.asked, key)
    known = ~jnp.isnan(lesson.truths) * lesson.counts[:, None]
    share = known / jnp.maximum(known.sum(), 1e-9)
    miss = jnp.nan_to_num(lesson.truths)[..., None] - quantiles
    grid = jnp.asarray(levels)
    losses = jnp.maximum(grid * miss, (grid - 1.0) * miss).mean(axis=-1)
    return (losses * share).sum(), (jnp.abs(miss[..., design.middle]) * share).sum()


_losses = partial(jax.jit, static_argnums=(0, 1))(_loss)
