"""What every link carries and will carry: measured, foreseen of the link itself, and summed over its pairs."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt

from cpdb import Link, LinkLoad, Pair, Store, Subject, SubjectKind
from forepath.ahead import Ahead, Fan
from forepath.views import RECENT_S, PairView, link_rates, spoken

PathOf = Callable[[str, str], tuple[str, ...]]
Hop = tuple[str, str]
PAIRS, LINK, MEASURED = "pairs", "link", "measured"


@dataclass(frozen=True, slots=True)
class Part:
    """What one pair brings to a link: its rate now and its predicted peak, bytes/s; without a forecast it goes on."""

    pair: Pair
    service: str
    destination: str | None
    bytes_per_s: float
    predicted: Fan


@dataclass(frozen=True, slots=True)
class LinkView:
    """One direction of a link: capacity, load now (None: nothing is measured there) and predicted peak, bytes/s.

    `by_pairs` adds up the pairs that cross it: medians add, deviations of pairs add in squares as if they were
    independent, and the upper end is never below what is measured. It may exceed the capacity. `by_link` is foreseen of
    the link itself: it knows all traffic, but what did not fit it never saw.
    """

    from_node: str
    to_node: str
    capacity_bytes_per_s: float | None
    bytes_per_s: float | None
    by_pairs: Fan
    by_link: Fan | None
    parts: tuple[Part, ...]

    @property
    def predicted(self) -> Fan:
        """The one of both that expects more."""
        return self.by_pairs if self.by_link is None or self.by_pairs.q90 >= self.by_link.q90 else self.by_link

    @property
    def predicted_utilisation(self) -> float:
        """Share of the capacity that the 0.9 quantile would take; 0 where no capacity is known."""
        return self.share(self.predicted.q90) or 0.0

    def share(self, bytes_per_s: float | None) -> float | None:
        """A rate as a share of the capacity; None where either is not known."""
        return (
            bytes_per_s / self.capacity_bytes_per_s if bytes_per_s is not None and self.capacity_bytes_per_s else None
        )

    @property
    def others_bytes_per_s(self) -> float:
        """What is measured on the link beyond the pairs: answers, or traffic to no virtual IP."""
        return max(0.0, (self.bytes_per_s or 0.0) - sum(one.bytes_per_s for one in self.parts))


def links(store: Store, now: float, foreseen: Ahead, path_of: PathOf) -> list[LinkView]:
    """Every directed link with its load now and predicted; most congested prediction first."""
    crossing: dict[Hop, list[Part]] = defaultdict(list)
    for part, hops in _parts(store, now, foreseen, path_of):
        for hop in pairwise(hops):
            crossing[hop].append(part)
    measured = link_rates(store.facts.loads(LinkLoad, now - RECENT_S, now))
    views = [
        LinkView(
            *hop,
            capacity,
            measured.get(hop),
            _together(crossing[hop]),
            foreseen.links.get(Subject(SubjectKind.LINK, *hop)),
            tuple(sorted(crossing[hop], key=lambda one: -one.predicted.q90)),
        )
        for hop, capacity in _capacities(store.inventory.links()).items()
    ]
    return sorted(views, key=lambda view: (-view.predicted_utilisation, view.from_node, view.to_node))


def _parts(store: Store, now: float, foreseen: Ahead, path_of: PathOf) -> Iterable[tuple[Part, tuple[str, ...]]]:
    views = {view.pair: view for view in spoken(store, now)}
    services = {item.address: item.name for item in store.inventory.virtual_ips()}
    expected = {Pair(subject.a, subject.b): fan for subject, fan in foreseen.pairs.items()}
    for pair in sorted(views.keys() | expected.keys(), key=str):
        view = views.get(pair)
        destination = view.destination if view else None
        service = services.get(pair.virtual_ip, pair.virtual_ip)
        part = Part(pair, service, destination, view.bytes_per_s if view else 0.0, _fan(view, expected.get(pair)))
        yield part, path_of(pair.source, destination or pair.virtual_ip)


def _fan(view: PairView | None, said: Fan | None) -> Fan:
    now = view.bytes_per_s if view else 0.0
    if said is None:
        return Fan(now, now, now, MEASURED)
    return Fan(said.q10, said.q50, max(said.q90, now), said.model)


def _together(parts: Sequence[Part]) -> Fan:
    fans = [one.predicted for one in parts]
    middle = sum(one.q50 for one in fans)
    below = sqrt(sum((one.q50 - one.q10) ** 2 for one in fans))
    above = sqrt(sum((one.q90 - one.q50) ** 2 for one in fans))
    upper = max(middle + above, sum(one.bytes_per_s for one in parts))
    return Fan(max(0.0, middle - below), middle, upper, PAIRS)


def _capacities(items: Iterable[Link]) -> dict[Hop, float | None]:
    both = {}
    for item in items:
        both[item.a, item.b] = item.capacity_bytes_per_s
        both[item.b, item.a] = item.capacity_bytes_per_s
    return both
