"""Lets people and programs ask for bandwidth, and tells them what became of it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from cpdb import Alarm, BandwidthRequest, BytesPerS, Pair, RequestState, Seconds, SettingsError, Store, show_rate
from orchestrator.proposal import Refusal, RefusalCode
from orchestrator.strategies.admission import OPEN, STANDING
from orchestrator.strategies.requests import HandledRequest, of_requests
from orchestrator.world import World

LOG = structlog.get_logger(__name__)
NOT_OBTAINED = "rate_not_obtained"
NODE = "orchestrator"
# What did not change is written again after this long, so that a reader sees that it is still true.
TELL_AGAIN_S = 10.0
NEWS_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, on whose database, and when; priority None is that of the virtual IP, tenant None its tenant."""

    store: Store
    name: str
    now: Seconds
    priority: int | None = None
    tenant: str | None = None


def request_bandwidth(asker: Asker, subject: Pair | str, bytes_per_s: BytesPerS, until: Seconds, reason: str) -> int:
    """Asks for a rate of a pair, or of every source of a virtual IP (its address), until a moment.

    Returns the request's number; the orchestrator's next cycle decides. Raises SettingsError for what cannot be asked
    for, StoreError when the database is away.
    """
    pair = subject if isinstance(subject, Pair) else Pair("", subject)
    if bytes_per_s <= 0 or until <= asker.now:
        raise SettingsError("a request needs a rate above 0 and an end that is still to come, e.g. 5mbit for 60s")
    known = {one.address for one in asker.store.inventory.virtual_ips() if one.declared}
    if pair.virtual_ip not in known:
        there = ", ".join(sorted(known)) or "none"
        raise SettingsError(f"{pair.virtual_ip} is no declared virtual IP; declared are {there}")
    return asker.store.requests.ask(
        BandwidthRequest(
            source=pair.source,
            virtual_ip=pair.virtual_ip,
            bytes_per_s=bytes_per_s,
            until=until,
            reason=reason,
            asked_by=asker.name,
            asked_at=asker.now,
            priority=asker.priority,
            tenant=asker.tenant,
        )
    )


@dataclass(slots=True)
class Answers:
    """Writes down what became of each request. Remembers only which alarms it has raised."""

    store: Store
    _alarmed: dict[int, str] = field(default_factory=dict)

    def tell(self, found: Sequence[HandledRequest], refused: Iterable[Refusal], world: World, idle: str | None) -> None:
        """`refused`: steps that the guard held back; `idle`: why nothing is done at all, if so. Raises StoreError."""
        held_back = _held_back(refused)
        for one in found:
            request = one.decision.case.request
            news = advised(one, idle) if idle else answered(one, held_back.get(request.id or 0))
            if _is_news(request, news, world.now):
                self.store.requests.amend(news)
            self._alarm(one, world.now)
        for request in over(world.wanted.requests, world.now):
            self.store.requests.amend(request)
        self._forget({one.decision.case.request.id for one in found}, world.now)

    def _alarm(self, one: HandledRequest, now: Seconds) -> None:
        number, text = one.decision.case.request.id or 0, "; ".join(one.troubles)
        if text and self._alarmed.get(number) != text:
            self.store.alarms.raise_([Alarm(NOT_OBTAINED, f"request {number}", NODE, text, now, now)])
            LOG.warning("granted, but not obtained", request=number, because=text)
            self._alarmed[number] = text
        elif not text and self._alarmed.pop(number, None) is not None:
            self.store.alarms.clear(NOT_OBTAINED, f"request {number}", NODE, now)

    def _forget(self, open_ones: set[int | None], now: Seconds) -> None:
        for number in [one for one in self._alarmed if one not in open_ones]:
            del self._alarmed[number]
            self.store.alarms.clear(NOT_OBTAINED, f"request {number}", NODE, now)


def answered(one: HandledRequest, held_back: str | None) -> BandwidthRequest:
    """The request as it stands after a cycle that may act; what the guard held back is not granted yet."""
    request = one.decision.case.request
    if held_back is not None and request.answer.state not in STANDING:
        return request.answered(why=f"decided, but not done yet: {held_back}", decided_at=one.now)
    news = one.decision.amended(one.now)
    told = [one.decision.why, *one.troubles]
    return news.answered(why="; ".join(told), obtained_bytes_per_s=one.obtained.arrived)


def advised(one: HandledRequest, idle: str) -> BandwidthRequest:
    """The same when nothing may be done: a new request stays asked, and says what would become of it."""
    decision, request = one.decision, one.decision.case.request
    if request.answer.state in STANDING:
        return request.answered(obtained_bytes_per_s=one.obtained.arrived)
    would = "would be refused" if decision.state is RequestState.REFUSED else f"would get {show_rate(decision.granted)}"
    if decision.state is RequestState.ASKED:
        would = "cannot be decided"
    return request.answered(why=f"advice only ({idle}): {would}: {decision.why}", decided_at=one.now)


def over(asked: Iterable[BandwidthRequest], now: Seconds) -> Iterator[BandwidthRequest]:
    """Requests whose time has passed, closed."""
    for one in asked:
        if one.answer.state in OPEN and one.until <= now:
            said = "its time is over" if one.answer.state in STANDING else "its time passed before it was granted"
            yield one.answered(state=RequestState.ENDED, why=said, decided_at=now)


def _held_back(refused: Iterable[Refusal]) -> Mapping[int, str]:
    named = ((one, of_requests(one.action)) for one in refused if one.action is not None)
    return {
        number: refusal.why_not
        for refusal, number in named
        if number is not None and refusal.code is not RefusalCode.UNDER_WAY
    }


def _is_news(old: BandwidthRequest, new: BandwidthRequest, now: Seconds) -> bool:
    before, news = old.answer, new.answer
    if news.state is not before.state or before.decided_at is None or now - before.decided_at >= TELL_AGAIN_S:
        return True
    rates = (
        (before.granted_bytes_per_s, news.granted_bytes_per_s),
        (before.obtained_bytes_per_s or 0.0, news.obtained_bytes_per_s or 0.0),
    )
    return any(abs(earlier - later) > NEWS_SHARE * max(earlier, later) for earlier, later in rates)
