"""On Ryu and on os-ken: the same choice, the same names, the same bytes, and the same guard before real connections."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cpdb import SettingsError
from ryu_apps.frameworks import FRAMEWORKS, VARIABLE, choose_framework, framework_name

ROOT = Path(__file__).parents[2]
INSTALLED = [name for name, module in FRAMEWORKS.items() if find_spec(module) is not None]
# Says what files of ours find behind the framework's door, and what they would send.
TOLD = """
import json
from ryu_apps import framework as door

datapath, parser, ofproto = door.offline_datapath(), door.parser, door.ofproto
match = parser.OFPMatch(in_port=3, eth_type=0x0800, ipv4_src="10.0.0.1", ip_proto=6, tcp_dst=80)
doing = [parser.OFPInstructionActions(ofproto.OFPIT_APPLY_ACTIONS, [parser.OFPActionOutput(7)])]
sent = [
    parser.OFPHello(datapath),
    parser.OFPFlowMod(datapath, cookie=5, table_id=2, priority=9, match=match, instructions=doing),
    parser.OFPPacketOut(datapath, ofproto.OFP_NO_BUFFER, 3, [parser.OFPActionOutput(7)], b"frame"),
    parser.OFPFlowStatsRequest(datapath, match=match),
    parser.OFPRoleRequest(datapath, ofproto.OFPCR_ROLE_MASTER, 4),
]
for one in sent:
    one.xid = 1
    one.serialize()
print(json.dumps({
    "names": sorted(door.__all__),
    "numbers": {name: value for name, value in vars(ofproto).items() if isinstance(value, int)},
    "events": sorted(name for name in dir(door.ofp_event) if name.startswith("EventOFP")),
    "states": [door.HANDSHAKE_DISPATCHER, door.CONFIG_DISPATCHER, door.MAIN_DISPATCHER, door.DEAD_DISPATCHER],
    "parts": [hasattr(door.stock.Datapath, name) for name in ("serve", "send", "close", "set_state", "_recv_loop")],
    "green": door.hub.Queue.__module__.partition(".")[0],
    "sent": [bytes(one.buf).hex() for one in sent],
    "manager": door.FrameworkApp.__module__.partition(".")[0],
}))
"""


def on(framework: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {VARIABLE: framework, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, *words]
    return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=550, check=False)


def told(framework: str) -> dict[str, Any]:
    done = on(framework, "-W", "ignore", "-c", TOLD)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_the_one_asked_for_is_used_and_else_the_first_there_is() -> None:
    assert choose_framework("", ["os-ken"]) == choose_framework("os-ken", ["ryu", "os-ken"]) == "os-ken"
    assert choose_framework("", ["os-ken", "ryu"]) == "ryu"
    for asked, installed, word in (
        ("pox", ["ryu"], "ryu and"),
        ("os-ken", ["ryu"], "make setup"),
        ("", [], "pip"),
    ):
        with pytest.raises(SettingsError, match=word):
            choose_framework(asked, installed)


def test_a_framework_that_is_not_there_is_one_line() -> None:
    done = on("pox", "-m", "forepath.commands.ryu_manager", "ryu_apps.controller")
    assert done.returncode == 2 and done.stderr == "ryu-manager: FOREPATH_FRAMEWORK = 'pox': there are ryu and os-ken\n"


@pytest.mark.skipif(len(INSTALLED) < 2, reason="only one framework is installed")
def test_behind_the_door_both_are_alike() -> None:
    ours, theirs = (told(name) for name in INSTALLED)
    assert (ours.pop("manager"), theirs.pop("manager")) == ("ryu", "os_ken")
    assert all(ours["parts"]) and ours["green"] == "eventlet"
    assert ours == theirs


@pytest.mark.skipif(len(INSTALLED) < 2, reason="only one framework is installed")
@pytest.mark.timeout(600)
def test_the_other_one_passes_the_contract_of_connections() -> None:
    other = next(name for name in INSTALLED if name != framework_name())
    done = on(other, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/ryu_apps/test_connections.py")
    assert done.returncode == 0, done.stdout[-3000:]
