"""Two switches and one bottleneck between them: the smallest topology in which communications compete.

    mn --custom mininet_topos/dumbbell.py --topo dumbbell,hosts=3,bottleneck_mbit=10,host_mbit=100

Parameters: `hosts` on each side (l1.. on the left, r1.. on the right), `bottleneck_mbit` of the link in the middle and
`host_mbit` of each host's link in Mbit/s (0: unlimited). No loops: any learning controller will do.
Port 1 of each switch is the bottleneck, hosts follow from port 11.
"""

from mininet.link import Link, TCLink
from mininet.topo import Topo


class Dumbbell(Topo):
    """`hosts` on each side of one bottleneck."""

    def build(self, hosts: int = 3, bottleneck_mbit: float = 10, host_mbit: float = 100) -> None:
        """Add both switches, the bottleneck and the hosts."""
        left = self.addSwitch("left", dpid=f"{1:016x}")
        right = self.addSwitch("right", dpid=f"{2:016x}")
        self.addLink(left, right, port1=1, port2=1, **_limit(bottleneck_mbit))
        for switch, letter in ((left, "l"), (right, "r")):
            for n in range(1, hosts + 1):
                host = self.addHost(f"{letter}{n}")
                self.addLink(host, switch, port2=10 + n, **_limit(host_mbit))


def _limit(mbit: float) -> dict[str, object]:
    return {"cls": TCLink, "bw": mbit} if mbit else {"cls": Link}


topos = {"dumbbell": Dumbbell}
