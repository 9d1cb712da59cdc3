"""The small alphabet of what the orchestrator can do: printed plan, dry run and deed are these same objects."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, TypeVar

from cpdb import HeavyPair, Json, Limit, Pair, Reservation, Seconds, SettingsError, WantedSplit, show_rate
from orchestrator.machine_actions import (
    SCALE_KINDS,
    VM_KINDS,
    MachineAction,
    MigrateVm,
    ScaleAction,
    ScaleIn,
    ScaleOut,
    ScalingChange,
    SetCpuLimit,
    SetMemory,
    SetNetworkRate,
    SetVcpus,
    VmAction,
    VmChange,
)
from orchestrator.world import Action, World

__all__ = [
    "KINDS",
    "Action",
    "MachineAction",
    "MigrateVm",
    "ReleaseBandwidth",
    "ReserveBandwidth",
    "ScaleAction",
    "ScaleIn",
    "ScaleOut",
    "ScalingChange",
    "SetCpuLimit",
    "SetMemory",
    "SetNetworkRate",
    "SetRoutes",
    "SetVcpus",
    "SetWeights",
    "VmAction",
    "VmChange",
    "from_json",
    "moves_of",
    "of_kind",
    "scalings_of",
]

Ends = tuple[str, str]
Path = tuple[str, ...]
# The one thing that all these actions change
NETWORK = "network"
MOST_NAMED = 3
SomeAction = TypeVar("SomeAction", bound=Action)


@dataclass(frozen=True, slots=True)
class RouteChange:
    """Shares of the paths between two switches, before and after; () means that all goes the shortest way."""

    from_switch: str
    to_switch: str
    paths: tuple[Path, ...]
    tags: tuple[int, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    heavy: tuple[HeavyPair, ...] = ()

    @property
    def ends(self) -> Ends:
        """The two switches."""
        return self.from_switch, self.to_switch

    def inverse(self) -> "RouteChange":
        """Back again."""
        return replace(self, before=self.after, after=self.before, heavy=())

    def describe(self) -> str:
        """For people, e.g. 'leaf1>leaf2: 75 % over spine1, 25 % over spine2'."""
        between = [path[1:-1] for path in self.paths]
        shares = [
            f"{ratio:.0%} {'over ' + ', '.join(hops) if hops else 'directly'}"
            for hops, ratio in zip(between, self.after, strict=False)
            if ratio > 0
        ]
        cut = sum(sum(ratio > 0 for ratio in pair.ratios) > 1 for pair in self.heavy)
        divided = f" ({cut} of its pairs divided by connection)" if cut else ""
        return f"{self.from_switch}>{self.to_switch}: {', '.join(shares) or 'the shortest way'}{divided}"


@dataclass(frozen=True, slots=True)
class SetRoutes(Action):
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

    @classmethod
    def from_body(cls, body: Json) -> Self:
        changes = tuple(
            RouteChange(
                one["from"],
                one["to"],
                tuple(tuple(str(node) for node in path) for path in one["paths"]),
                tuple(int(tag) for tag in one["tags"]),
                tuple(float(share) for share in one["before"]),
                tuple(float(share) for share in one["after"]),
                # Journals written before pairs were placed by size name none.
                tuple(HeavyPair(pair[0], pair[1], pair[2], tuple(pair[3])) for pair in one.get("heavy", ())),
            )
            for one in body["changes"]
        )
        for one in changes:
            if len(one.tags) != len(one.paths) or any(
                len(shares) not in (0, len(one.paths)) for shares in (one.before, one.after)
            ):
                raise ValueError(f"{one.from_switch}>{one.to_switch}: paths, tags and shares differ in number")
        return cls(changes, float(body["lease_s"]))

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
                "heavy": [[pair.source, pair.destination, pair.share, list(pair.ratios)] for pair in one.heavy],
            }
            for one in self.changes
        ]
        return {"changes": changes, "lease_s": self.lease_s}

    def wanted(self, owner: str, why: str, now: Seconds) -> tuple[list[WantedSplit], list[Ends]]:
        """The rows to write, and those to take away."""
        rows = [
            WantedSplit(
                one.from_switch,
                one.to_switch,
                one.paths,
                one.after,
                one.tags,
                owner,
                why,
                changed_at=now,
                expires_at=now + self.lease_s,
                heavy=one.heavy,
            )
            for one in self.changes
            if any(one.after)
        ]
        return rows, [one.ends for one in self.changes if not any(one.after)]


@dataclass(frozen=True, slots=True)
class BandwidthAction(Action):
    key: str
    pair: Pair
    bytes_per_s: float
    limits: tuple[Limit, ...]
    lease_s: Seconds
    dscp: int | None = None

    @property
    def target(self) -> str:
        return self.key

    @property
    def benefits(self) -> str:
        return self.pair.virtual_ip

    @classmethod
    def from_body(cls, body: Json) -> Self:
        limits = tuple(Limit(Pair(row["source"], row["virtual_ip"]), row["bytes_per_s"]) for row in body["limits"])
        pair = Pair(body["source"], body["virtual_ip"])
        # Journals written before there were queues name no mark.
        return cls(body["key"], pair, body["bytes_per_s"], limits, body["lease_s"], body.get("dscp"))

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` turns back into an equal action."""
        limits = [
            {"source": one.pair.source, "virtual_ip": one.pair.virtual_ip, "bytes_per_s": one.bytes_per_s}
            for one in self.limits
        ]
        return {
            "key": self.key,
            "source": self.pair.source,
            "virtual_ip": self.pair.virtual_ip,
            "bytes_per_s": self.bytes_per_s,
            "limits": limits,
            "lease_s": self.lease_s,
            "dscp": self.dscp,
        }


@dataclass(frozen=True, slots=True)
class ReserveBandwidth(BandwidthAction):
    """Keeps `bytes_per_s` free for `pair` for `lease_s` seconds unless renewed.

    By capping competitors (`limits`), or by a mark (`dscp`) that a guaranteed queue on the link knows.
    """

    kind: ClassVar[str] = "reserve_bandwidth"

    @property
    def gives(self) -> bool:
        return True

    def inverse(self) -> "ReleaseBandwidth":
        return ReleaseBandwidth(self.key, self.pair, self.bytes_per_s, self.limits, self.lease_s, self.dscp)

    def applied_to(self, world: World) -> World:
        held = self.reservation("plan", "", world.now)
        return replace(world, wanted=replace(world.wanted, reservations={**world.wanted.reservations, self.key: held}))

    def shown_by(self, world: World, /) -> bool:
        return self.key in world.wanted.reservations

    def reservation(self, owner: str, why: str, now: Seconds) -> Reservation:
        """The row that asks the controller for it."""
        until = now + self.lease_s
        return Reservation(self.key, self.pair, self.bytes_per_s, self.limits, owner, why, now, until, dscp=self.dscp)

    def describe(self) -> str:
        caps = ", ".join(f"{one.pair} to {show_rate(one.bytes_per_s)}" for one in self.limits)
        means = [f"limiting {caps}"] if caps or self.dscp is None else []
        means += [] if self.dscp is None else [f"a guaranteed queue (DSCP {self.dscp})"]
        kept = f"keep {show_rate(self.bytes_per_s)} free for {self.pair}"
        return f"{kept} by {' and '.join(means)} for {self.lease_s:g} s"


@dataclass(frozen=True, slots=True)
class ReleaseBandwidth(BandwidthAction):
    """Withdraws a reservation before its lease ends."""

    kind: ClassVar[str] = "release_bandwidth"

    def inverse(self) -> ReserveBandwidth:
        return ReserveBandwidth(self.key, self.pair, self.bytes_per_s, self.limits, self.lease_s, self.dscp)

    def applied_to(self, world: World) -> World:
        return replace(
            world,
            wanted=replace(
                world.wanted,
                reservations={key: row for key, row in world.wanted.reservations.items() if key != self.key},
            ),
        )

    def shown_by(self, world: World, /) -> bool:
        return self.key not in world.wanted.reservations

    def describe(self) -> str:
        return f"release the {show_rate(self.bytes_per_s)} kept free for {self.pair}"


@dataclass(frozen=True, slots=True)
class SetWeights(Action):
    """Changes the shares of a virtual IP's destinations; only new communications follow.

    Destinations that are not named have the weight declared for them.
    """

    kind: ClassVar[str] = "set_weights"
    virtual_ip: str
    before: tuple[tuple[str, int], ...]
    after: tuple[tuple[str, int], ...]

    @property
    def target(self) -> str:
        return self.virtual_ip

    def inverse(self) -> "SetWeights":
        return SetWeights(self.virtual_ip, self.after, self.before)

    def applied_to(self, world: World) -> World:
        return replace(
            world, wanted=replace(world.wanted, weights={**world.wanted.weights, self.virtual_ip: dict(self.after)})
        )

    def shown_by(self, world: World, /) -> bool:
        return dict(world.wanted.weights.get(self.virtual_ip, {})) == dict(self.after)

    def turns(self, before: Action, /) -> bool:
        return isinstance(before, SetWeights) and before.before == self.after

    @property
    def benefits(self) -> str:
        return self.virtual_ip

    def describe(self) -> str:
        shares = ", ".join(f"{name} {weight}" for name, weight in self.after)
        return f"weights of {self.virtual_ip}: {shares or 'as declared'}"

    @classmethod
    def from_body(cls, body: Json) -> Self:
        return cls(body["virtual_ip"], tuple(body["from"].items()), tuple(body["to"].items()))

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` turns back into an equal action."""
        return {"virtual_ip": self.virtual_ip, "from": dict(self.before), "to": dict(self.after)}


def of_kind(kind: type[SomeAction], actions: Iterable[Action]) -> list[SomeAction]:
    """The actions of one kind, in their order."""
    return [action for action in actions if isinstance(action, kind)]


def moves_of(actions: Iterable[Action]) -> list[MigrateVm]:
    """Machines on the move, in their order."""
    return of_kind(MigrateVm, actions)


def scalings_of(actions: Iterable[Action]) -> list[ScalingChange]:
    """Machines that come into a service, then those that leave one."""
    scalings = (action for action in actions if isinstance(action, ScalingChange))
    return sorted(scalings, key=lambda action: not action.comes)


KINDS: Mapping[str, type[Action]] = {
    one.kind: one for one in (ReserveBandwidth, ReleaseBandwidth, *VM_KINDS, SetWeights, SetRoutes, *SCALE_KINDS)
}


def from_json(kind: str, body: Json) -> Action:
    """The action that `to_json` described. Raises SettingsError when kind or body make no sense."""
    try:
        return KINDS[kind].from_body(body)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        known = ", ".join(sorted(KINDS))
        raise SettingsError(f"action {kind!r}: cannot read {dict(body)!r} ({error!r}); kinds are {known}") from error
