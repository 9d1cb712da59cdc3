"""Bounds what one source can teach a model that all share, however many rows it sends."""

import numpy as np

from predictor.view import Ints


def fair_sample(sources: Ints, rows: int, rng: np.random.Generator) -> Ints:
    """Positions (ascending) of at most `rows` rows such that no source has more than it must.

    `sources` is the source of each row. A source has all its rows, or as many as any other that was cut (max-min
    fairness), so that flooding the sample with one source's rows displaces at most its own equal share.
    """
    shuffled = rng.permutation(len(sources))
    _, owner, counts = np.unique(sources[shuffled], return_inverse=True, return_counts=True)
    order = np.argsort(owner, kind="stable")
    begins = np.cumsum(counts) - counts
    # The how-manieth of its source each row is, in random order
    turn = np.empty(len(sources), dtype=np.int64)
    turn[order] = np.arange(len(sources)) - np.repeat(begins, counts)
    chosen = np.flatnonzero(turn < _cap(counts, rows))
    left = rows - len(chosen)
    if left > 0:
        # What an equal cap leaves over goes round, one each.
        next_ones = np.flatnonzero(turn == _cap(counts, rows))
        chosen = np.concatenate([chosen, next_ones[:left]])
    picked: Ints = np.sort(shuffled[chosen])
    return picked


def _cap(counts: Ints, rows: int) -> int:
    """The largest number of rows per source with which all together stay within `rows`."""
    low, high = 0, int(counts.max(initial=0))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if int(np.minimum(counts, middle).sum()) <= rows else (low, middle - 1)
    return low
