"""What speaks against a destination besides its own silence: ports, counters, hypervisors. It is then asked at once."""

from collections.abc import Iterable, Mapping, Sequence

from cpdb import MachineReport, VirtualIp
from ryu_apps.services.health import Health, ProbeTarget

Seconds = float

RUNNING = "running"
# Packets without any back, within one look at a port's counters: more than stray ones and repeated questions.
MANY_UNANSWERED = 5


class DestinationEvidence:
    """Reasons to ask. Destinations are known by their MACs."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._by_mac: Mapping[str, Sequence[ProbeTarget]] = {}
        self._macs: dict[str, set[str]] = {}
        # MACs whose packets were counted: where a switch counts none, silence says nothing
        self._speaking: set[str] = set()
        # Machine -> the last word of its hypervisor, and when it was said
        self._told: dict[str, tuple[str, Seconds]] = {}

    def follow(self, by_mac: Mapping[str, Sequence[ProbeTarget]], wanted: Iterable[VirtualIp]) -> None:
        """These destinations and no others."""
        self._by_mac, self._macs = by_mac, {}
        for one in (one for vip in wanted for one in vip.destinations):
            self._macs.setdefault(one.name, set()).add(one.mac)

    def suspect(self, macs: Iterable[str]) -> None:
        """Something speaks against the destinations with these MACs."""
        for mac in macs:
            for target in self._by_mac.get(mac, ()):
                self._health.suspect(target)

    def counted(self, mac: str, to_it: int, from_it: int, now: Seconds) -> None:
        """Packets that a port with this machine alone sent to it and had from it since the last look."""
        if mac not in self._by_mac:
            return
        if from_it:
            self._speaking.add(mac)
            for target in self._by_mac[mac]:
                self._health.spoke(target, now)
        elif to_it >= MANY_UNANSWERED and mac in self._speaking:
            self.suspect((mac,))

    def told_of(self, machines: Iterable[MachineReport]) -> None:
        """What hypervisors say of machines: of one that does not run any more, each word is a reason to ask it."""
        words = {one.vm: (one.state, one.observed_at) for one in machines}
        for vm, word in words.items():
            if word != self._told.get(vm) and word[0] != RUNNING:
                self.suspect(self._macs.get(vm, ()))
        self._told = words
