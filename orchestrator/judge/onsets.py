"""Whether shortages of links come when they are foreseen; where they do not, reservations wait for measured need.

A reservation that comes seconds too soon holds others back for nothing, and what they lack goes on waiting until the
surge has passed: that costs more than one that comes in time gains, so two in time have to follow one that did not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cpdb import OnsetReport, Seconds, Store, Withdrawal
from orchestrator.config import OWNER
from orchestrator.onset import OnsetSign

# So many foreseen shortages in a row have to come in time before forecasts of a link's shortages lead again.
IN_TIME_AGAIN = 2


@dataclass(frozen=True, slots=True)
class LinkOnsets:
    """How foreseen shortages of a link came true.

    `since`: from when on the next one is foreseen, None where none is. `there`: the last one is still going on, or
    still foreseen. `untimely`: one did not come in time, and since then only `in_time` of them in a row have.
    """

    since: Seconds | None = None
    there: bool = False
    untimely: bool = False
    in_time: int = 0

    def after(self, sign: OnsetSign, now: Seconds) -> "LinkOnsets":
        """What it comes to after another look; what is no longer foreseen before it was due says nothing."""
        waited_s = 0.0 if self.since is None else now - self.since
        if sign.there:
            begun = replace(self, since=None, there=True)
            return begun if self.since is None else begun._scored(waited_s <= sign.due_s)
        if not sign.foreseen:
            return replace(self, since=None, there=False)
        if self.there:
            return self
        waiting = replace(self, since=now if self.since is None else self.since)
        return waiting._scored(in_time=False) if waited_s > sign.due_s else waiting

    def _scored(self, in_time: bool) -> "LinkOnsets":
        if not in_time:
            return replace(self, untimely=True, in_time=0)
        again = self.untimely and self.in_time + 1 < IN_TIME_AGAIN
        return replace(self, untimely=again, in_time=self.in_time + 1 if again else 0)


class OnsetLedger:
    """What is remembered of each link of which anything is to be remembered; a restart goes on from the store.

    So does who has not looked for `longest_gap_s`: nobody saw when a shortage began, and another may have been on duty.
    """

    def __init__(self, store: Store, longest_gap_s: Seconds) -> None:
        self._store, self._longest_gap_s = store, longest_gap_s
        self._links: dict[str, LinkOnsets] | None = None
        self._told: dict[str, int] = {}
        self._looked_at: Seconds = float("-inf")

    @property
    def untimely(self) -> frozenset[str]:
        """Links on which forecasts of a shortage do not lead."""
        return frozenset(name for name, one in (self._links or {}).items() if one.untimely)

    def learn(self, signs: Mapping[str, OnsetSign], now: Seconds) -> None:
        """Takes in a look at the links; those that are not among `signs` show nothing. Raises StoreError."""
        if self._links is None or not 0 <= now - self._looked_at <= self._longest_gap_s:
            self._told = {one.link: one.in_time for one in self._store.wanted.observed_of(OnsetReport)}
            self._links = {name: LinkOnsets(untimely=True, in_time=times) for name, times in self._told.items()}
        self._looked_at, nothing = now, OnsetSign()
        looked = ((name, signs.get(name, nothing)) for name in {*signs, *self._links})
        found = {name: self._links.get(name, LinkOnsets()).after(sign, now) for name, sign in looked}
        self._links = {name: one for name, one in found.items() if one != LinkOnsets()}

    def tell(self, now: Seconds) -> None:
        """Writes down which links are untimely, where that has changed. Raises StoreError."""
        known = {name: one.in_time for name, one in (self._links or {}).items() if one.untimely}
        if known != self._told:
            back = [Withdrawal(OnsetReport.kind, name, OWNER, now) for name in self._told.keys() - known.keys()]
            self._store.wanted.observe([*(OnsetReport(name, times, now) for name, times in known.items()), *back])
            self._told = known
