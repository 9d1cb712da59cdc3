"""What a fake switch writes down by itself: connections it has placed, and sources it has met."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

from ryu_apps.rules import PROTO_TCP, PROTO_UDP, Choose, KeepConnection, MeetOnce, PickSlot, virtual_mac

Seconds = float
Connection = tuple[int | None, str | None, str | None, int | None, int | None]


@dataclass(slots=True)
class _Note:
    by: KeepConnection
    # Fields of the packet that are set, by name
    to: dict[str, Any]
    heard: Seconds


@dataclass(slots=True)
class Notes:
    """Connections by (protocol, source, destination, ports), and (source, destination) pairs met."""

    _connections: dict[Connection, _Note] = field(default_factory=dict)
    _met: dict[tuple[str | None, str | None], Seconds] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._connections)

    def keep(self, one: KeepConnection, packet: Any, now: Seconds) -> None:
        """Writes down where the packet's connection goes, and what its answers look like."""
        ports = (packet.sport, packet.dport) if one.protocol in (PROTO_TCP, PROTO_UDP) else (None, None)
        there = (packet.ip_proto, packet.ipv4_src, one.virtual_ip, *ports)
        back = (packet.ip_proto, one.address, packet.ipv4_src, *ports[::-1])
        self._connections[there] = _Note(one, {"eth_dst": one.mac, "ipv4_dst": one.address}, now)
        to_client = {"eth_src": virtual_mac(one.virtual_ip), "ipv4_src": one.virtual_ip}
        self._connections[back] = _Note(one, to_client, now)

    def look(self, packet: Any, now: Seconds) -> Any:
        """The packet, rewritten when its connection is known."""
        for ports in ((packet.sport, packet.dport), (None, None)):
            key = (packet.ip_proto, packet.ipv4_src, packet.ipv4_dst, *ports)
            note = self._connections.get(key)
            if note is None:
                continue
            if now - note.heard < note.by.idle_s:
                note.heard = now
                return replace(packet, **note.to)
            del self._connections[key]
        return packet

    def has_met(self, packet: Any, now: Seconds) -> bool:
        """Whether this source has been met for this destination address."""
        return self._met.get((packet.ipv4_src, packet.ipv4_dst), 0.0) > now

    def meet(self, one: MeetOnce, packet: Any, now: Seconds) -> None:
        """Writes down that it is met."""
        self._met[packet.ipv4_src, packet.ipv4_dst] = now + one.hold_s

    def keep_only(self, wanted: Callable[[KeepConnection], bool]) -> None:
        """What a rule has written goes with that rule."""
        self._connections = {key: note for key, note in self._connections.items() if wanted(note.by)}


def noted(packet: Any, action: PickSlot | Choose) -> Any:
    """The packet with a slot or a choice in its registers."""
    if isinstance(action, Choose):
        return replace(packet, chosen=action.number)
    ends = sorted([(packet.ipv4_src or "", packet.sport or 0), (packet.ipv4_dst or "", packet.dport or 0)])
    digest = blake2b(repr((packet.ip_proto, ends)).encode(), digest_size=8).digest()
    return replace(packet, slot=int.from_bytes(digest, "big") % action.slots)
