"""What a person sees while the demo runs: one bar for the whole, a line for the step, the live state below."""

from collections.abc import Callable
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

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
