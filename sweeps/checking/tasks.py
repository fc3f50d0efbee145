"""A task made ready for a check: built with its settings, its batches drawn as the engine draws them."""

from __future__ import annotations

import copy
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

from sweeps.checking.declaration import (
    SILENCE,
    TASK_DOCSTRING,
    Variant,
    draws_nothing_global,
    says_nothing,
    variants,
)
from sweeps.checking.findings import Fault, Place, Sources
from sweeps.checking.watching import Event, generators, watched
from sweeps.config import registry
from sweeps.training.random import Stream, seed_key

ROWS = 16
SEEDS = (0, 1, 2, 12345)
SURE = 100.0
"""The logit of the right symbol in an output that leaves no doubt, the others being 0."""


class TaskSubject:
    """What the rules for tasks look at."""

    kind = "task"
    docstring_needs = TASK_DOCSTRING
    instead_of_random = (
        "draw from the stream that sample is given, or from np.random.RandomState(seed) with the seed that instance is "
        "given"
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.cls = registry.find("task", name)
        self.shipped = name in registry.names("task")
        self.sources = Sources(self.cls)

    @cached_property
    def variants(self) -> list[Variant]:
        return variants(self.cls)

    @cached_property
    def threshold(self) -> tuple[Any, float, list[Event]]:
        """Its value, the seconds of a core that it took, and what it did besides. It may take long, so it is asked for once."""
        task = self.task()
        started = time.process_time()
        with watched(self.sources, snapshot=generators) as seen:
            value = task.threshold()
        return value, time.process_time() - started, seen

    def task(self, variant: Variant | None = None) -> Any:
        """Built anew, with nothing remembered from before."""
        for value in vars(sys.modules[self.cls.__module__]).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()
        return self.cls(variant.config if variant else self.cls.Config())


def is_sequence(task: Any) -> bool:
    """Whether x has a time axis in front: [T, B, ...]."""
    return task.time_steps is not None


def reads_symbols(task: Any) -> bool:
    """Whether x and target are tuples of whole symbols [B, n], and outputs are tuples of logits [B, n, O]."""
    return bool(task.reads_symbols)


def handed(task: Any, seed: int) -> dict[str, Tensor]:
    """What `sample` is handed: what varies with the seed, and what lanes share."""
    shared = task.shared()
    return {name: torch.from_numpy(array) for name, array in {**task.instance(seed), **shared}.items()}


def sampled(task: Any, seed: int = 0, batch: int = ROWS, stream: int | None = None) -> tuple[Any, Any]:
    """A training batch of a seed: x and target, each a tensor or, of symbols, a tuple of tensors."""
    drawn = Stream(seed_key(seed if stream is None else stream, "batch"))
    x, target = task.sample(drawn, handed(task, seed), batch)
    return x, target


def as_arrays(x: Any) -> Any:
    """Inputs as an oracle is given them: NumPy arrays, of numbers with a fraction in float64."""
    return pytree.tree_map(lambda t: (t.double() if t.is_floating_point() else t).numpy(), x)


def leaves(value: Any) -> list[Any]:
    """The tensors or arrays of one, or of a tuple of them."""
    found: list[Any] = pytree.tree_leaves(value)
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two tensors or arrays, or two tuples of them, are equal."""
    pairs = leaves(one), leaves(other)
    return len(pairs[0]) == len(pairs[1]) and all(
        np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(*pairs, strict=True)
    )


def exact_output(task: Any, target: Any) -> Any:
    """The output of a model that is right: the target itself, or logits that leave no doubt."""
    if not reads_symbols(task):
        return target
    return pytree.tree_map(lambda t: SURE * torch.nn.functional.one_hot(t, task.num_outputs).float(), target)


OUTSIDE, PAD = -1, 0


def symbol_batch(task: Any, x: Any, target: Any, label: str, place: Place) -> Iterator[Fault]:
    """x and target are tuples of int64 [B, n], one for each of `task.bins` in ascending order, of the task's symbols."""
    for what, value, lowest, highest in (
        ("x", x, OUTSIDE, task.num_inputs - 1),
        ("target", target, PAD, task.num_outputs - 1),
    ):
        wanted = [[ROWS, n] for n in sorted(task.bins)]
        shapes = [list(t.shape) for t in value] if isinstance(value, tuple) else type(value).__name__
        if shapes != wanted:
            found = f"{what} has shapes {shapes} instead of {wanted}{label}"
            yield Fault(
                found, "return a tuple with one tensor [batch, n] for each bin, the smallest first", place
            )
            return
        for n, symbols in zip(sorted(task.bins), value, strict=True):
            if symbols.dtype != torch.int64:
                yield Fault(f"{what} of bin {n} is {symbols.dtype}{label}", "make it int64", place)
            yield from _strange(f"{what} of bin {n}{label}", symbols.numpy(), (lowest, highest), place)
    for n, symbols, answer in zip(sorted(task.bins), x, target, strict=True):
        if ((symbols == OUTSIDE) != ((symbols <= PAD) & (answer == PAD))).any():
            found = f"x of bin {n} is not {OUTSIDE} exactly where x and target are both padding{label}"
            yield Fault(found, f"mark positions outside of the working space by {OUTSIDE}", place)


def symbol_inputs(task: Any, found: Any, which: str, place: Place) -> Iterator[Fault]:
    """The inputs of a split: a tuple of whole numbers [rows, n]."""
    if not isinstance(found, tuple) or not found or any(a.ndim != 2 or not a.size for a in found):
        shapes = [list(np.shape(a)) for a in found] if isinstance(found, tuple) else type(found).__name__
        yield Fault(f"{which} has shapes {shapes}", "return a tuple of arrays [rows, n]", place)
        return
    for symbols in found:
        if not np.issubdtype(symbols.dtype, np.integer):
            yield Fault(f"{which} is {symbols.dtype}", "return whole numbers: symbols", place)
        yield from _strange(which, symbols, (OUTSIDE, task.num_inputs - 1), place)


def _strange(what: str, symbols: Any, allowed: tuple[int, int], place: Place) -> Iterator[Fault]:
    low, high = int(symbols.min()), int(symbols.max())
    if low < allowed[0] or high > allowed[1]:
        found = f"{what} has symbols from {low} to {high}, but {allowed[0]} to {allowed[1]} are the task's"
        yield Fault(
            found, "set num_inputs and num_outputs to the numbers of symbols, padding included", place
        )


def wrong_output(exact: Any) -> Any:
    """Logits that are sure of another symbol everywhere."""
    return pytree.tree_map(lambda y: y.roll(1, dims=-1), exact)


def unnoticed(name: str, wrong: Tensor, least: Tensor, label: str, place: Place) -> Iterator[Fault]:
    """Symbols that are all wrong must cost more than those that are all right."""
    if not float(wrong) > float(least):
        found = f"the {name} of wrong symbols is {float(wrong):g}, that of the exact target {float(least):g}{label}"
        yield Fault(found, f"let the {name} grow with wrong symbols", place)


LONGEST_S = 10.0
RECORDED = ("sample", "loss", "error", "scores")


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
    """Equal seeds give equal arrays, whatever was asked before; all seeds give the same names, shapes and types."""
    place = subject.sources.of_method("instance")
    for variant in subject.variants:
        task = subject.task(variant)
        first = {seed: task.instance(seed) for seed in SEEDS}
        again = subject.task(variant)
        for seed in reversed(SEEDS):
            for name, array in again.instance(seed).items():
                if not isinstance(array, np.ndarray):
                    do = "return NumPy arrays by name; the engine makes tensors of them"
                    yield Fault(f"{name} is a {type(array).__name__}{variant.label}", do, place)
                elif not np.array_equal(array, first[seed].get(name)):
                    found = f"two calls with seed {seed} give another {name}{variant.label}"
                    yield Fault(found, "draw it from np.random.RandomState(seed)", place)
                elif _form(array) != _form(first[SEEDS[0]][name]):
                    found = (
                        f"{name} is {_form(array)} for seed {seed}, {_form(first[SEEDS[0]][name])} for seed 0"
                    )
                    yield Fault(
                        found,
                        "lanes are stacked: give every seed the same shape, for instance by a mask",
                        place,
                    )


def full_batch(task: Any) -> bool:
    """Whether every batch is all there is, whatever `train.batch` says: the class then has `full_batch = True`."""
    return bool(task.full_batch)


def _form(array: Any) -> str:
    return f"{array.dtype} {list(array.shape)}"


def samples(subject: TaskSubject) -> Iterator[Fault]:
    """x [B, I] (of a sequence [T, B, ...]) and target [B, O] in float32, finite, from the stream alone.

    A task whose every batch is all its rows says `full_batch = True`. Of symbols see `symbol_rules`.
    """
    place = subject.sources.of_method("sample")
    for variant in subject.variants:
        task = subject.task(variant)
        (x, target), (x2, target2), (x3, _) = sampled(task), sampled(task), sampled(task, stream=7)
        if reads_symbols(task):
            yield from symbol_batch(task, x, target, variant.label, place)
        else:
            rows = len(target) if full_batch(task) else ROWS
            front = (task.time_steps, rows) if is_sequence(task) else (rows, task.num_inputs)
            for what, value, wanted in (("x", x, front), ("target", target, (rows, task.num_outputs))):
                yield from _misshapen(what, value, wanted, variant.label, place)
        if not (same(x, x2) and same(target, target2)):
            found = f"two equal streams give different batches{variant.label}"
            yield Fault(found, subject.instead_of_random, place)
        if same(x, x3) and not full_batch(task):
            yield Fault(f"two streams give the same batch{variant.label}", "draw x from the stream", place)


def _misshapen(what: str, value: Any, wanted: tuple[int, int], label: str, place: Any) -> Iterator[Fault]:
    """The first two axes must be these; a second one of rows may have further ones behind it."""
    if not isinstance(value, Tensor):
        yield Fault(f"{what} is a {type(value).__name__}{label}", "return tensors", place)
        return
    if value.dim() < 2 or value.shape[0] != wanted[0] or (value.dim() == 2 and value.shape[1] != wanted[1]):
        found = f"{what} has shape {list(value.shape)} instead of {list(wanted)}{label}"
        yield Fault(
            found,
            "one row for each of the batch; `full_batch = True` in the class if every batch is all there is",
            place,
        )
    elif value.is_floating_point() and value.dtype != torch.float32:
        yield Fault(f"{what} is {value.dtype}{label}", "make it float32", place)
    elif not value.isfinite().all():
        yield Fault(
            f"{what} is not finite{label}", "keep the distribution to where the rule has a value", place
        )


def global_generators(subject: TaskSubject) -> Iterator[Fault]:
    """No method touches torch's, NumPy's or Python's own generator."""
    for method, event in _events(subject):
        if event.kind in ("random", "trace"):
            yield Fault(f"{method} draws from {event.what}", subject.instead_of_random, event.place)
    yield from draws_nothing_global(subject)


def blind(subject: TaskSubject) -> Iterator[Fault]:
    """What is recorded with the model's step or with the evaluation: same operations whatever the values, and no word."""
    for method, event in _events(subject):
        if event.kind == "value" and method in RECORDED:
            do = "use torch.where or a product with a mask instead: all lanes run the same operations"
            yield Fault(f"{method}: {event.what} looks at a value", do, event.place)
        if event.kind == "speak" and method in RECORDED:
            yield Fault(f"{method} calls {event.what}", SILENCE, event.place)
    yield from (f for f in says_nothing(subject) if "open" not in f.found)


def _events(subject: TaskSubject) -> Iterator[tuple[str, Event]]:
    """What each method does besides its work."""
    task = subject.task()
    _, target = sampled(task)
    output = pytree.tree_map(lambda t: t + 1, exact_output(task, target))
    instance = handed(task, 0)
    split = task.splits[0]
    calls: dict[str, Callable[[], Any]] = {
        "instance": lambda: task.instance(0),
        "sample": lambda: task.sample(Stream(seed_key(0, "batch")), instance, ROWS),
        "loss": lambda: task.loss(output, target),
        "evaluation_inputs": lambda: task.evaluation_inputs(split),
        "truth": lambda: task.truth(task.evaluation_inputs(split), 0),
    }
    calls["error"] = lambda: task.error(output, target)
    calls["scores"] = lambda: task.scores(split, output, target)
    subject.task()  # forgets what was remembered, so that the calls do their work again
    for method, call in calls.items():
        with watched(subject.sources, snapshot=generators) as seen:
            call()
        yield from ((method, event) for event in seen)
    yield from (("threshold", event) for event in subject.threshold[2])


def evaluation(subject: TaskSubject) -> Iterator[Fault]:
    """Each split has rows, [rows, I], finite, and the same in every call; of symbols, one array [rows, n] for each width."""
    place = subject.sources.of_method("evaluation_inputs")
    for variant in subject.variants:
        for split in subject.cls.splits:
            task = subject.task(variant)
            which = f"{split}{variant.label}"
            first = copy.deepcopy(task.evaluation_inputs(split))
            if reads_symbols(task):
                yield from symbol_inputs(task, first, which, place)
            else:
                yield from _unlike_inputs(task, np.asarray(first), which, place)
            if not same(first, subject.task(variant).evaluation_inputs(split)):
                found = f"two calls give different inputs for {which}"
                yield Fault(
                    found, "draw them from np.random.RandomState(a fixed number): all lanes share them", place
                )


def _unlike_inputs(task: Any, first: NDArray[Any], which: str, place: Place) -> Iterator[Fault]:
    narrow = first.ndim == 2 and not is_sequence(task) and first.shape[1] != task.num_inputs
    if first.ndim < 2 or not first.size or narrow:
        wanted = "[time, rows, ...]" if is_sequence(task) else f"[rows, {task.num_inputs}]"
        found = f"{which} has shape {list(first.shape)} instead of {wanted}"
        yield Fault(found, "return one row of inputs for each example", place)
    elif not np.isfinite(first).all():
        yield Fault(f"{which} is not finite", "keep to where the rule has a value", place)


def truths(subject: TaskSubject) -> Iterator[Fault]:
    """The oracle, on the inputs of a training batch, gives its targets; on each split it is finite and pure."""
    place = subject.sources.of_method("truth")
    for variant in subject.variants:
        task = subject.task(variant)
        # A batch of pictures does not tell which they are.
        for seed in () if task.inputs_are_indices else SEEDS:
            x, target = sampled(task, seed)
            exact = task.truth(as_arrays(x), seed)
            if len(leaves(exact)) != len(leaves(target)):
                found = (
                    f"truth has {len(leaves(exact))} arrays, the target {len(leaves(target))}{variant.label}"
                )
                yield Fault(found, "return an array for each of x", place)
                continue
            for of_x, of_target, of_truth in zip(leaves(x), leaves(target), leaves(exact), strict=True):
                told = f"of seed {seed}", variant.label
                yield from _disagreement(task, of_x, of_target, np.asarray(of_truth), told, place)
        for split in subject.cls.splits:
            yield from _impure_truth(task, split, variant.label, place)


def _disagreement(
    task: Any, x: Tensor, target: Tensor, exact: NDArray[Any], told: tuple[str, str], place: Place
) -> Iterator[Fault]:
    """Where the oracle and the target of a batch differ."""
    of_seed, label = told
    scale = max(1.0, float(np.abs(exact).max()))
    if exact.shape != tuple(target.shape):
        found = f"truth has shape {list(exact.shape)}, the targets {list(target.shape)}{label}"
        yield Fault(found, "return [B, O]", place)
    elif not np.allclose(target.numpy(), exact, rtol=1e-4, atol=1e-6 * scale):
        worst = int(np.abs(target.numpy() - exact).reshape(len(exact), -1).max(axis=1).argmax())
        row = x[:, worst] if is_sequence(task) else x[worst]
        found = (
            f"x = {_few(row)} {of_seed} has the target {_few(target[worst])}, but truth says "
            f"{_few(exact[worst])}{label}"
        )
        yield Fault(found, "work this row by hand: one of sample and truth is wrong", place)


def _impure_truth(task: Any, split: str, label: str, place: Place) -> Iterator[Fault]:
    x = task.evaluation_inputs(split)
    kept, exact = copy.deepcopy(x), task.truth(x, 0)
    if not same(kept, x):
        yield Fault(f"truth changes the inputs of {split}{label}", "compute a new array", place)
    rows = [k.shape[1 if is_sequence(task) else 0] for k in leaves(kept)]
    if [len(e) for e in leaves(exact)] != rows or not all(np.isfinite(e).all() for e in leaves(exact)):
        found = f"truth of {split} is not finite, or not one row for each of its rows{label}"
        yield Fault(found, "keep the split to where the rule has a value", place)


def _few(values: Any) -> str:
    flat = [f"{float(v):.6g}" for v in values.reshape(-1)[:6]]
    return " ".join([*flat, "..."] if values.reshape(-1).shape[0] > 6 else flat)


def losses(subject: TaskSubject) -> Iterator[Fault]:
    """One finite number, the least at the exact target; so is the error, if the task has one of its own."""
    for variant in subject.variants:
        task = subject.task(variant)
        _, target = sampled(task)
        exact = exact_output(task, target)
        for name in ("loss", "error"):
            place, measure = subject.sources.of_method(name), getattr(task, name)
            least = measure(exact, target)
            if least.shape != () or not least.isfinite():
                found = f"the {name} of the exact target is {least}{variant.label}"
                yield Fault(found, "return one finite number: the mean over rows and outputs", place)
                continue
            for size, off in _moved(exact):
                if float(measure(off, target)) < float(least):
                    found = f"an output that is off by {size:g} has a smaller {name} than the target{variant.label}"
                    yield Fault(found, f"let the {name} be smallest where y is the target", place)
            if reads_symbols(task):
                wrong = wrong_output(exact)
                yield from unnoticed(name, measure(wrong, target), least, variant.label, place)


def _moved(exact: Any) -> Iterator[tuple[float, Any]]:
    """Outputs that are off by a little and by more, each with by how much."""
    spans = leaves(exact)
    ways = [[Stream(seed_key(seed, "noise")).normal(tuple(y.shape)) for y in spans] for seed in range(3)]
    spec = pytree.tree_structure(exact)
    for way in (*ways, [torch.ones_like(y) for y in spans], [-torch.ones_like(y) for y in spans]):
        for size in (1e-2, 1.0):
            yield size, pytree.tree_unflatten([y + size * w for y, w in zip(spans, way, strict=True)], spec)


def scores(subject: TaskSubject) -> Iterator[Fault]:
    """`score_names` has what `scores` returns, so that a search can be for it; each is one number."""
    task, named = subject.task(), tuple(subject.cls.score_names)
    _, target = sampled(task)
    found = task.scores(task.splits[0], exact_output(task, target), target)
    if sorted(found) != sorted(named):
        place = subject.sources.of_method("scores")
        yield Fault(
            f"score_names = {named}, but scores returns {sorted(found)}",
            f"write score_names = {tuple(sorted(found))} in the class",
            place,
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
    place = subject.sources.of_method("threshold")
    value, took, _ = subject.threshold
    if value is None:
        return
    if not isinstance(value, float) or not math.isfinite(value) or value <= 0:
        yield Fault(
            f"threshold() is {value!r}", "return a float above 0, or None where nothing is published", place
        )
    elif subject.task().threshold() != value:
        yield Fault(
            "two calls of threshold() differ", "draw its rows from a generator with a fixed seed", place
        )
    if took > LONGEST_S:
        found = f"threshold() took {took:.0f} s"
        yield Fault(
            found,
            f"stay below {LONGEST_S:g} s: every lane asks for it. Fewer rows, or the number itself",
            place,
        )
