"""What MLflow's pages show of a sweep when they are opened: saved views, and the experiment's kind. Tags of the experiment.

MLflow 3.17 stores a saved view as the experiment tag `mlflow.sharedViewState.ID`: JSON with a name, two times in milliseconds,
and the state of its runs page as JSON text. Neither is documented; tests/test_pages.py opens every view in a browser. A page of
another release that cannot read one shows a warning and all runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.config.space import Objective

KIND = ("mlflow.experimentKind", "custom_model_development")
"""Pages for training. Without it MLflow opens those for language models."""
PREFIX = "mlflow.sharedViewState."
WRITTEN = "sweeps.views"
"""Tag with the digest of the views that were written: those that a user deletes or changes stay so."""
LEADERBOARD, BEST, FAILED, CONVERGENCE = (
    "sweeps-leaderboard", "sweeps-best-seeds", "sweeps-failed-seeds", "sweeps-convergence"
)  # fmt: skip
"""Ids of the views, as in their URLs."""
_OF_CONFIGURATION = ("success_rate.low", "success_rate.high", "par2", "error.extrapolation.median", "diverged")
_OF_SEED = ("converged_at", "error.extrapolation", "error.interpolation", "threshold", "sparsity_error", "steps")
_NAME, _NAME_WIDTH = "attributes.`Run Name`", 320
_CREATED, _CREATED_WIDTH = "runDateAndNestInfo", 110


def experiment_tags(objective: Objective, searched: Sequence[str], created_ms: int) -> dict[str, str]:
    """Return the tags of an experiment: its kind and its saved views.

    `searched` are the tags of settings that differ between configurations. Together with the objective, the success rate and
    converged-at they are the columns that are in sight without scrolling where a window has 1400 pixels and up to three
    settings are searched.
    """
    first = [name for name in ("success_rate", "converged_at.median") if name != objective.name]
    others = [name for name in _OF_CONFIGURATION if name != objective.name]
    of_configuration = [
        _column("metrics", "objective"), *(_column("metrics", name) for name in first),
        *(_column("tags", name) for name in searched), *(_column("metrics", name) for name in others),
        _column("tags", "outcome"), _column("tags", "rank"),
    ]  # fmt: skip
    of_seed = [_column("tags", "verdict"), *(_column("metrics", name) for name in _OF_SEED), _column("tags", "why")]
    of_failed = [*(_column("tags", name) for name in ("verdict", "why")), *(_column("metrics", name) for name in _OF_SEED)]
    leaderboard = _table("tags.level = 'configuration'", _column("tags", "order"), of_configuration)
    best = "tags.level = 'seed' AND tags.rank = '1'"
    views = {
        LEADERBOARD: ("Leaderboard", leaderboard),
        BEST: ("Best configuration's seeds", _table(best, _column("metrics", "converged_at"), of_seed)),
        FAILED: (
            "Failed seeds",
            _table("tags.level = 'seed' AND tags.outcome != 'solved'", _column("metrics", "error.extrapolation"), of_failed),
        ),
        CONVERGENCE: ("Convergence", {**_table(best, _column("metrics", "converged_at"), of_seed), **_charts()}),
    }  # fmt: skip
    tags = {KIND[0]: KIND[1]}
    for place, (id_, (name, state)) in enumerate(views.items()):
        made_ms = created_ms - place  # MLflow lists the newest first
        tags[PREFIX + id_] = json.dumps({"name": name, "createdAt": made_ms, "updatedAt": made_ms, "state": json.dumps(state)})
    tags[WRITTEN] = hashlib.sha256(json.dumps(tags, sort_keys=True).encode()).hexdigest()[:16]
    return tags


def page(server: str, experiment: str, view: str = LEADERBOARD) -> str:
    """Return the URL of a saved view on a server."""
    charts = "&compareRunsMode=CHART" if view == CONVERGENCE else ""  # a saved view cannot hold it
    # Without the last part MLflow's menu is the one for language models.
    return (
        f"{server.rstrip('/')}/#/experiments/{experiment}/runs?viewStateShareKey={view}{charts}&workflowType=machine_learning"
    )


def _width(column: str) -> int:
    kind, name, _ = column.split("`")
    known = {"why": 700, "verdict": 160, "success_rate": 115, "converged_at.median": 165}
    return known.get(name, max(70 if kind == "tags." else 90, 7 * len(name) + 30))


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def _table(condition: str, by: str, columns: Sequence[str]) -> dict[str, Any]:
    return {
        "searchFilter": condition,
        "orderByKey": by,
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": list(columns),
        "columnOrder": [_NAME, _CREATED, *columns],
        "columnWidths": {_NAME: _NAME_WIDTH, _CREATED: _CREATED_WIDTH} | {column: _width(column) for column in columns},
        "groupBy": None,
        "runsHiddenMode": "FIRST_20_RUNS",
        "hideEmptyCharts": True,
    }


def _charts() -> dict[str, Any]:
    """Return line charts against the step, errors on a logarithmic scale."""
    section = "sweeps-errors"

    def line(metric: str, title: str) -> Mapping[str, Any]:
        return {
            "type": "LINE", "uuid": f"sweeps-{metric}", "metricSectionId": section, "deleted": False, "isGenerated": False,
            "metricKey": metric, "selectedMetricKeys": [metric], "displayName": title, "xAxisKey": "step", "yAxisKey": "metric",
            "xAxisScaleType": "linear", "scaleType": "log", "lineSmoothness": 0, "range": {}, "runsCountToCompare": 20,
            "selectedXAxisMetricKey": "", "yAxisExpressions": [], "ignoreOutliers": False, "useGlobalXaxisKey": True,
            "useGlobalLineSmoothing": True,
        }  # fmt: skip

    names = {
        "curve.error.extrapolation": "extrapolation error", "curve.error.interpolation": "interpolation error",
        "curve.sparsity_error": "sparsity error",
    }  # fmt: skip
    return {
        "compareRunCharts": [line(metric, title) for metric, title in names.items()],
        "compareRunSections": [{"uuid": section, "name": "Errors against the step", "display": True, "isReordered": True}],
        "isAccordionReordered": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }
