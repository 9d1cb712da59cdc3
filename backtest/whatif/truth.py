"""The future as forecasts: what an oracle would write where the predictor writes what it expects."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backtest.whatif.records import Floats, OfferedLoad
from cpdb import ForecastBatch, Quantity, Seconds, Store, Subject, SubjectKind, TrustArrays
from predictor import BESIDE, FAST, SLOW, PredictorConfig, tier_of

MODEL = "truth"
PAIRS = (Quantity.BYTES_PEAK, Quantity.BYTES_MEAN, Quantity.CONNECTIONS_PEAK, Quantity.CONNECTIONS_MEAN)
MACHINES = (Quantity.CPU_PEAK, Quantity.CPU_MEAN)


@dataclass(frozen=True, slots=True)
class _Truth:
    """What comes in one tier about some subjects.

    Of each of the `rates` (seconds, subjects) `quantities` has the peak and the mean, by turns.
    """

    tier: str
    subjects: Sequence[Subject]
    quantities: tuple[Quantity, ...]
    rates: Sequence[Floats]


@dataclass(frozen=True, slots=True)
class TrueFuture:
    """Peaks and means of what will be asked for, of the pairs, machines and horizons that the live predictor speaks of.

    All quantiles are the truth, and trusted. After the end of a recording nothing comes, and nothing in its gaps.
    Of machines that is what they want beside their requests.
    """

    load: OfferedLoad
    config: PredictorConfig

    def write(self, store: Store, second: int, now: Seconds) -> None:
        """What the rows from `second` on hold, as of `now`, which is where row `second` begins."""
        slow = self.config.slow
        for truth in self._truths(FAST, BESIDE):
            store.forecasts.add_batch(self._batch(truth, second, now, self.config.horizons_s))
        if slow.horizons_s and second % round(slow.step_s) == 0:
            for truth in self._truths(SLOW, tier_of(SubjectKind.BESIDE, SLOW)):
                store.forecasts.add_batch(self._batch(truth, second, now, slow.horizons_s))

    def _truths(self, pairs: str, machines: str) -> list[_Truth]:
        load = self.load
        subjects = [Subject(SubjectKind.PAIR, pair.source, pair.virtual_ip) for pair in load.pairs]
        found = [_Truth(pairs, subjects, PAIRS, (load.bytes_per_s, load.connections_per_s))]
        busy = np.flatnonzero(load.cores.any(axis=0)).tolist()
        named = [Subject(SubjectKind.BESIDE, load.vms[place]) for place in busy]
        return [*found, _Truth(machines, named, MACHINES, (load.cores[:, busy],))] if busy else found

    def _batch(self, truth: _Truth, second: int, now: Seconds, horizons_s: tuple[int, ...]) -> ForecastBatch:
        levels, count = self.config.levels, len(truth.subjects)
        told = np.stack([self._ahead(truth.rates, second, horizon_s) for horizon_s in horizons_s], axis=1)
        values = np.repeat(told[..., None], len(levels), axis=-1).astype("<f4")
        return ForecastBatch(
            issued_at=now,
            tier=truth.tier,
            subjects=tuple(truth.subjects),
            horizons_s=horizons_s,
            quantities=truth.quantities,
            levels=levels,
            models=(MODEL,),
            chosen=bytes(count * len(horizons_s) * len(truth.quantities)),
            quantiles=values.tobytes(),
            trusts=TrustArrays(array("H", [max(horizons_s)] * count).tobytes()),
        )

    def _ahead(self, rates: Sequence[Floats], second: int, horizon_s: int) -> Floats:
        """Subjects x quantities over the rows [second, second + horizon_s)."""
        window = slice(second, second + horizon_s)
        known = self.load.known[window, None]
        columns = []
        for own in rates:
            rows = np.where(known, own[window], 0.0)
            columns += [rows.max(axis=0, initial=0.0), rows.sum(axis=0) / horizon_s]
        return np.stack(columns, axis=-1)
