"""The compose file and the Dockerfile, as far as that goes without Docker: the Compose specification's own schema, loopback,
no secret, versions."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

TEMPLATES = Path(__file__).parents[2] / "cluster" / "templates"
COMPOSE = (TEMPLATES / "compose.yaml").read_text(encoding="utf-8")
DOCKERFILE = (TEMPLATES / "Dockerfile").read_text(encoding="utf-8")


def faults(text: str) -> list[str]:
    """What is wrong with a compose file, in the order of its services."""
    file = yaml.safe_load(text)
    return [fault for name, service in file["services"].items() for fault in _of_service(name, service, file)]


def _of_service(name: str, service: dict[str, Any], file: dict[str, Any]) -> Iterator[str]:
    if "healthcheck" not in service:
        yield f"{name}: no healthcheck"
    if "no-new-privileges:true" not in service.get("security_opt", []):
        yield f"{name}: may gain privileges"
    for port in service.get("ports", []):
        if not str(port).startswith("127.0.0.1:"):
            yield f"{name}: port {port} is not on loopback"
    for secret in service.get("secrets", []):
        if secret not in file["secrets"]:
            yield f"{name}: no secret {secret}"
    for volume in service.get("volumes", []):
        if volume.partition(":")[0] not in file["volumes"]:
            yield f"{name}: no volume {volume}"
    for other, how in service.get("depends_on", {}).items():
        if other not in file["services"] or how != {"condition": "service_healthy"}:
            yield f"{name}: does not wait for {other}"
    for key, value in service.get("environment", {}).items():
        if re.search("PASSWORD|TOKEN|SECRET", key) and not str(value).startswith("/run/secrets/"):
            yield f"{name}: {key} is a secret in the file"
    if "ray" in name and service.get("environment", {}).get("RAY_AUTH_MODE") != "token":
        yield f"{name}: Ray does not require its token"


def test_the_compose_file_is_sound() -> None:
    assert faults(COMPOSE) == []
    file = yaml.safe_load(COMPOSE)
    assert list(file["services"]) == ["postgres", "mlflow", "ray-head", "ray-worker"]
    assert all("file" in secret for secret in file["secrets"].values())


def validated(path: Path) -> subprocess.CompletedProcess[str]:
    """By the Compose specification's JSON schema, which check-jsonschema ships."""
    return subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.cluster
def test_the_compose_specification_s_schema_accepts_the_file() -> None:
    done = validated(TEMPLATES / "compose.yaml")
    assert done.returncode == 0, done.stdout


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("find", "put", "output"),
    [
        ("image: postgres:17", "imag: postgres:17", "'imag' was unexpected"),
        ("interval: 10s", "intervall: 10s", "'intervall' does not match"),
        ("restart: unless-stopped", "restart: [always]", "['always'] is not of type 'string'"),
        ("{condition: service_healthy}", "{condition: service_well}", "'service_well' is not one of"),
    ],
)
def test_that_schema_refuses_a_broken_file(tmp_path: Path, find: str, put: str, output: str) -> None:
    assert find in COMPOSE
    path = tmp_path / "compose.yaml"
    path.write_text(COMPOSE.replace(find, put))
    done = validated(path)
    assert (done.returncode, output in done.stdout) == (1, True), done.stdout


@pytest.mark.parametrize(
    ("find", "put"),
    [
        ('"127.0.0.1:${RAY_DASHBOARD_PORT:-8265}:8265"', '"8265:8265"'),
        ("RAY_AUTH_MODE: token", "RAY_AUTH_MODE: disabled"),
        ("POSTGRES_PASSWORD_FILE: /run/secrets/postgres_password", "POSTGRES_PASSWORD: hunter2"),
        ("secrets: [ray_token]", "secrets: [ray_tokens]"),
        ("healthcheck: *ray-health", "x-healthcheck: *ray-health"),
        ("  tracking:\n", ""),
        ("ray-head: {condition: service_healthy}", "ray-head: {condition: service_started}"),
        ('security_opt: ["no-new-privileges:true"]', "security_opt: []"),
    ],
)
def test_a_broken_compose_file_is_refused(find: str, put: str) -> None:
    assert find in COMPOSE
    assert faults(COMPOSE.replace(find, put)) != []


def commands() -> dict[str, list[str]]:
    """Service -> the command line of its program."""
    found = {}
    for name, service in yaml.safe_load(COMPOSE)["services"].items():
        command = service.get("command")
        if command:
            script = command[-1].replace("\\\n", " ") if command[0] == "bash" else shlex.join(command)
            last = next(line for line in reversed(script.splitlines()) if line.strip())
            found[name] = shlex.split(last.removeprefix("exec "))
    return found


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::UserWarning")  # of mlflow's import
def test_every_program_of_the_compose_file_takes_the_options_it_is_given() -> None:
    from mlflow.cli import cli as mlflow
    from ray.scripts.scripts import cli as ray

    for name, words in commands().items():
        program = {"ray": ray, "mlflow": mlflow}[words[0]]
        known = CliRunner().invoke(program, [words[1], "--help"]).output
        for word in words[2:]:
            if word.startswith("--"):
                assert re.search(rf"{word.partition('=')[0]}\b", known), f"{name}: no option {word}"


def test_the_dockerfile_copies_all_packages_pins_versions_and_runs_as_nobody_special() -> None:
    copied = set(re.findall(r"^COPY (\w+) \1$", DOCKERFILE, re.MULTILINE))
    assert copied == {"arith_models", "cluster", "sweeps", "tasks"}
    ignore = (TEMPLATES / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignore and {f"!{package}" for package in copied} <= set(ignore)
    installs = re.findall(r"pip install ([^;\n]+)", DOCKERFILE)
    assert installs and all("--constraint constraints.txt" in words for words in installs)
    users = re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE)
    assert users == ["1000:1000"]
    assert DOCKERFILE.index("USER 1000") < DOCKERFILE.index("ENTRYPOINT")
