"""What the switches made of each reservation, told once per change and generation."""

from collections.abc import Mapping
from dataclasses import dataclass

from cpdb import InstallStatus, Publisher, ReservationReport
from ryu_apps.network import Network
from ryu_apps.pipeline import police_key
from ryu_apps.policers import ReservationEntry
from ryu_apps.rules import RuleKey
from ryu_apps.shares import Limits, ingress
from ryu_apps.switch.session import Session
from ryu_apps.topology.state import Directory

Seconds = float

NOWHERE = "network"
# A report names so many of a reservation's limits, and counts the rest.
_TOLD = 20


@dataclass(frozen=True, slots=True)
class _Case:
    """One reservation on one switch."""

    reservation: str
    node: str


@dataclass(frozen=True, slots=True)
class _Matter:
    """What a case is about: the switch, if there is one, the wishes, and the rules that fulfil them."""

    dpid: int | None
    wishes: list[ReservationEntry]
    keys: list[RuleKey]


class Reports:
    """Remembers what was said about each reservation on each switch."""

    def __init__(self) -> None:
        self._publisher: Publisher[_Case, ReservationReport] = Publisher()
        # Whom the cases were made for, and the cases
        self._made_from: tuple[Limits | None, Directory | None, int] = None, None, 0
        self._made: dict[_Case, _Matter] = {}

    def news(
        self, network: Network, sessions: Mapping[int, Session], wanted: Limits, now: Seconds
    ) -> list[ReservationReport]:
        """Rows for what changed since last time; nothing about switches that have not confirmed yet."""
        reports: dict[_Case, ReservationReport | None] = {}
        for case, matter in self._cases(network, wanted).items():
            word = _word(matter, None if matter.dpid is None else sessions.get(matter.dpid))
            generation = matter.wishes[0].generation
            reports[case] = word and ReservationReport(case.reservation, case.node, generation, *word, now)
        news = self._publisher.publish(reports, now)
        gone = (report.removed("lease ended or withdrawn", now) for report in news.gone.values())
        return [*news.said.values(), *gone]

    def _cases(self, network: Network, wanted: Limits) -> dict[_Case, _Matter]:
        directory, version = network.topology.snapshot.directory, network.topology.hosts.revision
        before = self._made_from
        if wanted is not before[0] or directory is not before[1] or version != before[2]:
            self._made, self._made_from = _cases(network, wanted), (wanted, directory, version)
        return self._made


def _cases(network: Network, wanted: Limits) -> dict[_Case, _Matter]:
    cases: dict[_Case, _Matter] = {}
    for wish in wanted.entries:
        address = source_address(network, wish)
        dpid = None if address is None else ingress(network, address)
        node = NOWHERE if dpid is None else network.topology.snapshot.directory.switch(dpid)
        matter = cases.setdefault(_Case(wish.reservation, node), _Matter(dpid, [], []))
        matter.wishes.append(wish)
        matter.keys.append(police_key(address or "", wish.pair.virtual_ip))
    return cases


def source_address(network: Network, wish: ReservationEntry) -> str | None:
    """Address of a wish's source, None while no switch has seen it."""
    name = wish.pair.source
    address = network.topology.snapshot.directory.address(name) or name
    return address if network.topology.hosts.of_address(address) is not None else None


def _word(matter: _Matter, session: Session | None) -> tuple[InstallStatus, str] | None:
    wishes = matter.wishes
    if matter.dpid is None:
        return InstallStatus.REFUSED, f"{wishes[0].pair.source} has not been seen on any switch yet"
    if session is None:
        return InstallStatus.REFUSED, "the switch is not connected"
    if not (session.ready and session.settled):
        return None
    if not session.has_meters and any(wish.rate_kbit_s is not None for wish in wishes):
        return InstallStatus.REFUSED, "the switch has no meters"
    reason = session.why_not(matter.keys)
    if reason is not None:
        return InstallStatus.REFUSED, f"the switch answered {reason}"
    if not session.holds(matter.keys):
        # On its way: the next look will tell.
        return None
    more = f" and {len(wishes) - _TOLD} more" if len(wishes) > _TOLD else ""
    return InstallStatus.INSTALLED, ", ".join(_describe(wish) for wish in wishes[:_TOLD]) + more


def _describe(wish: ReservationEntry) -> str:
    if wish.rate_kbit_s is None:
        return f"{wish.pair} marked DSCP {wish.dscp}"
    return f"{wish.pair} limited to {wish.rate_kbit_s} kbit/s"
