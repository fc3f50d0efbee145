"""Wait until a Ray cluster has a worker: a head without CPUs is up before its first worker is scheduled.

python -m cluster.slurm.wait_for_workers --timeout-s 600      # of the cluster at $RAY_ADDRESS
"""

from __future__ import annotations

import argparse
import logging
import sys
import time


def wait_for_workers(timeout_s: float, pause_s: float = 2.0) -> float:
    """Return the CPUs of the cluster at $RAY_ADDRESS as soon as it has any. Raises TimeoutError."""
    import ray

    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    try:
        until = time.monotonic() + timeout_s
        while True:
            cpus = float(ray.cluster_resources().get("CPU", 0))
            if cpus > 0:
                return cpus
            if time.monotonic() > until:
                raise TimeoutError(
                    f"no worker has joined within {timeout_s:g} s: are its jobs still waiting in the queue? What is "
                    "done is kept; submitting again continues"
                )
            time.sleep(pause_s)
    finally:
        ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--timeout-s", type=float, default=600.0)
    try:
        cpus = wait_for_workers(parser.parse_args().timeout_s)
    except (TimeoutError, ConnectionError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    print(f"workers with {cpus:g} CPUs have joined", flush=True)


if __name__ == "__main__":
    main()
