"""Tables and columns by the field's words: flow keys, tiers, quantiles, activity."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# As in version 2, by the new words.
VIEW = """
CREATE VIEW communication_patterns AS
SELECT n.name AS source, v.address AS virtual_ip, v.name AS service, nullif(k.destination, '') AS destination,
       p.t AS timestamp, p.step_s AS step_s, p.covered_s AS covered_s, p.bytes AS bytes, p.packets AS packets,
       p.connections AS connections,
       CASE WHEN p.packets > 0 THEN p.bytes * 1.0 / p.packets END AS mean_packet_bytes,
       CASE WHEN p.covered_s > 0 THEN p.bytes / p.covered_s END AS bytes_per_s,
       CASE WHEN p.covered_s > 0 THEN p.connections / p.covered_s END AS connections_per_s,
       p.peak_bytes_per_s AS peak_bytes_per_s, p.flags AS flags
FROM (SELECT 10 AS step_s, t, {key_id}, covered_s, bytes, packets, connections, peak_bytes_per_s, flags
      FROM patterns_10s
      UNION ALL
      SELECT 60 AS step_s, t, {key_id}, covered_s, bytes, packets, connections, peak_bytes_per_s, flags
      FROM patterns_60s WHERE t < (SELECT coalesce(min(t), 2147483647) FROM patterns_10s)) p
JOIN {keys} k ON k.id = p.{key_id} JOIN nodes n ON n.id = k.source_id JOIN virtual_ips v ON v.id = k.virtual_ip_id
"""
COLUMNS = (
    ("observations", "talk_id", "flow_key_id"),
    ("patterns_10s", "talk_id", "flow_key_id"),
    ("patterns_60s", "talk_id", "flow_key_id"),
    ("batches", "talks", "flow_keys"),
    ("forecast_batches", "lane", "tier"),
    ("forecast_batches", "fan", "quantiles"),
    ("forecast_batches", "talks", "activity"),
)


def _rename(table: str, old: str, new: str) -> None:
    # Unlike alembic's batch mode, which would copy the whole table, this changes a line of the schema on both engines.
    op.execute(f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}")


def _copy(old: str, new: str) -> None:
    """Into a table of its own: so its constraints are named after it on both engines."""
    op.create_table(
        new,
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("virtual_ip_id", sa.Integer(), nullable=False),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["source_id"], ["nodes.id"], name=f"fk_{new}_source_id_nodes"),
        sa.ForeignKeyConstraint(["virtual_ip_id"], ["virtual_ips.id"], name=f"fk_{new}_virtual_ip_id_virtual_ips"),
        sa.PrimaryKeyConstraint("id", name=f"pk_{new}"),
        sa.UniqueConstraint(
            "source_id", "virtual_ip_id", "destination", name=f"uq_{new}_source_id_virtual_ip_id_destination"
        ),
    )
    op.execute(f"INSERT INTO {new} SELECT id, source_id, virtual_ip_id, destination FROM {old}")
    op.drop_table(old)
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"SELECT setval('{new}_id_seq', (SELECT coalesce(max(id), 0) + 1 FROM {new}), false)")


def upgrade() -> None:
    """Goes one version up."""
    op.execute("DROP VIEW communication_patterns")
    _copy("talks", "flow_keys")
    for table, old, new in COLUMNS:
        _rename(table, old, new)
    op.execute(VIEW.format(keys="flow_keys", key_id="flow_key_id"))


def downgrade() -> None:
    """Goes back to the words of before."""
    op.execute("DROP VIEW communication_patterns")
    for table, old, new in COLUMNS:
        _rename(table, new, old)
    _copy("flow_keys", "talks")
    op.execute(VIEW.format(keys="talks", key_id="talk_id"))
