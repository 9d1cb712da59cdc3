"""What became of the weights wanted for each virtual IP, told once per change and generation: followed, or why not."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from cpdb import CONTROLLER, Destination, InstallStatus, Publisher, Standing, VirtualIp, WantedWeights, WeightsReport
from ryu_apps.network import Network
from ryu_apps.rules import RuleKey, Table
from ryu_apps.services.buckets import Spread
from ryu_apps.services.pairs import BY_CONNECTION
from ryu_apps.switch.reconcile import same
from ryu_apps.switch.session import Session

Seconds = float
Sessions = Mapping[int, Session]
Outcome = tuple[InstallStatus, str]

# A report names so many switches, and counts the rest.
_TOLD = 20


class WeightReports:
    """Remembers what was said about each virtual IP.

    With affinity "connection" weights are *installed* when every switch where hosts are holds exactly the slots that
    follow them; with affinity "source" when whoever speaks for the first time is sent by them: no switch need know.
    """

    def __init__(self) -> None:
        self._publisher: Publisher[str, WeightsReport] = Publisher()
        # What was installed from what: while that is the same, no rule is looked at again
        self._installed: dict[str, tuple[object, ...]] = {}
        self._placing: tuple[object, list[int]] = None, []

    def news(self, network: Network, sessions: Sessions, now: Seconds) -> list[WeightsReport]:
        """Rows for what changed since last time; nothing about weights that are on their way to a switch."""
        reports = {one.virtual_ip: self._row(one, network, sessions, now) for one in network.declared.weights}
        news = self._publisher.publish(reports, now)
        for virtual_ip in news.gone:
            self._installed.pop(virtual_ip, None)
        return [*news.said.values(), *(report.removed("as declared again", now) for report in news.gone.values())]

    def _row(self, wanted: WantedWeights, network: Network, sessions: Sessions, now: Seconds) -> WeightsReport | None:
        word = self._word(wanted, network, sessions)
        if word is None:
            return None
        if word[0] is not InstallStatus.INSTALLED:
            self._installed.pop(wanted.virtual_ip, None)
        return WeightsReport(wanted.virtual_ip, CONTROLLER, wanted.generation, *word, now)

    def _word(self, wanted: WantedWeights, network: Network, sessions: Sessions) -> Outcome | None:
        vip = network.declared.virtual_ips.get(wanted.virtual_ip)
        if vip is None:
            return InstallStatus.REFUSED, "is not declared, or has no destinations"
        reasons = list(_left_out(wanted, vip, network))
        if reasons:
            return InstallStatus.REFUSED, "; ".join(reasons)
        if vip.affinity == BY_CONNECTION:
            return self._by_connection(wanted, network, sessions)
        if not sessions:
            return InstallStatus.WAITING, "no switch is connected"
        weights = {one.name: one.weight for one in network.services.virtual_ips[vip.address].destinations}
        whose = f"sources that are new, or silent for {network.services.pairs.idle_s:g} s,"
        return InstallStatus.INSTALLED, f"{whose} go by {_shares(weights)}; others stay where they are"

    def _by_connection(self, wanted: WantedWeights, network: Network, sessions: Sessions) -> Outcome | None:
        spread = network.services.destinations.spreads.of(wanted.virtual_ip)
        places = self._places(network)
        if spread is None or not places:
            return InstallStatus.WAITING, "no switch places connections: no host has been seen yet"
        name = network.topology.snapshot.directory.switch
        away = [name(dpid) for dpid in places if dpid not in sessions]
        if away:
            return InstallStatus.WAITING, f"not connected, and perhaps still going by other weights: {_some(away)}"
        own = {name(dpid): sessions[dpid] for dpid in places}
        made_from = (wanted.generation, spread, *((one, session.since) for one, session in own.items()))
        if made_from == self._installed.get(wanted.virtual_ip):
            return None
        for switch, session in own.items():
            reason = session.why_not(spread.rules)
            if reason is not None:
                return InstallStatus.REFUSED, f"{switch} answered {reason}"
            if not (session.ready and _holds(session, spread)):
                return None
        self._installed[wanted.virtual_ip] = made_from
        shares = _shares(Counter(owner for owner in spread.slots if owner is not None))
        return InstallStatus.INSTALLED, f"new connections go by {shares} on {_some(own)}; live ones stay"

    def _places(self, network: Network) -> list[int]:
        """Switches where hosts are: those that place connections."""
        if network.topology.hosts.revision != self._placing[0]:
            self._placing = network.topology.hosts.revision, sorted({host.at.dpid for host in network.topology.hosts})
        return self._placing[1]


def _left_out(wanted: WantedWeights, vip: VirtualIp, network: Network) -> Iterator[str]:
    """Destinations that shall have a share and get nothing new, and why."""
    known = {one.name: one for one in vip.destinations}
    serving = {one.name for one in network.services.virtual_ips[vip.address].destinations if one.weight > 0}
    for name, weight in sorted(wanted.weights.items()):
        if weight > 0 and name not in serving:
            yield f"{name} gets nothing new: it {_why(known.get(name), vip, network)}"


def _why(one: Destination | None, vip: VirtualIp, network: Network) -> str:
    if one is None:
        return f"is no destination of {vip.name}"
    if one.standing is Standing.DRAINING:
        return "is drained"
    word = network.services.destinations.word(vip, one)
    return f"is {word.health.status}: {word.detail}"


def _holds(session: Session, spread: Spread) -> bool:
    """Whether a switch has said that it holds these rules, and no other slot of the same virtual IP."""
    held, pending = session.holding.rules, session.unconfirmed()
    if any(key in pending or not same(held.get(key), rule) for key, rule in spread.rules.items()):
        return False
    return all(key in spread.rules for key in chain(held, pending) if _is_slot(key, spread.virtual_ip))


def _is_slot(key: RuleKey, virtual_ip: str) -> bool:
    return key.table == Table.SLOTS and key.match.ipv4_dst == virtual_ip


def _shares(weights: Mapping[str, int]) -> str:
    total = sum(weights.values())
    shares = ", ".join(f"{name} {weight / total:.0%}" for name, weight in sorted(weights.items()) if weight > 0)
    return shares or "nothing, for nobody has a weight"


def _some(names: Iterable[str]) -> str:
    own = list(names)
    more = f" and {len(own) - _TOLD} more" if len(own) > _TOLD else ""
    return ", ".join(own[:_TOLD]) + more
