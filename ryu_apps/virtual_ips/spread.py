"""The rules of a virtual IP whose every new connection is placed anew - by the switch, which also remembers it.

A connection that the switch knows is looked up in table `affinity`; any other is hashed to a slot, whose rule in table
`slots` names a destination, whose rule in table `serve` rewrites the packet and writes the connection down, in both
directions. So weights and draining concern slots only, and no rule and no message of the controller a connection.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b

from cpdb import Destination
from ryu_apps.rules import (
    CONTROLLER,
    ETH_IPV4,
    PROTO_TCP,
    PROTO_UDP,
    Choose,
    KeepConnection,
    Kind,
    LookInto,
    Match,
    MeetOnce,
    Output,
    PickSlot,
    Rule,
    RuleKey,
    SetField,
    Table,
    cookie,
    pair_number,
    virtual_mac,
)
from ryu_apps.virtual_ips.segments import PROBE_PORT
from ryu_apps.virtual_ips.slots import SLOT_BITS, SLOTS, compress
from ryu_apps.virtual_ips.slots import Table as SlotTable

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


def destination_number(virtual_ip: str, name: str) -> int:
    """32 bits that name a destination of a virtual IP, the same in every process and after every restart."""
    return int.from_bytes(blake2b(f"{virtual_ip}={name}".encode(), digest_size=4).digest(), "big")


@dataclass(frozen=True, eq=False)
class Spread:
    """A virtual IP with all destinations that may still hold connections, and the slots for new ones.

    Equal only to itself: what did not change is the same one, and its rules need not be made again.
    """

    virtual_ip: str
    destinations: tuple[Destination, ...]
    slots: SlotTable

    @cached_property
    def rules(self) -> dict[RuleKey, Rule]:
        """All rules of this virtual IP, the same in every switch where hosts are."""
        rules = [self._entry(), self._lost(), *self._slots()]
        rules += [self._serve(one, protocol) for one in self.destinations for protocol in SERVE_PRIORITY]
        return {rule.key: rule for rule in rules}

    @property
    def _to(self) -> Match:
        return Match(eth_type=ETH_IPV4, ipv4_dst=self.virtual_ip)

    def _cookie(self, table: Table) -> int:
        return cookie(table, Kind.SPREAD, pair_number("", self.virtual_ip))

    def _entry(self) -> Rule:
        actions = (LookInto(Table.AFFINITY), PickSlot(SLOTS), LookInto(Table.SLOTS))
        return Rule(Table.STEER, SPREAD_PRIORITY, self._to, actions, Table.FORWARD, cookie=self._cookie(Table.STEER))

    def _lost(self) -> Rule:
        # Nobody serves it: such packets end here instead of asking the controller one by one.
        match = Match(eth_dst=virtual_mac(self.virtual_ip))
        return Rule(Table.FORWARD, LOST_PRIORITY, match, cookie=self._cookie(Table.FORWARD))

    def _slots(self) -> Iterable[Rule]:
        for one in compress(self.slots):
            mask = (SLOTS - 1) & ~((1 << (SLOT_BITS - one.length)) - 1)
            slot = (one.first, mask) if one.length else None
            match = Match(eth_type=ETH_IPV4, ipv4_dst=self.virtual_ip, slot=slot)
            actions = (Choose(destination_number(self.virtual_ip, one.owner)), LookInto(Table.SERVE))
            yield Rule(Table.SLOTS, 1 + one.length, match, actions, cookie=self._cookie(Table.SLOTS))

    def _serve(self, one: Destination, protocol: int) -> Rule:
        number = destination_number(self.virtual_ip, one.name)
        match = Match(eth_type=ETH_IPV4, ip_proto=protocol or None, ipv4_dst=self.virtual_ip, chosen=number)
        keep = KeepConnection(protocol, self.virtual_ip, one.address, one.mac, number, IDLE_S[protocol])
        actions = (SetField("eth_dst", one.mac), SetField("ipv4_dst", one.address), keep)
        # A number of its own: its packets are the connections that were placed there.
        mark = cookie(Table.SERVE, Kind.SPREAD, pair_number(f"{one.name}/{protocol}", self.virtual_ip))
        return Rule(Table.SERVE, SERVE_PRIORITY[protocol], match, actions, cookie=mark)


@lru_cache(maxsize=4)
def spread_rules(spreads: tuple[Spread, ...], curious: bool) -> dict[RuleKey, Rule]:
    """All rules of a switch for its spreads; `curious` when there is room to count more sources. Not to be changed."""
    addresses = sorted({one.address for spread in spreads for one in spread.destinations})
    rules = [_answers(address) for address in addresses]
    if curious and spreads:
        rules += [_meet(), *(_unmet(one.virtual_ip) for one in spreads)]
    found = {rule.key: rule for rule in rules}
    for spread in spreads:
        found |= spread.rules
    return found


def hearing_rule(virtual_ip: str) -> Rule:
    """Brings answers of services to the controller's questions, asked in the name of a virtual IP, back to it."""
    match = Match(eth_type=ETH_IPV4, ip_proto=PROTO_TCP, ipv4_dst=virtual_ip, tcp_dst=PROBE_PORT)
    number = cookie(Table.ACCOUNT, Kind.SPREAD, pair_number("probe", virtual_ip))
    return Rule(Table.ACCOUNT, HEAR_PRIORITY, match, (Output(CONTROLLER),), cookie=number)


def _answers(address: str) -> Rule:
    match = Match(eth_type=ETH_IPV4, ipv4_src=address)
    number = cookie(Table.STEER, Kind.SPREAD, pair_number("", address))
    return Rule(Table.STEER, ANSWERS_PRIORITY, match, (LookInto(Table.AFFINITY),), Table.FORWARD, cookie=number)


def _unmet(virtual_ip: str) -> Rule:
    match = Match(eth_type=ETH_IPV4, ipv4_dst=virtual_ip)
    number = cookie(Table.ACCOUNT, Kind.SPREAD, pair_number("", virtual_ip))
    return Rule(Table.ACCOUNT, MEET_PRIORITY, match, (LookInto(Table.MEET),), Table.POLICE, cookie=number)


def _meet() -> Rule:
    actions = (Output(CONTROLLER), MeetOnce(MEET_S))
    return Rule(Table.MEET, 0, Match(eth_type=ETH_IPV4), actions, cookie=cookie(Table.MEET, Kind.SPREAD))
