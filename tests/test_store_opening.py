"""What a store says when it cannot be opened: what was given, and what to do."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from sweeps.errors import StoreError
from sweeps.store import Store


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


def mounted(monkeypatch: pytest.MonkeyPatch, folder: Path, kind: str) -> None:
    """As if a file system of this kind were mounted there."""
    mounts = [*psutil.disk_partitions(all=True), SimpleNamespace(mountpoint=str(folder), fstype=kind)]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)


@pytest.mark.parametrize("kind", ["nfs4", "lustre", "fuse.sshfs"])
def test_sqlite_on_a_network_disk_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    (tmp_path / "home").mkdir()
    mounted(monkeypatch, tmp_path / "home", kind)
    message = refusal(tmp_path / "home" / "new" / "results")
    assert f"home/new/results lies on a network file system ({kind})" in message
    assert "a local disk with --store, or postgresql://" in message
    assert not list((tmp_path / "home").iterdir()), "nothing is made there"
    Store(tmp_path / "scratch").close()


def test_a_network_disk_that_the_user_permits_has_no_write_ahead_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(tmp_path).close()
    mounted(monkeypatch, tmp_path, "nfs4")
    monkeypatch.setenv("SWEEPS_NETWORK_DISK", "1")
    Store(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "sweeps.db")) as opened:
        assert opened.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_disk_of_this_machine_below_a_network_disk_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    mounted(monkeypatch, tmp_path, "nfs4")
    mounted(monkeypatch, tmp_path / "scratch", "ext4")
    Store(tmp_path / "scratch" / "results").close()
