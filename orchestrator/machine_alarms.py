"""Machines that are not as they should be: crashed, two of one name, on no host, or not to be measured."""

import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

import structlog

from cpdb import Alarm, MachineReport, Publisher, Seconds, Store, StoreError, VmLoad
from orchestrator.config import OWNER
from orchestrator.declared import CRASHED, MISSING, OFF, PAUSED, RUNNING, TWICE, UNMEASURED

LOG = structlog.get_logger(__name__)
# What a hypervisor's event means for who sends connections there.
TOLD = {"started": RUNNING, "stopped": OFF, "paused": PAUSED}
# A machine that was just made, or just went, is no alarm.
PATIENCE_S = 3.0
AGAIN_S = 30.0
SAID = {
    CRASHED: "it crashed on {hosts}; its log there says more, start it again",
    TWICE: "two machines bear this name, on {hosts}: neither is touched until one is renamed or removed",
    MISSING: "no host has a machine of this name; define it there, or take it out of the settings",
    UNMEASURED: "{hosts} says nothing sound about it, so it is left alone; look at it there",
}


KINDS = {f"machine_{state}" for state in SAID}


def troubles(machines: Iterable[VmLoad]) -> dict[tuple[str, str], str]:
    """What is wrong, by (kind of alarm, machine), in words."""
    hosts: dict[tuple[str, str], list[str]] = defaultdict(list)
    for one in machines:
        if one.state in SAID:
            hosts[one.state, one.vm].append(one.host)
    return {
        (f"machine_{state}", vm): SAID[state].format(hosts=" and ".join(sorted(where)))
        for (state, vm), where in hosts.items()
    }


@dataclass(slots=True)
class MachineAlarms:
    """What is told of them: after a moment, again while it lasts, and cleared when it is over."""

    store: Store
    _begun: bool = False
    _since: dict[tuple[str, str], Seconds] = field(default_factory=dict)
    _publisher: Publisher[tuple[str, str], str] = field(default_factory=lambda: Publisher(AGAIN_S))

    def tell(self, machines: Iterable[VmLoad], now: Seconds) -> None:
        """Takes the newest look at all machines. Raises StoreError."""
        found = troubles(machines)
        self._since = {place: self._since.get(place, now) for place in found}
        old = {place: said for place, said in found.items() if now - self._since[place] >= PATIENCE_S}
        news = self._publisher.publish(old, now)
        if not self._begun:
            # What an earlier process told, and is over.
            self._begun = True
            for one in self.store.alarms.open():
                if one.node == OWNER and one.kind in KINDS and (one.kind, one.key) not in found:
                    self.store.alarms.clear(one.kind, one.key, OWNER, now)
        self.store.alarms.raise_([Alarm(*place, OWNER, said, now, now) for place, said in news.said.items()])
        for kind, vm in news.gone:
            self.store.alarms.clear(kind, vm, OWNER, now)


@dataclass(frozen=True, slots=True)
class MachineNews:
    """Tells at once that a machine stopped, paused or runs: for the controller no verdict, but a reason to ask it.

    Machines of pools are told of by who brings them in and out.
    """

    store: Store
    machines: Collection[str]
    clock: Callable[[], Seconds]

    def hear(self, host: str, vm: str, what: str) -> None:
        """A hypervisor's event; hypervisors are not kept waiting for the database."""
        if vm in self.machines and what in TOLD:
            threading.Thread(target=self.tell, args=(host, vm, TOLD[what]), daemon=True, name="machine-news").start()

    def tell(self, host: str, vm: str, state: str) -> None:
        """Writes it down; what cannot be written is found by probes all the same."""
        try:
            self.store.wanted.observe([MachineReport(vm, host, state, "", self.clock())])
        except StoreError as error:
            LOG.warning("the state of a machine was not told", vm=vm, state=state, error=str(error))
