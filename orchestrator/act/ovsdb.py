"""The database of this machine's switches, through Open vSwitch's own library: rows read and changed, no policy."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any

from cpdb import DriverError, Seconds

ANSWER_S = 5.0


def _column(key: Any, most: int | str, **more: Any) -> dict[str, Any]:
    return {"type": {"key": key, "min": 0, "max": most, **more}}


def _rows_of(table: str) -> dict[str, Any]:
    return {"type": "uuid", "refTable": table}


_TEXTS = _column("string", "unlimited", value="string")
# Of ovs-vswitchd.conf.db(5), the columns that are read and written.
SCHEMA: Mapping[str, Mapping[str, Any]] = {
    "Open_vSwitch": {"next_cfg": {"type": "integer"}, "cur_cfg": {"type": "integer"}},
    "Bridge": {"datapath_type": {"type": "string"}, "ports": _column(_rows_of("Port"), "unlimited")},
    "Port": {"name": {"type": "string"}, "qos": _column(_rows_of("QoS"), 1)},
    "QoS": {
        "type": {"type": "string"},
        "queues": _column("integer", "unlimited", value=_rows_of("Queue")),
        "other_config": _TEXTS,
        "external_ids": _TEXTS,
    },
    "Queue": {"other_config": _TEXTS, "external_ids": _TEXTS},
}


class SwitchDatabase:
    """One connection, kept for a look and the changes that follow it. Rows have their columns as attributes.

    A fresh one each time, since a replica that was kept may lag behind what others just wrote. Raises DriverError.
    """

    def __init__(self, remote: str, answer_s: Seconds = ANSWER_S) -> None:
        """`answer_s`: how long the switch may take for an answer."""
        # Here, since it loads eventlet, which nothing else of this process needs.
        from ovs.db import idl
        from ovs.poller import Poller
        from ovs.stream import Stream

        self._remote, self._answer_s, self._library, self._poller = remote, answer_s, idl, Poller
        # The library would go on trying where nobody listens.
        error, stream = Stream.open_block(Stream.open(remote), int(answer_s * 1000))
        if error:
            raise DriverError(f"Open vSwitch at {remote}: {os.strerror(error)}; does it run on this machine?")
        stream.close()
        tables = {name: {"columns": columns} for name, columns in SCHEMA.items()}
        schema = idl.SchemaHelper(schema_json={"name": "Open_vSwitch", "version": "8.0.0", "tables": tables})
        schema.register_all()
        self._replica = idl.Idl(remote, schema)
        self._wait(self._replica.has_ever_connected)

    def close(self) -> None:
        """Ends the connection."""
        self._replica.close()

    def rows(self, table: str) -> list[Any]:
        """The rows of a table."""
        return list(self._replica.tables[table].rows.values())

    @contextmanager
    def changing(self) -> Iterator[Callable[[str], Any]]:
        """One transaction, in which rows may be written; gives what adds a row to a table.

        At its end it waits until the switch has done what the database says, as ovs-vsctl does.
        """
        changes = self._library.Transaction(self._replica)
        yield lambda table: changes.insert(self._replica.tables[table])
        (switch,) = self.rows("Open_vSwitch")
        switch.increment("next_cfg")
        self._wait(lambda: changes.commit() != changes.INCOMPLETE)
        status = changes.commit()
        if status == changes.UNCHANGED:
            return
        if status != changes.SUCCESS:
            raise DriverError(f"Open vSwitch at {self._remote}: {changes.get_error() or status}")
        wanted = changes.get_increment_new_value()
        self._wait(lambda: switch.cur_cfg >= wanted)

    def _wait(self, done: Callable[[], bool]) -> None:
        end = monotonic() + self._answer_s
        while not done():
            left_s = end - monotonic()
            if left_s <= 0:
                raise DriverError(f"Open vSwitch at {self._remote} did not answer within {self._answer_s:g} s")
            poller = self._poller()
            self._replica.wait(poller)
            poller.timer_wait(int(1000 * left_s) + 1)
            poller.block()
            self._replica.run()
