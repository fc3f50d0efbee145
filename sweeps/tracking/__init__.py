"""What a sweep looks like in MLflow. The only package that imports mlflow, and only when a tracker is used: it takes
seconds.

    rows.py       a configuration and its records as tags, parameters and metrics: plain data
    client.py     MLflow's client: connected quietly, its failures one typed error
    background.py a thread that writes, while the sweep goes on
    tracker.py    the runs of a sweep, written once however often it is cut off and continued
    server.py     MLflow's own web pages, for `sweeps ui`
"""

from sweeps.tracking.client import default_uri
from sweeps.tracking.rows import Row
from sweeps.tracking.server import serve, stop
from sweeps.tracking.tracker import BackgroundTracker, Tracker

__all__ = ["BackgroundTracker", "Row", "Tracker", "default_uri", "serve", "stop"]
