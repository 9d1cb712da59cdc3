"""Switches that are less than Open vSwitch, as they show it: what they refuse, and how they count."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ryu_apps.rules import TCP_OPENING, Action, Match, Output, PopLabel, PushLabel, Rule, SetField, ToGroup

_STANDARD = Output | ToGroup | SetField | PushLabel | PopLabel
BAD_TABLE = "OFPET_FLOW_MOD_FAILED/OFPFMFC_BAD_TABLE_ID"
BAD_ACTION = "OFPET_BAD_ACTION/OFPBAC_BAD_EXPERIMENTER"
BAD_FIELD = "OFPET_BAD_MATCH/OFPBMC_BAD_FIELD"
TABLE_FULL = "OFPET_FLOW_MOD_FAILED/OFPFMFC_TABLE_FULL"
NO_GROUPS = "OFPET_BAD_REQUEST/OFPBRC_BAD_TYPE"
# Counters that tremble are read too low every other time, by this share.
TREMBLE = 0.1


class Counting(StrEnum):
    """How a switch counts the packets of its entries."""

    RIGHT = "right"
    # Always 0, or 2 ** 64 - 1: a counter that the switch does not have (OpenFlow 1.3.5, 5.8)
    DEAD = "dead"
    ABSENT = "absent"
    # Packets are counted and bytes are not
    PACKETS_ONLY = "packets only"
    # Less than before, now and then, though nobody cleared them
    TREMBLING = "trembling"


@dataclass(frozen=True, slots=True)
class SwitchProfile:
    """What a switch has. The default is what Open vSwitch has."""

    tables: int = 254
    extensions: bool = True
    max_meters: int = 262_144
    has_groups: bool = True
    # Entries that a table has room for, by table, and whether its features say so
    max_entries: Mapping[int, int] = field(default_factory=dict)
    says_max_entries: bool = False
    counting: Counting = Counting.RIGHT
    changes_per_s: float | None = None

    def refusal(self, rule: Rule, tables: Iterable[int]) -> str | None:
        """Why it does not take a new rule, while it has entries in these tables; None when it does."""
        if rule.table >= self.tables or (rule.goto or 0) >= self.tables:
            return BAD_TABLE
        if not self.extensions and _has_unknown_field(rule.match):
            return BAD_FIELD
        if not self.extensions and _has_unknown_action(rule.actions):
            return BAD_ACTION
        room = self.max_entries.get(rule.table)
        if room is not None and sum(table == rule.table for table in tables) >= room:
            return TABLE_FULL
        return None

    def shown(self, packets: int, size: int, look: int) -> tuple[int, int]:
        """Counters of an entry as they are told at the n-th look."""
        match self.counting:
            case Counting.DEAD:
                return 0, 0
            case Counting.ABSENT:
                return 2**64 - 1, 2**64 - 1
            case Counting.PACKETS_ONLY:
                return packets, 0
            case Counting.TREMBLING if look % 2:
                return packets - int(packets * TREMBLE), size - int(size * TREMBLE)
        return packets, size


def _has_unknown_field(match: Match) -> bool:
    return match.register is not None or match.message_type == TCP_OPENING


def _has_unknown_action(actions: Iterable[Action]) -> bool:
    return not all(isinstance(action, _STANDARD) for action in actions)
