"""A settings file read again: what changed is renewed, a bad file changes nothing."""

import tomllib
from pathlib import Path

import pytest
import structlog
import tomli_w
from lab_on_paper import paper_settings

from cpdb import open_store
from forepath.commands.run import Reloading, run_figures
from forepath.demo.scene import as_toml
from forepath.metrics.loops import LOADED
from forepath.processes import changed_programs
from forepath.settings import load_settings
from forepath.supervisor import Supervisor


class Recorder(Supervisor):
    """Renews nothing, and remembers what it was asked to."""

    def __init__(self) -> None:
        super().__init__((), Path())
        self.renewed: list[list[str]] = []

    def renew(self, names: object) -> None:
        self.renewed.append(sorted(names))  # type: ignore[call-overload]


@pytest.fixture
def reloading(tmp_path: Path) -> Reloading:
    file = tmp_path / "forepath.toml"
    file.write_text(as_toml(paper_settings(tmp_path / "cpdb.db")))
    return Reloading(load_settings(file), file, Recorder())


def reload(one: Reloading, *lines: str) -> tuple[list[list[str]], list[str]]:
    """What was renewed, and what was said, after lines were added before everything else."""
    assert one.file is not None
    one.file.write_text("\n".join(lines) + "\n" + one.file.read_text())
    structlog.reset_defaults()
    with structlog.testing.capture_logs() as logs:
        one.reload()
    assert isinstance(one.supervisor, Recorder)
    return one.supervisor.renewed, [f"{line['event']} {line.get('reason', '')}" for line in logs]


def test_only_what_a_change_is_about_is_renewed(reloading: Reloading) -> None:
    assert reload(reloading)[0] == [[]]
    assert reload(reloading, "orchestrator.policy = 'reactive'")[0][-1] == ["orchestrator", "rehearsal", "web"]
    assert reload(reloading, "predictor.seed = 7")[0][-1] == ["orchestrator", "predictor", "rehearsal"]
    assert reload(reloading, "web.requests_per_s = 5.0")[0][-1] == ["web"]


def test_the_controller_keeps_its_switches(reloading: Reloading) -> None:
    renewed, said = reload(reloading, "controller.poll_s = 2.0")
    assert renewed == [[]]
    assert any("next start" in line for line in said)


def test_a_bad_file_leaves_the_old_settings_in_force(reloading: Reloading) -> None:
    before = reloading.settings
    renewed, said = reload(reloading, "orchestrator.polcy = 'reactive'")
    assert (renewed, reloading.settings) == ([], before)
    assert len(said) == 1 and "polcy" in said[0] and run_figures(reloading)[LOADED] == {(): False}
    assert reloading.file is not None
    reloading.file.write_text(reloading.file.read_text().replace("polcy", "policy"))
    reload(reloading)
    assert run_figures(reloading)[LOADED] == {(): True}


def test_another_database_is_not_taken_on_the_way(reloading: Reloading, tmp_path: Path) -> None:
    assert reloading.file is not None
    url = reloading.settings.database.url
    reloading.file.write_text(reloading.file.read_text().replace(url, f"sqlite:///{tmp_path}/other.db"))
    assert reload(reloading)[0] == []
    assert not (tmp_path / "other.db").exists()


def test_what_is_newly_declared_is_in_the_database_at_once(reloading: Reloading) -> None:
    assert reloading.file is not None
    content = tomllib.loads(reloading.file.read_text())
    content["node"].append({"name": "late", "kind": "client", "address": "10.9.9.9"})
    reloading.file.write_text(tomli_w.dumps(content))
    assert reload(reloading)[0][-1] == ["orchestrator", "rehearsal"]
    store = open_store(reloading.settings.database.url)
    assert "late" in {node.name for node in store.inventory.nodes()}
    store.close()


def test_the_same_settings_change_nothing(reloading: Reloading) -> None:
    assert changed_programs(reloading.settings, reloading.settings) == {}
