"""What the network decides to send, as data: the controller carries it out."""

from dataclasses import dataclass

from ryu_apps.rules import Meter, PortId, Rule, SwitchGroup


@dataclass(frozen=True, slots=True)
class PacketOut:
    """Send a frame out of these ports of a switch."""

    dpid: int
    ports: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Resubmit:
    """Put a frame through the tables of a switch as if it came in at `at`, once `after` hold their rules."""

    at: PortId
    data: bytes
    after: frozenset[int]


@dataclass(frozen=True, slots=True)
class Alert:
    """Somebody should look at this: it is logged, counted, and written as an alarm while it goes on."""

    kind: str
    key: str
    node: str
    detail: str


Effect = PacketOut | Resubmit | Alert


@dataclass(frozen=True, slots=True)
class AddMeter:
    """Creates a meter."""

    meter: Meter


@dataclass(frozen=True, slots=True)
class ModifyMeter:
    """Changes a meter's rate in place: rules that use it stay."""

    meter: Meter


@dataclass(frozen=True, slots=True)
class DeleteMeter:
    """Removes a meter."""

    number: int


@dataclass(frozen=True, slots=True)
class AddGroup:
    """Creates a group."""

    group: SwitchGroup


@dataclass(frozen=True, slots=True)
class ModifyGroup:
    """Changes a group's buckets in place: rules that use it stay."""

    group: SwitchGroup


@dataclass(frozen=True, slots=True)
class DeleteGroup:
    """Removes a group."""

    number: int


@dataclass(frozen=True, slots=True)
class PutRule:
    """Adds a rule or replaces the one with the same key; also restarts its lease."""

    rule: Rule


@dataclass(frozen=True, slots=True)
class DeleteRule:
    """Removes exactly this rule."""

    rule: Rule


Change = AddMeter | ModifyMeter | DeleteMeter | AddGroup | ModifyGroup | DeleteGroup | PutRule | DeleteRule
