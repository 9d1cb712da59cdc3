"""Has shards forecast by the workers of a Dask cluster: the one file that knows Dask."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from math import ceil, inf, nextafter
from typing import Any

import dask
import structlog
from distributed import Client, Future, LocalCluster, as_completed, get_worker

from cpdb import Seconds, Store, StoreUnreachable, open_store
from predictor.config import PredictorConfig
from predictor.service.shards import NEVER, ShardAnswer, ShardHost, ShardTask
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

    Who has more than an even share gives shards up to workers that are `settled`. Raises ValueError without workers.
    """
    held: dict[str, list[int]] = {worker: [] for worker in sorted(workers)}
    homeless: list[int] = []
    for shard in range(count):
        held.get(before.get(shard, ""), homeless).append(shard)
    for shard in homeless:
        min(held.values(), key=len).append(shard)
    share = ceil(count / len(held))
    for worker in held.keys() & set(settled):
        while len(held[worker]) < count // len(held) and (most := max(held.values(), key=len)) and len(most) > share:
            held[worker].append(most.pop())
    return {shard: worker for worker, own in held.items() for shard in own}


class DaskCrew:
    """Workers of a Dask cluster: that of a scheduler, or processes of this machine that end with this one.

    A worker that dies takes nothing with it but what was learnt since it was kept last: the cluster gives its shards to
    another within the same turn. Messages are as safe as the cluster makes them (tls://); whoever may talk to a
    scheduler may run anything on its workers.
    """

    def __init__(self, config: PredictorConfig) -> None:
        self._config = config
        self._patience_s = max(PATIENCE_S, PATIENCE_CYCLES * config.cycle_s)
        self._cluster: LocalCluster | None = None
        self.client: Client | None = None
        self._done = dict.fromkeys(range(config.shard_count), NEVER)
        self.placed: dict[int, str] = {}
        self._joined: dict[str, Seconds] = {}
        self._silent: set[str] = set()

    def turn(self, store: Store, now: Seconds) -> list[ShardAnswer]:
        """See ShardCrew. Shards of workers that do not answer are left out; raises StoreUnreachable without any."""
        client = self._connected(store, now)
        self._place(client, store, now)
        first = NEVER in self._done.values()
        up_to = store.facts.newest_batch()
        tasks = {
            worker: ShardTask(now, up_to, {shard: self._done[shard] for shard in own})
            for worker, own in self._by_worker().items()
        }
        asked = {self._ask(client, store, worker, _turn, task): worker for worker, task in tasks.items()}
        answers = []
        for found in self._heard(asked, FIRST_PATIENCE_S if first else self._patience_s):
            answers += found
        if not answers:
            raise StoreUnreachable("no worker forecasts: none answers")
        for answer in answers:
            self._done[answer.shard], self.placed[answer.shard] = answer.now, answer.worker
        return sorted(answers, key=lambda answer: answer.shard)

    def follow(self, store: Store, now: Seconds) -> None:
        """See ShardCrew: workers of our own are started, others know already."""
        self._connected(store, now)

    def keep(self, store: Store, now: Seconds) -> None:
        """See ShardCrew."""
        client = self._connected(store, now)
        asked = {self._ask(client, store, worker, _keep, own, now): worker for worker, own in self._by_worker().items()}
        for _ in self._heard(asked, self._patience_s):
            pass

    def renew(self) -> None:
        """See ShardCrew."""
        self._done = dict.fromkeys(self._done, NEVER)
        self.placed = {}
        if self.client is not None:
            self.client.run(_forget, on_error="ignore")

    def close(self) -> None:
        """See ShardCrew."""
        if self.client is not None:
            self.renew()
            self.client.close()
        if self._cluster is not None:
            self._cluster.close()
        self.client = self._cluster = None

    def _connected(self, store: Store, now: Seconds) -> Client:
        if self.client is None:
            wanted = self._config.shards
            if wanted.scheduler is None:
                dask.config.set(OF_OUR_OWN_CLUSTER)
                self._cluster = LocalCluster(
                    n_workers=wanted.workers, threads_per_worker=1, host="127.0.0.1", dashboard_address=None,
                    memory_limit=None,
                )  # fmt: skip
            self.client = Client(self._cluster or wanted.scheduler, direct_to_workers=True)
            self._take_over(self.client, store, now)
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
        workers = set(client.scheduler_info(n_workers=-1)["workers"]) - self._silent
        if not workers:
            self._silent.clear()
            raise StoreUnreachable("no worker forecasts: the cluster has none")
        begun = bool(self._joined)
        self._joined = {worker: self._joined.get(worker, now if begun else NEVER) for worker in workers}
        settled = [worker for worker, at in self._joined.items() if now - at >= SETTLED_S]
        placed = place_shards(self.placed, workers, settled, len(self._done))
        lost = sorted(shard for shard, worker in self.placed.items() if worker not in workers)
        if lost:
            log.warning("shards go to other workers: theirs has gone", shards=lost, workers=len(workers))
        moved = [shard for shard, worker in self.placed.items() if worker in workers and placed[shard] != worker]
        asked = {
            self._ask(client, store, worker, _release, own, now): worker
            for worker, own in self._by_worker(moved).items()
        }
        for _ in self._heard(asked, self._patience_s):
            pass
        self.placed = placed

    def _by_worker(self, shards: Collection[int] | None = None) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for shard, worker in sorted(self.placed.items()):
            if shards is None or shard in shards:
                found.setdefault(worker, []).append(shard)
        return found

    def _ask(self, client: Client, store: Store, worker: str, work: Callable[..., Any], *words: Any) -> Future:
        # Where that worker has died, the cluster itself finds another.
        return client.submit(
            work, _url(store), self._config, *words, workers=[worker], allow_other_workers=True, pure=False
        )

    def _heard(self, asked: Mapping[Future, str], patience_s: float) -> Iterator[Any]:
        """Answers as they come; what goes wrong with one is logged."""
        left = dict(asked)
        try:
            for future in as_completed(list(asked), timeout=patience_s):
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


def _url(store: Store) -> str:
    return store.engine.url.render_as_string(hide_password=False)


def _host(url: str, config: PredictorConfig) -> ShardHost:
    host = _HOSTS.get(url)
    if host is None or host.config != config:
        if host is not None:
            host.close()
        use_one_thread()
        give_back_large_arrays()
        # Made by the publisher: a file that is not here is another machine's.
        host = _HOSTS[url] = ShardHost(open_store(url, create=False), config)
    return host


def _turn(url: str, config: PredictorConfig, task: ShardTask) -> list[ShardAnswer]:
    worker = get_worker().address
    return [answer._replace(worker=worker) for answer in _host(url, config).turn(task)]


def _keep(url: str, config: PredictorConfig, shards: Sequence[int], now: Seconds) -> None:
    _host(url, config).keep(shards, now)


def _release(url: str, config: PredictorConfig, shards: Sequence[int], now: Seconds) -> None:
    host = _host(url, config)
    host.keep(shards, now)
    host.drop(shards)


def _held(url: str) -> dict[int, Seconds]:
    return dict(_HOSTS[url].reached) if url in _HOSTS else {}


def _forget() -> None:
    for host in _HOSTS.values():
        host.close()
    _HOSTS.clear()
