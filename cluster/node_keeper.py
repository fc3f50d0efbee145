"""The process that holds the nodes of a local cluster: `python -m cluster.node_keeper NODES CPUS FOLDER`.

It says one line of JSON when all nodes are there, then waits for SIGTERM. Should it be killed, Ray's reaper ends the nodes.
One process for all of them, because each `ray start` imports Ray anew.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

ATTEMPTS = 3
OBJECT_STORE_BYTES = 100 * 1024**2  # records and checkpoints of a pack are a few hundred KB
# A raylet that does not know its agents' ports gives up after waiting 15 s for them: too short on a busy machine.
AGENT_PORTS = (
    "metrics_agent_port",
    "metrics_export_port",
    "dashboard_agent_listen_port",
    "runtime_env_agent_port",
)


def main(num_nodes: int, cpus_per_node: int, folder: str) -> None:
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    from ray.cluster_utils import Cluster

    node = {"num_cpus": cpus_per_node, "object_store_memory": OBJECT_STORE_BYTES}
    dashboard_port, *ports = free_ports(1 + len(AGENT_PORTS) * num_nodes)
    nodes = Cluster()
    try:
        for i in range(num_nodes):
            agents = dict(zip(AGENT_PORTS, ports[i * len(AGENT_PORTS) :], strict=False))
            # A folder for each, as on machines of their own: a node deletes what jobs sent along once it needs it no more.
            own = Path(folder if i == 0 else f"{folder}-{i}")
            own.mkdir(exist_ok=True)
            head = {
                "include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": dashboard_port,
                "no_monitor": True, "include_log_monitor": False,
            }  # fmt: skip
            _add(nodes, **node, **agents, temp_dir=str(own), **(head if i == 0 else {}))
        raylets = [n.all_processes["raylet"][0].process.pid for n in nodes.list_all_nodes()]
        told = {
            "job_server": f"http://127.0.0.1:{dashboard_port}",
            "ray_address": nodes.address,
            "nodes": [{"raylet": pid, "cpus": cpus_per_node} for pid in raylets],
        }
        print(json.dumps(told), flush=True)
        while not over.wait(2.0):
            for one in nodes.list_all_nodes():
                one.dead_processes()  # asks each, so that what has died does not stay a zombie
    finally:
        nodes.shutdown()


def _add(nodes: Any, **settings: Any) -> None:
    """A worker node, tried again where its processes came too late; without a head nothing can be tried again here."""
    for attempt in range(ATTEMPTS):
        try:
            nodes.add_node(**settings)
            return
        except Exception:  # Ray says nothing more exact
            if nodes.head_node is None or attempt + 1 == ATTEMPTS:
                raise


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    os._exit(0)  # not Ray's own exit hooks: all is down
