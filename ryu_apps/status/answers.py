"""What became of wanted reservations, splits and weights, told once per change and generation: followed, or why not."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from cpdb import (
    CONTROLLER,
    Destination,
    InstallStatus,
    Publisher,
    ReservationReport,
    SplitReport,
    Standing,
    VirtualIp,
    WantedSplit,
    WantedWeights,
    WeightsReport,
    split_key,
)
from ryu_apps.network import Network
from ryu_apps.paths.next_hops import transit_rule, transit_rules
from ryu_apps.paths.routing import SplitProgress
from ryu_apps.paths.splits import SplitPath
from ryu_apps.pipeline import policer_key, source_at_port
from ryu_apps.policers import ReservationEntry
from ryu_apps.rules import Rule, RuleKey, Table
from ryu_apps.services.stand_ins import rules_at
from ryu_apps.shares import Limits, access_port, ingress, source_addresses
from ryu_apps.switch.reconcile import same
from ryu_apps.switch.session import Session
from ryu_apps.topology.state import Directory

Seconds = float

NOWHERE = "network"
# A report names so many limits or switches, and counts the rest.
_MAX_NAMED = 20


@dataclass(frozen=True, slots=True)
class _ReservationPlace:
    """One reservation on one switch."""

    reservation: str
    node: str


@dataclass(frozen=True, slots=True)
class _ReservationCase:
    """What a case is about: the switch, if there is one, the entries, and the rules that fulfil them."""

    dpid: int | None
    entries: list[ReservationEntry]
    keys: list[RuleKey]


class ReservationPublisher:
    """Remembers what was said about each reservation on each switch."""

    def __init__(self) -> None:
        self._publisher: Publisher[_ReservationPlace, ReservationReport] = Publisher()
        # Whom the cases were made for, and the cases
        self._made_from: tuple[Limits | None, Directory | None, int] = None, None, 0
        self._made: dict[_ReservationPlace, _ReservationCase] = {}

    def news(
        self, network: Network, sessions: Mapping[int, Session], wanted: Limits, now: Seconds
    ) -> list[ReservationReport]:
        """Rows for what changed since last time; nothing about switches that have not confirmed yet."""
        reports: dict[_ReservationPlace, ReservationReport | None] = {}
        for case, matter in self._cases(network, wanted).items():
            word = _judge_reservation(matter, None if matter.dpid is None else sessions.get(matter.dpid))
            generation = matter.entries[0].generation
            reports[case] = word and ReservationReport(case.reservation, case.node, generation, *word, now)
        news = self._publisher.publish(reports, now)
        gone = (report.removed("lease ended or withdrawn", now) for report in news.gone.values())
        return [*news.said.values(), *gone]

    def _cases(self, network: Network, wanted: Limits) -> dict[_ReservationPlace, _ReservationCase]:
        directory, version = network.topology.snapshot.directory, network.topology.hosts.revision
        before = self._made_from
        if wanted is not before[0] or directory is not before[1] or version != before[2]:
            self._made, self._made_from = _cases(network, wanted), (wanted, directory, version)
        return self._made


def _cases(network: Network, wanted: Limits) -> dict[_ReservationPlace, _ReservationCase]:
    cases: dict[_ReservationPlace, _ReservationCase] = {}
    for entry in wanted.entries:
        addresses = source_addresses(network, entry.pair)
        dpid = ingress(network, addresses[0]) if addresses else None
        node = NOWHERE if dpid is None else network.topology.snapshot.directory.switch(dpid)
        matter = cases.setdefault(_ReservationPlace(entry.reservation, node), _ReservationCase(dpid, [], []))
        matter.entries.append(entry)
        matter.keys.extend(_policer_key(network, one, entry.pair.virtual_ip) for one in addresses)
    return cases


def _policer_key(network: Network, source_address: str, virtual_ip: str) -> RuleKey:
    key, port = policer_key(source_address, virtual_ip), access_port(network, source_address)
    return key if port is None else key._replace(match=source_at_port(key.match, port))


def _judge_reservation(matter: _ReservationCase, session: Session | None) -> tuple[InstallStatus, str] | None:
    entries = matter.entries
    if matter.dpid is None:
        return InstallStatus.REFUSED, f"{entries[0].pair.source} has not been seen on any switch yet"
    if session is None:
        return InstallStatus.REFUSED, "the switch is not connected"
    if not (session.ready and session.settled):
        return None
    if session.abilities.one_table:
        return InstallStatus.REFUSED, "the switch has one table, and no limits or marks in it"
    if not session.has_meters and any(entry.rate_kbit_s is not None for entry in entries):
        return InstallStatus.REFUSED, "the switch has no meters"
    reason = session.why_not(matter.keys)
    if reason is not None:
        return InstallStatus.REFUSED, f"the switch answered {reason}"
    if not session.holding.holds(matter.keys):
        # On its way: the next look will tell.
        return None
    more = f" and {len(entries) - _MAX_NAMED} more" if len(entries) > _MAX_NAMED else ""
    return InstallStatus.INSTALLED, ", ".join(_describe_entry(entry) for entry in entries[:_MAX_NAMED]) + more


def _describe_entry(entry: ReservationEntry) -> str:
    if entry.rate_kbit_s is None:
        return f"{entry.pair} marked DSCP {entry.dscp}"
    return f"{entry.pair} limited to {entry.rate_kbit_s} kbit/s"


Refused = Callable[[int, RuleKey], str | None]


@dataclass(slots=True)
class SplitPublisher:
    """What was said about each split."""

    _publisher: Publisher[str, SplitReport] = field(default_factory=Publisher)

    def news(self, network: Network, refused: Refused, now: Seconds) -> list[SplitReport]:
        """Rows for what changed since last time; `refused` tells why a switch does not hold a rule."""
        alive = [one for one in network.declared.splits if one.expires_at is None or one.expires_at > now]
        reports = {}
        for one in alive:
            key, word = split_key(one.from_switch, one.to_switch), _judge_split(one, network, refused, now)
            reports[key] = SplitReport(key, one.from_switch, one.generation, *word, now)
        news = self._publisher.publish(reports, now)
        return [*news.said.values(), *(report.removed("withdrawn or expired", now) for report in news.gone.values())]


def _judge_split(wanted: WantedSplit, network: Network, refused: Refused, now: Seconds) -> tuple[InstallStatus, str]:
    routes = network.routes
    ends = wanted.from_switch, wanted.to_switch
    own, progress = routes.in_force.get(ends, ()), routes.progress.get(ends)
    if network.guest is not None:
        return InstallStatus.REFUSED, 'controller.mode is "guest": others choose the ways here'
    if progress is None and (taken := network.vlans.conflict(now)) is not None:
        return InstallStatus.REFUSED, taken
    if progress is None and not routes.labels(wanted):
        return InstallStatus.REFUSED, "its labels are of another range than routing.first_label says"
    if progress is None:
        return (
            InstallStatus.REFUSED,
            "none of its paths can be used now: links are down or unknown, or their tags are taken",
        )
    for path in progress.unready:
        reason = _split_refusal(path, network, refused)
        if reason is not None:
            return InstallStatus.REFUSED, reason
    shares = ", ".join(f"{' > '.join(path.hops)} {path.ratio:.0%}" for path in own)
    if progress.unready or progress.away:
        return InstallStatus.WAITING, f"{shares}; {_describe_progress(progress)}"
    left = sum(ratio > 0 for ratio in wanted.ratios) - len(own)
    broken = f"; {left} of its paths cannot be used now" if left > 0 else ""
    return InstallStatus.INSTALLED, f"{shares}; {progress.flows} pairs' directions{broken}"


def _describe_progress(progress: SplitProgress) -> str:
    rules = f"{len(progress.unready)} paths' rules are not confirmed" if progress.unready else ""
    pairs = f"{progress.away} of {progress.flows} pairs are still on another path" if progress.away else ""
    return ", ".join(one for one in (rules, pairs) if one)


def _split_refusal(path: SplitPath, network: Network, refused: Refused) -> str | None:
    for switch, one in transit_rules(path, network.topology.snapshot.topology).items():
        dpid = network.topology.snapshot.dpids.get(switch)
        if dpid is None or dpid not in network.topology.connected:
            return f"{switch} is not connected"
        reason = refused(dpid, transit_rule(one).key)
        if reason is not None:
            return f"{switch} answered {reason}"
    return None


Sessions = Mapping[int, Session]
Outcome = tuple[InstallStatus, str]


class WeightsPublisher:
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
        if vip.by_connection:
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
            attached = network.services.destinations.conflicts.attached(session.dpid, network.topology.hosts)
            rules = rules_at(spread, attached)
            reason = session.why_not(rules) if session.abilities.places else None
            if reason is not None:
                return InstallStatus.REFUSED, f"{switch} answered {reason}"
            if not (session.ready and _holds(session, rules, spread.virtual_ip)):
                return None
        self._installed[wanted.virtual_ip] = made_from
        shares = _shares(Counter(owner for owner in spread.buckets if owner is not None))
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


def _holds(session: Session, rules: Mapping[RuleKey, Rule], virtual_ip: str) -> bool:
    """Whether a switch has said that it holds these rules, and no other slot of the same virtual IP."""
    if not session.abilities.places:
        # Its sources keep to one destination each.
        return True
    held, pending = session.holding.rules, session.unconfirmed()
    if any(key in pending or not same(held.get(key), rule) for key, rule in rules.items()):
        return False
    return all(key in rules for key in chain(held, pending) if _is_slot(key, virtual_ip))


def _is_slot(key: RuleKey, virtual_ip: str) -> bool:
    return key.table == Table.BUCKETS and key.match.ip_dst == virtual_ip


def _shares(weights: Mapping[str, int]) -> str:
    total = sum(weights.values())
    shares = ", ".join(f"{name} {weight / total:.0%}" for name, weight in sorted(weights.items()) if weight > 0)
    return shares or "nothing, for nobody has a weight"


def _some(names: Iterable[str]) -> str:
    own = list(names)
    more = f" and {len(own) - _MAX_NAMED} more" if len(own) > _MAX_NAMED else ""
    return ", ".join(own[:_MAX_NAMED]) + more
