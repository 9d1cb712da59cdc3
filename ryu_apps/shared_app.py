"""An application that may be one of several on one database: of each switch one is master, the others stand by."""

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from secrets import token_bytes
from typing import Any

import structlog

from cpdb import ForepathError, Store
from ryu_apps.application import SwitchApp
from ryu_apps.declared import Declared
from ryu_apps.duty import RENEW_S, Duty
from ryu_apps.framework import CONF, MAIN_DISPATCHER, alarm_clock, beside, handles, off_loop, ofp_event
from ryu_apps.openflow import ControllerRole
from ryu_apps.roles import join_fabrics
from ryu_apps.switch.errors import SwitchError
from ryu_apps.switch.wire import Wire
from ryu_apps.telemetry.collector import Tenures
from ryu_apps.topology.lldp import KEY_BYTES
from ryu_apps.topology.state import Directory

Seconds = float

_STALE = "OFPET_ROLE_REQUEST_FAILED/OFPRRFC_STALE"
_log = structlog.get_logger("ryu_apps.shared_app")


class Ending:
    """The first signal to end asks for it, in good order; a second one ends the process at once."""

    def __init__(self, asked: Callable[[], Any]) -> None:
        self.number: int | None = None
        self._asked = asked

    def catch(self) -> None:
        """Takes the process's signals from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            # Not in the main thread: then somebody else ends this application.
            with suppress(ValueError):
                signal.signal(number, self._ask)

    def _ask(self, number: int, _frame: Any) -> None:
        if self.number is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.number = number
        self._asked()

    def end(self, number: int) -> None:
        """Ends the process by that signal."""
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        os.kill(os.getpid(), number)


class SharedApp(SwitchApp):
    """Serves the switches of which it is master; to the others it is a slave that asks and sends nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        name = f"{socket.gethostname()[:40]}:{CONF.ofp_tcp_listen_port}/{self.writer.name[:8]}"
        self.duty = Duty(name, self.database.url)
        self._due = alarm_clock()
        # Names and links as of the last reading
        self.declared = Declared()
        # Generations that switches know of and no lease has reached: of a database that was lost
        self._floors: dict[int, int] = {}
        self._ending = Ending(self._due.set)
        self.database.opened.append(self._opened)

    def start(self) -> Any:
        """Starts the loops."""
        self.collector.tenures = Tenures(self.writer.kept.place, self.duty.may_be_followed)
        thread = super().start()
        self._ending.catch()
        self.loops.every(RENEW_S, "looking at leases", self._look, self._due)
        return thread

    def _opened(self, store: Store) -> None:
        self.share_key(off_loop(store.leases.lldp_key, token_bytes(KEY_BYTES)))
        beside(self.duty.step, RENEW_S, self._due.set)

    def _end(self, number: int) -> None:
        try:
            off_loop(self.duty.end)
        except ForepathError as error:
            _log.warning("leases end by themselves", reason=str(error))
        self._ending.end(number)

    # ---- what an application makes of it

    def begin_anew(self, now: Seconds) -> None:
        """The first switch is taken over: what was known before is forgotten, another may have changed it since."""
        raise NotImplementedError

    def share_key(self, key: bytes) -> None:
        """With this key all controllers of the database sign the frames by which they find links."""
        raise NotImplementedError

    def stood_by(self, wire: Wire, now: Seconds) -> None:
        """A switch is connected, but another may be its master."""
        raise NotImplementedError

    # ---- roles

    def met(self, wire: Wire, now: Seconds) -> None:
        """A switch connected: it is served as soon as this controller has its lease."""
        self.standing[wire.dpid] = wire
        if self.duty.others:
            self._ask_role(wire, ControllerRole.SLAVE)
        self.stood_by(wire, now)
        self._due.set()

    def _generation(self, dpid: int) -> int:
        return max(self.duty.generation(dpid), self._floors.get(dpid, 0))

    def _ask_role(self, wire: Wire, role: ControllerRole) -> None:
        # Another application at the same switch must not lose its own role: there leases alone decide.
        if self.settings.places().controller_id is None:
            wire.ask_role(role, self._generation(wire.dpid))

    def _look(self, now: Seconds) -> None:
        if self._ending.number is not None:
            self._end(self._ending.number)
        self.duty.no_database = self.database.away
        tenures = self.duty.tenures()
        for dpid in [dpid for dpid in self.wires if dpid not in tenures]:
            self._stand_by(dpid, now)
        self._take_over({dpid: token for dpid, token in tenures.items() if dpid in self.standing}, now)
        for dpid, token in tenures.items():
            if dpid in self.wires and self.collector.tenures.tokens.get(dpid) != token:
                # From the time before there was a database.
                self.collector.tenures.tokens[dpid] = token
                self._ask_role(self.wires[dpid], ControllerRole.MASTER)
        connected = {*self.wires, *self.standing}
        fabrics = join_fabrics(self.declared.links, Directory(self.declared.nodes), connected)
        self.duty.tell(connected, fabrics, self.wires)

    def _take_over(self, tenures: dict[int, int], now: Seconds) -> None:
        tokens, store = self.collector.tenures.tokens, self.database.store
        fresh = [dpid for dpid, token in tenures.items() if token != tokens.get(dpid)]
        wires = {dpid: self.standing[dpid] for dpid in tenures}
        try:
            stored = off_loop(store.leases.kept_counts, fresh) if fresh and store is not None else {}
        except ForepathError as error:
            # Without them bytes would be lost: it can wait for the next look.
            _log.warning("no switch is taken over yet", reason=str(error))
            return
        if fresh and not self.wires:
            self.begin_anew(now)
        for dpid, wire in wires.items():
            # It may have gone while the database was asked.
            if self.standing.get(dpid) is wire:
                kept = self.writer.kept.read(dpid)
                if dpid in fresh:
                    kept = self.collector.tenures.newest(stored.get(dpid), kept)
                    self.collector.accounts.forget(dpid)
                tokens[dpid] = tenures[dpid]
                if tenures[dpid]:
                    self._ask_role(wire, ControllerRole.MASTER)
                self.serve(self.standing.pop(dpid), now, kept)

    def _stand_by(self, dpid: int, now: Seconds) -> None:
        wire = self.wires[dpid]
        _log.info("another controller is master", switch=self.collector.attribution.name_of(dpid))
        self.collector.switch_down(dpid)
        del self.wires[dpid]
        self.left(dpid, now)
        self.standing[dpid] = wire
        self._ask_role(wire, ControllerRole.SLAVE)
        self.stood_by(wire, now)

    def refused(self, dpid: int, error: SwitchError, now: Seconds) -> str:
        """A switch refused something: what it was about."""
        wire = self.wires.get(dpid) or self.standing.get(dpid)
        if wire is not None and error.reason == _STALE:
            wire.ask_role(ControllerRole.AS_IT_IS, 0)
        return super().refused(dpid, error, now)

    @handles(ofp_event.EventOFPRoleReply, MAIN_DISPATCHER)
    def on_role(self, event: Any) -> None:
        """What this controller is to a switch; a generation that no lease has reached is passed."""
        dpid, generation = event.msg.datapath.id, event.msg.generation_id
        if self._generation(dpid) < generation < 2**64 - 1:
            self._floors[dpid] = generation + (dpid in self.wires)
            wire = self.wires.get(dpid) or self.standing.get(dpid)
            if wire is not None:
                role = ControllerRole.MASTER if dpid in self.wires else ControllerRole.SLAVE
                wire.ask_role(role, self._floors[dpid])
