"""Strategy: splits the traffic between switches over paths so that no guess about it has to be right, stage by stage.

Every cycle adds a matrix now and then; every so often the splits of least risk are sought; the way there is cut into
stages, each an action of its own, and the next one is planned once the switches confirm the last.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from cpdb import FIRST_TAG, LAST_TAG, Seconds, Store, WantedSplit
from orchestrator.actions import Ends, Path, RouteChange, SetRoutes
from orchestrator.config import OrchestratorConfig, RouteSettings
from orchestrator.optimise import Habits, Hedged, Risk, Scenarios, blended, first_batch, history_for, measured
from orchestrator.plan import Plan
from orchestrator.steps import Refusal, Step
from orchestrator.strategies.route_net import Board, Matrix, RouteNet
from orchestrator.world import World

# Matrices between two decisions, as in the setting that was chosen on recordings.
A_DECISION = Habits().every
# Before so many matrices nothing is known.
LEAST_SEEN = 5
# Matrices kept to begin anew with when switches, links or pairs of switches come and go.
KEPT = 120
LEVELS = (0.5, 0.9)
# Shares below this are not worth rules of their own.
LEAST_SHARE = 0.01
SUBJECT = "routes"


@dataclass(frozen=True, slots=True)
class _Target:
    """Splits to reach, and what they are promised to be worth."""

    splits: np.ndarray
    reason: dict[str, Any]
    sentence: str
    promise: dict[str, Any]
    since: Seconds


@dataclass(slots=True)
class Router:
    """Keeps matrices and the splits on their way; a restarted one begins to learn anew and leaves splits in force."""

    store: Store
    spec: RouteSettings
    _seen: deque[Matrix] = field(default_factory=lambda: deque(maxlen=KEPT))
    _sampled: Seconds | None = None
    _usual: dict[Ends, Path] = field(default_factory=dict)
    _paths: dict[Ends, list[Path]] = field(default_factory=dict)
    _net: RouteNet | None = None
    _board: Board | None = None
    _hedged: Hedged | None = None
    _target: _Target | None = None
    _decided: int = 0

    def plan(self, world: World, config: OrchestratorConfig) -> Plan:
        """The next stage, if there is one to take now. Raises StoreError."""
        rows = {(one.from_switch, one.to_switch): one for one in self._rows(world.now)}
        net = RouteNet.of(self.store.inventory.nodes(), self.store.inventory.links())
        self._learn_usual(net, world, rows)
        if not self._look(net, world) or any(isinstance(one, SetRoutes) for one in world.in_flight):
            return Plan()
        board = self._up_to_date(net, rows)
        if board is None or self._hedged is None:
            return Plan()
        current, latest = board.splits(rows), self._seen[-1]
        if self._target is None:
            self._hedged.take(current)
            splits = self._hedged.decide()
            if self._hedged.solved == self._decided:
                return self._renewed(world, config, rows)
            self._decided = self._hedged.solved
            found = self._judged(board, current, splits, world.now)
            if isinstance(found, Refusal):
                return Plan(refusals=(found,))
            self._target = found
        return self._stage(world, config, rows, (board, current, board.demand(latest.demand, latest.background)))

    def _rows(self, now: Seconds) -> list[WantedSplit]:
        return [one for one in self.store.wanted.splits() if one.expires_at is None or one.expires_at > now]

    def _learn_usual(self, net: RouteNet, world: World, rows: Mapping[Ends, WantedSplit]) -> None:
        for one in world.pairs.values():
            path = net.inside(one)
            if path and (path[0], path[-1]) not in rows:
                self._usual[path[0], path[-1]] = path

    def _look(self, net: RouteNet, world: World) -> bool:
        """Takes in a matrix when it is time; whether enough is known."""
        if self._sampled is None or world.now - self._sampled >= self.spec.every_s / A_DECISION:
            self._sampled = world.now
            self._seen.append(net.matrix(world, LEVELS))
            if self._hedged is not None and self._board is not None and net == self._net:
                self._see(self._board, self._hedged, self._seen[-1], len(self._seen))
        return len(self._seen) >= LEAST_SEEN

    @staticmethod
    def _see(board: Board, hedged: Hedged, matrix: Matrix, number: int) -> None:
        hedged.see(measured(board.tunnels, number, board.demand(matrix.demand, matrix.background)))

    def _up_to_date(self, net: RouteNet, rows: Mapping[Ends, WantedSplit]) -> Board | None:
        """The tunnels of everything that spoke; with new ones all that is remembered is looked at anew."""
        if net != self._net:
            self._net, self._paths = net, {}
        spoke = {ends for one in self._seen for ends, rate in one.demand.items() if rate > 0}
        known = self._board is not None and set(self._board.ends) >= spoke and bool(self._paths)
        wanted = {(ends, path) for ends, row in rows.items() for path in row.paths if net.whole(path)}
        if known and all(path in self._paths.get(ends, ()) for ends, path in wanted if ends in self._paths):
            return self._board
        self._paths = {ends: found for ends in sorted(spoke) if (found := self._choices(net, ends, rows))}
        self._target = None
        if not self._paths:
            return None
        board = self._board = Board.of(net, self._paths)
        habits = Habits(outlook=self.spec.outlook)
        self._hedged = Hedged(
            board.tunnels, Risk(churn=self.spec.churn), habits, self._outlook, history_for(board.tunnels)
        )
        self._decided = 0
        for number, matrix in enumerate(self._seen):
            self._see(board, self._hedged, matrix, number)
        return board

    def _choices(self, net: RouteNet, ends: Ends, rows: Mapping[Ends, WantedSplit]) -> list[Path]:
        usual, row = self._usual.get(ends), rows.get(ends)
        found = ([usual] if usual else []) + net.alternatives(ends, self.spec.paths) + list(row.paths if row else ())
        return [path for path in dict.fromkeys(found) if net.whole(path)]

    def _outlook(self, _number: int) -> np.ndarray:
        assert self._board is not None
        board, last = self._board, self._seen[-1]
        rows = [board.demand(rates, last.background) for _, rates in sorted(last.expected.items())]
        return np.array(rows) if rows else np.empty((0, len(board.tunnels.pairs)))

    def _judged(self, board: Board, current: np.ndarray, splits: np.ndarray, now: Seconds) -> _Target | Refusal:
        assert self._hedged is not None
        given = self._hedged.history.scenarios()
        if given is None:
            return Refusal(SUBJECT, "no traffic between switches was seen")
        expected = self._outlook(0)
        given = blended(board.tunnels, given, expected, self.spec.outlook) if len(expected) else given
        splits = _without_dust(board, splits)
        before, after = (float(given.weight @ board.tunnels.mlu(one, given.demand)) for one in (current, splits))
        worst = [float(board.tunnels.mlu(one, given.demand).max()) for one in (current, splits)]
        fullest = f"the fullest link {before:.0%} full on average over {len(given.weight)} scenarios"
        if max(before, worst[0]) < self.spec.trigger:
            return Refusal(SUBJECT, f"{fullest}, at most {worst[0]:.0%}: nothing has to move")
        gain = max(1 - after / before, 1 - worst[1] / worst[0])
        if gain < self.spec.min_gain:
            return Refusal(SUBJECT, f"{fullest}; other splits would gain {max(gain, 0):.0%}, too little")
        sentence = (
            f"{fullest} and {worst[0]:.0%} in the worst; with these splits {after:.0%} and {worst[1]:.0%}"
            f" ({'measured and forecast' if len(expected) else 'measured'} traffic)"
        )
        risks = [self._hedged.risk.of(given.ratios(board.tunnels, one), given.weight) for one in (current, splits)]
        reason = {
            "scenarios": len(given.weight),
            "forecast_scenarios": len(expected),
            "mean_max_utilisation": {"before": before, "after": after},
            "worst_max_utilisation": {"before": worst[0], "after": worst[1]},
            "risk": {"before": risks[0], "after": risks[1]},
            "fullest": _fullest(board, given, current, splits),
        }
        first = int(np.argmax(board.tunnels.utilisation(current, given.weight @ given.demand)))
        capacity = float(board.tunnels.capacity[first])
        promise = {"what": "link_bytes_per_s", "link": ">".join(board.links[first]), "value": capacity}
        return _Target(splits, reason, sentence, promise, now)

    def _stage(
        self,
        world: World,
        config: OrchestratorConfig,
        rows: Mapping[Ends, WantedSplit],
        now: tuple[Board, np.ndarray, np.ndarray],
    ) -> Plan:
        board, current, demand = now
        assert self._target is not None
        splits = first_batch(board.tunnels, current, self._target.splits, demand)
        changes = _changes(board, current, splits, rows)
        left = int((np.abs(splits - self._target.splits) > LEAST_SHARE / 2).sum())
        target = self._target
        late = world.now - target.since > 2 * self.spec.every_s
        if left == 0 or not changes or late or not config.act:
            self._target = None
        if not changes or late:
            return Plan()
        action = SetRoutes(changes, self.spec.lease_s)
        more = f"; {left} shares follow once this is in place, lest a link gets more than it has" if left else ""
        lead_s = world.leads.needed(action.kind, config)
        reason = target.reason | {"shares_left": left, "alternatives": []}
        if not left:
            reason["promise"] = target.promise | {"by": world.now + lead_s}
        return Plan((Step(action, target.sentence + more, reason, world.now, lead_s),))

    def _renewed(self, world: World, config: OrchestratorConfig, rows: Mapping[Ends, WantedSplit]) -> Plan:
        spoke = {ends for one in self._seen for ends, rate in one.demand.items() if rate > 0}
        changes = tuple(
            RouteChange(*ends, row.paths, row.tags, row.ratios, row.ratios)
            for ends, row in rows.items()
            if row.expires_at is not None and row.expires_at - world.now < self.spec.lease_s / 2 and ends in spoke
        )
        if not changes:
            return Plan()
        action = SetRoutes(changes, self.spec.lease_s)
        lead_s = world.leads.needed(action.kind, config)
        return Plan((Step(action, "still in use", {"alternatives": []}, world.now, lead_s, renewal=True),))


def _without_dust(board: Board, splits: np.ndarray) -> np.ndarray:
    kept = np.where(splits < LEAST_SHARE, 0.0, splits)
    return np.asarray(kept / np.bincount(board.tunnels.pair_of, kept)[board.tunnels.pair_of])


def _changes(
    board: Board, current: np.ndarray, splits: np.ndarray, rows: Mapping[Ends, WantedSplit]
) -> tuple[RouteChange, ...]:
    tags, found = Tags(rows.values()), []
    for place, ends in enumerate(board.ends):
        own = board.paths(place)
        before, after = current[own], splits[own]
        if np.abs(before - after).max() < LEAST_SHARE / 2:
            continue
        paths = board.choices(place)
        # What carried traffic until now stays in the row with a share of 0: its tag must not be given away yet.
        kept = [n for n in range(len(paths)) if before[n] > 0 or after[n] > 0]
        numbers = tuple(tag for n in kept if (tag := tags.of(ends, paths[n])) is not None)
        if len(numbers) < len(kept):
            continue
        old = tuple(float(before[n]) for n in kept) if ends in rows else ()
        new = tuple(float(after[n]) for n in kept)
        found.append(RouteChange(*ends, tuple(paths[n] for n in kept), numbers, old, new))
    return tuple(found)


def _fullest(board: Board, given: Scenarios, current: np.ndarray, splits: np.ndarray) -> list[dict[str, Any]]:
    """The links that were or will be the fullest on average, with both utilisations."""
    mean = given.weight @ given.demand
    before, after = (board.tunnels.utilisation(one, mean) for one in (current, splits))
    order = np.argsort(-np.maximum(before, after))[:5]
    return [{"link": ">".join(board.links[n]), "before": float(before[n]), "after": float(after[n])} for n in order]


class Tags:
    """Tags in use, and free ones. A path keeps its tag for as long as a row names it, also with a share of 0."""

    def __init__(self, rows: Iterable[WantedSplit]) -> None:
        self._known: dict[tuple[Ends, Path], int] = {}
        self._on_link: dict[Ends, set[int]] = {}
        for row in rows:
            for path, tag in zip(row.paths, row.tags, strict=False):
                self._take((row.from_switch, row.to_switch), path, tag)

    def _take(self, ends: Ends, path: Path, tag: int) -> None:
        self._known[ends, path] = tag
        for hop in pairwise(path):
            self._on_link.setdefault(hop, set()).add(tag)

    def of(self, ends: Ends, path: Path) -> int | None:
        """The tag of a path between two switches, taken when it has none yet; None when all are in use on its links."""
        if (ends, path) not in self._known:
            used = {tag for (other, _), tag in self._known.items() if other == ends}
            used = used.union(*(self._on_link.get(hop, ()) for hop in pairwise(path)))
            free = next((tag for tag in range(FIRST_TAG, LAST_TAG + 1) if tag not in used), None)
            if free is None:
                return None
            self._take(ends, path, free)
        return self._known[ends, path]
