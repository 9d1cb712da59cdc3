"""All tiers of forecasts: pairs, their sums, links and machines, each seconds ahead and minutes ahead."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from math import inf

import numpy as np
import structlog

from cpdb import HostLoad, LinkLoad, Quantity, RefreshReport, Store, SubjectKind, VmLoad
from predictor.config import PredictorConfig
from predictor.data.parts import WHOLE, Feed
from predictor.data.sources import CoarseSeries, FlowSeries, LoadSeries, Source, destination_of, sums, virtual_ip_of
from predictor.data.view import Floats, ForecastSpec, SeriesView, make_spec
from predictor.models import Model
from predictor.models.communications import Arrivals, Communications
from predictor.service.beside import BesideSeries
from predictor.service.cycle import Predictor, PredictorReport, TierTurn
from predictor.service.workers import FitPool
from predictor.trust.horizon import refreshes, too_short, usable

log = structlog.get_logger(__name__)

FAST, SLOW, LONG = "fast", "slow", "long"
# Tiers beside the pairs' fast one make do with models that need no fitting in the background.
LIGHT_MODELS = ("naive", "ewma", "ewma_slow", "train_mean", "seasonal_naive")
# In cells of minutes ARIMA's one fit an hour is little: without it days lose to recent rows some steps ahead.
LONG_MODELS = (*LIGHT_MODELS, "arima")
# Sums, links and machines are looked at in turn, each in every second cycle: that halves what they cost.
TURNS = 2
# How often it is looked up how often switches renew their counters
LOOK_EVERY_S = 60.0
MACHINES = (SubjectKind.HOST, SubjectKind.VM)
# What costs a machine work: requests, and bytes.
FEATURES = (Quantity.CONNECTIONS_MEAN, Quantity.BYTES_MEAN)


class MachineArrivals:
    """Looks up, for the machines of one predictor, what another one knows and forecasts about destinations."""

    def __init__(self, destinations: Predictor, machines: Source, host_of: Mapping[str, str]) -> None:
        self._destinations = destinations
        self._machines = machines
        self._host_of = host_of

    def __call__(self, view: SeriesView) -> Arrivals | None:
        """Arrivals on the cells of the machines' view; None while there are none."""
        source = self._destinations.source
        channels = [source.quantities.index(quantity) // 2 for quantity in FEATURES]
        cells = source.window(view.start, view.cells)[channels]
        links = self._links(view.series, cells.shape[1])
        if not links.any():
            return None
        past = np.einsum("md,fdc->fmc", links, np.nan_to_num(cells))
        known: Floats = np.asarray(links @ np.isnan(cells[0]).astype(np.float32) == 0)
        idle = np.flatnonzero(links.sum(axis=1) == 0)
        past[:, idle] = np.nan
        past = np.where(known, past, np.nan)
        final = self._destinations.final
        ahead = self._ahead(final, links[:, : len(final)])
        return Arrivals(past, ahead)

    def _links(self, machines: int, destinations: int) -> Floats:
        """Machines x destinations: 1 where what a destination gets arrives at a machine."""
        named = [subject.a for subject in self._destinations.source.subjects[:destinations]]
        links = np.zeros((machines, destinations), dtype=np.float32)
        for row, subject in enumerate(self._machines.subjects[:machines]):
            for column, name in enumerate(named):
                at = self._host_of.get(name) if subject.kind is SubjectKind.HOST else name
                links[row, column] = at == subject.a
        return links

    def _ahead(self, final: Floats, links: Floats) -> Floats:
        """Features x machines x targets x levels. Sums of quantiles are quantiles of sums that move together."""
        quantities, asked = self._destinations.source.quantities, self._destinations.forecaster.spec
        spec = make_spec(self._destinations.config.horizons, len(self._machines.quantities) // 2, asked.levels)
        ahead = np.full((len(FEATURES), len(links), len(spec.targets), len(spec.levels)), np.nan, dtype=np.float32)
        if not len(final):
            return ahead
        theirs = {(target.channel, target.length, target.peak): n for n, target in enumerate(asked.targets)}
        for number, quantity in enumerate(FEATURES):
            channel = quantities.index(quantity) // 2
            for place, target in enumerate(spec.targets):
                found = theirs[channel, target.length, target.peak]
                summed = links @ np.nan_to_num(final[:, found])
                told: Floats = np.asarray(links @ np.isnan(final[:, found, 0]).astype(np.float32) == 0)
                told &= links.any(axis=1)
                ahead[number, told, place] = summed[told]
        return ahead


def tier_of(kind: SubjectKind, speed: str = FAST) -> str:
    """Under what name forecasts about a kind of subject are kept: pairs under the bare speed, others beside it."""
    if kind is SubjectKind.PAIR:
        return speed
    return f"{speed}/machine" if kind in MACHINES else f"{speed}/{kind.value}"


BESIDE = tier_of(SubjectKind.BESIDE)
# They share what they read, so it is their turn together.
ABOUT_MACHINES = (tier_of(SubjectKind.DESTINATION), tier_of(SubjectKind.VM), BESIDE)


def _among(models: Sequence[str], configured: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in models if name in configured)


def slow_config(fast: PredictorConfig, tier: str = SLOW) -> PredictorConfig:
    """What predictors of a slower tier are told: its own cells and horizons, and all spans longer as its cells are."""
    slow = fast.slow if tier == SLOW else fast.long
    slower = slow.step_s / fast.step_s
    models = _among(LIGHT_MODELS if tier == SLOW else LONG_MODELS, fast.models)
    return fast.tuned(
        horizons_s=slow.horizons_s,
        step_s=slow.step_s,
        history={
            "window_s": slow.history_s,
            "min_s": 0.5 * slower * fast.history.min_s,
            "half_life_s": slower * fast.history.half_life_s,
            "max_stale_s": slower * fast.history.max_stale_s,
        },
        limits={"refit_every_s": slower * fast.limits.refit_every_s, "threads": 1},
        models=models if slow.models is None else slow.models,
        tier=tier,
    )


class Tiers:
    """Predictors of all tiers over one database. Give it every moment once, in order; `close` it when done.

    With `only` nothing but pairs and the fast tiers of these names (and their slow ones) is forecast: for who has no
    use for more. Pairs are those of the `feed`; without one there are none.
    """

    def __init__(
        self,
        config: PredictorConfig,
        background: bool | FitPool = True,
        only: Collection[str] | None = None,
        feed: Feed | None = WHOLE,
    ) -> None:
        # One process fits for all: what slower tiers fit takes a second an hour.
        self._pool = FitPool() if background is True else None
        self._background = self._pool or background
        self._tells = config.shard == 0
        self._pairs = [] if feed is None else [_pairs(config, self._background, feed)]
        self._every_s = {SLOW: config.slow.step_s, LONG: config.long.step_s}
        self._cycled_at: dict[str, float] = {}
        self._number = 0
        self._looked_at: float | None = None
        self.refreshes: Mapping[str, float] = {}
        self._told: set[str] = set()
        light = config.tuned(models=_among(LIGHT_MODELS, config.models), limits={"threads": 1})
        machines = LoadSeries((VmLoad, HostLoad), config.step_s, config.history.window_s)
        self._host_of = machines.host_of
        every = _sources(light, machines)
        pairs = {FAST: self.pairs.source} if self._pairs else {}
        sources = every if only is None else {tier: one for tier, one in every.items() if tier in only}
        self.fast = self._beside(light, sources)
        self.slow: dict[str, Predictor] = {}
        if config.slow.horizons_s:
            slowly = slow_config(config)
            both = {tier.replace(FAST, SLOW, 1): one for tier, one in {**pairs, **sources}.items()}
            coarse = {tier: CoarseSeries(one, slowly.step_s, slowly.history.window_s) for tier, one in both.items()}
            self.slow = self._beside(slowly, coarse)
        self.long: dict[str, Predictor] = {}
        if config.long.horizons_s:
            hours = slow_config(config, LONG)
            coarse = {LONG: CoarseSeries(pairs[FAST], hours.step_s, hours.history.window_s)} if pairs else {}
            self.long = self._beside(hours, coarse)

    @property
    def pairs(self) -> Predictor:
        """The predictor of pairs, seconds ahead."""
        return self._pairs[0]

    def _beside(self, config: PredictorConfig, sources: Mapping[str, Source]) -> dict[str, Predictor]:
        """A predictor for each tier; that of machines knows what is forecast to arrive at them."""
        made: dict[str, Predictor] = {}
        for tier, source in sources.items():
            more: list[Callable[[ForecastSpec], Model]] = []
            if tier.endswith("/machine"):
                destinations = made[tier_of(SubjectKind.DESTINATION, tier.split("/")[0])]
                arrivals = MachineArrivals(destinations, source, self._host_of)
                more = [partial(Communications, arrivals=arrivals)]
            # Only pairs are worth models that have to be fitted.
            own = config.tuned(
                tier=tier, models=config.models if tier in (SLOW, LONG) else _among(LIGHT_MODELS, config.models)
            )
            made[tier] = Predictor(own, self._background, source=source, more=more)
        return made

    def cycle(self, store: Store, now: float) -> PredictorReport:
        """One cycle of the pairs, their sums, links and machines, and from time to time of all slow tiers.

        Returns what the cycle of the pairs did. Raises StoreError when the store fails; the next cycle goes on.
        """
        reports = []
        for issue in self.turns(store, now):
            issue.write(store)
            reports.append(issue.report)
        return reports[0] if self._pairs else PredictorReport(now)

    def turns(self, store: Store, now: float, known: Mapping[str, float] | None = None) -> Iterator[TierTurn]:
        """What each tier has to say in this cycle, that of pairs first; nothing is written.

        Raises StoreError. `known` is how often switches renew their counters, where that is not to be looked up.
        """
        self._look_at_switches(store, now, known)
        for pairs in self._pairs:
            yield pairs.turn(store, now)
        self._number += 1
        for tier, predictor in self.fast.items():
            if (tier in ABOUT_MACHINES) == self._number % TURNS:
                yield predictor.turn(store, now)
        for tier, predictors in ((SLOW, self.slow), (LONG, self.long)):
            if now - self._cycled_at.get(tier, -inf) >= self._every_s[tier]:
                self._cycled_at[tier] = now
                for predictor in predictors.values():
                    yield predictor.turn(store, now)

    def follow(self, store: Store, now: float) -> None:
        """Takes up what was learnt and what is measured, and forecasts nothing. Raises StoreError."""
        for predictor in self._all():
            predictor.follow(store, now)

    def _look_at_switches(self, store: Store, now: float, known: Mapping[str, float] | None) -> None:
        """Refuses horizons that are too short for how often switches renew their counters; each line is logged once."""
        if self._looked_at is not None and now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        if known is None:
            known = refreshes(store.wanted.observed_of(RefreshReport), now)
        self.refreshes = known
        for predictor in self._all():
            horizons_s = predictor.config.horizons_s
            line = too_short(horizons_s, known)
            if line and self._tells and line not in self._told:
                self._told.add(line)
                log.warning(line, tier=predictor.config.tier)
            predictor.shortest_s = min(usable(horizons_s, known), default=float("inf"))

    def keep(self, store: Store, now: float) -> None:
        """Writes down all that was learnt, for the next start to go on with."""
        for predictor in self._all():
            predictor.keep(store, now)

    def close(self) -> None:
        """Ends the fitting process."""
        for predictor in self._all():
            predictor.close()
        if self._pool is not None:
            self._pool.close()

    def _all(self) -> tuple[Predictor, ...]:
        return (*self._pairs, *self.fast.values(), *self.slow.values(), *self.long.values())


def _pairs(config: PredictorConfig, background: bool | FitPool, feed: Feed) -> Predictor:
    source = FlowSeries.of_pairs(config.step_s, config.history.window_s, config.limits.max_pairs, feed)
    source.panel.max_bytes = round(1e6 * config.limits.grid_mb)
    return Predictor(config, background, source)


def _sources(config: PredictorConfig, machines: LoadSeries) -> dict[str, Source]:
    step_s, window_s = config.step_s, config.history.window_s
    destinations = sums(destination_of, step_s, window_s)
    return {
        tier_of(SubjectKind.VIRTUAL_IP): sums(virtual_ip_of, step_s, window_s),
        tier_of(SubjectKind.DESTINATION): destinations,
        tier_of(SubjectKind.LINK): LoadSeries((LinkLoad,), step_s, window_s),
        tier_of(SubjectKind.VM): machines,
        BESIDE: BesideSeries(machines, destinations),
    }
