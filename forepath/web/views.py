"""The views: what each asks of the database, the template and the charts that show it, and what may be chosen."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from cpdb import OutcomeKind, SubjectKind
from forepath.web import charts, conduct, network
from forepath.web.address import PageAddress, ViewParameter
from forepath.web.network import Slice
from forepath.web.reader import Question
from predictor import FAST, SLOW


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing of what is told, its name for those who cannot see it, and its height in pixels."""

    name: str
    draw: Callable[[Any], dict[str, Any]]
    height: int = 300


@dataclass(frozen=True, slots=True)
class View:
    """One view, of the page and of the API: a question whose arguments are `takes` in this order.

    Where `sliced`, the last argument is a Slice of the rows.
    """

    path: str
    title: str
    question: Question
    template: str
    takes: tuple[ViewParameter, ...] = ()
    charts: tuple[Chart, ...] = ()
    in_menu: bool = False
    sliced: bool = False

    @property
    def parameters(self) -> tuple[ViewParameter, ...]:
        """All that may be chosen."""
        return (*self.takes, *SLICE) if self.sliced else self.takes

    def arguments(self, address: PageAddress) -> tuple[Hashable, ...]:
        """The question's arguments from an address. Raises SettingsError for wrong ones."""
        values = [address.value(one) for one in self.parameters]
        return (*values[:-2], Slice(int(values[-2]), int(values[-1]))) if self.sliced else tuple(values)


SLICE = (
    ViewParameter("limit", "rows at most", 50, most=500),
    ViewParameter("offset", "rows left out before", 0, most=1e6),
)
AHEAD = ViewParameter("ahead", "seconds ahead; 0 is what is measured", 15, most=7200)
NAME = ViewParameter("name", "name of it")
NUMBER = ViewParameter("number", "of the action", 0, most=2**53)
ENDS = (ViewParameter("from", "node"), ViewParameter("to", "node"))
VIRTUAL_IP = ViewParameter("virtual_ip", "virtual IP, by name or address")
JOURNAL = (
    ViewParameter("since", "how far back, seconds", 3600, most=90 * 86_400),
    ViewParameter("kind", "only this kind of action"),
    ViewParameter("outcome", "only those that ended so", options=("", *(one.value for one in OutcomeKind))),
)
ACCURACY = (
    ViewParameter("kind", "of what", SubjectKind.PAIR.value, options=tuple(one.value for one in SubjectKind)),
    ViewParameter("tier", "how far ahead", FAST, options=(FAST, SLOW)),
)
VIEWS = (
    View("/", "Topology", network.tell_topology, "topology", (AHEAD,),
         (Chart("The network and its use", charts.draw_topology, 420),), True),
    View("/pairs", "Pairs", network.tell_pairs, "pairs", in_menu=True, sliced=True),
    View("/pair", "Pair", network.tell_pair, "pair", (ViewParameter("source", "source node"), VIRTUAL_IP),
         (Chart("What the pair sent and is expected to send", charts.draw_rates),)),
    View("/link", "Link", network.tell_link, "link", (*ENDS, AHEAD),
         (Chart("What crossed the link and is expected to cross it", charts.draw_rates),)),
    View("/machines", "Machines", network.tell_machines, "machines", in_menu=True, sliced=True),
    View("/machine", "Machine", network.tell_machine, "machine", (NAME,),
         (Chart("CPU and its limit", charts.draw_cpu, 240), Chart("Memory and its limit", charts.draw_memory, 240))),
    View("/services", "Virtual IPs", network.tell_services, "services", in_menu=True),
    View("/service", "Virtual IP", network.tell_service, "service", (NAME,)),
    View("/journal", "Journal", conduct.tell_journal, "journal", JOURNAL,
         (Chart("Actions by kind and time", charts.draw_timeline, 220),), in_menu=True, sliced=True),
    View("/action", "Action", conduct.tell_explanation, "action", (NUMBER,)),
    View("/accuracy", "Accuracy", conduct.tell_accuracy, "accuracy", ACCURACY,
         (Chart("Errors by horizon", charts.draw_errors, 220),
          Chart("Models' shares", charts.draw_shares, 220)), True),
    View("/health", "Health", conduct.tell_health, "health", in_menu=True),
)  # fmt: skip
