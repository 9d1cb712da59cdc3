"""Puts the strategies together into one plan: pure, complete, and in an order of which every prefix is safe."""

from dataclasses import dataclass, replace

from orchestrator.actions import MigrateVm, SetCpuLimit, SetMemory, SetVcpus
from orchestrator.config import OrchestratorConfig
from orchestrator.demand import Demand
from orchestrator.steps import Refusal, Step
from orchestrator.strategies.bandwidth import plan_bandwidth
from orchestrator.strategies.cpu import plan_compute
from orchestrator.strategies.memory import plan_memory
from orchestrator.strategies.placement import plan_placement
from orchestrator.strategies.requests import Handled, plan_requests
from orchestrator.strategies.scaling import plan_scaling
from orchestrator.strategies.weights import plan_weights
from orchestrator.world import World, apply


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in the order in which they may be carried out, each prefix of which is safe, and refusals.

    `requests`: what becomes of the bandwidth that was asked for.
    """

    steps: tuple[Step, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    requests: tuple[Handled, ...] = ()


def plan(world: World, demand: Demand, config: OrchestratorConfig) -> Plan:
    """What should be done about `demand`, with reasons; an empty plan is an answer.

    CPU that only a migration frees is planned after it and waits for it.
    """
    for action in world.in_flight:
        if isinstance(action, SetCpuLimit | SetVcpus | SetMemory):
            world = apply(world, action)
    asked, leases, known = plan_requests(world, demand, config)
    reservations, refused_bandwidth = plan_bandwidth(known, demand, config)
    resizes, refused_compute, resized = plan_compute(world, demand, config)
    balloons, refused_memory, resized = plan_memory(resized, demand, config)
    scalings, refused_scaling, resized = plan_scaling(resized, demand, config)
    moves, refused_moves, moved = plan_placement(_moving(resized), demand, config)
    later: list[Step] = []
    if moves:
        later, refused_compute, _ = plan_compute(replace(moved, in_flight=()), demand, config)
    weights, refused_weights = plan_weights(world, demand, config)
    steps = (*leases, *reservations, *resizes, *balloons, *scalings, *weights, *moves)
    steps = (*steps, *(replace(one, waits=True) for one in later))
    refusals = (*refused_bandwidth, *refused_compute, *refused_memory, *refused_scaling, *refused_moves)
    refusals = (*refusals, *refused_weights)
    return Plan(tuple(_with_alternatives(one, refusals) for one in steps), refusals, asked)


def _with_alternatives(step: Step, refusals: tuple[Refusal, ...]) -> Step:
    """Every step can say what else was considered in the same plan, and why that was not done."""
    known = [*step.reason["alternatives"], *(one.to_json() for one in refusals)]
    return replace(step, reason={**step.reason, "alternatives": known})


def _moving(world: World) -> World:
    """Placement sees machines that are under way where they are going, or it would send another after them."""
    for action in world.in_flight:
        if isinstance(action, MigrateVm):
            world = apply(world, action)
    return world
