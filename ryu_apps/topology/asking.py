"""Who holds an address: questions of hosts answered, and hosts asked for, each no oftener than it helps."""

from ryu_apps.effects import Effect, Out
from ryu_apps.knowledge import Knowledge
from ryu_apps.pacing import RateLimiter
from ryu_apps.rules import PortId, virtual_mac
from ryu_apps.services.pairs import Pairs
from ryu_apps.topology import frames
from ryu_apps.topology.frames import Arp, Frame

Seconds = float

# One broadcast question a host and period is enough; its sender will ask again.
ASK_EVERY_S = 0.5


class Asking(Knowledge):
    """Knowledge that asks where it has gaps, and answers in place of those it knows."""

    def __init__(self, pairs: Pairs) -> None:
        super().__init__(pairs)
        self._brake = RateLimiter()

    def _wanted_addresses(self) -> list[str]:
        behind = {one.address for vip in self.virtual_ips.values() for one in vip.destinations}
        nodes = {node.address for node in self.declared.nodes if node.address and node.mac}
        lost = {address for address in behind | nodes if self.hosts.of_address(address) is None}
        asked = set(self._hearsay) - {""}
        self._hearsay = {address: left - 1 for address, left in self._hearsay.items() if left > 1}
        return sorted(lost | asked)

    def _answer(self, at: PortId, frame: Frame, body: Arp, data: bytes, now: Seconds) -> list[Effect]:
        if body.operation == frames.REPLY or self.hosts.of_mac(frame.eth_dst) is not None:
            return self._forward(at, frame, data)
        if body.operation != frames.REQUEST or body.sender == body.target:
            return []
        if body.target in self.virtual_ips:
            return [Out(at.dpid, (at.port,), frames.arp_answer(body, virtual_mac(body.target)))]
        holder = self.hosts.of_address(body.target)
        if holder is None:
            return self._flood(at, data, now) if self._brake.due(("ask", body.target), ASK_EVERY_S, now) else []
        # A neighbour behind the same port answers for itself; speaking for it would mislead the bridge there.
        if holder.at == at or holder.mac == body.sender_mac:
            return []
        return [Out(at.dpid, (at.port,), frames.arp_answer(body, holder.mac))]

    def _forward(self, at: PortId, frame: Frame, data: bytes) -> list[Effect]:
        host = self.hosts.of_mac(frame.eth_dst)
        if host is None or host.at == at or host.at.dpid not in self.connected:
            return []
        return [Out(host.at.dpid, (host.at.port,), data)]

    def _probe(self, address: str, now: Seconds) -> list[Effect]:
        if not self._brake.due(("ask", address), ASK_EVERY_S, now):
            return []
        return self._flood(None, frames.arp_probe(address), now)

    def _flood(self, but: PortId | None, data: bytes, now: Seconds) -> list[Effect]:
        ports: dict[int, list[int]] = {}
        for at in self.wiring.edges(now):
            if at != but and at.dpid in self.connected:
                ports.setdefault(at.dpid, []).append(at.port)
        return [Out(dpid, tuple(numbers), data) for dpid, numbers in ports.items()]
