"""Notices what runs short, and whether any action or advice foresaw it: what nobody foresaw is a missed need."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cpdb import ActionRecord, OutcomeKind, Seconds, ShortageKind, ShortageRecord, Store, show_mebibytes, show_rate
from orchestrator.config import OrchestratorConfig
from orchestrator.needs import ceiling
from orchestrator.promises import FULL_SHARE
from orchestrator.verdicts import STARVED_SHARE
from orchestrator.world import VmState, World

# A cycle that came late speaks for no more than this.
LONGEST_CYCLE_S = 5.0
# What lasts is written down again now and then, lest a restart forgets it.
WRITE_EVERY_S = 5.0
# The drops of single packets are no shortage.
DROP_SHARE = 0.001
Place = tuple[ShortageKind, str]


def short_now(world: World, config: OrchestratorConfig) -> dict[Place, str]:
    """What is short as it was last measured, and how.

    A machine at its limit that could get more or serves somebody; one whose memory is full; a host whose machines use
    all of it; a link above the trigger of reservations, or one that drops packets.
    """
    return dict((*_machines(world), *_hosts(world), *_links(world, config)))


def _machines(world: World) -> Iterator[tuple[Place, str]]:
    for vm in world.vms.values():
        if vm.spec is not None and vm.cores_used >= STARVED_SHARE * vm.cores_limit and _waited_for(world, vm):
            yield (ShortageKind.CPU, vm.name), f"uses {vm.cores_used:.2f} of {vm.cores_limit:.2f} cores"
        used, size = vm.memory.used_bytes, vm.memory.bytes
        if vm.spec is not None and used is not None and used >= FULL_SHARE * size:
            yield (ShortageKind.MEMORY, vm.name), f"uses {show_mebibytes(used)} of {show_mebibytes(size)}"


def _waited_for(world: World, vm: VmState) -> bool:
    """A machine that serves nobody, and has all it may ever have, takes what it gets."""
    return vm.cores_limit < ceiling(vm) or bool(world.pairs_to(vm.name))


def _hosts(world: World) -> Iterator[tuple[Place, str]]:
    for host in world.hosts.values():
        used = sum(vm.cores_used for vm in world.on_host(host.name))
        if used >= FULL_SHARE * host.cpu_cores_capacity:
            yield (ShortageKind.HOST, host.name), f"its machines use {used:.2f} of {host.cpu_cores_capacity:.2f} cores"


def _links(world: World, config: OrchestratorConfig) -> Iterator[tuple[Place, str]]:
    for link in world.links.values():
        capacity = link.capacity_bytes_per_s
        full = capacity is not None and link.bytes_per_s >= config.bandwidth.trigger * capacity
        if capacity is not None and (full or link.drop_share > DROP_SHARE):
            drops = f", {link.drop_share:.1%} of packets dropped" if link.drop_share else ""
            text = f"carries {show_rate(link.bytes_per_s)} of {show_rate(capacity)}{drops}"
            yield (ShortageKind.LINK, link.name), text


@dataclass(slots=True)
class ShortageWatch:
    """What is short from one cycle to the next; written down from its second cycle on, so that noise is not."""

    store: Store
    config: OrchestratorConfig
    _open: dict[Place, ShortageRecord] = field(default_factory=dict)
    _written_s: dict[Place, Seconds] = field(default_factory=dict)
    _at: Seconds | None = None

    def watch(
        self, world: World, foresaw: Callable[[str, Seconds], ActionRecord | None], recent: Sequence[ActionRecord]
    ) -> tuple[ShortageRecord, ...]:
        """What has ended by now; `foresaw(name, now)` is who expected a need there. Raises StoreError."""
        passed = min(world.now - self._at, LONGEST_CYCLE_S) if self._at is not None else 0.0
        self._at, now = world.now, short_now(world, self.config)
        ended = [self._keep(place) for place in self._open if place not in now and place in self._written_s]
        self._open = {place: one for place, one in self._open.items() if place in now}
        self._written_s = {place: at for place, at in self._written_s.items() if place in now}
        for place, text in now.items():
            before = self._open.get(place)
            if before is None:
                first = foresaw(place[1], world.now)
                detail = text if first else f"{text}{_refused(place[1], recent)}"
                self._open[place] = ShortageRecord(*place, world.now, passed, detail, first.id if first else None)
                continue
            self._open[place] = replace(before, seconds=before.seconds + passed)
            if self._open[place].seconds - self._written_s.get(place, -WRITE_EVERY_S) >= WRITE_EVERY_S:
                self._keep(place)
        return tuple(ended)

    def _keep(self, place: Place) -> ShortageRecord:
        self._open[place] = self.store.journal.keep_shortage(self._open[place])
        self._written_s[place] = self._open[place].seconds
        return self._open[place]


def _refused(name: str, recent: Sequence[ActionRecord]) -> str:
    """Why what was considered there was not done, as far as it was."""
    refused = (one for one in recent if one.outcome is OutcomeKind.SKIPPED and name in about(one))
    return next((f"; {one.sentence}" for one in refused), "")


def about(record: ActionRecord) -> frozenset[str]:
    """The machines, hosts and links that a record is about."""
    where: Mapping[str, str] = record.reason.get("where") or {}
    refused = (str(one.get("about", "")) for one in record.reason.get("alternatives", ()))
    skipped = record.outcome is OutcomeKind.SKIPPED
    return frozenset({record.target, *where.values(), *(refused if skipped else ())})
