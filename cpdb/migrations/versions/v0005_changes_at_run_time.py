"""What is asked for and found out while the system runs: destinations, alarms, splits, requests, steps of actions."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Goes one version up."""
    with op.batch_alter_table("virtual_ips") as batch:
        batch.add_column(sa.Column("affinity", sa.String(length=16), nullable=False, server_default="source"))
        batch.add_column(sa.Column("probe", sa.String(length=32), nullable=False, server_default="arp"))
    with op.batch_alter_table("vm_loads") as batch:
        batch.add_column(sa.Column("dirty_bytes_per_s", sa.Float(), nullable=True))
    _destination_changes()
    _alarms()
    _wanted_splits()
    _bandwidth_requests()
    _action_steps()


def downgrade() -> None:
    """Goes back: what was changed at run time is lost, what was declared stays."""
    op.drop_table("action_steps")
    op.drop_table("bandwidth_requests")
    op.drop_table("wanted_splits")
    op.drop_table("alarms")
    op.drop_table("destination_changes")
    with op.batch_alter_table("vm_loads") as batch:
        batch.drop_column("dirty_bytes_per_s")
    with op.batch_alter_table("virtual_ips") as batch:
        batch.drop_column("probe")
        batch.drop_column("affinity")


def _destination_changes() -> None:
    op.create_table(
        "destination_changes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("virtual_ip", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("mac", sa.String(length=17), nullable=False),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.Column("standing", sa.String(length=16), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("changed_at", sa.Float(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_destination_changes")),
        sa.UniqueConstraint("virtual_ip", "name", name=op.f("uq_destination_changes_virtual_ip_name")),
    )


def _alarms() -> None:
    op.create_table(
        "alarms",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("node", sa.String(length=64), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.Column("first_at", sa.Float(), nullable=False),
        sa.Column("last_at", sa.Float(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("cleared_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alarms")),
    )
    op.create_index(op.f("ix_alarms_last_at"), "alarms", ["last_at"], unique=False)


def _wanted_splits() -> None:
    op.create_table(
        "wanted_splits",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("from_switch", sa.String(length=64), nullable=False),
        sa.Column("to_switch", sa.String(length=64), nullable=False),
        sa.Column("paths", sa.JSON(), nullable=False),
        sa.Column("ratios", sa.JSON(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("changed_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=True),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_wanted_splits")),
        sa.UniqueConstraint("from_switch", "to_switch", name=op.f("uq_wanted_splits_from_switch_to_switch")),
    )


def _bandwidth_requests() -> None:
    op.create_table(
        "bandwidth_requests",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("virtual_ip", sa.String(length=64), nullable=False),
        sa.Column("bytes_per_s", sa.Float(), nullable=False),
        sa.Column("until", sa.Float(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("asked_by", sa.String(length=128), nullable=False),
        sa.Column("asked_at", sa.Float(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=True),
        sa.Column("tenant", sa.String(length=64), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("granted_bytes_per_s", sa.Float(), nullable=False),
        sa.Column("obtained_bytes_per_s", sa.Float(), nullable=True),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("decided_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bandwidth_requests")),
    )
    op.create_index(op.f("ix_bandwidth_requests_until"), "bandwidth_requests", ["until"], unique=False)


def _action_steps() -> None:
    op.create_table(
        "action_steps",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("action_id", BIG_ID, nullable=False),
        sa.Column("step", sa.String(length=32), nullable=False),
        sa.Column("t", sa.Float(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_action_steps")),
    )
    op.create_index(op.f("ix_action_steps_action_id"), "action_steps", ["action_id"], unique=False)
