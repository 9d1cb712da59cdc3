"""The rules of a virtual IP whose every new connection is placed anew - by the switch, which also remembers it.

A connection that the switch knows is looked up in table `affinity`; any other is hashed to a bucket, whose rule in
table `slots` names a destination, whose rule in table `serve` rewrites the packet and writes the connection down, in
both directions. So weights and draining concern buckets only, and no connection takes a rule or a message of the
controller.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import NamedTuple

from cpdb import Destination, VirtualIp, is_ipv6
from ryu_apps.families import eth_type_of, match_ip
from ryu_apps.rules import (
    CONTROLLER,
    PROTO_TCP,
    PROTO_UDP,
    TCP_OPENING,
    BucketMatch,
    ChooseDestination,
    DestinationMatch,
    Kind,
    LearnConnection,
    LearnSource,
    Match,
    Output,
    PickBucket,
    PortMatch,
    ResubmitTable,
    Rule,
    RuleKey,
    SetField,
    Table,
    cookie,
    kind_of,
    pair_number,
    virtual_mac,
)
from ryu_apps.topology.frames import PROBE_PORT

# A hash of each new connection picks one of so many buckets. Equal weights then differ by one bucket in a thousand.
BUCKET_BITS = 10
BUCKETS = 1 << BUCKET_BITS

BucketOwners = tuple[str | None, ...]


class BucketPrefix(NamedTuple):
    """Slots whose upper `length` bits are those of `first` belong to `owner`; the longest prefix decides."""

    first: int
    length: int
    owner: str


def quotas(weights: Mapping[str, int], buckets: int = BUCKETS) -> dict[str, int]:
    """How many buckets each weight is worth: largest remainders, so each is within one bucket of its exact share.

    Empty when no weight is above 0.
    """
    total = sum(weight for weight in weights.values() if weight > 0)
    exact = {name: buckets * weight / total for name, weight in sorted(weights.items()) if weight > 0}
    found = {name: int(share) for name, share in exact.items()}
    rest = buckets - sum(found.values())
    for name in sorted(exact, key=lambda name: (found[name] - exact[name], name))[: max(0, rest)]:
        found[name] += 1
    return found


def divide_buckets(weights: Mapping[str, int], before: Sequence[str | None] = ()) -> BucketOwners:
    """A bucket table for these weights; of the table `before`, only what a destination has too much moves.

    All None when no weight is above 0. Whole aligned blocks move first: they take fewer rules.
    """
    quota = quotas(weights)
    table: list[str | None] = list(before) if len(before) == BUCKETS else [None] * BUCKETS
    if not quota:
        return (None,) * BUCKETS
    held = Counter(table)
    surplus = {name: count - quota.get(name or "", 0) for name, count in held.items()}
    lack = {name: count - held[name] for name, count in quota.items() if count > held[name]}
    for bits in range(BUCKET_BITS, -1, -1):
        # Beside blocks of the taker's own first: two halves of one owner take one rule.
        for beside in (True, False):
            _move_blocks(table, 1 << bits, surplus, lack, beside)
    return tuple(table)


def _move_blocks(
    table: list[str | None], size: int, surplus: dict[str | None, int], lack: dict[str, int], beside: bool
) -> None:
    """Moves aligned blocks of this size from who has too much to who lacks some, as long as that fits both."""
    for first in range(0, BUCKETS, size):
        if not lack:
            return
        owner = table[first]
        if surplus.get(owner, 0) < size or not _whole(table, first, size):
            continue
        taker = _neighbour(table, first, size) if beside else max(lack, key=lambda name: (lack[name], name))
        if taker is None or lack.get(taker, 0) < size:
            continue
        table[first : first + size] = [taker] * size
        surplus[owner] -= size
        lack[taker] -= size
        if not lack[taker]:
            del lack[taker]


def _whole(table: Sequence[str | None], first: int, size: int) -> bool:
    return all(one == table[first] for one in table[first : first + size])


def _neighbour(table: Sequence[str | None], first: int, size: int) -> str | None:
    """Who has the other half of the block that is twice as large; None when nobody has all of it."""
    other = first ^ size
    return table[other] if other < BUCKETS and _whole(table, other, size) else None


def compress_buckets(table: Sequence[str | None]) -> list[BucketPrefix]:
    """The fewest prefixes that say the same as the table; [] for one without owners.

    Draves, King, Venkatachary and Zill, Constructing Optimal IP Routing Tables (INFOCOM 1999): upwards, each node
    takes the owners that both halves agree on, else all of them; downwards, a prefix is written where the one above
    does not say the right thing yet.
    """
    if any(owner is None for owner in table):
        return []
    levels = [[frozenset((owner,)) for owner in table]]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([below[n] & below[n + 1] or below[n] | below[n + 1] for n in range(0, len(below), 2)])
    found: list[BucketPrefix] = []
    _write(levels[::-1], 0, 0, None, found)
    return found


def _write(
    levels: list[list[frozenset[str | None]]], depth: int, place: int, above: str | None, found: list[BucketPrefix]
) -> None:
    here = levels[depth][place]
    if above not in here:
        above = min(one for one in here if one is not None)
        found.append(BucketPrefix(place << (len(levels) - 1 - depth), depth, above))
    if depth + 1 < len(levels):
        for half in (2 * place, 2 * place + 1):
            _write(levels, depth + 1, half, above, found)


def expand_prefixes(prefixes: Iterable[BucketPrefix]) -> BucketOwners:
    """The table that prefixes describe, the inverse of `compress`; None where they say nothing."""
    table: list[str | None] = [None] * BUCKETS
    for one in sorted(prefixes, key=lambda one: one.length):
        size = BUCKETS >> one.length
        first = one.first - one.first % max(size, 1)
        table[first : first + size] = [one.owner or None] * len(table[first : first + size])
    return tuple(table)


# Below pairs that still have rules of their own: they keep them until they are silent.
SPREAD_PRIORITY = 18
ANSWERS_PRIORITY = 17
MEET_PRIORITY = 12
SERVE_PRIORITY = {PROTO_TCP: 20, PROTO_UDP: 20, 0: 10}
LOST_PRIORITY = 10
HEAR_PRIORITY = 100

# How long a silent connection is remembered: TCP keeps idle connections, others are exchanges.
IDLE_S = {PROTO_TCP: 1800, PROTO_UDP: 120, 0: 60}
# A source that no rule counts yet is told of at most this often.
MEET_S = 10


@lru_cache(maxsize=65_536)
def destination_number(virtual_ip: str, name: str) -> int:
    """32 bits that name a destination of a virtual IP, the same in every process and after every restart."""
    return int.from_bytes(blake2b(f"{virtual_ip}={name}".encode(), digest_size=4).digest(), "big")


class Crowd(NamedTuple):
    """Sources for whose pairs there is no room: all that enter by a port, those of one address, or (neither) all."""

    port: int | None = None
    source: str | None = None


@dataclass(frozen=True, eq=False)
class BucketPlacement:
    """A virtual IP with all destinations that may still hold connections, and the buckets for new ones.

    Those of everybody, or (not `of_all`) of crowds only.

    Equal only to itself: what did not change is the same one, and its rules need not be made again.
    """

    virtual_ip: str
    destinations: tuple[Destination, ...]
    buckets: BucketOwners
    of_all: bool = True
    # Its rules in switches where destinations are, by their ports there (`services/stand_ins.py`)
    at: dict[Hashable, Mapping[RuleKey, Rule]] = field(default_factory=dict)

    @cached_property
    def rules(self) -> dict[RuleKey, Rule]:
        """All rules of this virtual IP that are the same in every switch where hosts are."""
        rules = [self._lost(), *self._bucket_rules(), *self.entries(())]
        rules += [rule for one in self.destinations for rule in serve_rules(self.virtual_ip, one)]
        return {rule.key: rule for rule in rules}

    @property
    def _to(self) -> Match:
        return match_ip(to=self.virtual_ip)

    def _cookie(self, table: Table) -> int:
        return cookie(table, Kind.SPREAD, pair_number("", self.virtual_ip))

    def entries(self, crowds: Iterable[Crowd]) -> Iterable[Rule]:
        """What sends packets to the buckets: of everybody, or of these."""
        actions = (ResubmitTable(Table.AFFINITY), PickBucket(BUCKETS), ResubmitTable(Table.BUCKETS))
        for one in (Crowd(),) if self.of_all else crowds:
            if one.source is None or is_ipv6(one.source) == is_ipv6(self.virtual_ip):
                match = replace(match_ip(one.source, self.virtual_ip), in_port=one.port)
                mark = self._cookie(Table.REWRITE)
                yield Rule(Table.REWRITE, SPREAD_PRIORITY, match, actions, Table.FORWARD, cookie=mark)

    def _lost(self) -> Rule:
        # Nobody serves it: such packets end here instead of asking the controller one by one.
        match = Match(eth_dst=virtual_mac(self.virtual_ip))
        return Rule(Table.FORWARD, LOST_PRIORITY, match, cookie=self._cookie(Table.FORWARD))

    def _bucket_rules(self) -> Iterable[Rule]:
        for one in compress_buckets(self.buckets):
            match = replace(self._to, register=bucket_match(one))
            actions = (ChooseDestination(destination_number(self.virtual_ip, one.owner)), ResubmitTable(Table.SERVE))
            yield Rule(Table.BUCKETS, 1 + one.length, match, actions, cookie=self._cookie(Table.BUCKETS))


def bucket_match(one: BucketPrefix) -> BucketMatch | None:
    """What packets in buckets of a prefix have; None: all have it."""
    mask = (BUCKETS - 1) & ~((1 << (BUCKET_BITS - one.length)) - 1)
    return BucketMatch(one.first, mask) if one.length else None


def serve_rules(virtual_ip: str, one: Destination) -> Iterable[Rule]:
    """Connections for which a destination was chosen go there, and are written down, protocol by protocol."""
    number = destination_number(virtual_ip, one.name)
    for protocol, priority in SERVE_PRIORITY.items():
        match = match_ip(to=virtual_ip, ip_proto=protocol or None, register=DestinationMatch(number))
        keep = LearnConnection(protocol, virtual_ip, one.address, one.mac, number, IDLE_S[protocol])
        actions = (SetField("eth_dst", one.mac), SetField("ip_dst", one.address), keep)
        # A number of its own: its packets are the connections that were placed there.
        mark = cookie(Table.SERVE, Kind.SPREAD, pair_number(f"{one.name}/{protocol}", virtual_ip))
        yield Rule(Table.SERVE, priority, match, actions, cookie=mark)


@lru_cache(maxsize=16)
def placement_rules(
    spreads: tuple[BucketPlacement, ...], curious: bool, crowds: tuple[Crowd, ...] = ()
) -> dict[RuleKey, Rule]:
    """All rules of a switch for its spreads; `curious` when there is room to count more sources. Not to be changed."""
    addresses = sorted({one.address for spread in spreads for one in spread.destinations})
    rules = [answers_rule(address) for address in addresses]
    if curious and spreads:
        families = {eth_type_of(one.virtual_ip) for one in spreads}
        unmet = (rule for one in spreads if one.of_all for rule in _unmet(one.virtual_ip))
        rules += [*map(_meet, sorted(families)), *unmet]
    found = {rule.key: rule for rule in rules}
    for spread in spreads:
        found |= spread.rules | {rule.key: rule for rule in spread.entries(crowds)}
    return found


def probe_answer_rule(virtual_ip: str) -> Rule:
    """Brings answers of services to the controller's questions, asked in the name of a virtual IP, back to it."""
    match = match_ip(to=virtual_ip, ip_proto=PROTO_TCP, port_dst=PortMatch(PROTO_TCP, PROBE_PORT))
    number = cookie(Table.ACCOUNT, Kind.SPREAD, pair_number("probe", virtual_ip))
    return Rule(Table.ACCOUNT, HEAR_PRIORITY, match, (Output(CONTROLLER),), cookie=number)


def answers_rule(address: str) -> Rule:
    """Answers of a destination are looked up among the connections that were written down."""
    match = match_ip(address)
    number = cookie(Table.REWRITE, Kind.SPREAD, pair_number("", address))
    return Rule(Table.REWRITE, ANSWERS_PRIORITY, match, (ResubmitTable(Table.AFFINITY),), Table.FORWARD, cookie=number)


def _unmet(virtual_ip: str) -> Iterable[Rule]:
    every = match_ip(to=virtual_ip)
    # Openings apart, as the pair's own entries will have them: Open vSwitch counts what its cache let through until it
    # has seen new entries for the one that the cached flow's first packet meets, an opening or not.
    opening = replace(every, ip_proto=PROTO_TCP, message_type=TCP_OPENING)
    number = cookie(Table.ACCOUNT, Kind.SPREAD, pair_number("", virtual_ip))
    for priority, match in ((MEET_PRIORITY, every), (MEET_PRIORITY + 1, opening)):
        yield Rule(Table.ACCOUNT, priority, match, (ResubmitTable(Table.MEET),), Table.POLICER, cookie=number)


def _meet(eth_type: int) -> Rule:
    actions = (Output(CONTROLLER), LearnSource(MEET_S, eth_type=eth_type))
    return Rule(Table.MEET, 0, Match(eth_type=eth_type), actions, cookie=cookie(Table.MEET, Kind.SPREAD))


class BucketPlacements:
    """The spreads by virtual IP; only what changed is made anew."""

    def __init__(self) -> None:
        self._spreads: dict[str, BucketPlacement] = {}
        self._adopted: set[str] = set()
        # Another number whenever a bucket has changed its owner
        self.revision = 0

    def __iter__(self) -> Iterator[BucketPlacement]:
        return iter(self._spreads.values())

    def __len__(self) -> int:
        return len(self._spreads)

    def of(self, virtual_ip: str) -> BucketPlacement | None:
        """The spread of a virtual IP."""
        return self._spreads.get(virtual_ip)

    def update(self, virtual_ips: Mapping[str, VirtualIp], everyone: bool = False) -> None:
        """Divides buckets by the weights of now; of `everyone`, not only of those whose connections are placed so."""
        before = self._spreads
        self._spreads = {
            address: self._kept(one) for address, one in virtual_ips.items() if everyone or one.by_connection
        }
        self.revision += len(before) != len(self._spreads) or any(
            before.get(address) is not one for address, one in self._spreads.items()
        )

    def _kept(self, vip: VirtualIp) -> BucketPlacement:
        known = self._spreads.get(vip.address)
        if known is not None and (known.destinations, known.of_all) == (vip.destinations, vip.by_connection):
            return known
        return _divided(vip, known.buckets if known is not None else ())

    def adopt(self, rules: Iterable[Rule], virtual_ips: Mapping[str, VirtualIp]) -> None:
        """Takes over the buckets that the first switch to show any has, so that a restart moves none."""
        found: dict[str, list[Rule]] = {}
        for rule in rules:
            if rule.table == Table.BUCKETS and kind_of(rule.cookie) is Kind.SPREAD and rule.match.ip_dst:
                found.setdefault(rule.match.ip_dst, []).append(rule)
        for address in found.keys() & self._spreads.keys() - self._adopted:
            vip = virtual_ips[address]
            self._adopted.add(address)
            self.revision += 1
            self._spreads[address] = _divided(vip, expand_prefixes(_prefixes(vip, found[address])))


def _divided(vip: VirtualIp, before: BucketOwners) -> BucketPlacement:
    buckets = divide_buckets({one.name: one.weight for one in vip.destinations}, before)
    return BucketPlacement(vip.address, vip.destinations, buckets, vip.by_connection)


def _prefixes(vip: VirtualIp, rules: Iterable[Rule]) -> Iterator[BucketPrefix]:
    names = {destination_number(vip.address, one.name): one.name for one in vip.destinations}
    for rule in rules:
        chosen = next((one.number for one in rule.actions if isinstance(one, ChooseDestination)), 0)
        bucket = rule.match.register
        first = bucket.first if isinstance(bucket, BucketMatch) else 0
        yield BucketPrefix(first, rule.priority - 1, names.get(chosen, ""))
