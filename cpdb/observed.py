"""What one process has seen, in the form in which the others read it."""

from collections.abc import Iterable

from cpdb.model import DestinationHealth, HealthStatus, Observed

HEALTH = "health"


def read_health(rows: Iterable[Observed]) -> dict[str, dict[str, DestinationHealth]]:
    """Virtual IP -> destination -> what the controller knows of it; nothing of those of which it has not told."""
    found: dict[str, dict[str, DestinationHealth]] = {}
    for row in rows:
        if row.kind == HEALTH and row.status in list(HealthStatus):
            virtual_ip, _, name = row.key.partition("/")
            status = HealthStatus(row.status)
            found.setdefault(virtual_ip, {})[name] = DestinationHealth(status, status is HealthStatus.UP)
    return found
