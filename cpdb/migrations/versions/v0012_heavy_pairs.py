"""A split names the pairs that are placed by what they carry."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Goes one version up."""
    op.add_column("wanted_splits", sa.Column("heavy", sa.JSON(), nullable=False, server_default=sa.text("'[]'")))


def downgrade() -> None:
    """Forgets them."""
    op.drop_column("wanted_splits", "heavy")
