"""The runs of a sweep in MLflow. The only package that imports mlflow, and only when a tracker is used: that takes seconds.

rows.py       a configuration and its results as tags, parameters and metrics: plain data
runs.py       a run and what is to be written of it: plain data
database.py   MLflow's database: made, migrated or replaced as a whole
client.py     MLflow's client: quiet, several requests at a time, its failures raised as TrackingError
bulk.py       many runs in one transaction, into SQLite and PostgreSQL
views.py      saved views, and the kind of the experiment: what MLflow's pages open with
tracker.py    the runs of a sweep, written once however often it is interrupted and continued; in the background
models.py     trained models: logged, and registered
removal.py    runs renamed and deleted, and what is deleted removed for good
server.py     MLflow's web server, for `sweeps ui`
"""

from sweeps.tracking.client import default_uri, experiment_of, has_runs
from sweeps.tracking.database import Refill
from sweeps.tracking.models import Logged, ToLog, log_model
from sweeps.tracking.server import serve
from sweeps.tracking.tracker import BackgroundTracker, Synced, Tracker
from sweeps.tracking.views import page as leaderboard
from sweeps.web import stop

__all__ = [
    "BackgroundTracker",
    "Logged",
    "Refill",
    "Synced",
    "ToLog",
    "Tracker",
    "default_uri",
    "experiment_of",
    "has_runs",
    "leaderboard",
    "log_model",
    "serve",
    "stop",
]
