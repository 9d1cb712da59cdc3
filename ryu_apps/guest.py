"""What a guest holds in a switch: the same accounting, limits and virtual IPs, and all forwarding left to others.

In a table that others use as well, ours come first and take only packets that have not been through ours yet; then each
packet goes through the same table again, as if there were none of ours. Who speaks to a virtual IP may speak to its
destinations, too: only connections that were made to the virtual IP are rewritten, those that the switch wrote down.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from cpdb import Destination
from ryu_apps.rules import (
    CONTROLLER,
    ETH_ARP,
    ETH_IPV6,
    NORMAL,
    Action,
    ChooseDestination,
    FreshMatch,
    Kind,
    Match,
    NoteSeen,
    Output,
    ResubmitTable,
    Rule,
    SetField,
    Table,
    cookie,
    kind_of,
)
from ryu_apps.services.buckets import answers_rule, destination_number, serve_rules
from ryu_apps.topology.frames import PROBE_MAC

# In a table that others use as well: before all of theirs but the very highest, which are found and told.
SHARED_PRIORITY = 0xF000
_ANSWERED_PRIORITY = 115


@dataclass(frozen=True, slots=True)
class Guest:
    """Where packets go on after ours, by our own numbers of tables: the first is shared; None is what NORMAL does."""

    next_table: int | None = None
    # A switch that writes no connections down rewrites whole pairs instead
    by_connection: bool = True

    @property
    def is_shared(self) -> bool:
        """Whether others have rules in our first table."""
        return self.next_table == Table.ACCOUNT

    def rules(self, own: Iterable[Rule]) -> Iterable[Rule]:
        """The rules of a switch where we forward nothing, made of those where we do."""
        # Who is asked in nobody's name is answered in nobody's: others would look everywhere for that address.
        answered = []
        for number, eth_type in enumerate((ETH_ARP, ETH_IPV6), 4):
            match, mark = Match(eth_type=eth_type, eth_dst=PROBE_MAC), cookie(Table.ACCOUNT, Kind.LISTEN, number)
            answered.append(Rule(Table.ACCOUNT, _ANSWERED_PRIORITY, match, (Output(CONTROLLER),), cookie=mark))
        for rule in (*own, *answered):
            if self.by_connection and kind_of(rule.cookie) in (Kind.TO_DESTINATION, Kind.TO_CLIENT):
                yield from steer_connections(rule)
                continue
            if rule.table == Table.FORWARD and kind_of(rule.cookie) is Kind.DEFAULT:
                if rule.match == Match():
                    yield replace(rule, actions=self._hand_over(), goto=None if self.is_shared else self.next_table)
                continue
            if rule.table == Table.ACCOUNT:
                if kind_of(rule.cookie) is Kind.LISTEN and rule not in answered and rule.match.question_for is None:
                    # A copy for us; others get theirs.
                    rule = replace(rule, goto=Table.POLICER)
                if self.is_shared:
                    fresh = replace(rule.match, register=FreshMatch())
                    rule = replace(rule, priority=rule.priority + SHARED_PRIORITY, match=fresh)
            yield rule

    def _hand_over(self) -> tuple[Action, ...]:
        if self.next_table is None:
            return (Output(NORMAL),)
        return (NoteSeen(), ResubmitTable(Table.ACCOUNT)) if self.is_shared else ()


def steer_connections(rule: Rule) -> Iterable[Rule]:
    """What steers a pair, connection by connection; answers are looked up where the pair enters."""
    if any(isinstance(one, ResubmitTable) for one in rule.actions):
        yield rule
        return
    to = {one.field: str(one.value) for one in rule.actions if isinstance(one, SetField)}
    virtual_ip = rule.match.ip_dst
    if kind_of(rule.cookie) is Kind.TO_CLIENT or virtual_ip is None:
        return
    address = to["ip_dst"]
    chosen = ChooseDestination(destination_number(virtual_ip, address))
    yield replace(rule, actions=(ResubmitTable(Table.AFFINITY), chosen, ResubmitTable(Table.SERVE)))
    yield from serve_rules(virtual_ip, Destination(address, address, to["eth_dst"]))
    yield answers_rule(address)
