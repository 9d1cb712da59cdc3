"""One policy's run over one offered load: the live predictor, planner, guards and store on a simulated scene."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from backtest.whatif.engine import EPOCH_S, ReplayEngine
from backtest.whatif.journal import done_actions
from backtest.whatif.records import EventKind, OfferedLoad, PolicyRun, ReplayPolicy, ReplayScene
from backtest.whatif.truth import TrueFuture
from cpdb import Seconds, Store, SubjectKind, open_store
from orchestrator import Orchestrator, OrchestratorConfig, Timing, collect_seldom
from predictor import BESIDE, Tiers, tier_of, use_one_thread

Progress = Callable[[float], None]
# (number of the row that begins, the moment)
Turn = Callable[[int, Seconds], None]


def replay(
    scene: ReplayScene, load: OfferedLoad, policy: ReplayPolicy, seed: int, progress: Progress = lambda _share: None
) -> PolicyRun:
    """What becomes of the load under a policy; the same seed gives the same run. `progress` hears the share done.

    `static` keeps base limits, declared weights and shortest ways. Raises StoreError where no temporary file can be
    written.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="forepath-whatif-"))
        store = open_store(f"sqlite:///{Path(folder) / 'cpdb.db'}")
        stack.callback(store.close)
        store.inventory.declare_virtual_ips(scene.virtual_ips)
        return play_policy(ReplayEngine(scene, load, store, seed), policy, progress)


def play_policy(engine: ReplayEngine, policy: ReplayPolicy, progress: Progress = lambda _share: None) -> PolicyRun:
    """The same on an engine that nothing has been played on yet, and in its store."""
    # As in the live predictor's process: threads for small arrays only wait for one another.
    use_one_thread()
    collect_seldom()
    seconds = engine.load.seconds
    with ExitStack() as stack:
        turns = _turns(stack, engine, engine.store, policy)
        for second in range(seconds):
            engine.advance(second)
            for turn in turns:
                turn(second + 1, EPOCH_S + second + 1)
            progress((second + 1) / seconds)
        return engine.recorder.run(policy, done_actions(engine.store, engine))


def _turns(stack: ExitStack, engine: ReplayEngine, store: Store, policy: ReplayPolicy) -> tuple[Turn, ...]:
    """Who is asked after each second, in this order."""
    if policy is ReplayPolicy.STATIC:
        return ()
    decides = _orchestrator(stack, engine, store, policy)
    if policy is ReplayPolicy.REACTIVE:
        return (decides,)
    return (_foresees(stack, engine, store, policy), decides)


def _foresees(stack: ExitStack, engine: ReplayEngine, store: Store, policy: ReplayPolicy) -> Turn:
    """The live predictor, or the truth; neither says anything while forecasts are missing."""
    config = engine.scene.predictor
    if not engine.scene.orchestrator.demand.slow_horizons_s:
        config = config.tuned(slow={"horizons_s": ()})
    truth = TrueFuture(engine.load, config)
    # What the planner reads beside forecasts of pairs
    sums = (tier_of(one) for one in (SubjectKind.LINK, SubjectKind.DESTINATION, SubjectKind.HOST))
    only = (*sums, *((BESIDE,) if engine.load.cores.any() else ()))
    predictor = None if policy is ReplayPolicy.ORACLE else Tiers(config, background=False, only=only)
    if predictor is not None:
        stack.callback(predictor.close)

    def turn(second: int, now: Seconds) -> None:
        if engine.stage.happens(EventKind.FORECASTS_MISSING, now):
            return
        if predictor is None:
            truth.write(store, second, now)
        else:
            predictor.cycle(store, now)

    return turn


def _orchestrator(stack: ExitStack, engine: ReplayEngine, store: Store, policy: ReplayPolicy) -> Turn:
    """The live orchestrator, which may act."""
    config = acting(engine.scene, policy)
    clock = [EPOCH_S]
    drivers = engine.stage.drivers(store, Timing(lambda: clock[0], background=False))
    orchestrator = Orchestrator(config, store, drivers, engine.switches.path)
    stack.callback(orchestrator.close)

    def turn(_second: int, now: Seconds) -> None:
        clock[0] = now
        orchestrator.observe(now)
        orchestrator.cycle(now)

    return turn


def acting(scene: ReplayScene, policy: ReplayPolicy) -> OrchestratorConfig:
    """The settings under which a policy acts; the file that pauses a live orchestrator is not looked for."""
    act = scene.orchestrator.act if scene.orchestrator.act == "earned" else True
    decides = "reactive" if policy is ReplayPolicy.REACTIVE else "predictive"
    declared = {"hosts": scene.hosts, "vms": scene.vms}
    return scene.orchestrator.tuned(act=act, policy=decides, guard={"stop_file": None}, declared=declared)
