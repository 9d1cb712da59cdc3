"""Nodes with an address of IPv6 beside the one of IPv4."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Goes one version up."""
    op.add_column("nodes", sa.Column("address6", sa.String(length=64), nullable=True))


def downgrade() -> None:
    """Forgets them."""
    op.drop_column("nodes", "address6")
