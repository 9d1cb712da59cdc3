"""What is passed over at once would have been looked at for nothing."""

from dataclasses import replace

from hypothesis import given, settings
from worlds import CONFIG, worlds

from orchestrator import PlanningContext, World
from orchestrator.context import needed_on
from orchestrator.screens import crowded_hosts, to_fill, to_resize
from orchestrator.strategies import cpu, memory, placement


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_who_is_passed_over_would_have_been_given_nothing(known: World) -> None:
    context = PlanningContext.of(known, CONFIG)
    looked_at = {vm.name for vm in to_resize(context)}
    for vm in known.vms.values():
        assert vm.name in looked_at or vm.host not in known.hosts or not [*cpu._for_vm(context, vm)]
    crowded = crowded_hosts(context, CONFIG.cpu.host_headroom + CONFIG.cpu.host_deadband)
    for name, host in known.hosts.items():
        assert name in crowded or placement._shortage(context, host) is None


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_memory_is_left_as_it_is_where_nobody_looks(known: World) -> None:
    vms = {
        name: replace(
            vm,
            spec=vm.spec and replace(vm.spec, memory_bytes_max=2 * vm.memory.bytes),
            memory=replace(vm.memory, used_bytes=int(vm.memory.bytes * min(1.0, vm.cores_used)), calm=vm.calm),
        )
        for name, vm in known.vms.items()
    }
    context = PlanningContext.of(known.changed(vms=vms), CONFIG)
    looked_at = {vm.name for vm in to_fill(context)}
    for vm in vms.values():
        assert vm.name in looked_at or not [*memory._down(context, vm), *memory._up(context, vm)]


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_no_link_needs_more_than_its_bound(known: World) -> None:
    context = PlanningContext.of(known, CONFIG)
    for horizon_s in CONFIG.horizons_s:
        bounds = context.bounds(horizon_s)
        for key, most in zip(bounds.keys, bounds.most.tolist(), strict=True):
            assert needed_on(context, known.links[key], horizon_s) <= most * (1 + 1e-9)
