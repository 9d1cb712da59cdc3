"""How long what is remembered: decides which small steps are due. Deciding only; the steps are taken elsewhere."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil, inf

from cpdb.records import Seconds

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
FINE_S, COARSE_S = 10, 60
# A bucket is rolled up this long after its end: by then the writer has flushed. What comes later is added to it.
FINE_LAG_S = 2.0
COARSE_LAG_S = 15.0
# Bounds what one transaction holds: some hundred thousand rows of sums at most.
BATCHES_A_STEP = 128


@dataclass(frozen=True, slots=True)
class Policy:
    """How long each kind of memory lasts, in seconds."""

    second_s: Seconds = HOUR_S
    ten_seconds_s: Seconds = DAY_S
    minute_s: Seconds = 30 * DAY_S
    forecasts_s: Seconds = 120.0
    scores_s: Seconds = DAY_S
    journal_s: Seconds = 90 * DAY_S


@dataclass(frozen=True, slots=True)
class RollUp:
    """Adds batches to the rolled-up rows of the 10 s that end at `t`."""

    t: int
    batch_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Retained:
    """What one call did: steps taken, batches rolled up, rows deleted, and whether steps are left for the next."""

    steps: int = 0
    rolled_up: int = 0
    deleted: int = 0
    left: bool = False

    def __add__(self, other: "Retained") -> "Retained":
        return Retained(
            self.steps + other.steps,
            self.rolled_up + other.rolled_up,
            self.deleted + other.deleted,
            self.left or other.left,
        )


def bucket_end(t: Seconds, step_s: int) -> int:
    """End of the bucket (end - step_s, end] in which `t` falls."""
    return ceil(t / step_s) * step_s


def roll_ups(pending: Iterable[tuple[int, Seconds]], now: Seconds) -> Iterator[RollUp]:
    """Steps for batches (id, t) that wait and whose bucket is over, oldest first."""
    buckets: dict[int, list[int]] = defaultdict(list)
    for number, t in pending:
        end = bucket_end(t, FINE_S)
        if end + FINE_LAG_S <= now:
            buckets[end].append(number)
    for end in sorted(buckets):
        ids = sorted(buckets[end])
        for first in range(0, len(ids), BATCHES_A_STEP):
            yield RollUp(end, tuple(ids[first : first + BATCHES_A_STEP]))


def tiers(t: int, built_through: float, now: Seconds, policy: Policy) -> Iterator[tuple[int, int]]:
    """(step, end of bucket) to which a batch in the 10 s ending at `t` is added.

    Minutes are built from the 10 s rows once; a batch that comes after that is added to the minute too. One that is
    older than the 10 s rows last is added to its minute only.
    """
    minute = bucket_end(t, COARSE_S)
    built = minute <= built_through
    if not built or t > now - policy.ten_seconds_s:
        yield FINE_S, t
    if built and minute > now - policy.minute_s:
        yield COARSE_S, minute


def buildable_through(pending: Iterable[tuple[int, Seconds]], now: Seconds) -> int:
    """End of the last minute that is over and of which no batch waits."""
    oldest = min((t for _, t in pending), default=inf)
    end = min(now - COARSE_LAG_S, bucket_end(oldest, COARSE_S) - COARSE_S if oldest < inf else inf)
    return int(end // COARSE_S) * COARSE_S
