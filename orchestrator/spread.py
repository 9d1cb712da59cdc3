"""Says what part of each pair's talk a machine has to serve: all of it, or its share where connections are spread."""

from collections.abc import Mapping
from dataclasses import replace

from cpdb import Standing, VirtualIp
from orchestrator.demand import Demand, PairDemand, Rate
from orchestrator.world import VmState, World

CONNECTION = "connection"


def shares(vip: VirtualIp, wanted: Mapping[str, int]) -> dict[str, float]:
    """Destination -> its share of new connections, by the weights wanted or else declared; {} when nobody serves."""
    weights = {
        one.name: max(0.0, float(wanted.get(one.name, one.weight)))
        for one in vip.destinations
        if one.standing is Standing.SERVING
    }
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items() if weight > 0}


def serving(world: World, demand: Demand, vm: VmState, horizon_s: int) -> list[PairDemand]:
    """The demands that a machine has to serve at one horizon.

    Where a virtual IP's connections are placed one by one, a pair talks to all destinations, to each by its share.
    """
    whole = [one.pair for one in world.pairs_to(vm.name) if not _spread(world, one.pair.virtual_ip)]
    found = demand.at(horizon_s, whole)
    for vip in world.virtual_ips.values():
        if vip.affinity == CONNECTION and any(one.name == vm.name for one in vip.destinations):
            share = shares(vip, world.weights.get(vip.address, {})).get(vm.name, 0.0)
            pairs = sorted((one for one in world.pairs if one.virtual_ip == vip.address), key=str)
            found += [_part(one, share) for one in demand.at(horizon_s, pairs) if share > 0]
    return found


def _spread(world: World, address: str) -> bool:
    vip = world.virtual_ips.get(address)
    return vip is not None and vip.affinity == CONNECTION


def _part(one: PairDemand, share: float) -> PairDemand:
    return replace(one, bytes=_scaled(one.bytes, share), connections=_scaled(one.connections, share))


def _scaled(rate: Rate, share: float) -> Rate:
    return replace(
        rate,
        measured=share * rate.measured,
        typical=share * rate.typical,
        need=share * rate.need,
        chance=share * rate.chance,
    )
