"""What a store says when it cannot be opened: what was given, and what to do."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sweeps.store import Store, StoreError


def refusal(location: Any) -> str:
    with pytest.raises(StoreError) as caught:
        Store(location)
    return str(caught.value)


def test_a_file_is_not_a_store(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("")
    assert "notes is a file; a store is a folder" in refusal(tmp_path / "notes")
    Store(tmp_path).close()
    assert refusal(tmp_path / "sweeps.db").endswith(f"Did you mean {tmp_path}?")


def test_a_store_that_cannot_be_created_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = refusal(tmp_path / "file" / "inside")
    assert f"{tmp_path}/file/inside cannot be created" in message and "--store" in message
    assert "empty" in refusal("")


def test_a_database_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "sweeps.db").mkdir()
    assert f"store {tmp_path}: its sweeps.db cannot be opened" in refusal(tmp_path)


@pytest.mark.parametrize("closed", ["the folder", "the database"])
def test_a_store_that_cannot_be_written_is_refused_when_it_is_opened(tmp_path: Path, closed: str) -> None:
    Store(tmp_path).close()
    path = tmp_path if closed == "the folder" else tmp_path / "sweeps.db"
    mode = path.stat().st_mode
    path.chmod(mode & ~0o222)
    try:
        if os.access(path, os.W_OK):
            pytest.skip("nothing is closed to this user")
        message = refusal(tmp_path)
        assert message.startswith(f"store {tmp_path}: ") and "writable, or give another --store" in message
    finally:
        path.chmod(mode)


def test_what_is_not_a_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "sweeps.db").write_text("dear diary, " * 100)
    assert "is not a database" in refusal(tmp_path)
    assert (tmp_path / "sweeps.db").read_text().startswith("dear diary")


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "sweeps.db", isolation_level=None)) as other:
        other.execute("CREATE TABLE records (artist TEXT)")
    assert "database of something else: it has tables named records" in refusal(tmp_path)


def test_a_store_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "sweeps.db", isolation_level=None)) as newer:
        newer.execute("UPDATE sweeps_schema SET version = 99")
    assert "schema version 99; this installation of sweeps reads up to 1" in refusal(tmp_path)


def test_other_kinds_of_database_are_refused_without_showing_a_password() -> None:
    assert "not mysql" in (message := refusal("mysql://me:secret@host/db")) and "secret" not in message
    assert "Write postgresql://USER@HOST:PORT/DATABASE" in refusal("postgresql://host:port:port/x")
