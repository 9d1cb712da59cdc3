"""Makes up traffic for these tests: a noisy base, and surges that recur, or not."""

from dataclasses import dataclass

import numpy as np

from cpdb import Communication
from predictor.data.view import Floats

START = 1_000_000.0
REQUEST_BYTES = (24_000, 40_000)
REQUESTS_PER_S = (1.0, 3.0)


@dataclass(frozen=True)
class Traffic:
    """Bytes and requests (pairs x seconds), and when each pair's surges begin (seconds from the start)."""

    sizes: Floats
    requests: Floats
    onsets: tuple[tuple[float, ...], ...]

    def rows(self, second: int) -> list[Communication]:
        """What each pair said in the second that ends at START + second + 1."""
        return [
            Communication(
                source=f"c{pair}",
                virtual_ip=f"10.9.0.{pair % 2 + 1}",
                destination="vm1",
                t=START + second + 1,
                interval_s=1.0,
                bytes=int(self.sizes[pair, second]),
                packets=int(self.sizes[pair, second] // 1000),
                new_connections=int(self.requests[pair, second]),
            )
            for pair in range(len(self.sizes))
        ]


@dataclass(frozen=True)
class Recipe:
    """How traffic is made: the first `surging` of `pairs` surge `factor` times their base for `length_s`."""

    pairs: int = 10
    seconds: int = 240
    surging: int = 2
    factor: float = 8.0
    length_s: float = 10.0
    period_s: tuple[float, float] = (28.0, 34.0)
    jitter_s: float = 0.5


def make(seed: int, recipe: Recipe = Recipe()) -> Traffic:
    """Traffic by the recipe; each surging pair has a period and phase of its own."""
    rng = np.random.default_rng(seed)
    rates = np.repeat(rng.uniform(*REQUESTS_PER_S, (recipe.pairs, 1)), recipe.seconds, axis=1)
    onsets = []
    for pair in range(recipe.surging):
        period = rng.uniform(*recipe.period_s)
        begins = np.arange(rng.uniform(5, period), recipe.seconds, period)
        begins = begins + rng.uniform(-recipe.jitter_s, recipe.jitter_s, len(begins))
        onsets.append(tuple(begins))
        edges = np.arange(recipe.seconds)
        for begin in begins:
            inside = np.clip(np.minimum(edges + 1, begin + recipe.length_s) - np.maximum(edges, begin), 0, 1)
            rates[pair] *= 1 + (recipe.factor - 1) * inside
    requests = rng.poisson(rates)
    mean_bytes = rng.uniform(*REQUEST_BYTES, requests.shape)
    return Traffic(requests * mean_bytes, requests, tuple(onsets))
