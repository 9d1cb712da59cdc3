"""The tables. What is measured and forecast refers to names by number; loads, wanted state and the journal carry them.

Each second's communications are one row a batch, in packed columns; the older they are, the coarser the rows."""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)
from sqlalchemy.sql.schema import SchemaItem
from sqlalchemy.types import TypeEngine

from cpdb.addresses import DPID, PORT

# Stable constraint names: alembic needs them to alter a constraint later on any engine.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)
BIG_ID = BigInteger().with_variant(Integer, "sqlite")


def required(kind: TypeEngine[Any] | type[TypeEngine[Any]], *names: str) -> list[Column[Any]]:
    """Columns of one type that always have a value."""
    return [Column(name, kind, nullable=False) for name in names]


def optional(kind: TypeEngine[Any] | type[TypeEngine[Any]], *names: str) -> list[Column[Any]]:
    """Columns of one type that may be NULL: not known."""
    return [Column(name, kind) for name in names]


def _table(name: str, *items: SchemaItem, **options: Any) -> Table:
    return Table(name, metadata, *items, **options)


def _numbered(name: str, *items: SchemaItem, **options: Any) -> Table:
    return _table(name, Column("id", BIG_ID, primary_key=True), *items, **options)


def _keyed(name: str, *items: SchemaItem) -> Table:
    return _table(name, Column("id", Integer, primary_key=True), *items)


nodes = _keyed(
    "nodes",
    Column("name", String(64), nullable=False, unique=True),
    *required(String(16), "kind"),
    *optional(String(64), "address", "address6", "attached_to"),
    *optional(String(17), "mac"),
    *optional(DPID, "dpid"),
    *optional(PORT, "port"),
    *optional(Float, "last_seen"),
)

links = _keyed(
    "links",
    *required(String(64), "a", "b"),
    *required(PORT, "a_port", "b_port"),
    *optional(Float, "capacity_bytes_per_s"),
    *required(Boolean, "up", "declared"),
    UniqueConstraint("a", "b"),
)

virtual_ips = _keyed(
    "virtual_ips",
    Column("address", String(64), nullable=False, unique=True),
    *required(String(64), "name"),
    *required(Integer, "priority"),
    *required(Boolean, "declared"),
    Column("affinity", String(16), nullable=False, server_default="source"),
    Column("probe", String(32), nullable=False, server_default="arp"),
)

destinations = _keyed(
    "destinations",
    Column("virtual_ip_id", Integer, ForeignKey(virtual_ips.c.id), nullable=False),
    *required(String(64), "name", "address"),
    *required(String(17), "mac"),
    *required(Integer, "weight"),
    UniqueConstraint("virtual_ip_id", "name"),
)

link_loads = _numbered(
    "link_loads",
    *required(String(64), "from_node", "to_node"),
    *required(Float, "t", "interval_s"),
    *required(BigInteger, "bytes", "packets", "drops"),
    Index(None, "t"),
)

host_loads = _numbered(
    "host_loads",
    *required(String(64), "host"),
    *required(Float, "t", "cpu_cores_used", "cpu_cores_capacity"),
    *required(BigInteger, "memory_bytes_used", "memory_bytes_capacity"),
    Index(None, "t"),
)

vm_loads = _numbered(
    "vm_loads",
    *required(String(64), "vm", "host"),
    *required(Float, "t", "cpu_cores_used", "cpu_cores_limit"),
    *required(String(16), "state"),
    *required(Integer, "vcpus"),
    *required(BigInteger, "memory_bytes_used", "memory_bytes_limit"),
    Column("network_rx_bytes_per_s", Float, nullable=False, server_default="0"),
    Column("network_tx_bytes_per_s", Float, nullable=False, server_default="0"),
    *optional(Float, "dirty_bytes_per_s"),
    Index(None, "t"),
)

scores = _numbered(
    "scores",
    Column("source_id", Integer, ForeignKey(nodes.c.id), nullable=False),
    Column("virtual_ip_id", Integer, ForeignKey(virtual_ips.c.id), nullable=False),
    *required(Float, "issued_at", "scored_at", "actual", "pinball"),
    *required(Integer, "horizon_s"),
    *required(String(32), "quantity", "model"),
    *required(Boolean, "covered_q90"),
    Index(None, "scored_at"),
)

# One row: each change of what is wanted takes the next number from here.
generations = _keyed("generations", *required(BigInteger, "generation"))


def _reservations(name: str, *items: SchemaItem) -> Table:
    return _numbered(
        name,
        *required(String(128), "key"),
        *required(String(64), "source", "virtual_ip", "owner"),
        *required(Float, "bytes_per_s", "created_at", "expires_at"),
        *required(JSON, "limits"),
        *optional(Integer, "dscp"),
        *required(String, "reason"),
        *required(BigInteger, "generation"),
        *items,
    )


reservations = _reservations("reservations", UniqueConstraint("key"))
# As they were until they were withdrawn or changed, or made anew after their end.
past_reservations = _reservations("past_reservations", Index(None, "expires_at"))

wanted_weights = _keyed(
    "wanted_weights",
    Column("virtual_ip", String(64), nullable=False, unique=True),
    *required(JSON, "weights"),
    *required(String(64), "owner"),
    *required(String, "reason"),
    *required(BigInteger, "generation"),
)

observed = _numbered(
    "observed",
    *required(String(16), "kind", "status"),
    *required(String(128), "key"),
    *required(String(64), "node"),
    *required(BigInteger, "generation"),
    *required(String, "detail"),
    *required(Float, "observed_at"),
    *required(JSON, "body"),
    UniqueConstraint("kind", "key", "node"),
)

actions = _numbered(
    "actions",
    *required(String(32), "kind"),
    *required(String(128), "target"),
    *required(JSON, "body", "reason", "verdict"),
    *required(String, "why", "sentence"),
    *required(String(16), "policy", "outcome"),
    *required(Float, "issued_at", "lead_s"),
    *optional(Float, "needed_at", "ready_at"),
    Index(None, "issued_at"),
)

# What ran short, whoever foresaw it.
shortages = _numbered(
    "shortages",
    *required(String(16), "kind"),
    *required(String(128), "subject"),
    *required(Float, "began_at", "seconds"),
    *required(String, "detail"),
    *optional(BigInteger, "foreseen_by"),
    Index(None, "began_at"),
)

audits = _numbered(
    "audits",
    *required(Float, "t"),
    *required(String(128), "who", "what"),
    *required(String(64), "origin"),
    *required(JSON, "detail"),
    Index(None, "t"),
)

# A pause without an end is in force until somebody resumes.
pauses = _keyed(
    "pauses",
    *required(Float, "paused_at"),
    *required(String(128), "paused_by"),
    *required(String, "reason"),
    *optional(Float, "ends_at", "resumed_at"),
    *optional(String(128), "resumed_by"),
)

holders = _table(
    "holders",
    Column("name", String(64), primary_key=True),
    *required(String(128), "holder"),
    *required(Float, "since", "expires_at"),
    Column("token", BigInteger, nullable=False, server_default="0"),
)

_PLAN = (*required(Float, "created_at", "expires_at"), *required(String(16), "state"), *required(JSON, "body"))
plans = _keyed("plans", *_PLAN)

flow_keys = _keyed(
    "flow_keys",
    Column("source_id", Integer, ForeignKey(nodes.c.id), nullable=False),
    Column("virtual_ip_id", Integer, ForeignKey(virtual_ips.c.id), nullable=False),
    # Empty, not NULL, when it is not known: NULLs would never be equal to one another.
    *required(String(64), "destination"),
    UniqueConstraint("source_id", "virtual_ip_id", "destination"),
)

batches = _numbered(
    "batches",
    *required(String(80), "observer"),
    *required(Float, "t", "interval_s"),
    *required(Integer, "flow_keys"),
    *required(Boolean, "complete"),
    *optional(Integer, "sampling"),
    # NULL: a batch without an identity, never taken for another's copy.
    *optional(String(80), "writer"),
    *required(BigInteger, "seq"),
    *required(LargeBinary, "body"),
    UniqueConstraint("writer", "seq", "t"),
    Index(None, "t"),
)

# Batches that are not rolled up yet. In by the batch's transaction, out by the roll-up's: exactly once.
pending = _table("pending", Column("batch_id", BIG_ID, primary_key=True), *required(Float, "t"))

# Which observer ever listed which flow key: from `since` on, its complete batches prove the flow key's silence.
observations = _table(
    "observations",
    Column("observer", String(80), primary_key=True),
    Column("flow_key_id", Integer, primary_key=True),
    *required(Float, "since"),
    sqlite_with_rowid=False,
)


def _patterns(name: str) -> Table:
    return _table(
        name,
        Column("t", Integer, primary_key=True),
        Column("flow_key_id", Integer, primary_key=True),
        *required(Float, "covered_s"),
        *required(BigInteger, "bytes", "packets", "connections", "peak_bytes_per_s"),
        *required(Integer, "flags"),
        sqlite_with_rowid=False,
    )


# By step in seconds. A row exists only for a flow key that said something in (t - step, t].
PATTERN_TABLES = {10: _patterns("patterns_10s"), 60: _patterns("patterns_60s")}

# What an observer covered with complete batches in (t - step_s, t]: there, a flow key without a row was silent.
covered = _table(
    "covered",
    Column("step_s", Integer, primary_key=True),
    Column("t", Integer, primary_key=True),
    Column("observer", String(80), primary_key=True),
    *required(Float, "covered_s"),
    sqlite_with_rowid=False,
)

progress = _table("progress", Column("name", String(32), primary_key=True), Column("value", Float, nullable=False))

# Lists of subjects, each kept once: a bulk forecast refers to the list by number.
rosters = _keyed("rosters", Column("digest", String(64), nullable=False, unique=True), *required(LargeBinary, "body"))

forecast_batches = _numbered(
    "forecast_batches",
    *required(String(16), "tier"),
    *required(Float, "issued_at"),
    Column("roster_id", Integer, ForeignKey(rosters.c.id), nullable=False),
    *required(JSON, "head"),
    *required(LargeBinary, "chosen", "quantiles", "activity", "horizon_s", "doubts"),
    Index(None, "issued_at"),
)

score_batches = _numbered(
    "score_batches",
    *required(Float, "scored_at"),
    Column("roster_id", Integer, ForeignKey(rosters.c.id), nullable=False),
    *required(JSON, "head"),
    *required(LargeBinary, "pinball", "covered", "count"),
    Index(None, "scored_at"),
)

horizon_moves = _numbered(
    "horizon_moves",
    *required(Float, "t"),
    *required(String(16), "kind"),
    *required(String(64), "a", "b"),
    *required(Integer, "from_s", "to_s"),
    *required(String, "reason"),
    Index(None, "t"),
)

# What a process learnt and wants to know again after a restart.
memories = _table(
    "memories",
    Column("key", String(128), primary_key=True),
    *required(Float, "remembered_at"),
    *required(LargeBinary, "body"),
)

# What people and the orchestrator changed about the declared destinations.
destination_changes = _keyed(
    "destination_changes",
    *required(String(64), "virtual_ip", "name", "address", "owner"),
    *required(String(17), "mac"),
    *required(Integer, "weight"),
    *required(String(16), "standing"),
    *required(String, "reason"),
    *required(Float, "changed_at"),
    *required(BigInteger, "generation"),
    UniqueConstraint("virtual_ip", "name"),
)

# One open row for each (kind, key, node); cleared ones are kept.
alarms = _numbered(
    "alarms",
    *required(String(32), "kind"),
    *required(String(128), "key"),
    *required(String(64), "node"),
    *required(String, "detail"),
    *required(Float, "first_at", "last_at"),
    *required(Integer, "count"),
    *optional(Float, "cleared_at"),
    Index(None, "last_at"),
)

# How traffic from one switch to another is to be split over paths.
wanted_splits = _keyed(
    "wanted_splits",
    *required(String(64), "from_switch", "to_switch", "owner"),
    *required(JSON, "paths", "ratios", "tags"),
    Column("heavy", JSON, nullable=False, server_default="[]"),
    *required(String, "reason"),
    *required(Float, "changed_at"),
    *optional(Float, "expires_at"),
    *required(BigInteger, "generation"),
    UniqueConstraint("from_switch", "to_switch"),
)

bandwidth_requests = _numbered(
    "bandwidth_requests",
    *required(String(64), "source", "virtual_ip"),
    *required(Float, "bytes_per_s", "until", "asked_at", "granted_bytes_per_s"),
    *required(String, "reason", "why"),
    *required(String(128), "asked_by"),
    *optional(Integer, "priority"),
    *optional(String(64), "tenant"),
    *required(String(16), "state"),
    *optional(Float, "obtained_bytes_per_s", "decided_at"),
    Index(None, "until"),
)

# How far an action of several steps has come, for whoever takes over.
action_steps = _numbered(
    "action_steps",
    *required(BIG_ID, "action_id"),
    *required(String(32), "step"),
    *required(Float, "t"),
    *required(JSON, "detail"),
    Index(None, "action_id"),
)
