"""What was learnt comes back as it was, or not at all."""

import io
import json
import zlib

import numpy as np
import pytest

from predictor.service.state import VERSION, names, pack, prefixed, section, text, unpack

ABOUT = {"horizons": [5, 15], "models": ["ewma"]}


def test_there_and_back():
    arrays = {"a": np.arange(6.0).reshape(2, 3), "pairs": text(["c1>10.0.0.1", "ü"]), "n": np.arange(3)}
    back = unpack(pack("fast", ABOUT, arrays), "fast", ABOUT)
    assert back is not None
    assert (back["a"] == arrays["a"]).all() and back["n"].dtype == np.int64
    assert names(back["pairs"]) == ["c1>10.0.0.1", "ü"]


def test_sections_are_told_apart():
    both = {**prefixed("one", {"x": np.ones(1)}), **prefixed("two", {"x": np.zeros(1), "y": np.ones(1)})}
    assert section(both, "one")["x"] == 1 and sorted(section(both, "two")) == ["x", "y"]


def pickled():
    file = io.BytesIO()
    np.savez(file, about=np.array([{"version": 1}], dtype=object))
    return zlib.compress(file.getvalue())


def of_version(version: int) -> bytes:
    header = json.dumps({"version": version, "kind": "fast", **ABOUT}).encode()
    file = io.BytesIO()
    np.savez(file, about=np.frombuffer(header, dtype=np.uint8), a=np.ones(3, dtype=np.float32))
    return zlib.compress(file.getvalue())


def test_only_the_present_format_is_read():
    present = unpack(of_version(VERSION), "fast", ABOUT)
    assert present is not None and present["a"].tolist() == [1, 1, 1]
    assert [unpack(of_version(version), "fast", ABOUT) for version in (VERSION - 1, VERSION + 1)] == [None, None]


@pytest.mark.parametrize(
    "blob",
    [
        None,
        b"",
        b"nonsense",
        zlib.compress(b"nonsense"),
        pack("slow", ABOUT, {}),
        pack("fast", ABOUT | {"models": ["naive"]}, {}),
        pack("fast", ABOUT, {"a": np.ones(1000)})[:-20],
        pickled(),
    ],
)
def test_what_does_not_fit_is_left_alone(blob):
    assert unpack(blob, "fast", ABOUT) is None
