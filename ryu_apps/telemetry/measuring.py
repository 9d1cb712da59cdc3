"""The half of the controller that measures: counters of our rules and of ports become rows about pairs and links."""

import time
from typing import Any

from ryu_apps.framework import MAIN_DISPATCHER, handles, ofp_event, spawn
from ryu_apps.network import Network
from ryu_apps.openflow import FlowColumns
from ryu_apps.paths.routing import Routes
from ryu_apps.rules import (
    KIND_SHIFT,
    OWNER,
    OWNER_MASK,
    OWNER_SHIFT,
    PORT_MAX,
    Kind,
    PortId,
    RuleKey,
    Table,
    is_ours,
    kind_of,
    number_of,
)
from ryu_apps.services.pairs import Pairs
from ryu_apps.services.virtual_ips import Destinations
from ryu_apps.switch.datapath import decode_match
from ryu_apps.telemetry.attribution import Witness
from ryu_apps.telemetry.counters import Growth
from ryu_apps.telemetry.mirror import MirrorApp
from ryu_apps.telemetry.polling import Filter, flow_entries
from ryu_apps.telemetry.rows import Neighbour
from ryu_apps.telemetry.sflow import Sampling, bound, receive

Seconds = float

# Bits of a cookie that tell an accounting entry: kinds PAIR and PAIR_SYN differ in the lowest kind bit.
_ACCOUNTS = Filter(OWNER << OWNER_SHIFT | Kind.PAIR << KIND_SHIFT, OWNER_MASK | 0xE << KIND_SHIFT, Table.ACCOUNT)


class MeasuringApp(MirrorApp):
    """Reads the counters of pairs with the network's knowledge of who they are."""

    FLOWS = _ACCOUNTS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        section, sflow = self.settings.pairs, self.settings.sflow
        pairs = Pairs(section.max_pairs, section.idle_s, section.forget_s)
        self.network = Network(pairs)
        self.network.destinations = Destinations(self.settings.probes)
        self.network.routes = Routes(1.5 * self.settings.poll_s + 0.5, section.path_timeout_s)
        self.witness = Witness(self.network)
        self.sampling = Sampling(sflow.by_address())
        self._sampled = frozenset(sflow.agents) if sflow.listen else frozenset()
        self._receiver = bound(sflow.listen) if sflow.listen else None

    def start(self) -> Any:
        """Starts the loops."""
        thread = super().start()
        if self._receiver is not None:
            spawn(receive, self._receiver, self.on_sample)
        return thread

    def lost(self, dpid: int, key: RuleKey, now: Seconds) -> None:
        """A switch dropped one of our accounting rules."""

    def learn_speed(self, dpid: int, port: Any) -> None:
        """What a port says of itself: kbit/s, 0 when the switch does not know."""
        if port.curr_speed and port.port_no < PORT_MAX:
            self.network.wiring.speeds[PortId(dpid, port.port_no)] = port.curr_speed * 125.0

    # ---- statistics become rows

    def flows(self, dpid: int, columns: FlowColumns, now: Seconds) -> None:
        """Counters of the pairs that enter at a switch."""
        name = self.name_of(dpid)
        book = self.witness.book(dpid, now)
        look = self.tell(dpid, flow_entries(columns), None if name in self._sampled else book, now)
        for key in [key for key, packets, _ in look.grown if packets] + [late[1] for late in look.late]:
            pair = self.network.pairs.of_number(number_of(key))
            if pair is not None:
                pair.active = now

    @handles(ofp_event.EventOFPFlowRemoved, MAIN_DISPATCHER)
    def on_removed(self, event: Any) -> None:
        """The last word on an entry."""
        one = event.msg
        if is_ours(one.cookie) and kind_of(one.cookie) in (Kind.PAIR, Kind.PAIR_SYN):
            age_s = one.duration_sec + one.duration_nsec / 1e9
            entry = (one.cookie, one.packet_count, one.byte_count, age_s)
            now = time.time()
            self.accounts.removed(one.datapath.id, entry, now)
            self.lost(one.datapath.id, RuleKey(one.table_id, one.priority, decode_match(one.match)), now)

    def on_sample(self, data: bytes, peer: str, now: Seconds) -> None:
        """A datagram on the sFlow port."""
        self.sampling.take(data, peer, self.witness.sampled, now)

    def port_grew(self, at: PortId, growth: Growth) -> None:
        """A port's counters grew."""
        self.witness.port_grew(at, growth)

    def tallies(self) -> dict[tuple[str, str], int]:
        """Everything that went wrong so far, by kind and reason."""
        return super().tallies() | {
            ("implausible", "rows"): self.witness.implausible,
            ("refused", "sflow"): self.sampling.refused,
            ("lost", "sflow datagrams"): self.sampling.lost,
            **self.network.watchman.tallies(),
        }

    def watch(self, now: Seconds) -> None:
        """Once a second: sampled rows, and what the counters are worth."""
        super().watch(now)
        self.writer.offer(self.sampling.tell(now), now)
        self.witness.watch(self.network.wiring.speeds, now)

    def name_of(self, dpid: int) -> str:
        """A switch's declared name, else its number."""
        return self.network.picture.directory.switch(dpid)

    def neighbour(self, dpid: int, port: int) -> Neighbour | None:
        """The switch, declared machine or single host behind a port."""
        at, picture = PortId(dpid, port), self.network.picture
        here = picture.directory.switch(dpid)
        peer = self.network.wiring.peer(at)
        if peer is not None:
            return Neighbour(here, picture.directory.switch(peer.dpid), edge=False)
        if at in picture.machines:
            return Neighbour(here, picture.machines[at], edge=True)
        names = [picture.directory.host(host.address, host.mac) for host in self.network.hosts if host.at == at]
        return Neighbour(here, names[0] if len(names) == 1 else f"{here}:{port}", edge=True)
