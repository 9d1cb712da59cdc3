"""Reads what is foreseen beyond the pairs' fast lane: of links as a whole, and of pairs minutes ahead."""

from collections.abc import Collection, Iterator

from cpdb import BytesPerS, ForecastBatch, Pair, Quantity, Seconds, Store, Subject, SubjectKind
from orchestrator.world import Outlook

FAST_LINKS, SLOW_PAIRS, SLOW_LINKS = "fast/link", "slow", "slow/link"
# The slow lane is made anew every ten seconds or so; older than this it is no longer about now.
SLOW_MAX_AGE_S = 60.0


def outlook(
    store: Store, now: Seconds, links: Collection[tuple[str, str]], pairs: Collection[Pair], level: float
) -> Outlook:
    """The newest word about these links and pairs. Raises StoreError when the database is away."""
    wanted_links = {Subject(SubjectKind.LINK, *one) for one in links}
    wanted_pairs = {Subject(SubjectKind.PAIR, one.source, one.virtual_ip) for one in pairs}
    found: dict[tuple[tuple[str, str], int], BytesPerS] = {}
    for lane in (SLOW_LINKS, FAST_LINKS):
        batch = store.forecasts.batch(now, SLOW_MAX_AGE_S, lane)
        found |= {((one.a, one.b), far): value for one, far, value in peaks(batch, wanted_links, level)}
    slow = store.forecasts.batch(now, SLOW_MAX_AGE_S, SLOW_PAIRS)
    return Outlook(found, {(Pair(one.a, one.b), far): value for one, far, value in peaks(slow, wanted_pairs, level)})


def peaks(
    batch: ForecastBatch | None, wanted: Collection[Subject], level: float
) -> Iterator[tuple[Subject, int, BytesPerS]]:
    """(subject, horizon, value) of the predicted peak at the known level nearest to `level`."""
    if batch is None:
        return
    for row in batch.rows(wanted, quantities=(Quantity.BYTES_PEAK,)):
        yield row.subject, row.horizon_s, row.at(level)
