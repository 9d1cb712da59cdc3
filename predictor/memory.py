"""Carries what was learnt over a restart: arrays in one block of bytes that nothing but numbers can be read from."""

import io
import json
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np
import structlog

from predictor.view import Floats

log = structlog.get_logger(__name__)

VERSION = 1
# More than any honest state holds; a block that unpacks to more is not ours.
MOST_BYTES = 1 << 30
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
        wanted = json.loads(json.dumps({"version": VERSION, "kind": kind, **about}))
    except (ValueError, KeyError, OSError, zlib.error, zipfile.BadZipFile) as error:
        log.warning("what was learnt cannot be read, beginning anew", kind=kind, error=str(error))
        return None
    if header != wanted:
        log.info("what was learnt belongs to other settings, beginning anew", kind=kind)
        return None
    return arrays


def _read(blob: bytes) -> dict[str, Floats]:
    unpacker = zlib.decompressobj()
    content = unpacker.decompress(blob, MOST_BYTES)
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
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise ValueError("names: not a list of strings")
    return values


def section(arrays: Mapping[str, Floats], prefix: str) -> dict[str, Floats]:
    """The arrays whose names begin with `prefix/`, without it."""
    return {name[len(prefix) + 1 :]: value for name, value in arrays.items() if name.startswith(prefix + "/")}


def prefixed(prefix: str, arrays: Mapping[str, Floats]) -> dict[str, Floats]:
    """The same arrays under names that begin with `prefix/`."""
    return {f"{prefix}/{name}": value for name, value in arrays.items()}
