"""Files for `ray up`: Ray's own schema and its own preparation accept them."""

from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from kinds import CLOUDS, ONE_LINE, described

from cluster.backend import as_yaml
from cluster.clouds import AwsBackend, GcpBackend

EAST, WEST = described(CLOUDS, "east", AwsBackend), described(CLOUDS, "west", GcpBackend)
Cloud = AwsBackend | GcpBackend
BOTH = pytest.mark.parametrize("cluster", [EAST, WEST], ids=["aws", "gcp"])


def check(file: dict[str, Any]) -> None:
    """What `ray up` does before it talks to the cloud, and its schema on the file as it is."""
    import ray.autoscaler
    from ray.autoscaler._private.util import prepare_config, validate_config

    path = Path(ray.autoscaler.__file__).parent / "ray-schema.json"
    jsonschema.Draft7Validator(json.loads(path.read_text(encoding="utf-8"))).validate(file)
    validate_config(prepare_config(copy.deepcopy(file)))


@pytest.mark.cluster
@BOTH
def test_ray_s_schema_and_ray_s_own_checks_accept_the_file(cluster: Cloud) -> None:
    built = cluster.launcher_file()
    check(built)
    assert yaml.safe_load(as_yaml([built])) == built


BREAK: list[Callable[[dict[str, Any]], Any]] = [
    lambda file: file.update(max_worker=8),
    lambda file: file.pop("provider"),
    lambda file: file.update(max_workers="8"),
    lambda file: file["available_node_types"]["worker"].update(spot=True),
    lambda file: file["available_node_types"]["worker"]["resources"].update(GPU="1"),
    lambda file: file["available_node_types"]["worker"].pop("node_config"),
    lambda file: file["auth"].update(token="hunter2"),
    lambda file: file.update(head_node_type="heads"),
    lambda file: file["available_node_types"]["worker"].update(min_workers=99),
    lambda file: file.update(setup_commands="echo"),
]


@pytest.mark.cluster
@pytest.mark.parametrize("index", range(len(BREAK)))
@BOTH
def test_a_broken_file_is_not_accepted(cluster: Cloud, index: int) -> None:
    broken = copy.deepcopy(cluster.launcher_file())
    BREAK[index](broken)
    with pytest.raises((jsonschema.ValidationError, ValueError, KeyError)):
        check(broken)


def test_workers_are_spot_machines_and_the_head_is_not() -> None:
    aws, gcp = EAST.launcher_file()["available_node_types"], WEST.launcher_file()["available_node_types"]
    assert aws["worker"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert {"preemptible": True} in gcp["worker"]["node_config"]["scheduling"]
    for types in (aws, gcp):
        assert not {"InstanceMarketOptions", "scheduling"} & types["head"]["node_config"].keys()
        assert types["head"]["resources"] == {"CPU": 0}
    steady = AwsBackend(replace(EAST.cluster, spot=False)).launcher_file()["available_node_types"]["worker"]["node_config"]
    assert "InstanceMarketOptions" not in steady


@BOTH
def test_the_token_is_a_file_and_the_dashboard_is_on_loopback(cluster: Cloud) -> None:
    built = cluster.launcher_file()
    assert built["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    head, worker = built["head_start_ray_commands"][-1], built["worker_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in head and "--num-cpus=0" in head
    assert "RAY_AUTH_MODE=token" in head and "RAY_AUTH_MODE=token" in worker
    assert built["idle_timeout_minutes"] == 10


@settings(deadline=None)  # a busy machine is slow
@given(value=ONE_LINE)
def test_a_variable_s_value_is_one_word_to_the_shell(value: str) -> None:
    built = AwsBackend(replace(EAST.cluster, environment={"GIVEN": value})).launcher_file()
    assert yaml.safe_load(as_yaml([built])) == built
    for command in (built["head_start_ray_commands"][-1], built["worker_start_ray_commands"][-1]):
        exported = command.removeprefix("ulimit -n 65536; export ").rpartition("; ray start ")[0]
        assert f"GIVEN={value}" in shlex.split(exported)
