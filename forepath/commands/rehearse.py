"""The process that replays what was just recorded, kind of action by kind, so that a kind may earn to act."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from threading import Event

import structlog

from cpdb import ActionRecord, EvidenceReport, ForepathError, OutcomeKind, ReplayedMinute, Seconds, Store, open_store
from forepath.output import SettingsOption
from forepath.processes import orchestrator_config, replay_scene
from forepath.settings import Settings, load_settings
from forepath.supervisor import stop_on_signals
from orchestrator import LearningSettings

log = structlog.get_logger(__name__)
WARM_UP = 0.5
AGAIN_S, LOOK_EVERY_S = 60.0, 1.0
# Above this load by core nobody rehearses.
BUSY = 0.9
NICEST = 19
# What takes back is decided with what it takes back.
BACK = frozenset({"release_bandwidth", "scale_in"})
Minutes = Mapping[str, tuple[ReplayedMinute, ...]]


def rehearse(settings: SettingsOption = None) -> None:
    """Replay what was recorded last, again and again, to show which kinds of action would pay (forepath run does it).

    At the lowest priority, with at most orchestrator.learning.replay_share of one core, and not while the machine is
    busy. `forepath report` tells what came of it. Examples:
        forepath rehearse
        forepath rehearse --settings site.toml
    """
    os.nice(NICEST)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    stop, effective = stop_on_signals(), load_settings(settings)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    config = orchestrator_config(effective, act=None)
    store = open_store(effective.database.url)
    pace = ReplayPace(config.learning.replay_share, stop)
    # Before that there is nothing to replay.
    stop.wait(config.learning.replay_s)
    while not stop.is_set():
        try:
            rehearse_once(store, effective, time.time(), pace.wait)
        except ForepathError as error:
            log.warning("nothing was rehearsed", reason=str(error))
        except Stopped:
            break
        stop.wait(AGAIN_S)
    store.close()


class Stopped(Exception):
    """The process is to end in the middle of a replay."""


@dataclass(slots=True)
class ReplayPace:
    """Lets a replay have its share of one core, and none while the machine is busy."""

    share: float
    stop: Event
    load: Callable[[], float] = lambda: os.getloadavg()[0] / (os.cpu_count() or 1)
    cpu_s: Callable[[], float] = time.process_time
    _before: float = field(init=False)

    def __post_init__(self) -> None:
        self._before = self.cpu_s()

    def wait(self, _done: float = 0.0) -> None:
        """Called after each second that was replayed. Raises Stopped."""
        used, self._before = self.cpu_s() - self._before, self.cpu_s()
        rest_s = used * (1.0 / self.share - 1.0) if self.share > 0 else LOOK_EVERY_S
        if self.stop.wait(rest_s):
            raise Stopped
        while self.load() > BUSY:
            if self.stop.wait(LOOK_EVERY_S):
                raise Stopped


def rehearse_once(store: Store, settings: Settings, now: Seconds, told: Callable[[float], None]) -> Minutes:
    """Replays the last `replay_s` for each kind that was advised or done in them, and adds what came of it.

    Raises ForepathError when nothing is recorded, or something that a replay needs is not declared.
    """
    from backtest.whatif import ReplayTask, TimeSpan, check_ways, recorded_load, replayed_minutes, warm_up_seconds

    rules = orchestrator_config(settings, act=None).learning
    since = now - rules.replay_s
    kinds = wanted_kinds(store.journal.actions(since=since))
    if not kinds:
        return {}
    scene = replay_scene(settings)
    load = recorded_load(store, scene, TimeSpan(since, now))
    check_ways(scene, load)
    name = "the last hours"
    task = ReplayTask(name, "", scene, load, warm_up_seconds(name, load, WARM_UP))
    fresh = replayed_minutes(task, kinds, now - load.seconds, told)
    known = {one.action: one.minutes for one in store.wanted.observed_of(EvidenceReport)}
    merged = {kind: merged_minutes(known.get(kind, ()), minutes, rules, now) for kind, minutes in fresh.items()}
    store.wanted.observe([EvidenceReport(kind, minutes, now) for kind, minutes in merged.items()])
    return merged


def wanted_kinds(actions: Iterable[ActionRecord]) -> tuple[str, ...]:
    """Kinds that acted, or would have."""
    told = (OutcomeKind.ADVISED, OutcomeKind.DONE, OutcomeKind.FAILED)
    return tuple(sorted({one.kind for one in actions if one.outcome in told} - BACK))


def merged_minutes(
    known: Iterable[ReplayedMinute], fresh: Iterable[ReplayedMinute], rules: LearningSettings, now: Seconds
) -> tuple[ReplayedMinute, ...]:
    """Each minute once, its newest replay; those that are older than what counts are gone."""
    minutes = {round(one.at): one for one in (*known, *fresh) if one.at > now - rules.earn_over_s}
    return tuple(minutes[at] for at in sorted(minutes))
