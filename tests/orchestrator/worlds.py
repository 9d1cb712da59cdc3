"""Hand-made and random worlds for the pure core."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from fake_world import fan
from hypothesis import strategies as st

from cpdb import Forecast, Pair, Quantity
from orchestrator import (
    HostSpec,
    LinkState,
    MemoryState,
    NetworkState,
    OrchestratorConfig,
    PairState,
    VmSpec,
    VmState,
    WantedState,
    World,
)
from orchestrator.pair_table import ConnectionSize
from orchestrator.relations import CpuRelation

NOW = 5_000.0
LINK = ("leaf", "h1")
# Round shares: what tests expect can be worked out in the head.
CONFIG = OrchestratorConfig(act=True, demand={"margin": 1.2}, bandwidth={"headroom": 0.9}, cpu={"host_headroom": 0.9})
RELATION = CpuRelation("connections_per_s", 0.01, 0.02, 0.0, 50)
GIB = 1 << 30
# What is foreseen at a horizon is there for this share of it
LASTS_SHARE = 0.7


def pair_state(source: str, vip: str, priority: int, rate: float = 0.0, **more: Any) -> PairState:
    """A pair with `rate` connections/s of 30 kB each, over LINK."""
    values: dict[str, Any] = {
        "destination": None,
        "links": (LINK,),
        "bytes_per_s": rate * 30_000,
        "connections_per_s": rate,
        "typical_bytes_per_s": rate * 30_000,
        "typical_connections_per_s": rate,
        "connection": ConnectionSize(30_000.0),
    }
    return PairState(Pair(source, vip), priority, **(values | more))


def foreseen(
    state: PairState, peaks: Mapping[int, float], issued_at: float = NOW, longest_share: float = 0.4
) -> PairState:
    """The pair with forecasts: connections/s at their peak by horizon, there for a share of the longest window.

    Shorter windows hold more of it: it begins within the lead time of a reservation.
    """
    found: dict[tuple[int, Quantity], Forecast] = {}
    for horizon_s, peak in peaks.items():
        nearer = max(state.typical_connections_per_s, LASTS_SHARE * peak)
        usual = longest_share * peak if horizon_s == max(peaks) > min(peaks) else nearer
        for quantity, value in (
            (Quantity.CONNECTIONS_PEAK, peak),
            (Quantity.CONNECTIONS_MEAN, usual),
            (Quantity.BYTES_PEAK, peak * 30_000),
            (Quantity.BYTES_MEAN, usual * 30_000),
        ):
            found[horizon_s, quantity] = fan(state.pair, issued_at, horizon_s, quantity, value)
    return replace(state, forecasts=found)


def world(pairs: list[PairState], capacity: float | None = 1_500_000.0, **more: Any) -> World:
    """A world with one link, LINK."""
    link = LinkState(LINK, capacity, sum(one.bytes_per_s for one in pairs))
    return changed(World(now=NOW, age_s=1.0, pairs={one.pair: one for one in pairs}, links={LINK: link}), **more)


def changed(start: World, **changes: Any) -> World:
    """The world with other values, each put into the record that has a field of that name."""
    wanted = {one.name: changes.pop(one.name) for one in fields(WantedState) if one.name in changes}
    network = {one.name: changes.pop(one.name) for one in fields(NetworkState) if one.name in changes}
    records: dict[str, Any] = {"wanted": replace(start.wanted, **wanted), "network": replace(start.network, **network)}
    return replace(start, **(records | changes))


def vm(name: str, host: str, used: float, limit: float, **spec: Any) -> VmState:
    """A declared machine; `relation` may be among the keywords."""
    relations = tuple(one for one in (spec.pop("relation", None),) if one)
    calm = spec.pop("calm", False)
    declared = VmSpec(name, **({"cpu_cores_min": limit, "cpu_cores_max": limit} | spec))
    return VmState(name, host, used, limit, 1, MemoryState(128 << 20), declared, relations, calm)


def machines(*items: VmState, hosts: tuple[HostSpec, ...] | None = None) -> dict[str, Any]:
    """Keywords for `world`: machines and the two hosts h1 and h2 of one core each."""
    known = hosts or (HostSpec("h1", "", "", 1.0, GIB), HostSpec("h2", "", "", 1.0, GIB))
    return {"vms": {one.name: one for one in items}, "hosts": {one.name: one for one in known}}


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Pairs of two priorities over one link, machines on two or three hosts, with and without relations."""
    hosts = [HostSpec(f"h{n}", "", "", draw(st.floats(0.5, 4)), draw(st.integers(1, 4)) * GIB // 4) for n in range(3)]
    vms = [draw(_vms(n, [one.name for one in hosts])) for n in range(draw(st.integers(0, 5)))]
    pairs = []
    for n in range(draw(st.integers(1, 5))):
        destination = draw(st.sampled_from([None, *(one.name for one in vms)]))
        rate, peak = draw(st.floats(0, 30)), draw(st.floats(0, 60))
        state = pair_state(f"c{n}", f"v{n}", draw(st.sampled_from([0, 5, 10])), rate, destination=destination)
        pairs.append(foreseen(state, {5: peak, 15: peak, 30: peak}) if draw(st.booleans()) else state)
    capacity = draw(st.floats(100_000, 5_000_000))
    return world(pairs, capacity, **machines(*vms, hosts=tuple(hosts)))


@st.composite
def _vms(draw: st.DrawFn, number: int, hosts: list[str]) -> VmState:
    limit = draw(st.sampled_from([0.1, 0.2, 0.5, 1.0]))
    most = limit * draw(st.sampled_from([1, 2, 4]))
    return vm(
        f"vm{number}",
        draw(st.sampled_from(hosts)),
        limit * draw(st.floats(0, 1)),
        limit,
        priority=draw(st.sampled_from([0, 5, 10])),
        cpu_cores_max=most,
        vcpus_max=4,
        movable=draw(st.booleans()),
        relation=draw(st.sampled_from([None, RELATION])),
        calm=draw(st.booleans()),
    )
