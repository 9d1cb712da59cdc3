"""The controller's mind: what each event teaches it, and what should follow.

Events come in as plain data, effects go out as plain data; there is no framework, no clock and no socket here.
"""

from dataclasses import replace

import structlog

from ryu_apps.effects import Effect, Resubmit
from ryu_apps.paths.routing import Routes
from ryu_apps.rules import ETH_IPV4, ETH_LLDP, Kind, Match, PortId, Table, kind_of
from ryu_apps.services.pairs import BY_CONNECTION, Pairs
from ryu_apps.topology import frames
from ryu_apps.topology.asking import Asking
from ryu_apps.topology.frames import Frame
from ryu_apps.topology.hosts import Learnt
from ryu_apps.topology.links import Role
from ryu_apps.topology.lldp import Heard, Verdict
from ryu_apps.topology.waiting import HOLD_S, Held, Waiting

Seconds = float

# Alarms about frames that were made here, but cannot have come this way
RELAYED = "relayed_lldp"
_log = structlog.get_logger("ryu_apps.network")

LLDP_EVERY_S = 2.0
PROBE_EVERY_S = 2.0
RESUBMIT_EVERY_S = 0.02


class Network(Asking):
    """Knowledge, and what follows from each frame and from the passing of time."""

    def __init__(self, pairs: Pairs) -> None:
        super().__init__(pairs)
        self.waiting = Waiting()
        self.routes = Routes()

    def tick(self, now: Seconds) -> list[Effect]:
        """What is due: LLDP frames, probes for hosts not found yet, things too old."""
        if self.wiring.age(self.connected, now):
            self._changed()
        self.stale |= self.waiting.expire(now)
        self._leave_dead_ports(now)
        self._serve(now)
        effects: list[Effect] = self.destinations.tick(self.hosts, self._kind_at, now)
        if self._brake.due("lldp", LLDP_EVERY_S, now):
            up = [at for at, port in self.wiring.ports.items() if port.up and at.dpid in self.connected]
            effects += self._introduce(up, now)
        if self._brake.due("probe", PROBE_EVERY_S, now):
            effects += [effect for address in self._wanted_addresses() for effect in self._probe(address, now)]
        return effects

    def _leave_dead_ports(self, now: Seconds) -> None:
        places = {host.at for host in self.hosts if host.at.dpid in self.connected}
        for at in places:
            if self.wiring.role(at, now) in (Role.DOWN, Role.SWITCH, Role.SUSPECT):
                self.stale |= bool(self.hosts.leave(at))

    # ---- frames

    def packet_in(self, at: PortId, data: bytes, now: Seconds, cookie: int = 0) -> list[Effect]:
        """A frame came to the controller from port `at`, sent by the rule with that cookie."""
        frame = frames.parse(data)
        if frame is None:
            return []
        # A listening rule tells of ARP frames that the switches themselves carry on or have answered.
        told, answered = kind_of(cookie) is Kind.LISTEN, kind_of(cookie) is Kind.ANSWER
        if frame.eth_type == ETH_LLDP:
            self._neighbour(at, data, now)
            return []
        if self.wiring.role(at, now) is not Role.EDGE:
            return [] if told and frame.arp else self._forward(at, frame, data)
        released = self._learn(at, frame, now)
        answered_us = self.destinations.heard(at, frame, data, now)
        if answered_us is not None:
            return released + answered_us
        if frame.arp is not None:
            if answered:
                return released
            unicast = frame.eth_dst != frames.BROADCAST
            return released + ([] if told and unicast else self._answer(at, frame, frame.arp, data, now))
        if frame.eth_type == ETH_IPV4:
            return released + self._packet(at, frame, data, now, met=kind_of(cookie) is Kind.SPREAD)
        return released + self._forward(at, frame, data)

    def _neighbour(self, at: PortId, data: bytes, now: Seconds) -> None:
        heard = self.introductions.hear(at, data, now)
        if heard.verdict is Verdict.FOREIGN:
            return
        if heard.verdict is not Verdict.TRUE or heard.sender is None:
            self._suspicious(f"{heard.verdict.value}_lldp", at, heard, now)
            return
        why = self.wiring.doubt(at, heard.sender)
        if why is not None:
            self._suspicious(RELAYED, at, replace(heard, why=why), now)
            if self.wiring.suspect(at, now):
                self.hosts.leave(at)
                self._changed()
        elif self.wiring.hear(at, heard.sender, now):
            for end in (at, heard.sender):
                self.hosts.leave(end)
            self._changed()

    def _suspicious(self, kind: str, at: PortId, heard: Heard, now: Seconds) -> None:
        directory = self.picture.directory
        node = directory.switch(at.dpid)
        said = "nobody" if heard.sender is None else f"{directory.switch(heard.sender.dpid)}:{heard.sender.port}"
        detail = f"LLDP frame at {node}:{at.port} that says it is from {said}: {heard.why}"
        if self.watchman.saw(kind, f"{node}:{at.port}", node, detail, now):
            _log.warning("suspicious LLDP frame", kind=kind, at=f"{node}:{at.port}", says=said, why=heard.why)

    def _learn(self, at: PortId, frame: Frame, now: Seconds) -> list[Effect]:
        if int(frame.eth_src[:2], 16) & 1 or frame.eth_src.startswith("f2:ea:"):
            return []
        address = frame.arp.sender if frame.arp else frame.ipv4_src
        claimed = frame.arp.sender if frame.arp else None
        if not self.destinations.conflicts.saw(frame.eth_src, claimed, at, now, self._kind_at):
            # A destination's declared address stays with its declared MAC.
            address = None
        if address in self.virtual_ips or address == frames.NO_ADDRESS:
            address = None
        if frame.arp is None and address and self.hosts.of_address(address) is not None:
            # A router forwards others' addresses; only ARP may take an address from its holder.
            address = None
        learnt = self.hosts.learn(frame.eth_src, address, at, now)
        self._hearsay.pop(address or "", None)
        if learnt in (Learnt.NEW, Learnt.MOVED, Learnt.ADDRESS):
            self.stale = True
            return self._release(now)
        return []

    def _release(self, now: Seconds) -> list[Effect]:
        ready = self.waiting.release(lambda address: self.hosts.of_address(address) is not None)
        return [effect for one in ready for effect in self.packet_in(one.at, one.data, now)]

    def _packet(self, at: PortId, frame: Frame, data: bytes, now: Seconds, met: bool) -> list[Effect]:
        source, to = frame.ipv4_src or "", frame.ipv4_dst or ""
        vip = self.virtual_ips.get(to)
        if vip is None:
            if self.hosts.of_mac(frame.eth_dst) is None and self.hosts.of_address(to) is None:
                return self._hold(Held(at, data, to, now + HOLD_S), Table.FORWARD, Match(eth_dst=frame.eth_dst))
            return self._forward(at, frame, data)
        pair = self.pairs.meet(source, vip, now)
        if vip.affinity == BY_CONNECTION:
            self.stale |= pair is not None
            # A copy, when the switch knows what to do; else it learns it now.
            return [] if met else self._again(at, data, frozenset((at.dpid,)), now)
        if pair is None or pair.destination is None:
            return []
        self.stale = True
        host = self.hosts.of_mac(pair.destination.mac)
        if host is None:
            held = Held(at, data, pair.destination.address, now + HOLD_S)
            return self._hold(held, Table.STEER, Match(eth_type=ETH_IPV4, ipv4_src=source, ipv4_dst=to))
        return self._again(at, data, frozenset((at.dpid, host.at.dpid)), now)

    def _again(self, at: PortId, data: bytes, after: frozenset[int], now: Seconds) -> list[Effect]:
        # Packets of one pair that come faster than its rules take effect would circle between here and the switch.
        if not self._brake.due(("resubmit", at, hash(data)), RESUBMIT_EVERY_S, now):
            return []
        return [Resubmit(at, data, after)]

    def _hold(self, held: Held, table: Table, match: Match) -> list[Effect]:
        now = held.until - HOLD_S
        self.waiting.hold(held)
        self.stale |= self.waiting.count(held.at.dpid, table, match, now)
        return self._probe(held.address, now)
