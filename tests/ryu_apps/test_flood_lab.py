"""Real switches: a port that invents sources as fast as it can, and others' first connections meanwhile."""

import sys
import time
from pathlib import Path
from statistics import median

import pytest
from controller_lab import ADDRESS, VIP, eventually, network

from tools.lab.stage import run

pytestmark = pytest.mark.lab
HERE = Path(__file__).parent
TALK, INVENTED = ((sys.executable, str(HERE / name)) for name in ("talk.py", "invented.py"))
PER_S = 10_000


def test_first_connections_of_others_are_served_while_a_port_invents_sources(tmp_path: Path) -> None:
    with network(tmp_path) as net:
        net.controller()
        assert eventually(lambda: all(net.pings("c1", ADDRESS[name]) for name in ("s1", "c2")), 30), net.log()
        fresh = [f"10.77.0.{200 + number}" for number in range(14)]
        net.run("c1", "sh", "-c", "; ".join(f"ip addr add {one}/24 dev c1-eth0" for one in fresh))
        with net.background("s1", *TALK, "serve_tcp", "0.0.0.0", "8080") as server:
            assert server.stdout is not None and server.stdout.readline() == "ready\n"
            calm = net.run("c1", *INVENTED, "meet", VIP, "8080", *fresh[:4])
            with net.background("c2", *INVENTED, "flood", VIP, str(PER_S), "9") as flooding:
                # Until the switch holds the port.
                assert eventually(lambda: "in_port=12" in asked_within_a_meter(), 8), net.log()
                met = net.run("c1", *INVENTED, "meet", VIP, "8080", *fresh[4:])
                assert flooding.stdout is not None
                told = flooding.stdout.readline()
        before, during = ([int(one) for one in done.stdout.split()] for done in (calm, met))
        print(f"first connections, ms: calm {before}, flooded {during}; frames and rate: {told}")
        assert met.returncode == 0 and len(during) == 10, met.stdout
        # Who loses a frame sends it again after a second; half of them lose none.
        assert median(during) < 1000
        assert "packet_flood" in {one.kind for one in net.store.alarms.at(time.time())}
        # The machine that floods is known, and goes on talking.
        assert net.pings("c2", ADDRESS["s1"], 3)


def asked_within_a_meter() -> str:
    lines = run(["ovs-ofctl", "-O", "OpenFlow13", "--no-stats", "dump-flows", "leaf1"]).splitlines()
    return "\n".join(one for one in lines if "meter:" in one and "CONTROLLER" in one and VIP in one)
