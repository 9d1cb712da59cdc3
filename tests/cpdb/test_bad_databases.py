"""A database that cannot be used is told in one line: what, where, how to mend."""

from pathlib import Path

import psutil
import pytest
from sqlalchemy import text

from cpdb import StoreError, StoreOutdated, StoreUnreachable, open_store


@pytest.mark.parametrize(
    "url,words",
    [
        ("sqlite:////nowhere/at/all.db", "unable to open"),
        ("postgresql://someone:secret@127.0.0.1:port/x", "write sqlite:///FILE.db"),
        ("not a url", "write sqlite:///FILE.db"),
        ("postgresql://someone:secret@127.0.0.1:1/x", "Connection refused"),
    ],
)
def test_an_unreachable_database_is_one_line(url: str, words: str) -> None:
    with pytest.raises(StoreUnreachable, match=words) as caught:
        open_store(url)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_reader_does_not_create_a_database(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        open_store(f"sqlite:///{tmp_path}/none.db", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/newer.db"
    store = open_store(url)
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    with pytest.raises(StoreOutdated, match="9999") as caught:
        open_store(url, create=False)
    kept = [file.path for file in psutil.Process().open_files() if file.path.startswith(str(tmp_path))]
    assert not kept, f"{caught.value} keeps a connection open"
    with pytest.raises(StoreOutdated, match="newer forepath"):
        open_store(url)


def test_a_file_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is no database, " * 100)
    with pytest.raises(StoreError) as caught:
        open_store(f"sqlite:///{tmp_path}/text.db")
    assert "\n" not in str(caught.value)
