"""What one kind of action alone would have been worth: limits help where a machine is short, moves do nothing there."""

from replay_scenes import SHOP, offered, two_hosts

from backtest.whatif import ReplayTask, replayed_minutes
from cpdb import Pair


def test_a_kind_is_worth_what_it_spares_alone() -> None:
    load = offered(90, {Pair("c1", SHOP): 3e4})
    # 30 connections a second more, of 10 ms each: 0.9 cores where 0.5 may be used.
    load.connections_per_s[40:70] += 87.0
    task = ReplayTask("", "", two_hosts(), load, 30)
    found = replayed_minutes(task, ("migrate_vm", "set_cpu_limit"), 1_000_020.0)
    assert [one.at for one in found["set_cpu_limit"]] == [1_000_020.0, 1_000_080.0]
    limits, moves = ([one.spared_s for one in found[kind]] for kind in ("set_cpu_limit", "migrate_vm"))
    assert sum(one.short_s for one in found["migrate_vm"]) >= 30
    assert sum(limits) > 20 and sum(one.gain for one in found["set_cpu_limit"]) > 20
    assert sum(one.more_cores_s for one in found["set_cpu_limit"]) > 0
    assert moves == [0, 0] and all(one.gain == 0 and one.more_cores_s == 0 for one in found["migrate_vm"])
