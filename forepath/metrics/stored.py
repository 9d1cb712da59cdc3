"""What the database knows, told to Prometheus by a process that has little else to do."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from cpdb import Figures, MetricSpec, SettingsError, Store, StoreError, SubjectKind
from forepath import forecasts, views
from forepath.paths import PathFinder, links
from predictor import BLENDED, FAST, SLOW

UP = MetricSpec("database_up", "gauge", "1 while the database answers.")
SAMPLE_AGE = MetricSpec("last_sample_age_seconds", "gauge", "Since somebody last looked at a switch's counters.")
FORECAST_AGE = MetricSpec("last_forecast_age_seconds", "gauge", "Since forecasts of a tier were issued.", ("tier",))
PAUSED = MetricSpec("paused", "gauge", "1 while a pause is in force.")
ON_DUTY = MetricSpec("on_duty", "gauge", "1 where an orchestrator works, by what it may do.", ("mode",))
ALARMS = MetricSpec("alarms_open", "gauge", "Alarms that are open, by kind.", ("kind",))
ERROR = MetricSpec(
    "forecast_error_ratio", "gauge", "Pinball loss of what was forecast, in units of EWMA's, in the last 15 min.",
    ("tier", "horizon", "quantity"),
)  # fmt: skip
COVERAGE = MetricSpec(
    "forecast_coverage_ratio", "gauge", "Share of windows below the 0.9 quantile, in the last 15 min; should be 0.9.",
    ("tier", "horizon", "quantity"),
)  # fmt: skip
SHARE = MetricSpec("model_share_ratio", "gauge", "How much say a model has in forecasts of pairs.", ("tier", "model"))
PAIRS = MetricSpec("forecast_pairs", "gauge", "Pairs with a forecast.", ("tier",))
TRUSTED = MetricSpec("forecast_trusted_pairs", "gauge", "Of those: trusted for at least one horizon.", ("tier",))
RESERVATIONS = MetricSpec("reservations", "gauge", "Reservations that are held.")
RESERVED = MetricSpec("reserved_bytes_per_second", "gauge", "Rate that is kept free by them, in all.")
REQUESTS = MetricSpec("bandwidth_requests", "gauge", "Open requests for bandwidth by state.", ("state",))
SHORTAGE = MetricSpec(
    "shortage_seconds", "counter", "Seconds that something was short, of what began since this process did.",
    ("kind", "foreseen"),
)  # fmt: skip
PAIR = MetricSpec("pair_bytes_per_second", "gauge", "What a pair sends; the busiest ones.", ("source", "service"))
PAIR_AHEAD = MetricSpec(
    "pair_expected_bytes_per_second", "gauge", "0.9 quantile of a pair's peak within the horizon.",
    ("source", "service", "horizon"),
)  # fmt: skip
LINK = MetricSpec("link_bytes_per_second", "gauge", "What left a switch there; links fullest ahead.", ("from", "to"))
LINK_CAPACITY = MetricSpec("link_capacity_bytes_per_second", "gauge", "Capacity, where known.", ("from", "to"))
LINK_AHEAD = MetricSpec(
    "link_predicted_ratio", "gauge", "0.9 quantile of the predicted peak, as a share of the capacity.", ("from", "to")
)
HOST_CPU = MetricSpec("host_cpu_used_cores", "gauge", "Cores that a hypervisor uses.", ("host",))
HOST_CPU_CAPACITY = MetricSpec("host_cpu_capacity_cores", "gauge", "Cores that it has.", ("host",))
HOST_MEMORY = MetricSpec("host_memory_used_bytes", "gauge", "Memory that a hypervisor uses.", ("host",))
HOST_MEMORY_CAPACITY = MetricSpec("host_memory_capacity_bytes", "gauge", "Memory that it has.", ("host",))
STORED_METRICS = (
    UP, SAMPLE_AGE, FORECAST_AGE, PAUSED, ON_DUTY, ALARMS, ERROR, COVERAGE, SHARE, PAIRS, TRUSTED, RESERVATIONS,
    RESERVED, REQUESTS, SHORTAGE, PAIR, PAIR_AHEAD, LINK, LINK_CAPACITY, LINK_AHEAD, HOST_CPU, HOST_CPU_CAPACITY,
    HOST_MEMORY, HOST_MEMORY_CAPACITY,
)  # fmt: skip
SCORES_SINCE_S = 900.0
AHEAD_S = 15.0
# However many ask, the database is read no more often than this.
AGAIN_S = 5.0
Labelled = Mapping[tuple[str, ...], float]


@dataclass(slots=True)
class StoredFigures:
    """Reads them when asked; of pairs, links and hosts the `top` first. What was read is told again for a while."""

    store: Store
    top: int
    clock: Callable[[], float] = time.time
    _since: float = field(init=False)
    _due_at: float = 0.0
    _known: Figures = field(default_factory=dict)
    _reading: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._since = self.clock()

    def figures(self) -> Figures:
        """All of STORED_METRICS that there is something to tell of; only UP where the database is away."""
        with self._reading:
            now = self.clock()
            if now >= self._due_at:
                try:
                    self._known = {UP: {(): 1.0}, **stored_figures(self.store, now, self._since, self.top)}
                except StoreError:
                    self._known = {UP: {(): 0.0}}
                # However large the database is, reading it shall not take more than a tenth of the time.
                self._due_at = max(now + AGAIN_S, now + 10 * (self.clock() - now))
            return self._known


def stored_figures(store: Store, now: float, since: float, top: int) -> Figures:
    """What the store holds of the moment `now`; shortages from `since` on. Raises StoreError."""
    newest = store.series.newest(now)
    held = store.wanted.reservations_at(now)
    return {
        SAMPLE_AGE: {} if newest is None else {(): now - newest},
        PAUSED: {(): store.pauses.at(now) is not None},
        ON_DUTY: {(mode,): mode in views.on_duty(store, now) for mode in ("acting", "advising")},
        ALARMS: _counted(one.kind for one in store.alarms.at(now)),
        RESERVATIONS: {(): len(held)},
        RESERVED: {(): sum(one.bytes_per_s for one in held)},
        REQUESTS: _counted(one.answer.state.value for one in store.requests.at(now)),
        SHORTAGE: _shortages(store, since),
        **_forecasts(store, now),
        **_pairs(store, now, top),
        **_links(store, now, top),
        **_hosts(store, now, top),
    }


def _counted(names: Iterable[str]) -> Labelled:
    return {(name,): float(count) for name, count in Counter(names).items()}


def _shortages(store: Store, since: float) -> Labelled:
    seconds: dict[tuple[str, ...], float] = defaultdict(float)
    for one in store.journal.shortages(since):
        seconds[one.kind.value, "no" if one.foreseen_by is None else "yes"] += one.seconds
    return seconds


def _forecasts(store: Store, now: float) -> Figures:
    found: dict[MetricSpec, dict[tuple[str, ...], float]] = {
        spec: {} for spec in (FORECAST_AGE, PAIRS, TRUSTED, SHARE, ERROR, COVERAGE)
    }
    for tier in (FAST, SLOW):
        issue = forecasts.issue(store, now, SubjectKind.PAIR, tier)
        blend = forecasts.blend(store, SubjectKind.PAIR, tier)
        if issue is not None:
            found[FORECAST_AGE][(tier,)] = now - issue.issued_at
            found[PAIRS][(tier,)] = len(issue.subjects)
            found[TRUSTED][(tier,)] = sum(issue.trusted_s(one) > 0 for one in issue.subjects)
        if blend is not None:
            found[SHARE] |= {(tier, model): share for model, share in blend.shares.items()}
        for one in forecasts.scores(store, now - SCORES_SINCE_S, now, SubjectKind.PAIR, tier):
            if one.model == BLENDED:
                place = tier, str(one.horizon_s), one.quantity.value
                found[ERROR][place], found[COVERAGE][place] = one.relative, one.covered_q90
    return found


def _pairs(store: Store, now: float, top: int) -> Figures:
    found = views.pairs(store, now)[:top]
    ahead: Labelled = {
        (one.pair.source, one.service, str(horizon_s)): expected
        for one in found
        for horizon_s, expected in one.expected_q90.items()
    }
    return {PAIR: {(one.pair.source, one.service): one.bytes_per_s for one in found}, PAIR_AHEAD: ahead}


def _links(store: Store, now: float, top: int) -> Figures:
    try:
        foreseen = forecasts.ahead(store, now, AHEAD_S)
    except SettingsError:  # nothing reaches so far
        foreseen = forecasts.ahead(store, now, 0.0)
    found = links(store, now, foreseen, PathFinder.of(store, now, AHEAD_S).path)[:top]
    capacities = {(one.from_node, one.to_node): one.capacity_bytes_per_s for one in found}
    rates = {(one.from_node, one.to_node): one.bytes_per_s for one in found}
    return {
        LINK: {ends: rate for ends, rate in rates.items() if rate is not None},
        LINK_CAPACITY: {ends: capacity for ends, capacity in capacities.items() if capacity is not None},
        LINK_AHEAD: {
            (one.from_node, one.to_node): one.predicted_utilisation for one in found if one.capacity_bytes_per_s
        },
    }


def _hosts(store: Store, now: float, top: int) -> Figures:
    found = views.newest_host_loads(store, now)[:top]
    return {
        HOST_CPU: {(one.host,): one.cpu_cores_used for one in found},
        HOST_CPU_CAPACITY: {(one.host,): one.cpu_cores_capacity for one in found},
        HOST_MEMORY: {(one.host,): one.memory_bytes_used for one in found},
        HOST_MEMORY_CAPACITY: {(one.host,): one.memory_bytes_capacity for one in found},
    }
