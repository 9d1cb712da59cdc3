"""Groups as plain records: what a switch chooses from by itself, above all another port when one goes down."""

from dataclasses import dataclass
from enum import IntEnum

from ryu_apps.rules import Action, Output

# Groups carry no cookie: these numbers are ours, all others belong to somebody else and are never touched.
FIRST, LAST = 0xF000_0000, 0xF1FF_FFFF
# Ports with higher numbers have no alternative: both have to fit into a group's number.
_PORT_BITS = 12
_PORT_MAX = (1 << _PORT_BITS) - 1


class GroupKind(IntEnum):
    """OpenFlow's group types that we use: one bucket by weight, or the first one whose port is up."""

    SELECT = 1
    FAST_FAILOVER = 3


@dataclass(frozen=True, slots=True)
class Bucket:
    """One choice: its actions, its weight (select) or the port that has to be up (fast failover)."""

    actions: tuple[Action, ...]
    weight: int = 0
    watch_port: int | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """A group of buckets, by number."""

    number: int
    kind: GroupKind
    buckets: tuple[Bucket, ...]


def is_ours(number: int) -> bool:
    """Whether a group's number is in our range."""
    return FIRST <= number <= LAST


def failover(port: int, spare: int) -> Group | None:
    """Out of `port`, or out of `spare` while that is down; None when the ports' numbers are too high.

    The same ports give the same number in every process and after every restart: nothing has to be kept.
    """
    if max(port, spare) > _PORT_MAX:
        return None
    buckets = tuple(Bucket((Output(one),), watch_port=one) for one in (port, spare))
    return Group(FIRST | port << _PORT_BITS | spare, GroupKind.FAST_FAILOVER, buckets)
