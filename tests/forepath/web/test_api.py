"""The API tells what the commands tell, bounds what it gives, and lets nobody change anything without the token."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Site, serve
from lab_on_paper import BACKUP_BYTES, SHOP

from cpdb import AuditRecord, Pause, open_store
from forepath.web.api import MOST_ROWS, RateLimit, bounded
from forepath.web.changes import CHANGES

TOKEN = "a-long-word-that-nobody-guesses"


@pytest.fixture(scope="module")
def guarded_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "token").write_text(TOKEN + "\n", encoding="utf-8")
    yield from serve(folder, True, '\n[web]\ntoken_file = "token"\nrequests_per_s = 1000.0\n')
    assert TOKEN not in (folder / "web.log").read_text()


def call(url: str, body: dict[str, Any] | None = None, token: str | None = None) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=20) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read() or b"{}")


def api(site: Site, path: str) -> tuple[int, Any]:
    return call(site.address(f"/api/v1{path}"))


def test_every_question_of_the_page_has_an_answer(guarded_site: Site) -> None:
    status, pairs = api(guarded_site, "/pairs?limit=1")
    assert status == 200 and pairs["total"] == 2 and len(pairs["pairs"]) == 1
    assert pairs["pairs"][0]["pair"] == {"source": "c4", "virtual_ip": "10.77.0.103"}
    assert pairs["pairs"][0]["bytes_per_s"] == pytest.approx(BACKUP_BYTES)
    asked = ["/status", "/topology?ahead=15", f"/pair?source=c1&virtual_ip={SHOP}", "/link?from=leaf2&to=hA"]
    asked += ["/machines", "/machine?name=hA", "/services", "/service?name=shop", "/journal", "/action?number=3"]
    for path in [*asked, "/accuracy", "/health"]:
        status, told = api(guarded_site, path)
        assert status == 200 and told["now"] == pytest.approx(guarded_site.filled_at, abs=0.01), path


def test_openapi_names_every_path_and_its_parameters(guarded_site: Site) -> None:
    status, told = call(f"{guarded_site.base}/api/v1/openapi.json")
    assert status == 200 and {"/api/v1/topology", *(f"/api/v1/{one}" for one in CHANGES)} <= told["paths"].keys()
    names = [one["name"] for one in told["paths"]["/api/v1/journal"]["get"]["parameters"]]
    assert names == ["since", "kind", "outcome", "limit", "offset", "at"]


@pytest.mark.parametrize(
    "path,status,words",
    [
        ("/pairs?limit=1000000", 400, "from 0 to 500"),
        ("/pairs?hue=red", 400, "known are at, limit, offset"),
        ("/journal?outcome=good", 400, "write one of pending"),
        ("/machine?name=nobody", 404, "nobody is known"),
    ],
)
def test_wrong_questions_are_answered_in_a_line(guarded_site: Site, path: str, status: int, words: str) -> None:
    code, told = api(guarded_site, path)
    assert code == status and words in told["error"]


def test_nothing_is_changed_without_a_token(filled_site: Site, guarded_site: Site) -> None:
    before = written(guarded_site)
    code, told = call(f"{filled_site.base}/api/v1/pause", {"who": "anna"}, TOKEN)
    assert code == 403 and "no token is set" in told["error"]
    for wrong in (None, "", TOKEN[:-1]):
        code, told = call(f"{guarded_site.base}/api/v1/pause", {"who": "anna"}, wrong)
        assert code == 403 and "wrong or missing" in told["error"]
    assert written(guarded_site) == before and written(filled_site) == ([], None)


def written(site: Site) -> tuple[list[AuditRecord], Pause | None]:
    """What was asked for through the API, newest first, and the pause that stands."""
    store = open_store(f"sqlite:///{site.database}", create=False)
    found = store.journal.audits(0.0), store.pauses.in_force(time.time())
    store.close()
    return found


def test_changes_are_made_as_commands_make_them_and_written_down(guarded_site: Site) -> None:
    def change(what: str, **words: Any) -> tuple[int, Any]:
        return call(f"{guarded_site.base}/api/v1/{what}", {"who": "anna@ops", **words}, TOKEN)

    assert change("pause", reason="changing cables", for_s=600)[0] == 200
    code, asked = change("request", source="c1", virtual_ip="shop", bytes_per_s=1e5, for_s=60, reason="a call")
    assert code == 200
    assert change("request", source="nobody", virtual_ip="shop", bytes_per_s=1, for_s=60, reason="x")[0] == 409
    assert change("request", virtual_ip="shop", bytes_per_s=-1, for_s=60, reason="x")[0] == 400
    assert change("withdraw", id=asked["id"])[0] == 200
    assert change("resume")[1]["resumed"]["reason"] == "changing cables"
    audits = [(one.what, one.who, one.origin) for one in written(guarded_site)[0] if one.who == "anna@ops"]
    whence = ("anna@ops", "127.0.0.1")
    assert audits == [(what, *whence) for what in ("resume", "withdraw", "request", "request", "pause")]


def test_drains_and_plans_have_the_effects_of_the_commands(guarded_site: Site) -> None:
    def change(what: str, **words: Any) -> tuple[int, Any]:
        return call(f"{guarded_site.base}/api/v1/{what}", {"who": "bert@ops", **words}, TOKEN)

    store = open_store(f"sqlite:///{guarded_site.database}", create=False)
    shop = {"virtual_ip": "shop"}
    assert change("drain", **shop, name="shop2", reason="new kernel")[1]["change"]["standing"] == "draining"
    (drained,) = store.inventory.changes()
    assert (drained.name, drained.owner, drained.reason) == ("shop2", "bert@ops", "new kernel")
    code, told = change("drain", **shop, name="shop1")
    assert code == 409 and "only destination of shop" in told["error"]
    assert change("drain", **shop, name="shop9")[0] == change("undrain", **shop, name="shop1")[0] == 409
    assert change("undrain", **shop, name="shop2")[1]["change"]["standing"] == "serving"
    code, made = change("plan")
    assert code == 200 and made["plan"]["state"] == "open"
    number = made["plan"]["id"]
    steps = [one["action"]["kind"] for one in made["plan"]["body"]["steps"]]
    assert store.journal.plan(number) is not None
    code, done = change("apply", plan=number)
    assert code == 200 and done["plan"] == number and [one["kind"] for one in done["actions"]] == steps
    applied = store.journal.plan(number)
    assert applied is not None and applied.state == "applied"
    for wrong, words in ((number, "is applied already"), (number + 1, "there is none")):
        code, told = change("apply", plan=wrong)
        assert code == 409 and words in told["error"]
    asked = [(one.what, one.detail.get("plan")) for one in store.journal.audits(0.0) if one.who == "bert@ops"]
    assert asked[:4] == [("apply", number + 1), ("apply", number), ("apply", number), ("plan", None)]
    assert [what for what, _ in asked[4:]] == ["undrain", "undrain", "drain", "drain", "drain"]
    store.close()


def test_a_loopback_page_answers_to_no_other_name(guarded_site: Site) -> None:
    request = urllib.request.Request(f"{guarded_site.base}/api/v1/status", headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=20)
    with error.value:
        assert error.value.code == 400


def test_the_rate_limit_is_per_address_and_comes_back() -> None:
    now = [0.0]
    limit = RateLimit(2.0, lambda: now[0])
    assert [limit.admits("a") for _ in range(6)] == [True] * 4 + [False] * 2
    assert limit.admits("b")
    now[0] = 1.0
    assert [limit.admits("a") for _ in range(3)] == [True, True, False]


def test_long_lists_are_cut_and_it_is_said_by_how_much() -> None:
    told = bounded({"rows": list(range(MOST_ROWS + 3)), "few": [1]})
    assert len(told["rows"]) == MOST_ROWS and told["left_out"] == {"rows": 3} and told["few"] == [1]


def test_the_token_stands_in_a_file_or_a_variable_not_both(tmp_path: Path) -> None:
    from forepath.settings.sections import WebSection

    with pytest.raises(ValueError, match="stands in one of them"):
        WebSection(token_file=tmp_path, token_variable="TOKEN")
