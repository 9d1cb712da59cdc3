"""Of two orchestrators one stands by: who is on duty is written down."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Goes one version up."""
    op.create_table(
        "holders",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("holder", sa.String(length=128), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_holders")),
    )


def downgrade() -> None:
    """Goes back: without the table every orchestrator believes itself alone."""
    op.drop_table("holders")
