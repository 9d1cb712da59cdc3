"""The tables of what is asked for and found out at run time: destinations, alarms, splits, requests, steps."""

from sqlalchemy import JSON, BigInteger, Column, Float, Index, Integer, String, Table, UniqueConstraint

from cpdb.schema import BIG_ID, metadata

# What people and the orchestrator changed about the declared destinations.
destination_changes = Table(
    "destination_changes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("virtual_ip", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("address", String(64), nullable=False),
    Column("mac", String(17), nullable=False),
    Column("weight", Integer, nullable=False),
    Column("standing", String(16), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("reason", String, nullable=False),
    Column("changed_at", Float, nullable=False),
    Column("generation", BigInteger, nullable=False),
    UniqueConstraint("virtual_ip", "name"),
)

# One open row for each (kind, key, node); cleared ones are kept.
alarms = Table(
    "alarms",
    metadata,
    Column("id", BIG_ID, primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("key", String(128), nullable=False),
    Column("node", String(64), nullable=False),
    Column("detail", String, nullable=False),
    Column("first_at", Float, nullable=False),
    Column("last_at", Float, nullable=False),
    Column("count", Integer, nullable=False),
    Column("cleared_at", Float),
    Index(None, "last_at"),
)

# How traffic from one switch to another is to be split over paths.
wanted_splits = Table(
    "wanted_splits",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("from_switch", String(64), nullable=False),
    Column("to_switch", String(64), nullable=False),
    Column("paths", JSON, nullable=False),
    Column("ratios", JSON, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("owner", String(64), nullable=False),
    Column("reason", String, nullable=False),
    Column("changed_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("generation", BigInteger, nullable=False),
    UniqueConstraint("from_switch", "to_switch"),
)

bandwidth_requests = Table(
    "bandwidth_requests",
    metadata,
    Column("id", BIG_ID, primary_key=True),
    Column("source", String(64), nullable=False),
    Column("virtual_ip", String(64), nullable=False),
    Column("bytes_per_s", Float, nullable=False),
    Column("until", Float, nullable=False),
    Column("reason", String, nullable=False),
    Column("asked_by", String(128), nullable=False),
    Column("asked_at", Float, nullable=False),
    Column("priority", Integer),
    Column("tenant", String(64)),
    Column("state", String(16), nullable=False),
    Column("granted_bytes_per_s", Float, nullable=False),
    Column("obtained_bytes_per_s", Float),
    Column("why", String, nullable=False),
    Column("decided_at", Float),
    Index(None, "until"),
)

# How far an action of several steps has come, for whoever takes over.
action_steps = Table(
    "action_steps",
    metadata,
    Column("id", BIG_ID, primary_key=True),
    Column("action_id", BIG_ID, nullable=False),
    Column("step", String(32), nullable=False),
    Column("t", Float, nullable=False),
    Column("detail", JSON, nullable=False),
    Index(None, "action_id"),
)
