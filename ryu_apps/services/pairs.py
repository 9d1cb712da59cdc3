"""The pairs that have spoken and the destination each one keeps while it is alive."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from math import log

from cpdb import Destination, VirtualIp
from ryu_apps.rules import ChooseDestination, Kind, PortId, Rule, SetField, kind_of, pair_number
from ryu_apps.services.buckets import destination_number


def choose(source: str, virtual_ip: str, destinations: Iterable[Destination]) -> Destination | None:
    """The destination of (source, virtual IP), None when no weight is above 0.

    Weighted rendezvous hashing: each destination's share of sources is its share of the weights, and a change
    of one weight moves only sources to or from that destination (Thaler & Ravishankar, 1998; weights as in
    Schindelhauer & Schomaker, 2005: score = -weight / ln(hash)).
    """
    scored = [
        (-one.weight / log(_uniform(source, virtual_ip, one.name)), one.name, one)
        for one in destinations
        if one.weight > 0
    ]
    return max(scored)[2] if scored else None


def _uniform(*parts: str) -> float:
    number = int.from_bytes(blake2b("|".join(parts).encode(), digest_size=8).digest(), "big")
    return (number + 0.5) / 2**64


# Once there was no room for another pair, sums are counted until so much of it is free again.
ROOM_AGAIN_SHARE = 0.9

Seconds = float


@dataclass(slots=True)
class TrackedPair:
    """One pair; `chosen_from` are the destinations and weights that its destination was chosen from."""

    source_address: str
    virtual_ip: str
    destination: Destination | None
    chosen_from: tuple[Destination, ...]
    active: Seconds
    since: Seconds
    # Whether it keeps to one destination whatever the affinity: where it enters, no switch places connections
    plain: bool = False
    # Where it spoke first; not known of what an earlier controller met
    at: PortId | None = None

    @property
    def number(self) -> int:
        """The number in the pair's cookies."""
        return pair_number(self.source_address, self.virtual_ip)


@dataclass(frozen=True, slots=True)
class PairBudget:
    """At most `max_pairs` in all; of them, `port_share` behind one port and `source_share` of one source's address."""

    max_pairs: int
    port_share: float = 1.0
    source_share: float = 1.0


class PairRoom:
    """Room for pairs, in all and of each port and source."""

    def __init__(self, budget: PairBudget) -> None:
        self._max_pairs = budget.max_pairs
        self._port_pairs = max(1.0, budget.max_pairs * budget.port_share)
        self._source_pairs = max(1.0, budget.max_pairs * budget.source_share)
        self._taken, self._by = 0, Counter[PortId | str]()
        # Whether there was no room for another pair, and hardly any has come since
        self.overfull = False
        # Ports and sources that have as many pairs as one may have: more of theirs are served, and counted in sums
        self.crowded: frozenset[PortId | str] = frozenset()

    @property
    def summing(self) -> bool:
        """Whether there are sources that are no pairs for want of room."""
        return self.overfull or bool(self.crowded)

    def is_full(self, source: str, at: PortId | None) -> bool:
        """Whether there is none for another pair of a source, behind this port (None: it is not known)."""
        return self._taken >= self._max_pairs or any(self._share(one) >= 1.0 for one in (source, at) if one)

    def _share(self, one: PortId | str) -> float:
        return self._by[one] / (self._port_pairs if isinstance(one, PortId) else self._source_pairs)

    def take(self, source: str, at: PortId | None, count: int = 1) -> None:
        """A pair came; with -1, it went."""
        self._taken += count
        for one in (source, at):
            if one:
                self._by[one] += count
                if not self._by[one]:
                    del self._by[one]

    def weigh(self) -> bool:
        """Looks where there is none now; True when that is somewhere else."""
        before, share = (self.overfull, self.crowded), self._taken / self._max_pairs
        self.overfull = share >= 1.0 or (self.overfull and share > ROOM_AGAIN_SHARE)
        self.crowded = frozenset(
            one
            for one in self._by
            if (filled := self._share(one)) >= 1.0 or (one in self.crowded and filled > ROOM_AGAIN_SHARE)
        )
        return (self.overfull, self.crowded) != before


class Pairs:
    """All pairs by (source address, virtual IP) and by number."""

    def __init__(self, budget: PairBudget, idle_s: Seconds, forget_s: Seconds) -> None:
        """New weights apply after `idle_s` of silence, a pair is forgotten after `forget_s`."""
        self.idle_s, self._forget_s = idle_s, forget_s
        self.room = PairRoom(budget)
        self._pairs: dict[tuple[str, str], TrackedPair] = {}
        self._by_number: dict[int, TrackedPair] = {}
        # Another number whenever a pair came, went, or was given another destination
        self.revision = 0
        # What `refresh` looked at last, and until when nothing changes by the mere passing of time
        self._refreshed: Mapping[str, VirtualIp] | None = None
        self._due = float("inf")

    def __iter__(self) -> Iterator[TrackedPair]:
        return iter(list(self._pairs.values()))

    def __len__(self) -> int:
        return len(self._pairs)

    def of_number(self, number: int) -> TrackedPair | None:
        """The pair that a cookie names."""
        return self._by_number.get(number)

    def of_addresses(self, source: str, virtual_ip: str) -> TrackedPair | None:
        """The pair of these addresses."""
        return self._pairs.get((source, virtual_ip))

    def meet(
        self, source: str, vip: VirtualIp, now: Seconds, plain: bool = False, at: PortId | None = None
    ) -> TrackedPair | None:
        """The pair, made and given a destination when it is new; None when there is no room for another.

        A `plain` one has a destination also where connections are placed one by one.
        """
        known = self._pairs.get((source, vip.address))
        if known is None:
            if self.room.is_full(source, at):
                self.revision += self.room.weigh()
                return None
            known = TrackedPair(source, vip.address, None, (), now, now, at=at)
            self._add(known)
        known.plain = plain
        if known.destination is None and not _by_connection(known, vip):
            self._choose(known, vip)
        return known

    def _add(self, pair: TrackedPair) -> None:
        self._pairs[pair.source_address, pair.virtual_ip] = pair
        self._by_number[pair.number] = pair
        self.room.take(pair.source_address, pair.at)
        self._due = min(self._due, pair.active + min(self.idle_s, self._forget_s))
        self.revision += 1 + self.room.weigh()

    def _choose(self, pair: TrackedPair, vip: VirtualIp) -> None:
        before = pair.destination
        pair.destination = choose(pair.source_address, vip.address, vip.destinations)
        pair.chosen_from = vip.destinations
        self.revision += pair.destination != before

    def adopt(self, rules: Iterable[Rule], vips: Mapping[str, VirtualIp], now: Seconds) -> None:
        """Takes over the pairs that a switch's rules show, so that live connections outlast a restart."""
        for rule in rules:
            source, virtual_ip, address = _served(rule)
            chosen = {one.number for one in rule.actions if isinstance(one, ChooseDestination)}
            vip = vips.get(virtual_ip or "")
            if vip is None or source is None or (source, vip.address) in self._pairs:
                continue
            destination = next(
                (
                    one
                    for one in vip.destinations
                    if one.address == address or destination_number(vip.address, one.address) in chosen
                ),
                None,
            )
            if destination is not None:
                self._add(TrackedPair(source, vip.address, destination, (), now, now))

    def refresh(self, vips: Mapping[str, VirtualIp], now: Seconds) -> None:
        """Applies changed destinations and weights where that hurts nobody.

        A destination that is no longer declared is left at once; changed weights wait until the pair is idle.
        """
        if vips is self._refreshed and now <= self._due:
            return
        self._refreshed = vips
        for key, pair in list(self._pairs.items()):
            vip = vips.get(pair.virtual_ip)
            if vip is None or now - pair.active > self._forget_s:
                del self._pairs[key]
                del self._by_number[pair.number]
                self.room.take(pair.source_address, pair.at, -1)
                self.revision += 1
            elif _by_connection(pair, vip):
                self._let_go(pair, vip, now)
            elif not _serves(vip, pair.destination) or self._may_move(pair, vip, now):
                self._choose(pair, vip)
        self.revision += self.room.weigh()
        self._due = min((self._changes_at(pair, vips[pair.virtual_ip]) for pair in self), default=float("inf"))

    def _changes_at(self, pair: TrackedPair, vip: VirtualIp) -> Seconds:
        """Until when nothing becomes of a pair by its silence alone; when it speaks, that is later still."""
        settled = pair.destination is None if _by_connection(pair, vip) else pair.chosen_from == vip.destinations
        return pair.active + (self._forget_s if settled else min(self.idle_s, self._forget_s))

    def _let_go(self, pair: TrackedPair, vip: VirtualIp, now: Seconds) -> None:
        # Its connections are placed one by one; whoever had a destination from before keeps it while it speaks.
        if pair.destination is not None and (not _serves(vip, pair.destination) or now - pair.active > self.idle_s):
            pair.destination = None
            self.revision += 1

    def _may_move(self, pair: TrackedPair, vip: VirtualIp, now: Seconds) -> bool:
        return pair.chosen_from != vip.destinations and now - pair.active > self.idle_s


def _by_connection(pair: TrackedPair, vip: VirtualIp) -> bool:
    return vip.by_connection and not pair.plain


def sum_number(dpid: int, virtual_ip: str) -> int:
    """The number, in cookies, of all that enters at a switch for a virtual IP and belongs to no pair."""
    return pair_number(f"{dpid:016x}", virtual_ip)


def _serves(vip: VirtualIp, destination: Destination | None) -> bool:
    if destination is None:
        return False
    place = (destination.name, destination.address, destination.mac)
    return any((one.name, one.address, one.mac) == place for one in vip.destinations)


def _served(rule: Rule) -> tuple[str | None, str | None, str | None]:
    """(source, virtual IP, destination) addresses that a steering rule shows; None for what it does not."""
    to = {action.field: str(action.value) for action in rule.actions if isinstance(action, SetField)}
    match kind_of(rule.cookie):
        case Kind.TO_DESTINATION | Kind.PAIR:
            # Of an access port it does not show in which VLAN the source is. Of a switch with one table, one rule
            # counts and rewrites.
            source = rule.match.ip_src if rule.match.in_port is None else None
            return source, rule.match.ip_dst, to.get("ip_dst")
        case Kind.TO_CLIENT:
            return rule.match.ip_dst, to.get("ip_src"), rule.match.ip_src
    return None, None, None
