"""Tasks under check, and the rules for what they draw, evaluate and score. Batches are drawn as the engine draws them."""

from __future__ import annotations

import copy
import functools
import math
import sys
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

from sweeps.checking.declaration import SILENCE, Variant, draws_nothing_global, outputs_nothing
from sweeps.checking.engine import SMALL, EngineSubject
from sweeps.checking.side_effects import Event, generators, watched
from sweeps.checking.source import Fault, Location
from sweeps.config import registry
from sweeps.training.random import Stream, seed_key
from tasks.base import Task

ROWS = 16
SEEDS = (0, 1, 2, 12345)
CERTAIN = 100.0
"""The logit of the right symbol in an exact output, the others being 0."""
MOST_SECONDS = 10.0
"""The longest that `threshold` may take."""
RECORDED = ("sample", "loss", "error", "scores")
"""Methods that the engine records with a step or an evaluation."""
OUTSIDE, PAD = -1, 0


class TaskSubject(EngineSubject):
    """A task under check."""

    kind = "task"
    documentation = ((r"(?is)example.*=.*=", "two examples", "work two of them by hand: x = 1 2 3, y = 6"),)
    instead_of_random = (
        "draw from the stream that sample is given, or from np.random.RandomState(seed) with the seed that instance is given"
    )
    cls: type[Task]

    def settings(self) -> dict[str, Any]:
        # Units cannot learn a task on symbols: the model is the task's network.
        model = self.cls.network if self.cls.reads_symbols else "linear"
        return {"model": model, "task": {"name": self.name, **self.cls.small}, "train": SMALL}

    @cached_property
    def threshold(self) -> tuple[Any, float, list[Event]]:
        """The threshold, the CPU seconds that it took, and its side effects. Computed once, since it may take long."""
        task = self.task()
        started = time.process_time()
        with watched(self.sources, snapshot=generators) as seen:
            value = task.threshold()
        return value, time.process_time() - started, seen

    def task(self, variant: Variant | None = None) -> Task:
        """Return the task built anew, with empty caches."""
        for value in vars(sys.modules[self.cls.__module__]).values():
            if isinstance(value, functools._lru_cache_wrapper):
                value.cache_clear()
        return self.cls(variant.config if variant else self.cls.Config())


def data_of(task: Task, seed: int) -> dict[str, Tensor]:
    """Return the data that `sample` is given: the seed's instance and what lanes share, as tensors."""
    arrays = {**task.instance(seed), **task.shared()}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def sampled(task: Task, seed: int = 0, batch: int = ROWS, stream: int | None = None) -> tuple[Any, Any]:
    """Return a training batch of a seed: x and target, each a tensor or, of symbols, a tuple of tensors."""
    drawn = Stream(seed_key(seed if stream is None else stream, "batch"))
    x, target = task.sample(drawn, data_of(task, seed), batch)
    return x, target


def _as_arrays(x: Any) -> Any:
    """Return inputs as `truth` takes them: NumPy arrays, floats in float64."""
    return pytree.tree_map(lambda t: (t.double() if t.is_floating_point() else t).numpy(), x)


def leaves(value: Any) -> list[Any]:
    """Return the tensors or arrays of one, or of a tuple of them."""
    found: list[Any] = pytree.tree_leaves(value)
    return found


def same(one: Any, other: Any) -> bool:
    """Return whether two tensors or arrays, or two tuples of them, are equal."""
    pairs = leaves(one), leaves(other)
    return len(pairs[0]) == len(pairs[1]) and all(np.array_equal(_plain(a), _plain(b)) for a, b in zip(*pairs, strict=True))


def _plain(value: Any) -> NDArray[Any]:
    return value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)


def _exact_output(task: Task, target: Any) -> Any:
    """Return the output of an exact model: the target itself, or logits that are certain of its symbols."""
    if not task.reads_symbols:
        return target
    return pytree.tree_map(lambda t: CERTAIN * torch.nn.functional.one_hot(t, task.num_outputs).float(), target)


def _symbol_batch(task: Task, x: Any, target: Any, label: str, location: Location) -> Iterator[Fault]:
    """x and target are tuples of int64 [B, n], one for each of `task.bins` in ascending order, of the task's symbols."""
    for what, value, lowest, highest in (
        ("x", x, OUTSIDE, task.num_inputs - 1),
        ("target", target, PAD, task.num_outputs - 1),
    ):
        wanted = [[ROWS, n] for n in sorted(task.bins)]
        shapes = [list(t.shape) for t in value] if isinstance(value, tuple) else type(value).__name__
        if shapes != wanted:
            found = f"{what} has shapes {shapes} instead of {wanted}{label}"
            yield Fault(found, "return a tuple with one tensor [batch, n] for each bin, the smallest first", location)
            return
        for n, symbols in zip(sorted(task.bins), value, strict=True):
            if symbols.dtype != torch.int64:
                yield Fault(f"{what} of bin {n} is {symbols.dtype}{label}", "make it int64", location)
            yield from _foreign_symbols(f"{what} of bin {n}{label}", symbols.numpy(), (lowest, highest), location)
    for n, symbols, answer in zip(sorted(task.bins), x, target, strict=True):
        if ((symbols == OUTSIDE) != ((symbols <= PAD) & (answer == PAD))).any():
            found = f"x of bin {n} is not {OUTSIDE} exactly where x and target are both padding{label}"
            yield Fault(found, f"mark positions outside of the working space by {OUTSIDE}", location)


def _symbol_inputs(task: Task, found: Any, which: str, location: Location) -> Iterator[Fault]:
    """The inputs of a split: a tuple of whole numbers [rows, n]."""
    if not isinstance(found, tuple) or not found or any(a.ndim != 2 or not a.size for a in found):
        shapes = [list(np.shape(a)) for a in found] if isinstance(found, tuple) else type(found).__name__
        yield Fault(f"{which} has shapes {shapes}", "return a tuple of arrays [rows, n]", location)
        return
    for symbols in found:
        if not np.issubdtype(symbols.dtype, np.integer):
            yield Fault(f"{which} is {symbols.dtype}", "return whole numbers: symbols", location)
        yield from _foreign_symbols(which, symbols, (OUTSIDE, task.num_inputs - 1), location)


def _foreign_symbols(what: str, symbols: Any, allowed: tuple[int, int], location: Location) -> Iterator[Fault]:
    low, high = int(symbols.min()), int(symbols.max())
    if low < allowed[0] or high > allowed[1]:
        found = f"{what} has symbols from {low} to {high}, but {allowed[0]} to {allowed[1]} are the task's"
        yield Fault(found, "set num_inputs and num_outputs to the numbers of symbols, padding included", location)


def _wrong_output(exact: Any) -> Any:
    """Return logits that are certain of another symbol at every position."""
    return pytree.tree_map(lambda y: y.roll(1, dims=-1), exact)


def _same_cost(name: str, wrong: Tensor, least: Tensor, label: str, location: Location) -> Iterator[Fault]:
    """Yield a fault if the loss or error of wrong symbols is not larger than that of the exact ones."""
    if not float(wrong) > float(least):
        found = f"the {name} of wrong symbols is {float(wrong):g}, that of the exact target {float(least):g}{label}"
        yield Fault(found, f"let the {name} grow with wrong symbols", location)


def named(subject: TaskSubject) -> Iterator[Fault]:
    """Splits to evaluate on, a network that exists, and the numbers of inputs and outputs."""
    cls, sources = subject.cls, subject.sources
    if not isinstance(cls.splits, tuple) or not cls.splits or not all(isinstance(s, str) for s in cls.splits):
        found = f"splits = {cls.splits!r}"
        yield Fault(
            found,
            'name at least one: splits = ("interpolation", "extrapolation")',
            sources.of_class_attribute("splits"),
        )
    try:
        registry.find("network", cls.network)
    except ValueError as error:
        yield Fault(str(error), "name the network that fits this task", sources.of_class_attribute("network"))
    task = subject.task()
    for name in ("num_inputs", "num_outputs"):
        value = getattr(task, name, None)
        if not isinstance(value, int) or value < 1:
            yield Fault(
                f"{name} = {value!r}",
                f"set self.{name} to a whole number from 1",
                sources.of_method("__init__"),
            )


def instances(subject: TaskSubject) -> Iterator[Fault]:
    """Equal seeds give equal arrays, in any order; all seeds give the same names, shapes and types."""
    location = subject.sources.of_method("instance")
    for variant in subject.variants:
        task = subject.task(variant)
        first = {seed: task.instance(seed) for seed in SEEDS}
        again = subject.task(variant)
        for seed in reversed(SEEDS):
            for name, array in again.instance(seed).items():
                if not isinstance(array, np.ndarray):
                    do = "return NumPy arrays by name; the engine makes tensors of them"
                    yield Fault(f"{name} is a {type(array).__name__}{variant.label}", do, location)
                elif not np.array_equal(array, first[seed].get(name, np.nan)):
                    found = f"two calls with seed {seed} give another {name}{variant.label}"
                    yield Fault(found, "draw it from np.random.RandomState(seed)", location)
                elif _form(array) != _form(first[SEEDS[0]][name]):
                    found = f"{name} is {_form(array)} for seed {seed}, {_form(first[SEEDS[0]][name])} for seed 0"
                    yield Fault(
                        found,
                        "lanes are stacked: give every seed the same shape, for instance by a mask",
                        location,
                    )


def _form(array: Any) -> str:
    return f"{array.dtype} {list(array.shape)}"


def samples(subject: TaskSubject) -> Iterator[Fault]:
    """x [B, I] (of a sequence [T, B, ...]) and target [B, O] in float32, finite, from the stream alone.

    A task whose every batch is all its rows has `full_batch = True`. Symbols: see `_symbol_batch`.
    """
    location = subject.sources.of_method("sample")
    for variant in subject.variants:
        task = subject.task(variant)
        (x, target), (x2, target2), (x3, _) = sampled(task), sampled(task), sampled(task, stream=7)
        if task.reads_symbols:
            yield from _symbol_batch(task, x, target, variant.label, location)
        else:
            rows = len(target) if task.full_batch else ROWS
            front = (task.time_steps, rows) if task.time_steps is not None else (rows, task.num_inputs)
            for what, value, wanted in (("x", x, front), ("target", target, (rows, task.num_outputs))):
                yield from _misshapen(what, value, wanted, variant.label, location)
        if not (same(x, x2) and same(target, target2)):
            found = f"two equal streams give different batches{variant.label}"
            yield Fault(found, subject.instead_of_random, location)
        if same(x, x3) and not task.full_batch:
            yield Fault(f"two streams give the same batch{variant.label}", "draw x from the stream", location)


def _misshapen(what: str, value: Any, wanted: tuple[int, int], label: str, location: Any) -> Iterator[Fault]:
    """The first two axes must be these; a second one of rows may have further ones behind it."""
    if not isinstance(value, Tensor):
        yield Fault(f"{what} is a {type(value).__name__}{label}", "return tensors", location)
        return
    if value.dim() < 2 or value.shape[0] != wanted[0] or (value.dim() == 2 and value.shape[1] != wanted[1]):
        found = f"{what} has shape {list(value.shape)} instead of {list(wanted)}{label}"
        yield Fault(
            found,
            "one row for each of the batch; `full_batch = True` in the class if every batch is all there is",
            location,
        )
    elif value.is_floating_point() and value.dtype != torch.float32:
        yield Fault(f"{what} is {value.dtype}{label}", "make it float32", location)
    elif not value.isfinite().all():
        yield Fault(f"{what} is not finite{label}", "keep the distribution to where the rule has a value", location)


def global_generators(subject: TaskSubject) -> Iterator[Fault]:
    """No method touches torch's, NumPy's or Python's own generator."""
    for method, event in _events(subject):
        if event.kind in ("random", "change"):
            yield Fault(f"{method} draws from {event.what}", subject.instead_of_random, event.location)
    yield from draws_nothing_global(subject)


def blind(subject: TaskSubject) -> Iterator[Fault]:
    """Methods that are recorded run the same operations for all values, and print nothing."""
    for method, event in _events(subject):
        if event.kind == "value" and method in RECORDED:
            do = "use torch.where or a product with a mask instead: all lanes run the same operations"
            yield Fault(f"{method}: {event.what} reads a value", do, event.location)
        if event.kind == "output" and method in RECORDED:
            yield Fault(f"{method} calls {event.what}", SILENCE, event.location)
    yield from (f for f in outputs_nothing(subject) if "open" not in f.found)


def _events(subject: TaskSubject) -> Iterator[tuple[str, Event]]:
    """Yield the side effects of each method."""
    task = subject.task()
    _, target = sampled(task)
    output = pytree.tree_map(lambda t: t + 1, _exact_output(task, target))
    instance = data_of(task, 0)
    split = task.splits[0]
    calls: dict[str, Callable[[], Any]] = {
        "instance": lambda: task.instance(0),
        "sample": lambda: task.sample(Stream(seed_key(0, "batch")), instance, ROWS),
        "loss": lambda: task.loss(output, target),
        "evaluation_inputs": lambda: task.evaluation_inputs(split),
        "truth": lambda: task.truth(task.evaluation_inputs(split), 0),
        "error": lambda: task.error(output, target),
        "scores": lambda: task.scores(split, output, target),
    }
    subject.task()  # empties the caches, so that the calls compute everything again
    for method, call in calls.items():
        with watched(subject.sources, snapshot=generators) as seen:
            call()
        yield from ((method, event) for event in seen)
    yield from (("threshold", event) for event in subject.threshold[2])


def evaluation(subject: TaskSubject) -> Iterator[Fault]:
    """Each split has rows, [rows, I], finite, and the same in every call; of symbols, one array [rows, n] for each width."""
    location = subject.sources.of_method("evaluation_inputs")
    for variant in subject.variants:
        for split in subject.cls.splits:
            task = subject.task(variant)
            which = f"{split}{variant.label}"
            first = copy.deepcopy(task.evaluation_inputs(split))
            if task.reads_symbols:
                yield from _symbol_inputs(task, first, which, location)
            else:
                yield from _unlike_inputs(task, np.asarray(first), which, location)
            if not same(first, subject.task(variant).evaluation_inputs(split)):
                found = f"two calls give different inputs for {which}"
                yield Fault(
                    found,
                    "draw them from np.random.RandomState(a fixed number): all lanes share them",
                    location,
                )


def _unlike_inputs(task: Task, first: NDArray[Any], which: str, location: Location) -> Iterator[Fault]:
    narrow = first.ndim == 2 and task.time_steps is None and first.shape[1] != task.num_inputs
    if first.ndim < 2 or not first.size or narrow:
        wanted = "[time, rows, ...]" if task.time_steps is not None else f"[rows, {task.num_inputs}]"
        found = f"{which} has shape {list(first.shape)} instead of {wanted}"
        yield Fault(found, "return one row of inputs for each example", location)
    elif not np.isfinite(first).all():
        yield Fault(f"{which} is not finite", "keep to where the rule has a value", location)


def truths(subject: TaskSubject) -> Iterator[Fault]:
    """The oracle, on the inputs of a training batch, gives its targets; on each split it is finite and pure."""
    location = subject.sources.of_method("truth")
    for variant in subject.variants:
        task = subject.task(variant)
        # A batch of images does not contain their indices.
        for seed in () if task.inputs_are_indices else SEEDS:
            x, target = sampled(task, seed)
            exact = task.truth(_as_arrays(x), seed)
            if len(leaves(exact)) != len(leaves(target)):
                found = f"truth has {len(leaves(exact))} arrays, the target {len(leaves(target))}{variant.label}"
                yield Fault(found, "return an array for each of x", location)
                continue
            for of_x, of_target, of_truth in zip(leaves(x), leaves(target), leaves(exact), strict=True):
                arrays = of_x, of_target, np.asarray(of_truth)
                yield from _disagreement(task, *arrays, seed, variant.label, location)
        for split in subject.cls.splits:
            yield from _impure_truth(task, split, variant.label, location)


def _disagreement(
    task: Task, x: Tensor, target: Tensor, exact: NDArray[Any], seed: int, label: str, location: Location
) -> Iterator[Fault]:
    """Yield a fault where the oracle and the target of a batch differ."""
    scale = max(1.0, float(np.abs(exact).max()))
    if exact.shape != tuple(target.shape):
        found = f"truth has shape {list(exact.shape)}, the targets {list(target.shape)}{label}"
        yield Fault(found, "return [B, O]", location)
    elif not np.allclose(target.numpy(), exact, rtol=1e-4, atol=1e-6 * scale):
        worst = int(np.abs(target.numpy() - exact).reshape(len(exact), -1).max(axis=1).argmax())
        row = x[:, worst] if task.time_steps is not None else x[worst]
        found = (
            f"x = {_few(row)} of seed {seed} has the target {_few(target[worst])}, but truth returns "
            f"{_few(exact[worst])}{label}"
        )
        yield Fault(found, "work this row by hand: one of sample and truth is wrong", location)


def _impure_truth(task: Task, split: str, label: str, location: Location) -> Iterator[Fault]:
    x = task.evaluation_inputs(split)
    kept, exact = copy.deepcopy(x), task.truth(x, 0)
    if not same(kept, x):
        yield Fault(f"truth changes the inputs of {split}{label}", "compute a new array", location)
    rows = [k.shape[1 if task.time_steps is not None else 0] for k in leaves(kept)]
    if [len(e) for e in leaves(exact)] != rows or not all(np.isfinite(e).all() for e in leaves(exact)):
        found = f"truth of {split} is not finite, or not one row for each of its rows{label}"
        yield Fault(found, "keep the split to where the rule has a value", location)


def _few(values: Any) -> str:
    flat = [f"{float(v):.6g}" for v in values.reshape(-1)[:6]]
    return " ".join([*flat, "..."] if values.reshape(-1).shape[0] > 6 else flat)


def losses(subject: TaskSubject) -> Iterator[Fault]:
    """Loss and error are one finite number, which is smallest at the exact target."""
    for variant in subject.variants:
        task = subject.task(variant)
        _, target = sampled(task)
        exact = _exact_output(task, target)
        for name, measure in (("loss", task.loss), ("error", task.error)):
            location = subject.sources.of_method(name)
            least = measure(exact, target)
            if least.shape != () or not least.isfinite():
                found = f"the {name} of the exact target is {least}{variant.label}"
                yield Fault(found, "return one finite number: the mean over rows and outputs", location)
                continue
            for size, off in _moved(exact):
                if float(measure(off, target)) < float(least):
                    found = f"an output that is off by {size:g} has a smaller {name} than the target{variant.label}"
                    yield Fault(found, f"let the {name} be smallest where y is the target", location)
            if task.reads_symbols:
                wrong = _wrong_output(exact)
                yield from _same_cost(name, measure(wrong, target), least, variant.label, location)


def _moved(exact: Any) -> Iterator[tuple[float, Any]]:
    """Yield (size, output) of outputs that differ from the exact one by a small and by a larger size."""
    spans = leaves(exact)
    ways = [[Stream(seed_key(seed, "noise")).normal(tuple(y.shape)) for y in spans] for seed in range(3)]
    spec = pytree.tree_structure(exact)
    for way in (*ways, [torch.ones_like(y) for y in spans], [-torch.ones_like(y) for y in spans]):
        for size in (1e-2, 1.0):
            yield size, pytree.tree_unflatten([y + size * w for y, w in zip(spans, way, strict=True)], spec)


def scores(subject: TaskSubject) -> Iterator[Fault]:
    """`scores` returns the names in `score_names`, which may be objectives; each is one number."""
    task, named = subject.task(), tuple(subject.cls.score_names)
    _, target = sampled(task)
    found = task.scores(task.splits[0], _exact_output(task, target), target)
    if sorted(found) != sorted(named):
        location = subject.sources.of_method("scores")
        yield Fault(
            f"score_names = {named}, but scores returns {sorted(found)}",
            f"write score_names = {tuple(sorted(found))} in the class",
            location,
        )
    for name, value in found.items():
        if value.shape != ():
            yield Fault(
                f"score {name} has shape {list(value.shape)}",
                "return one number: the mean over rows",
                subject.sources.of_method("scores"),
            )


def thresholds(subject: TaskSubject) -> Iterator[Fault]:
    """A finite number above 0, or None where nothing is published; the same again, and within seconds."""
    location = subject.sources.of_method("threshold")
    value, took, _ = subject.threshold
    if value is None:
        return
    if not isinstance(value, float) or not math.isfinite(value) or value <= 0:
        yield Fault(
            f"threshold() is {value!r}",
            "return a float above 0, or None where nothing is published",
            location,
        )
    elif subject.task().threshold() != value:
        yield Fault("two calls of threshold() differ", "draw its rows from a generator with a fixed seed", location)
    if took > MOST_SECONDS:
        found = f"threshold() took {took:.0f} s"
        yield Fault(
            found,
            f"stay below {MOST_SECONDS:g} s: it is computed for every lane. Use fewer rows, or return the number itself",
            location,
        )
