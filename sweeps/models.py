"""Trained models: a finished seed of a sweep as a plain torch module, and files of weights.

    module = load_model("quickstart")        # the best seed of the best configuration, from the store
    y = module(x)                            # [rows, inputs] -> [rows, outputs], gradients as in any module

A file of weights is a safetensors file of one configuration. Its tensors have the names of the module's `state_dict`, its
metadata the settings that the module is built of, as JSON, so that `load_model` needs the file alone. Nothing of a file is
executed; a unit or task of the user's own is imported from the place that the settings name, as for a sweep file.
"""

from __future__ import annotations

import copy
import importlib.metadata
import json
import math
import platform
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, SupportsIndex, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from sweeps.config.diff import leaves
from sweeps.config.registry import is_reference, nearest
from sweeps.config.settings import build, lane_key, resolve
from sweeps.config.user_files import own_files
from sweeps.errors import StoreError, UserError
from sweeps.machine import default_store
from sweeps.results.export import configuration_of, own_names
from sweeps.results.numbers import number, ranges
from sweeps.results.provenance import of_lanes
from sweeps.results.report import Report, report
from sweeps.results.summary import RankedConfiguration
from sweeps.results.verdicts import decisive_error, verdict
from sweeps.store import Store
from sweeps.tracking import Logged, ToLog, default_uri, log_model
from sweeps.training.lane import SPARSITY_ERROR, LaneResult
from sweeps.training.numerics import Numerics
from sweeps.training.settings import Built
from sweeps.training.state import LaneState, best_of, from_bytes, state_without_weights, tensors_of
from sweeps.training.step import Context, sparsity_error
from tasks.base import Task

At = Literal["best", "end"]
"""The evaluation that `solved` looks at (the lowest interpolation error), or the last step."""
ATS: tuple[At, ...] = get_args(At)
FORMAT = 1
"""Version of the metadata of a file of weights."""
ABOUT = "sweeps"
"""Key of the metadata."""
ROWS, SYMBOLS = 1_000, 8_192
"""Sequences, and symbols of sequences, that are evaluated at once."""


class WeightsError(UserError):
    """A file of weights that cannot be used, or a seed or state that it does not have."""


class TrainedModel(nn.Module):
    """A trained network for one seed, in eval mode: a plain module without vmap, streams or settings of training.

    Shapes, as the task documents them: x [rows, inputs] -> y [rows, outputs], both float32. A sequence is
    [time, rows, inputs], and of a task on words int64 [time, rows]; outputs are [rows, outputs]. A task on symbols
    takes int64 [rows, n], 0 for padding and -1 outside of an example, and returns logits [rows, n, symbols]; a tuple of such
    tensors, one a length, gives a tuple.

    The parameters are in `network`, and what the network remembers besides, such as statistics of batches, in `memory`. It
    always computes as in an evaluation: without dropout, and with nothing drawn, also after `.train()`. It can be copied,
    moved, fine-tuned and saved by torch.save; what is pickled are the settings and the tensors, from which the module is
    built again, so that the packages `sweeps`, `arith_models` and `tasks`, and a unit or task of the user's own, are needed.
    """

    def __init__(self, settings: Mapping[str, Any], about: Mapping[str, Any] | None = None) -> None:
        """`settings` are the resolved `model`, `task` and `train`. The parameters are zeros until they are loaded.

        Raises ValueError for settings that `sweeps.config.settings.resolve` did not make.
        """
        super().__init__()
        built = build(settings)
        self.settings: dict[str, Any] = copy.deepcopy(dict(settings))
        self.about: dict[str, Any] = copy.deepcopy(dict(about or {}))
        """Sweep, configuration, seed, step and errors of the state; empty where it is not known."""
        state = state_without_weights(built, torch.device("cpu"))
        self.task: Task = built.task
        self.network = built.model()
        self.memory = nn.Module()
        for name, tensor in state["memory"].get("model", {}).items():
            self.memory.register_buffer(name, tensor)
        self.take(state)
        self.eval()

    def take(self, state: LaneState) -> None:
        """Take the weights and the memory of a lane's state: see `sweeps.training.state.best_of`."""
        tensors = dict(self.named_parameters()) | dict(self.named_buffers())
        with torch.no_grad():  # by parameters: where two names share one, a state has the first
            for name, value in _named(state).items():
                tensors[name].copy_(value)

    def forward(self, x: Any) -> Any:
        """Return the outputs for a batch; see the class for shapes.

        Raises ValueError for a wrong number of inputs, TypeError for a list or an array: torch.as_tensor makes a tensor of it.
        """
        given: object = x
        if not isinstance(given, Tensor) and not (self.task.reads_symbols and isinstance(given, tuple)):
            raise TypeError(f"the model takes a tensor, but got a {type(x).__name__}: model(torch.as_tensor(x))")
        if self.task.reads_symbols and isinstance(x, Tensor):
            return self.forward((x,))[0]
        if self._takes_rows and (x.dim() != 2 or x.shape[1] != self.task.num_inputs):
            raise ValueError(f"the model takes [rows, {self.task.num_inputs}], but got {list(x.shape)}")
        device = next(self.network.parameters()).device
        y, _ = self.network(x, Context.of_evaluation(device, dict(self.memory.named_buffers())))
        return y

    @property
    def _takes_rows(self) -> bool:
        return self.task.time_steps is None and not self.task.reads_symbols

    def extra_repr(self) -> str:
        where = ("sweep", "configuration", "seed", "at", "step")
        return ", ".join(f"{name}={self.about[name]}" for name in where if name in self.about)

    def __reduce__(self) -> tuple[Any, ...]:
        trained = {name: parameter.requires_grad for name, parameter in self.named_parameters()}
        return _rebuilt, (self.settings, self.about, dict(self.state_dict()), self.training, trained)


def _rebuilt(
    settings: Mapping[str, Any], about: Mapping[str, Any], tensors: Mapping[str, Tensor], training: bool,
    trained: Mapping[str, bool] | None = None,
) -> TrainedModel:  # fmt: skip
    """Return what `TrainedModel.__reduce__` took apart; `trained` has `requires_grad` by parameter.

    A user's own file that is not at its place is looked for on sys.path, where MLflow puts the files that are saved with a
    model.
    """
    model = TrainedModel(_found_on_path(settings), about)
    # Not by `assign=True`, which makes two parameters of one that has two names.
    for name, own in (*model.named_parameters(), *model.named_buffers()):
        if name in tensors:
            own.data = torch.empty_like(tensors[name])  # of its own device and type
    model.load_state_dict(dict(tensors))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_((trained or {}).get(name, True))
    return model.train(training)


def _found_on_path(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: _found_on_path(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_found_on_path(value) for value in node]
    if isinstance(node, str) and node.endswith(".py") and is_reference(node) and not Path(node).is_file():
        places = (Path(folder) / name for folder in sys.path for name in (node, Path(node).name))
        return next((str(place) for place in places if place.is_file()), node)
    return node


# ------------------------------------------------------------------------------------------- from a store or a file


def load_model(
    source: str | Path,
    *,
    seed: int | None = None,
    at: At = "best",
    store: str | Path | None = None,
    cell: str | None = None,
    configuration: int | None = None,
) -> TrainedModel:
    """Return a trained seed of a sweep as a plain module in eval mode.

    Parameters
    ----------
    source
        A sweep in the store, or a file that `sweeps export NAME --weights FILE.safetensors` wrote.
    seed
        None: the best one. Solved ones are before others, then the lowest extrapolation error counts.
    at
        `best`: the weights at the evaluation that `solved` looks at, the one with the lowest interpolation error.
        `end`: those after the last step.
    store, cell, configuration
        Of a sweep: the folder or URL of the store (None: SWEEPS_STORE, or `results` here), a cell's key or labels, and the
        number of a configuration in it (None: the best one).

    Warns where the user's own code that the settings name is not what trained the weights. Raises UserError for an unknown
    cell, configuration, seed or file, for a seed without weights and a file that does not belong to its settings; UnknownSweep.
    """
    _require(source, at, cell, configuration)
    if is_weights_file(source):
        model = _chosen(read_weights(source), seed, at, str(source))
        if note := _other_code(model):
            warnings.warn(note, stacklevel=2)
        return model
    return load_from_store(str(source), seed, at, default_store() if store is None else store, cell, configuration)


def load_from_store(
    name: str, seed: int | None, at: At, store: str | Path, cell: str | None, configuration: int | None
) -> TrainedModel:
    """As `load_model`, of a sweep, also where a file has its name."""
    seeds, known = None if seed is None else [seed], _known(at)
    with Store(store, read_only=True) as opened:
        return trained_models(opened, name, cell, configuration, seeds, (known,), best=seed is None)[0]


def load_models(
    source: str | Path, seed: int | None, at: str, store: str | Path, cell: str | None, configuration: int | None,
    on_note: Callable[[str], object] = warnings.warn,
) -> list[TrainedModel]:  # fmt: skip
    """Return one seed, or all seeds of a configuration that have weights, in their order. Otherwise as `load_model`.

    `on_note` receives a sentence where the user's own code is not what trained the weights.
    """
    at = _require(source, at, cell, configuration)
    seeds = None if seed is None else [seed]
    if is_weights_file(source):
        return models_of(read_weights(source), str(source), seeds, at, on_note)
    with Store(store, read_only=True) as opened:
        return trained_models(opened, str(source), cell, configuration, seeds, (at,), on_note=on_note)


def _require(source: str | Path, at: str, cell: str | None, configuration: int | None) -> At:
    if is_weights_file(source) and (cell is not None or configuration is not None):
        raise UserError(f"{source} holds one configuration: cell and configuration are for a sweep in the store")
    return _known(at)


def _known(at: str) -> At:
    for known in ATS:
        if known == at:
            return known
    raise UserError(f"at is {at!r}; it must be best or end")


def is_weights_file(source: str | Path) -> bool:
    """Return whether it names a file of weights and not a sweep: a Path, the ending .safetensors, or the path of a file.

    A bare name without that ending is a sweep, whatever is in the working directory.
    """
    if isinstance(source, Path) or source.endswith(".safetensors"):
        return True
    return Path(source).name != source and Path(source).is_file()


def trained_models(
    store: Store, name: str, cell: str | None = None, configuration: int | None = None,
    seeds: Sequence[int] | None = None, ats: Sequence[At] = ("best",), best: bool = False,
    on_note: Callable[[str], object] = warnings.warn,
) -> list[TrainedModel]:  # fmt: skip
    """Return finished seeds of a configuration as modules: by seed, and of each seed by `ats`.

    `seeds` None are all that have weights, or with `best` the best of them. Of several `ats` a state that serves for both is
    there once, with both in `about["at"]`. Raises as `load_model`.
    """
    found = report(store, name)
    one = configuration_of(found, cell, configuration)
    results = {result.seed: result for result in (*one.results, *one.confirmation)}
    where = f"configuration {one.configuration.number} of sweep {name!r}"
    for seed in seeds or ():
        _require_seed(seed, list(results), where)
    wanted = [results[seed] for seed in seeds] if seeds is not None else sorted(results.values(), key=lambda r: r.seed)
    built = build(one.configuration.settings)
    models: list[TrainedModel] = []
    for result in sorted(wanted, key=_standing) if best else wanted:
        blob = store.state(*result.id)
        if blob is None:
            if seeds is not None:
                raise UserError(f"seed {result.seed} of {where} has no weights: it ended in an error, {result.reason}")
            continue
        models += _of_record(found, one, result, built, blob, ats, store.location)
        if best:
            break
    if not models:
        raise UserError(f"{where} has no seed with weights yet: `sweeps status {name}` shows how far it is")
    if note := _other_code(models[0]):
        on_note(note)
    return models


def _other_code(model: TrainedModel) -> str | None:
    """Return a sentence where the user's own code that the settings name is not what trained the weights."""
    own, numerics = own_names(model.settings), model.about.get("numerics")
    if not own or numerics is None:
        return None
    try:
        changed = lane_key(model.settings, model.about["seed"], Numerics.parse(numerics)) != model.about["key"]
    except (UserError, ValueError, OSError):  # such as data that is not here
        return None
    if not changed:
        return None
    return (
        f"{', '.join(own)}: the code is not what trained these weights, so outputs may differ from those in the records. "
        "`sweeps export NAME -o best.yaml`, made before the change, has the code that did"
    )


def _standing(result: LaneResult) -> tuple[bool, float, int]:
    """Return what seeds are put in order by, lowest first."""
    return _order(result.solved, result.error, result.seed)


def _order(solved: bool, errors: Mapping[str, float | None], seed: int) -> tuple[bool, float, int]:
    error = decisive_error(errors)
    return not solved, math.inf if error is None else error, seed


def _require_seed(seed: int, known: Sequence[int], where: str) -> None:
    if not isinstance(seed, SupportsIndex):
        raise UserError(f"seed is {seed!r}, which must be a whole number. {where} has {ranges(known) or 'none'}")
    if seed not in known:
        raise UserError(f"{where} has no finished seed {seed}. It has: {ranges(known) or 'none'}")


def _of_record(
    found: Report, one: RankedConfiguration, result: LaneResult, built: Built, blob: bytes, ats: Sequence[At], location: str
) -> Iterator[TrainedModel]:
    try:
        state, _, _, best = from_bytes(blob, state_without_weights(built, torch.device("cpu")))
    except ValueError as error:
        raise StoreError(
            f"store {location}: the weights of seed {result.seed} of {found.name} cannot be used: {error}"
        ) from error
    last = best_of(state)
    merged = best is None and "best" in ats and "end" in ats  # one state is both
    for at in ats if not merged else ATS[:1]:
        about = {
            "sweep": found.name, "cell": one.configuration.cell, "labels": dict(one.configuration.labels),
            "configuration": one.configuration.number,
            "parameters": one.parameters, "seed": result.seed, "at": list(ATS) if best is None else [at],
            **_measured(result, at, best is None), "outcome": result.outcome, "solved": result.solved,
            "converged_at": result.converged_at, "threshold": result.threshold, "reason": result.reason,
            "verdict": verdict(result).text,
            "budget": result.budget, "steps": result.steps, "key": result.key, "numerics": found.row.numerics,
            "provenance": of_lanes([result]),
        }  # fmt: skip
        model = TrainedModel(one.configuration.settings, about)
        model.take(best if best is not None and at == "best" else last)
        yield model


def _measured(result: LaneResult, at: At, is_both: bool) -> dict[str, Any]:
    """Return the step of a state, and its errors where it was evaluated. `is_both`: the last state is the best one."""
    step = result.best_step if at == "best" else result.steps
    if at == "best" or is_both:
        return {"step": step, "error": dict(result.error), SPARSITY_ERROR: result.sparsity_error}
    steps = result.curve.get("step", [])
    if not steps or steps[-1] != step:
        return {"step": step, "error": {}, SPARSITY_ERROR: None}
    errors = {name.removeprefix("error."): column[-1] for name, column in result.curve.items() if name.startswith("error.")}
    return {"step": step, "error": errors, SPARSITY_ERROR: result.curve[SPARSITY_ERROR][-1]}


def _named(state: LaneState) -> dict[str, Tensor]:
    """Return a lane's weights and memory by the names of a module's `state_dict`."""
    memory = state["memory"].get("model", {})
    return {
        **{f"network.{name}": tensor for name, tensor in state["params"].items()},
        **{f"memory.{name}": tensor for name, tensor in memory.items()},
    }


# ------------------------------------------------------------------------------------------- files of weights


@dataclass(frozen=True)
class Weights:
    """What a file of weights holds."""

    settings: dict[str, Any]
    entries: tuple[dict[str, Any], ...]
    """`about` of each state, and under `prefix` what the names of its tensors begin with."""
    tensors: dict[str, Tensor]


def write_weights(file: Path, models: Sequence[TrainedModel], seed_given: bool, at_given: bool) -> None:
    """Write models of one configuration into a safetensors file.

    The names of the tensors are those of the module's `state_dict`, after `seed_3.` unless one seed was asked for, and after
    `best.` or `end.` unless one of these was.
    """
    entries: list[dict[str, Any]] = []
    tensors: dict[str, Tensor] = {}
    for model in models:
        seed, at = model.about["seed"], model.about["at"]
        prefix = ("" if seed_given else f"seed_{seed}.") + ("" if at_given else f"{at[0]}.")
        entries.append({**model.about, "prefix": prefix})
        tensors |= {prefix + name: tensor.detach().contiguous().clone() for name, tensor in model.state_dict().items()}
    about = {
        "format": FORMAT,
        "versions": {name: importlib.metadata.version(name) for name in ("sweeps", "torch")}
        | {"python": platform.python_version()},
        "settings": models[0].settings,
        "models": entries,
    }
    file.write_bytes(save(tensors, {"format": "pt", ABOUT: json.dumps(about, ensure_ascii=False, allow_nan=False)}))


def read_weights(file: str | Path) -> Weights:
    """Read a file that `write_weights` wrote. Raises WeightsError for any other, and where its settings cannot be used."""
    if not Path(file).is_file():
        near = nearest(Path(file).name, [path.name for path in Path(file).parent.glob("*.safetensors")])
        hint = f" Did you mean {Path(file).parent / near}?" if near else ""
        raise WeightsError(f"there is no file {file}.{hint} `sweeps export NAME --weights FILE.safetensors` writes one")
    try:
        with safe_open(str(file), "pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is no mapping)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{file} is no safetensors file, or it is damaged: {error}") from error
    if ABOUT not in metadata:
        raise WeightsError(
            f"{file} does not say which model its weights belong to: it was not written by `sweeps export NAME --weights`. "
            "A module takes its tensors by module.load_state_dict(safetensors.torch.load_file(FILE))"
        )
    try:
        about = json.loads(metadata[ABOUT])
        version, settings, entries = about["format"], about["settings"], tuple(about["models"])
        sound = isinstance(version, int) and isinstance(settings, dict) and bool(entries)
        sound = sound and all({"seed", "at", "prefix"} <= entry.keys() for entry in entries)
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
        sound, version, settings, entries = False, 0, {}, ()
    if sound and version > FORMAT:
        raise WeightsError(
            f"{file} has version {version} of the format, and this release reads up to {FORMAT}: install a newer one"
        )
    if not sound:
        raise WeightsError(f"{file}: the description of its model is damaged, or was edited by hand")
    resolved, faults, _ = resolve(settings)
    if resolved is None:
        listed = "; ".join(f"{fault.path}: {fault.message}" for fault in faults)
        raise WeightsError(f"{file}: a model cannot be built of its settings: {listed}")
    return Weights(resolved, entries, tensors)


def models_of(
    weights: Weights, file: str, seeds: Sequence[int] | None = None, at: At = "best",
    on_note: Callable[[str], object] = warnings.warn,
) -> list[TrainedModel]:  # fmt: skip
    """Return the models of a file, by seed. Raises WeightsError for an unknown seed or state, and tensors of another model."""
    seeds_there = list(dict.fromkeys(entry["seed"] for entry in weights.entries))
    for seed in seeds or ():
        _require_seed(seed, seeds_there, file)
    models = [_chosen(weights, seed, at, file) for seed in (seeds if seeds is not None else seeds_there)]
    if note := _other_code(models[0]):
        on_note(note)
    return models


def _chosen(weights: Weights, seed: int | None, at: At, file: str) -> TrainedModel:
    """Return one model of a file; `seed` None is the best one."""
    if seed is None:
        known = sorted(
            weights.entries, key=lambda entry: _order(bool(entry.get("solved")), entry.get("error") or {}, entry["seed"])
        )
        seed = known[0]["seed"]
    _require_seed(seed, list(dict.fromkeys(entry["seed"] for entry in weights.entries)), file)
    of_seed = [entry for entry in weights.entries if entry["seed"] == seed]
    entry = next((entry for entry in of_seed if at in entry["at"]), None)
    if entry is None:
        raise WeightsError(f"{file} has seed {seed} at {of_seed[0]['at'][0]} only; `sweeps export` without --at writes both")
    prefix = entry["prefix"]
    own = {name.removeprefix(prefix): tensor for name, tensor in weights.tensors.items() if name.startswith(prefix)}
    model = TrainedModel(weights.settings, {name: value for name, value in entry.items() if name != "prefix"})
    expected = model.state_dict()
    faults = [f"{name} is missing" for name in expected if name not in own]
    faults += [f"{name} is not one of its tensors" for name in own if name not in expected]
    faults += [
        f"{name} is {list(own[name].shape)}, and must be {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in own and own[name].shape != tensor.shape
    ]
    if faults:
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise WeightsError(
            f"{file}: its weights are not those of model {weights.settings['model']['name']}: {'; '.join(faults[:3])}{more}"
        )
    model.load_state_dict(own)
    return model


# ------------------------------------------------------------------------------------------- MLflow


def log_to_mlflow(
    name: str, *, seed: int | None = None, at: str = "best", store: str | Path | None = None, cell: str | None = None,
    configuration: int | None = None, register: str | None = None,
) -> Logged:  # fmt: skip
    """Log a trained seed to its run in MLflow with the PyTorch flavour, and with `register` to MLflow's model registry.

    The arguments are those of `load_model`, `name` being a sweep. The tracking server is MLFLOW_TRACKING_URI, or the database
    in the store. Raises as `load_model`, and TrackingError where MLflow lacks the run, or refuses the model.
    """
    where = default_store() if store is None else store
    if is_weights_file(name):
        raise UserError(f"{name} is a file: name the sweep, whose runs are in MLflow")
    chosen, seeds = _require(name, at, cell, configuration), None if seed is None else [seed]
    with Store(where, read_only=True) as opened:
        model = trained_models(opened, name, cell, configuration, seeds, (chosen,), best=seed is None)[0]
        row = opened.sweep(name)
        assert row is not None
    return log_model(default_uri(where), name, row.created, _to_log(model, chosen), register)


def _to_log(model: TrainedModel, at: At) -> ToLog:
    task, about = model.task, model.about
    by_rows = task.time_steps is None and not task.reads_symbols
    x = task.evaluation_inputs(task.splits[0])
    if task.reads_symbols:
        rows = torch.from_numpy(x[0][:2])
    elif by_rows:
        rows = tensors_of(x[:2])
    else:
        rows = task.present(tensors_of(x[:, :2]), tensors_of(task.shared()))
    y = outputs(model, rows)
    over_time = y.dim() == 3 and (task.reads_symbols or y.shape[1] == len(rows))
    return ToLog(
        module=model, run=("seed", about["cell"], str(about["configuration"]), str(about["seed"])),
        example=rows.numpy() if by_rows else None,
        inputs=_schema(rows, 1 if by_rows else 2), outputs=_schema(y, 2 if over_time else 1),
        parameters={path: str(value) for path, value in leaves(model.settings)},
        about={**about, "settings": model.settings}, description=_description(about),
        tags={"sweep": about["sweep"], "configuration": str(about["configuration"]), "seed": str(about["seed"]), "at": at,
              "step": str(about["step"]), "budget": str(about["budget"]), "outcome": about["outcome"], "digest": about["key"]},
        code=sorted({Path(Path(path).parts[0]) for path in own_files(model.settings, Path())}),
    )  # fmt: skip


def _schema(example: Tensor, free: int) -> tuple[str, tuple[int, ...]]:
    """Return NumPy's name of the type, and the shape, -1 in the first `free` axes."""
    return str(example.dtype).removeprefix("torch."), (*[-1] * free, *example.shape[free:])


def _description(about: Mapping[str, Any]) -> str:
    labels = ", ".join(about["labels"].values())
    errors = ", ".join(f"{split} {number(value)}" for split, value in about["error"].items())
    return (
        f"Seed {about['seed']} of configuration {about['configuration']}{f' ({labels})' if labels else ''} of sweep "
        f"{about['sweep']}, at step {about['step']}: {about['verdict']}. Errors: {errors or 'not measured'}."
    )


# ------------------------------------------------------------------------------------------- evaluation


def evaluate(model: TrainedModel) -> dict[str, float]:
    """Return what the engine's evaluation measures: `error.<split>`, `<score>.<split>`, and `sparsity_error`.

    The inputs are the task's own evaluation sets, and the targets those of the model's seed.
    """
    task, device = model.task, next(model.parameters()).device
    shared = tensors_of(task.shared(), device)
    result: dict[str, float] = {}
    with torch.no_grad():
        for split in task.splits:
            x = task.evaluation_inputs(split)
            target = tensors_of(task.truth(x, model.about.get("seed", 0)), device)
            y = _outputs(model, tensors_of(x, device), lambda part: task.present(part, shared))
            result[f"error.{split}"] = float(task.error(y, target))
            result |= {f"{name}.{split}": float(value) for name, value in task.scores(split, y, target).items()}
        found = sparsity_error(model.network.effective_weights())
        if found is not None:
            result[SPARSITY_ERROR] = float(found)
    return result


def outputs(model: TrainedModel, x: Any) -> Any:
    """Return the outputs for any number of rows, computed in parts, without gradients."""
    with torch.no_grad():
        return _outputs(model, x, lambda part: part)


def _outputs(model: TrainedModel, x: Any, present: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(x, tuple):
        return tuple(
            torch.cat([model(part) for part in symbols.split(max(1, SYMBOLS // max(1, symbols.shape[-1])))]) for symbols in x
        )
    if model.task.time_steps is None:
        return model(present(x))
    return torch.cat([model(present(part)) for part in x.split(ROWS, dim=1)])
