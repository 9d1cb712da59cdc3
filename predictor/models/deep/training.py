"""Trains a network within a budget of CPU time, and asks a trained one."""

import copy
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import cos, inf, pi
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cpdb import nearest_level
from predictor.data.view import Floats
from predictor.models.deep.inputs import (
    COMPANION_FEATURES,
    GUESSES,
    OWN_FEATURES,
    STATICS,
    STEPS,
    WARM_UP,
    Inputs,
    NetworkTask,
    TrainingBatch,
    draw_batch,
    simple_loss,
)

HIDDEN = 48
# Steps in a patch: divides the number of steps, so that the last patch ends with the newest.
PATCH = 4
HEADS = 4
LAYERS = 2


@dataclass(frozen=True, slots=True)
class Design:
    """What a network is built for: its kind, how many windows, levels and companions, and which level is the median.

    `dropped` is the share of units left out at random in each step of training (dropout, Srivastava et al. 2014).
    """

    kind: str
    shapes: int
    levels: int
    middle: int
    companions: int = 0
    dropped: float = 0.0

    @property
    def features(self) -> int:
        """Features of a step."""
        return OWN_FEATURES + COMPANION_FEATURES * self.companions


class Recurrent(nn.Module):
    """Reads the steps from old to new with one LSTM layer (Hochreiter and Schmidhuber 1997)."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.lstm = nn.LSTM(design.features, HIDDEN, batch_first=True)

    def forward(self, steps: Tensor) -> Tensor:
        """Batch x STEPS x features to batch x HIDDEN."""
        states, _ = self.lstm(steps)
        return states[:, -1]


class Attentive(nn.Module):
    """Reads patches of steps with a Transformer encoder (Vaswani et al. 2017; patches as in Nie et al. 2023)."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.embed = nn.Linear(PATCH * design.features, HIDDEN)
        self.place = nn.Parameter(0.02 * torch.randn(STEPS // PATCH, HIDDEN))
        layer = nn.TransformerEncoderLayer(
            HIDDEN, HEADS, dim_feedforward=2 * HIDDEN, dropout=design.dropped, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, LAYERS, norm=nn.LayerNorm(HIDDEN), enable_nested_tensor=False)

    def forward(self, steps: Tensor) -> Tensor:
        """Batch x STEPS x features to batch x HIDDEN."""
        patches = steps.reshape(len(steps), STEPS // PATCH, -1)
        return self.encoder(self.embed(patches) + self.place)[:, -1]


BODIES: dict[str, Any] = {"lstm": Recurrent, "transformer": Attentive}


class QuantileNetwork(nn.Module):
    """Quantiles for every window asked for, in the series' unit.

    It begins as the plain mean of the simple guesses and learns where to trust which of them, and by how much to
    differ from them all: so little data cannot make it much worse than they are.
    """

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.design = design
        self.body = BODIES[design.kind](design)
        told = HIDDEN + design.shapes * GUESSES + STATICS
        self.mix = nn.Sequential(nn.Linear(told, 2 * HIDDEN), nn.ReLU(), nn.Dropout(design.dropped))
        self.trust = nn.Linear(2 * HIDDEN, design.shapes * GUESSES)
        self.spread = nn.Linear(2 * HIDDEN, design.shapes * design.levels)
        for layer in (self.trust, self.spread):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, steps: Tensor, guesses: Tensor, statics: Tensor) -> Tensor:
        """Inputs as in `Inputs` to batch x shapes x levels."""
        seen = [self.body(steps), torch.asinh(guesses).flatten(1), statics]
        state = self.mix(torch.cat(seen, dim=1))
        trust = self.trust(state).view(guesses.shape).softmax(dim=-1)
        level = (trust * guesses).sum(dim=-1)
        spread = self.spread(state).view(len(steps), self.design.shapes, self.design.levels)
        return _ordered_quantiles(level, spread, self.design.middle)


def _ordered_quantiles(level: Tensor, spread: Tensor, middle: int) -> Tensor:
    """The median is the trusted guess and a correction; the others lie at distances from it that only grow."""
    centre = (level + spread[..., middle]).unsqueeze(-1)
    below = nn.functional.softplus(spread[..., :middle] - 1.0).flip(-1).cumsum(-1).flip(-1)
    above = nn.functional.softplus(spread[..., middle + 1 :] - 1.0).cumsum(-1)
    return torch.cat([centre - below, centre, centre + above], dim=-1)


def pinball_loss(quantiles: Tensor, truth: Tensor, levels: Tensor) -> Tensor:
    """Mean over the levels (last axis of `quantiles`) of max(q (y - f), (q - 1) (y - f))."""
    miss = truth.unsqueeze(-1) - quantiles
    return torch.maximum(levels * miss, (levels - 1.0) * miss).mean(dim=-1)


BATCH = 256
CHUNK = 4096
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


def design_of(kind: str, subject: NetworkTask) -> Design:
    """The network that this subject needs."""
    middle = nearest_level(subject.levels, 0.5)
    return Design(
        kind=kind,
        shapes=len(subject.shapes),
        levels=len(subject.levels),
        middle=middle,
        companions=subject.past.companions.shape[1],
        dropped=DROPPED if subject.moments < PLENTY else 0.0,
    )


def train_network(
    kind: str, subject: NetworkTask, effort: TrainingEffort, warm: Mapping[str, Floats] | None = None
) -> Trained:
    """A network trained from scratch, or from the weights `warm`; the same data and seed give the same one.

    (As long as it is the number of steps that ends it, and not the CPU time.)
    """
    torch.set_num_threads(1)
    torch.manual_seed(effort.seed)
    began = time.process_time()
    training = _Training(QuantileNetwork(design_of(kind, subject)), subject, effort, warm)
    training.learn()
    loss, error = training.judged()
    simple = simple_loss(training.kept_back)
    training.learn_the_rest()
    spent = time.process_time() - began
    return Trained(dump_weights(training.best), loss, error, simple, training.best_step, spent)


class _Training:
    """A training under way: the network, its average over steps, and the best average so far."""

    def __init__(
        self,
        network: QuantileNetwork,
        subject: NetworkTask,
        effort: TrainingEffort,
        warm: Mapping[str, Floats] | None = None,
    ) -> None:
        self._subject, self._effort = subject, effort
        warmed = warm is not None and load_weights(network, warm)
        self._rate = WARM * FASTEST if warmed else FASTEST
        self._network = self._average = self.best = network
        self._rng = np.random.default_rng(effort.seed)
        self._levels = torch.tensor(subject.levels, dtype=torch.float32)
        self.kept_back = draw_batch(subject, range(subject.split, subject.last + 1), VALIDATED, self._rng)
        self._best_loss, self.best_step = inf, 0
        self._began = time.process_time(), time.monotonic()

    def learn(self) -> None:
        """Learns all but what is kept back; keeps the average that did best there."""
        step = 0
        for step in self._steps(self._effort.steps, FIRST_PART, range(WARM_UP, self._subject.taught)):
            if step % CHECKED_EVERY == 0:
                self._check(step)
            if step - self.best_step > PATIENCE:
                break
        self._check(step)

    def learn_the_rest(self) -> None:
        """Goes on from the best with all there is, more slowly."""
        self._network = copy.deepcopy(self.best)
        self._rate *= WARM
        steps = round(AFTER * self.best_step)
        for _ in self._steps(steps, SECOND_PART, range(WARM_UP, self._subject.last + 1)):
            pass
        self.best = self._average

    def _steps(self, steps: int, until: float, span: range) -> Any:
        """Makes steps, at rates that fall to 0, until there are enough or `until` of the time is spent; yields each."""
        optimiser = torch.optim.AdamW(self._network.parameters(), lr=self._rate, weight_decay=DECAY)
        self._average = copy.deepcopy(self._network)
        begun = self._spent()
        for step in range(steps):
            progress = max(step / steps, (self._spent() - begun) / max(until - begun, 1e-9))
            if progress >= 1.0:
                return
            rate = self._rate * 0.5 * (1.0 + cos(pi * progress)) * min(1.0, (step + 1) / RISING)
            for group in optimiser.param_groups:
                group["lr"] = rate
            self._step(optimiser, draw_batch(self._subject, span, BATCH, self._rng))
            self._follow(min(AVERAGED, (1.0 + step) / (10.0 + step)))
            yield step + 1

    def _spent(self) -> float:
        """Share of the time that is spent, of whichever is scarcer."""
        cpu_s, wall_s = time.process_time() - self._began[0], time.monotonic() - self._began[1]
        return max(cpu_s / self._effort.cpu_s, wall_s / self._effort.wall_s)

    def _step(self, optimiser: Any, lesson: TrainingBatch) -> None:
        self._network.train()
        optimiser.zero_grad()
        self._loss(self._network, lesson, self._levels).backward()
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), CLIPPED)
        optimiser.step()

    def _follow(self, keep: float) -> None:
        # The average over steps forecasts better than the last step (Polyak and Juditsky 1992).
        with torch.no_grad():
            for slow, fast in zip(self._average.parameters(), self._network.parameters(), strict=True):
                slow.lerp_(fast, 1.0 - keep)

    def _check(self, step: int) -> None:
        loss = self._validated(self._average, self._levels)
        if loss < self._best_loss:
            self._best_loss, self.best_step, self.best = loss, step, copy.deepcopy(self._average)

    def judged(self) -> tuple[float, float]:
        """Pinball loss and mean absolute error of the median on what is kept back."""
        return self._best_loss, 2.0 * self._validated(self.best, torch.tensor([0.5]))

    def _validated(self, network: QuantileNetwork, levels: Tensor) -> float:
        network.eval()
        with torch.inference_mode():
            return float(self._loss(network, self.kept_back, levels))

    def _loss(self, network: QuantileNetwork, lesson: TrainingBatch, levels: Tensor) -> Tensor:
        quantiles = network(*_tensors(lesson.inputs))
        if len(levels) == 1:
            quantiles = quantiles[..., network.design.middle : network.design.middle + 1]
        truths, weights = torch.from_numpy(lesson.truths), torch.from_numpy(lesson.weights)
        known = ~torch.isnan(truths) * weights[:, None]
        return (pinball_loss(quantiles, truths.nan_to_num(), levels) * known).sum() / known.sum().clamp(min=1e-9)


def _tensors(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(torch.from_numpy(part) for part in (inputs.steps, inputs.guesses, inputs.statics))


def query_network(network: QuantileNetwork, inputs: Inputs) -> Floats:
    """Quantiles n x shapes x levels, in units of the data; NaN where nothing was known."""
    parts = [torch.split(part, CHUNK) for part in _tensors(inputs)]
    network.eval()
    with torch.inference_mode():
        forecasts = [network(*chunk).numpy() for chunk in zip(*parts, strict=True)]
    quantiles = np.concatenate(forecasts) * inputs.unit[:, None, None] + inputs.centre[:, None, None]
    return np.where(inputs.known[:, None, None], quantiles, np.nan)


def restore_network(kind: str, subject: NetworkTask, weights: Mapping[str, Floats]) -> QuantileNetwork | None:
    """The network with these weights; None when they are another network's."""
    torch.set_num_threads(1)
    network = QuantileNetwork(design_of(kind, subject))
    return network if load_weights(network, weights) else None


def dump_weights(network: QuantileNetwork) -> dict[str, Floats]:
    """A network's weights as plain arrays: no pickle, so nothing but numbers can come back from a file."""
    return {name: value.detach().numpy().copy() for name, value in network.state_dict().items()}


def load_weights(network: QuantileNetwork, weights: Mapping[str, Floats]) -> bool:
    """Puts weights into a network; False, and nothing done, when they are another network's."""
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    if wanted != {name: np.shape(value) for name, value in weights.items()}:
        return False
    network.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    return True
