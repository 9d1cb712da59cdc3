"""`forepath whatif`: from a recording to a table, a document, a timeline and a page; what is wrong is one line."""

import csv
import gzip
import json
from pathlib import Path

import pytest
import tomli_w
from lab_on_paper import Forepath

from forepath.settings import Settings

SECONDS = 24
KEYS = {
    "cost", "short_core_s", "idle_core_s", "short_bytes", "short_link_s", "short_bandwidth_s", "short_cpu_s",
    "offered_bytes", "delivered_bytes", "p95_latency_s", "competitors_delivered_share", "actions",
}  # fmt: skip


@pytest.fixture
def recording(settings: Settings, tmp_path: Path) -> Path:
    """shop's client fills its link twice over from second 15 on; batch's machine wants a core and has a quarter."""
    path = tmp_path / "load.csv"
    rows = [f"{100 + t},{3e6 if t >= 15 else 1e4},{5 if t >= 15 else 1},0.9" for t in range(SECONDS)]
    path.write_text("\n".join(["t,c1>shop,c1>shop:connections,vm:shop1:cores", *rows]) + "\n", encoding="utf-8")
    return path


def test_a_recording_becomes_a_document_a_timeline_and_a_page(
    forepath: Forepath, recording: Path, settings: Settings
) -> None:
    words = ("--policies", "reactive,static", "--timeline", "t.csv.gz", "--html", "p.html", "--json", "o.json")
    assert forepath("whatif", recording, *words).code == 0
    found = json.loads(Path("o.json").read_text(encoding="utf-8"))
    assert found["recording"] == str(recording) and found["settings"] == "forepath.toml"
    assert (found["seconds"], found["warm_up_s"]) == (12, 12)
    assert list(found["policies"]) == ["static", "reactive"]
    assert all(set(figures) >= KEYS for figures in found["policies"].values())
    assert found["gain_share"] is None and found["interval"] is None
    assert 0 < found["bound"]["cost"] <= min(figures["cost"] for figures in found["policies"].values())
    static = found["policies"]["static"]
    assert static["actions"] == {} and static["short_cpu_s"] == 12 and static["short_bandwidth_s"] == 9
    assert static["offered_bytes"] == pytest.approx(9 * 3e6 + 3e4)
    with gzip.open("t.csv.gz", "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["policy", "t", "kind", "name", "need", "allowed", "used", "where"]
    assert {row["t"] for row in rows} == {str(t) for t in range(12, 24)}
    pair = next(row for row in rows if row["kind"] == "pair" and row["t"] == "20")
    assert (pair["name"], float(pair["need"]), pair["where"]) == ("c1>shop", 3e6, "shop1")
    shop = [row for row in rows if row["kind"] == "vm" and row["name"] == "shop1" and row["policy"] == "static"]
    lacking = sum(max(0.0, float(row["need"]) - float(row["allowed"])) for row in shop)
    assert static["short_core_s"] == pytest.approx(lacking)
    links = {f"{link.a}>{link.b}" for link in settings.link} | {f"{link.b}>{link.a}" for link in settings.link}
    assert {row["name"] for row in rows if row["kind"] == "link"} == links
    assert {row["name"] for row in rows if row["kind"] == "host"} == {host.name for host in settings.host}
    page = Path("p.html").read_text(encoding="utf-8")
    assert "<svg" in page and "Policies side by side" in page and "http" not in page.replace("http://www.w3.org", "")


def test_people_see_a_table_that_fits(forepath: Forepath, recording: Path) -> None:
    said = forepath("whatif", recording, "--policies", "static", "--from", "-10", "--warm-up", "4")
    assert said.code == 0, said
    assert (
        "load.csv: 6 s judged after 4 s" in said.out and "bound" in said.out and "No verdict without both" in said.out
    )
    assert max(len(line) for line in said.out.splitlines()) <= 80


def test_scenarios_are_named(forepath: Forepath) -> None:
    said = forepath("whatif", "--list")
    assert said.code == 0 and "recurring_surge" in said.out
    assert len(json.loads(forepath("whatif", "--list", "--json", "-").out)["scenarios"]) >= 12


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((), 2, "a recording or --scenario"),
        (("load.csv", "--scenario", "calm"), 2, "one of them"),
        (("load.csv", "--policies", "lucky"), 2, "static,reactive,predictive,oracle"),
        (("load.csv", "--html", "/nowhere/page.html"), 2, "cannot be written"),
        (("load.csv", "--warm-up", "24"), 1, "nothing is left to judge"),
        (("load.csv", "--from", "900"), 1, "no row lies within"),
        (("load.csv", "-c", "missing.toml"), 3, "No such file"),
        (("missing.csv",), 1, "No such file"),
        (("--scenario", "doomsday"), 2, "there is none of that name"),
        (("wrong.csv",), 1, "'moon' is no declared node"),
        (("lonely.csv", "-c", "lonely.toml"), 3, "nothing leads from c9 to"),
        (("load.csv", "-c", "bare.toml"), 3, "vm: nothing is declared"),
    ],
)
def test_what_is_wrong_is_told(
    forepath: Forepath, settings: Settings, recording: Path, words: tuple[str, ...], says: str, code: int
) -> None:
    Path("wrong.csv").write_text("t,moon>shop\n0,1\n1,1\n", encoding="utf-8")
    Path("lonely.csv").write_text("t,c9>shop\n0,1\n1,1\n", encoding="utf-8")
    lonely = settings.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    lonely["node"].append({"name": "c9", "kind": "client"})
    Path("lonely.toml").write_text(tomli_w.dumps(lonely), encoding="utf-8")
    bare = settings.model_dump(mode="json", exclude_defaults=True, exclude_none=True) | {"vm": []}
    Path("bare.toml").write_text(tomli_w.dumps(bare), encoding="utf-8")
    said = forepath("whatif", *words)
    assert said.code == code, said
    assert says in said.err + said.out
    assert code == 2 or said.err.startswith("forepath: ")
