"""`clusters.yaml`: clusters by name. All faults of the file are reported at once, each with its line and the nearest name."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.backend import Backend, backends
from cluster.description import Cluster
from sweeps.config.faults import Fault, Faults, SweepFileError, shown, unknown
from sweeps.config.registry import nearest
from sweeps.config.settings import section, validated
from sweeps.config.yaml import not_utf8, read
from sweeps.errors import UserError
from sweeps.machine import expanded
from sweeps.store.location import masked

VARIABLE = "SWEEPS_CLUSTERS"
CLUSTER_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?")
"""Allowed names of a cluster: those that Kubernetes and the clouds take unchanged."""
_SECRET_KEYS = ("token", "auth_token", "password", "passwd", "secret", "api_key", "access_key")


class UnknownCluster(UserError):
    """No cluster has that name; the message contains the nearest one and the file."""


def find_file() -> Path | None:
    """Return the file: $SWEEPS_CLUSTERS, ./clusters.yaml, ~/.config/sweeps/clusters.yaml, or None.

    Raises SweepFileError if $SWEEPS_CLUSTERS names no file.
    """
    named = os.environ.get(VARIABLE)
    if named:
        path = expanded(named)
        if not path.is_file():
            raise SweepFileError(str(path), [Fault("", f"no such file, but {VARIABLE} names it")])
        return path
    found = (Path("clusters.yaml"), Path.home() / ".config" / "sweeps" / "clusters.yaml")
    return next((path for path in found if path.is_file()), None)


def load_clusters() -> dict[str, Backend[Any]]:
    """Return every cluster by name, in the order of the file; `local` always exists. Raises SweepFileError with all faults."""
    path = find_file()
    if path is None:
        return {"local": _local()}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SweepFileError(str(path), [Fault("", not_utf8(error))]) from error
    except OSError as error:
        raise SweepFileError(str(path), [Fault("", f"cannot be read: {error}")]) from error
    return parse_clusters(text, str(path))


def find_cluster(name: str) -> Backend[Any]:
    """Return the cluster of that name. Raises UnknownCluster, or SweepFileError for a file with faults."""
    clusters = load_clusters()
    if name in clusters:
        return clusters[name]
    near = nearest(name, clusters)
    path = find_file()
    raise UnknownCluster(
        f"no cluster {shown(name)}."
        + (f" Did you mean {near!r}?" if near else "")
        + f" Known: {', '.join(clusters)}."
        + f" Clusters are described in {path or f'./clusters.yaml (none here; {VARIABLE} names another)'}"
    )


def parse_clusters(text: str, source_name: str) -> dict[str, Backend[Any]]:
    """Return the clusters of a text. Raises SweepFileError with every fault; no message contains a password."""
    document = read(text)
    faults = Faults(document.lines, found=document.faults)
    clusters: dict[str, Backend[Any]] = {"local": _local()}
    if document.values is not None and not isinstance(document.values, dict):
        faults.add_line(1, "must be a mapping of names to clusters. For instance: lab: {kind: ray, address: http://head:8265}")
    elif document.values is not None:
        for name, given in document.values.items():
            wrong = cluster_name_fault(name)
            if wrong:
                faults.add_line(document.lines.get(name), wrong)
                continue  # messages about its settings would repeat the name
            cluster = _read_cluster(name, given, faults)
            if cluster is not None:
                clusters[name] = cluster
    try:
        faults.raise_any(source_name)
    except SweepFileError as error:
        safe = [dataclasses.replace(f, message=masked(f.message)) for f in error.faults]
        raise SweepFileError(source_name, safe) from None
    return clusters


def cluster_name_fault(name: str) -> str | None:
    """Return what is wrong with a cluster's name, or None."""
    if CLUSTER_NAME.fullmatch(name):
        return None
    near = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")[:40].strip("-")
    return f"{shown(name)} cannot be a cluster's name: 1 to 40 lower-case letters, digits and dashes, a letter first" + (
        f". Perhaps {near!r}?" if near else ""
    )


def _local() -> Backend[Any]:
    backend = backends()["local"]
    return backend(backend.schema(name="local"))


def _read_cluster(name: str, given: Any, faults: Faults) -> Backend[Any] | None:
    kinds = backends()
    if not isinstance(given, dict):  # the value is not repeated: it may hold a password
        faults.add(name, f"must be a mapping with a `kind` ({', '.join(kinds)}) and its settings")
        return None
    kind = given.get("kind")
    if not isinstance(kind, str):
        faults.add(name, f"needs a `kind`: {', '.join(kinds)}")
        return None
    if kind not in kinds:
        faults.add(f"{name}.kind", unknown("kind", kind, kinds))
        return None
    if name == "local" and kind != "local":
        faults.add(f"{name}.kind", f"`local` is always this machine, so its kind is local, not {kind}")
    schema = kinds[kind].schema
    settings = {"name": name, **_known(kind, kinds, given, name, faults)}
    plain, wrong = section(schema, settings, name, None)
    for fault in wrong:
        faults.add(fault.path, fault.message)
    if plain is None:
        return None
    cluster: Cluster = validated(schema, settings)
    for key, message in cluster.conflicts():
        faults.add(f"{name}.{key}", message)
    return kinds[kind](cluster)


def _known(
    kind: str, kinds: Mapping[str, type[Backend[Any]]], given: Mapping[str, Any], path: str, faults: Faults
) -> dict[str, Any]:
    """Return the settings that this kind has; every other key is a fault. An empty value counts as left out."""
    fields = _fields(kinds[kind])
    for key in given:
        if key in fields or key == "kind":
            continue
        others = [other for other, backend in kinds.items() if key in _fields(backend)]
        if key in _SECRET_KEYS:
            message = "a secret must not be in this file: give the path of a file that holds it, `token_file`"
        elif key == "name":
            message = "a cluster's name is the word above its settings"
        elif others:
            message = f"is a setting of kind {', '.join(others)}, not of {kind}"
        else:
            message = unknown("key", key, ["kind", *fields])
        faults.add(f"{path}.{key}", message)
    return {key: value for key, value in given.items() if key in fields and value is not None}


def _fields(backend: type[Backend[Any]]) -> list[str]:
    return [f.name for f in dataclasses.fields(backend.schema) if f.name != "name"]
