"""Who may do what in PostgreSQL: for each process a role with just the tables that it works with, declared here."""

from collections.abc import Iterator, Mapping
from enum import StrEnum

from sqlalchemy import Engine, text

from cpdb.engine import reported
from cpdb.errors import StoreError
from cpdb.schema import metadata

READ, ADD, CHANGE, DELETE = "SELECT", "INSERT", "UPDATE", "DELETE"
_LETTERS = {"r": READ, "a": ADD, "c": CHANGE, "d": DELETE}
VIEW, VERSION = "communication_patterns", "alembic_version"


class Room(StrEnum):
    """Whom a role is for. Making, migrating and rolling up is the owner's, who ran `forepath db init`."""

    CONTROLLER = "controller"
    PREDICTOR = "predictor"
    ORCHESTRATOR = "orchestrator"
    READER = "reader"


def _tables(letters: str, names: str) -> dict[str, frozenset[str]]:
    return {name: frozenset(_LETTERS[letter] for letter in letters) for name in names.split()}


# What everybody meets in: who is on duty, what is observed, what is wrong.
_MEETING = _tables("racd", "holders observed") | _tables("rac", "alarms")
_MEASURED = "batches pending observations flow_keys patterns_10s patterns_60s covered progress link_loads"
_DECLARED = "nodes links virtual_ips destinations destination_changes"
_WANTED = "reservations past_reservations wanted_weights wanted_splits bandwidth_requests"
_FORECASTS = "rosters forecast_batches score_batches scores horizon_moves"
_JOURNAL = "actions action_steps plans shortages"
# Which controller is master of which switch, and what it has counted
_MASTERSHIP = "controllers switch_counters"
_EVERYTHING = f"{' '.join(metadata.tables)} {_MASTERSHIP}"
RIGHTS: Mapping[Room, Mapping[str, frozenset[str]]] = {
    Room.CONTROLLER: _tables("r", f"{_DECLARED} {_WANTED} generations progress pauses {VERSION}")
    | _tables("ra", "batches pending observations flow_keys virtual_ips link_loads")
    | _tables("rac", "nodes links")
    | _tables("racd", _MASTERSHIP)
    | _MEETING,
    Room.PREDICTOR: _tables("r", f"{_DECLARED} {_MEASURED} host_loads vm_loads generations pauses {VERSION} {VIEW}")
    | _tables("ra", _FORECASTS)
    | _tables("racd", "memories")
    | _MEETING,
    Room.ORCHESTRATOR: _tables("r", f"{_EVERYTHING} {VERSION} {VIEW}")
    | _tables("ra", "host_loads vm_loads")
    | _tables("rac", f"links virtual_ips {_JOURNAL} nodes generations pauses audits")
    | _tables("racd", f"destinations destination_changes {_WANTED}")
    | _MEETING,
    Room.READER: _tables("r", f"{_EVERYTHING} {VERSION} {VIEW}"),
}


def role_statements(prefix: str, sequences: Mapping[str, str]) -> Iterator[str]:
    """The SQL that makes the roles and gives each its rights, and no others; may be run again.

    `sequences` holds the sequence of each numbered table. A role has no password and cannot log in: users are put in
    it with GRANT. Raises StoreError for a prefix that is no plain name.
    """
    if not prefix.replace("_", "").isalnum() or not prefix.isascii() or prefix != prefix.lower() or len(prefix) > 32:
        raise StoreError(f"prefix {prefix!r}: write small letters, digits and _, e.g. forepath_")
    yield "REVOKE CREATE ON SCHEMA public FROM PUBLIC"
    for room, tables in RIGHTS.items():
        role = f"{prefix}{room}"
        # Of its own: one role may exist in a server for several databases.
        yield (
            f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN; "
            "EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        )
        yield f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}"
        yield f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM {role}"
        yield f"GRANT USAGE ON SCHEMA public TO {role}"
        for table, rights in sorted(tables.items()):
            yield f"GRANT {', '.join(sorted(rights))} ON {table} TO {role}"
            if ADD in rights and table in sequences:
                yield f"GRANT USAGE ON SEQUENCE {sequences[table]} TO {role}"


def make_roles(engine: Engine, prefix: str = "forepath_") -> list[str]:
    """Makes the roles and their rights in one transaction; returns their names. Raises StoreError."""
    if engine.dialect.name != "postgresql":
        raise StoreError("roles are PostgreSQL's; with SQLite, who can write the file can do everything")
    with reported(engine, "making roles"), engine.begin() as connection:
        query = "SELECT pg_get_serial_sequence(:name, 'id')"
        found = {
            name: connection.execute(text(query), {"name": name}).scalar()
            for name, table in metadata.tables.items()
            if "id" in table.c
        }
        sequences = {name: str(sequence) for name, sequence in found.items() if sequence}
        for statement in role_statements(prefix, sequences):
            connection.execute(text(statement.replace(":", r"\:")))
    return [f"{prefix}{room}" for room in Room]
