"""Counts of what went wrong, told to the database whenever one has changed."""

from collections.abc import Mapping

from cpdb import Observed

Seconds = float

NODE = "controller"


class Tallies:
    """Remembers what was told."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], int] = {}

    def news(self, counts: Mapping[tuple[str, str], int], now: Seconds) -> list[Observed]:
        """A record for each count, by (kind, key), that is not 0 and not what it was."""
        fresh = {name: count for name, count in counts.items() if count and self._told.get(name) != count}
        self._told |= fresh
        return [Observed(kind, key, NODE, 0, "counted", str(count), now) for (kind, key), count in fresh.items()]
