"""docs/joining.md names the rules that a guest puts into a switch: exactly those that the code makes."""

from pathlib import Path

from ryu_apps.guest import Guest
from ryu_apps.openflow import describe_match, encode_match
from ryu_apps.pipeline import PairShare, Rewrite, Share, desired
from ryu_apps.rules import CONTROLLER, NORMAL, Action, LearnConnection, Output, ResubmitTable, Rule, SetField

DOCUMENT = Path(__file__).parents[2] / "docs" / "joining.md"
VIP, CLIENT, SERVER = "10.0.0.100", "10.0.0.1", "10.0.0.11"
NAMES = {CONTROLLER: "controller", NORMAL: "NORMAL"}


def text_of(action: Action) -> str:
    match action:
        case Output(port):
            return NAMES[port]
        case SetField(field, value):
            return f"{field}={value}"
        case ResubmitTable(table):
            return f"look into table {table}"
        case LearnConnection(table=table):
            return f"write it down in table {table}"
    return {"AnswerArp": "answer", "ChooseDestination": "choose the destination"}[type(action).__name__]


def line(rule: Rule) -> str:
    does = [text_of(one) for one in rule.actions] + ([] if rule.goto is None else [f"goto {rule.goto}"])
    what = (
        describe_match(encode_match(rule.match))
        .replace("field 8388522=0002/0012", "tcp_flags=+syn-ack")
        .replace("field 129", "reg1")
        .replace("eth_type=2048, ", "ip, ")
    )
    return f"{rule.table:>2} {rule.priority:>3}  {what}: {', '.join(does)}"


def guest_rules() -> list[str]:
    steer = Rewrite(CLIENT, VIP, SERVER, "02:00:00:00:00:11")
    rules = desired(Share((VIP,), {}, PairShare(((CLIENT, VIP),), (steer,)), guest=Guest()), {}).rules.values()
    return [line(rule) for rule in sorted(rules, key=lambda rule: (rule.table, -rule.priority, repr(rule.match)))]


def test_the_document_names_exactly_the_rules_that_a_guest_has() -> None:
    assert "\n".join(guest_rules()) in DOCUMENT.read_text()
