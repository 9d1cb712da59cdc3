"""Which machine is meant: its state in a word, and what counts where a name is seen more than once."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.declared import CRASHED, OFF, PAUSED, RUNNING, TWICE


@dataclass(frozen=True, slots=True)
class MachineSample:
    """What one look at one machine brought."""

    name: str
    stats: Mapping[str, Any]
    uuid: str
    state: str
    vcpus: int
    cores_limit: float
    memory_kib: int


# virDomainState; those that are off have no state here, unless they crashed.
STATES: Mapping[int, str] = {1: RUNNING, 2: RUNNING, 3: PAUSED, 4: RUNNING, 6: CRASHED, 7: PAUSED}
OFF_NOW, OFF_AFTER_CRASH = 5, 3


def state_of(stats: Mapping[str, Any]) -> str:
    """The word for a machine's state; a driver that tells none tells of running machines only."""
    number = int(stats.get("state.state", 1))
    if number == OFF_NOW:
        return CRASHED if stats.get("state.reason") == OFF_AFTER_CRASH else OFF
    return STATES.get(number, RUNNING)


@dataclass(slots=True)
class Identity:
    """Remembers which names two machines bore at the last look."""

    _doubtful: frozenset[str] = frozenset()

    def one_of_each(self, looks: Mapping[str, Sequence[MachineSample]]) -> dict[str, list[MachineSample]]:
        """The machines by host that count; of those that are there twice, each is marked: nobody knows which is meant.

        A machine is its UUID. While it is copied it is on two hosts, and counts where it runs; hosts are not looked at
        in the same moment, so it may even seem to run on both once.
        """
        active: dict[str, list[tuple[str, MachineSample]]] = defaultdict(list)
        for host, seen in looks.items():
            for one in seen:
                if one.state != OFF:
                    active[one.name].append((host, one))
        found: dict[str, list[MachineSample]] = {host: [] for host in looks}
        doubtful = set()
        for name, own in active.items():
            running = [(host, one) for host, one in own if one.state == RUNNING]
            others = len({one.uuid for _, one in own}) > 1
            if others or (len(running) > 1 and name in self._doubtful):
                for host, one in own:
                    found[host].append(replace(one, state=TWICE))
            else:
                host, one = (running or own)[-1]
                found[host].append(one)
            if others or len(running) > 1:
                doubtful.add(name)
        self._doubtful = frozenset(doubtful)
        return found
