"""How good were the forecasts that were really said: against what was measured, over the issues that are still held."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpdb import ForecastBatch, Quantity, Store, Subject, SubjectKind, nearest_level
from predictor import tier_of

# So long ago were the issues that are looked at.
ISSUE_AGES_S = (10, 20, 30, 45, 60, 90)
ISSUE_AGE_S = 5.0


@dataclass(frozen=True, slots=True)
class HeldError:
    """Of one horizon: WAPE (sum of absolute errors of the median over the sum of what was measured; None: nothing was),
    the share of windows below the 0.9 quantile, and the number of windows.
    """

    horizon_s: int
    wape: float | None
    covered_q90: float
    windows: int


@dataclass(frozen=True, slots=True)
class MeasuredRates:
    """Bytes of each pair (columns, by place) in each second (rows) after `since`."""

    since: float
    places: dict[Subject, int]
    sums: NDArray[np.float64]

    def means(self, subjects: list[Subject], began: float, span_s: int) -> NDArray[np.float64]:
        """Mean rates of these pairs in (began, began + span_s]; 0 of whom nothing is known."""
        first = round(began - self.since)
        total = np.append(self.sums[first : first + span_s].sum(axis=0), 0.0) / span_s
        return total[[self.places.get(one, len(total) - 1) for one in subjects]]


def said_errors(store: Store, now: float, tier: str) -> list[dict[str, Any]]:
    """Errors of mean rates of pairs, by horizon; empty where no issue or not every second is held any more."""
    wanted = tier_of(SubjectKind.PAIR, tier)
    found = (store.forecasts.issue_at(now - age_s, ISSUE_AGE_S, wanted) for age_s in ISSUE_AGES_S)
    issues = [
        one for one in {one.issued_at: one for one in found if one}.values() if Quantity.BYTES_MEAN in one.quantities
    ]
    if not issues:
        return []
    rates = measured_rates(store, min(one.issued_at for one in issues), now)
    return [
        asdict(_error(horizon_s, own, rates))
        for horizon_s in issues[0].horizons_s
        if (own := [one for one in issues if one.issued_at + horizon_s <= now])
    ]


def measured_rates(store: Store, since: float, now: float) -> MeasuredRates:
    """What the batches after `since` tell, second by second."""
    keys = store.facts.flow_keys()
    subjects = {number: Subject(SubjectKind.PAIR, key.source, key.virtual_ip) for number, key in keys.items()}
    places = {subject: place for place, subject in enumerate(dict.fromkeys(subjects.values()))}
    place_of = np.zeros(max(keys, default=0) + 1, dtype=np.int64)
    for number, subject in subjects.items():
        place_of[number] = places[subject]
    sums = np.zeros((int(now - since) + 2, len(places)))
    for item in store.facts.batches(0, since, now):
        row = sums[max(0, int(np.ceil(item.t - since)) - 1)]
        np.add.at(row, place_of[np.asarray(item.key_ids)], np.asarray(item.bytes, dtype=np.float64))
    return MeasuredRates(since, places, sums)


def _error(horizon_s: int, issues: list[ForecastBatch], rates: MeasuredRates) -> HeldError:
    said = np.concatenate([_said(one, horizon_s) for one in issues])
    true = np.concatenate([rates.means(list(one.subjects), one.issued_at, horizon_s) for one in issues])
    known = ~np.isnan(said).any(axis=1)
    median, upper, true = said[known, 0], said[known, 1], true[known]
    total = float(true.sum())
    wape = float(np.abs(median - true).sum()) / total if total > 0 else None
    return HeldError(horizon_s, wape, float(np.mean(true <= upper)) if len(true) else 0.0, len(true))


def _said(issue: ForecastBatch, horizon_s: int) -> NDArray[np.float32]:
    """Median and 0.9 quantile of each subject, a column each."""
    values = np.asarray(issue.array())
    cell = values[:, issue.horizons_s.index(horizon_s), issue.quantities.index(Quantity.BYTES_MEAN)]
    return cell[:, [nearest_level(issue.levels, level) for level in (0.5, 0.9)]]
