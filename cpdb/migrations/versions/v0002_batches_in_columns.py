"""Communications and forecasts in batches, roll-ups, what was learnt."""

from itertools import groupby
from typing import Any

import sqlalchemy as sa
from alembic import op

from cpdb.telemetry.expiry import WIDTHS, has_timescale

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
ROWS_AT_ONCE = 50_000
# What people and dashboards read: 10 s rows as far back as they reach, minutes before that.
VIEW = """
CREATE VIEW communication_patterns AS
SELECT n.name AS source, v.address AS virtual_ip, v.name AS service, nullif(k.destination, '') AS destination,
       p.t AS timestamp, p.step_s AS step_s, p.covered_s AS covered_s, p.bytes AS bytes, p.packets AS packets,
       p.connections AS connections,
       CASE WHEN p.packets > 0 THEN p.bytes * 1.0 / p.packets END AS mean_packet_bytes,
       CASE WHEN p.covered_s > 0 THEN p.bytes / p.covered_s END AS bytes_per_s,
       CASE WHEN p.covered_s > 0 THEN p.connections / p.covered_s END AS connections_per_s,
       p.peak_bytes_per_s AS peak_bytes_per_s, p.flags AS flags
FROM (SELECT 10 AS step_s, t, talk_id, covered_s, bytes, packets, connections, peak_bytes_per_s, flags
      FROM patterns_10s
      UNION ALL
      SELECT 60 AS step_s, t, talk_id, covered_s, bytes, packets, connections, peak_bytes_per_s, flags
      FROM patterns_60s WHERE t < (SELECT coalesce(min(t), 2147483647) FROM patterns_10s)) p
JOIN talks k ON k.id = p.talk_id JOIN nodes n ON n.id = k.source_id JOIN virtual_ips v ON v.id = k.virtual_ip_id
"""


def upgrade() -> None:
    """Goes one version up; measured communications are kept, forecasts (seconds old at best) are not."""
    _talks_and_batches()
    _rollups()
    _foresight()
    with op.batch_alter_table("vm_loads") as table:
        for name in ("network_rx_bytes_per_s", "network_tx_bytes_per_s"):
            table.add_column(sa.Column(name, sa.Float(), nullable=False, server_default="0"))
    _convert()
    op.drop_table("communications")
    op.drop_table("forecasts")


def _postgres() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def _default_partition(table: str) -> None:
    # For what comes before its range has a partition.
    op.execute(f"CREATE TABLE {table}_rest PARTITION OF {table} DEFAULT")


def _talks_and_batches() -> None:
    op.create_table(
        "talks",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("virtual_ip_id", sa.Integer(), nullable=False),
        sa.Column("destination", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["source_id"], ["nodes.id"], name="fk_talks_source_id_nodes"),
        sa.ForeignKeyConstraint(["virtual_ip_id"], ["virtual_ips.id"], name="fk_talks_virtual_ip_id_virtual_ips"),
        sa.UniqueConstraint(
            "source_id", "virtual_ip_id", "destination", name="uq_talks_source_id_virtual_ip_id_destination"
        ),
    )
    op.create_table(
        "batches",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("observer", sa.String(80), nullable=False),
        sa.Column("t", sa.Float(), nullable=False),
        sa.Column("interval_s", sa.Float(), nullable=False),
        sa.Column("talks", sa.Integer(), nullable=False),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.Column("sampling", sa.Integer()),
        sa.Column("writer", sa.String(80)),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(*(("t", "id") if _postgres() else ("id",)), name="pk_batches"),
        sa.UniqueConstraint("writer", "seq", "t", name="uq_batches_writer_seq_t"),
        postgresql_partition_by="RANGE (t)",
    )
    if _postgres():
        _default_partition("batches")
        # It is compressed already.
        op.execute("ALTER TABLE batches ALTER COLUMN body SET STORAGE EXTERNAL")
    op.create_index("ix_batches_t", "batches", ["t"])
    op.create_table(
        "pending",
        sa.Column("batch_id", BIG_ID, primary_key=True),
        sa.Column("t", sa.Float(), nullable=False),
    )
    op.create_table(
        "observations",
        sa.Column("observer", sa.String(80), primary_key=True),
        sa.Column("talk_id", sa.Integer(), primary_key=True),
        sa.Column("since", sa.Float(), nullable=False),
        sqlite_with_rowid=False,
    )


def _rollups() -> None:
    chunked = _postgres() and has_timescale(op.get_bind())
    ranges: dict[str, Any] = {} if chunked else {"postgresql_partition_by": "RANGE (t)"}
    for name in ("patterns_10s", "patterns_60s"):
        op.create_table(
            name,
            sa.Column("t", sa.Integer(), primary_key=True),
            sa.Column("talk_id", sa.Integer(), primary_key=True),
            sa.Column("covered_s", sa.Float(), nullable=False),
            sa.Column("bytes", sa.BigInteger(), nullable=False),
            sa.Column("packets", sa.BigInteger(), nullable=False),
            sa.Column("connections", sa.BigInteger(), nullable=False),
            sa.Column("peak_bytes_per_s", sa.BigInteger(), nullable=False),
            sa.Column("flags", sa.Integer(), nullable=False),
            sqlite_with_rowid=False,
            **ranges,
        )
        if chunked:
            op.execute(f"SELECT create_hypertable('{name}', 't', chunk_time_interval => {WIDTHS[name]})")
        elif _postgres():
            _default_partition(name)
    op.create_table(
        "covered",
        sa.Column("step_s", sa.Integer(), primary_key=True),
        sa.Column("t", sa.Integer(), primary_key=True),
        sa.Column("observer", sa.String(80), primary_key=True),
        sa.Column("covered_s", sa.Float(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "progress",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.Float(), nullable=False),
    )
    op.execute(VIEW)
    for name in ("minutes_built_through", "loads_thinned_through"):
        op.execute(f"INSERT INTO progress (name, value) VALUES ('{name}', 0)")


def _foresight() -> None:
    op.create_table(
        "rosters",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.UniqueConstraint("digest", name="uq_rosters_digest"),
    )
    for name, moment, arrays in (
        ("forecast_batches", "issued_at", ("chosen", "fan", "talks", "horizon_s")),
        ("score_batches", "scored_at", ("pinball", "covered", "count")),
    ):
        lane = [sa.Column("lane", sa.String(16), nullable=False)] if name == "forecast_batches" else []
        op.create_table(
            name,
            sa.Column("id", BIG_ID, primary_key=True),
            *lane,
            sa.Column(moment, sa.Float(), nullable=False),
            sa.Column("roster_id", sa.Integer(), nullable=False),
            sa.Column("head", sa.JSON(), nullable=False),
            *(sa.Column(array, sa.LargeBinary(), nullable=False) for array in arrays),
            sa.ForeignKeyConstraint(["roster_id"], ["rosters.id"], name=f"fk_{name}_roster_id_rosters"),
        )
        op.create_index(f"ix_{name}_{moment}", name, [moment])
    op.create_table(
        "horizon_moves",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("t", sa.Float(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("a", sa.String(64), nullable=False),
        sa.Column("b", sa.String(64), nullable=False),
        sa.Column("from_s", sa.Integer(), nullable=False),
        sa.Column("to_s", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
    )
    op.create_index("ix_horizon_moves_t", "horizon_moves", ["t"])
    op.create_table(
        "memories",
        sa.Column("key", sa.String(128), primary_key=True),
        sa.Column("remembered_at", sa.Float(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
    )


def _convert() -> None:
    """Each moment of old rows becomes one batch; every row stays what it was."""
    from array import array

    from cpdb.telemetry.columns import pack

    connection = op.get_bind()
    connection.execute(
        sa.text(
            "INSERT INTO talks (source_id, virtual_ip_id, destination) "
            "SELECT DISTINCT source_id, virtual_ip_id, coalesce(destination, '') FROM communications"
        )
    )
    rows = connection.execute(
        sa.text(
            "SELECT c.t, c.interval_s, k.id, c.bytes, c.packets, c.new_connections FROM communications c "
            "JOIN talks k ON k.source_id = c.source_id AND k.virtual_ip_id = c.virtual_ip_id "
            "AND k.destination = coalesce(c.destination, '') ORDER BY c.t, c.interval_s, c.id"
        ),
        execution_options={"stream_results": True, "yield_per": ROWS_AT_ONCE},
    )
    add = sa.text(
        "INSERT INTO batches (observer, t, interval_s, talks, complete, seq, body) "
        "VALUES ('rows', :t, :interval_s, :talks, :complete, 0, :body)"
    )
    moments = (
        (moment, list(zip(*group, strict=True))) for moment, group in groupby(rows, key=lambda row: (row[0], row[1]))
    )
    for (t, interval_s), columns in moments:
        body = pack(array("I", columns[2]), columns[3:6], None)
        values = {"t": t, "interval_s": interval_s, "talks": len(columns[2]), "complete": False, "body": body}
        connection.execute(add, values)
    connection.execute(sa.text("INSERT INTO pending (batch_id, t) SELECT id, t FROM batches"))


def downgrade() -> None:
    """There is no way back: a batch does not fit into the first schema's rows."""
    raise NotImplementedError("a database cannot go back before batches; use a copy made before the upgrade")
