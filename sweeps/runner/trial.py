"""What Ray Tune runs in a worker process: one trial trains one pack.

Ray sends the classes of this module by value. A worker has the driver's working directory on its path, before the installed
packages: imported by name, a folder `tasks` there would be trained in place of this project's. So a worker imports nothing
of this project until `PackTrial.setup` has imported it from the driver's installation.
"""

from __future__ import annotations

import importlib
import os
import pickle
import sys
from typing import Any

from ray import cloudpickle, tune

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Opaque:
    """A pack's request in a trial's configuration, where Ray Tune would otherwise print and copy every value of it."""

    def __init__(self, pack_id: str, installation: str, request: Any) -> None:
        self.pack_id, self.installation, self._pickled = pack_id, installation, pickle.dumps(request)
        self.path = [os.path.abspath(entry) for entry in sys.path]

    def __repr__(self) -> str:
        return self.pack_id

    def __deepcopy__(self, memo: dict[int, Any]) -> Opaque:
        return self

    def unpickled(self) -> Any:
        """Return the request, which imports this project."""
        return pickle.loads(self._pickled)


class PackTrial(tune.Trainable):
    """Train one pack in a worker process. Processes are reused, so compiled functions stay."""

    def setup(self, config: dict[str, Any]) -> None:
        import_from(config["request"].installation, config["request"].path)
        from sweeps.runner.worker import prepare_process

        prepare_process()
        self.reset_config(config)

    def step(self) -> dict[str, Any]:
        report = self.run.work()
        return {"report": report, "preparing": report.preparing, tune.result.DONE: self.run.done}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Return nothing: checkpoints are part of the reports."""
        return {}

    def load_checkpoint(self, checkpoint: object) -> None:
        """Do nothing: checkpoints are part of the request."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        from sweeps.runner.worker import PackRun

        self.run = PackRun(new_config["request"].unpickled())
        return True


def import_from(installation: str, path: list[str]) -> None:
    """Import this project's packages from a folder, and search for modules where the driver does (`path`).

    On a machine that has no such folder they are imported from its usual path. What is imported is compared with the
    driver's by a digest of the source, see `sweeps.runner.worker`.
    """
    here = os.path.isdir(os.path.join(installation, "sweeps"))
    if here:
        added = os.getcwd()  # by Ray
        sys.path[:] = [*path, *(entry for entry in sys.path if entry not in path and os.path.abspath(entry) != added)]
        sys.path.insert(0, installation)
    try:
        for package in ("arith_models", "cluster", "sweeps", "tasks"):
            importlib.import_module(package)
    finally:
        if here:
            sys.path.remove(installation)
