"""Trained models in MLflow: logged to the run of their seed, with the PyTorch flavour, and registered on request.

A model that takes rows is saved as a graph (torch.export, MLflow's format pt2): loading it executes nothing and needs torch
alone. A graph has one length, so models of sequences and of symbols are saved by pickle, which needs this package where it is
loaded, and which can execute code: load those of people whom you trust.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.errors import TrackingRefused
from sweeps.tracking.client import Client, below, sqlite_file, typed_errors, without_password
from sweeps.tracking.runs import Key

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAME = "model"
"""Of a logged model, below its run."""
ALIAS = "best"
"""Of the version that was registered last."""
VARIABLE = "MLFLOW_TRACKING_URI"

LOGGERS = (
    "mlflow.pytorch", "mlflow.models.model", "mlflow.utils.requirements_utils", "mlflow.store.model_registry.abstract_store",
)  # fmt: skip
"""Their warnings while a model is logged are about what is documented here, or nothing that the user can change."""


@dataclass(frozen=True, kw_only=True)
class ToLog:
    """A trained model, and what MLflow keeps besides."""

    module: Any
    """A torch.nn.Module in eval mode that can be pickled."""
    run: Key
    """Of its seed's run."""
    example: NDArray[Any] | None
    """Rows that the module takes, at least two, for the graph; None: it is pickled."""
    inputs: tuple[str, Sequence[int]]
    """NumPy's name of the type, and the shape, -1 where it is free."""
    outputs: tuple[str, Sequence[int]]
    parameters: Mapping[str, str]
    about: Mapping[str, Any]
    """JSON-able: settings, seed, step, errors and versions."""
    description: str
    tags: Mapping[str, str]
    """Those of the same model are equal; with `digest`, the key of the lane."""
    code: Sequence[Path] = ()
    """Files and packages of the user's own that the pickled module needs."""


@dataclass(frozen=True)
class Logged:
    """A model in MLflow."""

    uri: str
    """`models:/<id>`, for mlflow.pytorch.load_model."""
    run: str
    """Id of the seed's run."""
    is_new: bool
    version: str | None = None
    """In the registry, where it was registered."""


def log_model(uri: str, sweep: str, created: str, model: ToLog, register: str | None = None) -> Logged:
    """Log a model to the run of its seed, and with `register` make it the newest version of that registered model.

    `sweep` and `created` are the sweep's name and SweepRow.created. What is logged or registered already is not written again.
    Raises TrackingError; TrackingRefused also where MLflow has no run of the seed.
    """
    file = sqlite_file(uri)
    absent = f"MLflow at {without_password(uri)} has no run of this seed: `sweeps sync {sweep}` writes the sweep's runs"
    if file is not None and not file.exists():
        raise TrackingRefused(absent)
    client = Client(uri)
    experiment = client.experiment(sweep, created)
    run = next((run for run in client.runs(experiment, created) if run.key == model.run and not run.deleted), None)
    if run is None:
        raise TrackingRefused(absent)
    with typed_errors(uri, "log the model"), _quiet(uri):
        found = _logged(uri, experiment, run.id, model)
        if found is None and file is not None:
            _require_own_folder(file, uri, experiment)
        logged = found or _log(uri, experiment, run.id, model)
    if register is None:
        return Logged(logged, run.id, found is None)
    registry = os.environ.get("MLFLOW_REGISTRY_URI") or uri
    with typed_errors(registry, f"register the model as {register!r}"), _quiet(uri):
        return Logged(logged, run.id, found is None, _register(uri, registry, logged, run.id, register, model))


def _require_own_folder(file: Path, uri: str, experiment: str) -> None:
    """Raise TrackingRefused where the experiment's models would be written to the folder of the store this is a copy of."""
    from mlflow.tracking import MlflowClient

    location = MlflowClient(uri).get_experiment(experiment).artifact_location
    if not below(file, location):
        raise TrackingRefused(
            f"the store was moved or copied: MLflow's artifacts of this sweep are in {location}, where nothing is written. "
            f"With a new database models can be logged here: move {file} away; `sweeps sync NAME` then writes a sweep anew"
        )


@contextmanager
def _quiet(uri: str) -> Iterator[None]:
    """Let MLflow's functions use this server, afterwards that of before, without warnings about what is documented here."""
    import mlflow
    from mlflow.tracking._tracking_service import utils as tracking

    # `set_tracking_uri` also sets the variable, which `default_uri` reads.
    before, variable = tracking._tracking_uri, os.environ.get(VARIABLE)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    mlflow.set_tracking_uri(uri)
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        mlflow.set_tracking_uri(before)
        if variable is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = variable


def _logged(uri: str, experiment: str, run: str, model: ToLog) -> str | None:
    """Return the URI of the same model, if it is logged already."""
    from mlflow.tracking import MlflowClient

    wanted = f"tags.digest = '{model.tags['digest']}'"
    found = MlflowClient(uri).search_logged_models(experiment_ids=[experiment], filter_string=wanted)
    same = (one for one in found if one.source_run_id == run and str(one.status).endswith("READY"))
    return next((f"models:/{one.model_id}" for one in same if model.tags.items() <= one.tags.items()), None)


def _log(uri: str, experiment: str, run: str, model: ToLog) -> str:
    """Log a model to a run, without changing the run's status, and return its URI."""
    import mlflow.pytorch
    import numpy as np
    import torch
    from mlflow.models import Model, ModelSignature
    from mlflow.tracking import MlflowClient
    from mlflow.types.schema import Schema, TensorSpec

    def schema(given: tuple[str, Sequence[int]]) -> Schema:
        return Schema([TensorSpec(np.dtype(given[0]), tuple(given[1]))])

    if model.example is not None:
        form: dict[str, Any] = {
            "serialization_format": "pt2", "input_example": model.example, "validate_serving_input": False,
        }  # fmt: skip
    else:
        form = {"serialization_format": "pickle", "code_paths": [str(path) for path in model.code] or None}
    # Made here, because Model.log would make it in the experiment that is active in this process.
    made = MlflowClient(uri).create_logged_model(
        experiment, NAME, run, tags=dict(model.tags), params=dict(model.parameters), model_type="trained seed"
    )  # fmt: skip
    Model.log(
        artifact_path=None, model_id=made.model_id, flavor=mlflow.pytorch, run_id=run, step=int(model.about.get("step") or 0),
        metadata={"sweeps": json.dumps(model.about)}, pytorch_model=model.module,
        signature=ModelSignature(schema(model.inputs), schema(model.outputs)),
        # In place of all that is imported. This package is not named: the public index has another one of its name.
        pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}", f"numpy=={np.__version__}"],
        **form,
    )  # fmt: skip
    return f"models:/{made.model_id}"


def _register(uri: str, registry: str, logged: str, run: str, name: str, model: ToLog) -> str:
    """Return the version of a registered model that is this one, with the alias `ALIAS`; it is created if need be."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri, registry_uri=registry)
    try:
        client.create_registered_model(name, description="Trained models of the sweeps that exported them.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = client.search_model_versions(f"name = '{name}'")
    version = next((str(one.version) for one in versions if one.source == logged), None)
    if version is None:
        id = logged.removeprefix("models:/")
        made = client.create_model_version(name, logged, run, dict(model.tags), description=model.description, model_id=id)
        version = str(made.version)
    client.set_registered_model_alias(name, ALIAS, version)
    return version
