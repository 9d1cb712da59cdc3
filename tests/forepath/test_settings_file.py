"""The settings file: everything has a default, nothing unknown passes, and all problems come at once."""

import re
from collections.abc import Iterator
from inspect import get_annotations
from pathlib import Path

import pytest
from lab_on_paper import Forepath

from cpdb import BEHAVIOUR, TABLES, Section, SettingsError, without_password
from cpdb.settings import section_of
from forepath.processes import orchestrator_config
from forepath.settings import Settings, load_settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def refused(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "wrong.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]


def test_without_a_file_everything_is_default() -> None:
    settings = load_settings(None)
    assert settings == Settings()
    assert settings.predictor.horizons_s == (5, 15, 30)
    assert settings.controller.listen == "127.0.0.1"


def test_forepath_toml_of_the_current_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "forepath.toml").write_text("[controller]\nport = 7000\n")
    assert load_settings(None).controller.port == 7000


def test_every_problem_comes_at_once_each_with_path_value_and_mend(tmp_path: Path) -> None:
    lines = refused(
        tmp_path,
        """
        [controller]
        port = 99999
        pol_s = 1
        [orchestrator]
        policy = "psychic"
        [[link]]
        a = "leaf1"
        capacity_mbit_per_s = -3
        """,
    )
    assert len(lines) == 5
    told = "\n".join(lines)
    assert "controller.port = 99999: " in told and "65535" in told
    assert "controller.pol_s = 1: no such setting; known here: " in told and "listen, port, poll_s" in told
    assert "orchestrator.policy = 'psychic': " in told and "reactive" in told
    assert "link no. 1: b: is missing; add it" in told
    assert "link no. 1: capacity_mbit_per_s = -3: " in told and "greater than 0" in told


@pytest.mark.parametrize(
    "text,where,known",
    [
        ("colour = 1", "colour", "database"),
        ("[database]\nfile = 1", "database.file", "url"),
        ("[[host]]\nname='h'\nuri='u'\ncpu_cores=1\nmemory_mib=1\nsize=2", "host 'h': size", "cordoned"),
        (
            "[[virtual_ip]]\nname='v'\naddress='10.0.0.1'\n[[virtual_ip.destination]]\n"
            "name='d'\naddress='10.0.0.2'\nmac='52:54:00:00:00:01'\nheight=2",
            "virtual_ip 'v': destination 'd': height",
            "weight",
        ),
    ],
)
def test_an_unknown_key_is_refused_at_every_depth(tmp_path: Path, text: str, where: str, known: str) -> None:
    (line,) = refused(tmp_path, text)
    assert line.startswith(f"{where} = ") and "no such setting; known here: " in line
    assert known in line.partition("known here: ")[2]


def test_names_must_be_unique_and_are_told_beside_other_problems(tmp_path: Path) -> None:
    nodes = "[[node]]\nname='n1'\nkind='switch'\n" * 2
    (alone,) = refused(tmp_path, nodes)
    assert "node: 'n1' is declared 2 times" in alone
    both = refused(tmp_path, nodes + "[predictor]\ncycle_s = 0\n")
    assert len(both) == 2 and "predictor.cycle_s = 0" in both[0] and "'n1' is declared 2 times" in both[1]


def test_limits_of_a_machine_must_be_in_order(tmp_path: Path) -> None:
    (line,) = refused(tmp_path, "[[vm]]\nname='v'\ncpu_cores_base=2\ncpu_cores_max=1\n")
    assert "vm 'v': " in line and "cpu_cores_max 1.0 is below cpu_cores_base 2.0" in line


@pytest.mark.parametrize("content", [b"[database\nurl = 1", b"\xff\xfe\x00", b"a = 1\na = 2"])
def test_what_is_no_toml_is_told_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match="not valid TOML") as caught:
        load_settings(path)
    assert "\n" not in str(caught.value)


def test_a_password_does_not_show_in_a_problem(tmp_path: Path) -> None:
    lines = refused(
        tmp_path,
        "database = 'postgresql://me:hidden@db/x?password=hidden'\n[controller]\npassword = 'hidden'\nurl='a://b:hidden@c'",
    )
    assert len(lines) == 3
    assert "hidden" not in "\n".join(lines)


@pytest.mark.parametrize(
    "url,mend", [("postgresql://me:hid@hidden@db/x", "%40"), ("postgresql://me:hidden@db:port/x", "HOST:5432")]
)
def test_an_unsound_database_url_is_told_without_showing_it(tmp_path: Path, url: str, mend: str) -> None:
    (line,) = refused(tmp_path, f"database.url = '{url}'")
    assert line.startswith("database.url: ") and mend in line and "hid" not in line


def test_only_user_and_password_are_taken_out_of_a_url() -> None:
    assert without_password("postgresql://me:p@ss@db:5/x") == "postgresql://***@db:5/x"
    assert without_password("sqlite:////var/lib/forepath.db") == "sqlite:////var/lib/forepath.db"
    assert without_password("postgresql://db/x?password=p&user=me") == "postgresql://db/x?password=***&user=me"


def example() -> str:
    found = re.search(r"^```toml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found.group(1)


def test_the_example_of_the_page_loads_and_shows_the_true_defaults(tmp_path: Path) -> None:
    (tmp_path / "page.toml").write_text(example(), encoding="utf-8")
    settings = load_settings(tmp_path / "page.toml")
    assert [item.name for item in settings.virtual_ip[0].destination] == ["shop1"]
    defaults = Settings()
    for section in BEHAVIOUR:
        assert getattr(settings, section) == getattr(defaults, section), section


def sections(section: type[Section], table: str = "") -> Iterator[tuple[str, type[Section]]]:
    """Every table of the file by its full name, with its class."""
    yield table, section
    for name, field in section.model_fields.items():
        inner = section_of(field.annotation)
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from sections(inner, f"{table}.{name}".lstrip("."))


def test_every_setting_stands_on_the_page_in_its_table() -> None:
    parts = re.split(r"^\[+([\w.]+)\]+", example(), flags=re.MULTILINE)
    told = dict(zip(parts[1::2], parts[2::2], strict=True))
    known = {table for table, _ in sections(Settings)}
    missing = [
        f"{table}.{name}"
        for table, section in sections(Settings)
        for name in section.model_fields
        if f"{table}.{name}".lstrip(".") not in known | told.keys()
        and not re.search(rf"^(# )?{name} = ", told.get(table, ""), re.MULTILINE)
    ]
    assert missing == []


def test_sections_are_small_and_the_tables_are_those_that_every_process_knows() -> None:
    # What a section adds to another one ([[vm]]: what only a replay is told) is a record of its own.
    parts = {kind for _, section in sections(Settings) for kind in section.__mro__ if issubclass(kind, Section)}
    sizes = {kind.__name__: len(get_annotations(kind).keys() - {"RENAMED"}) for kind in parts}
    assert {name: size for name, size in sizes.items() if size > 12} == {}
    assert tuple(Settings.model_fields) == TABLES


RENAMED = [(table, old, new, section) for table, section in sections(Settings) for old, new in section.RENAMED.items()]


@pytest.mark.parametrize(("table", "old", "new", "section"), RENAMED, ids=[f"{one[0]}.{one[1]}" for one in RENAMED])
def test_an_old_name_is_refused_with_the_new_one(
    tmp_path: Path, table: str, old: str, new: str, section: type[Section]
) -> None:
    assert old not in section.model_fields
    place, _, name = new.rpartition(".")
    assert name in dict(sections(Settings))[place].model_fields
    repeated = table.partition(".")[0] not in BEHAVIOUR
    lines = refused(tmp_path, f"[[{table}]]\n{old} = 1\n" if repeated else f"[{table}]\n{old} = 1\n")
    told = [line.removeprefix(f"{table} no. 1: " if repeated else f"{table}.") for line in lines]
    assert [line.partition(": ")[2] for line in told if line.startswith(f"{old} = 1")] == [
        f"has a new name; write {new}"
    ]


def test_a_file_of_the_version_before_is_refused_with_every_new_name_at_once(tmp_path: Path) -> None:
    lines = refused(tmp_path, (Path(__file__).parent / "settings_before.toml").read_text(encoding="utf-8"))
    assert len(lines) == sum(1 for table, *_ in RENAMED) and all("has a new name; write " in line for line in lines)


def test_the_page_s_example_has_no_dangling_names_but_the_ones_it_leaves_out(
    tmp_path: Path, forepath: Forepath
) -> None:
    (tmp_path / "page.toml").write_text(example(), encoding="utf-8")
    problems = forepath("check", "-c", "page.toml", "--json", "-").json()["problems"]
    assert [line for line in problems if line.startswith(("link.", "predictor.", "orchestrator."))] == []


def test_caution_is_said_once_as_a_cost_or_as_a_level(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    found = []
    for text in ("", "cost_of_short = 19", "level = 0.8"):
        path.write_text(f"[orchestrator.demand]\n{text}\n", encoding="utf-8")
        found.append(orchestrator_config(load_settings(path), act=False).demand.level)
    assert found == pytest.approx([0.9, 0.95, 0.8])
    (line,) = refused(tmp_path, "[orchestrator.demand]\nlevel = 0.8\ncost_of_short = 19\n")
    assert line == "orchestrator.demand: level and cost_of_short say the same in two ways; give one of them"


def test_tenants_of_machines_and_services_reach_the_budgets(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(
        """
        [[vm]]
        name = "shop1"
        cpu_cores_base = 1
        cpu_cores_max = 2
        tenant = "retail"
        [[vm]]
        name = "batch1"
        cpu_cores_base = 1
        cpu_cores_max = 1
        [[virtual_ip]]
        name = "shop"
        address = "10.0.0.101"
        tenant = "retail"
        destination = [{ name = "shop1", address = "10.0.0.11", mac = "52:54:00:00:00:0b" }]
        """,
        encoding="utf-8",
    )
    config = orchestrator_config(load_settings(path), act=False)
    assert config.declared.tenants == {"shop1": "retail", "10.0.0.101": "retail"}
