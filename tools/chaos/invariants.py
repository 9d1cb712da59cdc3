"""What must hold whatever broke; each check says in a sentence what does not, or nothing."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cpdb import BandwidthRequest, HostLoad, Limit, Pair, RequestState, Reservation
from tools.chaos.faults import HOST, Fault
from tools.chaos.scene import LAYOUT, VIP, Scene

Seconds = float

# So much of what the interface counted may be told otherwise; frames that belong to no pair are in it.
SAME = 0.005
WITHIN_S = 30.0
LEASE_S, SLACK_S = 4.0, 2.5
OWNER = "chaos"
_DECIDED = (RequestState.GRANTED, RequestState.PARTLY)


@dataclass(frozen=True, slots=True)
class Before:
    """As it was when a step began."""

    at: Seconds
    told: int
    counted: int
    connections: int
    boots: dict[str, str]


def look_before(scene: Scene) -> Before:
    """Begins a step with traffic, and with a limit that ends by itself."""
    now = time.time()
    limit = (Limit(Pair("c2", VIP), 250_000.0),)
    lease = Reservation(OWNER, Pair("c1", VIP), 1e5, limit, OWNER, "ends by itself", now, now + LEASE_S)
    scene.store.wanted.reserve(lease)
    before = Before(now, scene.told(), scene.counted(), scene.echo()[1], scene.hosts.boots())
    scene.quiet(rests=False)
    return before


def broken(scene: Scene, fault: Fault, before: Before) -> Iterator[str]:
    """What does not hold after a fault that is mended; waits for what may take its time."""
    mended = time.time()
    if not _eventually(lambda: _one_master(scene)):
        yield "switches have no single master"
    if not _eventually(lambda: scene.echo()[0] > mended + 1):
        yield f"the live connection has had no answer for {time.time() - scene.echo()[0]:.0f} s"
    if (now := scene.echo()[1]) != before.connections:
        yield f"the live connection broke: there were {before.connections}, now it is number {now}"
    if not _eventually(lambda: _forecast_at(scene) > mended):
        yield f"no forecast within {WITHIN_S:.0f} s"
    yield from _acting(scene)
    yield from _leases(scene, before)
    if not any("cookie=0x77" in line and "4242" in line for line in scene.rules("leaf1", "table=3")):
        yield "another program's rule is gone"
    yield from _machines(scene, fault, before, mended)
    yield from _bytes(scene, fault, before)


def _eventually(check: Callable[[], object], within_s: Seconds = WITHIN_S) -> bool:
    end = time.monotonic() + within_s
    while not (found := check()) and time.monotonic() < end:
        time.sleep(0.25)
    return bool(found)


def _one_master(scene: Scene) -> bool:
    masters = scene.store.leases.masters(scene.store.leases.now())
    return len(masters) == len(LAYOUT.switches) and len({held.holder for held in masters.values()}) == 1


def _forecast_at(scene: Scene) -> Seconds:
    newest = scene.store.forecasts.batch(time.time(), WITHIN_S)
    return newest.issued_at if newest else 0.0


def _acting(scene: Scene) -> Iterator[str]:
    now, requests = time.time(), scene.store.requests
    number = requests.ask(BandwidthRequest("c1", VIP, 50_000.0, now + WITHIN_S + 5, "chaos asks", OWNER, now))

    def asked() -> BandwidthRequest:
        return next(one for one in requests.since(now - 1) if one.id == number)

    if not _eventually(lambda: asked().answer.state in _DECIDED):
        yield f"no request is granted within {WITHIN_S:.0f} s: {asked().answer.state.value} {asked().answer.why}"
    requests.withdraw(number, time.time())


def _leases(scene: Scene, before: Before) -> Iterator[str]:
    time.sleep(max(0.0, before.at + LEASE_S + SLACK_S - time.time()))
    held = scene.rules("leaf1", f"table=1,ip,nw_src={LAYOUT.client('c2').address}")
    if held:
        yield f"a limit outlived its lease: {held[0].strip()[:120]}"


def _machines(scene: Scene, fault: Fault, before: Before, mended: Seconds) -> Iterator[str]:
    """Each runs on one host, and is the one that it was; each host is measured again."""
    if not scene.lab.vms:
        return
    lost = {vm.name for vm in LAYOUT.vms if vm.host == HOST} if fault.machines_lost else set()
    kept = {vm: boot for vm, boot in before.boots.items() if vm not in lost}

    def whole() -> bool:
        found = scene.hosts.boots()
        return len(found) == len(LAYOUT.vms) and found | kept == found

    if not _eventually(whole):
        where = {vm.name: scene.hosts.places(vm.name) for vm in LAYOUT.vms}
        yield f"machines run on {where}, started as {scene.hosts.boots()}; before as {before.boots}"
    for host in LAYOUT.hypervisors:
        if not _eventually(lambda host=host: _measured(scene, host.name, mended)):  # type: ignore[misc]
            yield f"{host.name} is not measured within {WITHIN_S:.0f} s"


def _measured(scene: Scene, host: str, since: Seconds) -> bool:
    return any(one.host == host for one in scene.store.facts.loads(HostLoad, since, time.time()))


def _bytes(scene: Scene, fault: Fault, before: Before) -> Iterator[str]:
    scene.quiet(rests=True)
    told, since = -1, time.monotonic()
    end = since + WITHIN_S
    while time.monotonic() < end and time.monotonic() - since < 3.0:
        fresh = scene.told()
        if fresh != told or not scene.is_read():
            told, since = fresh, time.monotonic()
        time.sleep(0.5)
    if (line := judge_bytes(told - before.told, scene.counted() - before.counted, fault.rules_lost)) is not None:
        yield line


def judge_bytes(told: int, sent: int, rules_lost: bool) -> str | None:
    """What is wrong about the bytes told of those that the interface sent; None for nothing.

    What switches had counted since they were last asked dies with their rules, and without rules they carry nothing.
    """
    if told > sent * (1 + SAME):
        return f"{told} bytes are told and {sent} were sent: counted twice"
    if told < sent * (0.2 if rules_lost else 1 - SAME):
        return f"{told} bytes are told and {sent} were sent: lost"
    return None
