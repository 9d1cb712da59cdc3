"""x"""

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from cpdb import ForecastBatch, HorizonMove, Quantity, SettingsError, Store, Subject, SubjectKind
from forepath.output import span
from forepath.views import FORECAST_MAX_AGE_S
from predictor import FAST, SLOW, ModelScore, summarise_scores, tier_of

SLOW_MAX_AGE_S = 60.0
REFERENCE = "ewma"
NOBODY = 255


@dataclass(frozen=True, slots=True)
class Expected:
    """One quantity of one subject within `horizon_s`: the model with the most say, and quantiles (level -> value)."""

    subject: Subject
    horizon_s: int
    quantity: Quantity
    model: str
    quantiles: dict[float, float]

    def at(self, level: float) -> float | None:
        """The value at the known level nearest to `level`."""
        return self.quantiles[min(self.quantiles, key=lambda one: abs(one - level))] if self.quantiles else None


@dataclass(frozen=True, slots=True)
class Likely:
    """A pair that may talk within the horizon: how probable that is, and how much and how often to expect."""

    source: str
    virtual_ip: str
    service: str
    destination: str | None
    probability: float
    bytes_per_s: float | None
    peak_bytes_per_s_q90: float | None
    connections_per_s: float | None
    trusted_s: int


@dataclass(frozen=True, slots=True)
class Issue:
    """One issue of forecasts with its packed arrays opened."""

    batch: ForecastBatch
    _values: "array[float]" = field(repr=False)
    _talks: "array[float]" = field(repr=False)
    _trusted: "array[int]" = field(repr=False)

    @classmethod
    def of(cls, batch: ForecastBatch) -> "Issue":
        """Opens the arrays of a batch."""
        return cls(batch, array("f", batch.values), array("f", batch.talks), array("H", batch.horizon_s))

    def trusted_s(self, place: int) -> int:
        """The adaptive horizon in force of the subject at `place`, 0 = unknown."""
        return self._trusted[place] if self._trusted else 0

    def probability(self, place: int, horizon: int) -> float | None:
        """How probable it is that the subject at `place` talks within a horizon (by position); None = unknown."""
        if not self._talks:
            return None
        said = self._talks[place * len(self.batch.horizons_s) + horizon]
        return None if math.isnan(said) else said

    def expected(self, place: int) -> Iterator[Expected]:
        """All that is said about the subject at `place`."""
        batch = self.batch
        for horizon, horizon_s in enumerate(batch.horizons_s):
            for number, quantity in enumerate(batch.quantities):
                found = self._at(place, horizon, number)
                if found is not None:
                    yield Expected(batch.subjects[place], horizon_s, quantity, *found)

    def about(self, place: int, horizon: int, quantity: Quantity) -> Expected | None:
        """What is said about one quantity of the subject at `place` within a horizon (by position); None: nothing."""
        found = self._at(place, horizon, self.batch.quantities.index(quantity))
        return found and Expected(self.batch.subjects[place], self.batch.horizons_s[horizon], quantity, *found)

    def quantile(self, place: int, horizon: int, quantity: Quantity, level: float) -> float | None:
        """One value; None where nothing is said."""
        found = self._at(place, horizon, self.batch.quantities.index(quantity))
        return None if found is None else Expected(self.batch.subjects[place], 0, quantity, *found).at(level)

    def _at(self, place: int, horizon: int, quantity: int) -> tuple[str, dict[float, float]] | None:
        batch = self.batch
        cell = (place * len(batch.horizons_s) + horizon) * len(batch.quantities) + quantity
        chosen, wide = batch.chosen[cell], len(batch.levels)
        values = self._values[cell * wide : (cell + 1) * wide]
        said = {level: value for level, value in zip(batch.levels, values, strict=True) if not math.isnan(value)}
        return (batch.models[chosen], said) if said and chosen != NOBODY else None


def issue(store: Store, now: float, kind: SubjectKind, lane: str) -> Issue | None:
    """The newest issue about subjects of a kind in the lane "fast" or "slow"; None while there is none."""
    age_s = SLOW_MAX_AGE_S if lane == SLOW else FORECAST_MAX_AGE_S
    batch = store.forecasts.batch(now, age_s, tier_of(kind, lane))
    return None if batch is None else Issue.of(batch)


def subjects(store: Store, now: float, kind: SubjectKind, lane: str) -> list[Expected]:
    """All that is said about subjects of a kind."""
    found = issue(store, now, kind, lane)
    if found is None:
        return []
    places = [place for place, one in enumerate(found.batch.subjects) if one.kind is kind]
    return [one for place in places for one in found.expected(place)]


def who(store: Store, now: float, horizon_s: int, top: int, lane: str) -> list[Likely]:
    """The `top` pairs likeliest to talk within the known horizon nearest to `horizon_s`, of all pairs ever seen."""
    found = issue(store, now, SubjectKind.PAIR, lane)
    if found is None:
        return []
    horizons = found.batch.horizons_s
    horizon = min(range(len(horizons)), key=lambda number: abs(horizons[number] - horizon_s))
    said = [(found.probability(place, horizon), place) for place in range(len(found.batch.subjects))]
    ranked = sorted(((share, place) for share, place in said if share is not None), key=lambda one: (-one[0], one[1]))
    services = {item.address: item.name for item in store.inventory.virtual_ips()}
    answering = {(talk.source, talk.virtual_ip): talk.destination for talk in store.facts.flow_keys().values()}
    return [_likely(found, place, horizon, share, (services, answering)) for share, place in ranked[:top]]


def _likely(
    found: Issue,
    place: int,
    horizon: int,
    share: float,
    known: tuple[dict[str, str], dict[tuple[str, str], str | None]],
) -> Likely:
    _, source, virtual_ip = found.batch.subjects[place]
    services, answering = known
    return Likely(
        source=source,
        virtual_ip=virtual_ip,
        service=services.get(virtual_ip, virtual_ip),
        destination=answering.get((source, virtual_ip)),
        probability=share,
        bytes_per_s=found.quantile(place, horizon, Quantity.BYTES_MEAN, 0.5),
        peak_bytes_per_s_q90=found.quantile(place, horizon, Quantity.BYTES_PEAK, 0.9),
        connections_per_s=found.quantile(place, horizon, Quantity.CONNECTIONS_MEAN, 0.5),
        trusted_s=found.trusted_s(place),
    )


@dataclass(frozen=True, slots=True)
class Trust:
    """How far a subject's forecasts are trusted (seconds, 0 = unknown), and the moves that led there, oldest first."""

    horizon_s: int
    moves: list[HorizonMove]


def trust(store: Store, now: float, subject: Subject, since: float) -> Trust:
    """The adaptive horizon of one subject."""
    found = issue(store, now, subject.kind, "fast")
    place = found.batch.subjects.index(subject) if found and subject in found.batch.subjects else None
    horizon_s = found.trusted_s(place) if found and place is not None else 0
    moves = [move for move in store.forecasts.moves(since) if move.subject == subject]
    # A batch is written before its cycle's moves.
    return Trust(moves[-1].to_s if moves else horizon_s, moves)


def scores(store: Store, since: float, kind: SubjectKind, lane: str) -> list[ModelScore]:
    """How each model did since then on all subjects of a kind together, in units of the reference's loss."""
    wanted = tier_of(kind, lane)
    # The last row stands for all together and carries the lane.
    batches = [batch for batch in store.forecasts.score_batches(since) if batch.subjects[-1].b == wanted]
    return summarise_scores(batches, None, REFERENCE)


@dataclass(frozen=True, slots=True)
class Fan:
    """A predicted peak: 0.1, 0.5 and 0.9 quantiles in bytes/s, and the model that said so."""

    q10: float
    q50: float
    q90: float
    model: str


@dataclass(frozen=True, slots=True)
class Ahead:
    """What is foreseen for the next `horizon_s` seconds: fans by subject; `issued_at` None when nothing is."""

    at_s: float
    horizon_s: int
    lane: str
    issued_at: float | None
    pairs: dict[Subject, Fan]
    links: dict[Subject, Fan]


def ahead(store: Store, now: float, at_s: float) -> Ahead:
    """The forecasts of peaks of pairs and links for `at_s` seconds ahead.

    Without any fresh forecast, nothing is foreseen. Raises SettingsError when none reaches so far.
    """
    issues = {lane: issue(store, now, SubjectKind.PAIR, lane) for lane in (FAST, SLOW)}
    known = sorted((far, lane) for lane, one in issues.items() if one for far in one.batch.horizons_s)
    if not known:
        return Ahead(at_s, round(at_s), FAST, None, {}, {})
    reaching = [(far, lane) for far, lane in known if far >= at_s]
    if not reaching:
        raise SettingsError(f"nothing is foreseen for {span(at_s)} ahead; the farthest forecast is {known[-1][0]} s")
    horizon_s, lane = reaching[0]
    pairs = issues[lane]
    links = issue(store, now, SubjectKind.LINK, lane)
    issued_at = pairs.batch.issued_at if pairs else None
    return Ahead(at_s, horizon_s, lane, issued_at, _fans(pairs, horizon_s), _fans(links, horizon_s))


def _fans(found: Issue | None, horizon_s: int) -> dict[Subject, Fan]:
    if found is None or horizon_s not in found.batch.horizons_s or Quantity.BYTES_PEAK not in found.batch.quantities:
        return {}
    horizon = found.batch.horizons_s.index(horizon_s)
    said = (found.about(place, horizon, Quantity.BYTES_PEAK) for place in range(len(found.batch.subjects)))
    return {one.subject: _fan(one) for one in said if one is not None}


def _fan(one: Expected) -> Fan:
    low, middle, high = (one.at(level) or 0.0 for level in (0.1, 0.5, 0.9))
    return Fan(low, middle, high, one.model)
