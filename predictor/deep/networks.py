"""The two networks and the head they share, which says how much to trust each simple guess and how wide to fan out."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from predictor.deep.inputs import COMPANION_FEATURES, GUESSES, OWN_FEATURES, STATICS, STEPS

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


class Network(nn.Module):
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
        return _fan(level, spread, self.design.middle)


def _fan(level: Tensor, spread: Tensor, middle: int) -> Tensor:
    """The median is the trusted guess and a correction; the others lie at distances from it that only grow."""
    centre = (level + spread[..., middle]).unsqueeze(-1)
    below = nn.functional.softplus(spread[..., :middle] - 1.0).flip(-1).cumsum(-1).flip(-1)
    above = nn.functional.softplus(spread[..., middle + 1 :] - 1.0).cumsum(-1)
    return torch.cat([centre - below, centre, centre + above], dim=-1)


def pinball(fan: Tensor, truth: Tensor, levels: Tensor) -> Tensor:
    """Mean over the levels (last axis of `fan`) of max(q (y - f), (q - 1) (y - f))."""
    miss = truth.unsqueeze(-1) - fan
    return torch.maximum(levels * miss, (levels - 1.0) * miss).mean(dim=-1)
