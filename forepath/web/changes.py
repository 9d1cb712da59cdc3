"""What somebody with the token may have changed through the API: the same effects as the commands, and written down."""

import hmac
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from cpdb import AuditRecord, DestinationChange, Pair, Pause, SettingsError, Store, open_store
from forepath import views
from forepath.processes import make_approval, orchestrator_config
from forepath.settings import Settings
from forepath.standing import StandingWish, drain_change, undrain_change
from forepath.web.address import LONGEST_WORD
from forepath.web.reader import StoreMoment
from orchestrator import Approval, Asker, request_bandwidth

Word = Annotated[str, Field(max_length=LONGEST_WORD)]
Reason = Annotated[str, Field(max_length=200)]
YEAR_S = 366 * 86_400.0
Span = Annotated[float, Field(gt=0, le=YEAR_S)]


class WantedChange(BaseModel):
    """Who asks for it, in their own words; whence is noted beside."""

    model_config = ConfigDict(extra="forbid")
    who: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w.@:-]+$")]


class WantedPause(WantedChange):
    """Nothing is started for `for_s` seconds; without, until somebody resumes."""

    reason: Reason = ""
    for_s: Span | None = None

    def carry_out(self, at: StoreMoment) -> dict[str, Any]:
        """What `forepath pause` does."""
        made = Pause(at.now, self.who, self.reason, None if self.for_s is None else at.now + self.for_s)
        at.store.pauses.pause(made)
        return {"paused": asdict(made)}


class WantedResume(WantedChange):
    """Orchestrators that may act go on."""

    def carry_out(self, at: StoreMoment) -> dict[str, Any]:
        """What `forepath resume` does."""
        lifted = at.store.pauses.resume(at.now, self.who)
        return {"resumed": asdict(lifted) if lifted else None}


class WantedBandwidth(WantedChange):
    """A rate kept free from a source ("": every one) to a virtual IP for `for_s` seconds."""

    source: Word = ""
    virtual_ip: Word
    bytes_per_s: Annotated[float, Field(gt=0, le=1e15)]
    for_s: Span
    reason: Reason
    priority: Annotated[int, Field(ge=0, le=10_000)] | None = None
    tenant: Word | None = None

    def carry_out(self, at: StoreMoment) -> dict[str, Any]:
        """What `forepath request bandwidth` does. Raises SettingsError for what cannot be asked for."""
        vip, source = views.service(at.store, self.virtual_ip), views.known_source(at.store, self.source)
        asker = Asker(at.store, self.who, at.now, self.priority, self.tenant)
        until = at.now + self.for_s
        number = request_bandwidth(asker, Pair(source, vip.address), self.bytes_per_s, until, self.reason)
        return {"id": number, "until": until}


class WantedWithdrawal(WantedChange):
    """The request with this number ends before its time."""

    id: Annotated[int, Field(ge=1)]

    def carry_out(self, at: StoreMoment) -> dict[str, Any]:
        """What `forepath request withdraw` does. Raises SettingsError where it is not open."""
        if not at.store.requests.withdraw(self.id, at.now):
            raise SettingsError(f"request {self.id} is not open")
        return {"withdrawn": self.id}


class WantedDrain(WantedChange):
    """A destination of a virtual IP gets no new connections; live ones stay."""

    virtual_ip: Word
    name: Word
    reason: Reason = "drained through the API"

    def carry_out(self, at: StoreMoment) -> dict[str, Any]:
        """What `forepath vip drain` does. Raises ForepathError where it may not be."""
        return {"change": self._put(at, drain_change)}

    def _put(self, at: StoreMoment, decide: Callable[[Store, StandingWish], DestinationChange]) -> dict[str, Any]:
        change = decide(at.store, StandingWish(self.virtual_ip, self.name, self.who, self.reason, at.now))
        return asdict(replace(change, generation=at.store.inventory.put_change(change)))


class WantedUndrain(WantedDrain):
    """A drained destination gets new connections again."""

    reason: Reason = "undrained through the API"

    def carry_out(self, at: StoreMoment) -> dict[str, Any]:
        """What `forepath vip undrain` does. Raises ForepathError where it may not be."""
        return {"change": self._put(at, undrain_change)}


class WantedPlan(WantedChange):
    """What would be done now, to be read, and then applied while it is fresh."""

    def carry_out(self, at: StoreMoment) -> dict[str, Any]:
        """What `forepath plan` does."""
        with approving(at.settings, at.store, act=False) as approval:
            return {"plan": asdict(approval.propose(at.now))}


class WantedApplication(WantedChange):
    """A plan that a person has read is carried out; the answer comes when it has been."""

    plan: Annotated[int, Field(ge=1)]

    def carry_out(self, at: StoreMoment) -> dict[str, Any]:
        """What `forepath apply` does. Raises SettingsError where the plan may no longer be carried out."""
        with approving(at.settings, at.store, act=True) as approval:
            done = approval.carry_out(self.plan, time.time, time.sleep)
        return {"plan": self.plan, "actions": [asdict(one) for one in done]}


@contextmanager
def approving(settings: Settings, store: Store, act: bool) -> Iterator[Approval]:
    """Plans for a person, as long as the block lasts."""
    approval = make_approval(orchestrator_config(settings, act), store, time.time)
    try:
        yield approval
    finally:
        approval.close()


Wanted = WantedPause | WantedResume | WantedBandwidth | WantedWithdrawal | WantedDrain | WantedPlan | WantedApplication
CHANGES: dict[str, type[Wanted]] = {
    "pause": WantedPause,
    "resume": WantedResume,
    "request": WantedBandwidth,
    "withdraw": WantedWithdrawal,
    "drain": WantedDrain,
    "undrain": WantedUndrain,
    "plan": WantedPlan,
    "apply": WantedApplication,
}


@dataclass(frozen=True, slots=True)
class ChangeDesk:
    """Carries out what is allowed; each change is in the journal before it is made."""

    settings: Settings

    def objection(self, authorization: str) -> str | None:
        """Why a bearer of this may change nothing; None: it may. The token is read anew each time."""
        token = self._token()
        if not token:
            return "nothing can be changed here: no token is set ([web] token_file or token_variable)"
        given = authorization.removeprefix("Bearer ").strip()
        return None if hmac.compare_digest(given.encode(), token.encode()) else "the token is wrong or missing"

    def _token(self) -> str:
        section = self.settings.web
        if section.token_variable is not None:
            return os.environ.get(section.token_variable, "").strip()
        try:
            return section.token_file.read_text(encoding="utf-8").strip() if section.token_file else ""
        except (OSError, UnicodeDecodeError):
            return ""

    def carry_out(self, what: str, wanted: Any, origin: str) -> dict[str, Any]:
        """Writes down who wants what and does it. Raises ForepathError for what cannot be, StoreError."""
        store = open_store(self.settings.database.url, create=False)
        try:
            now = time.time()
            detail = wanted.model_dump(exclude={"who"}, exclude_none=True)
            store.journal.add_audit(AuditRecord(now, wanted.who, origin[:64], what, detail))
            done: dict[str, Any] = wanted.carry_out(StoreMoment(store, self.settings, now))
            return done
        finally:
            store.close()
