"""The tables of what comes each second: one row holds a whole batch in columns; older time is rolled up into rows."""

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
    String,
    Table,
    UniqueConstraint,
)

from cpdb.schema import BIG_ID, metadata, nodes, virtual_ips

talks = Table(
    "talks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("source_id", Integer, ForeignKey(nodes.c.id), nullable=False),
    Column("virtual_ip_id", Integer, ForeignKey(virtual_ips.c.id), nullable=False),
    # Empty, not NULL, when it is not known: NULLs would never be equal to one another.
    Column("destination", String(64), nullable=False),
    UniqueConstraint("source_id", "virtual_ip_id", "destination"),
)

batches = Table(
    "batches",
    metadata,
    Column("id", BIG_ID, primary_key=True),
    Column("observer", String(80), nullable=False),
    Column("t", Float, nullable=False),
    Column("interval_s", Float, nullable=False),
    Column("talks", Integer, nullable=False),
    Column("complete", Boolean, nullable=False),
    Column("sampling", Integer),
    # NULL: a batch without an identity, never taken for another's copy.
    Column("writer", String(80)),
    Column("seq", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("writer", "seq", "t"),
    Index(None, "t"),
)

# Batches that are not rolled up yet. In by the batch's transaction, out by the roll-up's: exactly once.
pending = Table("pending", metadata, Column("batch_id", BIG_ID, primary_key=True), Column("t", Float, nullable=False))

# Which observer ever listed which talk: from `since` on, its complete batches prove the talk's silence.
observations = Table(
    "observations",
    metadata,
    Column("observer", String(80), primary_key=True),
    Column("talk_id", Integer, primary_key=True),
    Column("since", Float, nullable=False),
    sqlite_with_rowid=False,
)


def _patterns(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("t", Integer, primary_key=True),
        Column("talk_id", Integer, primary_key=True),
        Column("covered_s", Float, nullable=False),
        Column("bytes", BigInteger, nullable=False),
        Column("packets", BigInteger, nullable=False),
        Column("connections", BigInteger, nullable=False),
        Column("peak_bytes_per_s", BigInteger, nullable=False),
        Column("flags", Integer, nullable=False),
        sqlite_with_rowid=False,
    )


# By step in seconds. A row exists only for a talk that said something in (t - step, t].
PATTERN_TABLES = {10: _patterns("patterns_10s"), 60: _patterns("patterns_60s")}

# What an observer covered with complete batches in (t - step_s, t]: there, a talk without a row was silent.
covered = Table(
    "covered",
    metadata,
    Column("step_s", Integer, primary_key=True),
    Column("t", Integer, primary_key=True),
    Column("observer", String(80), primary_key=True),
    Column("covered_s", Float, nullable=False),
    sqlite_with_rowid=False,
)

progress = Table(
    "progress", metadata, Column("name", String(32), primary_key=True), Column("value", Float, nullable=False)
)

# Lists of subjects, each kept once: a bulk forecast refers to the list by number.
rosters = Table(
    "rosters",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("body", LargeBinary, nullable=False),
)

forecast_batches = Table(
    "forecast_batches",
    metadata,
    Column("id", BIG_ID, primary_key=True),
    Column("lane", String(16), nullable=False),
    Column("issued_at", Float, nullable=False),
    Column("roster_id", Integer, ForeignKey(rosters.c.id), nullable=False),
    Column("head", JSON, nullable=False),
    Column("chosen", LargeBinary, nullable=False),
    Column("fan", LargeBinary, nullable=False),
    Column("talks", LargeBinary, nullable=False),
    Column("horizon_s", LargeBinary, nullable=False),
    Index(None, "issued_at"),
)

score_batches = Table(
    "score_batches",
    metadata,
    Column("id", BIG_ID, primary_key=True),
    Column("scored_at", Float, nullable=False),
    Column("roster_id", Integer, ForeignKey(rosters.c.id), nullable=False),
    Column("head", JSON, nullable=False),
    Column("pinball", LargeBinary, nullable=False),
    Column("covered", LargeBinary, nullable=False),
    Column("count", LargeBinary, nullable=False),
    Index(None, "scored_at"),
)

horizon_moves = Table(
    "horizon_moves",
    metadata,
    Column("id", BIG_ID, primary_key=True),
    Column("t", Float, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("a", String(64), nullable=False),
    Column("b", String(64), nullable=False),
    Column("from_s", Integer, nullable=False),
    Column("to_s", Integer, nullable=False),
    Column("reason", String, nullable=False),
    Index(None, "t"),
)

# What a process learnt and wants to know again after a restart.
memories = Table(
    "memories",
    metadata,
    Column("key", String(128), primary_key=True),
    Column("remembered_at", Float, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
