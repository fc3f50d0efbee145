"""What a job on the cluster runs: `python -m cluster.job`, in the folder that was sent along.

The line that starts a job is read by a shell, so it is always the same, and what was asked for stands in order.json.
Only the standard library at first: what the cluster lacks is told in a sentence.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

NEEDED = (
    "mlflow",
    "numpy",
    "optuna",
    "pydantic",
    "ray",
    "rich",
    "ruamel",
    "safetensors",
    "sqlalchemy",
    "torch",
    "typer",
)


def main() -> None:
    order = json.loads(Path("order.json").read_text(encoding="utf-8"))
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"the cluster's Python ({sys.executable}) lacks {', '.join(missing)}: install there what this project's "
            "constraints.txt lists, and submit again",
            flush=True,
        )
        sys.exit(2)
    os.environ.update(order.get("environment", {}))
    os.environ["SWEEPS_STORE"] = store_of(order["store"])
    os.environ["SWEEPS_PROGRESS"] = "lines"
    if order["kind"] == "fetch":
        arguments = ["-m", "cluster.sending", order["name"]]
    else:
        arguments = ["-m", "sweeps.cli", "run", f"{order['name']}.yaml", *order.get("options", [])]
    os.execv(sys.executable, [sys.executable, *arguments])


def store_of(location: str) -> str:
    """A folder that outlives the job: relative ones lie below the home of whoever Ray runs as."""
    if "://" in location:
        return location
    data = os.environ.get("XDG_DATA_HOME")
    base = Path(data) if data else Path.home() / ".local" / "share"
    return str(base / "sweeps" / Path(location).expanduser())


if __name__ == "__main__":
    main()
