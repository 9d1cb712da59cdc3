"""Which machines stay on one host together and which stay apart, as declared."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from orchestrator.needs import residents
from orchestrator.world import VmState, World


def mates(world: World, vm: VmState) -> list[VmState]:
    """The other machines of its affinity, by name."""
    group = vm.spec.affinity if vm.spec else None
    if group is None:
        return []
    return [one for _, one in sorted(world.vms.items()) if _affinity(one) == group and one.name != vm.name]


def rivals_on(world: World, host: str, vm: VmState) -> list[VmState]:
    """Machines on a host, or on their way to it, from which this one stays apart."""
    group = vm.spec.anti_affinity if vm.spec else None
    if group is None:
        return []
    return [one for one in residents(world, host) if one.name != vm.name and _anti_affinity(one) == group]


def forbidden(world: World, host: str, vm: VmState, together: Iterable[str] = ()) -> str | None:
    """Why its rules keep a machine from a host; machines named in `together` come along with it."""
    rivals = rivals_on(world, host, vm)
    if rivals:
        return f"{host} has {rivals[0].name}, from which {vm.name} stays apart"
    others = mates(world, vm)
    if not others:
        return None
    there = {one.name for one in residents(world, host)}
    left = [one for one in others if one.name not in set(together) | there]
    if left and not any(one.name in there for one in others):
        return f"{vm.name} stays with {left[0].name} on {left[0].host}"
    return None


def groups(vms: Iterable[VmState]) -> dict[str, list[VmState]]:
    """Affinity -> its machines, where there is more than one."""
    found: dict[str, list[VmState]] = defaultdict(list)
    for one in vms:
        name = _affinity(one)
        if name is not None:
            found[name].append(one)
    return {name: own for name, own in sorted(found.items()) if len(own) > 1}


def units(vms: Sequence[VmState]) -> list[int]:
    """For each machine the number of those with which it moves as one, -1 where it moves alone.

    Only groups that are on one host now, and of which nobody has to stay apart from somebody as well.
    """
    number = {}
    for index, (name, own) in enumerate(groups(vms).items()):
        if len({one.host for one in own}) == 1 and not any(_anti_affinity(one) for one in own):
            number[name] = index
    return [number.get(_affinity(one) or "", -1) for one in vms]


def apart(vms: Sequence[VmState]) -> list[int]:
    """For each machine the number of the group from whose others it stays apart, -1 for none."""
    names = sorted({name for one in vms if (name := _anti_affinity(one)) is not None})
    return [names.index(name) if (name := _anti_affinity(one)) is not None else -1 for one in vms]


def _affinity(vm: VmState) -> str | None:
    return vm.spec.affinity if vm.spec else None


def _anti_affinity(vm: VmState) -> str | None:
    return vm.spec.anti_affinity if vm.spec else None
