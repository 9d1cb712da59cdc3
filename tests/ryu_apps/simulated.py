"""A whole network of fake switches with our controller's mind: packets walk it in virtual time."""

from collections import deque
from dataclasses import dataclass, field, replace

from cpdb import Destination, Link, Node, NodeKind, VirtualIp, address_bytes
from ryu_apps.declared import Declared
from ryu_apps.effects import Alert, Effect, PacketOut, Resubmit
from ryu_apps.fakes.fake_packets import Packet
from ryu_apps.fakes.fake_switch import FakeSwitch
from ryu_apps.network import Network
from ryu_apps.pipeline import desired, limited_by, numbers_of_limits
from ryu_apps.policers import allot_meters
from ryu_apps.rules import CONTROLLER, ETH_ARP, ETH_IPV6, Kind, PortId, RuleKey, Table, cookie
from ryu_apps.services.pairs import PairBudget, Pairs
from ryu_apps.shares import limits, share
from ryu_apps.status.alarms import AlarmLog
from ryu_apps.switch.reconcile import Holding, difference
from ryu_apps.topology import frames
from ryu_apps.topology.frames import Arp

VIP, VIP6 = "10.0.0.100", "fd00::100"
FIRST_METER = 60_000
SWITCHES = {"leaf1": 0x11, "leaf2": 0x12, "leaf3": 0x13, "spine1": 0x21, "spine2": 0x22}
FABRIC = [
    (PortId(SWITCHES[leaf], m), PortId(SWITCHES[spine], n))
    for n, leaf in enumerate(("leaf1", "leaf2", "leaf3"), 1)
    for m, spine in enumerate(("spine1", "spine2"), 1)
]
HOSTS = {"c1": PortId(0x11, 11), "c2": PortId(0x11, 12), "s1": PortId(0x12, 11), "s2": PortId(0x13, 11)}


def mac(name: str) -> str:
    return "02:00:00:00:" + name.encode().hex(":")


def address(name: str) -> str:
    return f"10.0.{ord(name[0])}.{name[1]}"


def declared(weights: tuple[int, int] = (100, 0), **more: object) -> Declared:
    nodes = [Node(name, NodeKind.SWITCH, dpid=dpid) for name, dpid in SWITCHES.items()]
    nodes += [Node(name, NodeKind.CLIENT, address(name), mac(name)) for name in HOSTS]
    names = {dpid: name for name, dpid in SWITCHES.items()}
    links = [Link(names[a.dpid], a.port, names[b.dpid], b.port, 1e6, declared=True) for a, b in FABRIC]
    behind = tuple(
        Destination(name, address(name), mac(name), weight) for name, weight in zip(("s1", "s2"), weights, strict=True)
    )
    whole = Declared(tuple(nodes), tuple(links), {VIP: VirtualIp(VIP, "shop", 10, behind)})
    return replace(whole, **more)


@dataclass
class World:
    """Switches, wires and hosts; `arrived` collects (host, packet), `asked` counts packets to the controller."""

    now: float = 1000.0
    network: Network = field(default_factory=lambda: Network(Pairs(PairBudget(100), 60.0, 900.0)))
    places: dict[str, PortId] = field(default_factory=lambda: dict(HOSTS))
    arrived: list[tuple[str, Packet]] = field(default_factory=list)
    hops: int = 0
    asked: int = 0
    trace: list[int] = field(default_factory=list)
    alive: bool = True
    alarms: AlarmLog = field(default_factory=AlarmLog)

    def __post_init__(self) -> None:
        self.wires = dict(FABRIC) | {b: a for a, b in FABRIC}
        ports = set(self.wires) | set(self.places.values())
        self.switches = {
            dpid: FakeSwitch(dpid, frozenset(at.port for at in ports if at.dpid == dpid)) for dpid in SWITCHES.values()
        }

    def start(self, what: Declared | None = None) -> None:
        """The controller starts (again): it knows what the database says and what the switches hold."""
        self.network = Network(Pairs(PairBudget(100), 60.0, 900.0))
        self.network.declare(what or declared(), self.now)
        for dpid, switch in self.switches.items():
            self.network.topology.switch_up(dpid, dict.fromkeys(switch.ports, True), self.now)
            self.network.services.adopt(dpid, switch.rules(self.now), self.now)
            self.network.routes.adopt(dpid, switch.rules(self.now), self.now)
        self.now += 2.0
        self.alive = True
        for name in self.places:
            self.speak(name)

    def speak(self, name: str) -> None:
        """A gratuitous ARP: the host tells where it is."""
        body = Arp(frames.REQUEST, mac(name), address(name), mac(name), address(name))
        self.react(self.network.packet_in(self.places[name], frames.arp(body, mac(name), frames.BROADCAST), self.now))

    def advertise(self, name: str) -> None:
        """An unsolicited neighbour advertisement: the same of IPv6; the switch sends a copy of it."""
        body = Arp(frames.REPLY, mac(name), address6(name), "", "ff02::1")
        data = frames.neighbour(body, mac(name), "33:33:00:00:00:01")
        listens = cookie(Table.ACCOUNT, Kind.LISTEN, 3)
        self.react(self.network.packet_in(self.places[name], data, self.now, listens))

    def reconcile(self) -> int:
        """Brings all switches up to date; returns how many changes that took."""
        self.network.flooding.follow(self.network.topology, self.now)
        self.count_kept()
        self.network.routes.follow(self._holds, self.now)
        wanted, count = limits(self.network, self.now), 0
        for dpid, switch in self.switches.items():
            holding = Holding.read(switch.rules(self.now), switch.meters(), FIRST_METER, switch.groups())
            part = share(self.network, dpid, wanted)
            taken = {limited_by(one): one.meter for one in holding.rules.values() if one.meter is not None}
            meters = allot_meters(numbers_of_limits(part), taken, FIRST_METER)
            changes = difference(holding, desired(part, meters))
            assert switch.apply(changes, self.now) == []
            count += len(changes)
        return count

    def count_kept(self) -> None:
        """The controller reads what rules of kept connections have counted."""
        for dpid in self.network.routes.keeping:
            for one in self.switches[dpid].samples(self.now):
                self.network.routes.kept.count(dpid, one.cookie, one.bytes, self.now)

    def _holds(self, dpid: int, key: RuleKey) -> bool:
        return any(rule.key == key for rule in self.switches[dpid].rules(self.now))

    def react(self, effects: list[Effect]) -> None:
        """Does what the network decided; frames are matched to packets by their bytes."""
        self.reconcile()
        for effect in effects:
            match effect:
                case Alert():
                    self.alarms.record(effect, self.now)
                case Resubmit(at, data, _):
                    self._walk(at, self._packets[data])
                case PacketOut(dpid, ports, data) if data in getattr(self, "_packets", {}):
                    for port in ports:
                        self._leave(PortId(dpid, port), self._packets[data])

    def send(self, name: str, packet: Packet) -> list[tuple[str, Packet]]:
        """A host sends a packet; returns who got what."""
        self.arrived, self.hops, self.trace = [], 0, []
        self._walk(self.places[name], packet)
        return self.arrived

    def _walk(self, at: PortId, packet: Packet) -> None:
        queue = deque([(at, packet)])
        while queue:
            here, one = queue.popleft()
            self.hops += 1
            self.trace.append(here.dpid)
            assert self.hops < 50, "a packet circles"
            for port, copy in self.switches[here.dpid].receive(one, here.port, self.now):
                if port == CONTROLLER:
                    self._ask(here, copy)
                elif PortId(here.dpid, port) in self.wires:
                    queue.append((self.wires[PortId(here.dpid, port)], copy))
                else:
                    self._leave(PortId(here.dpid, port), copy)

    def _leave(self, at: PortId, packet: Packet) -> None:
        self.arrived += [(name, packet) for name, place in self.places.items() if place == at]

    def _ask(self, at: PortId, packet: Packet) -> None:
        self.asked += 1
        if self.alive and packet.eth_type != ETH_ARP:
            data = encode(packet)
            self._packets = {data: packet}
            cookie = self.switches[at.dpid].asked_by
            self.react(self.network.packet_in(at, data, self.now, cookie))


def encode(packet: Packet) -> bytes:
    """Enough of an Ethernet and IP frame for the controller to read."""
    if packet.arp is not None and packet.eth_type == ETH_IPV6:
        body = Arp(packet.arp.op, packet.eth_src, packet.arp.sender or "::", "", packet.arp.target or "")
        return frames.neighbour(body, packet.eth_src, packet.eth_dst)
    nobody = "::" if packet.eth_type == ETH_IPV6 else "0.0.0.0"
    ends = address_bytes(packet.ip_src or nobody) + address_bytes(packet.ip_dst or nobody)
    macs = bytes.fromhex((packet.eth_dst + packet.eth_src).replace(":", ""))
    macs += b"" if packet.label is None else b"\x81\x00" + packet.label.to_bytes(2, "big")
    return (
        macs
        + packet.eth_type.to_bytes(2, "big")
        + bytes(8 if packet.eth_type == ETH_IPV6 else 12)
        + ends
        + repr(packet).encode()
    )


def ip(source: str, to: str, **more: object) -> Packet:
    """An IP packet from one named host to another."""
    whole = Packet(mac(source), mac(to), ip_src=address(source), ip_dst=address(to))
    return replace(whole, **more)


def address6(name: str) -> str:
    return f"fd00::{ord(name[0]):x}:{name[1]}"


def ip6(source: str, to: str, **more: object) -> Packet:
    """The same of IPv6."""
    return ip(source, to, eth_type=ETH_IPV6, **{"ip_src": address6(source), "ip_dst": address6(to)} | more)
