"""One page a view: reads again and again while somebody looks, and changes only what has changed."""

import asyncio
import html
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
from forepath.web.reader import PageAnswer, Reader
from forepath.web.time_controls import TimeControls
from forepath.web.views import AHEAD, VIEWS, View

REFRESH_S = 2.0
# How long the first answer may hold the page back; what comes later is filled in.
PATIENCE_S = 1.5
STYLE = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
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
        self._time = TimeControls(reader.clock, self.change)
        self._charts: list[ui.echart] = []
        self._drawn: list[Any] = []
        self._told: Any = None
        self._inside = False

    def build(self) -> None:
        """The frame: menu, strip, time, charts, and a place for the text."""
        ui.add_css(STYLE)
        dark = ui.dark_mode(self.address.dark)
        self._menu = ui.html("", sanitize=False, tag="header")
        self._trouble = ui.html("", sanitize=False).props('role="status" aria-live="polite"')
        self._strip = ui.html("", sanitize=False)
        with ui.element("main").props('id="main"'):
            self._time.build(dark)
            if AHEAD in self._view.takes:
                with ui.element("div").classes("controls").props('role="group" aria-label="how far ahead"'):
                    ui.label("ahead")
                    self._ahead = ui.toggle({0: "now"}, value=0, on_change=self._look_ahead).props("dense no-caps")
            for chart in self._view.charts:
                with ui.element("figure").props(f'aria-label="{chart.name}"'):
                    ui.html(chart.name, sanitize=False, tag="figcaption")
                    drawn = ui.echart({}, renderer="svg", on_point_click=self._clicked)
                    self._charts.append(drawn.style(f"height: {chart.height}px"))
            self._text = ui.html("", sanitize=False).classes("text")
            # Who reads a table with the keyboard must not lose the place: it stands still meanwhile.
            self._text.on("focusin", partial(self._stand, True), []).on("focusout", partial(self._stand, False), [])
        self._write_menu()

    def _stand(self, inside: bool, _event: Any = None) -> None:
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

    async def tick(self) -> None:
        """What happens every few seconds."""
        if self._time.playing:
            await self._time.play_on()
        elif not self._time.held:
            await self.refresh()

    async def refresh(self) -> None:
        """Reads, and shows what is new."""
        try:
            at = await self._moment()
            arguments = self._view.arguments(self.address)
            strip, answer = await asyncio.gather(
                self._reader.ask(tell_strip, at=at), self._reader.ask(self._view.question, *arguments, at=at)
            )
        except SettingsError as error:
            self.say(str(error))
            return
        self._tell_trouble(answer if answer.trouble else strip)
        if strip.value is not None:
            self._time.show(strip.value, at)
            self._strip.content = write_view("strip", strip.value, self.address)
        if answer.value is None:
            self._text.content = f'<p class="note">{NO_DATA}</p>'
        elif answer.value is not self._told and not self._inside:
            self._told = answer.value
            self._show(answer.value)

    async def _moment(self) -> float | None:
        newest = (await self._reader.ask(tell_newest)).value if self.address.word("at") == LAST else None
        return self.address.at(self._reader.clock(), newest)

    def _show(self, told: Any) -> None:
        self._text.content = write_view(self._view.template, told, self.address)
        options = [chart.draw(told) for chart in self._view.charts]
        for place, (drawn, new) in enumerate(zip(self._charts, options, strict=True)):
            if not self._drawn or self._drawn[place] != new:
                drawn.options.clear()
                drawn.options.update(new)
                drawn.update()
        self._drawn = options
        if "horizons_s" in told:
            self._offer(told["horizons_s"], told["ahead_s"])

    def say(self, text: str) -> None:
        """One line in place of what cannot be shown."""
        self._trouble.content = f'<p class="note">{html.escape(text)}</p>'

    def _tell_trouble(self, answer: PageAnswer) -> None:
        if answer.trouble is None:
            self._trouble.content = ""
            return
        kept = f"; what you see is of {clock(answer.read_at)}" if answer.read_at else ""
        since = f"since {clock(answer.since)} " if answer.since else ""
        self._trouble.content = (
            f'<p class="alarm">The database cannot be read {since}({html.escape(answer.trouble)}){kept}. '
            "It is tried again every second.</p>"
        )

    def _offer(self, horizons_s: list[int], ahead_s: float) -> None:
        options = {far: "now" if far == 0 else f"+{span(far)}" for far in horizons_s}
        if self._ahead.options != options:
            self._ahead.set_options(options, value=min(horizons_s, key=lambda far: abs(far - ahead_s)))

    async def _look_ahead(self, event: Any) -> None:
        if event.value is not None and event.value != self.address.value(AHEAD):
            await self.change(ahead=str(event.value))

    async def change(self, **words: str | None) -> None:
        """Looks at something else: the address says what."""
        self.address = self.address.changed(**words)
        ui.navigate.history.replace(self.address.here())
        self._write_menu()
        self._told = None
        await self.refresh()

    def _clicked(self, event: Any) -> None:
        data = event.data if isinstance(event.data, dict) else {}
        if "number" in data:
            ui.navigate.to(self.address.to("/action", number=data["number"]))
        elif "from" in data:
            ui.navigate.to(self.address.to("/link", **{"from": data["from"], "to": data["to"]}))
        elif data.get("kind") in ("vm", "hypervisor"):
            ui.navigate.to(self.address.to("/machine", name=data["name"]))
