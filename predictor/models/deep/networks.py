"""The networks themselves: how the past is read, and how what was read becomes quantiles that never cross."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from cpdb import nearest_level
from predictor.data.view import Floats
from predictor.models.deep.inputs import COMPANION_FEATURES, GUESSES, OWN_FEATURES, STATICS, STEPS, Inputs, NetworkTask

# Small arrays gain nothing by a second thread, and cycles need the other core. Read once, when JAX first computes.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import jax
import jax.numpy as jnp
from jax import Array

HIDDEN = 48
# Steps in a patch: divides the number of steps, so that the last patch ends with the newest.
PATCH = 4
HEADS = 4
LAYERS = 2
PLACES = STEPS // PATCH
# Times that units are dropped in one pass, at most.
DROPS = LAYERS + 1


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

    @classmethod
    def of(cls, kind: str, subject: NetworkTask) -> "Design":
        """The network that this subject needs."""
        middle, companions = nearest_level(subject.levels, 0.5), subject.past.companions.shape[1]
        return cls(kind, len(subject.shapes), len(subject.levels), middle, companions)

    @property
    def features(self) -> int:
        """Features of a step."""
        return OWN_FEATURES + COMPANION_FEATURES * self.companions

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of all weights; matrices are inputs x outputs."""
        told = HIDDEN + self.shapes * GUESSES + STATICS
        return {
            **BODIES[self.kind].weight_shapes(self),
            **_dense_shapes("mix", told, 2 * HIDDEN),
            **_dense_shapes("trust", 2 * HIDDEN, self.shapes * GUESSES),
            **_dense_shapes("spread", 2 * HIDDEN, self.shapes * self.levels),
        }

    def named(self, vector: Any) -> dict[str, Any]:
        """Weights by name of the vector that holds all of them, in the order of `weight_shapes`."""
        shapes = self.weight_shapes()
        ends = np.cumsum([prod(shape) for shape in shapes.values()])
        parts = {name: vector[end - prod(shape) : end] for (name, shape), end in zip(shapes.items(), ends, strict=True)}
        return {name: part.reshape(shapes[name]) for name, part in parts.items()}

    def joined(self, weights: Mapping[str, Any]) -> Floats:
        """The vector of these weights, see `named`."""
        return np.concatenate([np.ravel(weights[name]) for name in self.weight_shapes()])


class MomentInputs(NamedTuple):
    """Inputs of n moments, see `Inputs`, as far as networks read them."""

    steps: Any
    guesses: Any
    statics: Any

    @classmethod
    def of(cls, inputs: Inputs) -> "MomentInputs":
        """What networks read of these."""
        return cls(inputs.steps, inputs.guesses, inputs.statics)


Weights = Mapping[str, Any]
Drop = Callable[[Array], Array]


def _dense_shapes(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.matrix": (inputs, outputs), f"{name}.bias": (outputs,)}


def _dense(weights: Weights, name: str, inputs: Array) -> Array:
    return inputs @ weights[f"{name}.matrix"] + weights[f"{name}.bias"]


class Recurrent:
    """Reads the steps from old to new with one LSTM layer (Hochreiter and Schmidhuber 1997)."""

    @staticmethod
    def weight_shapes(design: Design) -> dict[str, tuple[int, ...]]:
        """See Design."""
        return {"state.matrix": (HIDDEN, 4 * HIDDEN), **_dense_shapes("step", design.features, 4 * HIDDEN)}

    @staticmethod
    def read(weights: Weights, steps: Array, drop: Drop) -> Array:  # noqa: ARG004 - nothing is dropped in here
        """Batch x STEPS x features to batch x HIDDEN."""

        def advance(before: Any, step: Array) -> tuple[tuple[Array, Array], None]:
            state, cell = before
            gates = _dense(weights, "step", step) + state @ weights["state.matrix"]
            let_in, keep, new, let_out = jnp.split(gates, 4, axis=-1)
            cell = jax.nn.sigmoid(keep) * cell + jax.nn.sigmoid(let_in) * jnp.tanh(new)
            return (jax.nn.sigmoid(let_out) * jnp.tanh(cell), cell), None

        empty = jnp.zeros((len(steps), HIDDEN))
        (state, _), _ = jax.lax.scan(advance, (empty, empty), jnp.swapaxes(steps, 0, 1))
        return state


class Attentive:
    """Reads patches of steps with a Transformer encoder (Vaswani et al. 2017; patches as in Nie et al. 2023)."""

    @staticmethod
    def weight_shapes(design: Design) -> dict[str, tuple[int, ...]]:
        """See Design."""
        shapes = {"place.matrix": (PLACES, HIDDEN), **_dense_shapes("patch", PATCH * design.features, HIDDEN)}
        for layer in range(LAYERS):
            for name, outputs in (("heads", 3 * HIDDEN), ("joined", HIDDEN), ("inner", 2 * HIDDEN)):
                shapes |= _dense_shapes(f"{name}{layer}", HIDDEN, outputs)
            shapes |= _dense_shapes(f"outer{layer}", 2 * HIDDEN, HIDDEN)
        return shapes

    @staticmethod
    def read(weights: Weights, steps: Array, drop: Drop) -> Array:
        """Batch x STEPS x features to batch x HIDDEN."""
        states = _dense(weights, "patch", steps.reshape(len(steps), PLACES, -1)) + weights["place.matrix"]
        for layer in range(LAYERS):
            heads = _dense(weights, f"heads{layer}", _normalised(states))
            query, key, value = jnp.split(heads.reshape(len(steps), PLACES, HEADS, -1), 3, axis=-1)
            if layer == LAYERS - 1:
                # Of the last layer nobody reads more than the newest place.
                query, states = query[:, -1:], states[:, -1:]
            seen = jax.nn.dot_product_attention(query, key, value).reshape(states.shape)
            states += _dense(weights, f"joined{layer}", seen)
            inner = drop(jax.nn.relu(_dense(weights, f"inner{layer}", _normalised(states))))
            states += _dense(weights, f"outer{layer}", inner)
        return _normalised(states[:, -1])


def _normalised(states: Array) -> Array:
    """Layer normalisation without weights of its own: what follows is linear and has them."""
    return jax.nn.standardize(states, axis=-1, epsilon=1e-5)


BODIES: dict[str, Any] = {"lstm": Recurrent, "transformer": Attentive}


def initial_weights(design: Design, rng: np.random.Generator) -> dict[str, Floats]:
    """Weights to begin with: the network then says the plain mean of the simple guesses.

    It learns where to trust which of them, and by how much to differ from them all: so little data cannot make it much
    worse than they are.
    """
    weights = {}
    for name, shape in design.weight_shapes().items():
        silent = len(shape) == 1 or name in ("trust.matrix", "spread.matrix")
        reach = 0.0 if silent else 1.0 / np.sqrt(shape[0])
        weights[name] = rng.uniform(-reach, reach, shape).astype(np.float32)
    return weights


def fitting_weights(design: Design, weights: Mapping[str, Floats]) -> bool:
    """False when they are the weights of a network for another question (or of an older make)."""
    return design.weight_shapes() == {name: np.shape(value) for name, value in weights.items()}


def network_quantiles(design: Design, weights: Weights, inputs: MomentInputs, key: Array | None = None) -> Array:
    """Batch x shapes x levels in the series' unit; with a `key` units are dropped at random, as in training."""
    drop = _dropout(design.dropped, key) if key is not None and design.dropped else _keep_all
    guesses = jnp.asarray(inputs.guesses)
    state = BODIES[design.kind].read(weights, inputs.steps, drop)
    seen = jnp.concatenate([state, jnp.arcsinh(guesses).reshape(len(guesses), -1), inputs.statics], axis=-1)
    state = drop(jax.nn.relu(_dense(weights, "mix", seen)))
    trust = jax.nn.softmax(_dense(weights, "trust", state).reshape(guesses.shape), axis=-1)
    spread = _dense(weights, "spread", state).reshape(len(guesses), design.shapes, design.levels)
    return _ordered_quantiles((trust * guesses).sum(axis=-1), spread, design.middle)


def _keep_all(units: Array) -> Array:
    return units


def _dropout(share: float, key: Array) -> Drop:
    keys = iter(jax.random.split(key, DROPS))
    return lambda units: jnp.where(jax.random.bernoulli(next(keys), 1.0 - share, units.shape), units, 0.0) / (1 - share)


def _ordered_quantiles(level: Array, spread: Array, middle: int) -> Array:
    """The median is the trusted guess and a correction; the others lie at distances from it that only grow."""
    centre = (level + spread[..., middle])[..., None]
    below = jnp.cumsum(jax.nn.softplus(spread[..., :middle] - 1.0)[..., ::-1], axis=-1)[..., ::-1]
    above = jnp.cumsum(jax.nn.softplus(spread[..., middle + 1 :] - 1.0), axis=-1)
    return jnp.concatenate([centre - below, centre, centre + above], axis=-1)


# Moments that are asked about at once: what lies between layers fits into a processor's cache. Fewer are filled up to
# a power of two, so that few sizes are ever compiled.
CHUNK, SMALLEST = 256, 16


def query_network(design: Design, weights: Weights, inputs: Inputs) -> Floats:
    """Quantiles n x shapes x levels, in units of the data; NaN where nothing was known."""
    asked = MomentInputs.of(inputs)
    begins = range(0, len(inputs.unit), CHUNK)
    said = [_said(design, weights, MomentInputs(*(part[begin : begin + CHUNK] for part in asked))) for begin in begins]
    quantiles = np.concatenate(said) * inputs.unit[:, None, None] + inputs.centre[:, None, None]
    return np.where(inputs.known[:, None, None], quantiles, np.nan)


def _said(design: Design, weights: Weights, asked: MomentInputs) -> Floats:
    count = len(asked.steps)
    room = max(SMALLEST, 1 << (count - 1).bit_length()) - count
    if room:
        asked = MomentInputs(*(np.pad(part, ((0, room), *((0, 0),) * (part.ndim - 1))) for part in asked))
    return np.asarray(_compiled(design, weights, asked))[:count]


_compiled = partial(jax.jit, static_argnums=0)(network_quantiles)
