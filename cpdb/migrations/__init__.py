"""Alembic's environment: how an older database becomes a newer one."""
