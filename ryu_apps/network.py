"""Joins topology, services and paths: each event goes to whom it concerns, and what should follow comes back.

Events come in as plain data, effects go out as plain data; there is no framework, no clock and no socket here.
"""

from dataclasses import replace

from ryu_apps.accounts import AccountShare, Talkers
from ryu_apps.claims import AddressClaims
from ryu_apps.declared import Declared
from ryu_apps.effects import Alert, Effect, Resubmit
from ryu_apps.families import match_ip
from ryu_apps.guest import Guest
from ryu_apps.held_ports import HeldPorts
from ryu_apps.pacing import RateLimiter
from ryu_apps.paths.labels import UsedVlans
from ryu_apps.paths.routing import Routes, RouteTiming
from ryu_apps.rules import ETH_IPV4, ETH_IPV6, ETH_LLDP, Kind, Match, PortId, Table, in_vlan, kind_of
from ryu_apps.services.pairs import Pairs
from ryu_apps.services.virtual_ips import Services, SilentServices
from ryu_apps.settings import JoiningSection, ProbesSection
from ryu_apps.topology import frames
from ryu_apps.topology.arp import HOLD_S, ArpResponder, Arrival, DropPlace, HeldFrame, HeldFrames
from ryu_apps.topology.flooding import FloodTree
from ryu_apps.topology.links import Role
from ryu_apps.topology.state import TopologyState

Seconds = float

LLDP_EVERY_S = 2.0
PROBE_EVERY_S = 2.0
RESUBMIT_EVERY_S = 0.02
OVERFULL = Alert(
    "pairs_full",
    "controller",
    "",
    "there are as many pairs as controller.pairs.max_pairs allows: whoever comes now is served connection by "
    "connection, and counted in a sum of its switch and virtual IP; allow more",
)
CROWDED = Alert(
    "port_crowded",
    "",
    "",
    "as many sources speak there as controller.pairs.port_share allows one port: more of them are served connection by "
    "connection, and counted in a sum; does somebody invent addresses there?",
)
SPREADING = Alert(
    "source_crowded",
    "",
    "",
    "it speaks to as many virtual IPs as controller.pairs.source_share allows one source: by more of them it is served "
    "connection by connection, and counted in a sum; does it try all?",
)


class Network:
    """What the controller knows of the network, in parts; `revision` changes whenever rules may have to."""

    def __init__(self, pairs: Pairs, probes: ProbesSection | None = None, timing: RouteTiming = RouteTiming()) -> None:
        self.declared = Declared()
        self.topology = TopologyState()
        self.services = Services(pairs, probes)
        self.routes = Routes(self.topology, self.services, timing)
        self.arp = ArpResponder(self.topology)
        self.held = HeldFrames()
        self.flooding = FloodTree()
        # Where others forward: nothing is carried, answered or told to all but what concerns virtual IPs
        self.guest: Guest | None = None
        self.talkers = Talkers()
        self.vlans = UsedVlans()
        # Another number whenever anything in the database is wanted otherwise
        self.declared_revision = 0
        self._reservations = 0
        self.held_ports = HeldPorts()
        self._claims = AddressClaims(self.topology, self.services)
        self._silent = SilentServices()
        self._limiter = RateLimiter()

    def join(self, settings: JoiningSection, first_label: int) -> None:
        """How to fit in with what is there."""
        self.topology.access.names = settings.access
        if settings.mode == "guest":
            after = settings.guest_next
            self.guest = Guest(None if after == "normal" else int(after) - settings.first_table)
        self.vlans = UsedVlans(first_label, settings.used_vlans())
        self.routes.first_label = first_label

    @property
    def revision(self) -> int:
        """Another number whenever what switches should hold may be something else."""
        parts = (self.topology, self.services, self.routes, self.held, self.flooding, self.held_ports, self.talkers)
        return self._reservations + sum(part.revision for part in parts)

    # ---- what others want, and what time brings

    def declare(self, declared: Declared, now: Seconds) -> None:
        """A new reading of the database."""
        self._reservations += declared.reservations != self.declared.reservations
        self.declared_revision += declared != self.declared
        self.declared = declared
        self._claims.declare(declared.nodes)
        self.topology.declare(declared.nodes, declared.links, now)
        self._label(now)
        self.services.declare(declared.virtual_ips, now)
        self.services.destinations.evidence.told_of(declared.machines)

    def _label(self, now: Seconds) -> list[Effect]:
        """Puts splits in force where labels are free."""
        free = self.guest is None and self.vlans.conflict(now) is None
        self.routes.declare(self.declared.splits if free else ())
        return [*self.vlans.alert(now)] if self.declared.splits else []

    def tick(self, now: Seconds) -> list[Effect]:
        """What is due: LLDP frames, probes for hosts not found yet, things too old."""
        self.topology.grow_older(now)
        self.held.expire(now)
        room = self.services.pairs.room
        effects: list[Effect] = [OVERFULL] if room.overfull else []
        directory = self.topology.snapshot.directory
        effects += [
            replace(SPREADING, key=one) if isinstance(one, str) else replace(CROWDED, key=directory.port(one))
            for one in sorted(room.crowded, key=str)
        ]
        effects += self.services.mixed(self._enters)
        effects += self._label(now) + self._silent.alerts(self.services.destinations, now) + self.ask(now)
        if self._limiter.due("lldp", LLDP_EVERY_S, now):
            effects += self.topology.introduce(None, now)
        if self._limiter.due("probe", PROBE_EVERY_S, now):
            effects += [effect for address in _unknown_addresses(self) for effect in self.arp.probe(address, now)]
        return effects

    def _enters(self, source: str) -> int | None:
        host = self.topology.hosts.of_address(source)
        return host.at.dpid if host else None

    def ask(self, now: Seconds) -> list[Effect]:
        """Questions to destinations that are due, several times a second."""
        return self.services.tick(self.topology.hosts, self.topology.kind_at, now)

    def port_changed(self, at: PortId, up: bool | None, now: Seconds) -> list[Effect]:
        """A port came up, went down, or (None) was removed: who was there is asked for at once."""
        there = [host.mac for host in self.topology.hosts if host.at == at] if not up else []
        effects = self.topology.port_changed(at, up, now)
        self.services.destinations.evidence.suspect(there)
        return effects + (self.ask(now) if there else [])

    def port_counted(self, at: PortId, to_it: int, from_it: int, now: Seconds) -> None:
        """Packets that a port sent and received since the last look; they tell of a machine that is alone there."""
        mac = self.topology.hosts.alone_at(at)
        if mac is not None:
            self.services.destinations.evidence.counted(mac, to_it, from_it, now)

    # ---- frames

    def packet_in(self, at: PortId, data: bytes, now: Seconds, cookie: int = 0) -> list[Effect]:
        """A frame came to the controller from port `at`, sent by the rule with that cookie."""
        frame = frames.parse(data)
        if frame is None:
            return []
        if frame.eth_type == ETH_LLDP and not frame.vlan:
            return self.topology.hear_lldp(at, data, now)
        arrival, sent_by = Arrival(at, frame, data), kind_of(cookie)
        # A listening rule tells of ARP frames that the switches themselves carry on or have answered.
        copy = sent_by is Kind.LISTEN
        # Of group frames and of IPv6 neighbours only a copy comes here, to learn from; but questions for virtual IPs.
        vips = self.services.virtual_ips
        asked = frame.arp is not None and frame.arp.target in vips
        told = copy and frame.eth_type == ETH_IPV6 and not asked and frame.ip_dst not in vips
        only_learn = sent_by is Kind.FLOOD or told
        if self.topology.links.role(at, now) is not Role.EDGE:
            return [] if only_learn or (copy and frame.arp) else self._forward(arrival)
        if frame.vlan:
            self.vlans.saw(frame.vlan, f"seen at {self.topology.snapshot.directory.port(at)}", now)
        claim = self._claims.learn(at, frame, now)
        released: list[Effect] = [*claim.alarms]
        if claim.is_news:
            ready = self.held.release(lambda address: self.topology.hosts.of_address(address) is not None)
            released += [effect for held in ready for effect in self.packet_in(held.at, held.data, now)]
        answer = self.services.destinations.heard(at, frame, data, now)
        if only_learn or answer is not None or sent_by is Kind.ANSWER:
            return released + (answer or [])
        if frame.arp is not None:
            carried_on = copy and frame.eth_dst != frames.BROADCAST and not asked
            carried_on |= self.guest is not None and not asked
            return released + ([] if carried_on else self.arp.answer(arrival, self.services.virtual_ips, now))
        if frame.eth_type in (ETH_IPV4, ETH_IPV6):
            return released + self._packet(arrival, now, met=sent_by is Kind.SPREAD)
        return released + self._forward(arrival)

    def _forward(self, arrival: Arrival) -> list[Effect]:
        return self.arp.forward(arrival) if self.guest is None else []

    def _packet(self, arrival: Arrival, now: Seconds, met: bool) -> list[Effect]:
        at, frame, hosts = arrival.at, arrival.frame, self.topology.hosts
        vlan = self.topology.access.vlan(at, frame)
        source, to = in_vlan(frame.ip_src or "", vlan), frame.ip_dst or ""
        vip = self.services.virtual_ips.get(to)
        if vip is None:
            if self.guest is not None:
                return []
            to = in_vlan(to, vlan)
            if hosts.of_mac(frame.eth_dst) is None and hosts.of_address(to) is None:
                place = DropPlace(at.dpid, Table.FORWARD, Match(eth_dst=frame.eth_dst))
                return self._hold(HeldFrame(at, arrival.data, to, now + HOLD_S), place, now)
            return self.arp.forward(arrival)
        if (why := self._claims.spoofed(at, frame, source)) is not None:
            return [why]
        pair, places = self.services.meet(at, source, vip, now), at.dpid not in self.services.unplacing
        if places and (vip.by_connection or pair is None):
            # A copy, when the switch knows what to do; else it learns it now.
            return [] if met else self._again(at, arrival.data, frozenset((at.dpid,)), now)
        if pair is None or pair.destination is None:
            return []
        host = hosts.of_mac(pair.destination.mac)
        if host is None:
            place = DropPlace(at.dpid, Table.REWRITE, match_ip(source, to))
            return self._hold(HeldFrame(at, arrival.data, pair.destination.address, now + HOLD_S), place, now)
        return self._again(at, arrival.data, frozenset((at.dpid, host.at.dpid)), now)

    def _again(self, at: PortId, data: bytes, after: frozenset[int], now: Seconds) -> list[Effect]:
        # Packets of one pair that come faster than its rules take effect would circle between here and the switch.
        if not self._limiter.due(("resubmit", at, hash(data)), RESUBMIT_EVERY_S, now):
            return []
        return [Resubmit(at, data, after)]

    def _hold(self, frame: HeldFrame, place: DropPlace, now: Seconds) -> list[Effect]:
        self.held.hold(frame)
        self.held.count(place, now)
        return self.arp.probe(frame.address, now)


def _unknown_addresses(network: Network) -> list[str]:
    wanted = {to.address for vip in network.services.virtual_ips.values() for to in vip.destinations}
    wanted |= {address for node in network.declared.nodes if node.mac for address in node.addresses}
    unknown = {address for address in wanted if network.topology.hosts.of_address(address) is None}
    unverified = network.topology.unverified
    asked = set(unverified) - {""}
    network.topology.unverified = {address: left - 1 for address, left in unverified.items() if left > 1}
    return sorted(unknown | asked)


def counted_at(network: Network, dpid: int) -> AccountShare:
    """What switch `dpid` has to count beside virtual IPs: of sources that are there, and at the ports of its hosts."""
    talkers = network.talkers
    if not talkers.enabled:
        return AccountShare()
    hosts = network.topology.hosts
    ports = sorted({host.at.port for host in hosts if host.at.dpid == dpid})
    own = tuple(ends for ends in talkers if (host := hosts.of_address(ends[0])) is not None and host.at.dpid == dpid)
    return AccountShare(own, talkers.declared, tuple(ports), dpid)
