"""All that is told to the database about how things are, and none of it computed while nothing is news."""

from collections.abc import Mapping

from cpdb import Alarm, Link, Node, ObservedRecord
from ryu_apps.network import Network
from ryu_apps.status.alarms import AlarmLog
from ryu_apps.status.inventory import Census
from ryu_apps.status.live import Countable, Live
from ryu_apps.status.reservations import Reports
from ryu_apps.status.splits import SplitReports
from ryu_apps.status.vitals import AGAIN_S, Vitals
from ryu_apps.status.weights import WeightReports
from ryu_apps.switches import Switches

Seconds = float


class Status:
    """Publishers of answers to what is wanted, of the inventory, of destinations, and of alarms."""

    def __init__(self, network: Network, switches: Switches) -> None:
        self.alarms = AlarmLog()
        self.live = Live()
        self._network, self._switches = network, switches
        self._reservations = Reports()
        self._splits = SplitReports()
        self._weights = WeightReports()
        self._inventory = Census()
        self._destinations = Vitals()
        # What was told last, by revisions
        self._answered: tuple[int, ...] = ()
        self._told: tuple[int, ...] = ()
        self._confirm_at = float("-inf")

    def answers(self, now: Seconds) -> list[ObservedRecord]:
        """What became of reservations, splits and weights since last time."""
        revisions = self._network.revision, self._switches.revision, self._network.declared_revision
        if revisions == self._answered:
            return []
        self._answered = revisions
        network, switches = self._network, self._switches
        wanted = switches.policers.limits(network, now)
        rows: list[ObservedRecord] = [*self._reservations.news(network, switches.sessions, wanted, now)]
        rows += self._splits.news(network, network.routes, switches.why_not, now)
        rows += self._weights.news(network, switches.sessions, now)
        return rows

    def news(self, now: Seconds) -> list[Node | Link | ObservedRecord | Alarm]:
        """Nodes, links and destinations that are not as they were told last."""
        network, services = self._network, self._network.services
        revisions = network.topology.revision, network.topology.hosts.seen_revision, services.revision
        rows: list[Node | Link | ObservedRecord | Alarm] = []
        if revisions != self._told or now >= self._confirm_at:
            self._told, self._confirm_at = revisions, now + AGAIN_S / 2
            rows += self._inventory.news(network, now)
            rows += self._destinations.news(services.destinations.words(), now)
        rows += self.live.news(network.declared.virtual_ips.values(), services.pairs, now)
        return rows

    def ask_counts(self, wires: Mapping[int, Countable], now: Seconds) -> None:
        """Asks what draining destinations still hold, when it is time."""
        self.live.ask(self._network.declared.virtual_ips.values(), wires, now)
