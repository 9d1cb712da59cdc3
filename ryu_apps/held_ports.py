"""The rules for a port that floods the controller: of its frames the switch tells nothing, or what a meter lets by.

OpenFlow's queue to the controller is one for all ports, so who fills it keeps everybody else's frames out.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ryu_apps.rules import CONTROLLER, ETH_LLDP, PORT_MAX, Output, PickBucket, ResubmitTable, Rule, Table

# Some 250 frames a second of the size of a SYN: more than is looked at, so that a flood that goes on is noticed.
HELD_KBIT_S = 128
_TELL = Output(CONTROLLER)


class HeldPorts:
    """Ports of each switch that flood the controller; `revision` changes with them."""

    def __init__(self) -> None:
        self.revision = 0
        self._ports: dict[int, frozenset[int]] = {}

    def of(self, dpid: int) -> tuple[int, ...]:
        """Those of one switch."""
        return tuple(sorted(self._ports.get(dpid, ())))

    def hold(self, dpid: int, ports: frozenset[int]) -> None:
        """These ports of a switch, and no others, flood."""
        self.revision += ports != self._ports.get(dpid, frozenset())
        self._ports[dpid] = ports


def held_number(port: int) -> int:
    """Stands for a held port where pairs have their numbers; not as `flood_number` does for its group frames."""
    return -(PORT_MAX + port)


def hold_port(rules: Iterable[Rule], port: int, meter: int | None) -> Iterator[Rule]:
    """What frames of `port` meet in the place of those `rules` that tell the controller, just above them.

    Who is also carried on is carried on untold; who only asks does so within the meter, where the switch has one.
    """
    for rule in rules:
        of = rule.match
        if any(isinstance(one, PickBucket) for one in rule.actions):
            # Connections that are known go on; with each new one a place in the switch would be gone.
            known = replace(rule, actions=(ResubmitTable(Table.AFFINITY),), match=replace(of, in_port=port))
            yield replace(known, priority=rule.priority + 1)
            continue
        if _TELL not in rule.actions or of.eth_type == ETH_LLDP or of.in_port not in (None, port):
            continue
        # A source that was not met is met for nothing but to be told of.
        others = () if rule.table == Table.MEET else tuple(one for one in rule.actions if one != _TELL)
        above = replace(rule, priority=rule.priority + (of.in_port is None), match=replace(of, in_port=port))
        if others or rule.goto is not None or rule.table > Table.FORWARD:
            yield replace(above, actions=others)
        elif meter is not None:
            yield replace(above, meter=meter)
