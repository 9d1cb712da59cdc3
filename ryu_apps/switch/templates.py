"""Packs the rules that place connections by filling in templates: the framework takes 50 times as long for each."""

from functools import lru_cache
from socket import inet_aton

from ryu_apps.framework import offline_datapath
from ryu_apps.rules import Action, Choose, KeepConnection, LookInto, Match, Rule, SetField
from ryu_apps.switch.datapath import encode_rule

# Values that nothing else in a message looks like
_MAC, _ADDRESS, _VIRTUAL_IP, _NUMBER = "5a:c3:96:e1:7b:2d", "201.149.83.167", "217.61.139.43", 0xB7D94E8B
# A message that adds a rule without match: its head and the empty match, then instructions.
_BEFORE_INSTRUCTIONS = 56


def by_framework(actions: tuple[Action, ...], goto: int | None) -> bytes:
    """The instructions of a rule besides its meter, made by the framework."""
    message = encode_rule(offline_datapath(), Rule(0, 0, Match(), actions, goto), 0.0)
    message.set_xid(0)
    message.serialize()
    return bytes(message.buf[_BEFORE_INSTRUCTIONS:])


def from_template(actions: tuple[Action, ...], goto: int | None) -> bytes | None:
    """The same, for actions of which there are many alike; None for others."""
    match actions:
        case (SetField("eth_dst", str(mac)), SetField("ipv4_dst", str(address)), KeepConnection() as keep):
            if (mac, address) != (keep.mac, keep.address):
                return None
            filled = _serving(keep.protocol, keep.idle_s, goto)
            filled = filled.replace(_bytes(_MAC), _bytes(mac)).replace(inet_aton(_ADDRESS), inet_aton(address))
            filled = filled.replace(inet_aton(_VIRTUAL_IP), inet_aton(keep.virtual_ip))
            return filled.replace(_NUMBER.to_bytes(4, "big"), keep.number.to_bytes(4, "big"))
        case (Choose(number), LookInto(table)):
            return _choosing(table, goto).replace(_NUMBER.to_bytes(4, "big"), number.to_bytes(4, "big"))
    return None


def _bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


@lru_cache(maxsize=64)
def _serving(protocol: int, idle_s: int, goto: int | None) -> bytes:
    keep = KeepConnection(protocol, _VIRTUAL_IP, _ADDRESS, _MAC, _NUMBER, idle_s)
    return by_framework((SetField("eth_dst", _MAC), SetField("ipv4_dst", _ADDRESS), keep), goto)


@lru_cache(maxsize=64)
def _choosing(table: int, goto: int | None) -> bytes:
    return by_framework((Choose(_NUMBER), LookInto(table)), goto)
