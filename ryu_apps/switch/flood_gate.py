"""Of one port's frames so many are looked at, and once it has sent more far fewer for a while: others have a turn."""

from ryu_apps.pacing import TokenBuckets

Seconds = float

# A port is held until it has sent no more than a crowd that asks again for so long. What a new source changes is worked
# out for all: each frame of a held port that is looked at makes others wait.
HOLD_S = 10.0
HELD_PER_S = 5.0
AGAIN_PER_S = 50.0


class FloodGate:
    """The ports of one switch; `held` are those that flood the controller. LLDP is counted apart and holds nobody."""

    def __init__(self) -> None:
        self.held: frozenset[int] = frozenset()
        self._buckets = TokenBuckets()
        self._until: dict[int, Seconds] = {}

    def admits(self, port: int | None, is_lldp: bool, per_s: float, now: Seconds) -> bool:
        """Whether a frame from `port` is looked at, where one port may send `per_s`."""
        held = port in self.held and not is_lldp
        if self._buckets.take((port, is_lldp, held), HELD_PER_S if held else per_s, now):
            return True
        if port is not None and not is_lldp and not (held and self._buckets.take(port, AGAIN_PER_S, now)):
            self._until[port] = now + HOLD_S
            self.held |= {port}
        return False

    def release(self, now: Seconds) -> None:
        """Lets go of ports that have been quiet for long enough."""
        over = {port for port, until in self._until.items() if until <= now}
        for port in over:
            del self._until[port]
        self.held -= over
