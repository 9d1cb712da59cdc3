"""What `forepath check` tells of what works as it is and hurts later: in the settings, and beside the database."""

import shutil
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from sqlalchemy.engine import make_url

from cpdb import NodeKind, SettingsError, Standing, Store, StoreError, open_store, schema_versions
from forepath.listening import open_doors
from forepath.output import span
from forepath.processes import orchestrator_config
from forepath.routed import routing_use
from forepath.settings import Settings
from orchestrator import NO_CHOICE, LeadTimes
from ryu_apps import HIDDEN, UNREACHED

GB, MOST_NAMED = 1e9, 3


def find_notes(settings: Settings, now: float) -> Iterator[str]:
    """One line for what is right as it is, but may not be what was meant."""
    if settings.tls.insecure:
        yield from (f"tls.insecure is allowed: {line}" for line in open_doors(settings))
    yield from _ranks(settings)
    yield from _places(settings)
    yield from _horizons(settings)
    known = yield from _beside_the_database(settings, now)
    if not known:
        yield from _routes(settings, None)


def _ranks(settings: Settings) -> Iterator[str]:
    ranks = {one.priority for one in settings.virtual_ip}
    if len(settings.virtual_ip) > 1 and len(ranks) == 1:
        yield (
            f"all {len(settings.virtual_ip)} virtual IPs have priority {ranks.pop()}: on a full link whoever sends "
            "more than a fair share gives way to the others; with a higher `priority` for one, all others "
            "would give way to that"
        )


def _places(settings: Settings) -> Iterator[str]:
    ends = {end for link in settings.link for end in (link.a, link.b)}
    for host in settings.host:
        if host.name not in ends:
            yield (
                f"host {host.name}: no [[link]] joins it to a switch, so nobody knows what the way to its machines "
                "can carry, and nothing is kept free there"
            )
    if settings.vm and not settings.host:
        yield f"vm: {len(settings.vm)} are declared and no [[host]]: none is measured, resized or moved"
    elif homeless := [one.name for one in settings.vm if one.host is None]:
        yield f"vm {_first(homeless)}: no `host`; a replay (forepath whatif) spreads them over the hosts in order"


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")


def _horizons(settings: Settings) -> Iterator[str]:
    """Kinds of action that take longer than anything is foreseen for: they would always come too late."""
    try:
        config = orchestrator_config(settings, act=False)
    except SettingsError:
        return  # told as a problem
    farthest_s = max((*config.demand.horizons_s, *config.demand.slow_horizons_s), default=0)
    for kind in sorted(config.timing.lead_priors_s):
        if kind.startswith("scale_") and not settings.pool:
            continue
        if LeadTimes().horizon_s(kind, config) is None:
            needed_s = LeadTimes().needed(kind, config)
            yield (
                f"{kind}: takes up to {needed_s:.1f} s from decision to effect, and nothing is foreseen farther than "
                f"{span(farthest_s)} ahead: it can only react; add a horizon to predictor.horizons_s or predictor.slow"
            )


def _routes(settings: Settings, store: Store | None) -> Iterator[str]:
    """What "auto" comes to, where there is a choice of paths."""
    use = routing_use(settings, store)
    if settings.routing.enabled == "auto" and use != NO_CHOICE:
        yield f'routing.enabled = "auto" is {"on" if use.on else "off"}: {use.why}'


def _beside_the_database(settings: Settings, now: float) -> Generator[str, None, bool]:
    """Whether the network that it knows was looked at."""
    url = settings.database.url
    try:
        present, wanted = schema_versions(url)
        if present is None:
            return False
        if present != wanted:
            yield (
                f"database: its schema is {present}, this program needs {wanted}: only `forepath db migrate`, or what "
                "writes, brings it up to date; stop processes of the older version first"
            )
            return False
        store = open_store(url, create=False)
    except StoreError:
        return False  # told as a problem
    try:
        yield from _routes(settings, store)
        yield from _seen(store)
        yield from _hidden(store)
        yield from _room(settings, store, now)
        return True
    finally:
        store.close()


def _seen(store: Store) -> Iterator[str]:
    """Of a network that has been looked at: links without capacity, and destinations that nobody saw."""
    nodes = store.inventory.nodes()
    if not any(one.kind is NodeKind.SWITCH and one.last_seen for one in nodes):
        return
    unknown = [f"{one.a}>{one.b}" for one in store.inventory.links() if one.capacity_bytes_per_s is None]
    if unknown:
        yield (
            f"link {_first(unknown)}: found, and of no known capacity, so never short in a plan; declare it with "
            "capacity_mbit_per_s"
        )
    seen = {word for one in nodes if one.attached_to or one.last_seen for word in (one.name, one.address, one.mac)}
    for service in store.inventory.virtual_ips():
        unseen = [
            one.name
            for one in service.destinations
            if one.standing is Standing.SERVING and one.weight and not {one.name, one.address, one.mac} & seen
        ]
        if service.declared and unseen:
            yield (
                f"virtual_ip {service.name}: nobody has seen {_first(unseen)}; is the machine on, and are its "
                "address and MAC right?"
            )


def _hidden(store: Store) -> Iterator[str]:
    """Rules of others in front of accounting, as switches told of them, and what passes by them."""
    told = sorted((one for one in store.alarms.open() if one.kind in (HIDDEN, UNREACHED)), key=lambda one: one.key)
    yield from (f"switch {one.node}: {one.detail}" for one in told[:MOST_NAMED])
    if len(told) > MOST_NAMED:
        yield f"{len(told) - MOST_NAMED} more rules of others hide traffic from accounting: forepath status names them"


def _room(settings: Settings, store: Store, now: float) -> Iterator[str]:
    usage, policy = store.read_usage(now, settings.database.retention_policy()), settings.database
    yield (
        f"database: {usage.bytes / GB:.2f} GB; with what is to be kept, at the rate of the last minutes, in the end "
        f"{usage.bytes_in_the_end / GB:.2f} GB, {usage.forecast_bytes / GB:.2f} GB of them forecasts"
    )
    file = make_url(settings.database.url).database
    if store.engine.dialect.name != "sqlite" or not file:
        return
    more, free = usage.bytes_in_the_end - (usage.bytes - usage.free_bytes), shutil.disk_usage(Path(file).parent).free
    if more > free:
        kept = ("keep_1s_hours", "keep_10s_hours", "keep_1min_days", "keep_past_forecasts_mb")
        shorter = ", ".join(f"{name} ({getattr(policy, name):g})" for name in kept)
        yield (
            f"database: at the present rate it grows by {more / GB:.1f} GB, and {free / GB:.1f} GB are free beside "
            f"{file}; lessen one of {shorter}, or name a larger disk"
        )
