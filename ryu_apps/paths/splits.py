"""Splits between two switches as they are in force: which wanted paths are whole, their ratios, and who takes which.

One pure reading for the controller that installs them and for everybody who asks which way traffic goes.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import pairwise
from math import log
from typing import NamedTuple

from cpdb import FIRST_TAG, LABELS, LAST_TAG, WantedSplit
from ryu_apps.families import match_ip
from ryu_apps.groups import divided, turning
from ryu_apps.rules import (
    PROTO_UDP,
    Action,
    GroupBucket,
    Kind,
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
    cookie,
)
from ryu_apps.services.buckets import BUCKETS, bucket_match, compress_buckets, divide_buckets
from ryu_apps.topology.paths import Topology

Seconds = float
Ends = tuple[str, str]
# Shares of a divided pair in whole numbers. Open vSwitch hashes connections into at most 256 parts by weight; where the
# least weight is a smaller share than that, it falls back to a hash of addresses (ofproto/ofproto-dpif.c).
WEIGHTS = 64
# Where heavy pairs leave less than this, the others choose by the ratios themselves.
NO_LIGHT = 1e-6


@dataclass(frozen=True, slots=True)
class SplitPath:
    """One path of a split: the switches on it, the tag of its packets, and its share (the shares add up to 1).

    `light`: of that, the share of pairs that are placed by number; `heavy`: its share of each pair that is placed by
    what it carries, by the names of its ends. Two are equal when tag and path are, whatever their shares.
    """

    tag: int
    hops: tuple[str, ...]
    ratio: float = field(default=1.0, compare=False)
    light: float = field(default=-1.0, compare=False)
    heavy: Mapping[Ends, float] = field(default_factory=dict, compare=False)

    @property
    def weight(self) -> float:
        """By which pairs choose it that are not heavy."""
        return self.ratio if self.light < 0 else self.light


# How traffic is spread: paths with shares that add up to 1. One for a whole pair; none for the shortest way
Spread = tuple[tuple[SplitPath, float], ...]
SplitPaths = Mapping[Ends, tuple[SplitPath, ...]]


def find_split_paths(
    splits: Iterable[WantedSplit],
    topology: Topology,
    now: Seconds,
    taken: Iterable[SplitPath] = (),
    avoid: Container[str] = (),
) -> dict[Ends, tuple[SplitPath, ...]]:
    """The splits in force at `now` by (first switch, last switch).

    Paths with a link that is down or unknown, or with a switch to `avoid`, are left out and the others take their
    share; where none is left there is no split, and traffic goes the shortest way. A path whose tag another one already
    carries on the same link (or one of `taken`, which are still in use) is left out, too: packets of both would be
    taken for each other.
    """
    claims = {(one.tag, hop): one.hops for one in taken for hop in pairwise(one.hops)}
    found = {}
    for split in sorted(splits, key=lambda one: (one.from_switch, one.to_switch)):
        if split.expires_at is not None and split.expires_at <= now:
            continue
        whole = []
        for hops, ratio, tag in zip(split.paths, split.ratios, split.tags, strict=False):
            usable = ratio > 0 and _leads(split, hops) and is_whole(hops, topology, avoid)
            if usable and _claimed(claims, tag, hops):
                whole.append(_with_heavy(split, SplitPath(tag, hops, ratio)))
        total, light = sum(one.ratio for one in whole), sum(one.light for one in whole)
        if whole:
            ends = split.from_switch, split.to_switch
            scaled = [replace(one, ratio=one.ratio / total) for one in whole]
            found[ends] = tuple(
                replace(one, light=one.light / light if light > NO_LIGHT else one.ratio) for one in scaled
            )
    return found


def _with_heavy(split: WantedSplit, path: SplitPath) -> SplitPath:
    place = split.paths.index(path.hops)
    own = [(one, one.ratios[place]) for one in split.heavy if len(one.ratios) == len(split.paths)]
    light = max(path.ratio - sum(one.share * ratio for one, ratio in own), 0.0)
    return replace(path, light=light, heavy={(one.source, one.destination): ratio for one, ratio in own if ratio > 0})


def _leads(split: WantedSplit, hops: tuple[str, ...]) -> bool:
    simple = len(hops) >= 2 and len(set(hops)) == len(hops)
    return simple and (hops[0], hops[-1]) == (split.from_switch, split.to_switch)


def _claimed(claims: dict[tuple[int, Ends], tuple[str, ...]], tag: int, hops: tuple[str, ...]) -> bool:
    wanted = [(tag, hop) for hop in pairwise(hops)]
    if not LABELS <= tag <= LAST_TAG or any(claims.get(one, hops) != hops for one in wanted):
        return False
    claims.update(dict.fromkeys(wanted, hops))
    return True


def is_whole(hops: tuple[str, ...], topology: Topology, avoid: Container[str] = ()) -> bool:
    """Whether all links of a path are up, and none of its switches is to be avoided."""
    try:
        return not any(one in avoid for one in hops) and all(topology.port(*hop) > 0 for hop in pairwise(hops))
    except KeyError:
        return False


def choose_path(source_address: str, destination_address: str, choices: Iterable[SplitPath]) -> SplitPath | None:
    """The path of the traffic from one address to another; None when there is no choice.

    Weighted rendezvous hashing, as for destinations: shares are met over many pairs, and a change of one share moves
    only traffic to or from that path.
    """
    scored = [
        (-one.weight / log(_uniform(source_address, destination_address, *one.hops)), one.hops, one) for one in choices
    ]
    return max(scored)[2] if scored else None


def spread_over(names: Ends, addresses: Ends, choices: Sequence[SplitPath]) -> Spread:
    """How traffic between two nodes is spread: as wanted of a heavy pair, else over the one path that it chooses."""
    own = [(one, one.heavy.get(names, 0.0)) for one in choices]
    total = sum(share for _, share in own)
    if total > 0:
        return tuple((one, share / total) for one, share in own if share > 0)
    chosen = choose_path(*addresses, choices)
    return ((chosen, 1.0),) if chosen else ()


def _uniform(*parts: str) -> float:
    number = int.from_bytes(blake2b("|".join(parts).encode(), digest_size=8).digest(), "big")
    return (number + 0.5) / 2**64


@dataclass(frozen=True, slots=True)
class Routed:
    """Paths as traffic to a virtual IP's destination takes them: along the splits in force, else the shortest way."""

    topology: Topology
    splits: SplitPaths
    # Names of nodes -> addresses; a name without an address stands for itself
    addresses: Mapping[str, str | None]

    def path(self, source: str, destination: str) -> tuple[str, ...]:
        """Names of all nodes from `source` to `destination`, both included; empty when there is no way."""
        nodes = self.topology.path(source, destination)
        ends = self.ends(nodes)
        split = self.split_path(source, destination, ends) if ends else None
        if split is None or ends is None:
            return nodes
        return (*nodes[: nodes.index(ends[0])], *split.hops, *nodes[nodes.index(ends[1]) + 1 :])

    def ends(self, nodes: tuple[str, ...]) -> Ends | None:
        """The first and the last switch on a path; None where there are not two."""
        inside = [node for node in nodes if node in self.topology.switches]
        return (inside[0], inside[-1]) if len(inside) > 1 else None

    def split_path(self, source: str, destination: str, ends: Ends) -> SplitPath | None:
        """The path of a split that most of this traffic takes between two switches; None where no split is in force."""
        spread = self.spread(source, destination, ends)
        return max(spread, key=lambda one: one[1])[0] if spread else None

    def spread(self, source: str, destination: str, ends: Ends) -> Spread:
        """How this traffic is spread between two switches; empty where no split is in force."""
        sender, receiver = (self.addresses.get(name) or name for name in (source, destination))
        return spread_over((source, destination), (sender, receiver), self.splits.get(ends, ()))


# Before everything else in the first table: tagged packets have been counted, policed and steered already.
TAG_PRIORITY = 120
LOST_PRIORITY = 119
STRAY_PRIORITY = 118
# Above the rules that send each host's packets the shortest way
PIN_PRIORITY = 20
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


class Lane(NamedTuple):
    """Packets go out at `out_port` with this tag; `weight` of all `WEIGHTS` where there are others.

    While that port is down they go the shortest way by port `spare`, where there is one.
    """

    tag: int
    out_port: int
    weight: int
    spare: int | None = None

    @property
    def labelled(self) -> tuple[Action, ...]:
        """The tag and the way."""
        return PushLabel(self.tag), Output(self.out_port)

    @property
    def group(self) -> SwitchGroup | None:
        """What turns to the spare port; None where there is none."""
        if self.spare is None:
            return None
        away = GroupBucket((Output(self.spare),), watch_port=self.spare)
        return turning(self.tag, GroupBucket(self.labelled, watch_port=self.out_port), away)

    @property
    def actions(self) -> tuple[Action, ...]:
        """What is done with a packet."""
        return _through(self.group) or self.labelled


def _through(group: SwitchGroup | None) -> tuple[Action, ...]:
    return (ToGroup(group.number),) if group else ()


@dataclass(frozen=True, slots=True)
class Pin:
    """IP packets of a pair, as steering has left them, take this lane, or one of several by connection."""

    ip_src: str
    eth_dst: str
    lanes: tuple[Lane, ...]
    number: int

    @property
    def group(self) -> SwitchGroup | None:
        """What divides its connections, over the lanes whose ports are up; None where there is one lane."""
        if len(self.lanes) < 2:
            return None
        return divided(tuple(GroupBucket(one.labelled, one.weight, one.out_port) for one in self.lanes))


@dataclass(frozen=True, slots=True)
class LabelShare:
    """What one switch has to do with tags; `inner_ports` lead to other switches. Nothing while it is empty.

    `by_ports`: it can hash the ports of UDP, which it leaves out of account in groups.
    """

    transits: tuple[Transit, ...] = ()
    pins: tuple[Pin, ...] = ()
    inner_ports: tuple[int, ...] = ()
    first_label: int = FIRST_TAG
    by_ports: bool = True


def label_groups(share: LabelShare) -> Iterable[SwitchGroup]:
    """All groups of one switch that divide pairs, or turn away from ports that are down."""
    lanes = (lane for pin in share.pins if len(pin.lanes) == 1 or share.by_ports for lane in pin.lanes)
    every = [one.group for one in share.pins] + [one.group for one in share.transits] + [one.group for one in lanes]
    return (one for one in every if one is not None)


def undivided(share: LabelShare) -> LabelShare:
    """The same for a switch without groups: every pair takes its largest lane whole, and nothing turns by itself."""
    largest = (replace(pin, lanes=(max(pin.lanes, key=lambda one: one.weight),)) for pin in share.pins)
    pins = tuple(replace(pin, lanes=(pin.lanes[0]._replace(spare=None),)) for pin in largest)
    return replace(share, pins=pins, transits=tuple(replace(one, spare=None) for one in share.transits))


def label_rules(share: LabelShare) -> Iterable[Rule]:
    """All rules of one switch that are about tags."""
    yield from (transit_rule(one) for one in share.transits)
    yield from (_pin(one) for one in share.pins)
    for pin in share.pins if share.by_ports else ():
        if len(pin.lanes) > 1:
            yield from _by_ports(pin)
    for port in share.inner_ports:
        # A tag that nobody knows any more comes off, and the packet goes on the shortest way: nothing gets lost.
        match = Match(in_port=port, label=-share.first_label)
        number = cookie(Table.ACCOUNT, Kind.LABEL, _LOST | port)
        yield Rule(Table.ACCOUNT, LOST_PRIORITY, match, (PopLabel(),), Table.FORWARD, cookie=number)
    if share.inner_ports:
        # A host must not get round accounting and limits, or choose its path, by putting on a tag itself.
        yield Rule(
            Table.ACCOUNT,
            STRAY_PRIORITY,
            Match(label=-share.first_label),
            cookie=cookie(Table.ACCOUNT, Kind.LABEL, _STRAY),
        )


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
    actions = _through(one.group) or one.lanes[0].actions
    return Rule(Table.FORWARD, PIN_PRIORITY, match, actions, cookie=cookie(Table.FORWARD, Kind.PIN, one.number))


def _by_ports(pin: Pin) -> Iterable[Rule]:
    """UDP of a divided pair, by addresses and ports: in hash buckets, as new connections (`services/buckets.py`).

    In their table the packets of pairs look like nobody else's: their destinations are chosen.
    """
    pair = match_ip(pin.ip_src, eth_dst=pin.eth_dst, ip_proto=PROTO_UDP)
    pick = (PickBucket(BUCKETS), ResubmitTable(Table.BUCKETS))
    yield Rule(Table.FORWARD, PIN_PRIORITY + 1, pair, pick, cookie=cookie(Table.FORWARD, Kind.PIN, pin.number))
    lanes = {str(lane.tag): lane for lane in pin.lanes}
    for one in compress_buckets(divide_buckets({tag: lane.weight for tag, lane in lanes.items()})):
        match = replace(pair, register=bucket_match(one))
        number = cookie(Table.BUCKETS, Kind.PIN, pin.number)
        yield Rule(Table.BUCKETS, PIN_PRIORITY + one.length, match, lanes[one.owner].actions, cookie=number)
