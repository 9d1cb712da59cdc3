"""Which port leads where: by own LLDP frames and by declared links. Decides which ports may have hosts.

Where links are declared, what is heard confirms them or puts them in doubt; only between switches without any declared
link does it make links.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum

from ryu_apps.rules import PortId

Seconds = float

# LLDP needs this long to come through before a port without any may be taken for one with hosts behind it.
SETTLE_S = 1.5
# Five frames lost in a row: a busy machine delays one or two.
FORGET_S = 11.0


class Role(Enum):
    """What is behind a port."""

    DOWN = "down"
    UNKNOWN = "unknown"
    SWITCH = "switch"
    EDGE = "edge"
    # A switch was heard where none is declared: neither a link nor a place for hosts
    SUSPECT = "suspect"


@dataclass(frozen=True, slots=True)
class Port:
    """State of a port; `since` is when it came up or lost its neighbour."""

    up: bool
    since: Seconds


@dataclass(frozen=True, slots=True)
class LldpNeighbour:
    """The neighbour that was heard on a port."""

    peer: PortId
    t: Seconds


@dataclass(slots=True)
class LinkTable:
    """Ports, neighbours and declared links; every change says whether the picture changed."""

    ports: dict[PortId, Port] = field(default_factory=dict)
    heard: dict[PortId, LldpNeighbour] = field(default_factory=dict)
    declared: dict[PortId, PortId] = field(default_factory=dict)
    declared_edges: frozenset[PortId] = frozenset()
    # Bytes/s of each port that says how fast it is
    speeds: dict[PortId, float] = field(default_factory=dict)
    # Ports where something was heard that cannot be, and when that was last
    suspects: dict[PortId, Seconds] = field(default_factory=dict)
    # Nothing is older than FORGET_S before then
    _age_due: Seconds = float("-inf")

    def set_ports(self, dpid: int, states: Mapping[int, bool], now: Seconds) -> None:
        """All ports of a switch (number -> up) at once; ports no longer named are forgotten."""
        for at in [at for at in self.ports if at.dpid == dpid and at.port not in states]:
            self.drop(at)
        for number, up in states.items():
            self.set_port(PortId(dpid, number), up, now)

    def set_port(self, at: PortId, up: bool, now: Seconds) -> bool:
        """One port's state; True when it changed."""
        known = self.ports.get(at)
        if known is not None and known.up == up:
            return False
        self.ports[at] = Port(up, now)
        if not up:
            self.heard.pop(at, None)
            self.suspects.pop(at, None)
        return True

    def drop(self, at: PortId) -> bool:
        """The port is no more."""
        self.heard.pop(at, None)
        self.suspects.pop(at, None)
        return self.ports.pop(at, None) is not None

    def declare(self, links: Mapping[PortId, PortId], edges: Collection[PortId]) -> bool:
        """Declared links between switches (both directions) and declared ports to machines; True on change."""
        changed = dict(links) != self.declared or frozenset(edges) != self.declared_edges
        self.declared, self.declared_edges = dict(links), frozenset(edges)
        return changed

    def doubt(self, at: PortId, peer: PortId) -> str | None:
        """Why no link can lead from `peer` to `at`, by what is declared; None when it may."""
        if at in self.declared_edges or peer in self.declared_edges:
            return "a machine is declared at one end"
        if at in self.declared or peer in self.declared:
            return None if self.declared.get(at) == peer else "a link to another port is declared"
        switches = {one.dpid for one in self.declared}
        return "no such link is declared" if {at.dpid, peer.dpid} & switches else None

    def suspect(self, at: PortId, now: Seconds) -> bool:
        """Something was heard at `at` that cannot be; True when that is news. Declared machines stay reachable."""
        if at in self.declared_edges:
            return False
        news = at not in self.suspects
        self.suspects[at] = now
        return news

    def hear(self, at: PortId, peer: PortId, now: Seconds) -> bool:
        """An LLDP frame from `peer` arrived at `at`; True when that is news."""
        known = self.heard.get(at)
        self.heard[at] = LldpNeighbour(peer, now)
        doubted = self.suspects.pop(at, None) is not None
        return doubted or (known.peer if known else self.declared.get(at)) != peer

    def age(self, connected: Collection[int], now: Seconds) -> bool:
        """Forgets neighbours, and doubts, not heard for long. A switch without controller is silent, not gone."""
        if now <= self._age_due:
            return False
        silent = [
            at
            for at, heard in self.heard.items()
            if now - heard.t > FORGET_S and at.dpid in connected and heard.peer.dpid in connected
        ]
        for at in silent:
            del self.heard[at]
            if at in self.ports:
                self.ports[at] = Port(self.ports[at].up, now)
        trusted = [at for at, since in self.suspects.items() if now - since > FORGET_S]
        for at in trusted:
            del self.suspects[at]
        oldest = min((*(heard.t for heard in self.heard.values()), *self.suspects.values(), now))
        self._age_due = oldest + FORGET_S
        return bool(silent or trusted)

    def peer(self, at: PortId) -> PortId | None:
        """The neighbouring switch's port: what was declared, else what was heard."""
        if at in self.declared:
            return self.declared[at]
        heard = self.heard.get(at)
        return None if heard is None or self.doubt(at, heard.peer) else heard.peer

    def role(self, at: PortId, now: Seconds) -> Role:
        """What is behind the port at this moment."""
        port = self.ports.get(at)
        if port is None or not port.up:
            return Role.DOWN
        if self.peer(at) is not None:
            return Role.SWITCH
        if at in self.suspects:
            return Role.SUSPECT
        if at in self.declared_edges or now - port.since >= SETTLE_S:
            return Role.EDGE
        return Role.UNKNOWN

    def edges(self, now: Seconds) -> list[PortId]:
        """All ports that may have hosts behind them."""
        return sorted(at for at in self.ports if self.role(at, now) is Role.EDGE)

    def links(self) -> list[tuple[PortId, PortId, bool]]:
        """Links between known switches as (one end, other end, up), each once, the smaller end first."""
        ends = {
            (min(at, peer), max(at, peer))
            for at in {*self.declared, *self.heard}
            if (peer := self.peer(at)) is not None
        }
        return [(a, b, self._up(a) and self._up(b)) for a, b in sorted(ends) if a in self.ports and b in self.ports]

    def speed(self, a: PortId, b: PortId) -> float | None:
        """Bytes/s of a link by what its ports say of themselves: the slower one's; None when neither says."""
        return min((self.speeds[at] for at in (a, b) if at in self.speeds), default=None)

    def _up(self, at: PortId) -> bool:
        return self.ports[at].up and at not in self.suspects
