"""Whose packets go from which switch to which: the traffic that splits between switches are about."""

from collections.abc import Iterable
from dataclasses import dataclass

from cpdb import Destination
from ryu_apps.knowledge import Knowledge
from ryu_apps.pairs import PairState
from ryu_apps.splits.lanes import Ends

Seconds = float
# (switch, IP source, Ethernet destination) of packets that steering has rewritten
Key = tuple[int, str, str]


@dataclass(frozen=True, slots=True)
class Journey:
    """Traffic of a pair in one direction: from the switch where it enters to the one where it leaves.

    `key` tells its packets apart there.
    """

    ends: Ends
    key: Key
    source_address: str
    destination_address: str
    pair: PairState


def journeys(network: Knowledge) -> list[Journey]:
    """Both directions of every pair whose ends are on two switches; where two pairs look the same, the livelier one."""
    found: dict[Key, Journey] = {}
    for pair in network.pairs:
        for one in _of_pair(network, pair, _destinations(network, pair)):
            known = found.get(one.key)
            if known is None or known.pair.active < one.pair.active:
                found[one.key] = one
    return list(found.values())


def _destinations(network: Knowledge, pair: PairState) -> tuple[Destination, ...]:
    if pair.destination is not None:
        return (pair.destination,)
    # Its connections are placed one by one: they may go to any.
    service = network.virtual_ips.get(pair.virtual_ip)
    return service.destinations if service else ()


def _of_pair(network: Knowledge, pair: PairState, destinations: Iterable[Destination]) -> Iterable[Journey]:
    source = network.hosts.of_address(pair.source_address)
    for to in destinations:
        host = network.hosts.of_mac(to.mac)
        if source is None or host is None or source.at.dpid == host.at.dpid:
            continue
        directory = network.picture.directory
        ends = directory.switch(source.at.dpid), directory.switch(host.at.dpid)
        there, back = (source.at.dpid, pair.source_address, to.mac), (host.at.dpid, pair.virtual_ip, source.mac)
        yield Journey(ends, there, pair.source_address, to.address, pair)
        yield Journey((ends[1], ends[0]), back, to.address, pair.source_address, pair)
