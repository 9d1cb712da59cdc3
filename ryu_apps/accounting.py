"""From samples to rows: what each pair said and what each link carried since the last look."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cpdb import Communication, LinkLoad
from ryu_apps.counters import Counters, Growth, Reading
from ryu_apps.rules import Kind, kind_of, number_of
from ryu_apps.samples import FlowSample, PortSample

Seconds = float


@dataclass(frozen=True, slots=True)
class Party:
    """Who a pair is, in words."""

    source: str
    virtual_ip: str
    destination: str | None


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Both ends of a port's link by name; `edge` when the far end is no switch."""

    here: str
    there: str
    edge: bool


class Accounts:
    """Counters of pairs and ports of all switches."""

    def __init__(self) -> None:
        self._counters = Counters()
        self._looked: dict[tuple[int, str], Seconds] = {}

    def connected(self, dpid: int, now: Seconds) -> None:
        """From now on the switch is watched: what existed before has an unknown past."""
        for what in ("flows", "ports"):
            self._looked.setdefault((dpid, what), now)

    def pairs(
        self, dpid: int, samples: Iterable[FlowSample], now: Seconds, party_of: Callable[[int], Party | None]
    ) -> dict[int, Communication]:
        """One row for each pair whose entries were read, by pair number: zero bytes is a row, not a gap."""
        since = self._looked.get((dpid, "flows"))
        self._looked[dpid, "flows"] = now
        grown: dict[int, list[tuple[Growth, bool]]] = {}
        for one in samples:
            reading = Reading(one.t, one.age_s, (one.bytes, one.packets))
            growth = self._counters.grow((dpid, one.cookie), reading, since)
            if growth is not None:
                first = kind_of(one.cookie) is Kind.PAIR_SYN
                grown.setdefault(number_of(one.cookie), []).append((growth, first))
        rows = {number: (party_of(number), parts) for number, parts in grown.items()}
        return {number: _communication(party, parts) for number, (party, parts) in rows.items() if party is not None}

    def ports(
        self, samples: Iterable[PortSample], now: Seconds, neighbour_of: Callable[[int, int], Neighbour | None]
    ) -> list[LinkLoad]:
        """Rows for what left each port, and on edge ports also for what came in."""
        rows = []
        for one in samples:
            since = self._looked.get((one.dpid, "ports"))
            values = (one.tx_bytes, one.tx_packets, one.tx_dropped, one.rx_bytes, one.rx_packets, one.rx_dropped)
            growth = self._counters.grow((one.dpid, "port", one.port), Reading(one.t, one.age_s, values), since)
            ends = neighbour_of(one.dpid, one.port)
            if growth is None or ends is None:
                continue
            rows.append(_load(ends.here, ends.there, growth, growth.values[:3]))
            if ends.edge:
                rows.append(_load(ends.there, ends.here, growth, growth.values[3:]))
        for dpid in {one.dpid for one in samples}:
            self._looked[dpid, "ports"] = now
        return rows


def _communication(party: Party, parts: list[tuple[Growth, bool]]) -> Communication:
    newest = max((growth for growth, _ in parts), key=lambda growth: growth.t)
    return Communication(
        source=party.source,
        virtual_ip=party.virtual_ip,
        destination=party.destination,
        t=newest.t,
        interval_s=newest.interval_s,
        bytes=sum(growth.values[0] for growth, _ in parts),
        packets=sum(growth.values[1] for growth, _ in parts),
        new_connections=sum(growth.values[1] for growth, first in parts if first),
    )


def _load(start: str, end: str, growth: Growth, values: tuple[int, ...]) -> LinkLoad:
    size, packets, drops = values
    return LinkLoad(start, end, growth.t, growth.interval_s, size, packets, drops)
