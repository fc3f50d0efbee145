"""What travels to a cluster: a sweep file, by its name and its text, and the user's files that it names."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cluster.names import travelling_name

if TYPE_CHECKING:
    from cluster.descriptions import Cluster


@dataclass(frozen=True)
class SweepFile:
    """A sweep file on its way. Raises ValueError for a name that may not travel."""

    name: str
    text: str
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """The user's own that the sweep names, by their path in its folder."""

    def __post_init__(self) -> None:
        travelling_name(self.name)

    @property
    def file_name(self) -> str:
        """A file of this name is a sweep of this name, also where the text leaves `name` out."""
        return f"{self.name}.yaml"


def run_command(path: str) -> str:
    """The driver's command as a shell takes it. Store and MLflow reach it by the environment."""
    return shlex.join(["sweeps", "run", path])


def driver_environment(cluster: Cluster) -> dict[str, str]:
    """The file's variables, and where the driver finds MLflow. The store is not here: its URL may hold a password."""
    variables = dict(cluster.environment)
    if cluster.mlflow is not None:
        variables["MLFLOW_TRACKING_URI"] = cluster.mlflow
    return variables
