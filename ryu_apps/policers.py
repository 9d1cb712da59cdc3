"""Turns alive reservations into limits and marks per pair: the tightest one wins, and each ends with its lease."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

from cpdb import Pair, Reservation
from ryu_apps.rules import Meter, pair_number

Seconds = float

# The bucket holds half a second of the rate. Measured on Open vSwitch's userspace datapath: a tenth of a second
# halves TCP, a full second lets 10-20 % more than the rate through in the first seconds.
BURST_S = 0.5
# Below a few full-size frames a bucket would pass nothing at all.
MIN_BURST_KBIT = 200


@dataclass(frozen=True, slots=True)
class ReservationEntry:
    """What one reservation wants of one pair: a rate, a mark, or both."""

    reservation: str
    generation: int
    pair: Pair
    expires_at: Seconds
    rate_kbit_s: int | None = None
    dscp: int | None = None


@dataclass(frozen=True, slots=True)
class Policer:
    """What the switches are to do with one pair, by addresses, until `lease_until`.

    A source with several addresses of IPv6 has one limit for them all, by the number of the `first`.
    """

    source_address: str
    virtual_ip: str
    lease_until: Seconds
    rate_kbit_s: int | None = None
    dscp: int | None = None
    first: str | None = None

    @property
    def number(self) -> int:
        """The pair's number."""
        return pair_number(self.first or self.source_address, self.virtual_ip)


def reservation_entries(reservations: Iterable[Reservation], now: Seconds) -> list[ReservationEntry]:
    """Every single entry of the reservations that are alive."""
    found = []
    for item in reservations:
        if item.expires_at <= now:
            continue
        for limit in item.limits:
            rate = max(1, ceil(limit.bytes_per_s * 8 / 1000))
            found.append(ReservationEntry(item.key, item.generation, limit.pair, item.expires_at, rate_kbit_s=rate))
        if item.dscp is not None:
            found.append(ReservationEntry(item.key, item.generation, item.pair, item.expires_at, dscp=item.dscp))
    return found


def police(found: Iterable[ReservationEntry], addresses_of: Callable[[Pair], Sequence[str]]) -> list[Policer]:
    """One Policer for each pair and address of its source: the lowest rate with the lease of who asked for it.

    Sources without a known address are left out; whoever reports has to say so.
    """
    by_pair: dict[tuple[str, str], list[ReservationEntry]] = {}
    others: dict[tuple[str, str], list[str]] = {}
    for entry in found:
        own = sorted(addresses_of(entry.pair))
        for address in own[:1]:
            by_pair.setdefault((address, entry.pair.virtual_ip), []).append(entry)
            others[address, entry.pair.virtual_ip] = own[1:]
    merged = [_merge(*ends, group) for ends, group in sorted(by_pair.items())]
    more = [
        replace(one, source_address=other, first=one.source_address)
        for one in merged
        for other in others[one.source_address, one.virtual_ip]
    ]
    return merged + more


def _merge(source_address: str, virtual_ip: str, group: list[ReservationEntry]) -> Policer:
    limits = [entry for entry in group if entry.rate_kbit_s is not None]
    marks = [entry for entry in group if entry.dscp is not None]
    tightest = min(limits, key=lambda entry: (entry.rate_kbit_s or 0, -entry.expires_at), default=None)
    mark = max(marks, key=lambda entry: (entry.dscp or 0, entry.expires_at), default=None)
    return Policer(
        source_address,
        virtual_ip,
        lease_until=(tightest or mark or group[0]).expires_at,
        rate_kbit_s=tightest.rate_kbit_s if tightest else None,
        dscp=mark.dscp if mark else None,
    )


def meter(number: int, rate_kbit_s: int) -> Meter:
    """A meter of that rate with a bucket that suits TCP and UDP alike."""
    return Meter(number, rate_kbit_s, max(MIN_BURST_KBIT, ceil(rate_kbit_s * BURST_S)))


def allot_meters(pairs: Collection[int], taken: Mapping[int, int], first: int) -> dict[int, int]:
    """A meter number for each pair number: the one it has (`taken`), else the smallest free from `first` on."""
    kept = {pair: taken[pair] for pair in pairs if pair in taken}
    # Numbers of pairs that are about to go stay taken too: their rule may still use the meter for a moment.
    used = set(taken.values())
    free = first
    for pair in sorted(set(pairs) - kept.keys()):
        while free in used:
            free += 1
        kept[pair] = free
        used.add(free)
    return kept
