"""The passive mirror's reading of matches: who an entry is about, and entries that look alike."""

import struct
from socket import inet_aton

import pytest

from ryu_apps.flow_mirror import ends_of


def match(*fields: tuple[int, bytes]) -> bytes:
    """An ofp_match; a number above 255 means that the field has a mask."""
    body = b"".join(
        struct.pack("!HBB", 0x8000, (field & 0x7F) << 1 | (field > 255), len(value)) + value for field, value in fields
    )
    return struct.pack("!HH", 1, 4 + len(body)) + body + bytes(-(4 + len(body)) % 8)


SOURCE, DESTINATION = (11, inet_aton("10.0.0.1")), (12, inet_aton("10.0.0.2"))
MACS = ((4, bytes.fromhex("020000000001")), (3, bytes.fromhex("020000000002")))


@pytest.mark.parametrize(
    ("fields", "ends"),
    [
        ((SOURCE, DESTINATION), ("10.0.0.1", "10.0.0.2")),
        (MACS, ("02:00:00:00:00:01", "02:00:00:00:00:02")),
        ((*MACS, SOURCE, DESTINATION), ("10.0.0.1", "10.0.0.2")),
        ((SOURCE,), None),
        ((), None),
        (((26, bytes(15) + b"\1"), (27, bytes.fromhex("fd00") + bytes(13) + b"\2")), ("::1", "fd00::2")),
        (((11 + 256, inet_aton("10.0.0.0") + inet_aton("255.0.0.0")), DESTINATION), None),
    ],
)
def test_an_entry_is_about_the_addresses_that_it_matches_exactly(
    fields: tuple[tuple[int, bytes], ...], ends: tuple[str, str] | None
) -> None:
    assert ends_of(match(*fields)) == ends
