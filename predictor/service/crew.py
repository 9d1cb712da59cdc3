"""Has shards forecast by the workers of a Dask cluster: the one file that knows Dask."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from itertools import repeat
from math import inf, nextafter
from threading import Lock
from typing import Any

import dask
import structlog
from distributed import Client, Future, LocalCluster, as_completed, get_worker

from cpdb import Seconds, Store, StoreUnreachable, Subject, SubjectKind, open_store
from predictor.config import PredictorConfig
from predictor.service.cycle import TierTurn
from predictor.service.shards import NEVER, ShardAnswer, ShardCopies, ShardHost, ShardTask, rotated
from predictor.service.workers import give_back_large_arrays, use_one_thread

log = structlog.get_logger(__name__)

# Who does not answer within so many seconds, or cycles, is left out from then on; the first turn reads the whole past.
PATIENCE_S, PATIENCE_CYCLES, FIRST_PATIENCE_S = 30.0, 10.0, 600.0
# A worker that has joined is given shards of others only after so long: it may be gone again as soon.
SETTLED_S = 60.0
# What a worker of an earlier publisher holds is gone on with unless it has missed more than this.
WARM_S = 60.0
OF_OUR_OWN_CLUSTER = {
    # Fits run in a process below the worker.
    "distributed.worker.daemon": False,
    "distributed.worker.profile.enabled": False,
    # A shard is where it is because of what it has learnt there.
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.worker-ttl": "30s",
}


def place_shards(
    before: Mapping[int, str], workers: Collection[str], settled: Collection[str], count: int
) -> dict[int, str]:
    """The worker of each of `count` shards: where it was as long as that one lives, else with who has fewest.

    Who has two more than a worker that is `settled` gives shards up to that one. Raises ValueError without workers.
    """
    held: dict[str, list[int]] = {worker: [] for worker in sorted(workers)}
    homeless: list[int] = []
    for shard in range(count):
        held.get(before.get(shard, ""), homeless).append(shard)
    for shard in homeless:
        min(held.values(), key=len).append(shard)
    for worker in sorted(held.keys() & set(settled)):
        while len(most := max(held.values(), key=len)) > len(held[worker]) + 1:
            held[worker].append(most.pop())
    return {shard: worker for worker, own in held.items() for shard in own}


class DaskCrew:
    """Workers of a Dask cluster: that of a scheduler, or processes of this machine that end with this one.

    A worker that dies takes nothing with it where there are copies of its shards, else what was learnt since it was
    kept last: the cluster gives its shards to another within the same turn. Messages are as safe as the cluster makes
    them (tls://); whoever may talk to a scheduler may run anything on its workers.
    """

    def __init__(self, config: PredictorConfig, background: bool = True) -> None:
        self._config, self._background = config, background
        self._patience_s = max(PATIENCE_S, PATIENCE_CYCLES * config.cycle_s)
        self._cluster: LocalCluster | None = None
        self.client: Client | None = None
        self._done = dict.fromkeys(range(config.shard_count), NEVER)
        self._copies = ShardCopies(config.shards, config.shard_count)
        self.placed: dict[int, str] = {}
        self._begun = False
        self._number = 0
        self._joined: dict[str, Seconds] = {}
        self._silent: set[str] = set()

    def turn(self, store: Store, now: Seconds) -> list[ShardAnswer]:
        """See ShardCrew. Shards of workers that do not answer are left out; raises StoreUnreachable without any."""
        client = self._placed(store, now)
        patience_s = FIRST_PATIENCE_S if NEVER in self._done.values() else self._patience_s
        up_to, before = store.facts.newest_batch(), dict(self.placed)
        self._number += 1
        tasks = {
            shard: ShardTask(now, up_to, {shard: done}, anew=False, room=self._copies.room(shard, self._number))
            for shard, done in self._done.items()
        }
        answers = self._answers(client, store, tasks, patience_s)
        if lacking := [answer.shard for answer in answers if answer.lacks]:
            brought = self._brought(lacking, tasks)
            answers = [answer for answer in answers if not answer.lacks]
            answers += self._answers(client, store, brought, FIRST_PATIENCE_S)
            self._copies.forget(set(lacking) - {answer.shard for answer in answers})
        if not answers:
            raise StoreUnreachable("no worker forecasts: none answers")
        if moved := sorted(shard for shard, worker in self.placed.items() if before[shard] != worker):
            log.warning("shards have gone to other workers", shards=moved, workers=len(self._joined))
        return sorted(answers, key=lambda answer: answer.shard)

    def _answers(
        self, client: Client, store: Store, tasks: Mapping[int, ShardTask], patience_s: float
    ) -> list[ShardAnswer]:
        asked = {
            self._ask(client, store, self.placed[shard], _turn, tasks[shard]): self.placed[shard]
            for shard in rotated(tasks.keys(), self._number)
        }
        answers: list[ShardAnswer] = []
        for worker, found in self._heard(asked, patience_s):
            answers += found
            for answer in found:
                self.placed[answer.shard] = worker
                if not answer.lacks:
                    self._copies.heard(answer, tasks[answer.shard].up_to)
                    self._done[answer.shard] = answer.now
        return answers

    def _brought(self, shards: Collection[int], tasks: Mapping[int, ShardTask]) -> dict[int, ShardTask]:
        """Tasks for who has these shards now, with what they go on from."""
        copies = self._copies.of(shards, self._done)
        if anew := sorted(set(shards) - copies.keys()):
            log.warning("shards go on with what the database keeps, as there is no copy of them", shards=anew)
        if copies:
            log.info("shards go on with their copies", shards=sorted(copies))
        brought = {shard: replace(tasks[shard], anew=True) for shard in shards}
        return brought | {shard: replace(brought[shard], copies={shard: copy}) for shard, copy in copies.items()}

    def follow(self, store: Store, now: Seconds) -> None:
        """See ShardCrew. Workers of another's cluster follow whoever is on duty, who may well be on it."""
        if self._config.shards.scheduler is None:
            self._ask_all(self._placed(store, now), store, self._by_worker(), ShardHost.follow, now)

    def keep(self, store: Store, now: Seconds) -> None:
        """See ShardCrew."""
        self._ask_all(self._placed(store, now), store, self._by_worker(), ShardHost.keep, now)

    def renew(self) -> None:
        """See ShardCrew. Workers of another's cluster are left alone: they may work for who is on duty."""
        self._done = dict.fromkeys(self._done, NEVER)
        self.placed, self._begun = {}, False
        self._copies.forget(self._done)
        if self._cluster is not None and self.client is not None:
            self.client.run(_forget, on_error="ignore")

    def close(self) -> None:
        """See ShardCrew. Workers of another's cluster keep what they hold for the next predictor."""
        if self.client is not None:
            self.client.close()
        if self._cluster is not None:
            self._cluster.close()
        self.client = self._cluster = None

    def _placed(self, store: Store, now: Seconds) -> Client:
        """The cluster, with a place for each shard. Raises StoreUnreachable where there is no worker."""
        if self.client is None:
            wanted = self._config.shards
            if wanted.scheduler is None:
                dask.config.set(OF_OUR_OWN_CLUSTER)
                self._cluster = LocalCluster(
                    n_workers=wanted.workers, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0",
                    memory_limit=None, security=True,
                )  # fmt: skip
            dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GB"})  # copies of shards are
            self.client = Client(self._cluster or wanted.scheduler, direct_to_workers=True)
        if not self._begun:
            self._take_over(self.client, store, now)
            self._begun = True
        self._place(self.client, store, now)
        return self.client

    def _take_over(self, client: Client, store: Store, now: Seconds) -> None:
        """Where workers hold shards from before, they go on with them; what has missed too much is not to be used."""
        held = client.run(_held, _url(store), on_error="ignore")
        for worker, reached in held.items():
            for shard, at in reached.items():
                if shard in self._done and at > self._done[shard]:
                    self._done[shard], self.placed[shard] = at, worker
        for shard, at in self._done.items():
            if NEVER < at < now - WARM_S:
                self._done[shard] = nextafter(now, -inf)

    def _place(self, client: Client, store: Store, now: Seconds) -> None:
        """Gives shards whose worker has gone to others; what is moved for balance is kept first."""
        # Asked directly: what the client remembers of it is overwritten, without workers, now and then.
        workers = set(client.sync(client.scheduler.identity, n_workers=-1)["workers"]) - self._silent
        if not workers:
            self._silent.clear()
            raise StoreUnreachable("no worker forecasts: the cluster has none")
        begun = bool(self._joined)
        self._joined = {worker: self._joined.get(worker, now if begun else NEVER) for worker in workers}
        settled = [worker for worker, at in self._joined.items() if now - at >= SETTLED_S]
        placed = place_shards(self.placed, workers, settled, len(self._done))
        moved = [shard for shard, worker in self.placed.items() if worker in workers and placed[shard] != worker]
        self._ask_all(client, store, self._by_worker(moved), ShardHost.release, now)
        if self.placed and placed != self.placed:
            log.info("shards are with other workers from now on", workers=len(workers))
        self.placed = placed

    def _by_worker(self, shards: Collection[int] | None = None) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for shard, worker in sorted(self.placed.items()):
            if shards is None or shard in shards:
                found.setdefault(worker, []).append(shard)
        return found

    def _ask_all(self, client: Client, store: Store, of: Mapping[str, list[int]], *work: Any) -> None:
        """Has each worker do something with its shards, and waits."""
        what, *words = work
        asked = {self._ask(client, store, worker, what, own, *words): worker for worker, own in of.items()}
        for _ in self._heard(asked, self._patience_s):
            pass

    def _ask(self, client: Client, store: Store, worker: str, work: Callable[..., Any], *words: Any) -> Future:
        # Where that worker has died, the cluster itself finds another.
        words = (_url(store), self._config, self._background, work, *words)
        return client.submit(_do, *words, workers=[worker], allow_other_workers=True, pure=False)

    def _heard(self, left: dict[Future, str], patience_s: float) -> Iterator[tuple[str, Any]]:
        """Who answered, and what, as it comes (then workers let go of it); what goes wrong with one is logged."""
        try:
            for future in as_completed(list(left), timeout=patience_s):
                worker = left.pop(future)
                if future.status == "finished":
                    yield future.result()
                else:
                    log.warning("a worker failed, going on", worker=worker, error=str(future.exception()))
        except TimeoutError:
            self._silent |= set(left.values())
            log.warning("workers do not answer, others take their shards", workers=sorted(set(left.values())))
            for future in left:
                future.cancel()


# What follows runs in the workers.

_HOSTS: dict[str, ShardHost] = {}
_ONE_AT_A_TIME = Lock()


def _url(store: Store) -> str:
    return store.engine.url.render_as_string(hide_password=False)


def _do(url: str, config: PredictorConfig, background: bool, work: Callable[..., Any], *words: Any) -> Any:
    """A method of the host of this process, made when it is first needed."""
    with _ONE_AT_A_TIME:
        host = _HOSTS.get(url)
        if host is None or host.config != config:
            if host is not None:
                host.close()
            use_one_thread()
            give_back_large_arrays()
            # The publisher has made the database: a file that is not here is another machine's.
            host = _HOSTS[url] = ShardHost(open_store(url, create=False), config, background)
        return get_worker().address, work(host, *words)


class ColumnsOfSubjects(tuple[Subject, ...]):
    """Subjects of one kind that travel as two columns of names: that takes half of the time."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """See pickle; what arrives is a plain tuple."""
        return _subjects, (self[0].kind.value, [one.a for one in self], [one.b for one in self])


def _subjects(kind: str, a: list[str], b: list[str]) -> tuple[Subject, ...]:
    return tuple(map(Subject, repeat(SubjectKind(kind)), a, b))


def _turn(host: ShardHost, task: ShardTask) -> list[ShardAnswer]:
    return [answer._replace(issues=tuple(map(_light, answer.issues))) for answer in host.turn(task)]


def _light(issue: TierTurn) -> TierTurn:
    if issue.batch is None:
        return issue
    return replace(issue, batch=replace(issue.batch, subjects=ColumnsOfSubjects(issue.batch.subjects)))


def _held(url: str) -> dict[int, Seconds]:
    return dict(_HOSTS[url].reached) if url in _HOSTS else {}


def _forget() -> None:
    for host in _HOSTS.values():
        host.close()
    _HOSTS.clear()
