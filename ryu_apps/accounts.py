"""What is counted beside virtual IPs: pairs that talk much, found by sampling, declared prefixes, and the rest.

Each packet that enters from a host is in one count at most: a pair's, else that of the first declared account that it
belongs to, else the rest of its switch.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_network
from re import compile as pattern

from cpdb import is_ipv6
from ryu_apps.families import match_ip
from ryu_apps.rules import (
    ETH_IPV6,
    PROTO_TCP,
    PROTO_UDP,
    TCP_OPENING,
    Kind,
    Match,
    PortMatch,
    Rule,
    Table,
    cookie,
    pair_number,
)

Seconds = float
BytesPerS = float

# Below all that concerns virtual IPs: what is declared may cover them
OPENING_PRIORITY, TALKER_PRIORITY, FIRST_PRIORITY, REST_PRIORITY = 11, 10, 9, 1
MAX_ACCOUNTS = FIRST_PRIORITY - REST_PRIORITY
REST = "other"
_TEXT = pattern(r"(?P<source>\S+) *> *(?P<destination>\S+?)(?: +(?P<kind>tcp|udp):(?P<port>\d+))?")
_PROTOCOLS = {"tcp": PROTO_TCP, "udp": PROTO_UDP}
Ends = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Account:
    """Traffic of a prefix to a prefix (and port), counted together."""

    source: str
    destination: str
    ip_proto: int | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Account":
        """From "10.0.1.0/24 > 10.0.2.9 tcp:443"; "any" is everybody. Raises ValueError."""
        found = _TEXT.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"{text!r} is no account; write e.g. '10.0.1.0/24 > 10.0.2.9 tcp:443'")
        port = int(found["port"]) if found["port"] else None
        if port is not None and not 0 < port < 65536:
            raise ValueError(f"{text!r}: there is no port {port}")
        ends = _prefix(found["source"]), _prefix(found["destination"])
        if "any" not in ends and is_ipv6(ends[0]) != is_ipv6(ends[1]):
            raise ValueError(f"{text!r} is from one family of addresses to the other; no packet goes there")
        return cls(*ends, _PROTOCOLS.get(found["kind"]), port)

    @property
    def service(self) -> str:
        """Where its traffic goes, as rows name it."""
        kind = {PROTO_TCP: " tcp:", PROTO_UDP: " udp:"}.get(self.ip_proto or 0, "")
        return f"{self.destination}{kind}{self.port or ''}"

    @property
    def matches(self) -> tuple[Match, ...]:
        """The packets that belong to it; those of everybody to everybody are of either family."""
        source, to = (None if one == "any" else one for one in (self.source, self.destination))
        port = PortMatch(self.ip_proto, self.port) if self.ip_proto and self.port else None
        match = match_ip(source, to, ip_proto=self.ip_proto, port_dst=port)
        return (match,) if source or to else (match, replace(match, eth_type=ETH_IPV6))


def _prefix(text: str) -> str:
    if text == "any":
        return text
    network = ip_network(text)
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


EVERYTHING = Account("any", "any")


@dataclass(frozen=True, slots=True)
class AccountShare:
    """What a switch counts beside virtual IPs: talkers whose source is there, and accounts at ports of hosts."""

    talkers: tuple[Ends, ...] = ()
    declared: tuple[Account, ...] = ()
    # Ports where packets enter; none where nothing is to be counted
    ports: tuple[int, ...] = ()
    dpid: int = 0


def account_rules(share: AccountShare) -> Iterator[Rule]:
    """The accounting entries of one switch."""
    for source, destination in share.talkers:
        number, every = pair_number(source, destination), match_ip(source, destination)
        opening = replace(every, ip_proto=PROTO_TCP, message_type=TCP_OPENING)
        yield _counting(TALKER_PRIORITY, every, Kind.PAIR, number)
        yield _counting(OPENING_PRIORITY, opening, Kind.PAIR_SYN, number)
    for port in share.ports:
        for place, account in enumerate((*share.declared, None)):
            priority = FIRST_PRIORITY - place if account else REST_PRIORITY
            for match in (account or EVERYTHING).matches:
                here = replace(match, in_port=port)
                yield _counting(priority, here, Kind.PAIR, _number(share.dpid, port, account, match.eth_type))


def _counting(priority: int, match: Match, kind: Kind, number: int) -> Rule:
    return Rule(Table.ACCOUNT, priority, match, goto=Table.POLICER, cookie=cookie(Table.ACCOUNT, kind, number))


def _number(dpid: int, port: int, account: Account | None, eth_type: int | None) -> int:
    # One a port and family: entries of one number would be taken for one entry.
    what = REST if account is None else f"{account.source}>{account.service}"
    place = f"{dpid:016x}/{port}" + ("/6" if eth_type == ETH_IPV6 else "")
    return pair_number(place, what)


def account_numbers(share: AccountShare) -> dict[int, Account | None]:
    """Whose the numbers in cookies are, but for talkers; None stands for the rest."""
    return {
        _number(share.dpid, port, account, match.eth_type): account
        for port in share.ports
        for account in (*share.declared, None)
        for match in (account or EVERYTHING).matches
    }


# ---- who talks much


# Rates are means over about so long; who falls below half of what makes a talker stays for so long.
MEAN_S, KEEP_S = 10.0, 60.0
# Samples come from anybody's packets: there is room for so many pairs, the least of which go first.
MAX_SAMPLED = 20_000


class Talkers:
    """Pairs that are counted one by one, at most `max_pairs`, beside `declared` accounts.

    `revision` changes whenever they do.
    """

    def __init__(self, max_pairs: int = 0, from_bytes_per_s: BytesPerS = 1.0, declared: Iterable[Account] = ()) -> None:
        self.max_pairs, self._from, self.declared = max_pairs, from_bytes_per_s, tuple(declared)
        self.revision = 0
        self._rates: dict[Ends, BytesPerS] = {}
        self._heard: Counter[Ends] = Counter()
        # Who is counted, and until when without talking that much
        self._until: dict[Ends, Seconds] = {}
        self._numbers: dict[int, Ends] = {}
        self._looked: Seconds | None = None

    @property
    def enabled(self) -> bool:
        """Whether anything is counted beside virtual IPs."""
        return bool(self.max_pairs or self.declared)

    def __iter__(self) -> Iterator[Ends]:
        return iter(self._until)

    def of_number(self, number: int) -> Ends | None:
        """The talker that a cookie names; for a while also one that is no longer counted."""
        return self._numbers.get(number)

    def hear(self, ends: Ends, size: int) -> None:
        """So many bytes, scaled up from a sample, went from a source to a destination."""
        if self.max_pairs and (ends in self._heard or len(self._heard) < MAX_SAMPLED):
            self._heard[ends] += size

    def look(self, now: Seconds) -> None:
        """Works out rates since the last look, and who is counted from now on."""
        passed_s = now - self._looked if self._looked is not None else 0.0
        self._looked = now
        if passed_s <= 0:
            return
        weight = min(1.0, passed_s / MEAN_S)
        every = self._rates.keys() | self._heard.keys()
        rates = {
            ends: (1 - weight) * self._rates.get(ends, 0.0) + weight * self._heard[ends] / passed_s for ends in every
        }
        self._heard = Counter()
        kept = sorted(rates, key=lambda ends: -rates[ends])[:MAX_SAMPLED]
        self._rates = {ends: rates[ends] for ends in kept if rates[ends] > self._from / 100}
        self._choose(now)

    def _choose(self, now: Seconds) -> None:
        until = self._until
        wanted = {
            ends: max(rate, self._from if ends in until else 0.0)
            for ends, rate in self._rates.items()
            if rate >= (self._from / 2 if ends in until else self._from)
        }
        wanted |= {ends: 0.0 for ends, end in until.items() if end > now and ends not in wanted}
        chosen = choose_fairly(wanted, self.max_pairs)
        self._until = {ends: now + KEEP_S if wanted[ends] else until[ends] for ends in sorted(chosen)}
        if self._until.keys() != until.keys():
            self.revision += 1
            own = {pair_number(*ends): ends for ends in self._until}
            if len(self._numbers) > 4 * self.max_pairs:
                self._numbers = {}
            self._numbers |= own


def choose_fairly(rates: Mapping[Ends, BytesPerS], room: int) -> Collection[Ends]:
    """At most `room` of the pairs: no source gets one more while another one, that has a pair left, has fewer.

    Among sources with equally many, the larger pair comes first: max-min fair among sources, so that nobody who talks
    to many takes every entry.
    """
    by_source: dict[str, list[Ends]] = {}
    for ends in sorted(rates, key=lambda ends: (-rates[ends], ends)):
        by_source.setdefault(ends[0], []).append(ends)
    turns = sorted((turn, -rates[ends], ends) for own in by_source.values() for turn, ends in enumerate(own))
    return [ends for *_, ends in turns[:room]]


def parse_accounts(texts: Iterable[str]) -> tuple[Account, ...]:
    """All of them. Raises ValueError."""
    return tuple(Account.parse(text) for text in texts)
