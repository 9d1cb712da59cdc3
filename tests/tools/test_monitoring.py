"""The page, the dashboard and the rules of Prometheus follow from the code, and name nothing that is not there."""

import json
import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from pydantic import ConfigDict, TypeAdapter, ValidationError

from tools.monitoring import (
    CATALOGUE,
    COLUMNS,
    DASHBOARD,
    NAME,
    PAGE,
    ROOT,
    dashboard,
    dashboard_text,
    expressions,
    page_text,
)

RULES = ROOT / "deploy" / "prometheus"
KNOWN = {
    f"{one.full_name}{ending}"
    for metrics in CATALOGUE.values()
    for one in metrics
    for ending in (("_bucket", "_sum", "_count") if one.kind == "histogram" else ("",))
}


def names(text: str) -> set[str]:
    return set(NAME.findall(text))


def test_the_page_and_the_dashboard_are_current() -> None:
    again = "run python -m tools.monitoring"
    assert PAGE.read_text(encoding="utf-8") == page_text(PAGE.read_text(encoding="utf-8")), again
    assert DASHBOARD.read_text(encoding="utf-8") == dashboard_text(), again


def test_what_the_dashboard_and_the_rules_ask_exists() -> None:
    asked = set().union(*map(names, expressions()))
    assert asked - KNOWN == set() and len(asked) > 30
    ruled = set().union(*(names(file.read_text(encoding="utf-8")) for file in RULES.glob("*.yaml")))
    assert ruled - KNOWN == set() and len(ruled) > 10


def test_metrics_are_named_as_prometheus_wants_it() -> None:
    for one in (one for metrics in CATALOGUE.values() for one in metrics):
        assert re.fullmatch(r"[a-z][a-z_]+[a-z]", one.name) and one.help.endswith("."), one.name
        assert one.kind != "histogram" or one.name.endswith("_seconds"), one.name
        assert not re.search(r"_(ms|millis\w*|minutes|kib|mib|mbit\w*|percent)(_|$)", one.name), one.name


def unknown(made: Any, read: Any, path: str = "") -> Iterator[str]:
    """What of it is not read again."""
    if isinstance(made, dict):
        for name, value in made.items():
            yield from unknown(value, read.get(name) if isinstance(read, dict) else None, f"{path}.{name}")
    elif isinstance(made, list):
        for at, value in enumerate(made):
            yield from unknown(value, read[at] if isinstance(read, list) and at < len(read) else None, f"{path}[{at}]")
    elif made != read:
        yield path


def mistyped(read: Any, path: str = "") -> Iterator[str]:
    """Fields of Grafana's models that hold something else than they say."""
    if isinstance(read, list):
        for at, value in enumerate(read):
            yield from mistyped(value, f"{path}[{at}]")
    elif type(read).__module__.startswith("grafana_foundation_sdk.models"):
        for name, hint in get_type_hints(type(read)).items():
            value = getattr(read, name)
            try:
                TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
            except ValidationError:
                yield f"{path}.{name}"
            yield from mistyped(value, f"{path}.{name}")


def test_the_dashboard_keeps_to_grafanas_schema() -> None:
    """By the models that Grafana generates from its schema: they know all that is there, and all has its type."""
    register_default_plugins()

    def problems(made: Any) -> list[str]:
        read = Dashboard.from_json(made)
        return [*unknown(made, json.loads(JSONEncoder().encode(read))), *mistyped(read)]

    made = dashboard()
    assert problems(made) == []
    assert problems(made | {"panles": [1]}) == [".panles[0]"]
    assert problems(made | {"tags": "forepath"}) != [] and problems(made | {"style": "grey"}) != []


def test_panels_have_numbers_of_their_own_and_do_not_lie_on_one_another() -> None:
    panels = dashboard()["panels"]
    assert len({one["id"] for one in panels}) == len(panels)
    places = [(one["gridPos"]["y"], one["gridPos"]["x"], one["gridPos"]["w"]) for one in panels]
    assert all(x + width <= COLUMNS for _, x, width in places)
    assert all(
        (y, x + width) <= (below, 24 if below > y else beside) for (y, x, width), (below, beside, _) in pairwise(places)
    )


@pytest.mark.parametrize(
    "words",
    [("check", "rules", "rules.yaml"), ("test", "rules", "rules_test.yaml"), ("check", "config", "prometheus.yaml")],
)
def test_prometheus_takes_the_rules(words: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *words], cwd=Path(RULES), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
