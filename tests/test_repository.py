"""Consistency of the repository: link targets and commands in documents exist, definitions are valid, pins are complete."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import call
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
DOCUMENTS = [path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md") if path.exists()]
DOCUMENTS += sorted((ROOT / "docs").rglob("*.md"))
DEFINITIONS = sorted((ROOT / "sweeps" / "definitions").glob("*.yaml"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def links(text: str) -> Iterator[str]:
    """The targets of [text](target) and ![text](target) outside code."""
    prose = re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    yield from re.findall(r"\]\(([^)\s]+)\)", prose)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub generates for the headings of a document."""
    headings = re.findall(r"^#+ +(.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(text: str, program: str) -> set[str]:
    """The subcommands of `program` in a document: at the start of a line of code, after && or in `code`."""
    code = re.findall(r"`([^`\n]+)`", text)
    for block in re.findall(r"^```(?:sh|bash|console)?\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        code += block.splitlines()
    subcommand = re.compile(rf"(?:^|&& |; )(?:\$ )?(?:\.venv/bin/)?{program} ([a-z][a-z-]*)")
    return {word for line in code for word in subcommand.findall(line.strip())}


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("make") is None:
        pytest.skip("no make on PATH (Debian: make), and the Makefile is what is tested here")
    # Remove the variables of a `make test` that may be running this test.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def packages_on_disk() -> set[str]:
    return {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("arith_models", "cluster", "sweeps", "tasks")
        for path in (ROOT / top).rglob("__init__.py")
    }


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in requirements}


def test_make_without_arguments_lists_every_target() -> None:
    done = make()
    assert done.returncode == 0, done.stderr
    assert make_targets() == {
        *("help", "venv", "sweep", "test", "test-cluster", "test-slow", "test-faults"),
        *("check", "bench", "gpu-check", "wheel", "ui", "docs", "clean"),
    }
    for target in make_targets():
        assert re.search(rf"^ +{target} +\w", done.stdout, re.MULTILINE), f"{target} is missing in:\n{done.stdout}"


def test_ci_runs_both_tiers_without_a_terminal() -> None:
    ci = ROOT / ".ci" / "run"
    assert os.access(ci, os.X_OK)
    text = ci.read_text(encoding="utf-8")
    assert "make test </dev/null" in text and "make test-cluster </dev/null" in text


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_link_targets_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for link in links(text):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = path.parent / target if target else path
        assert file.exists(), f"{relative(path)} links to {link}, which does not exist"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{relative(path)}: no heading for {link}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_make_targets_named_in_documents_exist(path: Path) -> None:
    unknown = commands(path.read_text(encoding="utf-8"), "make") - make_targets()
    assert not unknown, f"{relative(path)} names make targets that do not exist: {sorted(unknown)}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_sweeps_commands_named_in_documents_exist(path: Path) -> None:
    named = commands(path.read_text(encoding="utf-8"), "sweeps")
    unknown = [command for command in sorted(named) if call(command, "--help").status != 0]
    assert not unknown, f"{relative(path)} names commands that do not exist: {unknown}"


@pytest.mark.parametrize("path", DEFINITIONS, ids=relative)
def test_a_definition_is_valid(path: Path) -> None:
    checked = call("check", str(path))
    assert checked.status == 0, checked.err


def test_the_package_list_matches_the_packages_on_disk() -> None:
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == packages_on_disk()


def test_every_direct_dependency_is_pinned_within_its_range() -> None:
    project = PYPROJECT["project"]
    pinned = pins()
    for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        requirement = Requirement(line)
        version = pinned.get(canonicalize_name(requirement.name))
        assert version, f"constraints.txt does not pin {requirement.name}"
        assert requirement.specifier.contains(version), f"{line} does not allow the pinned {version}"


def test_pins_name_no_local_build() -> None:
    assert pins()["torch"] == "2.13.0"
    assert not [name for name, version in pins().items() if "+" in version]


def test_commands_links_and_anchors_are_found_in_a_document() -> None:
    text = "# One two\nrun `make test` or `sweeps run FILE`, see [here](a.md#b)\n"
    text += "```sh\n$ sweeps check x && make ui\n```\n"
    assert commands(text, "make") == {"test", "ui"}
    assert commands(text, "sweeps") == {"run", "check"}
    assert list(links(text)) == ["a.md#b"]
    assert anchors(text) == {"one-two"}


def test_the_changelog_has_the_version_of_the_package_as_its_latest_release() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    releases = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\](?: - \d{4}-\d\d-\d\d)?", heading) for heading in headings[1:]]
    assert all(releases)
    versions = [tuple(map(int, found[1].split("."))) for found in releases if found]
    assert versions == sorted(set(versions), reverse=True)
    assert ".".join(map(str, versions[0])) == PYPROJECT["project"]["version"]


def test_the_changelog_names_the_numerics_and_the_schema_of_the_store() -> None:
    from sweeps.store.database import SCHEMA_VERSION
    from sweeps.training.numerics import NUMERICS

    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"numerics version {NUMERICS}\b", text)
    assert re.search(rf"schema {SCHEMA_VERSION}\b", text)
