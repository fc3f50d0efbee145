"""`clusters.yaml`: clusters by name. All faults of the file are told at once, each with its line and the nearest name."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.descriptions import KINDS, Cluster, LocalCluster
from cluster.names import cluster_name_fault
from sweeps.config.faults import Fault, Faults, SweepFileError, shown, unknown
from sweeps.config.registry import nearest
from sweeps.config.settings import section, validated
from sweeps.config.yaml import read
from sweeps.errors import UserError
from sweeps.store.location import masked

VARIABLE = "SWEEPS_CLUSTERS"
_SECRET_KEYS = ("token", "auth_token", "password", "passwd", "secret", "api_key", "access_key")


class UnknownCluster(UserError):
    """No cluster of that name; the message has the nearest one and says where they are described."""


def find_file() -> Path | None:
    """Where clusters are described: $SWEEPS_CLUSTERS, ./clusters.yaml, ~/.config/sweeps/clusters.yaml, or nowhere.

    Raises SweepFileError where $SWEEPS_CLUSTERS names no file.
    """
    named = os.environ.get(VARIABLE)
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise SweepFileError(str(path), [Fault("", f"no such file, but {VARIABLE} names it")])
        return path
    found = (Path("clusters.yaml"), Path.home() / ".config" / "sweeps" / "clusters.yaml")
    return next((path for path in found if path.is_file()), None)


def load_clusters() -> dict[str, Cluster]:
    """Every cluster by name, in the order of the file; `local` always exists. Raises SweepFileError with all faults."""
    path = find_file()
    if path is None:
        return {"local": LocalCluster(name="local")}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SweepFileError(str(path), [Fault("", f"cannot be read: {error}")]) from error
    return parse_clusters(text, str(path))


def find_cluster(name: str) -> Cluster:
    """The cluster of that name. Raises UnknownCluster, or SweepFileError for a file with faults."""
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


def parse_clusters(text: str, source_name: str) -> dict[str, Cluster]:
    """The clusters of a text. Raises SweepFileError with every fault; no message holds a password."""
    document = read(text)
    faults = Faults(document.lines, found=document.faults)
    clusters: dict[str, Cluster] = {"local": LocalCluster(name="local")}
    if document.values is not None and not isinstance(document.values, dict):
        faults.add_line(
            1,
            "must be a mapping of names to clusters. For instance: lab: {kind: ray, address: http://head:8265}",
        )
    elif document.values is not None:
        for name, given in document.values.items():
            wrong = cluster_name_fault(name)
            if wrong:
                faults.add_line(document.lines.get(name), wrong)
                continue  # its settings cannot be told of without repeating the name
            cluster = _read_cluster(name, given, faults)
            if cluster is not None:
                clusters[name] = cluster
    try:
        faults.raise_any(source_name)
    except SweepFileError as error:
        told = [dataclasses.replace(f, message=masked(f.message)) for f in error.faults]
        raise SweepFileError(source_name, told) from None
    return clusters


def _read_cluster(name: str, given: Any, faults: Faults) -> Cluster | None:
    if not isinstance(given, dict):  # what was given is not repeated: it may hold a password
        faults.add(name, f"must be a mapping with a `kind` ({', '.join(KINDS)}) and its settings")
        return None
    kind = given.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        if isinstance(kind, str):
            faults.add(f"{name}.kind", unknown("kind", kind, KINDS))
        else:
            faults.add(name, f"needs a `kind`: {', '.join(KINDS)}")
        return None
    if name == "local" and kind != "local":
        faults.add(f"{name}.kind", f"`local` always is this machine, so its kind is local, not {kind}")
    cls = KINDS[kind]
    settings = {"name": name, **_known(cls, given, name, faults)}
    plain, wrong = section(cls, settings, name, None)
    for fault in wrong:
        faults.add(fault.path, fault.message)
    if plain is None:
        return None
    cluster: Cluster = validated(cls, settings)
    for key, message in cluster.conflicts():
        faults.add(f"{name}.{key}", message)
    return cluster


def _known(cls: type[Cluster], mapping: Mapping[str, Any], path: str, faults: Faults) -> dict[str, Any]:
    """The settings that this kind has; every other key is a fault. An empty value is as if it were left out."""
    fields = [f.name for f in dataclasses.fields(cls) if f.name != "name"]
    for key in mapping:
        if key in fields or key == "kind":
            continue
        others = [other for other, kind in KINDS.items() if key in {f.name for f in dataclasses.fields(kind)}]
        if key in _SECRET_KEYS:
            message = (
                "a secret does not belong into this file: give the path of a file that holds it, `token_file`"
            )
        elif key == "name":
            message = "a cluster's name is the word above its settings"
        elif others:
            message = f"is a setting of kind {', '.join(others)}, not of {cls.kind}"
        else:
            message = unknown("key", key, ["kind", *fields])
        faults.add(f"{path}.{key}", message)
    return {key: value for key, value in mapping.items() if key in fields and value is not None}
