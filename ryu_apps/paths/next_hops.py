"""What a switch holds of paths: labels on their way, and pairs that are put on a path, or divided over several.

A pair that is turned keeps its connections where they are: each is written down by the switch with the next hop that it
has, found again as long as it speaks, and only what is new or was silent takes the next hops of now.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from cpdb import FIRST_TAG
from ryu_apps.families import eth_type_of, match_ip
from ryu_apps.groups import divided, failover, failover_port, turning, turning_next_hop
from ryu_apps.paths.splits import Ends, SplitPath
from ryu_apps.rules import (
    PROTO_TCP,
    PROTO_UDP,
    Action,
    BucketMatch,
    ChooseDestination,
    DestinationMatch,
    GroupBucket,
    Kind,
    LearnNextHop,
    Match,
    Output,
    PickBucket,
    PopLabel,
    PushLabel,
    ResubmitTable,
    Rule,
    SwitchGroup,
    Table,
    ToGroup,
    bare,
    cookie,
    kind_of,
    pair_number,
)
from ryu_apps.services.buckets import (
    BUCKETS,
    BucketPrefix,
    bucket_match,
    compress_buckets,
    divide_buckets,
    expand_prefixes,
)
from ryu_apps.topology.paths import Topology

# Before everything else in the first table: tagged packets have been counted, policed and steered already.
TAG_PRIORITY = 120
LOST_PRIORITY = 119
STRAY_PRIORITY = 118
# Above the rules that send each host's packets the shortest way
PIN_PRIORITY = 20
# Above all rules of buckets, whose priorities are `PIN_PRIORITY` and the length of a prefix
KEPT_PRIORITY = 40
# A connection that is silent for so long is new again. Switches see by their own counters, every second or so, who is.
KEPT_IDLE_S = 3
# Stands in registers for the shortest way, which has no label; no label is so low.
_NO_LABEL = 1
# Numbers in cookies that no tag has: ports with the rule for lost tags, and the rule for stray ones
_LOST = 1 << 13
_STRAY = 1 << 12


@dataclass(frozen=True, slots=True)
class Transit:
    """Packets with this tag that come in at `in_port` leave at `out_port`; None: here the tag comes off.

    While that port is down they go on without the tag at port `spare`, where there is one.
    """

    tag: int
    in_port: int
    out_port: int | None
    spare: int | None = None

    @property
    def group(self) -> SwitchGroup | None:
        """What turns to the spare port; None where there is none."""
        if self.out_port is None or self.spare is None:
            return None
        away = GroupBucket((PopLabel(), Output(self.spare)), watch_port=self.spare)
        return turning(self.tag, GroupBucket((Output(self.out_port),), watch_port=self.out_port), away)


class NextHop(NamedTuple):
    """Packets go out at `out_port` with this tag; `weight` of all `WEIGHTS` where there are others.

    While that port is down they go the shortest way by port `spare`, where there is one.
    """

    tag: int
    out_port: int
    weight: int
    spare: int | None = None

    @property
    def labelled(self) -> tuple[Action, ...]:
        """The tag and the way; without a tag it is the shortest."""
        return (PushLabel(self.tag), Output(self.out_port)) if self.tag else (Output(self.out_port),)

    @property
    def group(self) -> SwitchGroup | None:
        """What turns to the spare port; None where there is none."""
        if self.spare is None:
            return None
        if not self.tag:
            return failover(self.out_port, self.spare)
        away = GroupBucket((Output(self.spare),), watch_port=self.spare)
        return turning(self.tag, GroupBucket(self.labelled, watch_port=self.out_port), away)

    @property
    def actions(self) -> tuple[Action, ...]:
        """What is done with a packet."""
        return _through(self.group) or self.labelled

    @property
    def mark(self) -> int:
        """What stands for it in registers."""
        return self.tag or _NO_LABEL


def _through(group: SwitchGroup | None) -> tuple[Action, ...]:
    return (ToGroup(group.number),) if group else ()


@dataclass(frozen=True, slots=True)
class Pin:
    """IP packets of a pair, as steering has left them, take this next hop, or one of several by connection.

    Connections that were written down with a next hop of `kept` keep it; while it `notes`, each is, with its next hop.
    """

    ip_src: str
    eth_dst: str
    next_hops: tuple[NextHop, ...]
    number: int
    kept: tuple[NextHop, ...] = ()
    notes: bool = False

    @property
    def group(self) -> SwitchGroup | None:
        """What divides its connections, over the next hops whose ports are up; None where there is one next hop."""
        if len(self.next_hops) < 2:
            return None
        return divided(tuple(GroupBucket(one.labelled, one.weight, one.out_port) for one in self.next_hops))

    def kept_rule(self, next_hop: NextHop) -> Rule:
        """What sends connections that have this next hop by it; its counters tell whether there are any."""
        match = replace(match_ip(self.ip_src, eth_dst=self.eth_dst), register=DestinationMatch(next_hop.mark))
        number = pair_number(f"{self.ip_src}>{self.eth_dst}", str(next_hop.tag))
        mark = cookie(Table.PAIR_BUCKETS, Kind.PIN, number)
        return Rule(Table.PAIR_BUCKETS, KEPT_PRIORITY, match, next_hop.actions, cookie=mark)


@dataclass(frozen=True, slots=True)
class LabelShare:
    """What one switch has to do with tags; `inner_ports` lead to other switches. Nothing while it is empty.

    `by_ports`: it can hash the ports of connections, UDP's too, which groups leave out of account, and write them down.
    """

    transits: tuple[Transit, ...] = ()
    pins: tuple[Pin, ...] = ()
    inner_ports: tuple[int, ...] = ()
    first_label: int = FIRST_TAG
    by_ports: bool = True


def label_groups(share: LabelShare) -> Iterable[SwitchGroup]:
    """All groups of one switch that divide pairs, or turn away from ports that are down."""
    whole = [pin for pin in share.pins if len(pin.next_hops) == 1 or share.by_ports]
    every = [one.group for one in share.transits] + [one.group for pin in whole for one in (*pin.next_hops, *pin.kept)]
    every += [] if share.by_ports else [pin.group for pin in share.pins]
    return (one for one in every if one is not None)


def undivided(share: LabelShare) -> LabelShare:
    """The same for a switch without groups: each pair takes its largest next hop whole, and nothing turns by itself."""
    largest = ((pin, (max(pin.next_hops, key=lambda one: one.weight),)) for pin in share.pins)
    pins = tuple(replace(pin, next_hops=_without_spares(own), kept=_without_spares(pin.kept)) for pin, own in largest)
    return replace(share, pins=pins, transits=tuple(replace(one, spare=None) for one in share.transits))


def _without_spares(next_hops: Iterable[NextHop]) -> tuple[NextHop, ...]:
    return tuple(one._replace(spare=None) for one in next_hops)


def label_rules(share: LabelShare) -> Iterable[Rule]:
    """All rules of one switch that are about tags."""
    yield from (transit_rule(one) for one in share.transits)
    for pin in share.pins:
        yield from _by_ports(pin) if share.by_ports and (len(pin.next_hops) > 1 or pin.kept) else (_pin(pin),)
    for eth_type in sorted({eth_type_of(bare(pin.ip_src)) for pin in share.pins if pin.notes and share.by_ports}):
        yield from _notes(eth_type)
    for port in share.inner_ports:
        # A tag that nobody knows any more comes off, and the packet goes on the shortest way: nothing gets lost.
        match = Match(in_port=port, label=-share.first_label)
        number = cookie(Table.ACCOUNT, Kind.LABEL, _LOST | port)
        yield Rule(Table.ACCOUNT, LOST_PRIORITY, match, (PopLabel(),), Table.FORWARD, cookie=number)
    if share.inner_ports:
        # A host must not get round accounting and limits, or choose its path, by putting on a tag itself.
        mark = cookie(Table.ACCOUNT, Kind.LABEL, _STRAY)
        yield Rule(Table.ACCOUNT, STRAY_PRIORITY, Match(label=-share.first_label), cookie=mark)


def transit_rules(path: SplitPath, topology: Topology) -> dict[str, Transit]:
    """What each switch after the first has to do for a path. KeyError when two of them are not joined."""
    found = {}
    for place, (before, here) in enumerate(pairwise(path.hops), 1):
        following = path.hops[place + 1] if place + 1 < len(path.hops) else None
        out_port = None if following is None else topology.port(here, following)
        in_port = topology.port(here, before)
        spare = None if out_port is None else turn_port(topology, (here, path.hops[-1]), (out_port, in_port))
        found[here] = Transit(path.tag, in_port, out_port, spare)
    return found


def turn_port(topology: Topology, ends: Ends, taken: Container[int]) -> int | None:
    """By which port a switch sends packets without a tag to another one when a port of those `taken` is down.

    The shortest way, or its spare: neither ever comes back (`Topology.spare_hops`).
    """
    here, last = ends
    hops = (way(last).get(here) for way in (topology.next_hops, topology.spare_hops))
    return next((port for hop in hops if hop and (port := topology.port(here, hop)) not in taken), None)


def transit_rule(one: Transit) -> Rule:
    """The rule of a transit."""
    match = Match(in_port=one.in_port, label=one.tag)
    number = cookie(Table.ACCOUNT, Kind.LABEL, one.in_port << 14 | one.tag)
    if one.out_port is None:
        return Rule(Table.ACCOUNT, TAG_PRIORITY, match, (PopLabel(),), Table.FORWARD, cookie=number)
    actions = _through(one.group) or (Output(one.out_port),)
    return Rule(Table.ACCOUNT, TAG_PRIORITY, match, actions, cookie=number)


def _pin(one: Pin) -> Rule:
    match = match_ip(one.ip_src, eth_dst=one.eth_dst)
    actions = _through(one.group) or one.next_hops[0].actions
    return Rule(Table.FORWARD, PIN_PRIORITY, match, actions, cookie=cookie(Table.FORWARD, Kind.PIN, one.number))


def _by_ports(pin: Pin) -> Iterable[Rule]:
    """A pair by addresses, protocol and ports: in hash buckets, as new connections (`services/buckets.py`)."""
    pair = match_ip(pin.ip_src, eth_dst=pin.eth_dst)
    look = (ChooseDestination(0), ResubmitTable(Table.KEPT)) if pin.kept else ()
    pick = (*look, PickBucket(BUCKETS), ResubmitTable(Table.PAIR_BUCKETS))
    yield from map(pin.kept_rule, pin.kept)
    next_hops = {str(next_hop.tag): next_hop for next_hop in pin.next_hops}
    for one in compress_buckets(divide_buckets({tag: next_hop.weight for tag, next_hop in next_hops.items()})):
        match, next_hop = replace(pair, register=bucket_match(one)), next_hops[one.owner]
        note = (ChooseDestination(next_hop.mark), ResubmitTable(Table.NOTE)) if pin.notes else ()
        number = cookie(Table.PAIR_BUCKETS, Kind.PIN, pin.number)
        yield Rule(Table.PAIR_BUCKETS, PIN_PRIORITY + one.length, match, (*note, *next_hop.actions), cookie=number)
    # Last: until then nobody is sent to look there.
    yield Rule(Table.FORWARD, PIN_PRIORITY, pair, pick, cookie=cookie(Table.FORWARD, Kind.PIN, pin.number))


def _notes(eth_type: int) -> Iterable[Rule]:
    """Connections are written down, protocol by protocol, with the next hop that was chosen."""
    for protocol in (PROTO_TCP, PROTO_UDP, 0):
        match = Match(eth_type=eth_type, ip_proto=protocol or None)
        learn = (LearnNextHop(protocol, eth_type, KEPT_IDLE_S),)
        mark = cookie(Table.NOTE, Kind.PIN, eth_type << 8 | protocol)
        yield Rule(Table.NOTE, PIN_PRIORITY if protocol else 0, match, learn, cookie=mark)


# ---- back


class NextHopPlace(NamedTuple):
    """A label (0: none) and the port of a next hop."""

    tag: int
    port: int


@dataclass(frozen=True, slots=True)
class HeldNextHops:
    """The next hops that a switch's rules give to a pair, with the share of each, and those that connections keep."""

    shares: Mapping[NextHopPlace, float]
    kept: frozenset[NextHopPlace] = frozenset()


def read_next_hops(rules: Iterable[Rule], first_label: int) -> dict[Ends, HeldNextHops]:
    """By (IP source, Ethernet destination): what an earlier controller left in a switch."""
    plain: dict[Ends, NextHopPlace] = {}
    kept: dict[Ends, set[NextHopPlace]] = {}
    buckets: dict[Ends, list[BucketPrefix]] = {}
    for rule in rules:
        next_hop = _next_hop(rule.actions, first_label) if kind_of(rule.cookie) is Kind.PIN else None
        key = rule.match.ip_src or "", rule.match.eth_dst or ""
        if next_hop is None:
            continue
        match rule.match.register:
            case DestinationMatch():
                kept.setdefault(key, set()).add(next_hop)
            case None if rule.table == Table.FORWARD:
                plain[key] = next_hop
            case found:
                first = found.first if isinstance(found, BucketMatch) else 0
                prefix = BucketPrefix(first, rule.priority - PIN_PRIORITY, f"{next_hop.tag} {next_hop.port}")
                buckets.setdefault(key, []).append(prefix)
    whole = {key: HeldNextHops({next_hop: 1.0}) for key, next_hop in plain.items()}
    return whole | {key: HeldNextHops(_shares(one), frozenset(kept.get(key, ()))) for key, one in buckets.items()}


def _shares(prefixes: Iterable[BucketPrefix]) -> dict[NextHopPlace, float]:
    owners = [one for one in expand_prefixes(prefixes) if one]
    return {NextHopPlace(*map(int, one.split())): owners.count(one) / len(owners) for one in sorted(set(owners))}


def _next_hop(actions: tuple[Action, ...], first_label: int) -> NextHopPlace | None:
    match actions[-2:]:
        case (PushLabel(tag), Output(port)):
            return NextHopPlace(tag, port)
        case (*_, ToGroup(number)) if (next_hop := turning_next_hop(number)) is not None:
            return NextHopPlace(first_label + next_hop[0], next_hop[1])
        case (*_, ToGroup(number)) if (way := failover_port(number)) is not None:
            return NextHopPlace(0, way)
        case (*_, Output(port)):
            return NextHopPlace(0, port)
    return None
