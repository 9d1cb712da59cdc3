"""Reads what is new in the store, once each, also when it arrives late or is written twice."""

from cpdb import Communication, Store

Key = tuple[str, str, str | None, float, float]


class Reader:
    """Remembers which rows of the last `late_s` seconds it has handed out; rows that arrive later still are lost."""

    def __init__(self, window_s: float, late_s: float) -> None:
        self._window_s = window_s
        self._late_s = late_s
        self._newest: float | None = None
        self._seen: set[Key] = set()

    def read(self, store: Store, now: float) -> list[Communication]:
        """Rows with t <= now not handed out before; the first time those of the whole window. Raises StoreError."""
        since = now - self._window_s
        if self._newest is not None:
            since = max(since, self._newest - self._late_s)
        fresh = []
        for row in store.facts.communications(since, until=now):
            key = (row.source, row.virtual_ip, row.destination, row.t, row.interval_s)
            if key not in self._seen:
                self._seen.add(key)
                fresh.append(row)
        self._newest = max([row.t for row in fresh] + ([] if self._newest is None else [self._newest]), default=None)
        if self._newest is not None:
            oldest = self._newest - self._late_s
            self._seen = {key for key in self._seen if key[3] > oldest}
        return fresh
