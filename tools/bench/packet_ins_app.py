"""An application beside the controller that counts what switches send to it, by what it is, into a file."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from ryu_apps.framework import MAIN_DISPATCHER, FrameworkApp, handles, ofp_event, sleep, spawn
from ryu_apps.rules import ETH_ARP, ETH_IPV4, Kind, kind_of
from ryu_apps.topology import frames

# The file to write to
FILE = "FOREPATH_BENCH_PACKET_INS"
_EVERY_S = 0.1


class PacketInsApp(FrameworkApp):
    """Counts `met` (copies that tell of a source), `asked` (packets that no rule knew), `arp` and `others`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._count = Counter(met=0, asked=0, arp=0, others=0)
        spawn(self._note)

    @handles(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def on_packet(self, event: Any) -> None:
        """A packet came to the controller."""
        frame = frames.parse(event.msg.data)
        kind = 0 if frame is None else frame.eth_type
        if kind == ETH_IPV4:
            self._count["met" if kind_of(event.msg.cookie) is Kind.SPREAD else "asked"] += 1
        else:
            self._count["arp" if kind == ETH_ARP else "others"] += 1

    def _note(self) -> None:
        target = Path(os.environ[FILE])
        while True:
            beside = target.with_suffix(".new")
            beside.write_text(json.dumps(self._count), encoding="utf-8")
            beside.replace(target)
            sleep(_EVERY_S)
