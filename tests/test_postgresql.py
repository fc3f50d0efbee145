"""A sweep whose records and MLflow runs are on a real PostgreSQL server: killed, continued, and equal to one in a folder."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import sqlalchemy as sa
from commands import Commands, call
from mlflow.tracking import MlflowClient

from sweeps.store import Store
from sweeps.store.database import checkpoints

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SMALL = """\
name: small
task: {name: static, operation: sub, input_size: 10}
train: {steps: 2000, batch: 16, evaluate_every: 100}
compare: {model: [nau, linear]}
seeds: 4
resources: {slots: 8, checkpoint_s: 0.1}
"""


@pytest.fixture
def postgresql_with_mlflow(new_database: str, postgresql: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SWEEPS_COMPILE", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgresql)  # without a driver's name, as people write it
    for name in ("SWEEPS_STORE", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return new_database


def checkpoints_in(url: str) -> int:
    with Store(url) as store, store.database.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(checkpoints)).scalar() or 0)


def test_a_sweep_on_postgresql_survives_a_kill_and_reports_like_one_in_a_folder(
    postgresql_with_mlflow: str, postgresql: str, tmp_path: Path, commands: Commands
) -> None:
    url = postgresql_with_mlflow
    (tmp_path / "small.yaml").write_text(SMALL)
    killed = commands.start(tmp_path, "run", "small.yaml", "--store", url)
    killed.until(lambda: checkpoints_in(url) > 0, "checkpoint")
    killed.process.send_signal(signal.SIGKILL)
    killed.process.wait(60)
    killed.clear_away()
    again = commands.start(tmp_path, "run", "small.yaml", "--store", url)
    assert again.ended() == 0, again.output
    calm = commands.start(tmp_path, "run", "small.yaml", "--store", "calm", "--no-mlflow")
    assert calm.ended() == 0, calm.output
    answers = [
        call("report", "small", "--format", "json", "--no-timing", "--store", store)
        for store in (url, str(tmp_path / "calm"))
    ]
    assert [answer.status for answer in answers] == [0, 0]
    assert json.loads(answers[0].out)["totals"]["lanes"] == 8
    assert answers[0].out == answers[1].out
    client = MlflowClient(postgresql.replace("postgresql://", "postgresql+psycopg://"))
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    assert len(runs) == 1 + 2 + 8
    assert {run.info.status for run in runs} == {"FINISHED"}
