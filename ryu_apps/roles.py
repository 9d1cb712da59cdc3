"""Who should be master of which switch: a pure rule that all controllers work out alike from one reading of leases.

Switches that are linked go together: a pair's rules, a flood tree and the stages of a split lie on several of them,
and whoever decides one must be master of all.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import chain

from cpdb import ControlClaim, ControlPicture, Link
from ryu_apps.topology.state import Directory

Seconds = float
Fabric = frozenset[int]

# A switch that lost one of its connections may come back; and who has just come may go again.
BETTER_FOR_S, FEWER_FOR_S = 3.0, 10.0


def join_fabrics(links: Iterable[Link], directory: Directory, known: Collection[int]) -> list[Fabric]:
    """Switches that are linked, directly or by others; each of `known` is in one of them."""
    fabric = {dpid: {dpid} for dpid in known}
    for link in links:
        ends = [dpid for name in (link.a, link.b) if (dpid := directory.dpid(name)) is not None]
        if len(ends) == 2:
            whole = fabric.get(ends[0], {ends[0]}) | fabric.get(ends[1], {ends[1]})
            fabric |= dict.fromkeys(whole, whole)
    return sorted({frozenset(one) for one in fabric.values()}, key=sorted)


@dataclass(frozen=True, slots=True)
class _Standing:
    """One fabric at this moment: who holds most of it, and to whom most of it is connected."""

    fabric: Fabric
    owner: str | None
    able: tuple[str, ...]


def _standing(fabric: Fabric, picture: ControlPicture) -> _Standing:
    held = Counter(picture.masters[dpid].holder for dpid in sorted(fabric) if dpid in picture.masters)
    most = max(held.values(), default=0)
    owner = min((name for name, count in held.items() if count == most), default=None)
    reach = {one.name: len(fabric.intersection(one.connected)) for one in picture.controllers}
    best = max(reach.values(), default=0)
    return _Standing(fabric, owner, tuple(sorted(name for name, count in reach.items() if count == best > 0)))


@dataclass(slots=True)
class RoleRule:
    """Spreads fabrics evenly and leaves them where they are; remembers only since when somebody would be better."""

    _better_since: dict[Fabric, Seconds] = field(default_factory=dict)

    def decide(self, picture: ControlPicture, fabrics: Iterable[Fabric]) -> dict[int, str]:
        """Who should be master of each switch."""
        standings = [_standing(one, picture) for one in fabrics]
        load: Counter[str] = Counter({one.name: 0 for one in picture.controllers})
        load.update(chain.from_iterable([one.owner] * len(one.fabric) for one in standings if one.owner))
        since, self._better_since = self._better_since, {}
        wanted: dict[int, str] = {}
        for one in sorted(standings, key=lambda one: (-len(one.fabric), sorted(one.fabric))):
            owner = self._owner(one, load, since.get(one.fabric, picture.now), picture.now)
            if owner is not None:
                if one.owner != owner:
                    load.update({owner: len(one.fabric)})
                    load.subtract({one.owner: len(one.fabric)} if one.owner else {})
                wanted |= dict.fromkeys(one.fabric, owner)
        return wanted

    def _owner(self, one: _Standing, load: Counter[str], since: Seconds, now: Seconds) -> str | None:
        best = min(one.able, key=lambda name: (load[name], name), default=None)
        if one.owner is None or best is None or best == one.owner:
            return one.owner if best is None else best
        fewer = load[best] + len(one.fabric) < load[one.owner]
        if one.owner in one.able and not fewer:
            return one.owner
        self._better_since[one.fabric] = since
        waits_s = FEWER_FOR_S if one.owner in one.able else BETTER_FOR_S
        return best if now - since >= waits_s else one.owner


def claim_of(name: str, connected: Collection[int], wanted: dict[int, str], picture: ControlPicture) -> ControlClaim:
    """What `name` has to ask for, so that it becomes as wanted: leases that are free, and back those of others."""
    mine = {dpid for dpid, held in picture.masters.items() if held.holder == name}
    take = {dpid for dpid in connected if wanted.get(dpid) == name and dpid not in picture.masters}
    return ControlClaim(name, connected, take, {dpid for dpid in mine if wanted.get(dpid, name) != name})
