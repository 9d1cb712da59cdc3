"""Reads entries of one length into columns with array slices, so that no loop of Python's runs over them."""

import struct
import sys
from array import array
from itertools import repeat
from operator import add, mul

from ryu_apps.openflow.malformed import bad_length

_SWAP = sys.byteorder == "little"
_LENGTH = struct.Struct("!H").unpack_from


def numbers(code: str, data: bytes) -> "array[int]":
    """All big-endian unsigned numbers of `data`; `code` is array's, "Q" for 8 bytes, "I" for 4, "H" for 2."""
    found = array(code, data)
    if _SWAP:
        found.byteswap()
    return found


def ages(seconds: "array[int]", nanoseconds: "array[int]") -> "array[float]":
    """Both parts of a duration in one number, in seconds."""
    return array("d", map(add, seconds, map(mul, nanoseconds, repeat(1e-9))))


def same_ahead(data: bytes, at: int, length: int, marks: list[int]) -> int:
    """How many entries of `length` bytes follow each other from `at` on with the same bytes at all `marks`.

    `marks` are positions within an entry; both bytes of the entry's own length must be among them. The first entry
    counts, so the answer is at least 1 when one entry fits.
    """
    count = (len(data) - at) // length
    for mark in marks:
        if count == 1:
            break
        column = data[at + mark : at + count * length : length]
        count = len(column) - len(column.lstrip(column[:1]))
    return count


def runs(what: str, data: bytes, field: int, least: int) -> "list[tuple[int, int, int]]":
    """(at, length, count) of runs of entries of one length that fill `data` exactly.

    `field` is where in an entry its length stands, `least` its shortest sound length. Raises MalformedMessage.
    """
    found = []
    at, end = 0, len(data)
    while at < end:
        if at + least > end:
            raise bad_length(what, end - at, at)
        (length,) = _LENGTH(data, at + field)
        if length < least or at + length > end:
            raise bad_length(what, length, at)
        count = same_ahead(data, at, length, [field, field + 1])
        found.append((at, length, count))
        at += count * length
    return found
