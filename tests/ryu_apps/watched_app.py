"""An application for tests: guards its connections, polls every switch, and says on stdout what happens."""

from typing import Any

from ryu_apps.framework import (
    DEAD_DISPATCHER,
    MAIN_DISPATCHER,
    OPENFLOW_13,
    FrameworkApp,
    handles,
    ofp_event,
    sleep,
    spawn,
)
from ryu_apps.settings import load_controller
from ryu_apps.switch.connections import harden
from ryu_apps.switch.errors import refusals
from ryu_apps.switch.wire import Wire


class Watched(FrameworkApp):
    """Prints `up DPID`, `down DPID`, `read DPID ENTRIES`, `packet DPID PORT` and `stranger KEY`."""

    OFP_VERSIONS = (OPENFLOW_13,)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings = load_controller()
        harden(settings.controller.connections, settings.trust())
        self._wires: dict[int, Wire] = {}
        spawn(self._poll)

    @handles(ofp_event.EventOFPStateChange, MAIN_DISPATCHER, DEAD_DISPATCHER)
    def on_state(self, event: Any) -> None:
        """A switch came or went."""
        if event.state == MAIN_DISPATCHER:
            self._wires[event.datapath.id] = Wire(event.datapath)
            print(f"up {event.datapath.id}", flush=True)
        elif event.datapath.id in self._wires:
            self._wires.pop(event.datapath.id).close()
            print(f"down {event.datapath.id}", flush=True)

    @handles(ofp_event.EventOFPFlowStatsReply, MAIN_DISPATCHER)
    def on_flows(self, event: Any) -> None:
        """A part of an answer; both ways to read it agree."""
        columns, body = event.msg.columns, event.msg.body
        assert [one.cookie for one in body] == list(columns.cookie)
        print(f"read {event.msg.datapath.id} {len(columns)}", flush=True)

    @handles(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def on_packet(self, event: Any) -> None:
        """A frame from a port."""
        print(f"packet {event.msg.datapath.id} {event.msg.match['in_port']}", flush=True)

    def _poll(self) -> None:
        while True:
            for wire in list(self._wires.values()):
                wire.ask_rules()
            while refusals.strangers:
                print(f"stranger {refusals.strangers.popleft().key}", flush=True)
            sleep(0.2)
