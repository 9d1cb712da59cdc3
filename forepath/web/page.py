"""One page a view: reads again and again while somebody looks, and changes only what has changed."""

import asyncio
import html
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import Request
from nicegui import ui

from cpdb import SettingsError
from forepath.moments import LAST
from forepath.output import span
from forepath.web.address import PageAddress
from forepath.web.conduct import tell_newest, tell_strip
from forepath.web.paper import clock, write_view
from forepath.web.reader import Answer, Reader
from forepath.web.views import VIEWS, View

REFRESH_S = 2.0
# How long the first answer may hold the page back; what comes later is filled in.
PATIENCE_S = 1.5
STEPS_S = (-60, -10, 10, 60)
# A recording is played so much faster than it was.
PLAY_S = 5.0 * REFRESH_S
STYLE = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
# The newest sample is so old: nobody is measuring, it is a recording.
RECORDING_S = 60.0
NO_DATA = "nothing is known yet; the database is asked again every second"


def add_pages(reader: Reader) -> None:
    """Registers a page for each view."""
    for view in VIEWS:
        ui.page(view.path, title=f"{view.title} - forepath", response_timeout=10.0)(partial(_open, reader, view))


async def _open(reader: Reader, view: View, request: Request) -> None:
    page = LivePage(reader, view, PageAddress(view.path, dict(request.query_params)))
    page.build()
    try:
        await asyncio.wait_for(page.refresh(), PATIENCE_S)
    except TimeoutError:
        page.say("the database is being read ...")
    ui.timer(REFRESH_S, page.tick, immediate=False)


class LivePage:
    """What one viewer sees; its state is its address."""

    def __init__(self, reader: Reader, view: View, address: PageAddress) -> None:
        self._reader, self._view, self.address = reader, view, address
        self._charts: list[ui.echart] = []
        self._held = self._playing = self._inside = False
        self._shown: list[Any] = []
        self._at: float | None = None

    def build(self) -> None:
        """The frame: menu, strip, time, charts, and a place for the text."""
        ui.add_css(STYLE)
        self._dark = ui.dark_mode(self.address.dark)
        self._menu = ui.html("", sanitize=False, tag="header")
        self._trouble = ui.html("", sanitize=False).props('role="status" aria-live="polite"')
        self._strip = ui.html("", sanitize=False).classes("strip-place")
        with ui.element("main").props('id="main"'):
            self._controls()
            for chart in self._view.charts:
                with ui.element("figure").props(f'aria-label="{chart.name}"'):
                    ui.html(chart.name, sanitize=False, tag="figcaption")
                    drawn = ui.echart({}, renderer="svg", on_point_click=self._clicked)
                    self._charts.append(drawn.style(f"height: {chart.height}px"))
            self._text = ui.html("", sanitize=False).classes("text")
            # Who reads a table with the keyboard must not lose the place: it stands still meanwhile.
            self._text.on("focusin", lambda: self._stand(True), []).on("focusout", lambda: self._stand(False), [])
        self._write_menu()

    def _stand(self, inside: bool) -> None:
        self._inside = inside

    def _write_menu(self) -> None:
        here = ' aria-current="page"'
        items = [
            f'<a href="{html.escape(self.address.to(one.path))}"{here if one is self._view else ""}>{one.title}</a>'
            for one in VIEWS
            if one.in_menu
        ]
        title = f"<h1>{html.escape(self._view.title)}</h1>"
        skip = '<a class="skip" href="#main">to the content</a>'
        self._menu.content = f'{skip}<nav aria-label="views"><strong>forepath</strong>{"".join(items)}</nav>{title}'

    def _controls(self) -> None:
        with ui.element("div").classes("controls").props('role="group" aria-label="time and theme"'):
            self._when = ui.label().classes("when")
            for step_s in STEPS_S[:2]:
                _button(f"−{span(-step_s)}", partial(self._step, step_s))
            self._slider = ui.slider(min=0, max=1, step=1, value=1).props('aria-label="moment" dense')
            self._slider.on("change", lambda event: self._go_to(float(event.args)))
            for step_s in STEPS_S[2:]:
                _button(f"+{span(step_s)}", partial(self._step, step_s))
            self._play_button = _button("play", self._play)
            _button("now", lambda: self._go_to(None))
            self._hold_button = _button("hold", self._hold)
            _button("theme", self._turn)
        if self._view.path in ("/", "/link"):
            with ui.element("div").classes("controls").props('role="group" aria-label="how far ahead"'):
                ui.label("ahead").classes("when")
                self._ahead = ui.toggle({0: "now"}, value=0, on_change=self._look_ahead).props("dense no-caps")

    async def tick(self) -> None:
        """What happens every few seconds."""
        if self._playing:
            await self._step(PLAY_S)
        elif not self._held:
            await self.refresh()

    async def refresh(self) -> None:
        """Reads, and shows what is new."""
        try:
            at = self._at = await self._moment()
            arguments = self._view.takes(self.address)
            strip, answer = await asyncio.gather(
                self._reader.ask(tell_strip, at=at), self._reader.ask(self._view.question, *arguments, at=at)
            )
        except SettingsError as error:
            self.say(str(error))
            return
        self._tell_trouble(answer if answer.trouble else strip)
        if strip.value is not None:
            self._show_time(strip.value, at)
            self._strip.content = write_view("strip", strip.value, self.address)
        if answer.value is None:
            self._text.content = f'<p class="note">{NO_DATA}</p>'
        elif not self._inside:
            self._show(answer)

    async def _moment(self) -> float | None:
        newest = (await self._reader.ask(tell_newest)).value if self.address.word("at") == LAST else None
        return self.address.at(self._reader.clock(), newest)

    def _show(self, answer: Answer) -> None:
        told = answer.value
        self._text.content = write_view(self._view.template, told, self.address)
        for place, (chart, drawn) in enumerate(zip(self._view.charts, self._charts, strict=True)):
            options = chart.draw(told)
            if len(self._shown) <= place or self._shown[place] != options:
                drawn.options.clear()
                drawn.options.update(options)
                drawn.update()
                self._shown[place : place + 1] = [options]
        if "horizons_s" in told:
            self._offer(told["horizons_s"], told["ahead_s"])

    def say(self, text: str) -> None:
        """One line in place of what cannot be shown."""
        self._trouble.content = f'<p class="note">{html.escape(text)}</p>'

    def _tell_trouble(self, answer: Answer) -> None:
        if answer.trouble is None:
            self._trouble.content = ""
            return
        kept = f"; what you see is of {clock(answer.read_at)}" if answer.read_at else ""
        since = f"since {clock(answer.since)} " if answer.since else ""
        self._trouble.content = (
            f'<p class="alarm">The database cannot be read {since}({html.escape(answer.trouble)}){kept}. '
            "It is tried again every second.</p>"
        )

    def _show_time(self, strip: Any, at: float | None) -> None:
        first, last = strip["first_at"], strip["last_at"]
        old = at is None and last is not None and strip["now"] - last > RECORDING_S
        kind = "as it was at" if at is not None else "the last sample is old; now" if old else "live,"
        self._when.text = f"{kind} {clock(strip['now'])}"
        if first is not None and last is not None:
            self._slider.props(f"min={int(first)} max={int(max(last, first + 1))}")
            self._slider.set_value(int(min(last, strip["now"])))

    def _offer(self, horizons_s: list[int], ahead_s: float) -> None:
        options = {far: "now" if far == 0 else f"+{span(far)}" for far in horizons_s}
        nearest = min(horizons_s, key=lambda far: abs(far - ahead_s))
        if self._ahead.options != options:
            self._ahead.set_options(options, value=nearest)

    async def _look_ahead(self, event: Any) -> None:
        if event.value is not None and float(event.value) != self.address.number("ahead", 15.0, 7200.0):
            await self._change(ahead=event.value)

    async def _go_to(self, t: float | None) -> None:
        self._playing = self._playing and t is not None
        text = None if t is None else f"{datetime.fromtimestamp(round(t), UTC):%Y-%m-%dT%H:%M:%SZ}"
        await self._change(at=text)

    async def _step(self, step_s: float) -> None:
        now = self._reader.clock()
        there = (self._at or now) + step_s
        self._playing = self._playing and there < now
        await self._go_to(there if there < now else None)

    def _play(self) -> None:
        self._playing = not self._playing
        self._play_button.text = "pause" if self._playing else "play"

    def _hold(self) -> None:
        self._held = not self._held
        self._hold_button.text = "go on" if self._held else "hold"

    async def _turn(self) -> None:
        self._dark.value = not self._dark.value
        await self._change(theme="dark" if self._dark.value else "light")

    async def _change(self, **words: Any) -> None:
        address = self.address.here(**words)
        kept = {name: str(word) for name, word in (dict(self.address.words) | words).items() if word is not None}
        self.address = PageAddress(self.address.path, kept)
        ui.navigate.history.replace(address)
        self._write_menu()
        await self.refresh()

    def _clicked(self, event: Any) -> None:
        data = event.data if isinstance(event.data, dict) else {}
        if "number" in data:
            ui.navigate.to(self.address.to("/action", number=data["number"]))
        elif "from" in data:
            ui.navigate.to(self.address.to("/link", **{"from": data["from"], "to": data["to"]}))
        elif data.get("kind") in ("vm", "hypervisor"):
            ui.navigate.to(self.address.to("/machine", name=data["name"]))


def _button(text: str, then: Callable[[], Any]) -> ui.button:
    return ui.button(text, on_click=then).props("flat dense no-caps")
