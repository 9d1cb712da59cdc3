"""The rules that each switch should hold, made of its share of the world: data in, data out, nothing remembered."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from cpdb import is_ipv6
from ryu_apps import policers as policing
from ryu_apps.accounts import AccountShare, account_rules
from ryu_apps.families import match_ip, match_question
from ryu_apps.groups import failover
from ryu_apps.guest import Guest, steer_connections
from ryu_apps.held_ports import HELD_KBIT_S, held_number, hold_port
from ryu_apps.paths.next_hops import LabelShare, label_groups, label_rules
from ryu_apps.rules import (
    BRIDGE_GROUPS,
    CONTROLLER,
    ETH_ARP,
    ETH_IPV6,
    ETH_LLDP,
    ETH_RARP,
    MULTICAST,
    NEIGHBOUR_ADVERTISEMENT,
    PROTO_ICMPV6,
    PROTO_TCP,
    TCP_OPENING,
    Action,
    AnswerArp,
    Desired,
    Kind,
    Match,
    Output,
    ResubmitTable,
    Rule,
    RuleKey,
    SetField,
    SwitchGroup,
    Table,
    ToGroup,
    bare,
    cookie,
    kind_of,
    number_of,
    pair_number,
    virtual_mac,
    vlan_of,
)
from ryu_apps.services.buckets import BucketPlacement, Crowd, placement_rules, probe_answer_rule
from ryu_apps.services.pairs import sum_number
from ryu_apps.services.stand_ins import rules_at
from ryu_apps.topology.arp import DropRule
from ryu_apps.topology.flooding import FloodPorts

DEFAULT_PRIORITY = 0
GROUP_PRIORITY, FLOOD_PRIORITY, KNOWN_PRIORITY, BRIDGE_PRIORITY = 5, 6, 7, 8
HOST_PRIORITY = 10
DROP_PRIORITY = 15
# Above what is told to the controller (`services/buckets.py`), below every pair
SUM_PRIORITY = 14
PAIR_PRIORITY = 20
SYN_PRIORITY = 30
LISTEN_PRIORITY = 100
ANSWER_PRIORITY = 110


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A pair and the destination that serves it.

    `shared`: by other virtual IPs, too, so that only its connections tell whose answers are whose.
    """

    source_address: str
    virtual_ip: str
    destination_address: str
    destination_mac: str
    shared: bool = False


@dataclass(frozen=True, slots=True)
class PairShare:
    """Pairs that begin or end at one switch."""

    # (source address, virtual IP) of pairs that enter the network here
    accounts: tuple[tuple[str, str], ...] = ()
    # Pairs whose source is here, and pairs whose destination is here
    towards: tuple[Rewrite, ...] = ()
    back: tuple[Rewrite, ...] = ()


@dataclass(frozen=True, slots=True)
class FloodShare:
    """Where group frames go at one switch, who is attached there (MAC: port), and what one port may send of them."""

    ports: FloodPorts = field(default_factory=FloodPorts)
    hosts: Mapping[str, int] = field(default_factory=dict)
    limit_kbit_s: int | None = None
    # Ports that flood the controller
    held: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PlacingShare:
    """Virtual IPs whose connections are placed one by one, whether more sources can be counted, and in whose name
    services are asked whether they answer.
    """

    spreads: tuple[BucketPlacement, ...] = ()
    curious: bool = True
    # For whom there is no room here, so that connections are placed whatever the affinity
    crowds: tuple[Crowd, ...] = ()
    # Where traffic to virtual IPs that belongs to no pair is counted in sums: this switch
    sums_at: int | None = None
    asked: tuple[str, ...] = ()
    # Ports of this switch where destinations are, or were last, by MAC: it turns to others by itself while one is down
    attached: Mapping[str, int] = field(default_factory=dict)
    # What is counted beside virtual IPs
    counted: AccountShare = field(default_factory=AccountShare)


@dataclass(frozen=True, slots=True)
class Share:
    """What one switch has to do with the world."""

    virtual_ips: tuple[str, ...] = ()
    # Port towards each MAC, for every host that can be reached from here; "MAC@VLAN" where it is at several places
    ports: Mapping[str, int] = ()  # type: ignore[assignment]
    pairs: PairShare = field(default_factory=PairShare)
    police: tuple[policing.Policer, ...] = ()
    drop_rules: tuple[DropRule, ...] = ()
    placing: PlacingShare = field(default_factory=PlacingShare)
    flood: FloodShare = field(default_factory=FloodShare)
    tagging: LabelShare = field(default_factory=LabelShare)
    # Second port towards a MAC, where there is one and the switch can turn to it by itself
    spares: Mapping[str, int] = field(default_factory=dict)
    # Ports of sources whose VLAN shows at their port alone (`in_vlan` -> port)
    access: Mapping[str, int] = field(default_factory=dict)
    # Where all forwarding is left to others: how packets get there
    guest: Guest | None = None


def desired(share: Share, meter_numbers: Mapping[int, int], with_limits: bool = True) -> Desired:
    """All rules and meters of one switch. `meter_numbers` maps the numbers of pairs and of flooded ports to meters."""
    limits = [one for one in share.police if with_limits or one.rate_kbit_s is None]
    meters = [
        policing.meter(meter_numbers[one.number], one.rate_kbit_s) for one in limits if one.rate_kbit_s is not None
    ]
    flood = share.flood if with_limits else replace(share.flood, limit_kbit_s=None)
    if flood.limit_kbit_s is not None:
        meters += [policing.meter(meter_numbers[flood_number(port)], flood.limit_kbit_s) for port in flood.ports.edges]
    meters += [policing.meter(meter_numbers[held_number(port)], HELD_KBIT_S) for port in flood.held if with_limits]
    groups = {
        mac: group
        for mac, spare in share.spares.items()
        if mac in share.ports and (group := failover(share.ports[mac], spare)) is not None
    }
    rules = [
        *_defaults(),
        *_flood(flood, meter_numbers),
        *(rule for address in share.virtual_ips for rule in _virtual_ip(address)),
        *(rule for pair in share.pairs.accounts for rule in _account(*pair)),
        *_sums(share),
        *account_rules(share.placing.counted),
        *(_police(one, meter_numbers) for one in limits),
        *(rule for one in share.pairs.towards for rule in _towards(one)),
        *(_back(one) for one in share.pairs.back if not one.shared),
        *(_drop(rule) for rule in share.drop_rules),
        *(_host(name, port, groups) for name, port in dict(share.ports).items()),
        *label_rules(share.tagging),
        *(probe_answer_rule(address) for address in share.placing.asked),
    ]
    found = {rule.key: rule for rule in rules} | _placed(share.placing)
    if share.access:
        found = {placed.key: placed for rule in found.values() for placed in (_at_port(rule, share.access),)}
    if share.guest is not None:
        found = {rule.key: rule for rule in share.guest.rules(found.values())}
    for port in flood.held:
        meter = meter_numbers[held_number(port)] if with_limits else None
        found |= {rule.key: rule for rule in hold_port(found.values(), port, meter)}
    every = [*groups.values(), *label_groups(share.tagging)]
    return Desired(found, {one.number: one for one in meters}, {one.number: one for one in every})


def _placed(placing: PlacingShare) -> dict[RuleKey, Rule]:
    found = dict(placement_rules(placing.spreads, placing.curious, placing.crowds))
    for spread in placing.spreads if placing.attached else ():
        found.update(rules_at(spread, placing.attached))
    return found


def _at_port(rule: Rule, access: Mapping[str, int]) -> Rule:
    source = rule.match.ip_src
    if source is None or source not in access:
        return rule
    return replace(rule, match=source_at_port(rule.match, access[source]))


def source_at_port(match: Match, port: int) -> Match:
    """The same match for a source that sends without a tag, from an access port."""
    return replace(match, in_port=port, ip_src=bare(match.ip_src or ""))


def _defaults() -> Iterable[Rule]:
    for table in (Table.ACCOUNT, Table.POLICER, Table.REWRITE):
        yield Rule(table, DEFAULT_PRIORITY, Match(), goto=table + 1, cookie=cookie(table, Kind.DEFAULT))
    # Unknown unicast asks the controller; groups go nowhere but along the tree (`_flood`).
    ask = (Output(CONTROLLER),)
    last = Table.FORWARD
    yield Rule(last, DEFAULT_PRIORITY, Match(), ask, cookie=cookie(last, Kind.DEFAULT))
    yield Rule(last, GROUP_PRIORITY, Match(eth_dst=MULTICAST), cookie=cookie(last, Kind.DEFAULT, 1))
    yield Rule(last, BRIDGE_PRIORITY, Match(eth_dst=BRIDGE_GROUPS), cookie=cookie(last, Kind.DEFAULT, 2))
    for eth_type in (ETH_RARP, ETH_LLDP):
        yield _listen(LISTEN_PRIORITY, Match(eth_type=eth_type), eth_type)
    yield _listen(LISTEN_PRIORITY, Match(eth_type=ETH_ARP, eth_dst=MULTICAST), 1)
    # Neighbours that know each other confirm it directly: that must work while the controller is dead.
    yield replace(_listen(LISTEN_PRIORITY - 1, Match(eth_type=ETH_ARP), 2), goto=Table.POLICER)
    tells = Match(eth_type=ETH_IPV6, ip_proto=PROTO_ICMPV6, message_type=NEIGHBOUR_ADVERTISEMENT)
    yield replace(_listen(LISTEN_PRIORITY - 1, tells, 3), goto=Table.POLICER)


def flood_number(port: int) -> int:
    """Stands for a port where pairs have their numbers: those are not negative."""
    return -port


def _flood(flood: FloodShare, meter_numbers: Mapping[int, int]) -> Iterable[Rule]:
    """From each port of the tree to all others (never back: OpenFlow 1.3.5, 4.5); a copy of who is new comes here."""
    everywhere = tuple(Output(port) for port in (*flood.ports.links, *flood.ports.edges))
    for port in flood.ports.links:
        yield _flooded(Match(in_port=port, eth_dst=MULTICAST), everywhere, None)
    meters: dict[int, int | None] = {
        port: None if flood.limit_kbit_s is None else meter_numbers[flood_number(port)] for port in flood.ports.edges
    }
    for port, meter in meters.items():
        yield _flooded(Match(in_port=port, eth_dst=MULTICAST), (*everywhere, Output(CONTROLLER)), meter)
    for mac, port in flood.hosts.items():
        if port in meters:
            match = Match(in_port=port, eth_src=mac, eth_dst=MULTICAST)
            yield replace(_flooded(match, everywhere, meters[port]), priority=KNOWN_PRIORITY)


def _flooded(match: Match, actions: tuple[Action, ...], meter: int | None) -> Rule:
    number = cookie(Table.FORWARD, Kind.FLOOD, match.in_port or 0)
    return Rule(Table.FORWARD, FLOOD_PRIORITY, match, actions, meter=meter, cookie=number)


def _listen(priority: int, match: Match, number: int) -> Rule:
    mark = cookie(Table.ACCOUNT, Kind.LISTEN, number)
    return Rule(Table.ACCOUNT, priority, match, (Output(CONTROLLER),), cookie=mark)


def _virtual_ip(address: str) -> Iterable[Rule]:
    number = pair_number("", address)
    match = match_ip(to=address)
    ask = cookie(Table.REWRITE, Kind.LISTEN, number)
    yield Rule(Table.REWRITE, HOST_PRIORITY, match, (Output(CONTROLLER),), cookie=ask)
    # The switch itself answers who holds the address, also while the controller is dead, who only listens.
    question, answer = match_question(address), AnswerArp(virtual_mac(address), address)
    does: tuple[Action, ...] = (answer,)
    if is_ipv6(address):
        table = Table.SERVE
        told = replace(question, message_type=NEIGHBOUR_ADVERTISEMENT)
        yield Rule(table, ANSWER_PRIORITY, told, does, cookie=cookie(table, Kind.ANSWER, number))
        does = SetField("icmpv6_type", NEIGHBOUR_ADVERTISEMENT), ResubmitTable(table)
        # Where it cannot, and whoever asks before it has an address, the controller answers.
        yield _listen(ANSWER_PRIORITY - 1, question, number)
        yield _listen(ANSWER_PRIORITY + 1, replace(question, ip_src="::"), number)
    mark = cookie(Table.ACCOUNT, Kind.ANSWER, number)
    yield Rule(Table.ACCOUNT, ANSWER_PRIORITY, question, (Output(CONTROLLER), *does), cookie=mark)


def _account(source: str, virtual_ip: str) -> Iterable[Rule]:
    number = pair_number(source, virtual_ip)
    every = match_ip(source, virtual_ip)
    first = replace(every, ip_proto=PROTO_TCP, message_type=TCP_OPENING)
    table = Table.ACCOUNT
    yield Rule(table, PAIR_PRIORITY, every, goto=Table.POLICER, cookie=cookie(table, Kind.PAIR, number))
    yield Rule(table, SYN_PRIORITY, first, goto=Table.POLICER, cookie=cookie(table, Kind.PAIR_SYN, number))


def _sums(share: Share) -> Iterable[Rule]:
    """Below the pairs: all that enters here for a virtual IP and is no pair's, so that nothing goes by uncounted."""
    dpid, table = share.placing.sums_at, Table.ACCOUNT
    if dpid is None:
        return
    for address in share.virtual_ips:
        number = sum_number(dpid, address)
        every = match_ip(to=address)
        first = replace(every, ip_proto=PROTO_TCP, message_type=TCP_OPENING)
        yield Rule(table, SUM_PRIORITY, every, goto=Table.POLICER, cookie=cookie(table, Kind.PAIR, number))
        yield Rule(table, SUM_PRIORITY + 1, first, goto=Table.POLICER, cookie=cookie(table, Kind.PAIR_SYN, number))


def policer_key(source_address: str, virtual_ip: str) -> RuleKey:
    """Identity of the rule that limits or marks a pair."""
    match = match_ip(source_address, virtual_ip)
    return RuleKey(Table.POLICER, PAIR_PRIORITY, match)


def _police(one: policing.Policer, meter_numbers: Mapping[int, int]) -> Rule:
    actions: tuple[Action, ...] = () if one.dscp is None else (SetField("ip_dscp", one.dscp),)
    key, mark = policer_key(one.source_address, one.virtual_ip), cookie(Table.POLICER, Kind.LIMIT, one.number)
    meter = meter_numbers[one.number] if one.rate_kbit_s is not None else None
    return Rule(*key, actions, Table.REWRITE, meter, mark, one.lease_until)


def numbers_of_limits(share: Share) -> list[int]:
    """All that needs a meter at a switch: numbers of pairs, and those that stand for ports."""
    ports = share.flood.ports.edges if share.flood.limit_kbit_s is not None else ()
    pairs = [policer.number for policer in share.police if policer.rate_kbit_s is not None]
    return pairs + [flood_number(port) for port in ports] + [held_number(port) for port in share.flood.held]


def limited_by(rule: Rule) -> int | None:
    """The number of what a rule with a meter limits; None for a rule without a limit of ours."""
    match kind_of(rule.cookie):
        case Kind.LIMIT:
            return number_of(rule.cookie)
        case Kind.FLOOD:
            return flood_number(number_of(rule.cookie))
    return None if rule.meter is None or rule.match.in_port is None else held_number(rule.match.in_port)


def _towards(one: Rewrite) -> Iterable[Rule]:
    match = match_ip(one.source_address, one.virtual_ip)
    actions = (SetField("eth_dst", one.destination_mac), SetField("ip_dst", one.destination_address))
    rule = _steer(match, actions, Kind.TO_DESTINATION, one)
    return steer_connections(rule) if one.shared else (rule,)


def _back(one: Rewrite) -> Rule:
    match = match_ip(one.destination_address, bare(one.source_address))
    actions = (SetField("eth_src", virtual_mac(one.virtual_ip)), SetField("ip_src", one.virtual_ip))
    return _steer(match, actions, Kind.TO_CLIENT, one)


def _steer(match: Match, actions: tuple[Action, ...], kind: Kind, one: Rewrite) -> Rule:
    number = pair_number(one.source_address, one.virtual_ip)
    return Rule(Table.REWRITE, PAIR_PRIORITY, match, actions, Table.FORWARD, cookie=cookie(Table.REWRITE, kind, number))


def _host(name: str, port: int, groups: Mapping[str, SwitchGroup]) -> Rule:
    mac, vlan = bare(name), vlan_of(name)
    number = int(mac.replace(":", ""), 16)
    action = ToGroup(groups[name].number) if name in groups else Output(port)
    match, mark = Match(eth_dst=mac, label=vlan or None), cookie(Table.FORWARD, Kind.HOST, number)
    return Rule(Table.FORWARD, HOST_PRIORITY + bool(vlan), match, (action,), cookie=mark)


def _drop(rule: DropRule) -> Rule:
    place = rule.place
    number = cookie(Table(place.table), Kind.DROP)
    return Rule(place.table, DROP_PRIORITY, place.match, cookie=number, lease_until=rule.until)
