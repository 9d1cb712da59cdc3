"""Chooses the cheapest set of ways to give communications the CPU that they will need, and says why not the others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType
from typing import Any

from cpdb import Seconds

# A quota is a call that is undone as quickly; a vCPU is plugged in, but seldom gets out by itself; a warm machine takes
# its memory and joins a service; a migration copies all memory of another. Each is dearer than all before it together.
COSTS: Mapping[str, float] = MappingProxyType(
    {"set_cpu_limit": 1.0, "set_vcpus": 2.0, "scale_out": 10.0, "migrate_vm": 30.0}
)
# Of each kind no more than so many are looked at: sets grow as powers of two.
MOST_OF_A_KIND = 3
TINY_CORES = 1e-6


@dataclass(frozen=True, slots=True)
class Option:
    """One way: `cores` that it would add after `lead_s`; `why_not` is set where it is out of the question.

    `needs` is the kind without which it is of no use.
    """

    kind: str
    what: str
    cores: float
    lead_s: Seconds
    why_not: str | None = None
    needs: str | None = None

    @property
    def cost(self) -> float:
        """In units of a quota's change."""
        return COSTS.get(self.kind, max(COSTS.values()))


@dataclass(frozen=True, slots=True)
class Choice:
    """The set chosen, what else was considered with the reason against it, and the cores that remain lacking."""

    chosen: tuple[Option, ...]
    rejected: tuple[tuple[Option, str], ...]
    lacking: float

    def to_json(self) -> dict[str, Any]:
        """Plain data for the journal."""
        chosen = [{"action": one.what, "cores": round(one.cores, 3), "lead_s": one.lead_s} for one in self.chosen]
        return {"set": chosen, "lacking": round(self.lacking, 3)}

    def alternatives(self) -> list[dict[str, Any]]:
        """What was not chosen, as a plan's alternatives."""
        return [{"action": one.what, "why_not": text, "lead_s": one.lead_s} for one, text in self.rejected]


def cheapest(options: Sequence[Option], lack_cores: float, time_left_s: Seconds) -> Choice:
    """The cheapest set that covers `lack_cores` and is ready within `time_left_s`; without one, the set that comes
    closest, and the cheapest of those.

    A need that is already there (`time_left_s` <= 0) cannot be met in time: then nothing is too late.
    """
    usable = [one for one in options if one.why_not is None and one.cores > TINY_CORES]
    ready = [one for one in usable if time_left_s <= 0 or one.lead_s <= time_left_s]
    chosen = min(_sets(_fewer(ready)), key=lambda own: _merit(own, lack_cores))
    lacking = max(0.0, lack_cores - sum(one.cores for one in chosen))
    rejected = [(one, _against(one, chosen, lacking, time_left_s)) for one in options if one not in chosen]
    return Choice(chosen, tuple(rejected), lacking if lacking > TINY_CORES else 0.0)


def _fewer(options: Sequence[Option]) -> list[Option]:
    kept: list[Option] = []
    for one in sorted(options, key=lambda one: (one.cost, one.lead_s, -one.cores, one.what)):
        if sum(other.kind == one.kind for other in kept) < MOST_OF_A_KIND:
            kept.append(one)
    return kept


def _sets(options: Sequence[Option]) -> Iterator[tuple[Option, ...]]:
    for size in range(len(options) + 1):
        for own in combinations(options, size):
            kinds = {one.kind for one in own}
            if all(one.needs is None or one.needs in kinds for one in own):
                yield own


def _merit(own: Sequence[Option], lack_cores: float) -> tuple[float, float, float]:
    """Smaller is better: what remains lacking, then the cost, then the time until all is ready."""
    lacking = max(0.0, lack_cores - sum(one.cores for one in own))
    return round(lacking, 6), sum(one.cost for one in own), max((one.lead_s for one in own), default=0.0)


def _against(one: Option, chosen: Sequence[Option], lacking: float, time_left_s: Seconds) -> str:
    if one.why_not is not None:
        return one.why_not
    if one.cores <= TINY_CORES:
        return "it would add nothing"
    if 0 < time_left_s < one.lead_s:
        return f"too late: it takes up to {one.lead_s:.1f} s, {time_left_s:.1f} s are left"
    names = " and ".join(other.what for other in chosen) or "nothing more"
    if lacking > TINY_CORES:
        return f"it would not add to {names}"
    return f"dearer (up to {one.lead_s:.1f} s): {names} suffices"
