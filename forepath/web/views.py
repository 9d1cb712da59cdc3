"""The views: what each asks of the database, the template and the charts that show it, and how it is addressed."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from cpdb import OutcomeKind, SubjectKind
from forepath.web import charts, conduct, network
from forepath.web.address import PageAddress
from forepath.web.reader import Question
from predictor import FAST, SLOW

PAGE_ROWS = 50
FARTHEST_S = 7200.0
LONGEST_S = 90 * 86_400.0
MOST_OFFSET = 1e6


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing of what is told, its name for those who cannot see it, and its height in pixels."""

    name: str
    draw: Callable[[Any], dict[str, Any]]
    height: int = 300


@dataclass(frozen=True, slots=True)
class View:
    """One view. `takes` gives the question's arguments from the address; raises SettingsError for wrong ones."""

    path: str
    title: str
    question: Question
    takes: Callable[[PageAddress], tuple[Hashable, ...]]
    template: str
    charts: tuple[Chart, ...] = ()
    in_menu: bool = False


def _ahead(address: PageAddress) -> float:
    return address.number("ahead", 15.0, FARTHEST_S)


def _paged(address: PageAddress) -> tuple[int, int]:
    return int(address.number("limit", PAGE_ROWS, 500)), int(address.number("offset", 0, MOST_OFFSET))


def _journal(address: PageAddress) -> tuple[Hashable, ...]:
    outcome = address.choice("outcome", ["", *(one.value for one in OutcomeKind)], "")
    return address.number("since", 3600.0, LONGEST_S), address.word("kind"), outcome, *_paged(address)


def _accuracy(address: PageAddress) -> tuple[Hashable, ...]:
    kind = address.choice("kind", [one.value for one in SubjectKind], SubjectKind.PAIR.value)
    return SubjectKind(kind), address.choice("tier", (FAST, SLOW), FAST)


def _nothing(_: PageAddress) -> tuple[Hashable, ...]:
    return ()


def _machine(address: PageAddress) -> tuple[Hashable, ...]:
    return (address.word("name"),)


VIEWS = (
    View("/", "Topology", network.tell_topology, lambda at: (_ahead(at),), "topology",
         (Chart("The network and its use", charts.draw_topology, 420),), True),
    View("/pairs", "Pairs", network.tell_pairs, _paged, "pairs", (), True),
    View("/pair", "Pair", network.tell_pair, lambda at: (at.word("source"), at.word("virtual_ip")), "pair",
         (Chart("What the pair sent and is expected to send", charts.draw_rates),)),
    View("/link", "Link", network.tell_link, lambda at: (at.word("from"), at.word("to"), _ahead(at)), "link",
         (Chart("What crossed the link and is expected to cross it", charts.draw_rates),)),
    View("/machines", "Machines", network.tell_machines, _nothing, "machines", (), True),
    View("/machine", "Machine", network.tell_machine, _machine, "machine",
         (Chart("CPU and its limit", charts.draw_cpu, 240), Chart("Memory and its limit", charts.draw_memory, 240))),
    View("/services", "Virtual IPs", network.tell_services, _nothing, "services", (), True),
    View("/service", "Virtual IP", network.tell_service, _machine, "service"),
    View("/journal", "Journal", conduct.tell_journal, _journal, "journal",
         (Chart("Actions by kind and time", charts.draw_timeline, 220),), True),
    View("/action", "Action", conduct.tell_explanation, lambda at: (int(at.number("number", 0, 2**53)),), "action"),
    View("/accuracy", "Accuracy", conduct.tell_accuracy, _accuracy, "accuracy",
         (Chart("Errors by horizon", charts.draw_errors, 220), Chart("Models' shares", charts.draw_shares, 220)), True),
    View("/health", "Health", conduct.tell_health, _nothing, "health", (), True),
)  # fmt: skip
