"""Whose the counts beside virtual IPs are - talkers, declared accounts, the rest - and who is heard to talk much."""

from collections.abc import Callable, Mapping

from cpdb import FlowKey
from ryu_apps.accounts import REST, Account, account_numbers
from ryu_apps.network import Network, counted_at
from ryu_apps.telemetry.sampling import Sampled
from ryu_apps.topology.state import name_of_address


class CountedBeside:
    """Flow keys by the numbers in cookies."""

    def __init__(self, network: Network) -> None:
        self._network = network
        # Of each switch: its numbers, and the revision of hosts that they follow from
        self._numbers: dict[int, tuple[int, Mapping[int, Account | None]]] = {}
        self._same: dict[FlowKey, FlowKey] = {}

    def flow_key(self, number: int, dpid: int | None) -> FlowKey | None:
        """The flow key of a number at a switch; None for a number of nobody."""
        found = self._make(number, dpid)
        return None if found is None else self._same.setdefault(found, found)

    def _make(self, number: int, dpid: int | None) -> FlowKey | None:
        talkers, directory = self._network.talkers, self._network.topology.snapshot.directory
        ends = talkers.of_number(number)
        if ends is not None:
            source, name = (name_of_address(self._network.topology, end) for end in ends)
            return FlowKey(source, ends[1], None if name == ends[1] else name)
        if dpid is None or not talkers.enabled:
            return None
        revision = self._network.topology.hosts.revision
        if dpid not in self._numbers or self._numbers[dpid][0] != revision:
            self._numbers[dpid] = revision, account_numbers(counted_at(self._network, dpid))
        known = self._numbers[dpid][1]
        if number not in known:
            return None
        account = known[number]
        if account is None:
            return FlowKey(directory.switch(dpid), REST, None)
        return FlowKey(directory.host(account.source), account.service, None)

    def sample(self, packet: Sampled, agent: str, sampled: Callable[[str, str], FlowKey | None]) -> FlowKey | None:
        """The flow key of a sampled packet, where rows are made of samples; else it only shows who talks much."""
        network = self._network
        if not network.talkers.enabled:
            return sampled(packet.source, packet.destination)
        host = network.topology.hosts.of_address(packet.source)
        # Where it enters: the same packet may be sampled at every switch on its way.
        enters_here = host is not None and network.topology.snapshot.directory.switch(host.at.dpid) == agent
        if enters_here and packet.destination not in network.services.virtual_ips:
            network.talkers.hear((packet.source, packet.destination), packet.bytes * packet.rate)
        return None
