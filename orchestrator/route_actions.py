"""The action that splits traffic between switches over several paths."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from cpdb import Json, Seconds, WantedSplit

Ends = tuple[str, str]
Path = tuple[str, ...]
# The one thing that all these actions change
NETWORK = "network"
MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class RouteChange:
    """Shares of the paths between two switches, before and after; () means that all goes the shortest way."""

    from_switch: str
    to_switch: str
    paths: tuple[Path, ...]
    tags: tuple[int, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def ends(self) -> Ends:
        """The two switches."""
        return self.from_switch, self.to_switch

    def inverse(self) -> "RouteChange":
        """Back again."""
        return replace(self, before=self.after, after=self.before)

    def describe(self) -> str:
        """For people, e.g. 'leaf1>leaf2: 75 % over spine1, 25 % over spine2'."""
        between = [path[1:-1] for path in self.paths]
        shares = [
            f"{ratio:.0%} {'over ' + ', '.join(hops) if hops else 'directly'}"
            for hops, ratio in zip(between, self.after, strict=False)
            if ratio > 0
        ]
        return f"{self.from_switch}>{self.to_switch}: {', '.join(shares) or 'the shortest way'}"


@dataclass(frozen=True, slots=True)
class SetRoutes:
    """Splits traffic over paths for `lease_s` seconds unless renewed; then it goes the shortest way again."""

    kind: ClassVar[str] = "set_routes"
    changes: tuple[RouteChange, ...]
    lease_s: Seconds

    @property
    def target(self) -> str:
        return NETWORK

    def inverse(self) -> "SetRoutes":
        return SetRoutes(tuple(one.inverse() for one in self.changes), self.lease_s)

    def describe(self) -> str:
        named = "; ".join(one.describe() for one in self.changes[:MOST_NAMED])
        more = len(self.changes) - MOST_NAMED
        return f"split {named}" + (f" and {more} more" if more > 0 else "")

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` turns back into an equal action."""
        changes = [
            {
                "from": one.from_switch,
                "to": one.to_switch,
                "paths": [list(path) for path in one.paths],
                "tags": list(one.tags),
                "before": list(one.before),
                "after": list(one.after),
            }
            for one in self.changes
        ]
        return {"changes": changes, "lease_s": self.lease_s}

    def wanted(self, owner: str, why: str, now: Seconds) -> tuple[list[WantedSplit], list[Ends]]:
        """The rows to write, and those to take away."""
        rows = [
            WantedSplit(
                *one.ends, one.paths, one.after, one.tags, owner, why, changed_at=now, expires_at=now + self.lease_s
            )
            for one in self.changes
            if any(one.after)
        ]
        return rows, [one.ends for one in self.changes if not any(one.after)]


def routes_from_json(body: Json) -> SetRoutes:
    """The action that `to_json` described. Raises KeyError, TypeError or ValueError when it makes no sense."""
    changes = tuple(
        RouteChange(
            one["from"],
            one["to"],
            tuple(tuple(str(node) for node in path) for path in one["paths"]),
            tuple(int(tag) for tag in one["tags"]),
            tuple(float(share) for share in one["before"]),
            tuple(float(share) for share in one["after"]),
        )
        for one in body["changes"]
    )
    for one in changes:
        if len(one.tags) != len(one.paths) or any(
            len(shares) not in (0, len(one.paths)) for shares in (one.before, one.after)
        ):
            raise ValueError(f"{one.from_switch}>{one.to_switch}: paths, tags and shares differ in number")
    return SetRoutes(changes, float(body["lease_s"]))


def split_key(ends: Ends) -> str:
    """The name under which the controller tells what became of a split."""
    return f"{ends[0]}>{ends[1]}"
