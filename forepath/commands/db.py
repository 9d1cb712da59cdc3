"""`forepath db`: make, look after, fill and read the database."""

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cpdb import (
    QUANTITIES,
    RIGHTS,
    RetentionResult,
    Room,
    SettingsError,
    StoreOutdated,
    Window,
    back_up,
    make_roles,
    open_store,
    schema_versions,
    tier_of,
    without_password,
)
from cpdb import restore as put_back
from forepath import exchange
from forepath.exchange import Told, Wish
from forepath.output import JsonOption, SettingsOption, ago, console, emit, errors, table, writable
from forepath.settings import Settings, load_settings

app = typer.Typer(
    name="db",
    help="Make, look after, fill and read the database. Only what its name says writes.",
    no_args_is_help=True,
)
QuantityOption = Annotated[str, typer.Option("--quantity", help="bytes, packets or connections, each per second")]
RETAIN_BUDGET_S = 5.0


@app.command()
def init(settings: SettingsOption = None, json: JsonOption = None) -> None:
    """Make the database, or bring an old one up to date; nothing is lost.

    Examples:
        forepath db init
        forepath db init --settings site.toml --json -
    """
    _bring_up_to_date(load_settings(settings), json)


@app.command()
def migrate(settings: SettingsOption = None, json: JsonOption = None) -> None:
    """Bring the schema of an existing database up to date; stop forepath's processes first.

    Examples:
        forepath db migrate
        forepath db migrate --settings site.toml
    """
    effective = load_settings(settings)
    if schema_versions(effective.database.url)[0] is None:
        raise StoreOutdated(f"{_url(effective)}: there is no database to migrate; forepath db init makes one")
    _bring_up_to_date(effective, json)


def _bring_up_to_date(settings: Settings, json: str | None) -> None:
    before, after = schema_versions(settings.database.url)
    open_store(settings.database.url).close()
    payload = {"url": _url(settings), "schema_before": before, "schema": after, "changed": before != after}
    if not emit(payload, json):
        done = f"schema {before or 'none'} -> {after}" if before != after else f"schema {after} is up to date"
        console.print(f"{_url(settings)}: {done}", soft_wrap=True)


@app.command()
def status(settings: SettingsOption = None, json: JsonOption = None) -> None:
    """How large the database is, what is in it at which resolution, and how large it will become at this rate.

    Examples:
        forepath db status
        forepath db status --json -
    """
    effective, now = load_settings(settings), time.time()
    store = open_store(effective.database.url, create=False)
    found = store.read_usage(now, effective.database.retention_policy())
    store.close()
    if emit({"url": _url(effective), "now": now, **asdict(found)}, json):
        return
    console.print(f"database              {_url(effective)}", soft_wrap=True)
    lines = {
        "size": f"{_size(found.bytes)}, {_size(found.free_bytes)} of it free",
        "rows coming in": f"{found.rows_per_s:,.0f} a second, {found.bytes_per_row:.1f} bytes each",
        "waiting for roll-up": f"{found.waiting_batches} batches",
        "after a day like this": _size(found.bytes_after_a_day),
        "in the end": f"{_size(found.bytes_in_the_end)}, {_size(found.forecast_bytes)} of it forecasts",
    }
    for name, value in lines.items():
        console.print(f"{name:<22}{value}")
    rows = [
        (f"{one.step_s} s", _kept(one.keep_s), ago(now, one.since), ago(now, one.until), f"{one.rows_per_step:,.0f}")
        for one in found.tiers
    ]
    console.print(table("communications", ("step", "kept for", "from", "to", "rows a step"), rows))


@app.command()
def retain(settings: SettingsOption = None, json: JsonOption = None) -> None:
    """Roll up and forget what is due, once, and end. `forepath run` does so by itself.

    Examples:
        forepath db retain
        forepath db retain --json -
    """
    effective = load_settings(settings)
    store = open_store(effective.database.url)
    done, rules = RetentionResult(left=True), effective.database.retention_policy()
    with _bar("rolling up") as told:
        while done.left:
            done = RetentionResult(done.steps, done.rolled_up, done.deleted) + store.retain(
                time.time(), rules, RETAIN_BUDGET_S
            )
            told(0.0)
    store.close()
    payload = {"steps": done.steps, "rolled_up_batches": done.rolled_up, "deleted_rows": done.deleted}
    if not emit(payload, json):
        console.print(f"{done.rolled_up} batches rolled up, {done.deleted:,} rows forgotten in {done.steps} steps")


@app.command("import")
def load_csv(
    file: Annotated[Path, typer.Argument(help="CSV, or CSV.gz: t, then one column a series of rates per second")],
    quantity: QuantityOption = "bytes",
    step: Annotated[float | None, typer.Option("--step", min=0.001, help="Seconds a row [default: from t]")] = None,
    virtual_ip: Annotated[str | None, typer.Option("--virtual-ip", help="For columns that do not name one")] = None,
    ending_now: Annotated[bool, typer.Option("--ending-now", help="Shift times so that the last row is now")] = False,
    settings: SettingsOption = None,
    json: JsonOption = None,
) -> None:
    """Read a CSV like an export's into the database; read twice, it is stored once. Blank is missing, not zero.

    Columns are named source>virtual_ip. Examples:
        forepath db import traffic.csv.gz
        forepath db import demand.csv --virtual-ip 10.0.0.101 --ending-now --json -
    """
    now = time.time()
    wish = Wish(_quantity(quantity), step, virtual_ip, now if ending_now else None, now)
    effective = load_settings(settings)
    store = open_store(effective.database.url)
    try:
        with _bar(f"reading {file.name}") as told:
            rows, values = exchange.load(store, file, wish, told)
    finally:
        store.close()
    if not emit({"file": str(file), "rows": rows, "values": values, "quantity": quantity}, json):
        console.print(f"{rows:,} rows with {values:,} values read from {file}", soft_wrap=True)


@app.command()
def export(
    file: Annotated[str, typer.Argument(help="CSV to write, or - for stdout", callback=writable)] = "-",
    quantity: Annotated[str, typer.Option("--quantity", help="As for import; or all, for a replay")] = "bytes",
    step: Annotated[int, typer.Option("--step", min=1, help="Seconds a row: below 10, or a multiple of 10")] = 10,
    since: Annotated[float | None, typer.Option("--since", help="Unix seconds, or negative: before now")] = None,
    until: Annotated[float | None, typer.Option("--until", help="Unix seconds, or negative: before now")] = None,
    settings: SettingsOption = None,
    json: JsonOption = None,
) -> None:
    """Write what pairs said as CSV, the same that `forepath backtest` reads: t, one column a series, blank: missing.

    --quantity all writes a recording for `forepath whatif`: bytes, connections, and the CPU of machines.
    Without --since, as far back as there is something at this step. Examples:
        forepath db export traffic.csv
        forepath db export load.csv --quantity all --step 1 --since -3600
        forepath db export week.csv --step 60 --since -604800 --quantity connections
    """
    if file == "-" and json == "-":
        raise typer.BadParameter("only one of the two can be stdout", param_hint="--json")
    if quantity != exchange.ALL:
        _quantity(quantity)
    effective, now = load_settings(settings), time.time()
    store = open_store(effective.database.url, create=False)
    window = _window(effective, step, since, until, quantity, now)
    try:
        with _bar("writing") as told, _target(file) as target:
            rows, series = exchange.export(store, window, target, told)
    finally:
        store.close()
    payload = {"file": file, "rows": rows, "series": series, "quantity": quantity, "step_s": step}
    if not emit(payload, json) and file != "-":
        console.print(f"{rows:,} rows of {series:,} series written to {file}", soft_wrap=True)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="Where to; a file of that name is replaced by a whole copy only")],
    settings: SettingsOption = None,
    json: JsonOption = None,
) -> None:
    """Copy the whole database as it is at one moment; everything goes on meanwhile.

    SQLite: a database file. PostgreSQL: by pg_dump, in its custom format. Examples:
        forepath db backup /var/backups/forepath.db
        forepath db backup nightly.dump --settings site.toml --json -
    """
    effective = load_settings(settings)
    size = back_up(effective.database.url, file)
    if not emit({"url": _url(effective), "file": str(file), "bytes": size}, json):
        console.print(f"{file}: {_size(size)}, whole and readable", soft_wrap=True, markup=False)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="What forepath db backup wrote")],
    replace: Annotated[bool, typer.Option("--replace", help="Also in the place of what the database holds")] = False,
    settings: SettingsOption = None,
    json: JsonOption = None,
) -> None:
    """Put a copy back; stop forepath's processes first. What fails leaves everything as it was.

    On PostgreSQL, roles (forepath db roles) are to be made again afterwards. Examples:
        forepath db restore /var/backups/forepath.db
        forepath db restore nightly.dump --replace
    """
    effective = load_settings(settings)
    schema = put_back(effective.database.url, file, replace, time.time())
    needed = schema_versions(effective.database.url)[1]
    if not emit({"url": _url(effective), "file": str(file), "schema": schema, "needed": needed}, json):
        more = "" if schema == needed else f"; forepath db migrate brings its schema {schema} to {needed}"
        console.print(f"{_url(effective)}: holds what {file} held{more}", soft_wrap=True, markup=False)


@app.command()
def roles(
    prefix: Annotated[str, typer.Option("--prefix", help="What the roles' names begin with")] = "forepath_",
    settings: SettingsOption = None,
    json: JsonOption = None,
) -> None:
    """Make a role for each process, with just the tables that it works with (PostgreSQL); again after each migrate.

    They cannot log in: put a user of your own into each, e.g. CREATE USER ctl PASSWORD '...' IN ROLE
    forepath_controller. Examples:
        forepath db roles
        forepath db roles --prefix site1_
    """
    store = open_store(load_settings(settings).database.url, create=False)
    try:
        made = make_roles(store.engine, prefix)
    finally:
        store.close()
    rights = {room.value: {name: sorted(may) for name, may in tables.items()} for room, tables in RIGHTS.items()}
    if not emit({"roles": made, "rights": rights}, json):
        console.print(
            "\n".join(f"{one}: it may use {len(RIGHTS[room])} tables" for one, room in zip(made, Room, strict=True))
        )


def _window(
    settings: Settings, step: int, since: float | None, until: float | None, quantity: str, now: float
) -> Window:
    try:
        tier = tier_of(step)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--step") from error
    store = open_store(settings.database.url, create=False)
    found = next(one for one in store.read_usage(now, settings.database.retention_policy()).tiers if one.step_s == tier)
    store.close()
    if found.since is None or found.until is None:
        raise SettingsError(f"nothing is stored at {tier} s yet; a smaller --step may find newer data")
    first = found.since - tier if since is None else _moment(since, now)
    last = found.until if until is None else _moment(until, now)
    if last <= first:
        raise typer.BadParameter("is not before --until", param_hint="--since")
    return Window(step, max(math.floor(first / step) * step, math.floor(found.since - tier)), last, quantity)


def _moment(given: float, now: float) -> float:
    return now + given if given < 0 else given


def _quantity(name: str) -> str:
    if name not in QUANTITIES:
        raise typer.BadParameter(f"{name!r}: write {', '.join(QUANTITIES)}", param_hint="--quantity")
    return name


def _url(settings: Settings) -> str:
    return without_password(settings.database.url)


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"


def _kept(seconds: float) -> str:
    return f"{seconds / 3600:g} h" if seconds < 172_800 else f"{seconds / 86_400:g} d"


@contextmanager
def _target(file: str) -> Iterator[Any]:
    if file == "-":
        yield sys.stdout
        return
    with Path(file).open("w", encoding="utf-8", newline="") as target:
        yield target


@contextmanager
def _bar(what: str) -> Iterator[Told]:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task(what, total=1.0)
        yield lambda share: progress.update(task, completed=share)
