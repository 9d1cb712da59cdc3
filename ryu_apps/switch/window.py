"""How many changes may be on their way to a switch: about as many as it makes in a second."""

from dataclasses import dataclass

Seconds = float

# A switch that nothing is known of yet gets so many at once; a slow one is busy with them for seconds, not minutes.
FIRST_CHANGES = 500
MIN_CHANGES, MAX_CHANGES = 20, 100_000
BUSY_S = 1.0
# Told when what waits takes longer than this.
SLOW_S = 5.0


@dataclass(slots=True)
class ChangeWindow:
    """Grows while a switch is quick and more waits, else shrinks to what it makes in `BUSY_S`; `waiting` is held back.

    Echoes queue behind changes: a switch that is given all at once would look dead.
    """

    size: int = FIRST_CHANGES
    waiting: int = 0
    changes_per_s: float | None = None
    _sent: int = 0
    _sent_at: Seconds = 0.0

    def room(self, unconfirmed: int, now: Seconds) -> int:
        """How many more may be sent, while so many are not confirmed."""
        if self._sent and not unconfirmed:
            self._learn(max(now - self._sent_at, 1e-3))
        return max(0, self.size - unconfirmed)

    def _learn(self, took_s: Seconds) -> None:
        # Only what was sent while more waited says anything: others are looked at whenever there is time.
        if self.waiting:
            self.changes_per_s = self._sent / took_s
            fits = int(self.changes_per_s * BUSY_S)
            self.size = min(MAX_CHANGES, max(MIN_CHANGES, min(2 * self.size, fits)))
        self._sent = 0

    def sent(self, count: int, waiting: int, now: Seconds) -> None:
        """So many were sent, and so many wait."""
        if not self._sent:
            self._sent_at = now
        self._sent += count
        self.waiting = waiting

    def slow_for_s(self) -> Seconds:
        """How long what waits will take; 0 where that is soon."""
        left_s = self.waiting / self.changes_per_s if self.changes_per_s else 0.0
        return left_s if left_s > SLOW_S else 0.0

    def describe_wait(self) -> str:
        """How slow the switch is, and what waits."""
        return (
            f"makes {self.changes_per_s or 0:.0f} changes a second: {self.waiting} wait, the last for about "
            f"{self.slow_for_s():.0f} s; they are sent as it makes them"
        )
