"""Observed state has its numbers as numbers, in `body`; what is gone leaves no row behind."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

COUNTS = ("alarm", "failed", "implausible", "lost", "refused", "switch error")
observed = sa.table(
    "observed", *(sa.column(name) for name in ("id", "kind", "status", "detail")), sa.column("body", sa.JSON)
)


def upgrade() -> None:
    """Goes one version up."""
    op.add_column("observed", sa.Column("body", sa.JSON(), nullable=False, server_default="{}"))
    connection = op.get_bind()
    for row in connection.execute(sa.select(observed)).all():
        body = _body(row.kind, row.status, row.detail)
        own = observed.c.id == row.id
        if body is None:
            connection.execute(sa.delete(observed).where(own))
        elif body:
            status = "counted" if row.kind == "live" else row.status
            connection.execute(sa.update(observed).where(own).values(body=body, status=status))


def _body(kind: str, status: str, detail: str) -> dict[str, object] | None:
    """The numbers of a row; None for one that says nothing any more."""
    try:
        if kind == "health":
            return None if status == "removed" else {"answered": status == "up"}
        if kind == "live":
            return {"count": int(status)}
        if kind == "refresh":
            return {"refresh_s": float(detail)}
        return {"count": int(detail)} if kind in COUNTS else {}
    except ValueError:
        return None


def downgrade() -> None:
    """Goes back to numbers as text."""
    connection = op.get_bind()
    for row in connection.execute(sa.select(observed).where(observed.c.kind.in_(("live", "refresh")))).all():
        own = sa.update(observed).where(observed.c.id == row.id)
        text = {"status": str(row.body["count"])} if row.kind == "live" else {"detail": f"{row.body['refresh_s']:.2f}"}
        connection.execute(own.values(text))
    op.drop_column("observed", "body")
