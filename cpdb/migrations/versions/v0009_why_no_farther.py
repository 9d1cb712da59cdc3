"""A forecast tells with its trusted horizon why no more is trusted; older ones do not know."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Goes one version up."""
    op.add_column(
        "forecast_batches", sa.Column("doubts", sa.LargeBinary(), nullable=False, server_default=sa.text("''"))
    )


def downgrade() -> None:
    """Forgets why."""
    op.drop_column("forecast_batches", "doubts")
