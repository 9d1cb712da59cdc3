"""What somebody with the token may have changed through the API: the same effects as the commands, and written down."""

import hmac
import os
import time
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from cpdb import AuditRecord, Pair, Pause, SettingsError, Store, open_store
from forepath import views
from forepath.settings import Settings
from forepath.web.address import LONGEST_WORD
from orchestrator import Asker, request_bandwidth

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

    def carry_out(self, store: Store, now: float) -> dict[str, Any]:
        """What `forepath pause` does."""
        made = Pause(now, self.who, self.reason, None if self.for_s is None else now + self.for_s)
        store.pauses.pause(made)
        return {"paused": asdict(made)}


class WantedResume(WantedChange):
    """Orchestrators that may act go on."""

    def carry_out(self, store: Store, now: float) -> dict[str, Any]:
        """What `forepath resume` does."""
        lifted = store.pauses.resume(now, self.who)
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

    def carry_out(self, store: Store, now: float) -> dict[str, Any]:
        """What `forepath request bandwidth` does. Raises SettingsError for what cannot be asked for."""
        vip, source = views.service(store, self.virtual_ip), views.known_source(store, self.source)
        asker = Asker(store, self.who, now, self.priority, self.tenant)
        until = now + self.for_s
        number = request_bandwidth(asker, Pair(source, vip.address), self.bytes_per_s, until, self.reason)
        return {"id": number, "until": until}


class WantedWithdrawal(WantedChange):
    """The request with this number ends before its time."""

    id: Annotated[int, Field(ge=1)]

    def carry_out(self, store: Store, now: float) -> dict[str, Any]:
        """What `forepath request withdraw` does. Raises SettingsError where it is not open."""
        if not store.requests.withdraw(self.id, now):
            raise SettingsError(f"request {self.id} is not open")
        return {"withdrawn": self.id}


CHANGES: dict[str, type[WantedPause | WantedResume | WantedBandwidth | WantedWithdrawal]] = {
    "pause": WantedPause,
    "resume": WantedResume,
    "request": WantedBandwidth,
    "withdraw": WantedWithdrawal,
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
        """Writes down who wants what and does it. Raises SettingsError for what cannot be, StoreError."""
        store = open_store(self.settings.database.url, create=False)
        try:
            now = time.time()
            detail = wanted.model_dump(exclude={"who"}, exclude_none=True)
            store.journal.add_audit(AuditRecord(now, wanted.who, origin[:64], what, detail))
            done: dict[str, Any] = wanted.carry_out(store, now)
            return done
        finally:
            store.close()
