"""`ryu-manager ryu_apps.discovery`: looks at the switches that connect, and changes no rule of theirs.

It asks for ports and flow entries, and sends LLDP frames out of ports. Links and hosts are known where a switch hands
up frames by rules of its own: this application sends none that would.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Any

from cpdb import Link
from ryu_apps.effects import Effect, PacketOut
from ryu_apps.flow_mirror import FlowMirror
from ryu_apps.framework import MAIN_DISPATCHER, handles, ofp_event, ofproto
from ryu_apps.network import Network
from ryu_apps.rules import ETH_LLDP, PORT_MAX, PortId
from ryu_apps.services.pairs import PairBudget, Pairs
from ryu_apps.status.publishers import InventoryPublisher
from ryu_apps.switch.wire import Wire
from ryu_apps.topology import frames
from ryu_apps.topology.links import Role

Seconds = float

INTRODUCE_EVERY_S = 1.0


class Discovery(FlowMirror):
    """Switches, their links and who is behind their ports, written down as found; flows as the mirror sees them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._network = Network(Pairs(PairBudget(1), 1.0, 1.0))
        self._inventory = InventoryPublisher()
        self._told: dict[tuple[str, str], Link] = {}

    def start(self) -> Any:
        """Starts the loops."""
        thread = super().start()
        self.loops.every(INTRODUCE_EVERY_S, "looking round", self._look_round)
        return thread

    def joined(self, datapath: Any, wire: Wire, now: Seconds) -> None:
        """A switch connected: its ports, and what they can carry."""
        for port in datapath.ports.values():
            if port.curr_speed and port.port_no < PORT_MAX:
                self._network.topology.links.speeds[PortId(wire.dpid, port.port_no)] = port.curr_speed * 125.0
        up = {number: not port.state & ofproto.OFPPS_LINK_DOWN for number, port in datapath.ports.items()}
        ports = {number: is_up for number, is_up in up.items() if number < PORT_MAX}
        self._send(self._network.topology.switch_up(wire.dpid, ports, now))

    def left(self, dpid: int, now: Seconds) -> None:
        """A switch went away."""
        super().left(dpid, now)
        self._network.topology.switch_down(dpid)

    @handles(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def on_packet(self, event: Any) -> None:
        """A frame that a rule of the switch's own hands up: whose it is says who is behind that port."""
        message, now, topology = event.msg, time.time(), self._network.topology
        at, frame = PortId(message.datapath.id, message.match["in_port"]), frames.parse(message.data)
        if frame is None or at.port >= PORT_MAX:
            return
        if frame.eth_type == ETH_LLDP:
            topology.hear_lldp(at, message.data, now)
        elif topology.links.role(at, now) is Role.EDGE and not int(frame.eth_src[:2], 16) & 1:
            topology.hosts.learn(frame.eth_src, frame.speaker, at, now)

    def _look_round(self, now: Seconds) -> None:
        self._network.topology.grow_older(now)
        self._send(self._network.topology.introduce(None, now))
        places = {(one.a, one.b): one for one in self._access_links()}
        news = [one for ends, one in places.items() if self._told.get(ends) != one]
        self._told = places
        self.writer.offer([*self._inventory.news(self._network, now), *news], now)

    def _access_links(self) -> Iterator[Link]:
        """From switches to the hosts behind their ports."""
        topology = self._network.topology
        for host in topology.hosts:
            switch, speed = topology.snapshot.directory.switch(host.at.dpid), topology.links.speeds.get(host.at)
            yield Link(switch, host.at.port, next(iter(host.addresses), host.mac), 0, speed)

    def _send(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, PacketOut) and effect.dpid in self.wires:
                self.wires[effect.dpid].out(effect.ports, effect.data)
