"""Cuts the stream of one connection into messages, and bounds what a peer can make us keep."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from ryu_apps.openflow.guard import HEADER_BYTES, MULTIPART_HEADER_BYTES, MULTIPART_REPLY, read_head
from ryu_apps.openflow.malformed import MalformedMessage, Reason

_MORE = 1
_FLOWS, _PORT_DESCRIPTIONS = 1, 13
# What all parts of one reply may hold together. Port descriptions: 65,536 ports.
_MOST_BYTES = {_PORT_DESCRIPTIONS: 4 << 20}
_MOST_BYTES_OF_OTHERS = 8 << 20
_MOST_OPEN = 64


class Inbox:
    """Bytes in, whole messages out. Never holds more than one message and what was just fed."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that `data` completes. Raises MalformedMessage as soon as a header is wrong.

        Take all of them before the next `feed`.
        """
        data = self._rest + data if self._rest else data
        self._rest = b""
        at, end = 0, len(data)
        while end - at >= HEADER_BYTES:
            stop = at + read_head(data, at).length
            if stop > end:
                break
            yield data[at:stop]
            at = stop
        self._rest = data[at:]


@dataclass(slots=True)
class OpenReplies:
    """Replies in several parts that have begun and not ended: their number and size are bounded."""

    most_flow_bytes: int
    _open: dict[int, tuple[int, int]] = field(default_factory=dict)

    def note(self, message: bytes) -> None:
        """Takes note of a sound message. Raises MalformedMessage when a reply has no end, or changes its kind."""
        if message[1] != MULTIPART_REPLY:
            return
        xid, kind = message[4:8], int.from_bytes(message[8:10])
        known, size = self._open.pop(int.from_bytes(xid), (kind, 0))
        size += len(message) - MULTIPART_HEADER_BYTES
        if known != kind:
            raise MalformedMessage(Reason.VALUE, f"a reply of kind {known} goes on as kind {kind}")
        most = self.most_flow_bytes if kind == _FLOWS else _MOST_BYTES.get(kind, _MOST_BYTES_OF_OTHERS)
        if size > most:
            raise MalformedMessage(Reason.SIZE, f"a reply of kind {kind} has {size} bytes and no end")
        if message[11] & _MORE:
            self._open[int.from_bytes(xid)] = (kind, size)
            if len(self._open) > _MOST_OPEN:
                raise MalformedMessage(Reason.SIZE, f"{len(self._open)} replies have begun and not ended")
