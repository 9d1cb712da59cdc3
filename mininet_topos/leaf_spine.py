"""A leaf-spine fabric for Mininet: every leaf is linked to every spine, so that there are equal paths to choose from.

    mn --custom mininet_topos/leaf_spine.py --topo leaf_spine,leaves=3,spines=2,hosts=2,fabric_mbit=20,host_mbit=100

Parameters: `leaves` (leaf1.., datapath ids 0x11..), `spines` (spine1.., 0x21..), `hosts` on each leaf (h11, h12, ..),
`fabric_mbit` of each leaf-spine link and `host_mbit` of each host link in Mbit/s (0: unlimited). The fabric has loops:
it needs a controller that knows them (`--controller remote`), not Mininet's own learning switch.
Port numbers: a leaf's port to spine j is j, a spine's port to leaf i is i, hosts follow from port 11.
"""

from mininet.link import Link, TCLink
from mininet.topo import Topo


class LeafSpine(Topo):
    """`leaves` x `spines` fabric with `hosts` hosts on each leaf."""

    def build(
        self, leaves: int = 3, spines: int = 2, hosts: int = 2, fabric_mbit: float = 20, host_mbit: float = 100
    ) -> None:
        """Add the switches, the full leaf-spine mesh and the hosts."""
        for j in range(1, spines + 1):
            self.addSwitch(f"spine{j}", dpid=f"{0x20 + j:016x}")
        for i in range(1, leaves + 1):
            leaf = self.addSwitch(f"leaf{i}", dpid=f"{0x10 + i:016x}")
            for j in range(1, spines + 1):
                self.addLink(leaf, f"spine{j}", port1=j, port2=i, **_limit(fabric_mbit))
            for n in range(1, hosts + 1):
                host = self.addHost(f"h{i}{n}")
                self.addLink(host, leaf, port2=10 + n, **_limit(host_mbit))


def _limit(mbit: float) -> dict[str, object]:
    return {"cls": TCLink, "bw": mbit} if mbit else {"cls": Link}


topos = {"leaf_spine": LeafSpine}
