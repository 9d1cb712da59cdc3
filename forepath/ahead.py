"""Finds the forecasts that speak about a moment ahead: the nearest horizon that reaches it, in the lane that has it."""

from dataclasses import dataclass

from cpdb import Quantity, SettingsError, Store, Subject, SubjectKind
from forepath.foreseen import Expected, Issue, issue
from forepath.spans import span
from predictor import FAST, SLOW


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
