"""Reads what the predictor has written: who, how much, how far it is trusted and how good it was."""

from dataclasses import dataclass

from cpdb import (
    BlendReport,
    ForecastBatch,
    HorizonMove,
    Quantity,
    SettingsError,
    Store,
    Subject,
    SubjectForecast,
    SubjectKind,
    Trust,
)
from forepath.output import span
from forepath.views import FORECAST_MAX_AGE_S
from predictor import FAST, SLOW, ModelScore, summarise_scores, tier_of

SLOW_MAX_AGE_S = 60.0
REFERENCE = "ewma"


@dataclass(frozen=True, slots=True)
class LikelyPair:
    """A pair that may be active within the horizon: how probable that is, and how much and how often to expect."""

    source: str
    virtual_ip: str
    service: str
    destination: str | None
    probability: float
    bytes_per_s: float | None
    peak_bytes_per_s_q90: float | None
    connections_per_s: float | None
    trusted_s: int


def issue(store: Store, now: float, kind: SubjectKind, tier: str) -> ForecastBatch | None:
    """The newest issue about subjects of a kind in the tier "fast" or "slow"; None where there is none."""
    age_s = SLOW_MAX_AGE_S if tier == SLOW else FORECAST_MAX_AGE_S
    return store.forecasts.issue_at(now, age_s, tier_of(kind, tier))


def subjects(store: Store, now: float, kind: SubjectKind, tier: str) -> list[SubjectForecast]:
    """All that is said about subjects of a kind."""
    batch = issue(store, now, kind, tier)
    return [] if batch is None else [row for row in batch.rows() if row.subject.kind is kind]


def who(store: Store, now: float, horizon_s: int, top: int, tier: str) -> list[LikelyPair]:
    """The `top` pairs likeliest to be active within the known horizon nearest to `horizon_s`, of all ever seen."""
    batch = issue(store, now, SubjectKind.PAIR, tier)
    if batch is None:
        return []
    within_s = min(batch.horizons_s, key=lambda known_s: abs(known_s - horizon_s))
    chances = ((batch.active(subject, within_s), subject) for subject in batch.subjects)
    known = [(chance, place, subject) for place, (chance, subject) in enumerate(chances) if chance is not None]
    ranked = sorted(known, key=lambda item: (-item[0], item[1]))
    services = {item.address: item.name for item in store.inventory.virtual_ips()}
    answering = {(key.source, key.virtual_ip): key.destination for key in store.facts.flow_keys().values()}
    return [
        LikelyPair(
            source=subject.a,
            virtual_ip=subject.b,
            service=services.get(subject.b, subject.b),
            destination=answering.get((subject.a, subject.b)),
            probability=chance,
            bytes_per_s=batch.value(subject, within_s, Quantity.BYTES_MEAN, 0.5),
            peak_bytes_per_s_q90=batch.value(subject, within_s, Quantity.BYTES_PEAK, 0.9),
            connections_per_s=batch.value(subject, within_s, Quantity.CONNECTIONS_MEAN, 0.5),
            trusted_s=batch.trusted_s(subject),
        )
        for chance, _, subject in ranked[:top]
    ]


@dataclass(frozen=True, slots=True)
class TrustHistory:
    """How far a subject's forecasts are trusted in each tier, and the moves that led there, oldest first."""

    tiers: dict[str, Trust]
    moves: list[HorizonMove]


def trust(store: Store, now: float, subject: Subject, since: float) -> TrustHistory:
    """The trusted horizons of one subject, in every tier that says anything about it."""
    issues = {tier: issue(store, now, subject.kind, tier) for tier in (FAST, SLOW)}
    tiers = {tier: found.trust(subject) for tier, found in issues.items() if found and subject in found.subjects}
    return TrustHistory(tiers, [move for move in store.forecasts.moves(since, now) if move.subject == subject])


def scores(store: Store, since: float, until: float, kind: SubjectKind, tier: str) -> list[ModelScore]:
    """How each model did in that time on all subjects of a kind together, in units of the reference's loss."""
    wanted = tier_of(kind, tier)
    # The last row stands for all together and carries the tier.
    batches = [batch for batch in store.forecasts.score_batches(since, until) if batch.subjects[-1].b == wanted]
    return summarise_scores(batches, None, REFERENCE)


def blend(store: Store, kind: SubjectKind, tier: str) -> BlendReport | None:
    """How much say each model had in the forecasts of a tier when it was last measured; None while it was not."""
    wanted = tier_of(kind, tier)
    return next((one for one in store.wanted.observed_of(BlendReport) if one.tier == wanted), None)


@dataclass(frozen=True, slots=True)
class QuantileBand:
    """A predicted peak: 0.1, 0.5 and 0.9 quantiles in bytes/s, and the model that said so."""

    q10: float
    q50: float
    q90: float
    model: str

    @property
    def band(self) -> tuple[float, float, float]:
        """The quantiles alone."""
        return self.q10, self.q50, self.q90


@dataclass(frozen=True, slots=True)
class Ahead:
    """What is foreseen for the next `horizon_s` seconds: bands by subject; `issued_at` None when nothing is."""

    at_s: float
    horizon_s: int
    tier: str
    issued_at: float | None
    pairs: dict[Subject, QuantileBand]
    links: dict[Subject, QuantileBand]


def ahead(store: Store, now: float, at_s: float) -> Ahead:
    """The forecasts of peaks of pairs and links for `at_s` seconds ahead.

    Without any fresh forecast, nothing is foreseen. Raises SettingsError when none reaches so far.
    """
    issues = {tier: issue(store, now, SubjectKind.PAIR, tier) for tier in (FAST, SLOW)}
    known = sorted((far, tier) for tier, one in issues.items() if one for far in one.horizons_s)
    if not known:
        return Ahead(at_s, round(at_s), FAST, None, {}, {})
    reaching = [(far, tier) for far, tier in known if far >= at_s]
    if not reaching:
        raise SettingsError(f"nothing is foreseen for {span(at_s)} ahead; the farthest forecast is {known[-1][0]} s")
    horizon_s, tier = reaching[0]
    pairs = issues[tier]
    links = issue(store, now, SubjectKind.LINK, tier)
    issued_at = pairs.issued_at if pairs else None
    return Ahead(at_s, horizon_s, tier, issued_at, _quantile_bands(pairs, horizon_s), _quantile_bands(links, horizon_s))


def _quantile_bands(batch: ForecastBatch | None, horizon_s: int) -> dict[Subject, QuantileBand]:
    rows = batch.rows(horizons_s=(horizon_s,), quantities=(Quantity.BYTES_PEAK,)) if batch else ()
    return {row.subject: _quantile_band(row) for row in rows}


def _quantile_band(row: SubjectForecast) -> QuantileBand:
    low, middle, high = (row.at(level) for level in (0.1, 0.5, 0.9))
    return QuantileBand(low, middle, high, row.model)
