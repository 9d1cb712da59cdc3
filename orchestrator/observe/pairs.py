"""What is known of each pair: whom it talks to, how much lately, and what is foreseen of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from cpdb import ForecastBatch, Pair, Quantity, Seconds, Subject, nearest_level
from orchestrator.foreseen import IssuedForecasts
from orchestrator.observe.window import Floats, Listed, Traffic, sum_by


class Rates(NamedTuple):
    """By number of the pair, 0 where nothing is known."""

    bytes_per_s: Floats
    connections_per_s: Floats


def seen_pairs(traffic: Traffic, listed: Listed) -> list[int]:
    """Numbers of the pairs that were listed, in the order in which they first were."""
    first = np.full(len(traffic.names.pairs), len(traffic.batch))
    np.minimum.at(first, listed.pair, listed.row)
    order = np.argsort(first, kind="stable")
    found: list[int] = order[first[order] < len(traffic.batch)].tolist()
    return found


def destinations_of(traffic: Traffic) -> list[int]:
    """By number of the pair: the number of the destination that was named last, -1 for none."""
    found = np.full(len(traffic.names.pairs), -1)
    named = traffic.destination >= 0
    found[traffic.pair[named]] = traffic.destination[named]  # of several the one written last stands
    destinations: list[int] = found.tolist()
    return destinations


def mean_rates(traffic: Traffic, listed: Listed, since: Seconds) -> Rates:
    """Means over what each pair's observers covered after `since`; time without a word is unknown, not silence.

    A complete batch covers every pair that its observer listed before in this traffic, another one those that it lists.
    """
    pairs, first = len(traffic.names.pairs), int(np.searchsorted(traffic.t, since, side="right"))
    late = traffic.batch >= first
    covered_s = _silence_included(traffic, listed, first)
    partial = late & ~traffic.complete[traffic.batch]
    if partial.any():
        # A pair with two destinations in a batch was covered once.
        once = np.unique(traffic.batch[partial] * pairs + traffic.pair[partial])
        covered_s += sum_by(once % pairs, traffic.interval_s[once // pairs], pairs)
    sums = (sum_by(traffic.pair[late], one[late], pairs) for one in (traffic.bytes, traffic.connections))
    return Rates(*(np.divide(one, covered_s, out=np.zeros(pairs), where=covered_s > 0) for one in sums))


def _silence_included(traffic: Traffic, listed: Listed, first: int) -> Floats:
    """Seconds by pair that complete batches from number `first` on say something about."""
    observers, batches = len(traffic.names.observers), len(traffic.t)
    intervals = np.zeros((observers, batches + 1))
    told = np.flatnonzero(traffic.complete)
    intervals[traffic.observer[told], told] = traffic.interval_s[told]
    onward = intervals[:, ::-1].cumsum(axis=1)[:, ::-1]
    seconds = onward[listed.observer, np.maximum(listed.batch, first)]
    return sum_by(listed.pair, seconds, len(traffic.names.pairs))


# Less than a packet in some seconds is nothing that anybody would have to be ready for.
LEAST_BYTES_PER_S = 64.0


def expected_pairs(issued: IssuedForecasts, level: float) -> list[Pair]:
    """Pairs of which a trusted forecast says that they will send anything, however long they have been silent.

    A forecast's quantile counts the chance of silence in: it is above 0 where a pair talks with more than 1 - `level`.
    """
    batch = issued.batch
    if not batch.subjects or not batch.trusts.horizon_s or Quantity.BYTES_PEAK not in batch.quantities:
        return []
    quantity, at = batch.quantities.index(Quantity.BYTES_PEAK), nearest_level(batch.levels, level)
    peaks = np.nan_to_num(np.asarray(batch.array())[:, :, quantity, at])
    far = np.frombuffer(batch.trusts.horizon_s, dtype="<u2").reshape(len(batch.subjects), -1)[:, 0]
    told = np.where(np.array(batch.horizons_s) <= far[:, None], peaks, 0.0).max(axis=1) >= LEAST_BYTES_PER_S
    speaks = told.tolist()
    return [pair for pair, place in issued.places.items() if speaks[place]]


@dataclass(slots=True)
class PairPlaces:
    """Where pairs (links, machines) are in a list of subjects; found again only when the list is another one."""

    _subjects: tuple[Subject, ...] = ()
    _places: dict[Pair, int] = field(default_factory=dict)

    def of(self, subjects: tuple[Subject, ...]) -> Mapping[Pair, int]:
        """By pair."""
        if subjects is not self._subjects:
            self._places = {Pair(one.a, one.b): place for place, one in enumerate(subjects)}
            self._subjects = subjects
        return self._places


@dataclass(slots=True)
class TierIssue:
    """The newest issue of one tier that was read, and when."""

    read_at: Seconds | None = None
    issued: IssuedForecasts | None = None
    expected: list[Pair] = field(default_factory=list)
    _places: PairPlaces = field(default_factory=PairPlaces)

    def take(self, batch: ForecastBatch | None, now: Seconds, level: float) -> None:
        """What was read at `now`; `level` is that of the quantile that counts as the need."""
        self.read_at = now
        self.issued = None if batch is None else IssuedForecasts.of(batch, self._places.of(batch.subjects))
        self.expected = expected_pairs(self.issued, level) if self.issued else []
