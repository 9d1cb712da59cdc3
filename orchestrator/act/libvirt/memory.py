"""Memory of a running machine: its balloon takes and gives back, virtio-mem adds; neither starves the guest."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from cpdb import DriverError, Seconds
from orchestrator.act.libvirt.domain import Domain, reported, until

MEMORY_FLOOR_BYTES = 64 << 20
# What a guest keeps free beside what it uses, so that it is not killed for the next thing that it starts.
RESERVE_BYTES, RESERVE_SHARE = 16 << 20, 0.1
# A few blocks that a guest cannot let go of do not matter; what it was promised is given to the last page or two.
SHORT_BYTES, LEFT_BYTES = 2 << 20, 8 << 20
# Balloons followed within 0.3 s and virtio-mem within 7 s where this was measured; it is looked at again until then.
SETTLE_S = 20.0
UNPLUG_S = 4.0
STALE_STATISTICS_S = 10.0
STATISTICS_EVERY_S = 1
PLUGS = re.compile(r"<memory model=['\"]virtio-mem['\"].*?</memory>", re.DOTALL)
REQUESTED = re.compile(r"(<requested unit=['\"]KiB['\"]>)\d+(</requested>)")


def floor_bytes(used_bytes: int | None, least_bytes: int) -> int:
    """The least memory a machine may be given: what is declared, and what the guest uses (None: not known) and more."""
    reserve = 0 if used_bytes is None else max(RESERVE_BYTES, round(RESERVE_SHARE * used_bytes))
    return max(MEMORY_FLOOR_BYTES, least_bytes, (used_bytes or 0) + reserve)


def used_bytes(stats: Mapping[str, Any], now: Seconds, prefix: str = "") -> int | None:
    """What the guest cannot do without: all it has less what it says is usable; caches do not count.

    `stats` are keyed as libvirt does ("actual", "usable"), or after a prefix as in bulk statistics ("balloon.current").
    None when the guest has not said anything lately.
    """
    current = stats.get(f"{prefix}current", stats.get(f"{prefix}actual"))
    free = stats.get(f"{prefix}usable", stats.get(f"{prefix}unused"))
    told_at = stats.get(f"{prefix}last-update", stats.get(f"{prefix}last_update", 0))
    if current is None or free is None or now - told_at > STALE_STATISTICS_S:
        return None
    return max(0, int(current) - int(free)) << 10


@dataclass(frozen=True, slots=True)
class Plug:
    """A virtio-mem device; all in KiB."""

    xml: str
    size: int
    block: int
    requested: int
    current: int = 0


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How a total comes about: the balloon's target and what each device is asked for, in KiB."""

    balloon: int
    requested: tuple[int, ...]


def plugs_of(xml: str) -> list[Plug]:
    """The virtio-mem devices in a machine's definition."""
    return [_plug(found) for found in PLUGS.findall(xml)]


def _plug(xml: str) -> Plug:
    target = ElementTree.fromstring(xml).find("target")
    if target is None:
        raise DriverError("a virtio-mem device without a target")
    return Plug(xml, *(int(target.findtext(name, "0")) for name in ("size", "block", "requested", "current")))


def planned(total_kib: int, base_kib: int, plugs: list[Plug]) -> MemoryPlan:
    """The balloon first, up to what the machine booted with; devices give what is beyond that, in whole blocks.

    Raises DriverError when there is not so much.
    """
    rest, requested = max(0, total_kib - base_kib), []
    for plug in plugs:
        wanted = min(plug.size, -(-rest // plug.block) * plug.block if plug.block else rest)
        requested.append(wanted)
        rest -= min(rest, wanted)
    if rest > 0:
        most = base_kib + sum(one.size for one in plugs)
        raise DriverError(f"{total_kib >> 10} MiB are more than its maximum of {most >> 10} MiB")
    return MemoryPlan(min(total_kib, base_kib), tuple(requested))


def set_memory(domain: Domain, size_bytes: int, least_bytes: int, now: Seconds) -> str | None:
    """Gives the machine `size_bytes` in all, verified. None when it shows; else what is still pending after a while.

    Raises DriverError when it would starve or is more than there can be.
    """
    _guarded(domain, size_bytes, least_bytes, now)
    with reported(f"{domain.name}: reading its definition"):
        xml = domain.raw.XMLDesc(0)
        plugs = plugs_of(xml)
        base = int(domain.raw.maxMemory()) - sum(one.size for one in plugs)
    try:
        plan = planned(size_bytes >> 10, base, plugs)
    except DriverError as error:
        raise DriverError(f"{domain.name}: {error}") from error
    _ask_plugs(domain, plan, plugs)
    _inflate(domain, plan)
    wanted = plan.balloon + sum(plan.requested) << 10
    if until(lambda: -SHORT_BYTES <= (domain.memory_kib() << 10) - wanted <= LEFT_BYTES, SETTLE_S):
        return None
    return f"pending: it has {domain.memory_kib() >> 10} MiB after {SETTLE_S:g} s; the guest has not followed yet"


def _guarded(domain: Domain, size_bytes: int, least_bytes: int, now: Seconds) -> None:
    shrinks = size_bytes < domain.memory_kib() << 10
    used = guest_uses(domain, now) if shrinks else None
    floor = floor_bytes(used, least_bytes)
    if size_bytes < floor and (shrinks or size_bytes < MEMORY_FLOOR_BYTES):
        because = f", as its guest uses {used >> 20} MiB" if used is not None and floor > least_bytes else ""
        raise DriverError(f"{domain.name}: {size_bytes >> 20} MiB is below the floor of {floor >> 20} MiB{because}")


def guest_uses(domain: Domain, now: Seconds) -> int | None:
    """What its guest uses, in bytes; None when it does not say. Its figures miss what virtio-mem added."""
    with reported(f"{domain.name}: memory statistics"):
        stats = dict(domain.raw.memoryStats())
    return used_bytes(stats | {"actual": domain.memory_kib()}, now)


def _ask_plugs(domain: Domain, plan: MemoryPlan, plugs: list[Plug]) -> None:
    import libvirt

    with reported(f"{domain.name}: memory {plan.balloon + sum(plan.requested) >> 10} MiB"):
        for plug, requested in zip(plugs, plan.requested, strict=True):
            if requested != plug.requested:
                xml = REQUESTED.sub(rf"\g<1>{requested}\g<2>", plug.xml)
                domain.raw.updateDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def _inflate(domain: Domain, plan: MemoryPlan) -> None:
    """Sets the balloon after devices have shrunk: before, it would hold pages that they are to let go of.

    What they cannot let go of is taken by the balloon instead.
    """
    import libvirt

    def held() -> int:
        return sum(one.current for one in plugs_of(domain.raw.XMLDesc(0)))

    with reported(f"{domain.name}: balloon {plan.balloon >> 10} MiB"):
        until(lambda: held() <= sum(plan.requested), UNPLUG_S)
        excess = max(0, held() - sum(plan.requested))
        domain.raw.setMemoryFlags(plan.balloon - excess, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def ask_statistics(domain: Domain) -> None:
    """Makes the guest tell its memory every second."""
    import libvirt

    with reported(f"{domain.name}: period of its memory statistics"):
        domain.raw.setMemoryStatsPeriod(STATISTICS_EVERY_S, libvirt.VIR_DOMAIN_AFFECT_LIVE)
