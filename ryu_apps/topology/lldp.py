"""LLDP frames that only our controllers can make: whoever hears one knows where it was sent, and each counts once.

Anybody on the wire can send LLDP, and links learnt from it decide where traffic goes. So every frame carries, in an
organisation-specific element, when it was sent, a number used once, and an HMAC-SHA256 (RFC 2104) over both and the
port that it left from. All controllers of one database share the key, which lies in the database and is never shown or
logged; before there is a database, each process makes its own.
"""

import hmac
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from secrets import token_bytes

from ryu_apps.rules import ETH_LLDP, PortId
from ryu_apps.topology.frames import LLDP_GROUP, PROBE_MAC, mac_bytes

Seconds = float

# A busy controller may read a frame some seconds after it came; what is later is not believed.
LIFE_S = 10.0
# So long it is known which frames were sent, and which of them were heard.
_KEPT_S = 60.0
_NONCE_BYTES, _MAC_BYTES = 8, 32
KEY_BYTES = _MAC_BYTES
# IEEE 802.1AB: element 127 is the organisation's own; the identifier is locally administered.
_OWNER = b"\xf2\xea\x00\x02forepath"
_HEAD_BYTES = 14
_SIGNED = struct.Struct("!QId8s")
_STAMP = struct.Struct("!d8s32s")
_MIN_FRAME = 60


class Verdict(Enum):
    """What a frame is worth."""

    # Nothing to us: other devices speak LLDP, too, and what was read late says nothing
    FOREIGN = "foreign"
    TRUE = "true"
    FORGED = "forged"
    # Of our making, but it came twice, late, or by another way than it can have gone
    RELAYED = "relayed"


@dataclass(frozen=True, slots=True)
class LldpFrame:
    """What a frame says; `sender` is to be believed only when the verdict is TRUE."""

    verdict: Verdict
    sender: PortId | None = None
    why: str = ""


@dataclass(slots=True)
class _Sent:
    at: PortId
    t: Seconds
    heard_at: PortId | None = None


@dataclass(slots=True)
class LldpSigner:
    """Makes frames and knows its own again."""

    key: bytes = field(default_factory=lambda: token_bytes(_MAC_BYTES), repr=False)
    chance: Callable[[int], bytes] = token_bytes
    _is_shared: bool = False
    # Frames on their way when the key was shared
    _former: list[bytes] = field(default_factory=list, repr=False)
    _sent: dict[bytes, _Sent] = field(default_factory=dict)

    def share(self, key: bytes) -> None:
        """From now on with the key of all; from others' frames links are learnt as from own ones."""
        self._is_shared = True
        if key != self.key:
            self._former, self.key = [*self._former, self.key], key

    def frame(self, at: PortId, now: Seconds) -> bytes:
        """An LLDP frame to be sent out of a port."""
        # Frames are sent in the order of time, and a dictionary keeps its order.
        while self._sent and now - next(iter(self._sent.values())).t > _KEPT_S:
            del self._sent[next(iter(self._sent))]
        nonce = self.chance(_NONCE_BYTES)
        self._sent[nonce] = _Sent(at, now)
        stamp = _STAMP.pack(now, nonce, self._sign(at, now, nonce))
        chassis, port = b"\x07" + f"dpid:{at.dpid:016x}".encode(), b"\x07" + str(at.port).encode()
        parts = [(1, chassis), (2, port), (3, struct.pack("!H", 10)), (127, _OWNER + stamp), (0, b"")]
        body = b"".join(struct.pack("!H", kind << 9 | len(value)) + value for kind, value in parts)
        head = mac_bytes(LLDP_GROUP) + mac_bytes(PROBE_MAC) + ETH_LLDP.to_bytes(2, "big")
        return (head + body).ljust(_MIN_FRAME, b"\0")

    def _sign(self, at: PortId, t: Seconds, nonce: bytes, key: bytes | None = None) -> bytes:
        return hmac.digest(key or self.key, _SIGNED.pack(at.dpid, at.port, t, nonce), "sha256")

    def hear(self, at: PortId, data: bytes, now: Seconds) -> LldpFrame:
        """What a frame that came in at `at` is worth; a true one is true only once."""
        found = _elements(data)
        owner = found.get(127, b"")
        if not owner.startswith(_OWNER[:4]) or _OWNER[4:] not in owner:
            return LldpFrame(Verdict.FOREIGN)
        sender = _sender(found)
        if sender is None or len(owner) != len(_OWNER) + _STAMP.size:
            return LldpFrame(Verdict.FORGED, why="it is not signed")
        t, nonce, signature = _STAMP.unpack_from(owner, len(_OWNER))
        keys = (self.key, *self._former)
        if not any(hmac.compare_digest(signature, self._sign(sender, t, nonce, key)) for key in keys):
            return LldpFrame(Verdict.FORGED, sender, "its signature is wrong")
        sent = self._sent.get(nonce)
        if sent is None and self._is_shared and abs(now - t) < LIFE_S:
            # Another controller sent it; from now on it is known, and counts once.
            sent = self._sent[nonce] = _Sent(sender, now)
        if sent is None:
            return LldpFrame(Verdict.RELAYED, sender, f"it was sent {now - t:.0f} s ago")
        if sent.heard_at is not None:
            return LldpFrame(Verdict.RELAYED, sender, "the same frame came before")
        if now - sent.t > LIFE_S:
            # It may have waited here, behind a flood: no reason for an alarm, and none to believe it.
            return LldpFrame(Verdict.FOREIGN, sender, "it came late")
        sent.heard_at = at
        return LldpFrame(Verdict.TRUE, sender)


def _elements(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = _HEAD_BYTES
    while at + 2 <= len(data):
        (head,) = struct.unpack_from("!H", data, at)
        kind, length = head >> 9, head & 0x1FF
        if kind == 0:
            break
        found.setdefault(kind, data[at + 2 : at + 2 + length])
        at += 2 + length
    return found


def _sender(found: dict[int, bytes]) -> PortId | None:
    chassis, port = found.get(1, b""), found.get(2, b"")
    if not chassis.startswith(b"\x07dpid:"):
        return None
    try:
        dpid, number = int(chassis[6:], 16), int(port[1:])
    except ValueError:
        return None
    return PortId(dpid, number) if 0 <= dpid < 1 << 64 and 0 <= number < 1 << 32 else None
