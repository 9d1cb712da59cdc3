"""The laws of every plan, on random worlds."""

from hypothesis import example, given, settings
from worlds import CONFIG, GIB, LINK, RELATION, foreseen, machines, pair_state, vm, world, worlds

from orchestrator import HostSpec, MigrateVm, OrchestratorConfig, ReserveBandwidth, World, apply, demands, plan
from orchestrator.context import PlanningContext, load_now, vm_need

ONE_HORIZON = CONFIG.tuned(demand={"horizons_s": (5,)}, timing={"decision_s": 0.1})


# Beside a quiet machine whose forecast peak may fill its limit, a busy one asks for all that is left.
BESIDE_A_PEAK = world(
    [
        foreseen(pair_state("c0", "v0", 0, 5, destination="quiet"), {5: 20, 15: 20, 30: 20}),
        foreseen(pair_state("c1", "v1", 0, 20, destination="busy"), {5: 40, 15: 40, 30: 40}),
    ],
    **machines(
        vm("quiet", "h1", 0.11, 0.5, relation=RELATION),
        vm("busy", "h1", 0.2, 0.2, priority=5, cpu_cores_max=0.8, relation=RELATION),
    ),
)

# What it needs is a little more than one virtual CPU, which its limit reaches at once.
JUST_ABOVE_A_VCPU = world(
    [foreseen(pair_state("c0", "v0", 0, 0.0, destination="busy"), {5: 36, 15: 36, 30: 36})],
    **machines(
        vm("busy", "h1", 0.0, 0.5, cpu_cores_max=2.0, vcpus_max=4, relation=RELATION),
        hosts=(HostSpec("h1", "", "", 2.0, GIB),),
    ),
)

# The second in which a limit takes effect needs one virtual CPU, the busiest of the next five a little more.
A_VCPU_SOON = world(
    [
        foreseen(pair_state("c0", "v0", 0, destination="busy"), {5: 16, 15: 16, 30: 16}),
        pair_state("c1", "v1", 0, 30.0, destination="busy"),
    ],
    **machines(
        vm("busy", "h1", 0.0, 0.5, cpu_cores_max=2.0, vcpus_max=4, relation=RELATION),
        hosts=(HostSpec("h1", "", "", 4.0, GIB),),
    ),
)

# Now c2 needs most of the link, beside whom c1 is limited; within 5 s c1 does, unless c2 holds the reservation.
WHO_HOLDS_LEADS = world(
    [
        pair_state("c0", "v0", 0),
        pair_state("c1", "v1", 5, 5.0),
        foreseen(pair_state("c2", "v2", 10, 6.0, destination="small"), {5: 0, 15: 0, 30: 0}),
        foreseen(pair_state("c3", "v3", 5), {5: 1, 15: 1, 30: 1}),
    ],
    100_000.0,
    **machines(vm("small", "h1", 0.0, 0.1, relation=RELATION)),
)


def planned(start: World, config: OrchestratorConfig = CONFIG):
    return plan(PlanningContext.of(start, config))


@settings(max_examples=150, deadline=None)
@given(worlds())
@example(JUST_ABOVE_A_VCPU)
@example(A_VCPU_SOON)
@example(WHO_HOLDS_LEADS)
def test_planning_again_after_the_plan_gives_nothing(start: World) -> None:
    after = start
    for step in planned(start).steps:
        after = apply(after, step.action)
    assert [one.action.describe() for one in planned(after).steps] == []


@settings(max_examples=150, deadline=None)
@given(worlds())
@example(BESIDE_A_PEAK)
def test_every_prefix_keeps_each_host_within_what_it_has(start: World) -> None:
    demand = demands(start, CONFIG)

    def taken(now: World, host: str) -> float:
        return sum(
            max(load_now(one, vm_need(PlanningContext(now, demand, CONFIG), one, horizon)) for horizon in (0, 5))
            for one in now.on_host(host)
        )

    after = start
    for step in planned(start).steps:
        after = apply(after, step.action)
        for host in after.hosts.values():
            allowed = max(CONFIG.cpu.host_headroom * host.cpu_cores_capacity, taken(start, host.name))
            # The solver's own tolerance is a millionth of a core for each machine.
            assert taken(after, host.name) <= allowed + 1e-5, step.action.describe()
            memory = [sum(one.memory.bytes for one in w.on_host(host.name)) for w in (start, after)]
            assert memory[1] <= max(host.memory_bytes_capacity, memory[0])


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_every_reservation_fits_its_link_and_cuts_nobody_off(start: World) -> None:
    capacity = start.links[LINK].capacity_bytes_per_s or 0.0
    for step in planned(start).steps:
        if isinstance(step.action, ReserveBandwidth):
            given_way = sum(one.bytes_per_s for one in step.action.limits)
            assert 0 < given_way <= max(CONFIG.bandwidth.trigger, CONFIG.bandwidth.floor) * capacity + 1e-6
            assert given_way >= CONFIG.bandwidth.floor * capacity * 0.999
            reserved = start.pairs[step.action.pair].priority
            equal = len({one.priority for one in start.pairs.values()}) == 1
            assert all(start.pairs[one.pair].priority < reserved or equal for one in step.action.limits)
            assert step.action.pair not in {one.pair for one in step.action.limits}


@settings(max_examples=100, deadline=None)
@given(worlds())
def test_only_less_important_movable_machines_move_and_never_to_a_full_host(start: World) -> None:
    for step in planned(start).steps:
        if isinstance(step.action, MigrateVm):
            spec = start.vms[step.action.vm].spec
            assert spec is not None
            assert spec.movable
            assert any(one.priority > spec.priority for one in start.on_host(step.action.before))


def test_a_calm_world_needs_no_plan() -> None:
    pairs = [foreseen(pair_state(f"c{n}", "v", 10, 2.0, destination="shop"), {5: 3, 15: 3, 30: 4}) for n in range(3)]
    shop = vm("shop", "h1", 0.15, 0.4, priority=10, cpu_cores_max=0.8, relation=RELATION)
    batch = vm("batch", "h1", 0.25, 0.25, movable=True)
    start = world([*pairs, pair_state("c9", "low", 0, 20.0)], **machines(shop, batch))
    found = planned(start)
    assert found.steps == ()
    assert found.refusals == ()
