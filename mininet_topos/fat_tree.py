"""A k-ary fat tree for Mininet: many equal paths between any two pods, as in larger data centres.

    mn --custom mininet_topos/fat_tree.py --topo fat_tree,k=4,core_mbit=20,pod_mbit=20,host_mbit=100

Parameters: `k` (even; k pods of k/2 aggregation and k/2 edge switches, (k/2)^2 core switches, k^3/4 hosts),
`core_mbit` of the links core - aggregation, `pod_mbit` of the links aggregation - edge and `host_mbit` of the host
links in Mbit/s (0: unlimited). The tree has loops: it needs a controller that knows them (`--controller remote`).
Datapath ids: core 0x100.., aggregation 0x200.., edge 0x300... Construction after Al-Fares et al., SIGCOMM 2008.
"""

from mininet.link import Link, TCLink
from mininet.topo import Topo


class FatTree(Topo):
    """A fat tree of `k`-port switches."""

    def build(self, k: int = 4, core_mbit: float = 20, pod_mbit: float = 20, host_mbit: float = 100) -> None:
        """Add cores, pods and hosts; ValueError when k is odd or below 2."""
        if k < 2 or k % 2:
            raise ValueError(f"k must be even and at least 2, not {k}")
        half = k // 2
        cores = [self.addSwitch(f"core{n + 1}", dpid=f"{0x100 + n:016x}") for n in range(half * half)]
        for pod in range(k):
            aggregations = [self._switch("agg", 0x200, pod * half + n) for n in range(half)]
            for n, aggregation in enumerate(aggregations):
                for core in cores[n * half : (n + 1) * half]:
                    self.addLink(core, aggregation, **_limit(core_mbit))
            for n in range(half):
                self._edge(pod * half + n, aggregations, pod_mbit, host_mbit)

    def _switch(self, kind: str, base: int, number: int) -> str:
        return str(self.addSwitch(f"{kind}{number + 1}", dpid=f"{base + number:016x}"))

    def _edge(self, number: int, aggregations: list[str], pod_mbit: float, host_mbit: float) -> None:
        edge = self._switch("edge", 0x300, number)
        for aggregation in aggregations:
            self.addLink(aggregation, edge, **_limit(pod_mbit))
        for n in range(len(aggregations)):
            host = self.addHost(f"h{number * len(aggregations) + n + 1}")
            self.addLink(host, edge, **_limit(host_mbit))


def _limit(mbit: float) -> dict[str, object]:
    return {"cls": TCLink, "bw": mbit} if mbit else {"cls": Link}


topos = {"fat_tree": FatTree}
