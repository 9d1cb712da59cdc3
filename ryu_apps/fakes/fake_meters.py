"""The meters of a fake switch."""

from dataclasses import dataclass

from ryu_apps.rules import Meter

Seconds = float


@dataclass(slots=True)
class TokenBucket:
    """Admits what its rate and burst allow."""

    meter: Meter
    tokens_bits: float
    t: Seconds

    def admits(self, size: int, now: Seconds) -> bool:
        """Token bucket: filled at the meter's rate, up to its burst."""
        filled = self.tokens_bits + (now - self.t) * self.meter.rate_kbit_s * 1000
        self.tokens_bits, self.t = min(filled, self.meter.burst_kbit * 1000.0), now
        if self.tokens_bits < size * 8:
            return False
        self.tokens_bits -= size * 8
        return True
