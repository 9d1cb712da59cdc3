"""Counters that outlive the controller, one file a switch: what a switch counts while nobody looks is not lost."""

from dataclasses import dataclass
from pathlib import Path

import structlog

_log = structlog.get_logger("ryu_apps.counting.kept")


@dataclass(slots=True)
class Kept:
    """Dumps of counters in `directory`; None keeps nothing. `failures` counts what could not be written."""

    directory: Path | None
    failures: int = 0

    def read(self, dpid: int) -> bytes | None:
        """What was written for a switch, None when there is nothing."""
        if self.directory is None:
            return None
        try:
            return self._file(self.directory, dpid).read_bytes()
        except OSError:
            return None

    def write(self, dpid: int, dump: bytes) -> None:
        """Replaces what was kept, as a whole or not at all. A full disk is counted and reported once."""
        if self.directory is None:
            return
        file = self._file(self.directory, dpid)
        fresh = file.with_suffix(".new")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            fresh.write_bytes(dump)
            fresh.replace(file)
        except OSError as error:
            if not self.failures:
                _log.warning("counters are not kept over a restart", file=str(file), reason=error.strerror)
            self.failures += 1

    @staticmethod
    def _file(directory: Path, dpid: int) -> Path:
        return directory / f"{dpid:016x}.counters"
