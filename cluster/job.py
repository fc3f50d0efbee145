"""The entry point of a job on a Ray cluster: `python -m cluster.job`, in the working folder that was sent along.

A shell reads the line that starts a job, so it is always the same, and the options are in order.json. Only the standard
library is imported at first, so that a cluster without the libraries prints one sentence and not a traceback.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

NEEDED = (
    "mlflow", "numpy", "optuna", "pydantic", "ray", "rich", "ruamel", "safetensors", "sqlalchemy", "torch", "typer",
)  # fmt: skip
ORDER = "order.json"
"""Keys: kind (run or fetch), name of the sweep, store, environment, options (of `sweeps run`)."""


def main() -> None:
    """Replace this process by the one that the order describes; exit with 2 if libraries are missing."""
    order = json.loads(Path(ORDER).read_text(encoding="utf-8"))
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"the cluster's Python ({sys.executable}) lacks {', '.join(missing)}: install there what this project's "
            "constraints.txt lists, and submit again",
            flush=True,
        )
        sys.exit(2)
    os.environ.update(order.get("environment", {}))
    os.environ["SWEEPS_STORE"] = absolute_store(order["store"])
    os.environ["SWEEPS_PROGRESS"] = "lines"
    if order["kind"] == "fetch":
        arguments = ["-m", "cluster.records", order["name"]]
    else:
        arguments = ["-m", "sweeps.cli", "run", f"{order['name']}.yaml", *order.get("options", [])]
    os.execv(sys.executable, [sys.executable, *arguments])


def absolute_store(location: str) -> str:
    """Return a store that outlives the job: a relative folder is below the data folder of the user that Ray runs as."""
    if "://" in location:
        return location
    data = os.environ.get("XDG_DATA_HOME")
    try:
        base = Path(data) if data else Path.home() / ".local" / "share"
    except RuntimeError:
        sys.exit("the user that Ray runs as has no home folder: set XDG_DATA_HOME there, or a store with an absolute path")
    return str(base / "sweeps" / Path(location).expanduser())


if __name__ == "__main__":
    main()
