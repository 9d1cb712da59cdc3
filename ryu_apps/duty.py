"""Holds this controller's leases of switches: renewed beside the event loop, and never believed for longer than sure.

How long a lease holds is measured by this process's monotonic clock from before it was asked for, when it ends for the
others by the database's clock: whatever the clocks say, this controller stops before another may begin.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from cpdb import ControlClaim, ControlPicture, ForepathError, Masterships
from ryu_apps.roles import Fabric, RoleRule, claim_of

Seconds = float

LEASE_S, RENEW_S = 1.2, 0.25
# So much earlier than the others may take a lease its holder stops.
MARGIN_S = 0.1
# Another that was not heard of for a moment, on a busy machine or a slow disk, may still be there.
LATELY_S = 60.0


@dataclass(frozen=True, slots=True)
class Known:
    """What the event loop tells the thread that renews: which switches are connected, and which go together."""

    connected: frozenset[int] = frozenset()
    fabrics: tuple[Fabric, ...] = ()
    # Leases that may be given back, since nothing is done with them any more
    given: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class LeaseReading:
    """What was read last, and when it was asked for on the monotonic clock."""

    picture: ControlPicture = field(default_factory=lambda: ControlPicture(0.0))
    at: Seconds = float("-inf")
    # Who should be master of each switch
    wanted: dict[int, str] = field(default_factory=dict)


class Duty:
    """`step` runs in a thread of its own; everything else in the event loop. They share two immutable records."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.known = Known()
        self.reading = LeaseReading()
        self._url = url
        self._rule = RoleRule()
        self._leases: Masterships | None = None
        self._ended = False
        # Whether no database could be opened so far: then a controller forwards as if it were alone
        self.no_database = False
        # Since when every question was answered in good time
        self._in_touch_since: Seconds | None = None
        # When there was another, on the monotonic clock
        self._others_at = float("-inf")

    # ---- in a thread of its own, where nothing may be logged

    def step(self) -> bool:
        """Renews what this controller has; True, since there is always something to look at."""
        begun = time.monotonic()
        if self._ended:
            return False
        try:
            self._leases = self._leases or Masterships.at(self._url)
            self._turn(self._leases, begun)
        except ForepathError:
            # The loop that reads what is wanted says what is wrong.
            self._in_touch_since = float("inf")
        return True

    def _turn(self, leases: Masterships, begun: Seconds) -> None:
        known = self.known
        picture = leases.claim(ControlClaim(self.name, known.connected, give=known.given), LEASE_S)
        if time.monotonic() - begun > LEASE_S / 2 or self._in_touch_since == float("inf"):
            self._in_touch_since = time.monotonic()
        wanted = self._rule.decide(picture, known.fabrics)
        claim = claim_of(self.name, known.connected, wanted, picture)
        # After an absence of the database everybody renews first: who had a lease before, keeps it.
        waits = self._in_touch_since is not None and begun - self._in_touch_since < LEASE_S
        if claim.take and not waits:
            picture = leases.claim(replace(claim, give=()), LEASE_S)
        self.reading = LeaseReading(picture, begun, wanted)
        if self.others:
            self._others_at = begun

    # ---- in the event loop

    @property
    def others(self) -> set[str]:
        """Other controllers that were at work at the last reading."""
        picture = self.reading.picture
        names = {one.name for one in picture.controllers} | {held.holder for held in picture.masters.values()}
        return names - {self.name}

    def may_be_followed(self) -> bool:
        """Whether another may go on where this one ends: there is one, or was lately."""
        return bool(self.others) or time.monotonic() < self._others_at + LATELY_S

    def may_change(self) -> bool:
        """Whether what this controller holds is its own at this moment.

        One that was alone goes on when the database is away: should another begin meanwhile, the switches themselves
        refuse this one, since a later master has a larger generation.
        """
        return not self.others or time.monotonic() < self.reading.at + LEASE_S - MARGIN_S

    def tenures(self) -> dict[int, int]:
        """Token of each switch's lease that this controller has, and may begin to use; of 0: without any database."""
        reading, connected = self.reading, self.known.connected
        if reading.at == float("-inf"):
            return dict.fromkeys(connected, 0) if self.no_database else {}
        masters = reading.picture.masters
        return {
            dpid: held.token
            for dpid, held in masters.items()
            if held.holder == self.name and dpid in connected and reading.wanted.get(dpid, self.name) == self.name
        }

    def generation(self, dpid: int) -> int:
        """Token of whoever is master of a switch, 0 when nobody is known to be."""
        held = self.reading.picture.masters.get(dpid)
        return held.token if held else 0

    def is_elsewhere(self, dpid: int | None, served: Collection[int]) -> bool:
        """Whether another controller tells what is at that switch, or (None) what is at nobody's."""
        masters = self.reading.picture.masters
        held = masters.get(dpid) if dpid is not None else None
        # What is at nobody's switch is told by one of them.
        holder = held.holder if held else min((one.holder for one in masters.values()), default="")
        return dpid not in served and holder not in ("", self.name)

    def tell(self, connected: Collection[int], fabrics: Collection[Fabric], served: Collection[int]) -> None:
        """What is so now; leases of switches that are not `served` any more may be given back."""
        held = {dpid for dpid, one in self.reading.picture.masters.items() if one.holder == self.name}
        given = {dpid for dpid in held if dpid not in served and self.reading.wanted.get(dpid, self.name) != self.name}
        self.known = Known(frozenset(connected), tuple(fabrics), frozenset(given))

    def end(self) -> None:
        """Gives everything back, so that others need not wait for its end. Raises StoreError."""
        self._ended = True
        if self._leases is not None:
            self._leases.leave(self.name)
