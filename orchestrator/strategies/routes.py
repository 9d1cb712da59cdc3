"""Strategy: splits the traffic between switches over paths so that no guess about it has to be right, stage by stage.

Every cycle adds a matrix now and then; every so often the splits of least risk are sought; the way there is cut into
stages, each an action of its own, and the next one is planned once the switches confirm the last.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from cpdb import FIRST_TAG, LABELS, LAST_TAG, Seconds, WantedSplit
from orchestrator.actions import NETWORK, Ends, Path, RouteChange, SetRoutes, of_kind
from orchestrator.config import RouteSettings
from orchestrator.context import PlanningContext, evidence_of
from orchestrator.observe.matrices import longest_trusted, path_inside
from orchestrator.optimise import Mixed, Risk, Scenarios, SplitEnds, blended, first_batch, measured, mixed
from orchestrator.promises import LinkRatePromise
from orchestrator.proposal import Evidence, Proposal, Reason, Refusal, RefusalCode, Step
from orchestrator.strategies.route_net import FAR, UNKNOWN_BYTES_PER_S, Board, Carried, RouteNet, carried
from orchestrator.world import Matrix, World

# Before so many matrices nothing is known.
LEAST_SEEN = 5
# Shares below this are not worth rules of their own.
LEAST_SHARE = 0.01
SUBJECT = "routes"


@dataclass(frozen=True, slots=True)
class _Target:
    """Splits to reach, and what they are promised to be worth."""

    splits: np.ndarray
    facts: dict[str, Any]
    sentence: str
    promise: LinkRatePromise
    since: Seconds


@dataclass(slots=True)
class Router:
    """Keeps what was learnt of the matrices, and the splits on their way; all of it can be learnt again from them."""

    settings: RouteSettings
    _seen: tuple[Matrix, ...] = ()
    _usual: dict[Ends, Path] = field(default_factory=dict)
    _paths: dict[Ends, list[Path]] = field(default_factory=dict)
    _net: RouteNet | None = None
    _board: Board | None = None
    _hedged: Mixed | None = None
    _target: _Target | None = None
    _decided: int = 0

    def propose(self, context: PlanningContext) -> Proposal:
        """The next stage, if there is one to take now."""
        fabric = context.world.network.fabric
        net = RouteNet(fabric.capacity)
        self._learn_usual(net, context.world)
        self._take_in(net, fabric.matrices)
        if len(self._seen) < LEAST_SEEN or of_kind(SetRoutes, context.world.in_flight):
            return Proposal()
        board = self._up_to_date(net, fabric.splits)
        if board is None or self._hedged is None:
            return Proposal()
        current = board.splits(fabric.splits)
        if self._target is None:
            self._hedged.take(current)
            splits = self._hedged.decide()
            if self._hedged.solved == self._decided:
                return self._renewed(context)
            self._decided = self._hedged.solved
            found = self._judged(board, current, splits, context.world.now)
            if isinstance(found, Refusal):
                return Proposal(refusals=(found,))
            self._target = found
        return self._stage(context, board, current, self._target)

    def _learn_usual(self, net: RouteNet, world: World) -> None:
        for state in world.pairs.values():
            path = path_inside(net.capacity, state)
            if path and (path[0], path[-1]) not in world.network.fabric.splits:
                self._usual[path[0], path[-1]] = path

    def _take_in(self, net: RouteNet, matrices: tuple[Matrix, ...]) -> None:
        """Learns from the matrices that are new."""
        last = self._seen[-1].t if self._seen else None
        self._seen = matrices
        if self._hedged is None or self._board is None or net != self._net:
            return
        for number, matrix in enumerate(matrices):
            if last is not None and matrix.t > last:
                self._see(self._board, self._hedged, matrix, number + 1)

    @staticmethod
    def _see(board: Board, hedged: Mixed, matrix: Matrix, number: int) -> None:
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
        if all(len(found) < 2 for found in self._paths.values()):
            # There is nothing to choose.
            self._hedged = None
            return board
        self._hedged = mixed(board.tunnels, Risk(churn=self.settings.churn), self.settings.outlook, self._outlook)
        # What it has learnt by deciding is learnt again by deciding again.
        self._hedged.take(board.splits(rows))
        for number, matrix in enumerate(self._seen):
            if number >= LEAST_SEEN:
                self._hedged.decide()
            self._see(board, self._hedged, matrix, number)
        self._decided = 0
        return board

    def _choices(self, net: RouteNet, ends: Ends, rows: Mapping[Ends, WantedSplit]) -> list[Path]:
        usual, row = self._usual.get(ends), rows.get(ends)
        found = (
            ([usual] if usual else []) + net.alternatives(ends, self.settings.paths) + list(row.paths if row else ())
        )
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
            return Refusal(RefusalCode.NO_CANDIDATE, NETWORK, SUBJECT, "no traffic between switches was seen")
        expected = self._outlook(0)
        given = blended(board.tunnels, given, expected, self.settings.outlook) if len(expected) else given
        splits = _without_dust(board, splits)
        before, after = (float(given.weight @ board.tunnels.mlu(one, given.demand)) for one in (current, splits))
        worst = [float(board.tunnels.mlu(one, given.demand).max()) for one in (current, splits)]
        fullest = f"the fullest link {before:.0%} full on average over {len(given.weight)} scenarios"
        if max(before, worst[0]) < self.settings.trigger:
            text = f"{fullest}, at most {worst[0]:.0%}: nothing has to move"
            return Refusal(RefusalCode.NO_GAIN, NETWORK, SUBJECT, text)
        gain = max(1 - after / before, 1 - worst[1] / worst[0])
        if gain < self.settings.min_gain:
            text = f"{fullest}; other splits would gain {max(gain, 0):.0%}, too little"
            return Refusal(RefusalCode.NO_GAIN, NETWORK, SUBJECT, text)
        sentence = (
            f"{fullest} and {worst[0]:.0%} in the worst; with these splits {after:.0%} and {worst[1]:.0%}"
            f" ({'measured and forecast' if len(expected) else 'measured'} traffic)"
        )
        risks = [self._hedged.risk.of(given.ratios(board.tunnels, one), given.weight) for one in (current, splits)]
        facts = {
            "scenarios": len(given.weight),
            "forecast_scenarios": len(expected),
            "mean_max_utilisation": {"before": before, "after": after},
            "worst_max_utilisation": {"before": worst[0], "after": worst[1]},
            "risk": {"before": risks[0], "after": risks[1]},
            "fullest": _fullest(board, given, current, splits),
        }
        first = int(np.argmax(board.tunnels.utilisation(current, given.weight @ given.demand)))
        capacity = float(board.tunnels.capacity[first])
        promise = LinkRatePromise(link=">".join(board.links[first]), value=capacity, by=now)
        return _Target(splits, facts, sentence, promise, now)

    def _stage(self, context: PlanningContext, board: Board, current: np.ndarray, target: _Target) -> Proposal:
        rows, latest = context.world.network.fabric.splits, self._seen[-1]
        splits = first_batch(board.tunnels, current, target.splits, board.demand(latest.demand, latest.background))
        loads = carried(context.world, context.world.network.fabric.capacity)
        changes = _changes(board, SplitEnds(current, splits), rows, loads, self.settings.first_label)
        left = int((np.abs(splits - target.splits) > LEAST_SHARE / 2).sum())
        now = context.world.now
        late = now - target.since > 2 * self.settings.every_s
        if left == 0 or not changes or late or not context.config.act:
            self._target = None
        if not changes or late:
            return Proposal()
        action = SetRoutes(changes, self.settings.lease_s)
        more = f"; {left} shares follow once this is in place, lest a link gets more than it has" if left else ""
        lead_s = context.lead_s(action.kind)
        promise = None if left else replace(target.promise, by=now + lead_s)
        proof = _leading(context, rows, target) if target.facts["forecast_scenarios"] else None
        reason = Reason(promise=promise, forecast=proof, facts={**target.facts, "shares_left": left})
        return Proposal((Step(action, target.sentence + more, reason, now, lead_s),))

    def _renewed(self, context: PlanningContext) -> Proposal:
        active = {ends for matrix in self._seen for ends, rate in matrix.demand.items() if rate > 0}
        now, least_s, fabric = context.world.now, self.settings.lease_s / 2, context.world.network.fabric
        changes = tuple(
            RouteChange(*ends, row.paths, row.tags, row.ratios, row.ratios, row.heavy)
            for ends, row in fabric.splits.items()
            if row.expires_at is not None and row.expires_at - now < least_s and ends in active
        )
        if not changes:
            return self._placed_anew(context)
        action = SetRoutes(changes, self.settings.lease_s)
        return Proposal((Step(action, "still in use", Reason(), now, context.lead_s(action.kind), renewal=True),))

    def _placed_anew(self, context: PlanningContext) -> Proposal:
        """Pairs that have grown or shrunk so much that loads are no longer what the splits say."""
        now, fabric, found = context.world.now, context.world.network.fabric, []
        if self._seen[-1].fullest < self.settings.trigger:
            return Proposal()
        for ends, own in carried(context.world, fabric.capacity).items():
            row = fabric.splits.get(ends)
            if (
                row is None
                or sum(ratio > 0 for ratio in row.ratios) < 2
                or now - row.changed_at < self.settings.every_s / 3
            ):
                continue
            least = min(fabric.capacity.get(hop, UNKNOWN_BYTES_PER_S) for path in row.paths for hop in pairwise(path))
            heavy = own.placed(row.paths, row.ratios, row)
            if own.deviation(row) > FAR * least and own.deviation(replace(row, heavy=heavy)) < own.deviation(row) / 2:
                found.append(RouteChange(*ends, row.paths, row.tags, row.ratios, row.ratios, heavy))
        if not found:
            return Proposal()
        action, sentence = (
            SetRoutes(tuple(found), self.settings.lease_s),
            "pairs carry more or less than when they were placed",
        )
        return Proposal((Step(action, sentence, Reason(), now, context.lead_s(action.kind)),))


def _leading(context: PlanningContext, rows: Mapping[Ends, WantedSplit], target: _Target) -> Evidence | None:
    """Of the forecasts that the splits are hedged against, the largest among pairs that the fullest link may carry."""
    a, b = target.promise.link.split(">")
    over = {ends for ends, row in rows.items() if any((a, b) in pairwise(path) for path in row.paths)}
    capacity, found = context.world.network.fabric.capacity, []
    for state in context.world.pairs.values():
        path = path_inside(capacity, state)
        forecast = longest_trusted(state)
        if forecast and ((a, b) in pairwise(path) or (path and (path[0], path[-1]) in over)):
            rate = context.demand.of(state.pair, forecast.horizon_s).bytes
            found.append((forecast.at(context.config.demand.level), evidence_of(context, rate, forecast.horizon_s)))
    return max(found, key=lambda one: one[0])[1] if found else None


def _without_dust(board: Board, splits: np.ndarray) -> np.ndarray:
    kept = np.where(splits < LEAST_SHARE, 0.0, splits)
    return np.asarray(kept / np.bincount(board.tunnels.pair_of, kept)[board.tunnels.pair_of])


def _changes(
    board: Board, splits: SplitEnds, rows: Mapping[Ends, WantedSplit], loads: Mapping[Ends, Carried], first_label: int
) -> tuple[RouteChange, ...]:
    tags, found = Tags(rows.values(), first_label), []
    for place, ends in enumerate(board.ends):
        own = board.paths(place)
        before, after = splits.old[own], splits.new[own]
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
        chosen = tuple(paths[n] for n in kept)
        heavy = (
            loads.get(ends, Carried({})).placed(chosen, new, rows.get(ends)) if sum(one > 0 for one in new) > 1 else ()
        )
        found.append(RouteChange(*ends, chosen, numbers, old, new, heavy))
    return tuple(found)


def _fullest(board: Board, given: Scenarios, current: np.ndarray, splits: np.ndarray) -> list[dict[str, Any]]:
    """The links that were or will be the fullest on average, with both utilisations."""
    mean = given.weight @ given.demand
    before, after = (board.tunnels.utilisation(one, mean) for one in (current, splits))
    order = np.argsort(-np.maximum(before, after))[:5]
    return [{"link": ">".join(board.links[n]), "before": float(before[n]), "after": float(after[n])} for n in order]


class Tags:
    """Tags in use, and free ones. A path keeps its tag for as long as a row names it, also with a share of 0."""

    def __init__(self, rows: Iterable[WantedSplit], first: int = FIRST_TAG) -> None:
        """`first` label of our range; what has one of another gets a new one."""
        self._first = first
        self._known: dict[tuple[Ends, Path], int] = {}
        self._on_link: dict[Ends, set[int]] = {}
        for row in rows:
            for path, tag in zip(row.paths, row.tags, strict=False):
                if first <= tag < first + LABELS:
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
            own = range(self._first, min(self._first + LABELS, LAST_TAG + 1))
            free = next((tag for tag in own if tag not in used), None)
            if free is None:
                return None
            self._take(ends, path, free)
        return self._known[ends, path]
