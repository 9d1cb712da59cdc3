"""What live migrations take while they last: from the links between their hosts, and from the hosts themselves."""

from collections.abc import Iterator, Sequence

from cpdb import BytesPerS
from orchestrator.actions import Action, MigrateVm
from orchestrator.config import OrchestratorConfig
from orchestrator.world import LinkKey, World


def links_of(world: World, action: MigrateVm) -> tuple[LinkKey, ...]:
    """The links that a copy loads; () when copies have a network of their own."""
    return world.ways(action.before, action.after) if world.shared_copies else ()


def copying_on(world: World, key: LinkKey) -> BytesPerS:
    """What the copies under way take from a link in this direction, in bytes/s."""
    moves = (one for one in world.in_flight if isinstance(one, MigrateVm) and one.bytes_per_s)
    return sum(one.bytes_per_s or 0.0 for one in moves if key in links_of(world, one))


def crowded(action: MigrateVm, others: Sequence[Action], world: World, config: OrchestratorConfig) -> str | None:
    """Why one more copy would be too many at a time: in all, at one of its hosts, or on one of its links."""
    moves = [one for one in others if isinstance(one, MigrateVm)]
    if len(moves) >= config.moves_at_once:
        return f"one migration at a time: {len(moves)} machines are moving, {config.moves_at_once} may at once"
    return next(_crowds(action, moves, world, config), None)


def _crowds(action: MigrateVm, moves: Sequence[MigrateVm], world: World, config: OrchestratorConfig) -> Iterator[str]:
    for host in (action.before, action.after):
        busy = [one.vm for one in moves if host in (one.before, one.after)]
        if len(busy) >= config.moves_per_host:
            yield f"one migration at a time: {', '.join(busy)} is moving from or to {host}"
    own = set(links_of(world, action))
    for a, b in sorted(own):
        busy = [one.vm for one in moves if (a, b) in links_of(world, one)]
        if len(busy) >= config.moves_per_link:
            yield f"one migration at a time: {', '.join(busy)} is moving over {a}>{b}"
