"""The runs of a sweep in MLflow. The only package that imports mlflow, and only when a tracker is used: that takes seconds.

rows.py       a configuration and its results as tags, parameters and metrics: plain data
database.py   MLflow's database: made, migrated or replaced as a whole
client.py     MLflow's client: quiet, in batches, its failures raised as TrackingError
tracker.py    the runs of a sweep, written once however often it is interrupted and continued; in the background
models.py     trained models: logged, and registered
server.py     MLflow's web server, for `sweeps ui`
"""

from sweeps.tracking.client import default_uri
from sweeps.tracking.database import Refill
from sweeps.tracking.models import Logged, ToLog, log_model
from sweeps.tracking.server import serve, stop
from sweeps.tracking.tracker import BackgroundTracker, Tracker

__all__ = ["BackgroundTracker", "Logged", "Refill", "ToLog", "Tracker", "default_uri", "log_model", "serve", "stop"]
