"""What a pair that is limited would send: what it sent before, since under its limit it shows only what it is given."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from cpdb import BytesPerS, Pair, Reservation, Seconds, Store
from orchestrator.observe.measured import TYPICAL_S
from orchestrator.pair_table import PairState

# Who sends less than this share of its limit for a while is not held back by it.
PRESSES_SHARE = 0.5


@dataclass(slots=True)
class OfferedBefore:
    """Remembers, for as long as a limit stands, what its pair sent before; read again from the rows at any time."""

    store: Store
    _before: dict[tuple[str, Seconds], dict[Pair, BytesPerS]] = field(default_factory=dict)

    def recall(
        self, pairs: Mapping[Pair, PairState], reservations: Iterable[Reservation], now: Seconds
    ) -> dict[Pair, PairState]:
        """The pairs, `typical_bytes_per_s` of those held back being what they sent before. Raises StoreError."""
        limiting = [one for one in reservations if one.limits]
        known = {(one.key, one.created_at): self._sent_before(one) for one in limiting}
        self._before = known
        found = dict(pairs)
        for one in limiting:
            before = known[one.key, one.created_at]
            for limit in one.limits:
                state = found.get(limit.pair)
                settling = now - one.created_at < TYPICAL_S
                if state and (settling or state.typical_bytes_per_s >= PRESSES_SHARE * limit.bytes_per_s):
                    usual = max(state.typical_bytes_per_s, before.get(limit.pair, 0.0))
                    found[limit.pair] = replace(state, typical_bytes_per_s=usual)
        return found

    def _sent_before(self, one: Reservation) -> dict[Pair, BytesPerS]:
        known = self._before.get((one.key, one.created_at))
        if known is not None:
            return known
        limited = {limit.pair for limit in one.limits}
        sums = {pair: [0.0, 0.0] for pair in limited}
        for row in self.store.facts.communications(one.created_at - TYPICAL_S, one.created_at):
            if row.pair in limited:
                sums[row.pair][0] += row.bytes
                sums[row.pair][1] += row.interval_s
        return {pair: sent / seconds if seconds else 0.0 for pair, (sent, seconds) in sums.items()}
