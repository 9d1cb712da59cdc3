"""The future as forecasts: what an oracle would write where the predictor writes what it expects."""

from array import array
from dataclasses import dataclass

import numpy as np

from backtest.whatif.records import Floats, OfferedLoad
from cpdb import ForecastBatch, Quantity, Seconds, Store, Subject, SubjectKind, TrustArrays
from predictor import FAST, SLOW, PredictorConfig

MODEL = "truth"
QUANTITIES = (Quantity.BYTES_PEAK, Quantity.BYTES_MEAN, Quantity.CONNECTIONS_PEAK, Quantity.CONNECTIONS_MEAN)


@dataclass(frozen=True, slots=True)
class TrueFuture:
    """Peaks and means of what will be offered, for the pairs and horizons that the live predictor speaks of.

    All quantiles are the truth, and trusted. After the end of a recording nothing comes, and nothing in its gaps.
    """

    load: OfferedLoad
    config: PredictorConfig

    def write(self, store: Store, second: int, now: Seconds) -> None:
        """What the rows from `second` on hold, as of `now`, which is where row `second` begins."""
        store.forecasts.add_batch(self._batch(second, now, FAST, self.config.horizons_s))
        slow = self.config.slow
        if slow.horizons_s and second % round(slow.step_s) == 0:
            store.forecasts.add_batch(self._batch(second, now, SLOW, slow.horizons_s))

    def _batch(self, second: int, now: Seconds, tier: str, horizons_s: tuple[int, ...]) -> ForecastBatch:
        pairs, levels = self.load.pairs, self.config.levels
        told = np.stack([self._ahead(second, horizon_s) for horizon_s in horizons_s], axis=1)
        values = np.repeat(told[..., None], len(levels), axis=-1).astype("<f4")
        return ForecastBatch(
            issued_at=now,
            tier=tier,
            subjects=tuple(Subject(SubjectKind.PAIR, pair.source, pair.virtual_ip) for pair in pairs),
            horizons_s=horizons_s,
            quantities=QUANTITIES,
            levels=levels,
            models=(MODEL,),
            chosen=bytes(len(pairs) * len(horizons_s) * len(QUANTITIES)),
            quantiles=values.tobytes(),
            trusts=TrustArrays(array("H", [max(horizons_s)] * len(pairs)).tobytes()),
        )

    def _ahead(self, second: int, horizon_s: int) -> Floats:
        """Pairs x quantities over the rows [second, second + horizon_s)."""
        window = slice(second, second + horizon_s)
        known = self.load.known[window, None]
        columns = []
        for rates in (self.load.bytes_per_s, self.load.connections_per_s):
            rows = np.where(known, rates[window], 0.0)
            columns += [rows.max(axis=0, initial=0.0), rows.sum(axis=0) / horizon_s]
        return np.stack(columns, axis=-1)
