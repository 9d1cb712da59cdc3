"""Replays matrices row by row: each strategy splits the next row's traffic from earlier rows only, and is scored."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backtest.reading import RecordingError
from backtest.route_reading import Floats, Matrices
from orchestrator.optimise import (
    Ewma,
    Fixed,
    LastMatrix,
    MeasuredMatrix,
    Mixed,
    PointForecast,
    Strategy,
    Tunnels,
    auto,
    measured,
    optimum,
    scheduled,
)
from predictor import Forecaster, ForecasterOptions, ForecastSpec, SeriesView, Target, build_models

# Models that cost next to nothing a series: here the forecast serves as a peer, and there may be thousands of pairs.
MODELS = ("naive", "ewma", "ewma_slow", "train_mean", "seasonal_naive")
LEVELS = (0.1, 0.5, 0.9)


def forecast_matrices(times: Floats, demand: Floats, split: int, say: Callable[[str, int, int], None]) -> Floats:
    """The median of row t from rows before t, for each row from `split` on: (T - split) x N.

    `demand` is T x N with NaN where nothing is known. Where the forecaster has nothing to say, the last known value.
    """
    step_s = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    view = SeriesView(demand.T[None].astype(np.float32), 0, 0, max(step_s, 1e-3))
    ask = ForecastSpec((Target(0, 0, 1),), LEVELS)
    forecaster = Forecaster(ask, build_models(MODELS, ask, 1), ForecasterOptions())
    say("fitting", 0, 0)
    forecaster.fit(view.until(split))
    origins = np.arange(split - 1, len(demand) - 1)
    said = np.full((len(origins), demand.shape[1]), np.nan)
    for block in forecaster.walk(view, origins):
        said[block.origins - origins[0]] = block.final[:, :, 0, LEVELS.index(0.5)]
        say("foreseeing", int(block.origins[-1] - origins[0]) + 1, len(origins))
    return np.maximum(np.where(np.isnan(said), _last_known(demand)[origins], said), 0.0)


def _last_known(demand: Floats) -> Floats:
    known = ~np.isnan(demand)
    place = np.maximum.accumulate(np.where(known, np.arange(len(demand))[:, None], 0), axis=0)
    return np.nan_to_num(np.take_along_axis(demand, place, axis=0))


Say = Callable[[str, int, int], None]
AUTO = "auto"
# These are decided on the optimum of each row that was seen, so that its cost is part of their decision's.
NEED_OPTIMUM = ("last", "hedged", AUTO)
FEWEST_TEST_ROWS = 2
# Before the first row that is judged, `auto` has decided so many: it learns from its own decisions.
WARM_UP = 120
TOUCHED = 0.01


@dataclass(slots=True)
class Track:
    """What one strategy did on the test rows."""

    strategy: Strategy
    ratios: list[float] = field(default_factory=list)
    # Where it mixes parts: the ratio of each of them, a list a row
    parts: list[list[float]] = field(default_factory=list)
    moved: list[Floats] = field(default_factory=list)
    seconds: float = 0.0
    splits: Floats | None = None
    kept: list[Floats] | None = None

    def decide(self, tunnels: Tunnels) -> Floats:
        """The splits for the next row; what moved since the row before is noted."""
        begin = time.process_time()
        splits = self.strategy.decide()
        self.seconds += time.process_time() - begin
        if self.splits is not None:
            self.moved.append(np.bincount(tunnels.pair_of, np.abs(splits - self.splits)) / 2)
        self.splits = splits
        if self.kept is not None:
            self.kept.append(splits.copy())
        return splits

    def see(self, row: MeasuredMatrix) -> None:
        """Shows the strategy what came."""
        begin = time.process_time()
        self.strategy.see(row)
        self.seconds += time.process_time() - begin
        if isinstance(self.strategy, Mixed):
            self.parts.append([part.ratio for part in self.strategy.parts])

    def figures_of_parts(self) -> dict[str, dict[str, float]]:
        """The scores of what is mixed, by name; nothing where nothing is."""
        if not isinstance(self.strategy, Mixed):
            return {}
        scores = np.array(self.parts[-len(self.ratios) :]).T
        weights = self.strategy.weights
        return {
            part.name: {**_spread(own), "weight": float(weight)}
            for part, own, weight in zip(self.strategy.parts, scores, weights, strict=True)
        }

    def figures(self, each_s: float) -> dict[str, float]:
        """The scores; `each_s` is what every decision costs besides."""
        ratios = np.array(self.ratios)
        moved = np.array(self.moved) if self.moved else np.zeros((1, 1))
        return {
            **_spread(ratios),
            "share_above_2": float((ratios > 2).mean()),
            "churn": float(moved.mean()),
            "touched": float((moved > TOUCHED).mean()),
            "seconds_per_decision": self.seconds / len(ratios) + each_s,
        }


def _spread(ratios: Floats) -> dict[str, float]:
    quantile = {f"p{level}": float(np.quantile(ratios, level / 100)) for level in (50, 95, 99)}
    return {"mean": float(ratios.mean()), **quantile, "max": float(ratios.max())}


@dataclass(frozen=True, slots=True)
class RouteReplay:
    """The report, and for `auto` the data row, ratio and splits of each test row."""

    report: dict[str, Any]
    ratios: dict[str, Floats]
    rows: list[int]
    splits: list[Floats]


def strategies(tunnels: Tunnels, forecasts: Callable[[int], Floats]) -> dict[str, Strategy]:
    """All that are compared, by the name that they have in the report."""
    return {
        "shortest": Fixed(tunnels.shortest()),
        "equal": Fixed(tunnels.equal()),
        "last": LastMatrix(tunnels),
        "ewma": Ewma(tunnels),
        "forecast": PointForecast(tunnels, forecasts),
        "hedged": scheduled(tunnels),
        AUTO: auto(tunnels),
    }


def route(given: Matrices, train_fraction: float, say: Say) -> RouteReplay:
    """Replays every complete row; those before the split are seen, those from it on are decided and scored.

    Rows with a blank cell are neither seen nor scored. Raises RecordingError when too few rows are left.
    """
    whole, split = _complete(given, train_fraction)
    train = int(np.searchsorted(whole, split))
    blanked = np.where(np.isin(np.arange(len(given.demand)), whole)[:, None], given.demand, np.nan)
    forecasts = forecast_matrices(given.times, blanked, split, say)
    tracks = {
        name: Track(strategy)
        for name, strategy in strategies(given.tunnels, lambda number: forecasts[whole[number] - split]).items()
    }
    tracks[AUTO].kept = []
    bests, optimum_s = _replay(given, whole, train, tracks, say)
    ratios = {name: np.array(track.ratios) for name, track in tracks.items()}
    rows = [int(row) for row in whole[train:]]
    report = _facts(given, split, len(rows)) | {
        "oracle_deviation": _deviation(given, rows, np.array(bests)),
        "strategies": {
            name: track.figures(optimum_s if name in NEED_OPTIMUM else 0.0) for name, track in tracks.items()
        },
        "parts": tracks[AUTO].figures_of_parts(),
    }
    return RouteReplay(report, ratios, rows, tracks[AUTO].kept or [])


def _complete(given: Matrices, train_fraction: float) -> tuple[Any, int]:
    split = int(train_fraction * len(given.demand))
    whole = np.flatnonzero(~np.isnan(given.demand).any(axis=1))
    train, test = int((whole < split).sum()), int((whole >= split).sum())
    if not 0 < train_fraction < 1 or train < FEWEST_TEST_ROWS or test < FEWEST_TEST_ROWS:
        raise RecordingError(
            f"{given.name}: {len(given.demand)} rows and --train-fraction {train_fraction:g} leave {train} complete "
            f"rows to learn from and {test} to judge; each needs at least {FEWEST_TEST_ROWS}"
        )
    return whole, split


def _replay(given: Matrices, whole: Any, train: int, tracks: dict[str, Track], say: Say) -> tuple[list[float], float]:
    optimum_s, bests = 0.0, []
    for number, row in enumerate(whole.tolist()):
        demand, test = given.demand[row], number >= train
        decided = {name: track.decide(given.tunnels) for name, track in tracks.items()} if test else {}
        begin = time.process_time()
        seen = measured(given.tunnels, number, demand)
        optimum_s += time.process_time() - begin if test else 0.0
        best = seen.best if seen.optimal is not None else optimum(given.tunnels, demand).mlu
        bests += [best] if test else []
        for name, splits in decided.items():
            mlu = float(given.tunnels.mlu(splits, demand)[0])
            # Without any traffic every split is as good as the best.
            tracks[name].ratios.append(mlu / best if best > 0 else 1.0)
        if train - WARM_UP <= number < train:
            tracks[AUTO].strategy.decide()
        for track in tracks.values():
            track.see(seen)
            if not test:
                track.seconds = 0.0
        say("judging" if test else "learning", number + 1, len(whole))
    return bests, optimum_s / max(len(whole) - train, 1)


def _facts(given: Matrices, split: int, snapshots: int) -> dict[str, Any]:
    return {
        "file": given.name,
        "topology": given.topology,
        "rows": len(given.demand),
        "train_rows": split,
        "snapshots": snapshots,
        "nodes": len({node for link in given.tunnels.links for node in link}),
        "links": len(given.tunnels.links),
        "pairs": len(given.tunnels.pairs),
        "paths": len(given.tunnels.paths),
    }


def _deviation(given: Matrices, rows: list[int], found: Floats) -> float | None:
    """How far the optimum found here is, at most, from the one that the file gives (share); None without one."""
    if given.given_oracle is None:
        return None
    known = given.given_oracle[rows]
    usable = np.isfinite(known) & (known > 0)
    return float(np.abs(found[usable] / known[usable] - 1).max()) if usable.any() else None


def splits_document(given: Matrices, outcome: RouteReplay) -> dict[str, Any]:
    """What `auto` chose on each test row, with the paths that its shares belong to, so that others can check it."""
    tunnels = given.tunnels
    bounds = [(key, int(first), int(first + count)) for key, first, count in
              zip(given.keys, tunnels.first, tunnels.count, strict=True)]  # fmt: skip
    snapshots = [
        {"row": row, "ratio": ratio, "splits": {key: splits[a:b].tolist() for key, a, b in bounds}}
        for row, ratio, splits in zip(outcome.rows, outcome.ratios[AUTO].tolist(), outcome.splits, strict=True)
    ]
    return {
        "tunnels": {key: [list(path) for path in tunnels.paths[a:b]] for key, a, b in bounds},
        "snapshots": snapshots,
    }
