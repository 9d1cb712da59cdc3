"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Goes one version up."""
    op.create_table(
        "actions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("target", sa.String(length=128), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("reason", sa.JSON(), nullable=False),
        sa.Column("policy", sa.String(length=16), nullable=False),
        sa.Column("issued_at", sa.Float(), nullable=False),
        sa.Column("needed_at", sa.Float(), nullable=True),
        sa.Column("lead_s", sa.Float(), nullable=False),
        sa.Column("ready_at", sa.Float(), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("sentence", sa.String(), nullable=False),
        sa.Column("verdict", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_actions")),
    )
    with op.batch_alter_table("actions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_actions_issued_at"), ["issued_at"], unique=False)

    op.create_table(
        "generations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generations")),
    )
    op.create_table(
        "host_loads",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("host", sa.String(length=64), nullable=False),
        sa.Column("t", sa.Float(), nullable=False),
        sa.Column("cpu_cores_used", sa.Float(), nullable=False),
        sa.Column("cpu_cores_capacity", sa.Float(), nullable=False),
        sa.Column("memory_bytes_used", sa.BigInteger(), nullable=False),
        sa.Column("memory_bytes_capacity", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_host_loads")),
    )
    with op.batch_alter_table("host_loads", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_host_loads_t"), ["t"], unique=False)

    op.create_table(
        "link_loads",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("from_node", sa.String(length=64), nullable=False),
        sa.Column("to_node", sa.String(length=64), nullable=False),
        sa.Column("t", sa.Float(), nullable=False),
        sa.Column("interval_s", sa.Float(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("packets", sa.BigInteger(), nullable=False),
        sa.Column("drops", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_link_loads")),
    )
    with op.batch_alter_table("link_loads", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_link_loads_t"), ["t"], unique=False)

    op.create_table(
        "links",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("a", sa.String(length=64), nullable=False),
        sa.Column("a_port", sa.Integer(), nullable=False),
        sa.Column("b", sa.String(length=64), nullable=False),
        sa.Column("b_port", sa.Integer(), nullable=False),
        sa.Column("capacity_bytes_per_s", sa.Float(), nullable=True),
        sa.Column("up", sa.Boolean(), nullable=False),
        sa.Column("declared", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_links")),
        sa.UniqueConstraint("a", "b", name=op.f("uq_links_a_b")),
    )
    op.create_table(
        "nodes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=True),
        sa.Column("mac", sa.String(length=17), nullable=True),
        sa.Column("dpid", sa.BigInteger(), nullable=True),
        sa.Column("attached_to", sa.String(length=64), nullable=True),
        sa.Column("port", sa.Integer(), nullable=True),
        sa.Column("last_seen", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_nodes")),
        sa.UniqueConstraint("name", name=op.f("uq_nodes_name")),
    )
    op.create_table(
        "observed",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("node", sa.String(length=64), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.Column("observed_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_observed")),
        sa.UniqueConstraint("kind", "key", "node", name=op.f("uq_observed_kind_key_node")),
    )
    op.create_table(
        "plans",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plans")),
    )
    op.create_table(
        "reservations",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("virtual_ip", sa.String(length=64), nullable=False),
        sa.Column("bytes_per_s", sa.Float(), nullable=False),
        sa.Column("limits", sa.JSON(), nullable=False),
        sa.Column("dscp", sa.Integer(), nullable=True),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reservations")),
        sa.UniqueConstraint("key", name=op.f("uq_reservations_key")),
    )
    op.create_table(
        "virtual_ips",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("declared", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_virtual_ips")),
        sa.UniqueConstraint("address", name=op.f("uq_virtual_ips_address")),
    )
    op.create_table(
        "vm_loads",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("vm", sa.String(length=64), nullable=False),
        sa.Column("host", sa.String(length=64), nullable=False),
        sa.Column("t", sa.Float(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("cpu_cores_used", sa.Float(), nullable=False),
        sa.Column("cpu_cores_limit", sa.Float(), nullable=False),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("memory_bytes_used", sa.BigInteger(), nullable=False),
        sa.Column("memory_bytes_limit", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vm_loads")),
    )
    with op.batch_alter_table("vm_loads", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_vm_loads_t"), ["t"], unique=False)

    op.create_table(
        "wanted_weights",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("virtual_ip", sa.String(length=64), nullable=False),
        sa.Column("weights", sa.JSON(), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_wanted_weights")),
        sa.UniqueConstraint("virtual_ip", name=op.f("uq_wanted_weights_virtual_ip")),
    )
    op.create_table(
        "communications",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("virtual_ip_id", sa.Integer(), nullable=False),
        sa.Column("destination", sa.String(length=64), nullable=True),
        sa.Column("t", sa.Float(), nullable=False),
        sa.Column("interval_s", sa.Float(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("packets", sa.BigInteger(), nullable=False),
        sa.Column("mean_packet_bytes", sa.Float(), nullable=False),
        sa.Column("new_connections", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["source_id"], ["nodes.id"], name=op.f("fk_communications_source_id_nodes")),
        sa.ForeignKeyConstraint(
            ["virtual_ip_id"], ["virtual_ips.id"], name=op.f("fk_communications_virtual_ip_id_virtual_ips")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_communications")),
    )
    with op.batch_alter_table("communications", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_communications_t"), ["t"], unique=False)

    op.create_table(
        "destinations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("virtual_ip_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("mac", sa.String(length=17), nullable=False),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["virtual_ip_id"], ["virtual_ips.id"], name=op.f("fk_destinations_virtual_ip_id_virtual_ips")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_destinations")),
        sa.UniqueConstraint("virtual_ip_id", "name", name=op.f("uq_destinations_virtual_ip_id_name")),
    )
    op.create_table(
        "forecasts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("virtual_ip_id", sa.Integer(), nullable=False),
        sa.Column("issued_at", sa.Float(), nullable=False),
        sa.Column("horizon_s", sa.Integer(), nullable=False),
        sa.Column("quantity", sa.String(length=32), nullable=False),
        sa.Column("model", sa.String(length=32), nullable=False),
        sa.Column("quantiles", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["source_id"], ["nodes.id"], name=op.f("fk_forecasts_source_id_nodes")),
        sa.ForeignKeyConstraint(
            ["virtual_ip_id"], ["virtual_ips.id"], name=op.f("fk_forecasts_virtual_ip_id_virtual_ips")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_forecasts")),
    )
    with op.batch_alter_table("forecasts", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_forecasts_issued_at"), ["issued_at"], unique=False)

    op.create_table(
        "scores",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("virtual_ip_id", sa.Integer(), nullable=False),
        sa.Column("issued_at", sa.Float(), nullable=False),
        sa.Column("scored_at", sa.Float(), nullable=False),
        sa.Column("horizon_s", sa.Integer(), nullable=False),
        sa.Column("quantity", sa.String(length=32), nullable=False),
        sa.Column("model", sa.String(length=32), nullable=False),
        sa.Column("actual", sa.Float(), nullable=False),
        sa.Column("pinball", sa.Float(), nullable=False),
        sa.Column("covered_q90", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["source_id"], ["nodes.id"], name=op.f("fk_scores_source_id_nodes")),
        sa.ForeignKeyConstraint(
            ["virtual_ip_id"], ["virtual_ips.id"], name=op.f("fk_scores_virtual_ip_id_virtual_ips")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scores")),
    )
    with op.batch_alter_table("scores", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_scores_scored_at"), ["scored_at"], unique=False)


def downgrade() -> None:
    """Goes one version down."""
    with op.batch_alter_table("scores", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_scores_scored_at"))

    op.drop_table("scores")
    with op.batch_alter_table("forecasts", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_forecasts_issued_at"))

    op.drop_table("forecasts")
    op.drop_table("destinations")
    with op.batch_alter_table("communications", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_communications_t"))

    op.drop_table("communications")
    op.drop_table("wanted_weights")
    with op.batch_alter_table("vm_loads", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_vm_loads_t"))

    op.drop_table("vm_loads")
    op.drop_table("virtual_ips")
    op.drop_table("reservations")
    op.drop_table("plans")
    op.drop_table("observed")
    op.drop_table("nodes")
    op.drop_table("links")
    with op.batch_alter_table("link_loads", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_link_loads_t"))

    op.drop_table("link_loads")
    with op.batch_alter_table("host_loads", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_host_loads_t"))

    op.drop_table("host_loads")
    op.drop_table("generations")
    with op.batch_alter_table("actions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_actions_issued_at"))

    op.drop_table("actions")
