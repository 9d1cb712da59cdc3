"""Gives a series without a past the forecasts of its peers, until its own history speaks for it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cpdb import Subject, SubjectKind
from predictor.data.view import Floats, ForecastSpec, Ints, SeriesView
from predictor.models.quantiles import make_monotone, weighted_quantiles

# The name of what is said about a pair mostly from its peers
PEERS = "peers"
# After so many known cells, own history and peers have equal say.
EQUAL_CELLS = 20.0
# So many peers of each kind are asked at most.
ASKED = 8
# Own history of so many cells speaks for itself.
GROWN_CELLS = 60
# So many young pairs, the youngest, are helped in one cycle, by peers among so many others: that bounds the cost.
MAX_YOUNG = 300
POOL = 2000
# Mean rates are those of so many newest cells.
MEAN_CELLS = 120
# A pair that uses the same service says more about a new one than what else its source does.
SAME_SERVICE, SAME_SOURCE = 2.0, 1.0


@dataclass(frozen=True, slots=True)
class PeerSnapshot:
    """All series at one moment: forecasts (series x horizons x quantities x levels), mean rates (series x quantities,
    of the quantity's channel), known cells, and who shares a service or a source (numbers per series).
    """

    forecasts: Floats
    means: Floats
    known: Floats
    services: Ints
    sources: Ints
    asking: Ints | None = None  # positions of those that are given their peers' forecasts when young; None = all

    def mature(self, fewest: float) -> Floats:
        """Mask of those with enough history and a complete forecast to be asked as peers."""
        whole: Floats = np.asarray(~np.isnan(self.forecasts).any(axis=(1, 2, 3)))
        return whole & (self.known >= fewest)


def blend_peers(
    crowd: PeerSnapshot, levels: Sequence[float], fewest: float, rng: np.random.Generator
) -> tuple[Floats, Ints]:
    """The forecasts, those of young series (fewer than `fewest` known cells) drawn towards their peers', and which are.

    A young series with n known cells is the mixture of its peers, each scaled towards the series' own mean by
    n / (n + EQUAL_CELLS), and then averaged with its own quantiles by the same share, quantile by quantile
    (Vincent averaging, so that what lies between two forecasts is no wider than the wider one). Without peers it stays.
    """
    # Where everything is new, the eldest are asked.
    mature = crowd.mature(min(fewest, max(EQUAL_CELLS, float(crowd.known.max(initial=0)))))
    asking = np.arange(len(crowd.known)) if crowd.asking is None else crowd.asking
    young = asking[crowd.known[asking] < fewest]
    if not len(young) or not mature.any():
        return crowd.forecasts, young[:0]
    peers, weights = _peers(crowd, young, np.flatnonzero(mature), rng)
    told = weights.sum(axis=1) > 0
    young, peers, weights = young[told], peers[told], weights[told]
    forecasts = crowd.forecasts.copy()
    if len(young):
        share = (crowd.known[young] / (crowd.known[young] + EQUAL_CELLS))[:, None, None, None]
        prior = _mixture(crowd, young, peers, weights, levels)
        own = forecasts[young]
        forecasts[young] = np.where(np.isnan(own), prior, share * own + (1.0 - share) * prior)
    return forecasts, young


def _peers(crowd: PeerSnapshot, young: Ints, mature: Ints, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """Peers of each young series (young x 2 * ASKED, positions) and their weights (0 = no such peer)."""
    found, weights = [], []
    for keys, weight in ((crowd.services, SAME_SERVICE), (crowd.sources, SAME_SOURCE)):
        order = mature[np.argsort(keys[mature], kind="stable")]
        first = np.searchsorted(keys[order], keys[young], side="left")
        count = np.searchsorted(keys[order], keys[young], side="right") - first
        # All of them when they are few, else a random run of them
        begin = first + (rng.random(len(young)) * np.maximum(count - ASKED + 1, 1)).astype(np.int64)
        turn = np.arange(ASKED)
        here = turn[None] < np.minimum(count, ASKED)[:, None]
        asked = order[np.where(here, begin[:, None] + turn, 0)]
        here &= asked != young[:, None]
        found.append(asked)
        weights.append(np.where(here, weight / np.maximum(here.sum(axis=1), 1)[:, None], 0.0))
    return np.concatenate(found, axis=1), np.concatenate(weights, axis=1)


def _mixture(crowd: PeerSnapshot, young: Ints, peers: Ints, weights: Floats, levels: Sequence[float]) -> Floats:
    own_share = (crowd.known[young] / (crowd.known[young] + EQUAL_CELLS))[:, None, None]
    theirs = crowd.means[peers]  # young x peers x quantities
    own = np.nan_to_num(crowd.means[young])[:, None]
    scale = np.where(
        theirs > 0, (own_share * own + (1.0 - own_share) * theirs) / np.where(theirs > 0, theirs, 1.0), 1.0
    )
    # young x horizons x quantities x (peers x levels): each level stands for the probability around it
    samples = crowd.forecasts[peers] * scale[:, :, None, :, None]
    samples = np.moveaxis(samples, 1, 3).reshape(len(young), *crowd.forecasts.shape[1:3], -1)
    masses = _masses(levels)
    spread = (weights[:, :, None] * masses).reshape(len(young), 1, 1, -1)
    return weighted_quantiles(samples, np.broadcast_to(spread, samples.shape), levels)


def _masses(levels: Sequence[float]) -> Floats:
    grid = np.asarray(levels)
    borders = np.concatenate([[0.0], (grid[1:] + grid[:-1]) / 2.0, [1.0]])
    masses: Floats = np.diff(borders)
    return masses


@dataclass(slots=True)
class PeerForecasts:
    """Remembers who shares a service or a source, and gives young pairs their peers' forecasts."""

    spec: ForecastSpec
    seed: int = 1
    _services: list[int] = field(default_factory=list)
    _sources: list[int] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)
    _turn: int = 0

    def completed(
        self, final: Floats, view: SeriesView, known: Ints, subjects: Sequence[Subject]
    ) -> tuple[Floats, Ints]:
        """Final forecasts (series x targets x levels), those of young pairs drawn towards their peers', and which are.

        The result is a new array when anything changes. Other subjects than pairs have no peers.
        """
        young = np.flatnonzero(known < GROWN_CELLS)
        if not len(young) or subjects[0].kind is not SubjectKind.PAIR:
            return final, young[:0]
        self._name(subjects[: len(final)])
        self._turn += 1
        rng = np.random.default_rng((self.seed, self._turn))
        young = np.sort(young[np.argsort(known[young], kind="stable")[:MAX_YOUNG]])
        pool = rng.permutation(np.flatnonzero(known >= EQUAL_CELLS))[:POOL]
        rows = np.union1d(young, pool)
        services, sources = (np.array(numbers)[rows] for numbers in (self._services, self._sources))
        means, asking = self._means(view.rates[:, rows]), np.searchsorted(rows, young)
        crowd = PeerSnapshot(final[rows][:, None], means, known[rows], services, sources, asking)
        forecasts, helped = blend_peers(crowd, self.spec.levels, GROWN_CELLS, rng)
        if not len(helped):
            return final, rows[helped]
        final = final.copy()
        final[rows[helped]] = make_monotone(forecasts[helped, 0])
        return final, rows[helped]

    def _name(self, subjects: Sequence[Subject]) -> None:
        for subject in subjects[len(self._services) :]:
            # Names of services and of sources share one numbering: that no two are mixed up is all that counts.
            self._services.append(self._numbers.setdefault(f"to {subject.b}", len(self._numbers)))
            self._sources.append(self._numbers.setdefault(f"of {subject.a}", len(self._numbers)))

    def _means(self, rates: Floats) -> Floats:
        rates = rates[..., -MEAN_CELLS:]
        known = ~np.isnan(rates)
        total = np.where(known, rates, 0.0).sum(axis=-1, dtype=np.float64)
        means: Floats = np.where(known.any(axis=-1), total / np.maximum(known.sum(axis=-1), 1), np.nan)
        return means[self.spec.channels].T
