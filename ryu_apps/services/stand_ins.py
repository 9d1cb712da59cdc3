"""Who stands in, by the switch alone, for a destination whose port there is down: data in, data out.

The rule of a hash bucket notes whether its owner's port is up. Where it is not, rules of table `stand_in`, the same for
all owners, note the first port that is up of an order that the last bits of the bucket decide, and choose who is there.
Not a group: the switch takes back what a group's bucket has done to a packet, so nothing after it would know.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile

from ryu_apps.families import match_ip
from ryu_apps.rules import (
    NOBODY_UP,
    STAND_IN_SHIFT,
    UP_SHIFT,
    Action,
    BucketMatch,
    ChooseDestination,
    Kind,
    NoteUp,
    ResubmitTable,
    Rule,
    RuleKey,
    Table,
    cookie,
    pair_number,
)
from ryu_apps.services.buckets import BUCKETS, BucketPlacement, compress_buckets, destination_number, quotas

# So many orders, by the last bits of a bucket: more would be more even, and more rules.
_ORDER_BITS = 4
_NOTED = 0xFFFF_FFFF & ~(BUCKETS - 1)
_OWNER_DOWN = NOBODY_UP << UP_SHIFT
# What is noted again leaves these bits as the owner's port that is down set them; ports with higher numbers have them.
_AGAIN = _OWNER_DOWN & ~(NOBODY_UP << STAND_IN_SHIFT)
_PORTS = _AGAIN >> UP_SHIFT


def rules_at(spread: BucketPlacement, attached: Mapping[str, int]) -> Mapping[RuleKey, Rule]:
    """All rules of a virtual IP in a switch that has these MACs at these ports."""
    eligible = [one for one in spread.destinations if one.weight > 0]
    ports = {one.name: attached[one.mac] for one in eligible if attached.get(one.mac, _PORTS) < _PORTS}
    if not ports or len({ports.get(one.name) for one in eligible}) < 2:
        return spread.rules
    key = tuple(ports.items())
    if key not in spread.at:
        rules = (*_turning(spread, ports), *_standing_in(spread, ports))
        spread.at[key] = {**spread.rules, **{rule.key: rule for rule in rules}}
    return spread.at[key]


def _turning(spread: BucketPlacement, ports: Mapping[str, int]) -> Iterator[Rule]:
    own = {_choose(spread, name): port for name, port in ports.items()}
    for rule in spread.rules.values():
        if rule.table == Table.BUCKETS and (port := own.get(rule.actions[0])) is not None:
            turn = NoteUp((port,)), ResubmitTable(Table.STAND_IN)
            yield replace(rule, actions=(rule.actions[0], *turn, *rule.actions[1:]))


def _standing_in(spread: BucketPlacement, ports: Mapping[str, int]) -> Iterator[Rule]:
    weights = {one.name: one.weight for one in spread.destinations if one.weight > 0}
    names = list(weights)
    firsts = [name for name, count in quotas(weights, 1 << _ORDER_BITS).items() for _ in range(count)]
    orders = [list(dict.fromkeys((first, *names[at % len(names) :], *names))) for at, first in enumerate(firsts)]
    yield from _by_order(spread, _OWNER_DOWN, [_look(spread, order, ports) for order in orders])
    for port in sorted(set(ports.values())):
        there = (next(name for name in order if ports.get(name) == port) for order in orders)
        yield from _by_order(spread, _AGAIN | port << STAND_IN_SHIFT, [(_choose(spread, name),) for name in there])


def _look(spread: BucketPlacement, order: Sequence[str], ports: Mapping[str, int]) -> tuple[Action, ...]:
    """The first port that is up, as far as the first of the order that is elsewhere; where none is, that one."""
    near = dict.fromkeys(ports[name] for name in takewhile(ports.__contains__, order))
    elsewhere = [_choose(spread, name) for name in order if name not in ports][:1]
    return (*elsewhere, *((NoteUp(tuple(near), STAND_IN_SHIFT), ResubmitTable(Table.STAND_IN)) if near else ()))


def _choose(spread: BucketPlacement, name: str) -> Action:
    return ChooseDestination(destination_number(spread.virtual_ip, name))


def _by_order(spread: BucketPlacement, noted: int, does: Sequence[tuple[Action, ...]]) -> Iterator[Rule]:
    """What packets with this note meet, order by order; of equal ones, as few as say the same."""
    names = {actions: str(number) for number, actions in enumerate(dict.fromkeys(does))}
    known = dict(zip(names.values(), names, strict=True))
    mark = cookie(Table.STAND_IN, Kind.SPREAD, pair_number("", spread.virtual_ip))
    for one in compress_buckets([names[actions] for actions in does]):
        # The last bit of a bucket is the first of its order's number: owners differ in the first ones.
        bits = f"{one.first:0{_ORDER_BITS}b}"[: one.length][::-1]
        register = BucketMatch(noted | int(bits or "0", 2), _NOTED | (1 << one.length) - 1)
        match = match_ip(to=spread.virtual_ip, register=register)
        yield Rule(Table.STAND_IN, 1 + one.length, match, known[one.owner], cookie=mark)
