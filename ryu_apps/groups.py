"""Groups by number: each is told by what it does, the same in every process and after every restart."""

from hashlib import blake2b

from cpdb import LABELS
from ryu_apps.rules import GroupBucket, GroupKind, Output, SwitchGroup

# Groups carry no cookie: these numbers are ours, all others belong to somebody else and are never touched.
FIRST_GROUP, LAST_GROUP = 0xF000_0000, 0xF7FF_FFFF
# Ports with higher numbers have no alternative: both have to fit into a group's number.
_PORT_BITS = 12
_PORT_MAX = (1 << _PORT_BITS) - 1


def is_our_group(number: int) -> bool:
    """Whether a group's number is in our range."""
    return FIRST_GROUP <= number <= LAST_GROUP


def failover(port: int, spare: int) -> SwitchGroup | None:
    """Out of `port`, or out of `spare` while that is down; None when the ports' numbers are too high.

    The same ports give the same number in every process and after every restart: nothing has to be kept.
    """
    if max(port, spare) > _PORT_MAX:
        return None
    buckets = tuple(GroupBucket((Output(one),), watch_port=one) for one in (port, spare))
    return SwitchGroup(FIRST_GROUP | port << _PORT_BITS | spare, GroupKind.FAST_FAILOVER, buckets)


FIRST_DIVIDED = 0xF100_0000


def failover_port(number: int) -> int | None:
    """The first port in the number of such a group; None for any other number."""
    return number >> _PORT_BITS & _PORT_MAX if FIRST_GROUP <= number < FIRST_DIVIDED else None


def divided(buckets: tuple[GroupBucket, ...]) -> SwitchGroup:
    """One of these by weight for each connection, as the switch hashes it; the same buckets give the same number."""
    digest = blake2b(repr(buckets).encode(), digest_size=3).digest()
    return SwitchGroup(FIRST_DIVIDED | int.from_bytes(digest, "big"), GroupKind.SELECT, buckets)


FIRST_TURNING, _TURNING_PORT_MAX = 0xF400_0000, 0xFF


def turning(label: int, next_hop: GroupBucket, spare: GroupBucket) -> SwitchGroup | None:
    """The way of a label, or `spare` while its port is down; None when the ports' numbers are too high.

    A switch has one way out for a label and a port, so that these and the spare port tell it from all others.
    """
    port, other = next_hop.watch_port or 0, spare.watch_port or 0
    if max(port, other) > _TURNING_PORT_MAX:
        return None
    number = FIRST_TURNING | label % LABELS << 16 | port << 8 | other
    return SwitchGroup(number, GroupKind.FAST_FAILOVER, (next_hop, spare))


def turning_next_hop(number: int) -> tuple[int, int] | None:
    """The label without its range, and the port, in the number of such a group; None for any other number."""
    return (
        (number >> 16 & LABELS - 1, number >> 8 & _TURNING_PORT_MAX) if FIRST_TURNING <= number <= LAST_GROUP else None
    )
