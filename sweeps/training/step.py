"""What a model may ask of the engine while it computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad
from torch.utils import _pytree as pytree

from sweeps.config.settings import Built
from sweeps.training import optimizers
from sweeps.training.optimizers import OPTIMIZERS, Params, annealed_variance, clipped, limited, with_noise
from sweeps.training.random import Stream, seed_key
from sweeps.training.settings import evaluation_only, replaced, with_floats


class Context:
    """`step` (0-dim float32 tensor, 0 before the first update), `training`, `stream`, `dropout`, and `last_error`.

    `last_error` is the interpolation error at the lane's last evaluation (0-dim float32; infinite before the first).
    `memory` is what the network keeps from step to step besides weights; empty for most.
    """

    def __init__(
        self,
        step: Tensor,
        training: bool,
        stream: Stream,
        last_error: Tensor,
        memory: dict[str, Tensor] | None = None,
    ) -> None:
        self.step, self.training, self.stream, self.last_error = step, training, stream, last_error
        self.memory = memory or {}

    def part(self, number: Any) -> Context:
        """For the part of a computation with this number, from 0: what it draws is its own."""
        return Context(self.step, self.training, self.stream.folded(number), self.last_error, self.memory)

    def dropout(self, x: Tensor, rate: Any) -> Tensor:
        """Inverted dropout with a lane's own rate in [0, 1); the identity in evaluation."""
        if not self.training:
            return x
        kept = self.stream.uniform(x.shape) >= rate
        return torch.where(kept, x / (1.0 - rate), torch.zeros_like(x))


def tensors_of(arrays: Any, device: torch.device | None = None) -> Any:
    """float32 from arrays of numbers with a fraction; whole numbers stay what they are."""

    def tensor(array: Any) -> Tensor:
        return torch.from_numpy(array.astype(np.float32) if array.dtype == np.float64 else array).to(device)

    return pytree.tree_map(tensor, arrays)


PURPOSES = ("batch", "model", "noise")
RUNNING, LOSS_NOT_FINITE, WEIGHT_NOT_FINITE = 0, 1, 2

LaneState = dict[str, Any]
Observed = dict[str, Any]
"""params {name: tensor}, moments {moment: {name: tensor}}, step int64, status int64 (one of the codes above),
last_error float32 (of the last evaluation, infinite before it), restarted_at int64 (step; 0 is never),
mean_loss float32 (running mean of a lane whose units draw discrete weights; not yet freed of its start at 0),
memory {owner: {name: tensor}} (what the network, or a rule of training, keeps from step to step besides weights)."""
MEAN_LOSS_DECAY = 0.9


@dataclass(frozen=True)
class LaneFunctions:
    """The step and the evaluation for one structure."""

    built: Built
    zeros: frozenset[str]
    """paths of floats that are 0 in every lane: plain numbers in the step, so that their terms vanish"""

    def initial(self, resolved_built: Built, seed: int, device: torch.device) -> LaneState:
        """A lane's state before its first step. `resolved_built` holds the lane's own floats."""
        params = initial_params(resolved_built, seed, device)
        moments = {
            m: {n: torch.zeros_like(p) for n, p in params.items()}
            for m in OPTIMIZERS[self.built.train.optimizer][1]
        }
        zero = torch.zeros((), dtype=torch.int64, device=device)
        memory = starting_memory(resolved_built)
        return {
            "params": params, "moments": moments, "step": zero, "status": zero.clone(),
            "last_error": torch.full((), torch.inf, device=device), "restarted_at": zero.clone(),
            "mean_loss": torch.zeros((), device=device),
            "memory": pytree.tree_map(lambda t: t.to(device), memory),
        }  # fmt: skip

    def step(
        self, state: LaneState, floats: Params, keys: Params, budget: Tensor, instance: Params, shared: Params
    ) -> LaneState:
        """Draw a batch, differentiate, update. A finished or failed lane stays as it is."""
        ctx = self.context(state, keys)
        x_BI, target_BO = self.sample(state, floats, keys, {**instance, **shared})

        def loss(params: Params) -> Any:
            y_BO, penalties = functional_call(self.model(floats), params, (x_BI, ctx))
            total, observed = self.total(state, floats, y_BO, target_BO, penalties)
            return total, (total, observed)

        grads, (value, observed) = grad(loss, has_aux=True)(state["params"])
        return self.update(state, grads, value, observed, floats, keys, budget)

    def context(self, state: LaneState, keys: Params) -> Context:
        """What the model may ask of the engine at this step of training."""
        step = state["step"]
        stream = _stream(keys, "model", step)
        return Context(
            step.to(torch.float32), True, stream, state["last_error"], state["memory"].get("model", {})
        )

    def sample(self, state: LaneState, floats: Params, keys: Params, instance: Params) -> Any:
        """The batch of this step."""
        return self._task(floats).sample(
            _stream(keys, "batch", state["step"]), instance, self.built.train.batch
        )

    def length(self, state: LaneState, floats: Params, keys: Params) -> Tensor:
        """Which length the next batch has, by the network's curriculum: one that the task has examples of, int64."""
        lengths = self.built.task.lengths
        stream = _stream(keys, "batch", state["step"]).child("length")
        memory = state["memory"]["model"]
        wanted = self.model(floats).next_length(memory, stream, lengths[0], lengths[-1])
        known = torch.tensor(lengths, device=wanted.device)
        return known[((known <= wanted).sum() - 1).clamp(min=0).unsqueeze(0)].squeeze(0)

    def sample_length(
        self, length: Tensor, bin_: int, state: LaneState, floats: Params, keys: Params, instance: Params
    ) -> Any:
        """A batch of one length, in a bin that has room for it."""
        stream = _stream(keys, "batch", state["step"])
        return self._task(floats).sample_exact(stream, instance, self.built.train.batch, bin_, length)

    def total(
        self, state: LaneState, floats: Params, y: Any, target: Any, penalties: Params
    ) -> tuple[Tensor, Observed]:
        """The task's loss and the penalties together, and what was observed on the way.

        Observed: `loss` (the task's), `penalties`, `mean_loss` (the new running mean), what the network `noted`, and, where
        the network remembers, the task's `scores` of this batch.
        """
        task = self._task(floats)
        loss = task.loss(y, target)
        terms, mean_loss = dict(penalties), state["mean_loss"]
        noted: Any = terms.pop("observed", {})
        if "score" in terms:
            terms["score"], mean_loss = _reinforced(loss.detach(), mean_loss, state["step"], terms["score"])
        observed = {"loss": loss, "penalties": terms, "mean_loss": mean_loss, "noted": noted}
        if "model" in state["memory"] and task.score_names:
            observed["scores"] = task.scores("train", y, target)
        return loss + sum(terms.values()), pytree.tree_map(torch.detach, observed)

    def update(
        self, state: LaneState, grads: Params, loss: Tensor, observed: Observed,
        floats: Params, keys: Params, budget: Tensor,
    ) -> LaneState:  # fmt: skip
        """Clip, add noise, let the optimiser move the weights, constrain them; then remember."""
        train, step, memory = self._train(floats), state["step"], state["memory"]
        if "lr" in memory:
            train = replaced(train, lr=train.lr * memory["lr"]["factor"])
        factor = self.model(floats).lr_factor(memory.get("model", {}))
        if factor is not None:
            train = replaced(train, lr=train.lr * factor)
        grads = limited(clipped(grads, train.clip_norm), train.clip_value)
        noise = _stream(keys, "noise", step)
        grads = with_noise(grads, self._noise_variance(train, step, memory, floats), noise)
        update, _ = OPTIMIZERS[train.optimizer]
        params, moments = update(state["params"], grads, state["moments"], step, train)
        memory = self._remembered(memory, observed, train, step, floats)
        params = self._constrained(params, floats, memory)
        return _advanced(state, params, moments, loss, {**state, **observed}["mean_loss"], memory, budget)

    def _noise_variance(self, train: Any, step: Tensor, memory: Any, floats: Params) -> Any:
        """Of the noise on every gradient, the network's own included; 0.0 is none."""
        variance = train.gradient_noise
        if not (isinstance(variance, float) and variance == 0.0):
            variance = annealed_variance(variance, step)
        own = self.model(floats).noise_deviation(step, memory.get("model", {}), train.lr)
        if own is not None:
            variance = variance + own.square()
        return variance

    def _remembered(self, memory: Any, observed: Observed, train: Any, step: Tensor, floats: Params) -> Any:
        result = dict(memory)
        if "lr" in memory:
            result["lr"] = optimizers.lr_decay_after(memory["lr"], observed["loss"], step, train.lr_decay)
        if "model" in memory:
            known = {**observed, "lr": train.lr}
            if self.built.network.has_curriculum:
                known["shortest"] = self.built.task.lengths[0]
            result["model"] = self.model(floats).remember(memory["model"], known, step)
        return result

    def evaluate(
        self, params: Params, memory: Any, floats: Params, inputs: Params, targets: Params, shared: Params
    ) -> dict[str, Tensor]:
        """The error and the task's scores of each split, and the sparsity error."""
        model = self.model(floats)
        ctx = resting(next(iter(params.values())).device, memory.get("model", {}))
        result: dict[str, Tensor] = {}
        for split, shown in inputs.items():
            x_BI = self.built.task.present(shown, shared)
            y_BO, _ = functional_call(model, params, (x_BI, ctx))
            result |= self.errors(split, floats, y_BO, targets[split])
        result["sparsity_error"] = self.sparsity_error(params, floats)
        return result

    def errors(self, split: str, floats: Params, y: Any, target: Any) -> dict[str, Tensor]:
        """What the task judges by on a split, and what else it reports of it."""
        task = self._task(floats)
        scores = task.scores(split, y, target)
        return {f"error.{split}": task.error(y, target)} | {f"{n}.{split}": s for n, s in scores.items()}

    def sparsity_error(self, params: Params, floats: Params) -> Tensor:
        """max over the effective weights of min(|w|, |1 - |w||); not a number where a model has none such."""
        weights = functional_call(
            _Effective(self.model(floats)), {f"model.{n}": p for n, p in params.items()}, ()
        )
        if not weights:
            return torch.full((), torch.nan, device=next(iter(params.values())).device)
        distances = [torch.minimum(w.abs(), (1.0 - w.abs()).abs()).amax() for w in weights]
        return torch.stack(distances).amax()

    def _train(self, floats: Params) -> Any:
        return with_floats(self.built.train, self._filled(floats), "train")

    def _task(self, floats: Params) -> Any:
        task = self.built.task
        config = with_floats(task.config, self._filled(floats), "task", but=evaluation_only(task))
        return type(task)(config)

    def model(self, floats: Params) -> Any:
        """A module whose configs hold the lane's floats. It is built without storage: its parameters are passed in."""
        floats = self._filled(floats)
        units = tuple(with_floats(c, floats, f"model.units.{i}") for i, (_, c) in enumerate(self.built.units))
        with torch.device("meta"):
            return self.built.model(with_floats(self.built.network_config, floats, "model"), units)

    def _filled(self, floats: Mapping[str, Any]) -> dict[str, Any]:
        return {**floats, **dict.fromkeys(self.zeros, 0.0)}

    def _constrained(self, params: Params, floats: Params, memory: Any) -> Params:
        params = {name: p.clone() for name, p in params.items()}
        own = memory.get("model", {})
        functional_call(_Constrain(self.model(floats)), {f"model.{n}": p for n, p in params.items()}, (own,))
        return params


def initial_params(built: Built, seed: int, device: torch.device, purpose: str = "initialise") -> Params:
    """A lane's parameters, drawn from its seed and a purpose."""
    model = built.model().to(device)
    with torch.no_grad():
        model.initialise(Stream(seed_key(seed, purpose), device=device))
    return {name: p.detach().clone() for name, p in sorted(model.named_parameters())}


def starting_memory(built: Built) -> dict[str, Params]:
    """What a lane remembers before its first step, by owner; empty for most."""
    memory: dict[str, Params] = {}
    if own := built.model().initial_memory():
        memory["model"] = own
    if built.train.lr_decay.rule != "never":
        memory["lr"] = optimizers.lr_decay_start()
    return memory


def resting(device: torch.device, memory: Params | None = None) -> Context:
    """The context of an evaluation: no step, and nothing is drawn."""
    nothing = torch.zeros((), device=device)
    return Context(nothing, False, Stream((0, 0), device=device), nothing, memory)


def _stream(keys: Params, purpose: str, step: Tensor) -> Stream:
    return Stream((keys[purpose][0], keys[purpose][1]), step.to(torch.int32), step.device)


class _Constrain(torch.nn.Module):
    """Lets functional_call reach a model's `constrain` and `settle`, which change its parameters in place."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, memory: Params) -> None:
        with torch.no_grad():
            self.model.constrain()
            self.model.settle(memory)


class _Effective(torch.nn.Module):
    """Lets functional_call reach a model's `effective_weights`."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self) -> list[Tensor]:
        weights: list[Tensor] = self.model.effective_weights()
        return weights


def _reinforced(loss: Tensor, mean_loss: Tensor, step: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """REINFORCE for weights that are drawn: `score` is the log-probability of the draw. Its gradient is that of
    (loss - baseline) score, the baseline being the running mean of the losses before this one (the first is its own).
    """
    before = step.to(torch.float32)
    baseline = torch.where(before > 0, mean_loss / (1.0 - MEAN_LOSS_DECAY ** before.clamp(min=1.0)), loss)
    surrogate = (loss - baseline) * score
    return surrogate - surrogate.detach(), MEAN_LOSS_DECAY * mean_loss + (1.0 - MEAN_LOSS_DECAY) * loss


def _advanced(
    state: LaneState,
    params: Params,
    moments: Any,
    loss: Tensor,
    mean_loss: Tensor,
    memory: Any,
    budget: Tensor,
) -> LaneState:
    """The new state, or the old one where the lane is done, has failed, or fails now: the last finite weights stay."""
    finite = torch.stack([torch.isfinite(p).all() for p in params.values()]).all()
    running = (state["status"] == RUNNING) & (state["step"] < budget)
    good = running & torch.isfinite(loss) & finite
    failed = torch.where(torch.isfinite(loss), WEIGHT_NOT_FINITE, LOSS_NOT_FINITE)

    def pick(new: Any, old: Any) -> Any:
        if isinstance(new, dict):
            return {key: pick(new[key], old[key]) for key in old}  # in the order of the state
        return torch.where(good, new, old)

    return {
        **state,
        "params": pick(params, state["params"]),
        "moments": pick(moments, state["moments"]),
        "mean_loss": pick(mean_loss, state["mean_loss"]),
        "memory": pick(memory, state["memory"]),
        "step": state["step"] + good.to(torch.int64),
        "status": torch.where(running & ~good, failed, state["status"]),
    }
