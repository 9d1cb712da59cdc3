"""What a person sees while the demo runs: one bar for the whole, a line for the step, the live state below."""

from collections.abc import Callable
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from cpdb import Store, StoreError
from forepath import views
from forepath.output import rate, table

PAIRS_SHOWN = 4
ACTIONS_SHOWN = 5


def state_table(store: Store, now: float) -> RenderableType:
    """Three small tables; when the database is busy, one line instead."""
    try:
        return Group(_pairs(store, now), "", _machines(store, now), "", _actions(store, now))
    except StoreError as error:
        return Text(str(error))


def _pairs(store: Store, now: float) -> RenderableType:
    rows = [
        (
            f"{one.pair.source} -> {one.service}",
            rate(one.bytes_per_s),
            f"{one.connections_per_s:.1f}/s",
            *(rate(one.expected_q90.get(horizon)) for horizon in (5, 15, 30)),
        )
        for one in views.pairs(store, now)[:PAIRS_SHOWN]
    ]
    return table("pairs", ["pair", "now", "connections", "expected +5 s", "+15 s", "+30 s"], rows)


def _machines(store: Store, now: float) -> RenderableType:
    held = ", ".join(f"{one.pair} {rate(one.bytes_per_s)}" for one in store.wanted.reservations(now)) or "none"
    rows = [
        (one.vm, one.host, f"{one.cpu_cores_used:.2f}", f"{one.cpu_cores_limit:.2f}")
        for one in views.newest_vm_loads(store, now)
    ]
    return Group(table("VMs", ["VM", "host", "cores used", "limit"], rows, left=2), f"reserved: {held}")


def _actions(store: Store, now: float) -> RenderableType:
    rows = [
        (f"{now - one.issued_at:.0f} s ago", one.policy, one.kind, one.target, one.outcome.value)
        for one in store.journal.actions(limit=ACTIONS_SHOWN)
    ]
    return table("last actions", ["issued", "policy", "action", "target", "outcome"], rows, left=5)


REFRESH_PER_S = 4


class Screen:
    """A live display; where there is no terminal each step is one printed line instead."""

    def __init__(self, console: Console, state: Callable[[], RenderableType] | None = None) -> None:
        self._console = console
        self._state = state
        self._progress = Progress(
            TextColumn("{task.description:<52}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task("starting", total=1.0)
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=REFRESH_PER_S, transient=True)
        self._said = ""

    def __enter__(self) -> "Screen":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._live.stop()

    def watch(self, state: Callable[[], RenderableType]) -> None:
        """From now on, draw this below the bar."""
        self._state = state

    def _draw(self) -> RenderableType:
        return Group(self._progress, self._state()) if self._state else self._progress

    def step(self, text: str, share: float | None = None) -> None:
        """What is being done now, and how much of the whole is done (0 to 1); None leaves the bar where it is."""
        self._progress.update(self._task, description=text, completed=share)
        if text != self._said and not self._console.is_terminal:
            self._console.print(text)
        self._said = text
