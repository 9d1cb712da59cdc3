"""Runs migrations on the engine that the caller hands over, each run in one transaction."""

from alembic import context

import cpdb.schema  # noqa: F401 - their tables belong to the metadata
from cpdb.schema import metadata

engine = context.config.attributes["engine"]
with engine.connect() as connection:
    # SQLite cannot alter a column in place: batch mode copies the table instead.
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
