"""What travels to a cluster: the sweep's file, what it names, our code; and what is refused before anything is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster import shipping
from cluster.shipping import parcel
from sweeps.config.user_files import OutOfReach, own_files
from sweeps.errors import UserError

ORDER: dict[str, Any] = {"kind": "run", "name": "mine", "store": "results"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    work = tmp_path / "work"
    (work / "units").mkdir(parents=True)
    (work / "my_unit.py").write_text("a = 1")
    (work / "units" / "other.py").write_text("b = 2")
    (work / "data.bin").write_bytes(b"0" * 1000)
    (tmp_path / "outside.py").write_text("c = 3")
    package = work / "my_pkg_for_shipping"
    (package / "__pycache__").mkdir(parents=True)
    for name in ("__init__.py", "units.py", "__pycache__/units.pyc"):
        (package / name).write_text("")
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(str(work))
    return work


def test_files_and_packages_that_a_sweep_names_travel_and_nothing_else(home: Path) -> None:
    document = {
        "model": {"units": ["nau", "./my_unit.py"]},
        "compare": {"model": [{"name": "units/other.py"}, "my_pkg_for_shipping.units:Mine", "numpy:Thing"]},
        "question": "is it: so? ./absent.py",
    }
    assert sorted(own_files(document, home)) == [
        "my_pkg_for_shipping/__init__.py", "my_pkg_for_shipping/units.py", "my_unit.py", "units/other.py",
    ]  # fmt: skip


def test_a_package_is_found_where_kubernetes_puts_it_behind_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "..2026_01_01" / "my_pkg_behind_links"
    package.mkdir(parents=True)
    for name in ("__init__.py", "units.py"):
        (package / name).write_text("")
    (tmp_path / "..data").symlink_to("..2026_01_01")
    (tmp_path / "my_pkg_behind_links").symlink_to("..data/my_pkg_behind_links")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = own_files({"model": "my_pkg_behind_links.units:Mine"}, tmp_path)
    assert sorted(found) == ["my_pkg_behind_links/__init__.py", "my_pkg_behind_links/units.py"]


@pytest.mark.parametrize("word", ["../outside.py", "units/../../outside.py", "ABSOLUTE"])
def test_a_file_outside_the_folder_is_refused_with_what_to_do(home: Path, word: str) -> None:
    word = str(home.parent / "outside.py") if word == "ABSOLUTE" else word
    with pytest.raises(OutOfReach, match=r"lies outside the folder .* write \./outside.py"):
        own_files({"model": word}, home)


def test_a_parcel_has_order_sweep_file_own_files_and_our_code(home: Path) -> None:
    with parcel(ORDER, "name: mine\n", {"model": "./my_unit.py"}) as made:
        assert json.loads((made.folder / "order.json").read_text()) == ORDER
        assert (made.folder / "mine.yaml").read_text() == "name: mine\n"
        assert (made.folder / "my_unit.py").read_text() == "a = 1"
        assert (made.folder / "sweeps" / "definitions" / "quickstart.yaml").is_file()
        assert {p.suffix for p in made.folder.rglob("*") if p.is_file()} <= {".json", ".py", ".txt", ".yaml"}
    assert not made.folder.exists()


def test_an_order_may_name_a_password_and_is_for_nobody_else_s_eyes(home: Path) -> None:
    with parcel(ORDER) as made:
        assert (made.folder / shipping.ORDER).stat().st_mode & 0o777 == 0o600


def test_the_digest_follows_from_content_alone(home: Path) -> None:
    def digest(text: str = "name: mine\n", **order: Any) -> str:
        with parcel(ORDER | order, text, {"model": "./my_unit.py"}) as made:
            return made.digest

    first = digest()
    assert digest() == first
    changed = {digest("name: mine\nseeds: 2\n"), digest(store="other")}
    (home / "my_unit.py").write_text("a = 2")
    changed.add(digest())
    assert len(changed | {first}) == 4


def test_more_than_ray_takes_is_refused_before_it_is_sent(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "my_pkg_for_shipping" / "weights.bin").write_bytes(b"0" * 3 * 1024**2)
    monkeypatch.setenv("RAY_max_grpc_message_size", str(2 * 1024**2))
    assert shipping.limit_bytes() == 2 * 1024**2
    document = {"model": "my_pkg_for_shipping.units:Mine"}
    with (
        pytest.raises(
            UserError,
            match=r"takes 2.0 MiB at most. Largest: my_pkg_for_shipping/weights.bin \(3.0 MiB\)",
        ),
        parcel(ORDER, "", document),
    ):
        raise AssertionError("it was made ready to be sent")
