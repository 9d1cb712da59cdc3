"""Virtual IPs whose connections the switch itself places: how many rules that takes, and which slots a change moves."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import IPv4Address
from itertools import islice
from socket import inet_aton

from cpdb import Destination, Link, Node, NodeKind, VirtualIp
from ryu_apps import Desired, Holding, Share, desired, difference, virtual_mac
from ryu_apps.declared import Declared
from ryu_apps.effects import PutRule
from ryu_apps.network import Network
from ryu_apps.openflow import encode_change
from ryu_apps.rules import ETH_IPV4, Kind, PortId, Rule, Table, cookie, kind_of
from ryu_apps.services.buckets import BUCKETS
from ryu_apps.services.pairs import PairBudget, Pairs
from ryu_apps.settings import PairsSection
from ryu_apps.shares import limits, share
from ryu_apps.topology import frames
from tools.bench import figures
from tools.bench.figures import BenchTarget, Result, cpu_s

# Sources behind one leaf, destinations behind another, a spine between them.
SWITCHES = {"leaf1": 0x11, "leaf2": 0x12, "spine1": 0x21}
UPLINK, EDGE = 1, 11
SOURCES_AT, DESTINATIONS_AT = PortId(SWITCHES["leaf1"], EDGE), PortId(SWITCHES["leaf2"], EDGE)
# When everything was declared, and when the ports have shown that no switch is behind them
BEGIN, NOW = 1000.0, 1010.0
FIRST_VIRTUAL_IP, FIRST_DESTINATION, FIRST_SOURCE = (
    int(IPv4Address(one)) for one in ("10.64.0.1", "10.128.0.1", "10.1.0.1")
)
WEIGHT = 100
IMBALANCE_LIMIT = 0.01
# Of so many virtual IPs a destination leaves: they are all alike.
CHANGED = 100
Slots = dict[str, tuple[str | None, ...]]


@dataclass(frozen=True, slots=True)
class DestinationScale:
    """How many virtual IPs, destinations behind each, and sources; each source talks to one virtual IP.

    `probe` is how a real controller asks the destinations whether they live.
    """

    vips: int = 1000
    destinations: int = 8
    sources: int = 1000
    probe: str = "none"


@dataclass(frozen=True, slots=True)
class BenchHost:
    """A host's address, and a MAC made of it."""

    address: str
    mac: str


def host(first: int, number: int) -> BenchHost:
    """The host `number` of those whose addresses begin with `first`."""
    address = IPv4Address(first + number)
    return BenchHost(str(address), "02:00:" + address.packed.hex(":"))


def virtual_ips(scale: DestinationScale) -> dict[str, VirtualIp]:
    """As settings would declare them: equal weights, connections placed one by one, nobody shares a destination."""
    found = {}
    for number in range(scale.vips):
        behind = []
        for place in range(scale.destinations):
            one = host(FIRST_DESTINATION, number * scale.destinations + place)
            behind.append(Destination(f"d{place}", one.address, one.mac, WEIGHT))
        address = str(IPv4Address(FIRST_VIRTUAL_IP + number))
        found[address] = VirtualIp(
            address, f"service{number}", 10, tuple(behind), affinity="connection", probe=scale.probe
        )
    return found


def speaks(one: BenchHost) -> bytes:
    """The frame by which a host says where it is."""
    return frames.arp(frames.Arp(frames.REQUEST, one.mac, one.address, one.mac, one.address), one.mac, frames.BROADCAST)


@dataclass(slots=True)
class DestinationWorld:
    """The controller's own mind with a network in it; no switch, no clock and no socket."""

    virtual_ips: Mapping[str, VirtualIp]
    network: Network = field(default_factory=lambda: Network(_pairs()))

    def __post_init__(self) -> None:
        nodes = tuple(Node(name, NodeKind.SWITCH, dpid=dpid) for name, dpid in SWITCHES.items())
        links = tuple(Link(f"leaf{n}", UPLINK, "spine1", n, 1.25e9, declared=True) for n in (1, 2))
        self.network.declare(Declared(nodes, links), BEGIN)
        for dpid in SWITCHES.values():
            ports = (1, 2) if dpid == SWITCHES["spine1"] else (UPLINK, EDGE)
            self.network.topology.switch_up(dpid, dict.fromkeys(ports, True), BEGIN)
        for vip in self.virtual_ips.values():
            for one in vip.destinations:
                self.network.packet_in(DESTINATIONS_AT, speaks(BenchHost(one.address, one.mac)), NOW)

    def declare(self, virtual_ips: Mapping[str, VirtualIp]) -> None:
        """These virtual IPs from now on: their slots are divided, or divided anew."""
        self.network.declare(replace(self.network.declared, virtual_ips=dict(virtual_ips)), NOW)

    def meet(self, sources: Iterable[int]) -> None:
        """The first packet of each of these sources, of which the switch sends the controller a copy."""
        addresses = tuple(self.virtual_ips)
        met = cookie(Table.MEET, Kind.SPREAD)
        for number in sources:
            to = addresses[number % len(addresses)]
            self.network.packet_in(SOURCES_AT, _packet(host(FIRST_SOURCE, number), to), NOW, met)

    def share(self, dpid: int) -> Share:
        """What a switch has to do."""
        return share(self.network, dpid, limits(self.network, NOW))

    def rules(self, dpid: int) -> Desired:
        """What a switch should hold."""
        return desired(self.share(dpid), {})

    def buckets(self) -> Slots:
        """Who owns each slot of each virtual IP."""
        return {one.virtual_ip: one.buckets for one in self.network.services.destinations.spreads}


def _pairs() -> Pairs:
    usual = PairsSection()
    return Pairs(PairBudget(usual.max_pairs), usual.idle_s, usual.forget_s)


def _packet(source: BenchHost, to: str) -> bytes:
    # Enough of a packet for the controller: it reads who and where to.
    ends = inet_aton(source.address) + inet_aton(to)
    macs = frames.mac_bytes(virtual_mac(to)) + frames.mac_bytes(source.mac)
    return macs + ETH_IPV4.to_bytes(2, "big") + bytes(12) + ends


# ---- measuring


def small(size: figures.Size) -> Result:
    """A fifth of the usual scale, or a part of that, for `python -m bench`."""
    return measure(DestinationScale(size.of(200), 8, size.of(200)))


def measure(scale: DestinationScale) -> Result:
    """Rules by one and by all sources, CPU seconds to make them, how even slots are, and what a change moves."""
    declared = virtual_ips(scale)
    world = DestinationWorld(declared)
    dividing_s = cpu_s(partial(world.declare, declared))
    world.meet(range(1))
    made: list[Desired] = []
    making_s = cpu_s(lambda: made.append(world.rules(SOURCES_AT.dpid)))
    one = made[0]
    rest = _sending(world, one)
    world.meet(range(1, 2))
    more_s = cpu_s(lambda: difference(Holding(dict(one.rules)), world.rules(SOURCES_AT.dpid)))
    world.meet(range(2, scale.sources))
    many = world.rules(SOURCES_AT.dpid)
    placing_1, placing_n = (_parts(held)["placing"] for held in (one, many))
    found = {
        "virtual_ips": float(scale.vips),
        "destinations": float(scale.vips * scale.destinations),
        "sources": float(scale.sources),
        "placing_rules_with_1_source": placing_1,
        "placing_rules_with_all_sources": placing_n,
        **_counts(world, many),
        "dividing_slots_cpu_s": dividing_s,
        "making_rules_cpu_s": making_s,
        **rest,
        "one_more_source_cpu_s": more_s,
    }
    targets = [BenchTarget(f"placing rules that {scale.sources} sources add", placing_n - placing_1, 0.0, "lower")]
    even = imbalance(world.buckets().values())
    found |= {"slots_of_a_virtual_ip": float(BUCKETS), "imbalance_of_slots": even}
    targets.append(BenchTarget("most slots of a destination above an equal part", even, IMBALANCE_LIMIT, "lower"))
    return _changes(world, many, Result(found, targets))


def _parts(held: Desired) -> dict[str, float]:
    """A switch's rules by what they are for: hosts, counting, and all others, which place."""
    kinds = Counter(kind_of(one.cookie) for one in held.rules.values())
    hosts, counting = kinds[Kind.HOST], kinds[Kind.PAIR] + kinds[Kind.PAIR_SYN]
    return {"placing": float(len(held.rules) - hosts - counting), "hosts": float(hosts), "counting": float(counting)}


def _counts(world: DestinationWorld, many: Desired) -> dict[str, float]:
    """All rules of each switch when all sources are known, and those of the sources' switch by what they are for."""
    parts = _parts(many)
    return {
        "counting_rules_with_all_sources": parts["counting"],
        "host_rules_with_all_sources": parts["hosts"],
        "all_rules_where_sources_are": float(len(many.rules)),
        "all_rules_where_destinations_are": float(len(world.rules(DESTINATIONS_AT.dpid).rules)),
        "all_rules_between": float(len(world.rules(SWITCHES["spine1"]).rules)),
    }


def _sending(world: DestinationWorld, held: Desired) -> dict[str, float]:
    """CPU seconds to pack all rules, and to find that a switch which holds them needs nothing."""
    packing_s = cpu_s(lambda: [_pack(rule) for rule in held.rules.values()])
    holding = Holding()
    holding.apply(difference(holding, held))
    before = world.share(SOURCES_AT.dpid)

    def look() -> None:
        # As the controller does it: what follows from the same share is not made anew.
        assert world.share(SOURCES_AT.dpid) == before
        assert not difference(holding, held)

    return {"packing_rules_cpu_s": packing_s, "looking_with_no_change_cpu_s": cpu_s(look)}


def _pack(rule: Rule) -> bytes:
    return encode_change(PutRule(rule), NOW, 1)


def imbalance(tables: Iterable[Sequence[str | None]]) -> float:
    """By how much the one with the most slots of its virtual IP is above an equal part, at worst."""
    worst = 0.0
    for table in tables:
        count = Counter(table)
        worst = max(worst, max(count.values()) * len(count) / len(table) - 1.0)
    return worst


# ---- changes


def _changes(world: DestinationWorld, held: Desired, result: Result) -> Result:
    """Adds what happens when one destination of some virtual IPs leaves, and then when a new one joins the others."""
    found, targets = dict(result.figures), list(result.targets)
    chosen = list(islice(world.virtual_ips.values(), CHANGED))
    left = {one.address: replace(one, destinations=one.destinations[1:]) for one in chosen}
    joined = {one.address: _with_another(one) for one in left.values()}
    found["virtual_ips_changed"] = float(len(chosen))
    for name, changed in (("leaves", left), ("joins", joined)):
        before = world.buckets()
        world.declare({**world.virtual_ips, **changed})
        after, now = world.buckets(), world.rules(SOURCES_AT.dpid)
        moved = {address: _moved(before[address], after[address]) for address in changed}
        found[f"slots_moved_when_one_{name}"] = float(max(moved.values()))
        found[f"messages_when_one_{name}"] = len(difference(Holding(dict(held.rules)), now)) / len(chosen)
        found[f"imbalance_of_slots_after_one_{name}"] = imbalance(after[address] for address in changed)
        beyond = float(max(moved[address] - _fewest(before[address], after[address]) for address in changed))
        targets.append(BenchTarget(f"slots moved beyond the fewest possible, one {name}", beyond, 0.0, "lower"))
        held = now
    return Result(found, targets)


def _with_another(vip: VirtualIp) -> VirtualIp:
    first = vip.destinations[0]
    new = replace(first, name="new", address=str(IPv4Address(first.address) + (1 << 22)), mac=f"06{first.mac[2:]}")
    return replace(vip, destinations=(*vip.destinations, new))


def _moved(before: Sequence[str | None], after: Sequence[str | None]) -> int:
    return sum(one != other for one, other in zip(before, after, strict=True))


def _fewest(before: Sequence[str | None], after: Sequence[str | None]) -> int:
    """Slots that somebody has now and did not have: however they are dealt out, so many change their owner."""
    had = Counter(before)
    return sum(max(0, count - had[name]) for name, count in Counter(after).items())
