"""Where the page listens: read, checked before anything is started, started by `forepath run`, and complained of."""

import socket
from pathlib import Path

import pytest

from cpdb import SettingsError, is_loopback
from forepath.commands.check import find_problems
from forepath.listening import address_problem, listen_at, page_url, split_listen
from forepath.processes import programs
from forepath.settings import Settings


@pytest.mark.parametrize(
    "listen,place,url",
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080), "http://127.0.0.1:8080/"),
        ("[::1]:81", ("::1", 81), "http://[::1]:81/"),
        ("0.0.0.0:9", ("0.0.0.0", 9), "http://localhost:9/"),
    ],
)
def test_an_address_is_read_and_told(listen: str, place: tuple[str, int], url: str) -> None:
    assert split_listen(listen) == place and page_url(listen) == url


@pytest.mark.parametrize("listen", ["8080", ":8080", "host:", "host:0", "host:99999", "host:http"])
def test_what_is_no_address_is_refused(listen: str) -> None:
    with pytest.raises(SettingsError, match="write HOST:PORT"):
        split_listen(listen)


def test_only_this_machine_is_loopback() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.1.2.3", "web.example")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


def test_a_port_that_is_taken_is_told_with_the_mend() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        assert "--listen" in (address_problem(listen) or "")
        with pytest.raises(SettingsError, match="in use"):
            listen_at(listen)
    assert address_problem(listen) is None


def test_the_page_is_a_program_of_a_run_unless_it_is_turned_off() -> None:
    assert [one.name for one in programs(None, False, True)] == ["controller", "predictor", "orchestrator", "web"]
    assert programs(Path("lab.toml"), False, True)[-1].argv[-3:] == ("web", "--settings", "lab.toml")
    assert [one.name for one in programs(None, False)][-1] == "orchestrator"


def test_a_page_that_everybody_reaches_is_a_problem(tmp_path: Path) -> None:
    def told(**web: object) -> list[str]:
        database = {"url": f"sqlite:///{tmp_path}/cpdb.db"}
        problems = find_problems(Settings.model_validate({"database": database, "web": web}))
        return [line for line in problems if line.startswith("web.")]

    assert told() == [] and told(listen="0.0.0.0:8080", enabled=False) == []
    assert "see everything" in told(listen="0.0.0.0:8080")[0]
    assert "change everything" in told(listen="0.0.0.0:8080", token_variable="TOKEN")[0]
