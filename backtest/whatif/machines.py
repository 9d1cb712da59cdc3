"""One second of the machines: what they want, what limits and hosts leave them, and requests that wait for a core."""

from dataclasses import dataclass, field

import numpy as np

from backtest.whatif.records import Floats
from backtest.whatif.shares import Crossings, Places, max_min_shares
from backtest.whatif.waiting import PATIENCE_S, WaitingLine


@dataclass(frozen=True, slots=True)
class WorkOrder:
    """What is asked of machines in one second. `own`: cores wanted beside requests; `work`: core-seconds of requests.

    `limits` are in cores (0: not running), `host_of` the number of each machine's host.
    """

    own: Floats
    work: Floats
    limits: Floats
    host_of: Places


@dataclass(frozen=True, slots=True)
class WorkedSecond:
    """What became of it, in cores by machine; `served` and `lost` are shares of the requests that were there."""

    allowed: Floats
    used: Floats
    served: Floats
    lost: Floats
    waited_s: Floats


@dataclass(slots=True)
class ReplayMachines:
    """The state between seconds: core-seconds of requests that wait. `capacities` are the hosts' cores."""

    capacities: Floats
    machines: int
    _line: WaitingLine = field(init=False)

    def __post_init__(self) -> None:
        self._line = WaitingLine(self.machines)

    def work(self, order: WorkOrder) -> WorkedSecond:
        """One second: what is not had of `own` is lost, requests wait `PATIENCE_S` at most.

        On a full host the machines share its cores fairly, and in a machine its requests and whatever else it does.
        """
        before = self._line.total
        self._line.join(order.work)
        there = self._line.total
        on_host = Crossings(np.arange(self.machines), order.host_of)
        used = max_min_shares(np.minimum(order.own + there, order.limits), on_host, self.capacities)
        left = np.maximum(self.capacities - on_host.load(used, len(self.capacities)), 0.0)
        beside = np.minimum(order.own, np.maximum(used / 2.0, used - there))
        done = np.minimum(used - beside, there)
        self._line.serve(done)
        after = self._line.total
        lost = self._line.give_up()
        every = np.maximum(there, 1e-12)
        waited_s = np.where(done > 0, np.minimum(0.5 * (before + after) / np.maximum(done, 1e-12), PATIENCE_S), 0.0)
        return WorkedSecond(
            np.minimum(order.limits, left[order.host_of] + used),
            used,
            np.where(there > 0, done / every, 1.0),
            np.where(there > 0, lost / every, 0.0),
            waited_s,
        )
