"""`forepath check`: what is in force and where it comes from, every problem at once, and no password ever."""

import contextlib
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_on_paper import Forepath
from sqlalchemy import text

from cpdb import Alarm, Communication, Link, Node, NodeKind, Spool, Store
from forepath import processes


@pytest.fixture(autouse=True)
def _manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ryu-manager on the PATH, for where the one of the installation is not beside this Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ryu-manager").write_text("#!/bin/sh\n")
    (folder / "ryu-manager").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    assert processes.controller_manager() is not None


def test_defaults_alone_are_fine(forepath: Forepath) -> None:
    said = forepath("check")
    assert said.code == 0, said.out
    assert "no problem found" in said.out
    assert "default" in said.out and "file" not in {line.split()[-1] for line in said.out.splitlines() if line.split()}


def test_the_origin_of_each_setting_is_told(tmp_path: Path, forepath: Forepath) -> None:
    (tmp_path / "forepath.toml").write_text("[controller]\nport = 7000\n")
    lines = [line.split("│") for line in forepath("check").out.splitlines() if line.count("│") == 2]
    told = {path.strip(): (value.strip(), origin.strip()) for path, value, origin in lines}
    assert told["controller.port"] == ("7000", "file")
    assert told["controller.poll_s"] == ("1.0", "default")


def test_json_is_one_document(forepath: Forepath) -> None:
    payload = forepath("check", "--json", "-").json()
    assert payload["ok"] is True and payload["problems"] == []
    assert payload["settings"]["controller"]["port"] == 6653


def test_equal_priorities_are_noted_with_what_others_would_change(tmp_path: Path, forepath: Forepath) -> None:
    to = 'destination = [{{name = "vm{1}", address = "10.9.1.{1}", mac = "52:54:00:00:00:0{1}"}}]\n'
    vip = '[[virtual_ip]]\nname = "{0}"\naddress = "10.9.0.{1}"\npriority = {2}\n' + to
    settings = tmp_path / "forepath.toml"
    settings.write_text(vip.format("shop", 1, 5) + vip.format("backup", 2, 5))
    (note,) = forepath("check", "--json", "-").json()["notes"]
    assert "all 2 virtual IPs have priority 5" in note and "fair share" in note
    assert forepath("check").code == 0
    settings.write_text(vip.format("shop", 1, 5) + vip.format("backup", 2, 0))
    assert forepath("check", "--json", "-").json()["notes"] == []


def test_json_goes_to_a_file_and_nothing_to_the_screen(tmp_path: Path, forepath: Forepath) -> None:
    said = forepath("check", "--json", "out.json")
    assert said.out == "" and '"ok": true' in (tmp_path / "out.json").read_text()


@pytest.mark.parametrize("form", [(), ("--json", "-")])
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://someone:hidden@127.0.0.1:1/x",
        "nonsense://someone:hidden@x",
    ],
)
def test_a_password_is_never_shown(tmp_path: Path, forepath: Forepath, url: str, form: tuple[str, ...]) -> None:
    (tmp_path / "forepath.toml").write_text(f'[database]\nurl = "{url}"\n')
    said = forepath("check", *form)
    assert said.code == 1
    assert "hidden" not in said.out + said.err


def test_wrong_settings_end_with_3_and_every_line(tmp_path: Path, forepath: Forepath) -> None:
    (tmp_path / "forepath.toml").write_text("[controller]\nport = 0\nprot = 1\n")
    said = forepath("check")
    assert said.code == 3
    assert "controller.port = 0" in said.err and "controller.prot = 1" in said.err
    told = forepath("check", "--json", "-")
    assert told.code == 3 and len(told.json()["problems"]) == 2 and told.json()["ok"] is False


def test_problems_of_all_kinds_are_found_together(tmp_path: Path, forepath: Forepath) -> None:
    (tmp_path / "forepath.toml").write_text(
        """
        database.url = "sqlite:////nowhere/at/all.db"
        predictor.history.window_s = 60
        orchestrator.bandwidth.lease_s = 1
        controller.poll_s = 5
        [[link]]
        a = "nobody"
        b = "noone"
        capacity_mbit_per_s = 1
        """
    )
    said = forepath("check")
    assert said.code == 3
    for words in (
        "history.window_s: 60 must be at least 4 times the longest horizon",
        "orchestrator.bandwidth.lease_s: 1.0 ends before it can be renewed; write at least 2",
        "link nobody>noone: a = 'nobody'",
        "link nobody>noone: b = 'noone'",
        "/nowhere/at/all.db",
    ):
        assert words in said.err, words


def test_what_two_tables_say_must_fit_together(tmp_path: Path, forepath: Forepath) -> None:
    (tmp_path / "forepath.toml").write_text("controller.poll_s = 5\norchestrator.bandwidth.lease_s = 8\n")
    said = forepath("check")
    assert said.code == 1
    assert "orchestrator: bandwidth.lease_s: 8.0 ends before it can be renewed; write at least 10" in said.out


def test_what_one_table_takes_from_another_is_shown(tmp_path: Path, forepath: Forepath) -> None:
    text = "controller.poll_s = 3\npredictor.horizons_s = [7]\norchestrator.demand.cost_of_short = 19\n"
    (tmp_path / "forepath.toml").write_text(text)
    lines = [line.split("│") for line in forepath("check").out.splitlines() if line.count("│") == 2]
    told = {path.strip(): (value.strip(), origin.strip()) for path, value, origin in lines}
    assert told["orchestrator.timing.poll_s"] == ("3.0", "derived")
    assert told["orchestrator.demand.horizons_s"] == ("(7,)", "derived")
    assert told["orchestrator.demand.level"] == ("0.95", "derived")
    assert told["orchestrator.demand.cost_of_short"] == ("19.0", "file")
    assert told["controller.pairs.max_pairs"] == ("4096", "default")


def test_a_hypervisor_that_does_not_answer_is_a_problem(tmp_path: Path, forepath: Forepath) -> None:
    pytest.importorskip("libvirt")
    host = '[[host]]\nname="h1"\nuri="qemu+unix:///system?socket=/nowhere"\ncpu_cores=1\nmemory_mib=1\n'
    (tmp_path / "forepath.toml").write_text(host)
    said = forepath("check")
    assert said.code == 1 and "host h1: " in said.out and "is its libvirtd running?" in said.out


@pytest.fixture
def busy() -> Iterator[int]:
    """A port of loopback that somebody else has."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield int(other.getsockname()[1])


def test_a_port_that_somebody_else_has_is_a_problem_and_ends_run_at_once(
    tmp_path: Path, forepath: Forepath, busy: int
) -> None:
    (tmp_path / "forepath.toml").write_text(f"controller.port = {busy}\n")
    (problem,) = forepath("check", "--json", "-").json()["problems"]
    assert f"127.0.0.1:{busy}" in problem and "controller.port" in problem
    said = forepath("run")
    assert said.code == 1 and said.err.count("\n") == 1 and f"127.0.0.1:{busy}" in said.err
    # Our own controller at work is no problem.
    spool = Spool(tmp_path / "forepath.db.controller" / "spool")
    assert forepath("check", "--json", "-").json()["problems"] == []
    spool.close()


def test_an_address_that_this_machine_lacks_is_a_problem(tmp_path: Path, forepath: Forepath) -> None:
    (tmp_path / "forepath.toml").write_text("controller.listen = '192.0.2.1'\ntls.insecure = true\n")
    (problem,) = forepath("check", "--json", "-").json()["problems"]
    assert "controller.listen" in problem


@pytest.mark.parametrize("command", [("db", "init"), ("check",)])
def test_a_file_with_another_program_s_tables_is_left_as_it_is(
    tmp_path: Path, forepath: Forepath, command: tuple[str, ...]
) -> None:
    file = tmp_path / "forepath.db"
    with contextlib.closing(sqlite3.connect(file)) as other:
        other.execute("CREATE TABLE nodes (a TEXT)")
        other.commit()
    said = forepath(*command)
    assert said.code == (4 if command == ("db", "init") else 1)
    assert "another program's tables are there (nodes); name another database" in said.out + said.err
    with contextlib.closing(sqlite3.connect(file)) as other:
        assert other.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [("nodes",)]


@pytest.mark.parametrize(
    ("url", "words"),
    [("sqlite:////nowhere/at/all.db", "there is no folder /nowhere/at"), ("sqlite:////proc", "/proc is a folder")],
)
def test_a_database_that_cannot_be_made_is_a_problem(tmp_path: Path, forepath: Forepath, url: str, words: str) -> None:
    (tmp_path / "forepath.toml").write_text(f"database.url = '{url}'\n")
    (problem,) = forepath("check", "--json", "-").json()["problems"]
    assert words in problem


def notes(forepath: Forepath) -> list[str]:
    found: list[str] = forepath("check", "--json", "-").json()["notes"]
    return found


def test_what_the_settings_will_hurt_with_later_is_noted(tmp_path: Path, forepath: Forepath) -> None:
    (tmp_path / "forepath.toml").write_text(
        "predictor = { horizons_s = [1, 2], slow = { horizons_s = [] }, long = { horizons_s = [] } }\n"
        'host = [{ name = "hA", uri = "test:///default", cpu_cores = 1, memory_mib = 100 }]\n'
        'vm = [{ name = "test", cpu_cores_base = 1, cpu_cores_max = 1 }]\n'
    )
    found = notes(forepath)
    assert any(line.startswith("host hA: no [[link]]") for line in found)
    assert any(line.startswith("vm test: no `host`") for line in found)
    assert any(line.startswith("migrate_vm: takes up to 5") and "can only react" in line for line in found)
    assert not any(line.startswith(("set_cpu_limit", "scale_out")) for line in found)


def test_defaults_foresee_far_enough_for_every_kind_of_action(forepath: Forepath) -> None:
    assert notes(forepath) == []


def test_rules_of_others_that_hide_traffic_are_noted_while_switches_tell_of_them(
    forepath: Forepath, empty: Store
) -> None:
    empty.inventory.put_nodes([Node("leaf1", NodeKind.SWITCH, last_seen=1.0)])
    detail = "table 0, priority 65000, any packet, cookie 0x7: up to 5000 bytes/s pass; let it go on to table 20"
    keys = [f"leaf1 rule {number}" for number in range(5)]
    empty.alarms.raise_([Alarm("hidden_by_foreign_rule", key, "leaf1", detail, 1.0, 1.0) for key in keys])
    found = [line for line in notes(forepath) if "bytes/s pass" in line]
    assert found == [f"switch leaf1: {detail}"] * 3
    assert any(line.startswith("2 more rules of others hide traffic") for line in notes(forepath))
    for key in keys:
        empty.alarms.clear("hidden_by_foreign_rule", key, "leaf1", 2.0)
    assert not any("rules of others" in line or "bytes/s pass" in line for line in notes(forepath))


def test_what_nobody_has_seen_is_noted_once_a_network_was_looked_at(forepath: Forepath, empty: Store) -> None:
    assert not any("nobody has seen" in line for line in notes(forepath))
    empty.inventory.put_nodes([Node("leaf1", NodeKind.SWITCH, last_seen=1.0)])
    empty.inventory.put_nodes([Node("shop1", NodeKind.VM, attached_to="leaf2", port=21, last_seen=1.0)])
    empty.inventory.put_links([Link("leaf1", 30, "leaf2", 30, None), Link("leaf1", 31, "leaf9", 30, None)])
    found = notes(forepath)
    assert [line for line in found if "no known capacity" in line and "leaf1>leaf9" in line]
    unseen = [line for line in found if "nobody has seen" in line]
    assert any("search1" in line for line in unseen) and not any("shop1" in line for line in unseen)


def test_an_old_schema_is_noted_with_its_mend(forepath: Forepath, empty: Store) -> None:
    with empty.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0009'"))
    assert [line for line in notes(forepath) if "schema is 0009" in line and "forepath db migrate" in line]


def test_a_disk_that_is_too_small_for_what_is_to_be_kept_is_noted(
    tmp_path: Path, forepath: Forepath, empty: Store
) -> None:
    now = time.time()
    rows = [Communication(f"10.{n}.0.1", "10.9.0.1", None, now - 1, 1.0, 10, 1, 1) for n in range(50)]
    empty.facts.add_communications(rows)
    assert not any("it grows by" in line for line in notes(forepath))
    assert any("in the end" in line and "of them forecasts" in line for line in notes(forepath))
    file = tmp_path / "forepath.toml"
    for_ever = "keep_1s_hours = 1e12"
    file.write_text(file.read_text().replace("[database]", f"[database]\n{for_ever}"))
    assert [line for line in notes(forepath) if "it grows by" in line and "keep_1s_hours" in line]
