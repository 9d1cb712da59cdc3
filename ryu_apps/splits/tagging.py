"""The rules of split paths: the first switch tags, those on the way go by the tag, the last one takes it off."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from ryu_apps.finding.topology import Topology
from ryu_apps.rules import ETH_IPV4, Kind, Match, Output, Rule, Table, Tag, Untag, cookie
from ryu_apps.splits.lanes import Lane

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
    """Packets with this tag that come in at `in_port` leave at `out_port`; None: here the tag comes off."""

    tag: int
    in_port: int
    out_port: int | None


@dataclass(frozen=True, slots=True)
class Pin:
    """IP packets of a pair, as steering has left them, go out at `out_port` with this tag."""

    ipv4_src: str
    eth_dst: str
    tag: int
    out_port: int
    number: int


@dataclass(frozen=True, slots=True)
class Tagging:
    """What one switch has to do with tags; `inner_ports` lead to other switches. Nothing while it is empty."""

    transits: tuple[Transit, ...] = ()
    pins: tuple[Pin, ...] = ()
    inner_ports: tuple[int, ...] = ()


def tagging_rules(share: Tagging) -> Iterable[Rule]:
    """All rules of one switch that are about tags."""
    yield from (transit_rule(one) for one in share.transits)
    yield from (_pin(one) for one in share.pins)
    for port in share.inner_ports:
        # A tag that nobody knows any more comes off, and the packet goes on the shortest way: nothing gets lost.
        match = Match(in_port=port, tagged=True)
        number = cookie(Table.ACCOUNT, Kind.TAG, _LOST | port)
        yield Rule(Table.ACCOUNT, LOST_PRIORITY, match, (Untag(),), Table.FORWARD, cookie=number)
    if share.inner_ports:
        # A host must not get round accounting and limits, or choose its path, by putting on a tag itself.
        yield Rule(Table.ACCOUNT, STRAY_PRIORITY, Match(tagged=True), cookie=cookie(Table.ACCOUNT, Kind.TAG, _STRAY))


def transit_rules(lane: Lane, topology: Topology) -> dict[str, Transit]:
    """What each switch after the first has to do for a lane. KeyError when two of them are not joined."""
    found = {}
    for place, (before, here) in enumerate(pairwise(lane.hops), 1):
        following = lane.hops[place + 1] if place + 1 < len(lane.hops) else None
        out_port = None if following is None else topology.port(here, following)
        found[here] = Transit(lane.tag, topology.port(here, before), out_port)
    return found


def transit_rule(one: Transit) -> Rule:
    """The rule of a transit."""
    match = Match(in_port=one.in_port, tag=one.tag)
    number = cookie(Table.ACCOUNT, Kind.TAG, one.in_port << 14 | one.tag)
    if one.out_port is None:
        return Rule(Table.ACCOUNT, TAG_PRIORITY, match, (Untag(),), Table.FORWARD, cookie=number)
    return Rule(Table.ACCOUNT, TAG_PRIORITY, match, (Output(one.out_port),), cookie=number)


def _pin(one: Pin) -> Rule:
    match = Match(eth_type=ETH_IPV4, eth_dst=one.eth_dst, ipv4_src=one.ipv4_src)
    actions = (Tag(one.tag), Output(one.out_port))
    return Rule(Table.FORWARD, PIN_PRIORITY, match, actions, cookie=cookie(Table.FORWARD, Kind.PIN, one.number))
