"""Which horizons can be foreseen at all: a counter that a switch renews every 10 s says nothing about the next 5."""

from collections.abc import Iterable, Mapping, Sequence

from cpdb import Observed

Seconds = float

# The controller's records of how often each switch renews its counters
KIND = "refresh"
# A forecast needs at least this many values within its horizon to be judged by.
REFRESHES = 3
# What was measured longer ago belongs to a switch that is gone.
FRESH_S = 120.0


def refreshes(observed: Iterable[Observed], now: Seconds) -> dict[str, Seconds]:
    """Seconds between distinct counter values of each switch that was measured lately, from the observed state."""
    return {
        row.node: float(row.detail) for row in observed if row.kind == KIND and 0 <= now - row.observed_at <= FRESH_S
    }


def usable(horizons_s: Sequence[int], known: Mapping[str, Seconds]) -> tuple[int, ...]:
    """The horizons that are at least three refreshes of every switch long."""
    least = REFRESHES * max(known.values(), default=0.0)
    return tuple(horizon for horizon in horizons_s if horizon >= least)


def too_short(horizons_s: Sequence[int], known: Mapping[str, Seconds]) -> str | None:
    """One line that says which horizons are refused and why; None when all can be foreseen."""
    refused = [horizon for horizon in horizons_s if horizon not in usable(horizons_s, known)]
    if not refused:
        return None
    slowest = max(known, key=lambda name: known[name])
    names = ", ".join(f"{horizon} s" for horizon in refused)
    return (
        f"horizons_s: {names} refused: switch {slowest} renews its counters every {known[slowest]:.1f} s and a horizon "
        f"needs {REFRESHES} refreshes, at least {REFRESHES * known[slowest]:.0f} s"
    )
