"""The controls of time: the moment that is looked at, playing a recording, standing still, and the theme."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from nicegui import ui

from cpdb import Seconds
from forepath.output import span
from forepath.web.paper import clock

STEPS_S = (-60, -10, 10, 60)
# At each refresh a recording is played on by so much.
PLAY_S = 10.0
# The newest sample is so old: nobody is measuring, it is a recording.
RECORDING_S = 60.0


class TimeControls:
    """A row of buttons and a slider over what the database holds. `change` is told what is to stand in the address."""

    def __init__(self, now: Callable[[], Seconds], change: Callable[..., Awaitable[None]]) -> None:
        self._now, self._change = now, change
        self._at: Seconds | None = None
        self.held = self.playing = False

    def build(self, dark: ui.dark_mode) -> None:
        """Makes them where the page is being built."""
        self._dark = dark
        with ui.element("div").classes("controls").props('role="group" aria-label="time and theme"'):
            self._when = ui.label().classes("when")
            for step_s in STEPS_S[:2]:
                _button(f"−{span(-step_s)}", partial(self.step, step_s))
            self._slider = ui.slider(min=0, max=1, step=1, value=1).props('aria-label="moment" dense')
            self._slider.on("change", lambda event: self._go_to(float(event.args)))
            for step_s in STEPS_S[2:]:
                _button(f"+{span(step_s)}", partial(self.step, step_s))
            self._play_button = _button("play", self._play)
            _button("now", partial(self._go_to, None))
            self._hold_button = _button("hold", self._hold)
            _button("theme", self._turn)

    def show(self, strip: Any, at: Seconds | None) -> None:
        """The moment that is looked at (None: the present), within what is held."""
        first, last, self._at = strip["first_at"], strip["last_at"], at
        old = at is None and last is not None and strip["now"] - last > RECORDING_S
        kind = "as it was at" if at is not None else "the last sample is old; now" if old else "live,"
        self._when.text = f"{kind} {clock(strip['now'])}"
        if first is not None and last is not None:
            self._slider.props(f"min={int(first)} max={int(max(last, first + 1))}")
            self._slider.set_value(int(min(last, strip["now"])))

    async def play_on(self) -> None:
        """The next moment of a recording that is played."""
        await self.step(PLAY_S)

    async def step(self, step_s: float) -> None:
        """Moves to and fro; the present is the end."""
        there = (self._at or self._now()) + step_s
        await self._go_to(there if there < self._now() else None)

    async def _go_to(self, t: Seconds | None) -> None:
        if t is None and self.playing:
            self._play()
        await self._change(at=None if t is None else f"{datetime.fromtimestamp(round(t), UTC):%Y-%m-%dT%H:%M:%SZ}")

    def _play(self) -> None:
        self.playing = not self.playing
        self._play_button.text = "stop" if self.playing else "play"

    def _hold(self) -> None:
        self.held = not self.held
        self._hold_button.text = "go on" if self.held else "hold"

    async def _turn(self) -> None:
        self._dark.value = not self._dark.value
        await self._change(theme="dark" if self._dark.value else "light")


def _button(text: str, then: Callable[[], Any]) -> ui.button:
    return ui.button(text, on_click=then).props("flat dense no-caps")
