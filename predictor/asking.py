"""Says what is asked about live traffic: each horizon's peak and mean of each channel, in one fixed order."""

from collections.abc import Sequence

from cpdb import Quantity
from predictor.view import Ask, Target

CHANNELS = ("bytes", "packets", "connections")
BYTES, PACKETS, CONNECTIONS = range(len(CHANNELS))
# Peak and mean of each channel in turn. Targets are ordered by horizon first, then in this order.
QUANTITIES = (
    Quantity.BYTES_PEAK,
    Quantity.BYTES_MEAN,
    Quantity.PACKETS_PEAK,
    Quantity.PACKETS_MEAN,
    Quantity.CONNECTIONS_PEAK,
    Quantity.CONNECTIONS_MEAN,
)


def windows(horizons: Sequence[int], channels: int, levels: Sequence[float]) -> Ask:
    """Asks for peak and mean of each channel over the next cells of each horizon (cells, ascending)."""
    return Ask(
        tuple(
            Target(channel, 0, horizon, peak)
            for horizon in horizons
            for channel in range(channels)
            for peak in (True, False)
        ),
        tuple(levels),
    )
