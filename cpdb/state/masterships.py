"""Of several controllers one is master of each switch, by the database's clock; what it counts passes to the next."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Self

from sqlalchemy import JSON, Column, Connection, Engine, Float, String, Table, delete, insert, select

from cpdb.engine import connect
from cpdb.model import Seconds
from cpdb.repository import Repository, insert_ignore, transaction
from cpdb.schema import holders, memories, metadata, required
from cpdb.state.leases import LeaseHolder, Leases, database_clock
from cpdb.telemetry.tenures import KeptCounts, switch_counters

PREFIX = "switch/"
# A controller that was not heard of for so long is forgotten.
FORGET_S = 600.0

# Controllers at work, and the switches that are connected to each
controllers = Table(
    "controllers",
    metadata,
    Column("name", String(64), primary_key=True),
    *required(JSON, "connected"),
    *required(Float, "since", "expires_at"),
)
LLDP_KEY = "controller/lldp"


def switch_lease(dpid: int) -> str:
    """Name of the lease for a switch."""
    return f"{PREFIX}{dpid:016x}"


@dataclass(frozen=True, slots=True)
class ControllerPresence:
    """A controller at work, since when, and the switches that are connected to it."""

    name: str
    connected: tuple[int, ...]
    since: Seconds
    expires_at: Seconds


@dataclass(frozen=True, slots=True)
class ControlPicture:
    """Who is at work and who is master of which switch at `now`, by the database's clock."""

    now: Seconds
    controllers: tuple[ControllerPresence, ...] = ()
    # By switch
    masters: Mapping[int, LeaseHolder] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ControlClaim:
    """What a controller asks for: to be known with its connected switches, to take some leases and give others back."""

    name: str
    connected: Collection[int] = ()
    take: Collection[int] = ()
    give: Collection[int] = ()


class Masterships(Leases):
    """All leases; those of switches are one each, beside one row for each controller. All raise StoreError."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._engine = engine
        self._clock = database_clock(engine)
        self._controllers = Repository(engine, controllers, ControllerPresence)
        self._counts = Repository(engine, switch_counters, KeptCounts)

    @classmethod
    def at(cls, url: str) -> Self:
        """Those of the database at `url`, which must be there; for one thread. Raises StoreUnreachable."""
        return cls(connect(url))

    def claim(self, claim: ControlClaim, for_s: Seconds) -> ControlPicture:
        """Renews what the controller has for `for_s` seconds, changes what it asks for, and tells how it is then."""
        with transaction(self._engine, "renewing leases of switches") as connection:
            # A change first: whoever waits for others does so before the clock is read.
            known = {"connected": sorted(claim.connected), "expires_at": self._clock + for_s}
            mine = controllers.c.name == claim.name
            if not self._controllers.change(known, mine, within=connection):
                row = {"name": claim.name, "since": self._clock} | known
                connection.execute(insert(controllers).values(row))
            now = float(connection.execute(select(self._clock)).scalar_one())
            self._give(connection, claim)
            own = holders.c.holder == claim.name, holders.c.name.startswith(PREFIX)
            self._holders.change({"expires_at": now + for_s}, *own, within=connection)
            for dpid in sorted(claim.take):
                self._take(connection, LeaseHolder.begin(switch_lease(dpid), claim.name, now, for_s))
            return self._picture(connection, now)

    def _give(self, connection: Connection, claim: ControlClaim) -> None:
        names = [switch_lease(dpid) for dpid in claim.give]
        if names:
            own = holders.c.holder == claim.name, holders.c.name.in_(names)
            self._holders.delete(*own, within=connection)

    def _take(self, connection: Connection, wanted: LeaseHolder) -> None:
        before = self._holders.read_first(holders.c.name == wanted.name, within=connection)
        if before is not None:
            wanted = replace(wanted, token=max(wanted.token, before.token + 1))
            expired = holders.c.name == wanted.name, holders.c.expires_at <= wanted.since
            if not self._holders.change(asdict(wanted), *expired, within=connection):
                return
        else:
            insert_ignore(connection, holders, [asdict(wanted)])
            if self._holders.read_first(holders.c.name == wanted.name, within=connection) != wanted:
                return
        dpid = int(wanted.name.removeprefix(PREFIX), 16)
        # From here on nothing is stored any more that was counted in an earlier tenure.
        if not self._counts.change({"token": wanted.token}, switch_counters.c.dpid == dpid, within=connection):
            self._counts.add(KeptCounts(dpid, wanted.token, ""), within=connection)

    def _picture(self, connection: Connection, now: Seconds) -> ControlPicture:
        connection.execute(delete(controllers).where(controllers.c.expires_at < now - FORGET_S))
        return ControlPicture(
            now,
            tuple(
                self._controllers.read(controllers.c.expires_at > now, order_by=[controllers.c.name], within=connection)
            ),
            self._masters(now, connection),
        )

    def _masters(self, now: Seconds, within: Connection | None = None) -> dict[int, LeaseHolder]:
        alive = holders.c.name.startswith(PREFIX), holders.c.expires_at > now
        rows = self._holders.read(*alive, order_by=[holders.c.name], within=within)
        return {int(one.name.removeprefix(PREFIX), 16): one for one in rows}

    def masters(self, now: Seconds) -> dict[int, LeaseHolder]:
        """Who is master of each switch at `now`."""
        return self._masters(now)

    def leave(self, name: str) -> None:
        """A controller ends: what it has is free at once."""
        with transaction(self._engine, "giving back leases of switches") as connection:
            self._holders.delete(holders.c.holder == name, holders.c.name.startswith(PREFIX), within=connection)
            self._controllers.delete(controllers.c.name == name, within=connection)

    def kept_counts(self, dpids: Collection[int]) -> dict[int, KeptCounts]:
        """How far the counters of switches are written down; none of a switch of which no lease was ever held."""
        return {one.dpid: one for one in self._counts.read(switch_counters.c.dpid.in_(list(dpids)))}

    def lldp_key(self, proposed: bytes) -> bytes:
        """The key with which all controllers of this database sign: the first that was proposed."""
        with transaction(self._engine, "agreeing on a key") as connection:
            row: dict[str, object] = {"key": LLDP_KEY, "remembered_at": self.now(), "body": proposed}
            insert_ignore(connection, memories, [row])
            found = connection.execute(select(memories.c.body).where(memories.c.key == LLDP_KEY)).scalar_one()
            return bytes(found)
