"""Keeps the database small while `forepath run` runs: a thread beside the supervisor, which has little else to do."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from cpdb import ForepathError, Policy, Store, open_store
from forepath.settings import Settings

log = structlog.get_logger(__name__)

EVERY_S = 5.0
BUDGET_S = 2.0
HOUR_S, DAY_S = 3600.0, 86_400.0


def policy(settings: Settings) -> Policy:
    """How long what is remembered, as the settings say."""
    section = settings.database
    return Policy(
        second_s=section.keep_1s_hours * HOUR_S,
        ten_seconds_s=section.keep_10s_hours * HOUR_S,
        minute_s=section.keep_1min_days * DAY_S,
        forecasts_s=section.keep_forecasts_s,
        scores_s=section.keep_scores_hours * HOUR_S,
        journal_s=section.keep_journal_days * DAY_S,
    )


@contextmanager
def keeping(settings: Settings, stop: threading.Event) -> Iterator[None]:
    """Rolls up and forgets every few seconds until the block ends, which sets `stop`."""
    store = open_store(settings.database.url)
    keeper = threading.Thread(target=_keep, args=(store, policy(settings), stop), name="keeper")
    keeper.start()
    try:
        yield
    finally:
        stop.set()
        keeper.join()
        store.close()


def _keep(store: Store, rules: Policy, stop: threading.Event) -> None:
    pause_s, failed = EVERY_S, 0
    while not stop.wait(pause_s):
        try:
            done = store.retain(time.time(), rules, BUDGET_S)
            pause_s = 0.1 if done.left else EVERY_S
        except ForepathError as error:
            log.warning("roll-up put off", reason=str(error))
            pause_s = EVERY_S
        except Exception:
            failed += 1
            log.exception("roll-up failed", failed=failed)
            pause_s = EVERY_S
