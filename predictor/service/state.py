"""Keeps what a predictor has learnt in the database, so that a restart goes on where it was."""

import io
import json
import threading
import zipfile
import zlib
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
import structlog

from cpdb import Store, StoreError, Subject, SubjectKind
from predictor.config import PredictorConfig
from predictor.data.sources import Source
from predictor.data.view import Floats
from predictor.ensemble.forecaster import Forecaster
from predictor.models import Model
from predictor.trust.tracker import TrustTracker, prefixed, section

log = structlog.get_logger(__name__)

KEEP_EVERY_S = 60.0
# With more series than this, what is known of single ones as to models is left out: it would be a hundred megabytes.
MAX_SERIES = 20_000
PER_SERIES = ("loss", "against", "count", "at")

# Of the arrays' names and meaning: raise it when one of them changes, older blocks are then left alone.
VERSION = 3
# More than any honest state holds; a block that unpacks to more is not ours.
MAX_BYTES = 1 << 30
HEADER = "about"


def pack(kind: str, about: Mapping[str, object], arrays: Mapping[str, Floats]) -> bytes:
    """One block: `about` (JSON: what the arrays belong to) and arrays (name -> any shape), compressed.

    Floats are kept as float32. The format is NumPy's .npz without pickles.
    """
    header = json.dumps({"version": VERSION, "kind": kind, **about})
    small = {name: np.float32(value) if value.dtype == np.float64 else value for name, value in arrays.items()}
    file = io.BytesIO()
    np.savez(file, **{HEADER: np.frombuffer(header.encode(), dtype=np.uint8)}, **small)  # type: ignore[arg-type]
    return zlib.compress(file.getvalue(), 1)


def unpack(blob: bytes | None, kind: str, about: Mapping[str, object]) -> dict[str, Floats] | None:
    """The arrays of a block, or None (with one line in the log) when it is broken or belongs to something else."""
    if blob is None:
        return None
    try:
        arrays = _read(blob)
        header = json.loads(arrays.pop(HEADER).tobytes())
        version = header["version"]
        wanted = json.loads(json.dumps({"version": VERSION, "kind": kind, **about}))
    except (ValueError, KeyError, TypeError, OSError, zlib.error, zipfile.BadZipFile) as error:
        log.warning("what was learnt cannot be read, beginning anew", kind=kind, error=str(error))
        return None
    if header != wanted:
        why = "format" if version != VERSION else "settings"
        log.info(f"what was learnt belongs to another {why}, beginning anew", kind=kind)
        return None
    return arrays


def _read(blob: bytes) -> dict[str, Floats]:
    unpacker = zlib.decompressobj()
    content = unpacker.decompress(blob, MAX_BYTES)
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise ValueError("incomplete or too large")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def text(values: list[str]) -> Floats:
    """Names as an array of bytes, to travel with the others."""
    return np.frombuffer(json.dumps(values).encode(), dtype=np.uint8)


def names(array: Floats) -> list[str]:
    """Names from what `text` made; raises ValueError when it is something else."""
    values = json.loads(array.tobytes())
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("names: not a list of strings")
    return values


@runtime_checkable
class Persistent(Protocol):
    """A model whose parameters survive a restart: plain arrays, and back."""

    def state(self) -> dict[str, Floats]:
        """What was learnt; may be empty."""

    def restore(self, state: Mapping[str, Floats]) -> None:
        """Takes over what `state` gave. Raises KeyError or ValueError, changing nothing, when it does not fit."""


class Learner(Protocol):
    """A predictor, as far as what it has learnt goes."""

    config: PredictorConfig
    source: Source
    forecaster: Forecaster
    tracker: TrustTracker

    @property
    def models(self) -> Mapping[str, Model]:
        """The models at work, by name."""


class StateKeeper:
    """Writes in a thread of its own, so that no cycle waits; what does not fit what it finds is left alone."""

    def __init__(self, tier: str) -> None:
        self.key = f"predictor/{tier}"
        self._kept_at: float | None = None
        self._thread: threading.Thread | None = None

    def recall(self, store: Store, predictor: Learner) -> bool:
        """Gives a predictor that has not begun yet what another one knew; False when there was nothing of use."""
        arrays = unpack(store.forecasts.recall(self.key), self.key, about(predictor))
        if arrays is None:
            return False
        try:
            subjects = [subject_of(name) for name in names(arrays["subjects"])]
            _give(predictor, arrays, len(subjects))
            predictor.source.join(subjects)
        except (KeyError, ValueError) as error:
            log.warning("what was learnt does not fit, beginning anew", tier=predictor.config.tier, error=str(error))
            return False
        log.info("going on with what was learnt", tier=predictor.config.tier, series=len(subjects))
        return True

    def keep(self, store: Store, predictor: Learner, now: float, wait: bool = False) -> None:
        """Writes now and then; with `wait` at once, and returns when it is written."""
        if self._kept_at is None:
            self._kept_at = now
        if self._thread is not None and self._thread.is_alive():
            if not wait:
                return
            self._thread.join()
        if not wait and now - self._kept_at < KEEP_EVERY_S:
            return
        self._kept_at = now
        what = {name: value.copy() for name, value in learnt(predictor).items()}
        self._thread = threading.Thread(target=self._write, args=(store, about(predictor), what, now), daemon=True)
        self._thread.start()
        if wait:
            self._thread.join()

    def _write(self, store: Store, head: Mapping[str, object], what: Mapping[str, Floats], now: float) -> None:
        try:
            store.forecasts.remember(self.key, pack(self.key, head, what), now)
        except StoreError as error:
            log.warning("what was learnt could not be kept, trying again later", key=self.key, error=str(error))


def about(predictor: Learner) -> dict[str, object]:
    """What learnt numbers belong to: another value of any of these, and they mean something else."""
    config = predictor.config
    return {
        "step_s": config.step_s,
        "horizons_s": list(config.horizons_s),
        "levels": list(config.levels),
        "models": list(predictor.models),
        "quantities": [quantity.value for quantity in predictor.source.quantities],
    }


def learnt(predictor: Learner) -> dict[str, Floats]:
    """Everything that is worth keeping, as arrays of the same series in the same order."""
    composition = predictor.forecaster.composition
    series = composition.scoreboard.series
    scoreboard = composition.scoreboard.state()
    if series > MAX_SERIES:
        scoreboard |= {name: scoreboard[name][:, :0] if name != "at" else scoreboard[name][:0] for name in PER_SERIES}
    found = {"subjects": text([name_of(subject) for subject in predictor.source.subjects[:series]])}
    found |= prefixed("scoreboard", scoreboard) | prefixed("calibration", composition.calibration.state())
    found |= prefixed("tracker", predictor.tracker.state())
    for name, model in predictor.models.items():
        if isinstance(model, Persistent):
            found |= prefixed(f"model/{name}", model.state())
    return found


def _give(predictor: Learner, arrays: Mapping[str, Floats], series: int) -> None:
    composition = predictor.forecaster.composition
    composition.scoreboard.restore(section(arrays, "scoreboard"))
    composition.calibration.restore(section(arrays, "calibration"))
    composition.resize(series)
    predictor.tracker.restore(section(arrays, "tracker"))
    for name, model in predictor.models.items():
        state = section(arrays, f"model/{name}")
        if isinstance(model, Persistent) and state:
            model.restore(state)


def name_of(subject: Subject) -> str:
    """A subject as one string."""
    return "\t".join((subject.kind.value, subject.a, subject.b))


def subject_of(name: str) -> Subject:
    """The subject that `name_of` made a string of; raises ValueError when it is none."""
    kind, a, b = name.split("\t")
    return Subject(SubjectKind(kind), a, b)
