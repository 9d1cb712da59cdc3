"""The one error of this package: why a message was refused, as a word to count and a line to read."""

from enum import StrEnum

from cpdb import ForepathError


class Reason(StrEnum):
    """What kind of wrong a refused message is; the name under which refusals are counted."""

    VERSION = "version"
    TYPE = "type"
    PHASE = "phase"
    LENGTH = "length"
    VALUE = "value"
    SIZE = "size"


class MalformedMessage(ForepathError):
    """A peer sent something that no OpenFlow 1.3 switch may send."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def bad_length(what: str, length: int, at: int) -> MalformedMessage:
    """A length that does not fit: what has it, which it is, and where in the message or body it stands."""
    return MalformedMessage(Reason.LENGTH, f"{what}: length {length} at byte {at} does not fit")


def bad_value(what: str, value: int, at: int) -> MalformedMessage:
    """A type or kind that a switch may not send there."""
    return MalformedMessage(Reason.VALUE, f"{what} {value} at byte {at} is not one of OpenFlow 1.3")
