"""REMEMBERS: the Communication Pattern Database, the one place where forepath's processes meet.

The door of the room: `open_store(url)` gives a `Store`; everything that goes in or out is a record.
"""

from dataclasses import dataclass

from sqlalchemy import Engine

from cpdb.engine import check_version, connect, migrate
from cpdb.errors import (
    DriverError,
    ForepathError,
    LabError,
    SettingsError,
    StoreError,
    StoreOutdated,
    StoreUnreachable,
)
from cpdb.facts import Facts
from cpdb.foresight import Foresight
from cpdb.inventory import Inventory
from cpdb.journal import Journal
from cpdb.names import Names
from cpdb.records import (
    ActionRecord,
    BytesPerS,
    Communication,
    Destination,
    Forecast,
    HostLoad,
    Json,
    Limit,
    Link,
    LinkLoad,
    Node,
    NodeKind,
    Observed,
    OutcomeKind,
    Pair,
    PlanRecord,
    Quantity,
    Reservation,
    Score,
    Seconds,
    VirtualIP,
    VmLoad,
    WantedWeights,
)
from cpdb.wanted import Wanted

DEFAULT_URL = "sqlite:///forepath.db"


@dataclass(frozen=True, slots=True)
class Store:
    """The database by subject. Cheap to hold; safe to share between threads (each call takes its own connection)."""

    engine: Engine
    facts: Facts
    inventory: Inventory
    foresight: Foresight
    wanted: Wanted
    journal: Journal

    def close(self) -> None:
        """Returns all connections."""
        self.engine.dispose()


def open_store(url: str = DEFAULT_URL, create: bool = True) -> Store:
    """Opens the database at `url`; `create` brings the schema up to date first, else it must already be.

    Raises StoreUnreachable or StoreOutdated, each with one line that says how to mend it.
    """
    engine = connect(url)
    if create:
        migrate(engine)
    else:
        check_version(engine)
    names = Names()
    return Store(
        engine=engine,
        facts=Facts(engine, names),
        inventory=Inventory(engine, names),
        foresight=Foresight(engine, names),
        wanted=Wanted(engine),
        journal=Journal(engine),
    )


__all__ = [
    "DEFAULT_URL",
    "ActionRecord",
    "BytesPerS",
    "Communication",
    "Destination",
    "DriverError",
    "Forecast",
    "ForepathError",
    "HostLoad",
    "Json",
    "LabError",
    "Limit",
    "Link",
    "LinkLoad",
    "Node",
    "NodeKind",
    "Observed",
    "OutcomeKind",
    "Pair",
    "PlanRecord",
    "Quantity",
    "Reservation",
    "Score",
    "Seconds",
    "SettingsError",
    "Store",
    "StoreError",
    "StoreOutdated",
    "StoreUnreachable",
    "VirtualIP",
    "VmLoad",
    "WantedWeights",
    "open_store",
]
