"""Several controllers: who is master of which switch, in which tenure, and how far its counters are written down."""

import sqlalchemy as sa
from alembic import op

from cpdb.addresses import DPID

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Goes one version up."""
    op.add_column("holders", sa.Column("token", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "controllers",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("connected", sa.JSON(), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_controllers")),
    )
    op.create_table(
        "switch_counters",
        sa.Column("dpid", DPID, nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("keeper", sa.String(length=256), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("dpid", name=op.f("pk_switch_counters")),
    )


def downgrade() -> None:
    """Forgets them."""
    op.drop_table("switch_counters")
    op.drop_table("controllers")
    op.drop_column("holders", "token")
